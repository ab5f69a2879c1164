"""`patchword check` on data as people have them: what it says in words, it says as JSON."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from patchword.cli.main import run
from patchword.cli.train_screen import show_problems
from patchword.data.check import check_data
from patchword.data.open import open_data
from support.scans import scans_of, write_scans

Output = pytest.CaptureFixture[str]


def _check(output: Output, *args: str | Path) -> tuple[int, str]:
    code = run(["check", *map(str, args)])
    said = output.readouterr()
    return code, said.out + said.err


def _json(output: Output, *args: str | Path) -> dict[str, object]:
    run(["check", *map(str, args), "--json"])
    found: dict[str, object] = json.loads(output.readouterr().out)
    return found


def test_what_the_text_says_the_json_says(tmp_path: Path, capsys: Output) -> None:
    """Intel's layout, with a folder without labels, hidden files and a file of another kind."""
    write_scans(tmp_path / "seg_train/seg_train", {"d0": 6, "d1": 6})
    write_scans(tmp_path / "seg_test/seg_test", {"d0": 2, "d1": 2}, first=20)
    write_scans(tmp_path / "seg_pred", {"seg_pred": 3})
    (tmp_path / "seg_train/seg_train/d0/.DS_Store").write_bytes(b"\0")
    (tmp_path / "seg_train/seg_train/d0/notes.txt").write_text("none")
    code, text = _check(capsys, tmp_path)
    found = _json(capsys, tmp_path)
    assert code == 0
    reading = "train: seg_train/seg_train, test: seg_test/seg_test"
    assert reading in text and found["readings"] == [reading]
    assert "readable: 16 of 16" in text and (found["images"], found["skipped"]) == (16, [])
    assert "skipped: 1 .txt, 1 hidden, 3 images without a class" in text
    assert found["passed_by"] == {".txt": 1, "hidden": 1, "images without a class": 3}
    for problem in found["problems"]:  # type: ignore[attr-defined]
        assert problem["message"] in text and problem["fix"] in text
    assert "seg_pred/ has 3 images without class folders" in text and "predict RUN" in text


def test_train_begins_with_how_the_data_were_read(tmp_path: Path, capsys: Output) -> None:
    write_scans(tmp_path / "images", {"d0": 2, "d1": 2})
    (tmp_path / "meta").mkdir()
    show_problems(check_data(open_data(tmp_path)))
    said = capsys.readouterr().err
    assert "data: class folders: images\n" in said and "data: not used (no images): meta\n" in said


def test_equal_images_are_counted_each_and_a_data_set_of_one_is_refused(
    tmp_path: Path, capsys: Output
) -> None:
    """White drawings on a transparent ground become white on white."""
    for name in ("home", "star", "user"):
        (tmp_path / name).mkdir()
        for i in range(10):
            drawing = np.full((8, 8, 4), 255, np.uint8)
            drawing[:, :, 3] = np.random.default_rng([i, ord(name[0])]).integers(0, 2, (8, 8)) * 255
            Image.fromarray(drawing).save(tmp_path / name / f"{i}.png")
    code, said = _check(capsys, tmp_path)
    assert code == 2
    assert (
        "error: all 30 images are a single plain colour (white drawings on a transparent background?)" in said
    )
    assert "30 images have a copy in another split" in said
    assert "30 images have a copy in another class" in said


def test_plain_images_among_others_are_counted(tmp_path: Path, capsys: Output) -> None:
    write_scans(tmp_path, {"d0": 12, "d1": 12})
    for i, shade in enumerate((10, 200)):
        Image.new("RGB", (24, 24), (shade, 0, 0)).save(tmp_path / "d0" / f"plain{i}.png")
    code, said = _check(capsys, tmp_path)
    assert code == 0 and "warning: 2 of 26 images are a single plain colour, e.g. d0/plain0.png" in said


def test_files_of_several_pages_are_counted(tmp_path: Path, capsys: Output) -> None:
    for digit in (0, 1):
        (tmp_path / f"d{digit}").mkdir()
        scans = scans_of(digit, 10)
        for i, scan in enumerate(scans):
            others = {"save_all": True, "append_images": scans[:2]} if i < 6 else {}
            scan.save(tmp_path / f"d{digit}" / f"{i}.tif", **others)
    _, said = _check(capsys, tmp_path)
    assert "warning: 12 files have more than one page or frame" in said and "the first is used" in said


def test_a_class_of_files_that_are_not_read_is_not_called_empty(tmp_path: Path, capsys: Output) -> None:
    write_scans(tmp_path, {"d0": 12, "d1": 12})
    (tmp_path / "c").mkdir()
    for i in range(10):
        (tmp_path / "c" / f"{i}.dcm").write_bytes(b"\0" * 128 + b"DICM")
    for i in range(12):
        shutil.copy(tmp_path / "d1" / f"{i}.png", tmp_path / "d1" / f"again{i}")
    _, said = _check(capsys, tmp_path)
    assert "the class folder 'c' holds no images, only 10 .dcm files (DICOM)" in said and "empty" not in said
    assert "warning: " in said and "skipped 12 files without a file extension (PNG), e.g. d1/again0" in said
    assert "change their file extension to .png" in said
    assert "skipped: 12 no file extension (PNG), 10 .dcm (DICOM)" in said


