"""The page against the files it is made from."""

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest

from patchword.errors import DataError, OutputError
from patchword.metrics import wilson_interval
from patchword.reports.html import count, duration, percent, write_report
from support.page import Page
from support.run_folder import data_of, write_sample

FLOWERS = ["daisy", "dandelion", "roses", "sunflowers", "tulips"]
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "{{ 7 * 7 }}{% raw %}",
    "rose's & <b>tulip</b>",
    "\u202egnp.exe\u202c",
    "花 und Blüte 🌷",
    "\udcff not utf-8",
    "nul\x00bell\x07",
    "]]></style><style>*{display:none}",
    "a" * 300,
    "",
]


def _page(folder: Path) -> Page:
    return Page(write_report(folder).read_text(encoding="utf-8"))


def _all_numbers(value: Any) -> set[float]:
    if isinstance(value, dict):
        return set().union(*(_all_numbers(v) for v in value.values()), {float(len(value))})
    if isinstance(value, list):
        return set().union(*(_all_numbers(v) for v in value), {float(len(value))})
    return {float(value)} if isinstance(value, int | float) else set()


def test_the_page_begins_with_the_answer(tmp_path: Path) -> None:
    write_sample(tmp_path, FLOWERS)
    page = _page(tmp_path)
    assert page.headings[0] == (1, "85.7\u00a0% accuracy on flowers5.zip")
    flat = " ".join(page.text.split())
    assert "classifies 30 of 35 images of the split val correctly: top-1 85.7 %" in flat
    assert "interval from 80.5 % to 90.0 %" in flat
    assert "35 of 37 images were scored; 2 could not be read." in flat
    assert "averaged weights after the last epoch" in flat
    assert "best.safetensors holds epoch 2 with 85.0 %; that epoch was selected on this split" in flat


def test_a_last_epoch_that_is_the_best_is_not_said_to_be_beaten(tmp_path: Path) -> None:
    write_sample(tmp_path, FLOWERS, epochs=1)
    text = _page(tmp_path).text
    assert "The last epoch was also the best" in text and "optimistic" not in text


def test_every_number_shown_is_one_of_the_files(tmp_path: Path) -> None:
    evaluation = write_sample(tmp_path, FLOWERS)
    known = _all_numbers(evaluation) | _all_numbers(data_of(FLOWERS))
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        known |= _all_numbers(json.loads(line))
    confusion = evaluation["confusion"]
    known.add(float(sum(confusion[i][i] for i in range(5))))
    known |= {float(sum(row)) for row in confusion}
    known |= {max(c["images"] for c in evaluation["classes"]) / evaluation["scored"]}
    known |= {float(evaluation["images"] - evaluation["scored"]), 2.0, 3.0}  # settings chosen and not
    page = _page(tmp_path)
    assert len(page.numbers) > 60
    for value, text in page.numbers:
        assert value in known, text
        assert text in {percent(value), count(value), count(int(value)), f"{value:.4g}", f"{value:.3g}"}


def test_headings_descend_by_one_level(tmp_path: Path) -> None:
    write_sample(tmp_path, FLOWERS)
    levels = [level for level, _ in _page(tmp_path).headings]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in itertools.pairwise(levels))


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    plain, hostile = tmp_path / "plain", tmp_path / "hostile"
    write_sample(plain, [f"class {i}" for i in range(len(HOSTILE))])
    write_sample(hostile, HOSTILE)
    expected, page = _page(plain), _page(hostile)
    assert page.elements == expected.elements
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert "<script>alert(1)</script>" in page.text and "{{ 7 * 7 }}" in page.text
    assert "花 und Blüte 🌷" in page.text
    for hidden in "\u202e\u202c\x00\x07\udcff":
        assert hidden not in page.text
    assert r"\udcff not utf-8" in page.text and r"nul\x00bell" in page.text


