"""What a model answers for each evaluation image, so that two models are compared image by image."""

import csv
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from patchword.data.contents import hashes_of
from patchword.data.dataset import Dataset
from patchword.data.loader import from_split
from patchword.errors import DataError, escape_surrogates

if TYPE_CHECKING:
    from patchword.inference.model import Model

_COLUMNS = ("name", "content", "true", "predicted", "scored")


@dataclass(frozen=True, kw_only=True)
class Answers:
    """The predicted class of each image of a split, None where it was not scored: unreadable, or trained on.

    keys: of each image's content, equal for the same image under another name; the second copy of an image has another key.
    """

    names: tuple[str, ...]
    keys: tuple[str, ...]
    true: tuple[str, ...]
    predicted: tuple[str | None, ...]

    @property
    def right(self) -> dict[str, bool]:
        """Whether each scored image is classified correctly, by its key."""
        found = zip(self.keys, self.true, self.predicted, strict=True)
        return {key: true == predicted for key, true, predicted in found if predicted is not None}


def answers_of(model: "Model", dataset: Dataset) -> Answers:
    """Classify the images that the data set is evaluated on, as `evaluate` scores them."""
    from patchword.inference.evaluate import without_trained

    split = dataset.evaluation
    scored, _ = without_trained(dataset, split, model, keep=False)
    keys = _keys(hashes_of(split), split.names)
    place = {int(row): index for index, row in enumerate(split.rows)}
    predicted: list[str | None] = [None] * len(split)
    found = model.answers(from_split(scored), model.vit, count=len(scored), max_pixels=scored.max_pixels)
    for answer in found:
        if answer.values is not None:
            index = place[int(scored.rows[answer.index])]
            broken = bool(np.isnan(answer.values).any())
            predicted[index] = "" if broken else model.classes[int(np.argmax(answer.values))]
    return Answers(
        names=tuple(split.names),
        keys=keys,
        true=tuple(dataset.classes[label] for label in split.labels),
        predicted=tuple(predicted),
    )


def _keys(hashes: list[bytes | None], names: tuple[str, ...]) -> tuple[str, ...]:
    """One key for each image; an unreadable file has its name, as it has no content."""
    times: Counter[str] = Counter()
    keys = []
    for content, name in zip(hashes, names, strict=True):
        key = f"unreadable {name}" if content is None else content.hex()
        times[key] += 1
        keys.append(key if times[key] == 1 else f"{key}-{times[key]}")
    return tuple(keys)


def write_answers(path: Path, answers: Answers) -> None:
    """Write a CSV, complete or not at all. Raises: OutputError."""
    from patchword.inference.output import whole_file

    with whole_file(path, text=True) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        rows = zip(answers.names, answers.keys, answers.true, answers.predicted, strict=True)
        for name, key, true, predicted in rows:
            cells = (name, key, true, predicted or "", "no" if predicted is None else "yes")
            writer.writerow([escape_surrogates(cell) for cell in cells])


def read_answers(path: Path) -> Answers:
    """Read what `write_answers` wrote. Raises: DataError if it is damaged."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))
        if tuple(rows[0]) != _COLUMNS or any(len(row) != len(_COLUMNS) for row in rows):
            raise ValueError("other columns than expected")
    except (OSError, ValueError, IndexError) as error:
        raise DataError(f"{path} cannot be read ({error})", "delete it; --resume writes it again") from error
    names, keys, true, predicted, scored = zip(*rows[1:], strict=True) if len(rows) > 1 else ((),) * 5
    return Answers(
        names=names,
        keys=keys,
        true=true,
        predicted=tuple(p if s == "yes" else None for p, s in zip(predicted, scored, strict=True)),
    )
