"""Probes that are trained: what they read, that all of them is trained, and that the encoder is not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from patchword.cli.main import patchword
from patchword.data.dataset import Dataset
from patchword.data.open import open_data
from patchword.errors import DataError, SettingsError
from patchword.images.geometry import Keep
from patchword.images.preprocess import Preprocess
from patchword.inference.load import load
from patchword.inference.model import Model
from patchword.inference.probe import ProbeRequest, open_for_probe
from patchword.model.kinds import MeanPool
from patchword.model.sizes import sized
from patchword.model.vit import ViT
from patchword.probes.kinds import PROBES, TRAINED, ProbeKind
from patchword.probes.parts import part_for
from patchword.runs.probing import evaluate_probe
from patchword.training.probing import attentive
from patchword.training.probing.attentive import AttentiveProbe, fit_attentive, logits_of, predict_attentive
from patchword.training.probing.protocols import DINO_LINEAR, IMAGENET, MAE_LINEAR, linear_plan
from patchword.training.probing.tokens import Tokens
from patchword.training.probing.views import LinearHead, fit_on_views
from patchword.weights.card import ModelCard
from patchword.weights.native import write_model

CPU = torch.device("cpu")
SIMPLE = Preprocess.simple(32)


def _config(class_token: bool = True):  # type: ignore[no-untyped-def]
    whole = sized("ViT-Ti/16", image_size=32, num_classes=0)
    config = replace(whole, dim=24, depth=6, attention=replace(whole.attention, num_heads=2))
    if class_token:
        return config
    tokens, head = replace(config.tokens, class_token=False), replace(config.head, pool=MeanPool())
    return replace(config, tokens=tokens, head=head)


@pytest.fixture
def vit() -> ViT:
    return ViT(_config(), torch.Generator().manual_seed(0))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Noise with a red or a blue square somewhere."""
    drawn = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 6)):
        for label, channel in enumerate((0, 2)):
            for i in range(count):
                pixels = drawn.integers(0, 90, (32, 32, 3), np.uint8)
                top, left = drawn.integers(0, 2, 2) * 16
                pixels[top : top + 16, left : left + 16, channel] += 150
                place = tmp_path / "data" / split / f"c{label}" / f"{i}.png"
                place.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(place)
    return tmp_path / "data"


def _model(folder: Path, class_token: bool = True, preprocess: Preprocess = SIMPLE) -> Model:
    config = _config(class_token)
    tensors = ViT(config, torch.Generator().manual_seed(0)).state_dict()
    write_model(folder / "m.safetensors", tensors, ModelCard(config=config, preprocess=preprocess))
    return load(folder / "m.safetensors", device="cpu")


def _dataset(model: Model, data: Path) -> Dataset:
    return open_for_probe(model, data)


def _tokens(vit: ViT, data: Path, memory: int = 1 << 30) -> Tokens:
    split = open_data(data).training
    return Tokens(vit, SIMPLE, split, workers=1, device=CPU, memory=memory)


@pytest.mark.parametrize("kind", PROBES)
def test_each_probe_leaves_the_encoder_as_it_was_and_states_all_that_it_fitted(
    kind: ProbeKind, data: Path, tmp_path: Path
) -> None:
    model = _model(tmp_path)
    before = {name: tensor.clone() for name, tensor in model.vit.state_dict().items()}
    epochs = 2 if kind in TRAINED else None
    found = evaluate_probe(
        model, _dataset(model, data), ProbeRequest(kind=kind, cache=False, epochs=epochs)
    ).probe
    after = model.vit.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(p.grad is not None for p in model.vit.parameters())
    assert found is not None and found.layer and found.pooling and found.norm and found.name.startswith(kind)
    width = {"dino-linear": 4 * 24}.get(kind, 24)
    linear = {"weight": 2 * width, "bias": 2}
    fitted = {"knn": {}, "dino-knn": {}, "attentive": {**linear, "query": 24, "keys": 576, "values": 576}}
    assert dict(found.parameters) == fitted.get(kind, linear)
    assert found.seed == (0 if kind in TRAINED else None)


def test_every_parameter_of_an_attentive_probe_is_trained(vit: ViT, data: Path) -> None:
    tokens = _tokens(vit, data)
    drawn = attentive._Trainer(tokens, 2, 2, 0, 3)._drawn()
    fit = fit_attentive(tokens, 2, 2, epochs=3)
    for (name, start), end in zip(drawn.named_parameters(), fit.probe.parameters(), strict=True):
        assert not torch.isclose(start, end, rtol=0, atol=1e-7).all(1 if start.ndim > 1 else 0).any(), name