def test_a_picture_that_is_none_is_not_loaded(tmp_path: Path) -> None:
    evaluation = write_sample(tmp_path, FLOWERS)
    for bad in (
        "http" + "://example.org/x.jpg",
        "data:text/html;base64,AAAA",
        'data:image/png;base64,A" onerror="x',
    ):
        evaluation["mistakes"][0]["thumbnail"] = bad
        (tmp_path / "evaluation.json").write_text(json.dumps(evaluation))
        page = _page(tmp_path)
        assert page.elements["img"] == 0 and "no image" in page.text


@pytest.mark.parametrize("number", [2, 5, 60])
def test_nothing_is_asked_from_outside(tmp_path: Path, number: int) -> None:
    write_sample(tmp_path, [f"class {i}" for i in range(number)])
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert not re.search(
        r"(?:https?:)?//[a-z0-9]", re.sub(r"base64,[A-Za-z0-9+/=]+", "", text), re.IGNORECASE
    )
    assert "@import" not in text and "url(" not in text
    links = [v or "" for n, v in Page(text).attributes if n in {"href", "src", "srcset", "action"}]
    assert links and all(v.startswith(("#", "data:")) for v in links)


def test_every_link_of_the_page_has_its_place(tmp_path: Path) -> None:
    evaluation = write_sample(tmp_path, FLOWERS)
    data = data_of(FLOWERS) | {"skipped": [{"name": "train/x.jpg", "reason": "empty"}]}
    (tmp_path / "data.json").write_text(json.dumps(data))
    assert evaluation["unreadable"]
    attributes = _page(tmp_path).attributes
    places = [v for n, v in attributes if n == "id"]
    assert len(places) == len(set(places))
    wanted = {v[1:] for n, v in attributes if n == "href" and v and v.startswith("#")}
    assert wanted <= set(places) and "skipped" in wanted


@pytest.mark.parametrize(("number", "has_matrix"), [(2, True), (40, True), (41, False)])
def test_a_matrix_is_shown_where_it_can_be_read(tmp_path: Path, number: int, has_matrix: bool) -> None:
    write_sample(tmp_path, [f"class {i}" for i in range(number)])
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert ('aria-label="Confusion matrix"' in text) is has_matrix
    assert ('aria-label="Most frequent confusions"' in text) is not has_matrix


def test_a_thousand_classes_stay_under_two_megabytes(tmp_path: Path) -> None:
    write_sample(tmp_path, [f"a rather long class name, number {i:04d}" for i in range(1000)])
    path = write_report(tmp_path)
    assert path.stat().st_size < 2_000_000
    assert "number 0999" in path.read_text(encoding="utf-8")


def test_the_three_most_frequent_confusions_are_named(tmp_path: Path) -> None:
    evaluation = write_sample(tmp_path, FLOWERS, wrong=0)
    evaluation["confusion"][4][2] = 5
    evaluation["confusion"][0][1] = 3
    evaluation["confusion"][1][3] = 1
    evaluation["confusion"][2][3] = 2
    (tmp_path / "evaluation.json").write_text(json.dumps(evaluation))
    text = " ".join(_page(tmp_path).text.split())
    assert (
        "Most often, tulips is predicted as roses (5 of 12), daisy is predicted as dandelion (3 of 10) "
        "and roses is predicted as sunflowers (2 of 9)." in text
    )


def test_no_mistakes_at_all_reads_well(tmp_path: Path) -> None:
    evaluation = write_sample(tmp_path, FLOWERS, wrong=0) | {"mistakes": []}
    (tmp_path / "evaluation.json").write_text(json.dumps(evaluation))
    page = _page(tmp_path)
    assert "No image was misclassified" in page.text
    assert "Most confident mistakes" not in page.text


def test_one_answer_for_every_image_is_said_first(tmp_path: Path) -> None:
    evaluation = write_sample(tmp_path, FLOWERS)
    evaluation["confusion"] = [[7, 0, 0, 0, 0] for _ in FLOWERS]
    (tmp_path / "evaluation.json").write_text(json.dumps(evaluation))
    assert "Every image is predicted as" in _page(tmp_path).text


