"""`patchword compare` as a user runs it: trained, stopped, resumed, on finished runs, and with what cannot work."""

import csv
import json
import shutil
import signal
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import stats
from sklearn.metrics import average_precision_score, r2_score

import patchword as pw
from patchword.cli.main import run as patchword
from patchword.metrics.differences import over_images
from patchword.runs.comparing import compare as comparing
from patchword.runs.comparing.answers import read_answers
from patchword.runs.comparing.measure import MEASURES
from patchword.runs.comparing.result import compare_scored
from patchword.runs.comparing.verdict import Scored
from patchword.training.meter import Meter
from support.cells import CELLS, options
from support.page import Page
from support.scans import write_scans

SMALL = {
    "run.batch_size": 8,
    "run.threads": 1,
    "run.precision": "float32",
    "run.evaluate_every": 5,
    "model.depth": 1,
    "model.dim": 32,
    "model.attention.num_heads": 1,
    "model.patch.size": [12, 12],
    "optim.method": "adamw",
    "average.decay": 0.5,
    "augment.geometry.degrees": 0,
    "augment.geometry.translate": 0,
    "augment.geometry.shear": 0,
    "augment.geometry.zoom": 0,
    "task.label_smoothing": 0,
    "schedule.epochs": 6,
}
OPTIONS = [part for path, value in SMALL.items() for part in ("-o", f"{path}={value}")]
# The planted difference: a rate of a hundredth learns nothing in so few steps.
PLANTED = ["--vary", "lr=0.002,0.00002", "--seeds", "3", *OPTIONS]
Output = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def top(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compare")
    write_scans(folder / "scans" / "train", {"d0": 24, "d1": 24})
    write_scans(folder / "scans" / "val", {"d0": 30, "d1": 30}, first=60)
    return folder


@pytest.fixture(scope="module")
def compared(top: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(top)
        assert patchword(["compare", "scans", "--out", "planted", *PLANTED]) == 0
    return top / "planted"


def _result(folder: Path) -> dict[str, Any]:
    """The result without what a clock measured."""
    found = json.loads((folder / "comparison.json").read_text())["result"]
    for arm in found["arms"]:
        arm.pop("seconds"), arm.pop("at_equal_time")
        arm["curve"] = [[epoch, score] for epoch, _, score in arm["curve"]]
        for run in arm["runs"]:
            run.pop("seconds")
    for place in ("folder", "path", "equal_time"):
        found.pop(place)
    return found


def test_the_planted_rate_is_found_worse_and_the_intervals_are_those_of_scipy(compared: Path) -> None:
    result = _result(compared)
    (contrast,) = result["contrasts"]
    assert contrast["kind"] == "worse" and "clearly worse than 0.002" in contrast["verdict"]
    scores = [[run["score"] for run in arm["runs"]] for arm in result["arms"]]
    wanted = stats.ttest_rel(scores[1], scores[0])
    interval = wanted.confidence_interval(0.95)
    found = contrast["seeds"]
    assert (found["low"], found["high"]) == pytest.approx((interval.low, interval.high), abs=1e-9)
    assert found["p"] == pytest.approx(wanted.pvalue, abs=1e-9)
    right = [
        [
            read_answers(compared / name / f"seed-{seed}.csv", "single").scored.table[1][:, 0]
            for seed in range(3)
        ]
        for name in ("0.002", "0.00002")
    ]
    images = over_images(*map(np.array, right))
    assert (contrast["images"]["low"], contrast["images"]["high"]) == (images.low, images.high)


def test_each_run_is_that_of_train_and_its_answers_are_those_of_its_score(compared: Path, top: Path) -> None:
    for name, rate in (("0.002", 0.002), ("0.00002", 0.00002)):
        for seed in range(3):
            place = compared / name / f"seed-{seed}"
            settings = tomllib.loads((place / "config.toml").read_text())
            assert settings["optim"]["lr"] == rate and settings["run"]["seed"] == seed
            evaluation = json.loads((place / "evaluation.json").read_text())
            rows = list(csv.DictReader((compared / name / f"seed-{seed}.csv").read_text().splitlines()))
            assert len(rows) == 60
            assert sum(row["true"] == row["predicted"] for row in rows) / 60 == evaluation["top1"]
    out = top / "alone"
    command = ["train", str(top / "scans"), "--lr", "0.002", "--seed", "1", "--out", str(out), *OPTIONS]
    assert patchword(command) == 0
    alone, within = (
        json.loads((p / "evaluation.json").read_text()) for p in (out, compared / "0.002/seed-1")
    )
    assert alone["loss"] == within["loss"] and alone["top1"] == within["top1"]


def test_a_stopped_comparison_goes_on_to_the_same_table_from_another_folder(
    compared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a kill: one run lacks its evaluation, one has not begun, one has not written its answers."""
    shutil.copytree(compared, tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    for name in ("evaluation.json", "report.html"):
        Path(f"moved/0.00002/seed-1/{name}").unlink()
    shutil.rmtree("moved/0.00002/seed-2")
    for seed, name in ((1, "0.00002"), (2, "0.00002"), (2, "0.002")):
        Path(f"moved/{name}/seed-{seed}.csv").unlink()
    kept = Path("moved/0.002/seed-0/last.safetensors").stat().st_mtime_ns
    assert patchword(["compare", "--resume", "moved"]) == 0
    assert Path("moved/0.002/seed-0/last.safetensors").stat().st_mtime_ns == kept
    assert _result(Path("moved")) == _result(compared)


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_trained_and_says_how_to_go_on(
    compared: Path, top: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.chdir(top)
    with _stopped_at(monkeypatch, step=50):
        assert patchword(["compare", "scans", "--out", "stopped", *PLANTED]) == 130
    error, fix = capsys.readouterr().err.splitlines()[-2:]
    assert error == "error: interrupted; 1 of 6 runs are finished" and "--resume stopped" in fix
    assert patchword(["compare", "--resume", "stopped"]) == 0
    assert _result(top / "stopped") == _result(compared)


@contextmanager
def _stopped_at(monkeypatch: pytest.MonkeyPatch, step: int) -> Iterator[None]:
    """Ctrl-C in that step, counted over all runs."""
    count, real = 0, Meter.add

    def counted(*arguments: Any) -> None:
        nonlocal count
        count += 1
        if count == step:
            signal.raise_signal(signal.SIGINT)
        real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Meter, "add", counted)
        yield


def test_the_power_is_printed_before_the_first_run_and_the_table_fits_80_columns(
    top: Path, compared: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.chdir(top)
    with monkeypatch.context() as patch:
        patch.setattr(comparing, "train_all", stop)
        patchword(["compare", "scans", "--out", "early", *PLANTED])
    shown = capsys.readouterr().err
    assert "1 setting" not in shown and "2 settings x 3 seeds = 6 runs" in shown
    assert "power: with 3 seeds and 60 images, differences below about" in shown
    assert not (top / "early").exists()  # nothing was begun
    assert patchword(["compare", "--resume", str(compared)]) == 0  # finished: written again
    out = capsys.readouterr().out.splitlines()
    table = out[: out.index("")]
    assert all(len(line) <= 80 for line in table) and len(table) == 3
    assert table[1].split()[0] == "0.002" and "baseline" in table[1]


def test_the_page_has_every_run_and_no_number_of_its_own(compared: Path) -> None:
    text = (compared / "report.html").read_text()
    page, result = Page(text), _result(compared)
    assert "http://" not in text.replace("http://www.w3.org", "") and "https://" not in text
    assert result["words"][0] in page.text and "after each epoch" in page.text
    links = {value for name, value in page.attributes if name == "href"}
    for arm in result["arms"]:
        for run in arm["runs"]:
            assert f"{run['folder']}/report.html" in links and (compared / run["folder"]).is_dir()
            assert any(abs(value - run["score"]) < 1e-12 for value, _ in page.numbers)
    assert (compared / "comparison.svg").read_text().startswith("<svg xmlns")


def test_finished_runs_are_compared_alike_and_refused_on_other_images(
    compared: Path, top: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.chdir(tmp_path)
    runs = [str(compared / name / f"seed-{seed}") for name in ("0.002", "0.00002") for seed in range(3)]
    assert patchword(["compare", *runs, "--json", "--out", "found"]) == 0
    found, wanted = json.loads(capsys.readouterr().out), _result(compared)
    assert found["factors"] == ["lr"] and [arm["name"] for arm in found["arms"]] == ["0.002", "2e-05"]
    for part in ("seeds", "images"):
        assert found["contrasts"][0][part] == wanted["contrasts"][0][part]
    (two,) = pw.compare([runs[0], runs[3]], progress=False).contrasts
    assert two.kind == "one run" and two.images is not None and two.images.method == "exact McNemar"
    write_scans(tmp_path / "other" / "train", {"d0": 8, "d1": 8})
    write_scans(tmp_path / "other" / "val", {"d0": 4, "d1": 4}, first=60)
    assert patchword(["train", "other", "--out", "new", "--epochs", "1", *OPTIONS[:-2]]) == 0
    capsys.readouterr()
    assert patchword(["compare", runs[0], "new"]) == 2
    error, fix = capsys.readouterr().err.splitlines()
    assert "different images" in error and "52 of the first are missing" in error and "--split-seed" in fix


@pytest.mark.parametrize(
    ("arguments", "wrong", "fix"),
    [
        (["scans", "--vary", "norm=layer,instance"], "'mean' pooling would give every image the same", "remove instance"),
        (["scans", "--vary", "weights=none,nowhere.pt"], "nowhere.pt", ""),
        (["scans", "--vary", "norm=layer,rms", "--baseline", "rmz"], "did you mean 'rms'", "layer; rms"),
        (["scans", "--vary", "norm=layer,rms", "--resume", "x"], "cannot be combined with --resume", "remove --vary"),
        (["scans"], "only scans", "--vary"),
        (["planted/0.002/seed-0", "scans"], "not a run folder", "patchword train"),
        (["planted/0.002/seed-0", "planted/0.002/seed-0"], "given twice", "once"),
        (["--resume", "scans"], "no comparison.json", "patchword compare"),
        ([], "nothing to compare", "--vary"),
    ],
)  # fmt: skip
def test_a_mistake_costs_two_lines_and_trains_nothing(
    arguments: list[str], wrong: str, fix: str, compared: Path, top: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:  # fmt: skip
    monkeypatch.chdir(top)
    before = sorted(top.iterdir())
    assert patchword(["compare", *arguments]) == 2
    error, advice = capsys.readouterr().err.splitlines()[-2:]
    assert error.startswith("error: ") and wrong in error
    assert advice.startswith("  fix: ") and fix in advice
    assert sorted(top.iterdir()) == before


def test_what_works_in_no_combination_is_refused_and_what_works_in_some_is_left_out(
    top: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.chdir(top)
    command = ["compare", "scans", "--vary", "norm=layer,instance", "--vary", "pool=mean,max,class"]
    assert patchword([*command, "--dry-run", *OPTIONS]) == 0
    shown = capsys.readouterr().err
    assert "5 settings x 5 seeds = 25 runs" in shown
    assert "left out: instance, mean: 'mean' pooling would give" in shown
    assert "adds that token" in shown and "nothing was trained" in shown


@pytest.mark.slow
def test_a_run_that_diverges_is_listed_and_the_others_are_compared(
    top: Path, tmp_path: Path, capsys: Output
) -> None:
    out = tmp_path / "wild"
    command = ["compare", str(top / "scans"), "--vary", "lr=0.002,1e30", "--seeds", "1", "--out", str(out)]
    assert patchword([*command, *OPTIONS]) == 3
    shown = capsys.readouterr()
    assert "1 of 2 runs diverged: 1e30 (seed 0)" in shown.err
    assert "1e30: 1e30 diverged in 1 of 1 run (seed 0); not compared" in shown.out
    json.loads((out / "comparison.json").read_text(), parse_constant=_no_constant)


def _no_constant(name: str) -> Callable[[], None]:
    raise AssertionError(f"{name} is not JSON")


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of 8 pixels whose channels are bright or dark; the table says which, and how bright red and green are."""
    folder = tmp_path_factory.mktemp("colours")
    rng, rows = np.random.default_rng(0), []
    for i in range(72):
        level = rng.integers(0, 256, 3)
        pixels = np.clip(level + rng.normal(0, 12, (8, 8, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        rows.append(
            (f"{i}.png", "val" if i % 3 == 0 else "train", *(int(v > 127) for v in level), *level[:2])
        )
    with open(folder / "t.csv", "w", newline="") as file:
        csv.writer(file).writerows([("image", "split", "red", "green", "blue", "shade", "leaf"), *rows])
    return folder


TINY = [part for path in ("run.batch_size", "model.depth", "model.dim", "model.attention.num_heads")
        for part in ("-o", f"{path}={SMALL[path]}")] + ["-o", "schedule.epochs=4", "--patch-size", "4"]  # fmt: skip


@pytest.mark.parametrize(
    ("columns", "measure", "seeds"),
    [(["--label-column", "red,green,blue"], "mAP", 1), (["--target-column", "shade,leaf"], "R²", 2)],
)
def test_several_classes_and_numbers_are_compared_by_their_own_score(
    columns: list[str],
    measure: str,
    seeds: int,
    colours: Path,
    compared: Path,
    tmp_path: Path,
    capsys: Output,
) -> None:
    out, common = tmp_path / "c", [*columns, "--split-column", "split", "--threads", "1", *TINY]
    command = ["compare", str(colours / "t.csv"), "--vary", "lr=0.003,0.00001", "--seeds", str(seeds)]
    assert patchword([*command, "--out", str(out), *common]) == 0
    shown = capsys.readouterr()
    words = (
        "nothing can be said about a setting" if seeds == 1 else "times their standard deviation over seeds"
    )
    assert words in shown.err and shown.out.splitlines()[0].split()[1] == measure
    result = json.loads((out / "comparison.json").read_text())["result"]
    (contrast,) = result["contrasts"]
    scores = {arm["name"]: [run["score"] for run in arm["runs"]] for arm in result["arms"]}
    assert result["measure"] == measure and result["images"] == 24
    for name, found in scores.items():
        for seed, score in enumerate(found):
            rows = list(csv.DictReader((out / name / f"seed-{seed}.csv").read_text().splitlines()))
            names = [head[5:] for head in rows[0] if head.startswith("true ")]
            true, given = (
                np.array([[float(row[f"{word} {name}"]) for name in names] for row in rows])
                for word in ("true", "predicted")
            )
            score_of = average_precision_score if measure == "mAP" else r2_score
            assert score == pytest.approx(score_of(true, given), abs=1e-9)
            written = json.loads((out / name / f"seed-{seed}" / "evaluation.json").read_text())
            own = [o["r2"] for o in written["outputs"]] if measure == "R²" else written["scores"]["map"]
            assert score == pytest.approx(np.mean(own), abs=1e-6)
    mean = np.mean(scores["0.00001"]) - np.mean(scores["0.003"])
    assert contrast["images"]["mean"] == pytest.approx(mean, abs=1e-9) and mean < -0.1
    assert contrast["images"]["low"] < mean < contrast["images"]["high"] < 0
    assert result["arms"][0]["curve"][-1][2] == pytest.approx(np.mean(scores["0.003"]), abs=1e-6)
    assert measure in (out / "report.html").read_text()
    # The same runs, finished; and next to a run of other labels.
    runs = [str(out / name / f"seed-{seed}") for name in scores for seed in range(seeds)]
    again = pw.compare(runs, out=tmp_path / "again", progress=False).contrasts[0]
    assert again.images is not None and again.images.high == pytest.approx(
        contrast["images"]["high"], abs=1e-9
    )
    assert patchword(["compare", runs[0], str(compared / "0.002/seed-0")]) == 2
    error, fix = capsys.readouterr().err.splitlines()[-2:]
    assert "predicts one class" in error and "the same labels" in fix


@pytest.mark.slow
def test_detectors_are_compared_by_their_precision(tmp_path: Path, capsys: Output) -> None:
    out = tmp_path / "boxes"
    command = ["compare", str(CELLS), "--vary", "lr=0.001,0.00001", "--seeds", "2", "--out", str(out)]
    assert patchword([*command, *options(), "--epochs", "3", "-o", "run.evaluate_every=1"]) == 0
    assert capsys.readouterr().out.splitlines()[0].split()[1] == "AP"
    result = json.loads((out / "comparison.json").read_text())["result"]
    for arm in result["arms"]:
        for run in arm["runs"]:
            written = json.loads((out / run["folder"] / "evaluation.json").read_text())
            assert run["score"] == pytest.approx(written["detection"]["ap"], abs=1e-9)
    (contrast,) = result["contrasts"]
    assert contrast["images"]["low"] <= contrast["images"]["mean"] <= contrast["images"]["high"]
    shutil.rmtree(out / "0.00001" / "seed-1")
    (out / "0.00001" / "seed-1.jsonl").unlink()
    before = _result(out)
    assert patchword(["compare", "--resume", str(out)]) == 0 and _result(out) == before


@pytest.mark.slow
def test_several_runs_at_once_give_the_same_result(top: Path, compared: Path) -> None:
    result = pw.compare(
        top / "scans",
        vary={"lr": ["0.002", "0.00002"]},
        seeds=3,
        jobs=3,
        out=top / "at-once",
        settings=SMALL,
        progress=False,
    )
    assert result.contrasts[0].kind == "worse"
    assert _result(top / "at-once") == _result(compared)
    assert not list((top / "at-once").rglob("*.log.new")) and not list((top / "at-once").glob("*/*.log"))


@pytest.mark.slow
def test_one_setting_under_two_names_is_not_called_different(top: Path, tmp_path: Path) -> None:
    """What changes nothing is said to; and of 20 comparisons of three seeds with three others, at most 2 are called clear."""
    same = pw.compare(
        top / "scans",
        vary={"save_minutes": [10, 11]},
        seeds=2,
        jobs=1,
        out=tmp_path / "same",
        settings=SMALL,
        progress=False,
    )
    assert [contrast.kind for contrast in same.contrasts] == ["equal"]
    many = pw.compare(
        top / "scans",
        vary={"save_minutes": [10, 11]},
        seeds=8,
        jobs=1,
        out=tmp_path / "many",
        settings={**SMALL, "optim.lr": 0.00002},  # too low to learn all, so that seeds matter
        progress=False,
    )
    places = {seed: tmp_path / "many" / "10" / f"seed-{seed}" for seed in range(8)}
    given = {seed: read_answers(place.with_suffix(".csv"), "single").scored for seed, place in places.items()}
    assert len({tuple(found.table[1][:, 0]) for found in given.values()}) > 4
    chance, clear = np.random.default_rng(0), 0
    for _ in range(20):
        drawn = chance.permutation(8)[:6]
        scored = []
        for name, chosen in (("one", drawn[:3]), ("other", drawn[3:])):
            part = {i: many.arms[0].runs[seed] for i, seed in enumerate(chosen)}
            runs = tuple(replace(run, seed=i) for i, run in part.items())
            answers = {i: given[int(seed)] for i, seed in enumerate(chosen)}
            scored.append(Scored(name=name, runs=runs, given=answers, parameters=0, flops=0.0))
        _, (contrast,), _, _ = compare_scored(scored, "one", MEASURES["single"])
        clear += contrast.kind in ("better", "worse")
    assert clear <= 2
