"""What a model answers for each evaluation image, so that two models are compared image by image."""

import csv
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from patchword.data.align import align_targets
from patchword.data.contents import hashes_of
from patchword.data.dataset import Dataset, Split
from patchword.data.loader import from_split
from patchword.data.targets import TaskKind
from patchword.errors import DataError, escape_surrogates
from patchword.runs.comparing.answers_boxes import BoxRows, boxes_of, true_boxes, write_rows
from patchword.runs.comparing.measure import Given

if TYPE_CHECKING:
    from patchword.inference.model import Model

# A class, a value for each class or number, or rows of boxes.
Row = tuple[str, ...] | tuple[float, ...] | BoxRows
# Of one class for each image, the columns are called "true" and "predicted".
_ONE = ("",)


@dataclass(frozen=True, kw_only=True)
class Answers:
    """The answers to the images of a split. given: None where an image was not scored: unreadable, or trained on.

    outputs: names of the classes or numbers, sorted; of one class for each image, a single empty name. true, given: the class of each
    image; or 0 and 1, and logits; or numbers; or boxes. keys: of each image's content, equal for the same image under another name;
    the second copy of an image has another key.
    """

    task: TaskKind
    outputs: tuple[str, ...]
    names: tuple[str, ...]
    keys: tuple[str, ...]
    true: tuple[Row, ...]
    given: tuple[Row | None, ...]

    @property
    def scored(self) -> Given:
        """The answers to the images that were scored."""
        there = [
            (key, true, given)
            for key, true, given in zip(self.keys, self.true, self.given, strict=True)
            if given is not None
        ]
        if self.task == "single":
            pairs = [(np.ones(1), np.array([float(given == true)])) for _, true, given in there]
        elif self.task == "boxes":
            pairs = [(_rows(true, 7), _rows(given, 6)) for _, true, given in there]
        else:
            pairs = [(np.array(true, float), np.array(given, float)) for _, true, given in there]
        return Given(
            keys=tuple(key for key, _, _ in there),
            truth=tuple(truth for truth, _ in pairs),
            values=tuple(values for _, values in pairs),
        )


def _rows(row: Row, width: int) -> NDArray[np.float64]:
    return np.array(row, float).reshape(-1, width)


def answers_of_run(run: Path, task: TaskKind, dataset: Dataset) -> Answers:
    """The answers of a run's last weights. Raises: as `answers_of`."""
    from patchword.training.runfolder import LAST

    if task == "boxes":
        from patchword.inference.detector import load_detector

        split, classes = dataset.evaluation, tuple(sorted(dataset.classes))
        return Answers(
            task=task,
            outputs=classes,
            names=tuple(split.names),
            keys=_keys(hashes_of(split), split.names),
            true=tuple(true_boxes(dataset, classes)),
            given=tuple(boxes_of(load_detector(run / LAST), dataset, classes)),
        )
    from patchword.inference.load import load

    return answers_of(load(run / LAST), dataset)


def answers_of(model: "Model", dataset: Dataset) -> Answers:
    """Predict the images that the data set is evaluated on, as `evaluate` scores them.

    Raises: DataError if the model gives no number (NaN) for an image.
    """
    from patchword.inference.evaluate import without_trained

    split = dataset.evaluation
    scored, _ = without_trained(dataset, split, model, keep=False)
    place = {int(row): index for index, row in enumerate(split.rows)}
    given: list[Row | None] = [None] * len(split)
    found = model.answers(from_split(scored), model.vit, count=len(scored), max_pixels=scored.max_pixels)
    outputs = _ONE if dataset.task_kind == "single" else tuple(sorted(model.classes))
    for answer in found:
        if answer.values is not None:
            given[place[int(scored.rows[answer.index])]] = _row(model, answer.values, outputs)
    return Answers(
        task=dataset.task_kind,
        outputs=outputs,
        names=tuple(split.names),
        keys=_keys(hashes_of(split), split.names),
        true=_true_rows(dataset, model.classes, outputs),
        given=tuple(given),
    )