def test_a_model_no_better_than_the_majority_class_is_the_first_hint(tmp_path: Path) -> None:
    classes = FLOWERS[:2]
    evaluation = write_sample(tmp_path, classes)
    cases = {
        (46, 8, 38): "no better than the majority class",
        (46, 8, 46): "no better than the majority class",  # exactly as good
        (38, 0, 30): "",  # one class alone: nothing to compare with
        (28, 26, 30): "not clearly better than the majority class",
        (28, 26, 50): "",
    }
    for (first, second, right), expected in cases.items():
        evaluation["classes"] = [
            {"name": n, "images": k, "precision": 0.6, "recall": 0.6, "f1": 0.6}
            for n, k in zip(classes, (first, second), strict=True)
        ]
        total = first + second
        found = {"top1": right / total, "top1_interval": list(wilson_interval(right, total)), "scored": total}
        (tmp_path / "evaluation.json").write_text(json.dumps(evaluation | found))
        text = " ".join(_page(tmp_path).text.split())
        assert ("majority class" in text) == bool(expected), (first, second, right)
        assert text.partition("Check first ")[2].startswith(f"The model is {expected}" if expected else "")


def test_classes_without_a_scored_image_are_named(tmp_path: Path) -> None:
    evaluation = write_sample(tmp_path, FLOWERS, wrong=0)
    evaluation["classes"][3]["images"] = 0
    (tmp_path / "evaluation.json").write_text(json.dumps(evaluation))
    text = " ".join(_page(tmp_path).text.split())
    assert "covers 4 of 5 classes: no image of sunflowers was scored" in text
    assert "top-1 100 % over 4 of 5 classes" in text


def test_a_broken_run_is_not_called_interrupted(tmp_path: Path) -> None:
    write_sample(tmp_path, FLOWERS, epochs=2)
    (tmp_path / "evaluation.json").unlink()
    record = {"kind": "broken", "epoch": 3, "step": 21, "lr": 90.0, "what": "loss", "advised_lr": "3e-4"}
    words = {"summary": "the loss is not finite in epoch 3, step 21, at learning rate 90"}
    more = {"message": "training diverged: " + words["summary"], "fix": "start again with --lr 3e-4"}
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(record | words | more) + "\n")
    page = _page(tmp_path)
    text = " ".join(page.text.split())
    assert page.headings[0][1] == "Training diverged: flowers5.zip"
    assert "in epoch 3, step 21, at learning rate 90" in text and "start again with --lr 3e-4" in text
    assert "interrupted" not in text and "--resume" not in text
    assert "patchword train flowers5.zip --config" in text and "config.toml --lr 3e-4" in text


def test_a_split_of_which_nothing_could_be_read_has_no_score(tmp_path: Path) -> None:
    evaluation = write_sample(tmp_path, FLOWERS) | {
        "scored": 0,
        "top1": None,
        "top1_interval": None,
        "mistakes": [],
    }
    evaluation["confusion"] = [[0] * 5 for _ in FLOWERS]
    evaluation["classes"] = [
        {"name": n, "images": 0, "precision": None, "recall": None, "f1": None} for n in FLOWERS
    ]
    (tmp_path / "evaluation.json").write_text(json.dumps(evaluation))
    page = _page(tmp_path)
    assert page.headings[0][1] == "No score for flowers5.zip"
    assert "None of the 37 images of the split val could be read" in " ".join(page.text.split())


def test_what_the_check_of_the_data_found_is_told(tmp_path: Path) -> None:
    write_sample(tmp_path, FLOWERS)
    found = {
        "problems": [{"severity": "warning", "message": "2 images are in both", "fix": "take them out"}],
        "skipped": [{"name": "train/a.jpg", "reason": "train/a.jpg: the file is empty"}],
        "passed_by": {"hidden files": 3},
    }
    (tmp_path / "data.json").write_text(json.dumps(data_of(FLOWERS) | found))
    text = " ".join(_page(tmp_path).text.split())
    assert "Warning: 2 images are in both → take them out" in text
    assert "train/a.jpg: the file is empty" in text and "train/a.jpg: train/a.jpg" not in text
    assert "3 hidden files" in text


