"""`train --folds` and `train --val` as a user runs them, resumed from elsewhere too."""

import csv
import json
import math
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import patchword as pw
from patchword.cli.main import run as patchword
from patchword.errors import Interrupted
from patchword.training.meter import Meter
from patchword.training.progress import Silent
from patchword.weights.native import read_model
from support.page import Page
from support.scans import scans_of, write_scans

SMALL = {
    "run.batch_size": 8,
    "run.threads": 1,
    "run.precision": "float32",
    "model.depth": 1,
    "model.dim": 32,
    "model.attention.num_heads": 1,
    "run.split_seed": 3,
    "schedule.epochs": 2,
}
SMALL_OPTIONS = [part for path, value in SMALL.items() for part in ("-o", f"{path}={value}")]
Output = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def top(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("folds")
    write_scans(folder / "scans", {"d0": 9, "d1": 8})
    (folder / "scans" / "d1" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    write_scans(folder / "other", {"d1": 6, "d0": 5}, first=30)
    scans_of(0, 1)[0].save(folder / "other" / "d0" / "seen.png")  # also scans/d0/0.png
    return folder


@pytest.fixture(scope="module")
def folded(top: Path) -> Path:
    out = top / "folded"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(top)
        assert patchword(["train", "scans", "--folds", "2", "--out", "folded", *SMALL_OPTIONS]) == 0
    return out


def _json(path: Path) -> Any:
    return json.loads(path.read_text())


def test_each_image_is_predicted_once_by_the_fold_that_has_not_seen_it(folded: Path, top: Path) -> None:
    rows = list(csv.DictReader((folded / "out-of-fold.csv").read_text().splitlines()))
    scores = _json(folded / "folds.json")
    assert len(rows) == len({row["name"] for row in rows}) == 17
    assert [bad["name"] for bad in scores["out_of_fold"]["unreadable"]] == ["d1/broken.png"]
    for fold, score in enumerate(scores["scores"], 1):
        own = [row for row in rows if row["fold"] == str(fold)]
        held_out = set(_json(folded / f"fold-{fold}" / "data.json")["held_out"]) - {"d1/broken.png"}
        assert {row["name"] for row in own} == held_out
        right = sum(row["true"] == row["predicted"] for row in own)
        assert score["top1"] == right / len(own) == _json(folded / f"fold-{fold}" / "evaluation.json")["top1"]
        model = pw.load(folded / f"fold-{fold}")
        predicted = model.predict(top / "scans" / own[0]["name"])
        assert float(own[0]["probability_d0"]) == pytest.approx(predicted.probabilities[0], abs=1e-5)
    assert scores["out_of_fold"]["top1"] == sum(r["true"] == r["predicted"] for r in rows) / 17
    first, second = (score["top1"] for score in scores["scores"])
    # Student's t with one degree of freedom; the standard error of two values is half their difference.
    half = math.tan(math.pi * 0.475) * abs(first - second) / 2
    mean = (first + second) / 2
    assert scores["mean_top1"] == pytest.approx(mean)
    wanted = [max(0, mean - half), min(1, mean + half)]
    assert scores["mean_top1_interval"] == pytest.approx(wanted, abs=1e-6)


def test_the_page_shows_the_folds_and_links_to_their_reports(folded: Path) -> None:
    page = Page((folded / "report.html").read_text())
    links = [value for name, value in page.attributes if name == "href" and value and value.endswith("html")]
    assert links == ["fold-1/report.html", "fold-2/report.html"]
    assert all((folded / link).exists() for link in links)
    shown = [value for value, _ in page.numbers]
    scores = _json(folded / "folds.json")
    assert scores["mean_top1"] in shown and scores["out_of_fold"]["top1"] in shown
    assert "d1/broken.png" in page.text and "2 folds" in page.text


class _Lines(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def message(self, text: str) -> None:
        self.lines.append(text)


@contextmanager
def _stopped(when: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """SIGTERM after the first step for which `when` holds."""
    add, asked = Meter.add, False

    def add_and_stop(self: Meter, *values: Any) -> None:
        nonlocal asked
        add(self, *values)
        if when() and not asked:
            asked = True
            signal.raise_signal(signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Meter, "add", add_and_stop)
        yield


def test_resumed_folds_end_in_the_same_bits_from_another_folder(
    folded: Path, top: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.chdir(top)
    out, shown = tmp_path / "again", _Lines()
    with (
        _stopped(lambda: any(line.startswith("fold 1/2") for line in shown.lines)),
        pytest.raises(Interrupted, match="interrupted in fold 2 of 2") as stopped,
    ):
        pw.train("scans", folds=2, out=out, settings=SMALL, progress=shown)
    assert stopped.value.fix == f"resume with `pw.train(resume='{out}')`"
    assert sum(line.startswith("fold ") for line in shown.lines) == 1
    monkeypatch.chdir(tmp_path)
    before = (out / "fold-1" / "last.safetensors").stat().st_mtime_ns
    assert patchword(["train", "--resume", "again"]) == 0
    printed = capsys.readouterr()
    assert printed.out.strip() == "again" and "mean of 2 folds: top-1" in printed.err
    assert all(
        len(line) <= 80 for line in printed.err.splitlines() if line.startswith(("fold", "mean", "out"))
    )
    assert (out / "fold-1" / "last.safetensors").stat().st_mtime_ns == before, "a finished fold stays"
    assert (out / "out-of-fold.csv").read_bytes() == (folded / "out-of-fold.csv").read_bytes()
    (_, ours), (_, theirs) = (read_model(o / "fold-2" / "last.safetensors") for o in (out, folded))
    assert all(bool((ours[name] == theirs[name]).all()) for name in theirs)
    assert patchword(["train", "--resume", "again"]) == 2
    assert "is finished: all 2 folds" in capsys.readouterr().err


def test_folds_that_cannot_begin_leave_nothing(top: Path, tmp_path: Path, capsys: Output) -> None:
    out = tmp_path / "nothing"
    data, other = str(top / "scans"), str(top / "other")
    for given in (["--folds", "10"], ["--folds", "1"], ["--folds", "2", "--val", other]):
        assert patchword(["train", data, "--out", str(out), *given]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 2 and not out.exists()
    assert patchword(["train", "--resume", str(top), "--folds", "2"]) == 2
    assert "--folds cannot be combined with --resume" in capsys.readouterr().err


def test_a_run_with_val_resumes_from_elsewhere_and_scores_as_evaluate(
    top: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    shutil.copytree(top / "other", tmp_path / "val")
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "run"
    unsplit = {path: value for path, value in SMALL.items() if path != "run.split_seed"}
    with _stopped(), pytest.raises(Interrupted):
        pw.train(top / "scans", val="val", out=out, settings=unsplit, progress=False)
    monkeypatch.chdir(top)
    shutil.move(tmp_path / "val", tmp_path / "moved")
    assert patchword(["train", "--resume", str(out)]) == 2
    said = capsys.readouterr().err
    assert f"{tmp_path / 'val'}, the validation images of {out}, does not exist" in said
    assert f"`patchword train --resume {out} --val PATH`" in said
    shutil.move(tmp_path / "moved", tmp_path / "val")
    assert patchword(["train", "--resume", str(out)]) == 0
    said = capsys.readouterr().err
    assert "1 of the 12 images of val is also used for training" in said and "val/d0/seen.png" in said
    scored = _json(out / "evaluation.json")
    assert _json(out / "data.json")["opening"]["val"] == "val" and scored["scored"] == 11
    assert patchword(["evaluate", str(out), str(tmp_path / "val"), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["top1"], again["confusion"]) == (scored["top1"], scored["confusion"])


def test_check_reads_val(top: Path, capsys: Output) -> None:
    assert patchword(["check", str(top / "scans"), "--val", str(top / "other")]) == 0
    assert "2 images have a copy in another split" in capsys.readouterr().out
    found = pw.check(top / "scans", val=top / "other")
    assert {name: len(split) for name, split in found.dataset.splits.items()} == {"train": 18, "val": 12}