@pytest.mark.parametrize(
    ("names", "how"),
    [
        (("Cat", "cat"), "'Cat' and 'cat' differ only in letter case"),
        (("cat", "cat "), "'cat' and 'cat ' differ only in spaces"),
        (("hot dog", "hot-dog"), "spaces and hyphens or underscores"),
        (
            ("cafe\u0301", "caf\xe9"),
            "'cafe\\u0301' and 'caf\\xe9' differ only in how their characters are encoded",
        ),
        (("C", "C++"), ""),
    ],
)
def test_class_folders_that_look_alike_are_told(
    names: tuple[str, str], how: str, tmp_path: Path, capsys: Output
) -> None:
    for i, name in enumerate(names):
        write_scans(tmp_path, {f"d{i}": 10})
        (tmp_path / f"d{i}").rename(tmp_path / name)
    _, said = _check(capsys, tmp_path)
    assert how in said and ("differ only" in said) == bool(how)


def test_classes_of_a_table_that_look_alike_are_told(tmp_path: Path, capsys: Output) -> None:
    write_scans(tmp_path, {"d0": 10, "d1": 10})
    rows = [f"d{i}/{k}.png,{name}\n" for i, name in enumerate(("Cat", "cat")) for k in range(10)]
    (tmp_path / "t.csv").write_text("file,label\n" + "".join(rows))
    assert "'Cat' and 'cat' differ only in letter case" in _check(capsys, tmp_path / "t.csv")[1]


def test_a_class_without_held_out_images_is_told_with_how_many_are_scored(
    tmp_path: Path, capsys: Output
) -> None:
    write_scans(tmp_path, {"d0": 12, "d1": 12, "d2": 1})
    _, said = _check(capsys, tmp_path)
    assert (
        "val has no images of 'd2', so this class cannot be evaluated: the score covers 2 of 3 classes"
        in said
    )
    assert "'d2' has only 1 training image (" in said


@pytest.mark.parametrize(
    ("option", "data", "telling"),
    [
        ("--label-column", "folder", "--label-column applies to tables only"),
        ("--image-column", "zip", "--image-column applies to tables only"),
        ("--label-column", "digits", "--label-column applies to tables only"),
        ("--class-level", "digits", "--class-level applies to class folders only"),
        ("--class-level", "t.csv", "--class-level applies to class folders only"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused_by_name(
    option: str, data: str, telling: str, tmp_path: Path, capsys: Output
) -> None:
    write_scans(tmp_path / "folder", {"d0": 2, "d1": 2})
    shutil.make_archive(str(tmp_path / "folder"), "zip", tmp_path / "folder")
    (tmp_path / "t.csv").write_text("file,label\nfolder/d0/0.png,a\nfolder/d1/0.png,b\n")
    place = {"digits": "digits", "zip": tmp_path / "folder.zip"}.get(data, tmp_path / data)
    code, said = _check(capsys, place, option, "1")
    assert code == 2 and telling in said and "fix: remove it" in said


@pytest.mark.parametrize(
    ("name", "content", "telling"),
    [
        ("page.zip", b"<html>not found</html>", "page.zip is an HTML page, not a zip"),
        ("cut.zip", b"PK\3\4 and no more", "cut.zip is a damaged or incomplete zip"),
        ("none.zip", b"", "none.zip is empty"),
        ("all.tar.gz", b"\x1f\x8b", "unpack it"),
        ("one.jpg", b"\xff\xd8\xff", "one image"),
        ("rows.xlsx", b"PK\3\4", "CSV"),
        ("coco.json", b"{}", ".jsonl"),
    ],
)
def test_a_file_that_is_no_data_set_is_called_what_it_is(
    name: str, content: bytes, telling: str, tmp_path: Path, capsys: Output
) -> None:
    (tmp_path / name).write_bytes(content)
    code, said = _check(capsys, tmp_path / name)
    assert code == 2 and telling in said and "fix: " in said and "Traceback" not in said


def test_a_url_is_called_one(capsys: Output) -> None:
    code, said = _check(capsys, "https://example.org/data.zip")
    assert code == 2 and "is a URL" in said and "download it" in said


def test_class_level_joins_parts_and_keeps_what_looks_like_parts(tmp_path: Path, capsys: Output) -> None:
    for part in ("color", "grey"):
        write_scans(tmp_path / part, {"d0": 6, "d1": 6})
    assert _check(capsys, tmp_path)[0] == 2
    assert _json(capsys, tmp_path, "--class-level", "2")["classes"] == ["d0", "d1"]
    assert _json(capsys, tmp_path, "--class-level", "1")["classes"] == ["color", "grey"]
    code, said = _check(capsys, tmp_path, "--class-level", "3")
    assert code == 2 and "no image is 3 folders deep" in said