def test_only_images_that_can_be_read_count_as_trained_on(tmp_path: Path) -> None:
    write_sample(tmp_path, FLOWERS)
    data = data_of(FLOWERS)
    data["splits"]["train"]["unreadable"] = [2, 0, 0, 1, 0]
    (tmp_path / "data.json").write_text(json.dumps(data))
    assert "trained on 52 images" in " ".join(_page(tmp_path).text.split())


def test_only_the_end_of_a_long_log_is_shown(tmp_path: Path) -> None:
    write_sample(tmp_path, FLOWERS)
    (tmp_path / "log.txt").write_text("".join(f"line {i} <b>\n" for i in range(100_000)))
    text = _page(tmp_path).text
    assert "line 99999 <b>" in text and "line 5 <b>" not in text and len(text) < 60_000


def test_a_class_that_is_never_named_comes_first_and_without_numbers(tmp_path: Path) -> None:
    evaluation = write_sample(tmp_path, FLOWERS)
    evaluation["classes"][2] |= {"precision": None, "recall": 0.0, "f1": float("nan")}
    (tmp_path / "evaluation.json").write_text(json.dumps(evaluation))
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert re.findall(r'<th scope="row" title="(\w+)">', text)[0] == "roses"
    assert not re.search(r"\b(nan|None)\b", Page(text).text)


def test_an_interrupted_run_says_what_is_missing(tmp_path: Path) -> None:
    write_sample(tmp_path, FLOWERS, epochs=3)
    (tmp_path / "evaluation.json").unlink()
    whole = (tmp_path / "metrics.jsonl").read_text().replace('"epochs": 3', '"epochs": 40')
    (tmp_path / "metrics.jsonl").write_text(whole + '{"kind": "epoch", "epo')
    page = _page(tmp_path)
    text = " ".join(page.text.split())
    assert "Not scored yet" in page.headings[0][1]
    assert "has completed epoch 3 of 40. It was interrupted or is still running" in text
    assert "--resume" in text and page.elements["svg"] >= 3


@pytest.mark.parametrize("kept", ["config.toml", "data.json", "metrics.jsonl", "evaluation.json", "log.txt"])
def test_any_one_file_alone_gives_a_page(tmp_path: Path, kept: str) -> None:
    write_sample(tmp_path, FLOWERS)
    for path in tmp_path.iterdir():
        if path.name != kept:
            path.unlink()
    assert _page(tmp_path).elements["h1"] == 1


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a run folder"):
        write_report(tmp_path)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    write_sample(tmp_path, FLOWERS)
    (tmp_path / "evaluation.json").write_text('{"top1": ')
    with pytest.raises(DataError, match=r"evaluation\.json"):
        write_report(tmp_path)


def test_a_page_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    write_sample(tmp_path, FLOWERS)
    (tmp_path / "report.html").mkdir()
    with pytest.raises(OutputError, match=r"report\.html"):
        write_report(tmp_path)
    assert not list(tmp_path.glob(".report-*"))


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    write_sample(tmp_path, FLOWERS)
    first = write_report(tmp_path).read_bytes()
    assert write_report(tmp_path).read_bytes() == first


def test_a_resumed_epoch_counts_once(tmp_path: Path) -> None:
    write_sample(tmp_path, FLOWERS, epochs=3)
    lines = (tmp_path / "metrics.jsonl").read_text()
    once = _page(tmp_path).text
    (tmp_path / "metrics.jsonl").write_text(lines + lines.splitlines()[-1] + "\n")
    assert _page(tmp_path).text == once


@pytest.mark.parametrize(
    ("share", "shown"),
    [(0.9917, "99.2"), (1.0, "100"), (0.99999, "> 99.9"), (0.0, "0"), (0.00001, "< 0.1"), (0.5, "50.0")],
)
def test_a_share_is_never_rounded_into_all_or_nothing(share: float, shown: str) -> None:
    assert percent(share) == f"{shown}\u00a0%"


@pytest.mark.parametrize(
    ("seconds", "shown"), [(5, "5 s"), (59.7, "1 min"), (95, "1 min 35 s"), (7260, "2 h 1 min")]
)
def test_durations_read_as_people_say_them(seconds: float, shown: str) -> None:
    assert duration(seconds).replace("\u00a0", " ") == shown
