"""Where queries look: equal to attention and gradients written out, and drawn for each object."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import patchword as pw
from patchword.cli.main import run
from patchword.explaining.detection import detr_maps, sampled_points, yolos_maps
from patchword.explaining.drawing.detection import heated
from patchword.model.detr.model import DETR
from patchword.model.detr.transformer import DetrAttention
from support.detection import load_case
from support.detectors import KINDS, config_of, random_model, write_detector_file
from support.parity import Case, cases_in, folders

Output = pytest.CaptureFixture[str]


class _WrittenOut:
    """DETR's attention as two products in float64 whose weights are in the graph."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.weights: list[Tensor] = []

        def forward(module: DetrAttention, q: Tensor, k: Tensor, v: Tensor, padding: Any) -> Tensor:
            d, heads = module.dim, module.num_heads
            weight, bias = module.qkv.weight, module.qkv.bias
            parts = [
                (x @ weight[i * d : (i + 1) * d].T + bias[i * d : (i + 1) * d])
                .view(*x.shape[:2], heads, -1)
                .transpose(1, 2)
                for i, x in enumerate((q, k, v))
            ]
            shares = (parts[0] @ parts[1].transpose(-2, -1) / (d // heads) ** 0.5).softmax(-1)
            shares.retain_grad()
            self.weights.append(shares)
            return module.proj((shares @ parts[2]).transpose(1, 2).flatten(2))

        monkeypatch.setattr(DetrAttention, "forward", forward)


def _reference(weights: list[Tensor], encoder: int, queries: int) -> Tensor:
    """The rules of the paper, with loops: encoder, then each decoder layer's two attentions."""
    cams = [(w.detach() * w.grad).clamp(min=0)[0].mean(0) for w in weights if w.grad is not None]
    cells = cams[-1].shape[1]
    r_ii, r_qq = torch.eye(cells).double(), torch.eye(queries).double()
    r_qi = torch.zeros(queries, cells).double()
    for cam in cams[:encoder]:
        r_ii += cam @ r_ii
    for i in range(encoder, len(cams), 2):
        add_qq, add_qi = cams[i] @ r_qq, cams[i] @ r_qi
        r_qq, r_qi = r_qq + add_qq, r_qi + add_qi
        normed = []
        for r in (r_qq, r_ii):
            rest = r - torch.eye(len(r))
            normed.append((rest / rest.sum(-1, keepdim=True)).nan_to_num(0) + torch.eye(len(r)))
        r_qi = r_qi + normed[0].T @ (cams[i + 1] @ normed[1])
    return r_qi


def test_attention_and_relevance_equal_gradients_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    # Attention that is far from one-hot: rows whose relevance is almost 0 are scaled by almost 1 / 0.
    model: DETR = random_model(config_of("detr"), spread=0.1)
    image = torch.randn((1, 3, 96, 128), generator=torch.Generator().manual_seed(1))
    chosen = [(0, 1), (4, 2)]
    attention, relevance = detr_maps(model, image, chosen)
    plain = model(image).logits
    model.requires_grad_(False)  # frozen weights change nothing
    for again, before in zip(detr_maps(model, image, chosen)[1], relevance, strict=True):
        np.testing.assert_allclose(again, before, rtol=1e-5, atol=1e-9)
    model.requires_grad_(True)
    torch.testing.assert_close(model(image).logits, plain, rtol=0, atol=0)

    model.double()
    written = _WrittenOut(monkeypatch)
    for (query, label), ours, raw in zip(chosen, relevance, attention, strict=True):
        written.weights.clear()
        model(image.double()).logits[-1, 0, query, label].backward()
        expected = _reference(written.weights, 2, 6)[query].view(3, 4).numpy()
        assert ours.shape == (3, 4) and ours.min() >= 0
        np.testing.assert_allclose(ours, expected, atol=1e-4 * expected.max())
        np.testing.assert_allclose(
            raw, written.weights[-1][0].detach().mean(0)[query].view(3, 4).numpy(), atol=1e-5
        )
        assert raw.sum() == pytest.approx(1, abs=1e-5)
    assert np.abs(relevance[0] - relevance[1]).max() > 1e-3 * relevance[0].max()


CASES = [case for case in cases_in(folders(), {"detection"}) if case.name.startswith("detr_detr")]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_relevance_of_recorded_models_follows_the_rules_of_the_paper(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_case(case).model
    assert isinstance(model, DETR)
    image = torch.from_numpy(case.arrays()["image"][:1])
    with torch.no_grad():
        logits = model(image).logits[-1, 0]
    queries = logits[:, :-1].amax(1).topk(2).indices.tolist()
    chosen = [(query, int(logits[query, :-1].argmax())) for query in queries]
    _, relevance = detr_maps(model, image, chosen)
    model.double()
    written = _WrittenOut(monkeypatch)
    for (query, label), ours in zip(chosen, relevance, strict=True):
        written.weights.clear()
        model(image.double()).logits[-1, 0, query, label].backward()
        encoder, queries_of = len(model.encoder.layers), model.config.num_queries
        expected = _reference(written.weights, encoder, queries_of)[query].view(ours.shape).numpy()
        np.testing.assert_allclose(ours, expected, atol=1e-4 * expected.max())


def test_yolos_shows_what_its_detection_tokens_read_of_the_patches() -> None:
    model = random_model(config_of("yolos"))
    image = torch.randn((1, 3, 48, 80), generator=torch.Generator().manual_seed(2))
    maps = yolos_maps(model, image, [0, 3])
    weights = model.backbone.attention_maps(image, layers=[-1])[1][0].mean(0)
    # Class token, 15 patches, 5 detection tokens.
    rows = weights[-5:, 1:16].double().numpy()
    for one, query in zip(maps, (0, 3), strict=True):
        np.testing.assert_allclose(one, (rows[query] / rows[query].sum()).reshape(3, 5), atol=1e-6)


def test_the_points_are_those_that_the_last_layer_reads() -> None:
    model = random_model(config_of("vitdet"))
    cross, seen = model.layers[-1].cross, []
    image = torch.randn((1, 3, 64, 96), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        cross.offset.weight.mul_(0.1)
        hook = cross.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
        model(image)
        hook.remove()
        x, boxes, maps = seen[0]
        points = np.stack(sampled_points(model, image, range(10)))
        # Maps whose values are their own places: what is read of them is the weighted mean of the places.
        for linear in (cross.value, cross.proj):
            linear.weight.copy_(torch.eye(model.config.width))
            linear.bias.zero_()
        means = []
        for axis, (height, width) in (("x", (64, 96)), ("y", (64, 96))):
            count = width if axis == "x" else height
            ramp = torch.arange(count).float() + 0.5
            ramp = ramp.expand(height, width) if axis == "x" else ramp[:, None].expand(height, width)
            flat = [ramp.expand(1, model.config.width, height, width) for _ in maps]
            means.append(cross(x, boxes, flat)[0].view(10, 2, -1)[..., 0].mean(1).numpy())
    np.testing.assert_allclose(points[..., 2].sum(1), 1, atol=1e-5)
    low, high = points[..., :2].min(1), points[..., :2].max(1)
    inside = ((low > 0.5) & (high < [95.5, 63.5])).all(1)
    assert inside.sum() >= 2
    for axis, mean in enumerate(means):
        expected = (points[..., axis] * points[..., 2]).sum(1)
        np.testing.assert_allclose(mean[inside], expected[inside], atol=0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_draws_a_row_for_each_object(kind: str, tmp_path: Path, capsys: Output) -> None:
    weights = write_detector_file(tmp_path / "d.safetensors", kind)
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        Image.fromarray(rng.integers(0, 255, (60, 80, 3), dtype=np.uint8)).save(tmp_path / name)
    place = ["explain", str(weights), str(tmp_path / "a.png"), str(tmp_path / "b.png"), "--device", "cpu"]
    assert run([*place, "--conf", "0", "--objects", "2", "--out", str(tmp_path / "e.png")]) == 0
    said = capsys.readouterr()
    assert "4 objects drawn" in said.err and said.out.count("query") == 4
    columns = 3 if kind == "detr" else 2
    with Image.open(tmp_path / "e.png") as drawn:
        assert drawn.width > columns * 300 and drawn.height > 4 * 200
    assert run([*place, "--conf", "0", "--objects", "1", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)["images"][0]
    (one,) = first["objects"]
    found = pw.load_detector(weights, device="cpu").predict(tmp_path / "a.png", conf=0)
    assert not isinstance(found, list)
    assert (one["class"], one["score"]) == (found.names[0], pytest.approx(found.scores[0]))
    assert first["more"] == len(found) - 1
    methods = {"detr": {"attention", "relevance"}, "yolos": {"attention"}, "vitdet": {"points"}}[kind]
    assert methods <= one.keys() and not {"attention", "relevance", "points"} - methods & one.keys()


def test_a_map_is_brightest_where_it_is_highest() -> None:
    values = np.zeros((3, 4), np.float32)
    values[1, 2] = 0.2
    shown = heated(np.full((60, 80, 3), 100, np.uint8), values).astype(int).sum(axis=2)
    y, x = np.unravel_index(shown.argmax(), shown.shape)
    assert 20 <= y < 40 and 40 <= x < 60 and shown.max() > 2 * shown.min()


def test_mistakes_in_python_and_in_the_command(tmp_path: Path, capsys: Output) -> None:
    weights = write_detector_file(tmp_path / "d.safetensors")
    Image.new("RGB", (60, 80)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    (looked,) = pw.explain_detector(weights, tmp_path / "a.png", conf=0, device="cpu")
    assert len(looked.looks) == 5 and looked.more == 1
    with pytest.raises(pw.PatchwordError, match="objects is 0"):
        pw.explain_detector(weights, tmp_path / "a.png", objects=0)
    place = ["explain", str(weights), str(tmp_path / "a.png"), str(tmp_path / "b.png"), "--device", "cpu"]
    assert run([*place, "--out", str(tmp_path / "e.png"), "--conf", "1"]) == 3
    assert "nothing drawn: no object has a score of at least 1" in capsys.readouterr().err
    assert run([*place, "--mask-ratio", "0.5"]) == 2
    assert "--mask-ratio applies to" in capsys.readouterr().err
