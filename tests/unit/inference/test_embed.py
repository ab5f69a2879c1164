"""Vectors in files: every readable picture once, in order, beside its name."""

import json
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from patchword.errors import DataError, OutputError, PartialFailure, SettingsError
from patchword.images.prepare import read
from patchword.inference.embed import embed_to
from patchword.inference.model import Model
from patchword.inference.parts import choose_part, weights_sha256
from patchword.model.decoder import DecoderConfig
from patchword.model.kinds import AttentionPool, MeanPool
from patchword.model.mae import MAE
from patchword.model.vit import ViT
from patchword.retrieval.card import card_of


def test_an_npy_file_holds_a_row_for_each_name(model: Model, pictures: list[Path], tmp_path: Path) -> None:
    done = embed_to(model, iter(pictures), tmp_path / "v.npy", batch_size=3)
    stored = np.load(tmp_path / "v.npy")
    assert stored.shape == (20, 24) and stored.dtype == np.float32 and done.count == 20
    assert np.allclose(stored, model.embed(pictures), atol=1e-5)
    assert (tmp_path / "v.names.txt").read_text().splitlines() == [str(p) for p in pictures]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["v.card.json", "v.names.txt", "v.npy"]


def test_a_parquet_file_holds_names_and_vectors(model: Model, pictures: list[Path], tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    embed_to(model, pictures, tmp_path / "v.parquet", part="mean")
    table = pq.read_table(tmp_path / "v.parquet")
    assert table["file"].to_pylist() == [str(p) for p in pictures]
    assert np.allclose(np.array(table["vector"].to_pylist()), model.embed(pictures, part="mean"), atol=1e-5)


def test_each_feature_is_the_part_of_the_tokens_that_it_names(model: Model, pictures: list[Path]) -> None:
    tokens = model.embed(pictures[:3], part="tokens")
    assert np.allclose(model.embed(pictures[:3], part="class"), tokens[:, 0], atol=1e-5)
    assert np.allclose(model.embed(pictures[:3], part="mean"), tokens[:, 1:].mean(1), atol=1e-5)


def test_tokens_keep_their_places(model: Model, pictures: list[Path], tmp_path: Path) -> None:
    embed_to(model, pictures[:3], tmp_path / "t.npy", part="tokens")
    assert np.load(tmp_path / "t.npy").shape == (3, 5, 24)  # the class token and 2 x 2 patches
    with pytest.raises(SettingsError, match="Parquet"):
        embed_to(model, pictures[:3], tmp_path / "t.parquet", part="tokens")


def test_a_bad_picture_has_no_row_and_is_named(model: Model, pictures: list[Path], tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"<html>")
    done = embed_to(model, [pictures[0], tmp_path / "bad.png", pictures[1]], tmp_path / "v.npy")
    assert len(np.load(tmp_path / "v.npy")) == 2
    assert (tmp_path / "v.names.txt").read_text().split() == [str(p) for p in pictures[:2]]
    with pytest.raises(PartialFailure, match=r"1 of 3 images .*bad\.png"):
        done.check()


def test_what_fails_leaves_an_older_file_as_it_was(
    model: Model, pictures: list[Path], tmp_path: Path
) -> None:
    embed_to(model, pictures[:2], tmp_path / "v.npy")
    before = (tmp_path / "v.npy").read_bytes()
    (tmp_path / "bad.png").write_bytes(b"<html>")
    with pytest.raises(DataError, match="cannot read any of the 1 image: "):
        embed_to(model, [tmp_path / "bad.png"], tmp_path / "v.npy")
    assert (tmp_path / "v.npy").read_bytes() == before
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("name", ["v.npy", "v.parquet"])
def test_a_full_disk_is_told_and_leaves_nothing(
    model: Model, pictures: list[Path], tmp_path: Path, name: str
) -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, before[1]))
    try:
        with pytest.raises(OutputError, match="cannot be written"):
            embed_to(model, pictures[:1], tmp_path / name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not [file for file in tmp_path.iterdir() if file.name.startswith((".v", "v."))]


@pytest.mark.parametrize(("name", "error"), [("v.nyp", SettingsError), ("no/such/v.npy", OutputError)])
def test_a_place_that_cannot_be_written_is_told(
    model: Model, pictures: list[Path], tmp_path: Path, name: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        embed_to(model, pictures[:1], tmp_path / name)


def test_the_card_says_how_the_vectors_were_made(model: Model, pictures: list[Path], tmp_path: Path) -> None:
    embed_to(
        model, pictures[:2], tmp_path / "v.npy", part="mean", layer=0, norm=False, weights="m", files=["a"]
    )
    text = (tmp_path / "v.card.json").read_text()
    card = card_of(text, "v.npy")
    assert (card.part, card.layer, card.norm, card.weights, card.files) == ("mean", 0, False, "m", ("a",))
    assert card.config == model.config and card.preprocess == model.preprocess
    assert card.weights_sha256 == weights_sha256(model.vit)
    plain = json.loads(text)
    assert plain["image_size"] == [32, 32] and plain["patchword"] == metadata.version("patchword")
    embed_to(
        model,
        pictures[:2],
        tmp_path / "v.parquet",
        part="mean",
        layer=0,
        norm=False,
        weights="m",
        files=["a"],
    )
    import pyarrow.parquet as pq

    assert pq.read_schema(tmp_path / "v.parquet").metadata[b"patchword"].decode() == text.rstrip("\n")


def test_the_hash_is_of_the_backbone_and_of_every_tensor_in_it(model: Model) -> None:
    before = weights_sha256(model.vit)
    with torch.no_grad():
        assert model.vit.head is not None
        model.vit.head.weight.add_(1)
        assert weights_sha256(model.vit) == before
        model.vit.patch_embed.proj.bias.add_(1e-3)  # type: ignore[union-attr, arg-type]
    assert weights_sha256(model.vit) != before


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("layer", [0, -1])
def test_any_layer_and_norm_give_the_tokens_of_that_block(
    model: Model, pictures: list[Path], layer: int, norm: bool
) -> None:
    images = torch.from_numpy(np.stack([read(p, model.preprocess) for p in pictures[:3]]))
    with torch.no_grad():
        tokens = model.vit.encode(images, [layer], normed=norm)[layer % 2].numpy()
    for part, expected in {
        "tokens": tokens,
        "class": tokens[:, 0],
        "grid": tokens[:, 1:].reshape(3, 2, 2, 24),
        "mean": tokens[:, 1:].mean(1),
        "pooled": tokens[:, 0],  # this model pools its class token
    }.items():
        found = model.embed(pictures[:3], part=part, layer=layer, norm=norm)  # type: ignore[call-overload, arg-type]
        assert np.allclose(found, expected, atol=1e-5), part


def _with(model: Model, **changes: Any) -> Model:
    config = replace(model.config, **changes)
    vit = ViT(config, torch.Generator().manual_seed(0))
    return Model(vit, replace(model.card, config=config), model.report)


def test_registers_are_a_part_of_a_model_that_has_them(model: Model, pictures: list[Path]) -> None:
    with pytest.raises(SettingsError, match="this model has no register tokens"):
        model.embed(pictures[0], part="registers")
    other = _with(model, tokens=replace(model.config.tokens, num_registers=4))
    tokens = other.embed(pictures[0], part="tokens")
    assert np.allclose(other.embed(pictures[0], part="registers"), tokens[1:5], atol=1e-6)
    assert np.allclose(other.embed(pictures[0], part="grid"), tokens[5:].reshape(2, 2, 24), atol=1e-6)


def test_what_a_model_does_not_have_is_refused(model: Model) -> None:
    head = model.config.head
    pooled = _with(model, head=replace(head, pool=MeanPool(), norm="pooled")).config
    attention = _with(model, head=replace(head, pool=AttentionPool())).config
    for config, asked, message in (
        (model.config, {"layer": 2}, "there is no layer 2: this model has 2 blocks"),
        (model.config, {"layer": -3}, "there is no layer -3"),
        (pooled, {"part": "grid", "norm": True}, "its norm comes after pooling"),
        (attention, {"layer": 0}, "pools with learned attention"),
        (attention, {"norm": False}, "pools with learned attention"),
    ):
        with pytest.raises(SettingsError, match=message):
            choose_part(config, **asked)  # type: ignore[arg-type]
    assert not choose_part(pooled, "grid").norm and choose_part(pooled).norm
    assert choose_part(model.config, layer=-2).layer == 0


def test_embedding_never_masks(model: Model, pictures: list[Path]) -> None:
    before = model.embed(pictures[:3], part="grid")
    MAE(model.vit, DecoderConfig(dim=16, depth=1, num_heads=2)).train()
    assert (model.embed(pictures[:3], part="grid") == before).all() and before.shape == (3, 2, 2, 24)
