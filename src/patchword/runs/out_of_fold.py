"""Predict every image by the model of the fold that has not seen it."""

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from patchword import metrics
from patchword.data.contents import seen_in, unpack
from patchword.data.dataset import Dataset, Split
from patchword.data.loader import from_split
from patchword.errors import DataError, escape_surrogates

if TYPE_CHECKING:
    from patchword.inference.evaluate import Evaluation

PREDICTIONS = "out-of-fold.csv"


def predict_out_of_fold(
    dataset: Dataset, pool: Split, numbers: NDArray[np.int64], runs: Sequence[Path], table: Path
) -> "tuple[Evaluation, int]":
    """Score `pool`, each image by the last weights of `runs[numbers[image]]`, and write the predictions as CSV.

    Images that a model, or what it started from, was trained on are not predicted; returned is also their count.
    Raises: DataError if no image can be predicted; OutputError.
    """
    from patchword.inference.evaluate import Tally
    from patchword.inference.load import load
    from patchword.training.runfolder import LAST

    models = [load(folder / LAST) for folder in runs]
    predicted = np.flatnonzero(~_seen(pool, numbers, [unpack(m.provenance.trained_on) for m in models]))
    if not len(predicted):
        raise DataError(
            f"{dataset.path}: the models were trained on all {len(pool)} images, so none is left to evaluate on",
            "use images that the initial weights were not trained on",
        )
    split = replace(pool.subset(predicted), name="out of fold")
    tally = Tally(split, dataset.classes, models[0].preprocess)
    rows: dict[int, list[object]] = {}
    for fold, model in enumerate(models):
        own = np.flatnonzero(numbers[predicted] == fold)
        images = split.subset(own)
        found = model.answers(from_split(images), model.vit, count=len(images), max_pixels=images.max_pixels)
        for answer in found:
            index = int(own[answer.index])
            tally.add(replace(answer, index=index))
            if answer.values is not None:
                shares = metrics.softmax(answer.values)
                names = (split.names[index], dataset.classes[split.labels[index]])
                best = dataset.classes[int(np.argmax(shares))]
                rows[index] = [names[0], fold + 1, names[1], best, *(f"{share:.6g}" for share in shares)]
    if not rows:
        raise DataError(f"{dataset.path}: cannot read any of the {len(split)} images", "restore the data")
    _write(table, dataset.classes, [rows[index] for index in sorted(rows)])
    return tally.evaluation(dataset.path, str(table.parent)), len(pool) - len(predicted)


def _seen(pool: Split, numbers: NDArray[np.int64], trained: Sequence[frozenset[bytes]]) -> NDArray[np.bool_]:
    """[N]: whether the model of the image's fold was trained on it."""
    seen = np.zeros(len(pool), np.bool_)
    for fold, hashes in enumerate(trained):
        own = np.flatnonzero(numbers == fold)
        seen[own[seen_in(pool.subset(own), hashes)]] = True
    return seen


def _write(path: Path, classes: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    from patchword.inference.output import whole_file

    with whole_file(path, text=True) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["name", "fold", "true", "predicted", *(f"probability_{name}" for name in classes)])
        for row in rows:
            writer.writerow([escape_surrogates(cell) if isinstance(cell, str) else cell for cell in row])
