"""Every recorded masked autoencoder: under the recorded noise, encoder and decoder must answer as the original did."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from patchword.formats.facts import Options
from patchword.formats.source import Source, read_source
from patchword.formats.write import layouts_named, write_as
from patchword.hub.find import find_weights
from patchword.inference.load_mae import load_mae
from patchword.model.mae import MAE
from support.parity import Case, cases_in, difference, folders, options_of

CASES = cases_in(folders(), {"mae"})


@torch.no_grad()
def answers(mae: MAE, image: Tensor, noise: Tensor) -> dict[str, Tensor]:
    """What the original recorded; tokens of the visible patches in the order of the noise, class token first."""
    masking = mae.masking(noise)
    vit, kept = mae.vit, []
    hook = vit.blocks[0].register_forward_hook(lambda module, given, out: kept.append(out))
    latent = mae.encode(image, masking)
    hook.remove()
    return {
        "embedded": mae.visible_tokens(image, masking),
        "block_0": kept[0],
        "latent": latent,
        "mask": masking.mask,
        "ids_restore": masking.restore,
        "pred": mae.decoder(latent, masking, vit.layout(image).grid),
        "loss": mae.errors(image, noise).mean(),
    }


def far(case: Case, mae: MAE) -> dict[str, float]:
    """Recorded answers that differ from ours by more than the case's tolerance."""
    arrays = case.arrays()
    ours = answers(mae, torch.from_numpy(arrays["image"]), torch.from_numpy(arrays["noise"]))
    found = {name: difference(ours[name], arrays[name]) for name in case.meta["outputs"]}
    return {name: value for name, value in found.items() if value > case.meta["tolerance"]}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_encoder_and_decoder_answer_as_their_original_did(case: Case) -> None:
    loaded = case.load_mae()
    assert not loaded.mae.training
    assert not far(case, loaded.mae), loaded.report


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_encoder_is_loaded_without_knowing_anything_about_the_decoder(case: Case) -> None:
    model, mae = case.load(), case.load_mae().mae
    assert model.card.decoder is None
    assert all(torch.equal(t, mae.vit.state_dict()[name]) for name, t in model.vit.state_dict().items())
    assert {part.reason for part in model.report.dropped} == {"the decoder, since only the encoder is used"}
    assert "decoder" not in str(model.report.notes)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_both_layouts_hold_what_was_read_bit_for_bit(case: Case, tmp_path: Path) -> None:
    options = options_of(case.meta["hints"], case.folder, decoder=True)
    source, _ = read_source(find_weights(case.path), options, decoder=True)
    assert source.layout is not None
    whole = source.tensors
    for step, name in enumerate(("mae", "transformers-mae")):
        # Reading 1e-12 from MAE's code, whose norms have 1e-6, is the one difference to accept.
        layout, out = layouts_named(name)[0], tmp_path / str(step)
        fields = ("norm.eps", "decoder.eps")
        written = write_as(Source(card=source.card, tensors=whole), layout, out, accept=fields)
        told = Options(**dict(written.told))
        back, _ = read_source(find_weights(out), told, decoder=True)
        assert back.tensors.keys() == whole.keys()
        assert all(torch.equal(tensor, whole[key]) for key, tensor in back.tensors.items())
        changed = {name for name, _, _ in written.changed}
        assert changed <= set(fields)
        if not changed:
            assert not far(case, load_mae(out, device="cpu", options=told).mae)