def _row(model: "Model", values: NDArray[np.floating], outputs: tuple[str, ...]) -> Row:
    """One answer: the class, logits, or numbers in their units."""
    from patchword.inference.outputs import in_units

    broken = bool(np.isnan(values).any())
    if outputs == _ONE:
        return ("" if broken else model.classes[int(np.argmax(values))],)
    if broken:
        raise DataError(
            f"{model.report.path}: the model answers NaN, so it cannot be compared",
            "train it again with a lower --lr",
        )
    if model.card.task == "number":
        values = in_units(model.card, values)
    return tuple(float(values[model.classes.index(name)]) for name in outputs)


def _true_rows(dataset: Dataset, classes: tuple[str, ...], outputs: Sequence[str]) -> tuple[Row, ...]:
    """The labels of the evaluation images. Raises: DataError if `classes`, those of a model, lack one."""
    split: Split = dataset.evaluation
    if dataset.task_kind == "single":
        return tuple((dataset.classes[label],) for label in split.labels)
    aligned = align_targets(dataset, classes, dataset.task_kind).evaluation
    columns = [classes.index(name) for name in outputs]
    values = aligned.image_targets.values[:, columns].astype(float)
    return tuple(tuple(row) for row in values.tolist())


def _keys(hashes: list[bytes | None], names: Sequence[str]) -> tuple[str, ...]:
    """One key for each image; an unreadable file has its name, as it has no content."""
    times: Counter[str] = Counter()
    keys = []
    for content, name in zip(hashes, names, strict=True):
        key = f"unreadable {name}" if content is None else content.hex()
        times[key] += 1
        keys.append(key if times[key] == 1 else f"{key}-{times[key]}")
    return tuple(keys)


def write_answers(path: Path, answers: Answers) -> None:
    """Write a CSV, or JSON lines for boxes; complete or not at all. Raises: OutputError."""
    from patchword.inference.output import whole_file

    rows = zip(answers.names, answers.keys, answers.true, answers.given, strict=True)
    if answers.task == "boxes":
        lines = [{"name": n, "content": k, "true": t, "predicted": g} for n, k, t, g in rows]
        write_rows(path, {"classes": answers.outputs}, lines)
        return
    with whole_file(path, text=True) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(map(escape_surrogates, _columns(answers.outputs)))
        for name, key, true, given in rows:
            shown = [""] * len(true) if given is None else given
            cells = (name, key, *true, *shown, "no" if given is None else "yes")
            writer.writerow([escape_surrogates(str(cell)) for cell in cells])


def _columns(outputs: Sequence[str]) -> list[str]:
    parts = [f"{word} {name}".rstrip() for word in ("true", "predicted") for name in outputs]
    return ["name", "content", *parts, "scored"]


def read_answers(path: Path, task: TaskKind) -> Answers:
    """Read what `write_answers` wrote. Raises: DataError if it is damaged."""
    try:
        if task == "boxes":
            return _read_boxes(path)
        with open(path, encoding="utf-8", newline="") as file:
            head, *rows = list(csv.reader(file))
        count = (len(head) - 3) // 2
        outputs = tuple(name.removeprefix("true").removeprefix(" ") for name in head[2 : 2 + count])
        if not count or head != _columns(outputs) or any(len(row) != len(head) for row in rows):
            raise ValueError("other columns than expected")

        def read(cells: list[str]) -> Row:
            return tuple(cells) if task == "single" else tuple(map(float, cells))

        return Answers(
            task=task,
            outputs=outputs,
            names=tuple(row[0] for row in rows),
            keys=tuple(row[1] for row in rows),
            true=tuple(read(row[2 : 2 + count]) for row in rows),
            given=tuple(read(row[2 + count : -1]) if row[-1] == "yes" else None for row in rows),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read ({error})", "delete it; --resume writes it again") from error


def _read_boxes(path: Path) -> Answers:
    head, *rows = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())

    def read(boxes: list[list[float]]) -> BoxRows:
        return tuple(tuple(map(float, box)) for box in boxes)

    return Answers(
        task="boxes",
        outputs=tuple(head["classes"]),
        names=tuple(row["name"] for row in rows),
        keys=tuple(row["content"] for row in rows),
        true=tuple(read(row["true"]) for row in rows),
        given=tuple(None if row["predicted"] is None else read(row["predicted"]) for row in rows),
    )
