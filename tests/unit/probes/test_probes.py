"""Probes: exact neighbours, the regression's optimum, features by content, and a head that predicts as the probe does."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from patchword.data.open import open_data
from patchword.errors import DataError, SettingsError
from patchword.images.preprocess import Preprocess
from patchword.model.sizes import sized
from patchword.model.vit import ViT
from patchword.probes import knn
from patchword.probes.cache import FeatureCache
from patchword.probes.features import features
from patchword.probes.fit import floor, set_head
from patchword.probes.linear import fit_linear

CPU = torch.device("cpu")
SIMPLE = Preprocess.simple(32)


def _blobs(count: int, classes: int, dim: int = 8) -> tuple[np.ndarray, np.ndarray]:
    drawn = np.random.default_rng(0)
    labels = np.arange(count) % classes
    centres = drawn.normal(size=(classes, dim)) * 2
    values = (centres[labels] + drawn.normal(size=(count, dim)) * 2) * np.logspace(-2, 2, dim) + 5
    return values.astype(np.float32), labels.astype(np.int64)


def test_knn_in_blocks_equals_all_similarities_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    values, labels = _blobs(90, 3)
    monkeypatch.setattr(knn, "_QUERIES", 7)
    monkeypatch.setattr(knn, "_KEYS", 11)
    votes = knn.knn_votes(values[:60], labels[:60], values[60:], 3, k=13)
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    for row, similar in zip(votes, unit[60:] @ unit[:60].T, strict=True):
        near = np.argsort(-similar)[:13]
        weights = np.exp(similar[near] / knn.TEMPERATURE)
        expected = np.bincount(labels[near], weights, minlength=3) / weights.sum()
        np.testing.assert_allclose(row, expected, atol=1e-4)
    with pytest.raises(SettingsError, match="60 training images"):
        knn.knn_votes(values[:60], labels[:60], values[60:], 3, k=61)


@pytest.mark.parametrize("classes", [2, 4])
def test_the_linear_probe_is_at_the_optimum_of_its_objective(classes: int) -> None:
    values, labels = _blobs(120, classes)
    weights = 1.0 + labels
    probe = fit_linear(values, labels, classes, penalty=0.01, weights=weights)
    mean, scale = values.mean(0), values.std(0)
    w = torch.tensor(probe.weight * scale, dtype=torch.float64, requires_grad=True)
    b = torch.tensor(probe.bias + probe.weight @ mean, dtype=torch.float64, requires_grad=True)
    logits = torch.from_numpy((values - mean) / scale).double() @ w.T + b
    each = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels), reduction="none")
    share = torch.from_numpy(weights / weights.sum())
    # Two classes share one penalised vector, the difference of the rows.
    norm = (w[1] - w[0]).square().sum() if classes == 2 else w.square().sum()
    ((share * each).sum() + 0.005 * norm).backward()
    assert probe.converged and w.grad is not None and w.grad.abs().max() < 1e-4


def test_the_penalty_is_stronger_when_features_are_noise() -> None:
    drawn = np.random.default_rng(1)
    values, labels = _blobs(120, 3)
    noise = drawn.normal(size=(120, 40)).astype(np.float32)
    assert fit_linear(noise, labels, 3).penalty > fit_linear(values, labels, 3).penalty


def test_a_class_without_images_is_never_predicted_and_one_class_is_refused() -> None:
    values, labels = _blobs(60, 2)
    probe = fit_linear(values, labels, 3)
    assert set(probe.logits(values).argmax(1)) <= {0, 1}
    with pytest.raises(DataError, match="two classes"):
        fit_linear(values, np.zeros(60, np.int64), 2)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    drawn = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 4)):
        for label, colour in enumerate(((200, 60, 60), (60, 200, 60), (60, 60, 200))):
            for i in range(count):
                place = tmp_path / "data" / split / f"c{label}" / f"{i}.png"
                place.parent.mkdir(parents=True, exist_ok=True)
                pixels = np.clip(drawn.normal(colour, 60, (32, 32, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(place)
    return tmp_path / "data"


@pytest.fixture
def vit() -> ViT:
    whole = sized("ViT-Ti/16", image_size=32, num_classes=3)
    config = replace(whole, dim=24, depth=2, attention=replace(whole.attention, num_heads=2))
    return ViT(config, torch.Generator().manual_seed(0))


def test_the_floor_put_into_the_head_gives_the_score_of_the_floor(data: Path, vit: ViT) -> None:
    dataset = open_data(data)
    found = floor(vit, SIMPLE, dataset, workers=1, device=CPU)
    set_head(vit, found.weight, found.bias)
    vit.eval()
    right = []
    from patchword.data.loader import from_split, iterate

    for batch in iterate(from_split(dataset.evaluation), SIMPLE, 5, 1):
        with torch.inference_mode():
            predicted = vit(batch.images).argmax(1).tolist()
        right += [p == dataset.evaluation.labels[i] for i, p in zip(batch.indices, predicted, strict=True)]
    assert found.top1 == np.mean(right) and found.interval[0] < found.top1 <= found.interval[1]


def test_only_new_images_are_computed_and_cached_rows_are_the_computed_ones(
    data: Path, vit: ViT, tmp_path: Path
) -> None:
    def run(cache: FeatureCache | None) -> tuple[np.ndarray, int, int]:
        split = open_data(data).training
        found = features(vit, SIMPLE, split, workers=1, device=CPU, cache=cache)
        return found.values, found.cached, len(found.failures)

    folder = tmp_path / "cache"
    first, cached, _ = run(FeatureCache(folder))
    assert cached == 0 and len(first) == 18
    shutil.copy(data / "val/c0/0.png", data / "train/c0/new.png")
    (data / "train/c0/zz broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    values, cached, failed = run(FeatureCache(folder))
    assert (cached, len(values), failed) == (18, 19, 1)
    np.testing.assert_allclose(values, run(None)[0], atol=1e-5)
    with torch.no_grad():
        vit.blocks[0].norm1.weight[0] += 1
    assert run(FeatureCache(folder))[1] == 0  # other weights


def test_damaged_cache_files_are_ignored_with_a_note_and_the_size_is_bounded(tmp_path: Path) -> None:
    rows = {bytes([i] * 16): np.full(4, i, np.float32) for i in range(3)}
    cache = FeatureCache(tmp_path)
    cache.write("key", rows)
    assert set(cache.read("key", 4, set(rows))) == set(rows) and not cache.notes
    (path,) = tmp_path.glob("key/*")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert cache.read("key", 4, set(rows)) == {} and "damaged" in cache.notes[0]
    small = FeatureCache(tmp_path, max_bytes=200)
    small.write("other", rows)
    assert not path.exists() and len(list(tmp_path.glob("other/*"))) == 1
