"""A masked autoencoder's decoder in weights files: described, loaded, converted, adapted, or left out and said so."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import patchword as pw
from patchword.cli.main import run
from patchword.errors import CheckpointError
from patchword.formats.decoder import with_position_table
from patchword.formats.layout import Description
from patchword.formats.layouts.decoders import LAYERS
from patchword.formats.layouts.transformers_vit import FIVE, PUBLISHED, TransformersMAE
from patchword.formats.source import Source
from patchword.formats.write import layouts_named, write_as
from patchword.images.preprocess import Preprocess
from patchword.model.config import AttentionConfig, HeadConfig, ImageConfig, MLPConfig, PatchConfig, ViTConfig
from patchword.model.decoder import DecoderConfig
from patchword.model.kinds import ClassPool, Learned, SinCos2d
from patchword.model.mae import MAE
from patchword.model.vit import ViT
from patchword.weights.card import CARD_VERSION, ModelCard, card_from_json, card_to_json
from patchword.weights.native import read_card, write_model
from support.scans import write_scans

Tensors = dict[str, Tensor]
CONFIG = ViTConfig(
    image=ImageConfig(size=(32, 32)),
    patch=PatchConfig(size=(8, 8)),
    dim=24,
    depth=1,
    positions=SinCos2d(last_included=False),
    attention=AttentionConfig(num_heads=3),
    mlp=MLPConfig(hidden=40),
    head=HeadConfig(pool=ClassPool(), num_classes=0),
)
DECODER = DecoderConfig(dim=16, depth=2, num_heads=4, hidden=24, norm_targets=False, mask_ratio=0.6)
TOLD = {"num_heads": 3, "decoder_num_heads": 4}
NAMES = ("--num-heads", "3", "--decoder-num-heads", "4")


def model(config: ViTConfig = CONFIG, decoder: DecoderConfig = DECODER) -> tuple[ModelCard, Tensors]:
    """A card and the tensors of its file, with random weights."""
    draws = torch.Generator().manual_seed(0)
    mae = MAE(ViT(config, draws), decoder, draws)
    tensors = {name.removeprefix("vit."): tensor for name, tensor in mae.state_dict().items()}
    return ModelCard(config=config, preprocess=Preprocess.simple((32, 32)), decoder=decoder), tensors


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("own") / "mae.safetensors"
    card, tensors = model()
    write_model(path, tensors, card)
    return path


def originals(folder: Path, name: str = "mine.pth", **beside: Any) -> Path:
    """The same weights as MAE's authors store them, without the arguments that patchword adds."""
    card, tensors = with_position_table(*model())
    written = write_as(Source(card=card, tensors=tensors), layouts_named("mae")[0], folder / "whole.pth")
    tree = torch.load(written.path, weights_only=True)
    torch.save({"model": tree["model"], **beside}, folder / name)
    return folder / name


@torch.no_grad()
def predicted(mae: MAE) -> Tensor:
    draws = torch.Generator().manual_seed(1)
    images, noise = torch.randn(2, 3, 32, 32, generator=draws), torch.rand(2, 16, generator=draws)
    return mae.predict(images, mae.masking(noise))


def test_a_card_with_a_decoder_has_a_new_version_and_says_the_same_when_read() -> None:
    card, _ = model()
    assert json.loads(card_to_json(card))["version"] == CARD_VERSION
    assert card_from_json(card_to_json(card), "it") == card
    older = json.loads(card_to_json(replace(card, decoder=None, config=replace(CONFIG))))
    assert older["version"] == 1 and "decoder" not in older


def test_load_gives_the_encoder_and_load_mae_both(own: Path, tmp_path: Path) -> None:
    tensors = model()[1]
    mae, encoder = pw.load_mae(own, device="cpu"), pw.load(own, device="cpu")
    assert isinstance(mae, pw.MAE) and mae.config == DECODER and not mae.training
    assert all(
        torch.equal(mae.decoder.state_dict()[n], tensors[f"decoder.{n}"]) for n in mae.decoder.state_dict()
    )
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    assert torch.equal(encoder(images), mae.vit(images)) and torch.equal(encoder(images), encoder(images))
    encoder.save(tmp_path / "encoder.safetensors")
    assert read_card(tmp_path / "encoder.safetensors").decoder is None