def test_an_attentive_probe_is_attention_as_usually_written() -> None:
    generator = torch.Generator().manual_seed(1)
    probe, other = (AttentiveProbe(12, 3, 5, generator) for _ in range(2))
    tokens = torch.randn(4, 7, 12, generator=generator)
    query = probe.query.view(1, 3, 1, 4).expand(4, -1, -1, -1)
    keys, values = ((tokens @ w.T).view(4, 7, 3, 4).transpose(1, 2) for w in (probe.keys, probe.values))
    read = torch.nn.functional.scaled_dot_product_attention(query, keys, values).flatten(1)
    found = logits_of([other, probe], tokens)[1]
    torch.testing.assert_close(found, read @ probe.weight.T + probe.bias)


def test_an_attentive_probe_repeats_by_seed_and_learns(vit: ViT, data: Path) -> None:
    tokens = _tokens(vit, data)
    first, again, other = (fit_attentive(tokens, 2, 2, seed=seed, epochs=6) for seed in (0, 0, 1))
    assert all(
        torch.equal(a, b) for a, b in zip(first.probe.parameters(), again.probe.parameters(), strict=True)
    )
    assert not torch.equal(first.probe.query, other.probe.query)
    assert first.losses == again.losses and first.held_out == 4 + 2
    split = open_data(data).evaluation
    scored = Tokens(vit, SIMPLE, split, workers=1, device=CPU, memory=1 << 30)
    assert (predict_attentive(first.probe, scored, tokens).argmax(1) == scored.labels).all()


def test_the_scored_images_have_no_say_in_the_choice(data: Path, tmp_path: Path) -> None:
    model, seen = _model(tmp_path), []
    for _ in range(2):
        request = ProbeRequest(kind="attentive", cache=False, epochs=2)
        found = evaluate_probe(model, _dataset(model, data), request).probe
        assert found is not None
        seen.append(dict(found.settings))
        for i in range(6):  # the labels of the scored images change places
            one, two = data / f"val/c0/{i}.png", data / f"val/c1/{i}.png"
            kept = one.read_bytes()
            one.write_bytes(two.read_bytes())
            two.write_bytes(kept)
    assert seen[0] == seen[1] and "6 held-out training images" in str(seen[0]["chosen"])


