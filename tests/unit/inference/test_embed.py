"""Vectors in files: every readable picture once, in order, beside its name."""

from pathlib import Path

import numpy as np
import pytest

from patchword.errors import DataError, OutputError, PartialFailure, SettingsError
from patchword.inference.embed import embed_to
from patchword.inference.model import Model


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