@pytest.mark.parametrize("to", ["mae", "patchword"])
def test_convert_keeps_the_decoder_and_computes_its_positions(
    to: str, own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / ("out.safetensors" if to == "patchword" else "out")
    assert run(["convert", str(own), "--to", to, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "predicted patches" in said and "dropped" not in said
    told = {"num_heads": 3} if to == "mae" else {}
    mae = pw.load_mae(out, device="cpu", **told)  # type: ignore[arg-type]
    assert torch.allclose(predicted(mae), predicted(pw.load_mae(own, device="cpu")), atol=1e-5)
    assert (mae.config.mask_ratio, mae.config.norm_targets) == (0.6, False)


def test_a_format_without_a_place_for_a_decoder_says_that_it_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card, tensors = model(replace(CONFIG, positions=Learned()))
    write_model(tmp_path / "own.safetensors", tensors, card)
    assert (
        run(["convert", str(tmp_path / "own.safetensors"), "--to", "dino", "--out", str(tmp_path / "o.pth")])
        == 0
    )
    assert "31 tensors: the decoder, for which this format has no place" in capsys.readouterr().out


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("names", [PUBLISHED, FIVE], ids=["published", "five"])
def test_every_spelling_of_transformers_is_read_and_written_back(
    layer: str, names: Any, tmp_path: Path
) -> None:
    card, tensors = with_position_table(*TransformersMAE().rewritten_for(*model()))
    spelling = {"prefix": "vit.", "names": names, "decoder_layer": layer, "decoder_names": names}
    layout = layouts_named("transformers-mae")[0]
    out = tmp_path / "out"
    done = write_as(Source(card=card, tensors=tensors, layout=layout, spelling=spelling), layout, out)
    assert done.reopened.description.spelling["decoder_layer"] == layer
    stored = set(done.reopened.checkpoint.tensors)
    assert f"{layer.format(i=1)}{names.q}.weight" in stored
    rules = layout.rules(Description(config=card.config, preprocess=card.preprocess, decoder=card.decoder,
                                     spelling=spelling))  # fmt: skip
    assert {name for rule in rules for name in getattr(rule, "theirs", ())} == stored
    mae = pw.load_mae(out, device="cpu")
    assert all(torch.equal(mae.decoder.state_dict()[n.removeprefix("decoder.")], t)
               for n, t in tensors.items() if n.startswith("decoder."))  # fmt: skip


@pytest.mark.parametrize(
    ("name", "beside", "normalised", "source"),
    [
        ("mae_visualize_vit_base.pth", {}, False, "mae_visualize_vit_base.pth"),
        ("mae_pretrain_vit_base_full.pth", {}, True, "mae_pretrain_vit_base_full.pth"),
        (
            "checkpoint-799.pth",
            {"args": {"norm_pix_loss": True, "mask_ratio": 0.9}},
            True,
            "args in the file",
        ),
    ],
)
def test_what_the_decoder_predicts_comes_from_the_file_or_its_published_name(
    name: str, beside: dict[str, Any], normalised: bool, source: str, tmp_path: Path
) -> None:
    path = originals(tmp_path, name, **beside)
    found = pw.inspect(path, options=pw.Options(**TOLD))  # type: ignore[arg-type]
    assert found.card.decoder is not None and found.card.decoder.norm_targets == normalised
    assert source in {f.name: f.source for f in found.report.facts}["norm_pix_loss"]
    assert found.card.decoder.mask_ratio == (0.9 if beside else 0.75)


def test_inspect_describes_the_decoder_and_says_which_option_it_lacks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = originals(tmp_path, "mae_visualize_vit_base.pth")
    assert run(["inspect", str(path), *NAMES]) == 0
    said = capsys.readouterr().out
    assert "dim 16, depth 2, 4 heads, MLP 24" in said and "mask ratio" in said and "no decoder" not in said
    assert run(["inspect", str(path), "--num-heads", "3"]) == 0
    assert "pass --decoder-num-heads" in capsys.readouterr().out


def test_the_weights_of_a_training_run_are_the_encoder_and_the_decoder_is_said_to_be_left(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_scans(tmp_path / "scans", {"d0": 4, "d1": 4})
    said = [
        "train",
        str(tmp_path / "scans"),
        "--weights",
        str(own),
        "--out",
        str(tmp_path / "run"),
        "--dry-run",
    ]
    assert run(said) == 0
    assert "the decoder (31 tensors) is left out" in capsys.readouterr().err


@pytest.mark.parametrize("positions", ["sincos2d", "learned"])
def test_adapt_keeps_the_decoder_at_another_size_and_leaves_it_out_for_other_patches(
    positions: Any, tmp_path: Path
) -> None:
    card, tensors = model(decoder=replace(DECODER, positions=positions))
    write_model(tmp_path / "a.safetensors", tensors, card)
    done = pw.adapt(tmp_path / "a.safetensors", tmp_path / "b.safetensors", image_size=48)
    assert [c.after for c in done.changes if "decoder" in c.part] == ["6 x 6 x 16"] * (positions == "learned")
    mae = pw.load_mae(tmp_path / "b.safetensors", device="cpu")
    assert (
        mae.errors(torch.zeros(1, 3, 48, 48), torch.rand(1, 36, generator=torch.Generator())).isfinite().all()
    )
    done = pw.adapt(tmp_path / "a.safetensors", tmp_path / "c.safetensors", channels=1)
    assert "the decoder is left out" in " ".join(done.notes)
    assert pw.load(tmp_path / "c.safetensors").card.decoder is None


Change = Callable[[Tensors], object]
WRONG: dict[str, tuple[Change, str]] = {
    "another width": (lambda t: t.update({"decoder_embed.weight": torch.ones(16, 32)}), "width 32"),
    "another grid": (
        lambda t: t.update(decoder_pos_embed=torch.ones(1, 10, 16)),
        "decoder_pos_embed has shape",
    ),
    "half a decoder": (lambda t: t.pop("decoder_norm.weight"), "its decoder lacks decoder_norm.weight"),
    "no embedding": (lambda t: t.pop("decoder_embed.weight"), "its decoder lacks decoder_embed.weight"),
    "no block 0": (
        lambda t: [t.pop(name) for name in list(t) if name.startswith("decoder_blocks.0.")],
        "its decoder lacks decoder_blocks.0",
    ),
    "extra tensors": (lambda t: t.update(decoder_extra=torch.ones(2)), "no rule for decoder_extra [2]"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_decoder_that_does_not_fit_is_an_error_that_says_how_to_read_the_encoder(
    kind: str, tmp_path: Path
) -> None:
    change, message = WRONG[kind]
    tree = torch.load(originals(tmp_path), weights_only=True)
    change(tree["model"])
    torch.save(tree, tmp_path / "wrong.pth")
    with pytest.raises(CheckpointError) as caught:
        pw.load_mae(tmp_path / "wrong.pth", **TOLD, norm_pix_loss=True)  # type: ignore[arg-type]
    assert message in caught.value.message and caught.value.fix
    if kind != "another grid":
        assert "drop" in caught.value.fix
    alone = pw.load(tmp_path / "wrong.pth", num_heads=3, drop=["decoder_*"])
    assert alone.report.filled == 1


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        (
            "mae_pretrain_vit_base.pth",
            "https://dl.fbaipublicfiles.com/mae/visualize/mae_visualize_vit_base.pth",
        ),
        ("mine.pth", "hf://facebook/vit-mae-base"),
    ],
)
def test_a_file_with_an_encoder_alone_names_one_with_a_decoder(name: str, fix: str, tmp_path: Path) -> None:
    tree = torch.load(originals(tmp_path), weights_only=True)
    kept = {n: t for n, t in tree["model"].items() if not n.startswith("decoder_") and n != "mask_token"}
    torch.save({"model": kept}, tmp_path / name)
    with pytest.raises(CheckpointError, match="without a decoder") as caught:
        pw.load_mae(tmp_path / name, num_heads=3)
    assert fix in caught.value.fix


def test_a_fact_that_no_file_states_is_asked_for_by_its_option(tmp_path: Path) -> None:
    path = originals(tmp_path)
    for told, option in (({"num_heads": 3}, "decoder_num_heads"), (TOLD, "norm_pix_loss")):
        with pytest.raises(CheckpointError) as caught:
            pw.load_mae(path, **told)  # type: ignore[arg-type]
        assert option in caught.value.fix
    assert pw.load_mae(path, **TOLD, norm_pix_loss=True).config.norm_targets  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match="not divisible by 5 heads"):
        pw.load_mae(path, num_heads=3, decoder_num_heads=5, norm_pix_loss=True)


def test_own_files_without_a_decoder_say_so(tmp_path: Path) -> None:
    card, tensors = model()
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("decoder.")}
    write_model(tmp_path / "e.safetensors", kept, replace(card, decoder=None))
    with pytest.raises(CheckpointError, match="without a decoder"):
        pw.load_mae(tmp_path / "e.safetensors")
    write_model(tmp_path / "torn.safetensors", kept, card)
    with pytest.raises(CheckpointError, match=r"lacks decoder\."):
        pw.load_mae(tmp_path / "torn.safetensors")