def test_tokens_that_do_not_fit_in_memory_are_computed_again_and_give_the_same_probe(
    vit: ViT, data: Path
) -> None:
    (data / "train/c0/5.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    held, computed = _tokens(vit, data), _tokens(vit, data, memory=1000)
    assert held.held and not held.note and not computed.held
    assert "patch tokens of 24 images of train need" in computed.note and "in each epoch" in computed.note
    assert [f.name for f in held.failures] == [f.name for f in computed.failures]
    one, two = (fit_attentive(tokens, 2, 2, epochs=2).probe for tokens in (held, computed))
    assert all(
        torch.allclose(a, b, atol=1e-5) for a, b in zip(one.parameters(), two.parameters(), strict=True)
    )


def test_the_published_protocols_have_the_published_values() -> None:
    mae, dino = (linear_plan(protocol, IMAGENET) for protocol in (MAE_LINEAR, DINO_LINEAR))
    assert (mae.batch, mae.lr, mae.schedule.epochs, mae.schedule.warmup_epochs) == (16384, 6.4, 90, 10)
    assert (dino.batch, dino.lr, dino.schedule.epochs, dino.schedule.warmup_epochs) == (1024, 0.004, 100, 0)
    assert (
        len(mae.scaled) == 1
        and "bilinearly" in mae.scaled[0]
        and not dino.scaled
        and mae.name == "mae-linear"
    )
    few = linear_plan(MAE_LINEAR, 1000, 9)
    assert (few.batch, few.lr, few.schedule.warmup_epochs) == (64, 6.4, 1) and len(few.scaled) == 5
    assert few.name == "mae-linear, 9 of 90 epochs"


def test_the_head_behind_batch_norm_folds_into_a_linear_layer() -> None:
    generator = torch.Generator().manual_seed(0)
    head = LinearHead(6, 3, batch_norm=True, std=0.5, generator=generator)
    reference = torch.nn.BatchNorm1d(6, affine=False, eps=1e-6)
    for step in range(80):
        features = torch.randn(32, 6, generator=generator) * 3 + 7
        expected = torch.nn.functional.linear(reference(features), head.weight, head.bias)
        torch.testing.assert_close(head(features), expected, rtol=1e-4, atol=1e-4)
        assert step or torch.allclose(head.mean, features.mean(0), atol=1e-5)
    torch.testing.assert_close(head.mean, reference.running_mean, rtol=1e-2, atol=1e-2)
    weight, bias = head.folded()
    features = torch.randn(5, 6, generator=generator) + 7
    torch.testing.assert_close(features @ weight.T + bias, head.eval()(features), rtol=1e-4, atol=1e-4)


def test_dino_reads_four_class_tokens_of_narrow_models_and_the_mean_of_wide_ones(vit: ViT) -> None:
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    vit.eval()
    layers = vit.encode(images, range(2, 6))
    narrow = part_for("dino-linear", vit.config)
    assert torch.equal(narrow.read(vit, images), torch.cat([layers[i][:, 0] for i in range(2, 6)], 1))
    assert narrow.layer(vit) == "blocks 3 to 6 of 6"
    wide = replace(part_for("dino-linear", sized("b/16")))
    expected = torch.cat((layers[5][:, 0], layers[5][:, 1:].mean(1)), 1)
    assert torch.equal(wide.read(vit, images), expected) and "mean of the patch" in wide.text(vit)


def test_views_are_the_same_for_the_same_seed_and_the_loss_falls(vit: ViT, data: Path) -> None:
    split, part, said = open_data(data).training, part_for("mae-linear", vit.config), []
    fits = [
        fit_on_views(
            vit, SIMPLE, split, 2, linear_plan(MAE_LINEAR, 24, 12), part, seed=seed, workers=1, device=CPU,
            batch_size=batch, say=said.append,
        )
        for seed, batch in ((0, 24), (0, 5), (1, 24))
    ]  # fmt: skip
    np.testing.assert_allclose(fits[0].weight, fits[1].weight, atol=1e-3)
    assert not np.allclose(fits[0].weight, fits[2].weight, atol=1e-3)
    assert fits[0].losses[-1] < fits[0].losses[0] and fits[0].steps == 12
    assert "288 of them (12 x 24 images)" in said[0]


def test_a_model_without_a_class_token_is_read_as_its_head_would_and_says_so(
    data: Path, tmp_path: Path
) -> None:
    model = _model(tmp_path, class_token=False)
    found = evaluate_probe(model, _dataset(model, data), ProbeRequest(kind="dino-knn", cache=False)).probe
    assert found is not None and found.pooling == "the mean of all patch tokens"
    assert found.scaled == ("the model has no class token, so the probe reads the mean of all patch tokens",)


@pytest.mark.parametrize("kind", PROBES)
def test_one_class_is_refused(kind: ProbeKind, data: Path, tmp_path: Path) -> None:
    model, dataset = _model(tmp_path), open_data(data)
    train = dataset.training
    one = replace(
        dataset, splits={**dataset.splits, "train": train.subset(np.flatnonzero(train.labels == 0))}
    )
    with pytest.raises(DataError, match="at least two classes, and these are of one"):
        evaluate_probe(model, one, ProbeRequest(kind=kind, cache=False))


@pytest.mark.parametrize("kind", ["attentive", "mae-linear"])
def test_images_whose_sizes_vary_are_refused_by_name(kind: ProbeKind, data: Path, tmp_path: Path) -> None:
    model = _model(tmp_path, preprocess=replace(SIMPLE, resize=Keep()))
    with pytest.raises(SettingsError, match=f"the {kind} probe needs images of one size"):
        evaluate_probe(model, _dataset(model, data), ProbeRequest(kind=kind, cache=False))


@pytest.mark.parametrize("kind", PROBES)
def test_several_classes_for_an_image_are_refused(kind: ProbeKind, data: Path, tmp_path: Path) -> None:
    rows = [f"{p.relative_to(data)},{p.parent.name};x,{p.parent.parent.name}" for p in data.rglob("*.png")]
    (data / "t.csv").write_text("\n".join(["path,label,split", *rows]) + "\n")
    from patchword.data.request import OpenRequest

    how = OpenRequest(image_column="path", label_column="label", split_column="split", label_separator=";")
    model = _model(tmp_path)
    with pytest.raises(DataError, match="several classes for an image"):
        evaluate_probe(model, open_data(data / "t.csv", how), ProbeRequest(kind=kind, cache=False))


def test_mae_fine_tuning_pools_anew_and_keeps_the_encoder(data: Path, tmp_path: Path) -> None:
    before = _model(tmp_path).vit.state_dict()
    given = ["train", str(data), "--weights", str(tmp_path / "m.safetensors"), "--recipe", "mae-finetune"]
    given += [
        "--out",
        str(tmp_path / "run"),
        "--epochs",
        "1",
        "--lr",
        "1e-12",
        "--threads",
        "1",
        "--device",
        "cpu",
    ]
    result = CliRunner().invoke(patchword, [*given, "-o", "run.precision=float32"])
    assert result.exit_code == 0, result.output + repr(result.exception)
    vit = load(tmp_path / "run/last.safetensors", device="cpu").vit
    assert vit.config.head.norm == "pooled" and vit.config.head.pool == MeanPool()
    after = vit.state_dict()
    shared = [name for name in before if not name.startswith("norm.")]
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in shared)
    assert torch.allclose(after["pooled_norm.weight"], torch.ones(24))
    said = " ".join(result.stderr.split())
    assert "this norm starts fresh" in said and "warning: model.head" not in said
