"""Score models that give several classes, or numbers, on images labelled so; `score` takes any model."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchword.data.align import LABELLED, align_targets
from patchword.data.dataset import Dataset, Split
from patchword.data.loader import from_split
from patchword.errors import DataError, plural
from patchword.inference.engine import SameAnswers
from patchword.inference.evaluate import (
    NOT_RECORDED,
    Evaluation,
    EvaluationRequest,
    evaluate,
    without_trained,
)
from patchword.inference.model import Model
from patchword.inference.outputs import in_units, sigmoid
from patchword.inference.overlap import Overlap
from patchword.inference.sources import choose_split
from patchword.inference.target_scores import TargetScores, scores_of_classes, scores_of_numbers
from patchword.weights.card import broken_notes


@dataclass(frozen=True, kw_only=True)
class TargetEvaluation(TargetScores):
    """The score of a model on a split: `scored` of its `images` were readable.

    trained_on, notice, notes: as in `Evaluation`; the others as in `TargetScores`.
    """

    data: str
    split: str
    weights: str
    images: int
    scored: int
    unreadable: list[dict[str, str]]
    notice: str = ""
    notes: tuple[str, ...] = ()
    trained_on: Overlap | None = None

    def __repr__(self) -> str:
        return f"TargetEvaluation({self.weights!r} on {self.scored} of {plural(self.images, 'image')}: {self.headline})"

    def to_dict(self) -> dict[str, Any]:
        """Return a dict like `evaluation.json` of a run folder."""
        plain = dataclasses.asdict(self)
        return {**plain, "headline": self.headline}


def score(
    model: Model, dataset: Dataset, request: EvaluationRequest | None = None
) -> Evaluation | TargetEvaluation:
    """Score any model on data labelled as the model predicts.

    Raises: as `evaluate`; DataError if the data are labelled otherwise.
    """
    if model.card.task != dataset.task_kind:
        raise DataError(
            f"{dataset.path} has {LABELLED[dataset.task_kind]}, but the model gives {LABELLED[model.card.task]}",
            {
                "single": "give data with one class for each image",
                "multi": "pass --label-separator or several columns with --label-column",
                "number": f"pass --target-column {','.join(model.classes)}",
            }[model.card.task],
        )
    if model.card.task == "single":
        return evaluate(model, dataset, request)
    return _score(model, dataset, request or EvaluationRequest())


def _score(model: Model, dataset: Dataset, request: EvaluationRequest) -> TargetEvaluation:
    model.check_can_predict()
    dataset = align_targets(
        dataset, model.classes, model.card.task, ignore_unknown=request.ignore_unknown_classes
    )
    chosen = choose_split(dataset, request.split)
    keep = request.include_trained or request.split == "train"
    split, overlap = without_trained(dataset, chosen, model, keep=keep)
    rows, outputs, unreadable, same = _outputs(model, split, request)
    if not rows:
        why = f"; {unreadable[0]['name']}: {unreadable[0]['reason']}" if unreadable else ""
        raise DataError(
            f"{dataset.path}: cannot read any of the {plural(len(split), 'image')} of {split.name}{why}",
            "fix the images, or choose another split",
        )
    scores = _scores(model, outputs, split.image_targets.rows(rows))
    notes = [*broken_notes(model.card.provenance), *(problem.message for problem in dataset.problems)]
    if overlap is None and model.provenance.data_hash and split.name in ("all", "train"):
        notes.append(NOT_RECORDED)
    return TargetEvaluation(
        data=dataset.path,
        split=split.name,
        weights=str(model.report.path),
        images=len(split),
        scored=len(rows),
        unreadable=unreadable,
        **vars(scores),
        notice=same.notice,
        notes=tuple(notes),
        trained_on=overlap,
    )


def _outputs(
    model: Model, split: Split, request: EvaluationRequest
) -> tuple[list[int], NDArray[np.float32], list[dict[str, str]], SameAnswers]:
    """The places of the readable images, their outputs [N, C], and the others with their reasons."""
    rows, values, unreadable, same = [], [], [], SameAnswers()
    for answer in model.answers(
        from_split(split),
        model.vit,
        count=len(split),
        batch_size=request.batch_size,
        max_pixels=split.max_pixels,
        value_range=request.value_range,
    ):
        same.add(answer)
        if answer.values is None:
            assert answer.error is not None
            unreadable.append({"name": answer.name, "reason": answer.error.about(answer.name)})
        else:
            rows.append(answer.index)
            values.append(answer.values)
        if request.progress is not None:
            request.progress(answer.index + 1, len(split))
    return rows, np.stack(values) if values else np.zeros((0, 0), np.float32), unreadable, same


def _scores(model: Model, outputs: NDArray[np.float32], truth: NDArray[Any]) -> TargetScores:
    if model.card.task == "number":
        return scores_of_numbers(model.classes, in_units(model.card, outputs), truth)
    return scores_of_classes(model.classes, outputs, sigmoid(outputs), truth)
