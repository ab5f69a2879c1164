"""Search: the images nearest by the vectors of an index, made as the index was, or a refusal that says why not."""

import csv
import io
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import patchword as pw
from patchword.cli.main import run
from patchword.inference.embed import embed_to
from patchword.inference.model import Model

Output = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def index(model_file: Path, pictures: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _embedded(model_file, pictures, tmp_path_factory.mktemp("index") / "v.npy")


def _embedded(model_file: Path, pictures: list[Path], file: Path) -> Path:
    assert run(["embed", str(model_file), str(pictures[0].parent), "--out", str(file), "--part", "mean"]) == 0
    return file


def _said(output: Output, *args: object, code: int = 0) -> str:
    assert run(["search", *map(str, args)]) == code
    said = output.readouterr()
    return said.out if code == 0 else said.err


def test_an_image_of_the_index_is_its_own_nearest_and_the_rest_follow_the_vectors(
    index: Path, model: Model, pictures: list[Path], capsys: Output
) -> None:
    (found,) = json.loads(_said(capsys, index, pictures[3], "--top", 20, "--json"))
    hits = found["hits"]
    assert found["file"] == hits[0]["file"] == str(pictures[3]) and hits[0]["score"] == pytest.approx(1)
    vectors = model.embed(pictures, part="mean")
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = vectors @ vectors[3]
    assert [h["score"] for h in hits] == pytest.approx(sorted(cosines, reverse=True), abs=1e-5)
    assert [h["rank"] for h in hits] == list(range(1, 21))
    assert {h["row"]: h["file"] for h in hits} == dict(enumerate(map(str, pictures)))


@pytest.mark.parametrize("metric", ["dot", "l2"])
def test_other_metrics_rank_by_their_own_score(
    index: Path, model: Model, pictures: list[Path], metric: str
) -> None:
    vectors = model.embed(pictures, part="mean")
    expected = vectors @ vectors[0] if metric == "dot" else np.linalg.norm(vectors - vectors[0], axis=1)
    found = pw.search(index, pictures[0], top=20, metric=metric)  # type: ignore[arg-type]
    assert not isinstance(found, list)
    ordered = sorted(expected, reverse=metric == "dot")
    assert [hit.score for hit in found.hits] == pytest.approx(ordered, abs=1e-4)


def test_parquet_is_the_same_index(
    index: Path, model_file: Path, pictures: list[Path], tmp_path: Path
) -> None:
    one, other = pw.Index.read(index), pw.Index.read(_embedded(model_file, pictures, tmp_path / "v.parquet"))
    assert (one.vectors == other.vectors).all() and (one.names, one.card) == (other.names, other.card)


def test_python_answers_one_or_many_and_takes_an_index_and_a_model_that_are_loaded(
    index: Path, model: Model, pictures: list[Path]
) -> None:
    stored = pw.Index.read(index)
    assert len(stored) == 20 and "mean, layer 1 of 0 to 1, after the final norm" in repr(stored)
    one = pw.search(stored, Image.open(pictures[2]), weights=model)
    many = pw.search(stored, pictures[1:3], weights=model, top=10)
    assert isinstance(many, list) and not isinstance(one, list)
    assert [h.row for h in one.hits] == [h.row for h in many[1].hits] and len(one.hits) == 10
    with pytest.raises(pw.PatchwordError, match=r"top is 21, but .* has 20 vectors") as caught:
        pw.search(stored, pictures[0], weights=model, top=21)
    assert caught.value.fix == "use top 20"


def test_each_format_holds_the_same_rows(
    index: Path, pictures: list[Path], tmp_path: Path, capsys: Output
) -> None:
    given = (index, pictures[0], pictures[1], "--top", 3)
    rows = list(csv.DictReader(io.StringIO(_said(capsys, *given, "--csv"))))
    assert [(r["file"], r["rank"]) for r in rows[:3]] == [(str(pictures[0]), str(n)) for n in (1, 2, 3)]
    text = _said(capsys, *given)
    assert [line.split()[-1] for line in text.splitlines() if line.startswith(" ")] == [
        r["found"] for r in rows
    ]
    lines = _said(capsys, *given, "--jsonl").splitlines()
    assert [hit["file"] for line in lines for hit in json.loads(line)["hits"]] == [r["found"] for r in rows]
    _said(capsys, *given, "--out", tmp_path / "f.parquet")
    assert pq.read_table(tmp_path / "f.parquet")["found"].to_pylist() == [r["found"] for r in rows]


def test_a_picture_and_a_page_show_the_images(
    index: Path, pictures: list[Path], tmp_path: Path, capsys: Output
) -> None:
    for name in ("f.png", "f.html"):
        assert run(["search", str(index), str(pictures[0]), "--top", "6", "--out", str(tmp_path / name)]) == 0
    assert "warning" not in capsys.readouterr().err
    drawn = np.asarray(Image.open(tmp_path / "f.png").convert("RGB"))
    colours = len(np.unique(drawn.reshape(-1, 3), axis=0))
    assert drawn.shape[1] > 900 and colours > 1000
    page = (tmp_path / "f.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg;base64,") == 7 and str(pictures[0]) in page


def test_images_of_a_zip_are_drawn_and_images_that_are_gone_are_named(
    model_file: Path, pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    (tmp_path / "there").mkdir()
    with zipfile.ZipFile(tmp_path / "there" / "p.zip", "w") as archive:
        for picture in pictures[:4]:
            archive.write(picture, f"in/{picture.name}")
    monkeypatch.chdir(tmp_path / "there")
    assert run(["embed", str(model_file), "p.zip", "--out", "../v.npy"]) == 0
    monkeypatch.chdir(tmp_path)  # paths in the index start where embed ran
    capsys.readouterr()
    given = ["search", "v.npy", str(pictures[0]), "--out", "f.html"]
    assert run(given) == 0 and "warning" not in capsys.readouterr().err
    assert (tmp_path / "f.html").read_text(encoding="utf-8").count("data:image/jpeg") == 5
    (tmp_path / "there" / "p.zip").unlink()
    assert run(given) == 0
    assert "warning: 4 images of the index cannot be opened here" in capsys.readouterr().err
    assert "in/00.png" in (tmp_path / "f.html").read_text(encoding="utf-8")


def test_an_unreadable_image_gets_its_reason_and_the_others_their_hits(
    index: Path, pictures: list[Path], tmp_path: Path, capsys: Output
) -> None:
    (tmp_path / "bad.png").write_bytes(b"<html>")
    assert run(["search", str(index), str(tmp_path / "bad.png"), str(pictures[0]), "--json"]) == 3
    said = capsys.readouterr()
    bad, good = json.loads(said.out)
    assert bad["error"] and len(good["hits"]) == 10 and "bad.png" in said.err
    with pytest.raises(pw.PatchwordError):
        pw.search(index, tmp_path / "bad.png")


def test_other_weights_are_refused_and_both_are_named(
    index: Path, model_file: Path, pictures: list[Path], tmp_path: Path, capsys: Output
) -> None:
    model = pw.load(model_file)
    with torch.no_grad():
        assert model.vit.head is not None
        model.vit.head.weight.mul_(2)  # another head does not change an embedding
        model.save(tmp_path / "other-head.safetensors")
        model.vit.norm.weight.mul_(1.01)  # type: ignore[operator, union-attr]
        model.save(tmp_path / "changed.safetensors")
    assert _said(capsys, index, pictures[0], "--weights", tmp_path / "other-head.safetensors")
    said = _said(capsys, index, pictures[0], "--weights", tmp_path / "changed.safetensors", code=2)
    assert f"made by other weights: {model_file} (sha256 " in said and "changed.safetensors (sha256 " in said


def test_the_model_that_the_card_names_may_have_moved(
    model_file: Path, pictures: list[Path], tmp_path: Path, capsys: Output
) -> None:
    shutil.copy(model_file, tmp_path / "m.safetensors")
    assert (
        run(["embed", str(tmp_path / "m.safetensors"), str(pictures[0]), "--out", str(tmp_path / "v.npy")])
        == 0
    )
    (tmp_path / "m.safetensors").unlink()
    capsys.readouterr()
    said = _said(capsys, tmp_path / "v.npy", pictures[0], code=2)
    assert "m.safetensors, which cannot be loaded: " in said and "--weights" in said
    assert "1.0000" in _said(capsys, tmp_path / "v.npy", pictures[0], "--weights", model_file)


def test_a_query_is_prepared_as_the_index_was(model: Model, tmp_path: Path) -> None:
    """The index was made of 16-bit images with a value range, which the query then needs too."""
    drawn = np.random.default_rng(0)
    files = []
    for i in range(3):
        files.append(tmp_path / f"{i}.npy")
        np.save(files[-1], drawn.integers(0, 900, (32, 32, 3), dtype=np.uint16))
    embed_to(model, files, tmp_path / "v.parquet", value_range=(0, 1000))
    found = pw.search(tmp_path / "v.parquet", files[1], weights=model)
    assert not isinstance(found, list) and found.hits[0].row == 1
    assert found.hits[0].score == pytest.approx(1, abs=1e-6)


def _rewritten(file: Path, **changes: Any) -> None:
    card = file.with_suffix(".card.json")
    card.write_text(json.dumps(json.loads(card.read_text()) | changes))


def _spoil(how: str, file: Path) -> None:
    names = file.with_suffix(".names.txt")
    vectors = np.load(file)
    match how:
        case "truncated":
            file.write_bytes(file.read_bytes()[:-100])
        case "other bytes":
            file.write_bytes(b"<html>not here</html>" * 20)
        case "NaN":
            vectors[2, 3] = np.nan
            np.save(file, vectors)
        case "empty":
            np.save(file, vectors[:0])
            names.write_text("")
        case "names lost":
            names.write_text(names.read_text().split("\n", 1)[1])
        case "no card":
            file.with_suffix(".card.json").unlink()
        case "no names":
            names.unlink()
        case "card of something else":
            _rewritten(file, format="other")
        case "newer card":
            _rewritten(file, version=99)
        case "unknown entry":
            _rewritten(file, colour="red")
        case "grid":
            _rewritten(file, part="grid")
        case "float64":
            np.save(file, vectors.astype(np.float64))
        case "other width":
            np.save(file, np.ascontiguousarray(vectors[:, :7]))


@pytest.mark.parametrize(
    ("how", "telling"),
    [
        ("truncated", "not a complete .npy file"),
        ("other bytes", "not a complete .npy file"),
        ("NaN", "(row 2) contains NaN"),
        ("empty", "an index without vectors"),
        ("names lost", "20 vectors, but 19 names"),
        ("no card", "v.card.json, with how the vectors were made, is not next to it"),
        ("no names", "v.names.txt, with the names, is not next to it"),
        ("card of something else", "its card is not one of"),
        ("newer card", "its card has version 99"),
        ("unknown entry", "colour"),
        ("grid", "holds several vectors per image (part grid)"),
        ("float64", "float64 of shape"),
        ("other width", "have width 7"),
    ],
)
def test_a_bad_index_is_refused_in_two_lines(
    index: Path, pictures: list[Path], tmp_path: Path, capsys: Output, how: str, telling: str
) -> None:
    file = tmp_path / "v.npy"
    for beside in index.parent.glob("v.*"):
        shutil.copy(beside, tmp_path)
    capsys.readouterr()
    _spoil(how, file)
    assert run(["search", str(file), str(pictures[0])]) == 2
    said = capsys.readouterr()
    error, fix = said.err.strip().splitlines()
    assert error.startswith("error: ") and telling in error and fix.startswith("  fix: ") and not said.out


def test_files_that_are_no_index_are_refused(
    index: Path, pictures: list[Path], tmp_path: Path, capsys: Output
) -> None:
    pq.write_table(pa.table({"file": ["a"], "vector": [[1.0]]}), tmp_path / "t.parquet")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "t.parquet").read_bytes()[:-30])
    for file, telling in (
        (tmp_path / "t.parquet", "it has no card"),
        (tmp_path / "cut.parquet", "not a complete Parquet file"),
        (pictures[0], "not an index, which is an .npy or .parquet"),
        (tmp_path, "a folder, not an index"),
        (tmp_path / "t.parquett", "does not exist (did you mean 't.parquet' or"),
    ):
        assert telling in _said(capsys, file, pictures[0], code=2)
    assert "--top is 21, but" in _said(capsys, index, pictures[0], "--top", 21, code=2)
    assert "unknown ending '.pgn' (did you mean 'png'" in _said(
        capsys, index, pictures[0], "--out", "f.pgn", code=2
    )
    assert "select different outputs" in _said(capsys, index, pictures[0], "--csv", "--json", code=2)


def test_wrong_queries_of_an_index_are_refused(index: Path) -> None:
    stored = pw.Index.read(index)
    good = stored.vectors[:1]
    for queries, how, telling in (
        (good[:, :5], {}, r"the query has shape \[1, 5\]"),
        (good * np.nan, {}, "NaN"),
        (good * 0, {}, "zero vector"),
        (good, {"metric": "cosinus"}, "did you mean 'cosine'"),
        (good, {"top": 0}, "top is 0"),
    ):
        with pytest.raises(pw.PatchwordError, match=telling):
            stored.nearest(queries, **how)  # type: ignore[arg-type]
    assert stored.nearest(good * 0, metric="l2").scores.shape == (1, 10)
