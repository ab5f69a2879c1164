"""Score models that give several classes, or numbers, on images labelled so; `score` takes any model."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchword.checkpoints.card import broken_notes
from patchword.data.align import unknown_classes
from patchword.data.dataset import Dataset, Split
from patchword.data.loader import from_split
from patchword.data.targets import MultiLabels, Numbers
from patchword.errors import DataError, plural
from patchword.inference.engine import SameAnswers
from patchword.inference.evaluate import (
    NOT_RECORDED,
    Evaluation,
    EvaluationRequest,
    Overlap,
    evaluate,
    without_trained,
)
from patchword.inference.model import Model
from patchword.inference.outputs import in_units, sigmoid
from patchword.inference.sources import choose_split
from patchword.metrics.multilabel import exact_match, f1_scores, mean_average_precision
from patchword.metrics.regression import number_scores
from patchword.metrics.thresholds import choose_thresholds

_LABELLED = {
    "single": "one class per image",
    "multi": "several classes per image",
    "number": "numbers",
    "boxes": "boxes",
}


@dataclass(frozen=True, kw_only=True)
class TargetEvaluation:
    """The score of a model on a split: `scored` of its `images` were readable.

    task: "multi" or "number". scores: over all classes, by name ("map", "f1_micro", …), or empty. intervals: 95 %, of those
    that have one. outputs: the scores of each class or number, each with its "name".
    trained_on, notice, notes: as in `Evaluation`.
    """

    data: str
    split: str
    weights: str
    task: str
    images: int
    scored: int
    unreadable: list[dict[str, str]]
    scores: dict[str, float | None]
    intervals: dict[str, tuple[float, float]]
    outputs: list[dict[str, Any]]
    notice: str = ""
    notes: tuple[str, ...] = ()
    trained_on: Overlap | None = None

    @property
    def headline(self) -> str:
        """The main score with its interval."""
        if self.task == "multi":
            value = self.scores["map"]
            if value is None:
                return "no mean average precision: no image has a class"
            low, high = self.intervals["map"]
            return f"mAP {100 * value:.1f} % (95 % interval {100 * low:.1f} to {100 * high:.1f})"
        first = self.outputs[0]
        low, high = first["mae_interval"]
        more = f" ({len(self.outputs) - 1} more below)" if len(self.outputs) > 1 else ""
        return (
            f"mean error of {first['name']} {first['mae']:.4g} (95 % interval {low:.4g} to {high:.4g}){more}"
        )

    @property
    def lines(self) -> list[str]:
        """The other scores, a line each."""
        if self.task == "multi":
            named = {"f1_micro": "F1 at 0.5, all pairs", "f1_macro": "F1 at 0.5, mean of classes"}
            shown = [f"{text}  {_percent(self.scores[key])}" for key, text in named.items()]
            shown.append(f"all classes right  {_percent(self.scores['exact_match'])}")
            return shown + [
                f"{o['name']}: AP {_percent(o['ap'])}, F1 {_percent(o['f1'])}, {plural(o['images'], 'image')}"
                + (f", best threshold {o['threshold']:.3g}" if o["threshold"] is not None else "")
                for o in self.outputs
            ]
        return [
            f"{o['name']}: MAE {o['mae']:.4g}, RMSE {o['rmse']:.4g}, R2 "
            + ("not defined (all numbers are equal)" if o["r2"] is None else f"{o['r2']:.3f}")
            for o in self.outputs
        ]

    def __repr__(self) -> str:
        return f"TargetEvaluation({self.weights!r} on {self.scored} of {plural(self.images, 'image')}: {self.headline})"

    def to_dict(self) -> dict[str, Any]:
        """Return a dict like `evaluation.json` of a run folder."""
        plain = dataclasses.asdict(self)
        return {**plain, "headline": self.headline}


def _percent(share: float | None) -> str:
    return "none" if share is None else f"{100 * share:.1f} %"


def score(
    model: Model, dataset: Dataset, request: EvaluationRequest | None = None
) -> Evaluation | TargetEvaluation:
    """Score any model on data labelled as the model predicts.

    Raises: as `evaluate`; DataError if the data are labelled otherwise.
    """
    if model.card.task != dataset.task_kind:
        raise DataError(
            f"{dataset.path} has {_LABELLED[dataset.task_kind]}, but the model gives {_LABELLED[model.card.task]}",
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
    chosen = choose_split(_aligned(dataset, model), request.split)
    keep = request.include_trained or request.split == "train"
    split, overlap = without_trained(dataset, chosen, model, keep=keep)
    rows, outputs, unreadable, same = _outputs(model, split, request)
    if not rows:
        why = f"; {unreadable[0]['name']}: {unreadable[0]['reason']}" if unreadable else ""
        raise DataError(
            f"{dataset.path}: cannot read any of the {plural(len(split), 'image')} of {split.name}{why}",
            "fix the images, or choose another split",
        )
    scores, intervals, each = _scores(model, outputs, split.row_targets.rows(rows))
    notes = [*broken_notes(model.card), *(problem.message for problem in dataset.problems)]
    if overlap is None and model.provenance.data_hash and split.name in ("all", "train"):
        notes.append(NOT_RECORDED)
    return TargetEvaluation(
        data=dataset.path,
        split=split.name,
        weights=str(model.report.path),
        task=model.card.task,
        images=len(split),
        scored=len(rows),
        unreadable=unreadable,
        scores=scores,
        intervals=intervals,
        outputs=each,
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


def _scores(
    model: Model, outputs: NDArray[np.float32], truth: NDArray[Any]
) -> tuple[dict[str, float | None], dict[str, tuple[float, float]], list[dict[str, Any]]]:
    if model.card.task == "number":
        found = number_scores(in_units(model.card, outputs), truth.astype(np.float64))
        each = [
            {"name": n, **dataclasses.asdict(score)} for n, score in zip(model.classes, found, strict=True)
        ]
        return {}, {}, each
    shares = sigmoid(outputs)
    # Logits keep the order where probabilities are rounded to 1.
    precision, f1 = mean_average_precision(outputs, truth), f1_scores(shares >= 0.5, truth)
    best = choose_thresholds(shares, truth)
    each = [
        {
            "name": name,
            "images": t.images,
            "ap": ap,
            "f1": own,
            "threshold": t.threshold,
            "f1_best": t.f1_held_out,
        }
        for name, ap, own, t in zip(model.classes, precision.per_class, f1.per_class, best, strict=True)
    ]
    scores = {
        "map": precision.macro,
        "f1_micro": f1.micro,
        "f1_macro": f1.macro,
        "exact_match": exact_match(shares >= 0.5, truth),
    }
    return scores, {} if precision.interval is None else {"map": precision.interval}, each


def _aligned(dataset: Dataset, model: Model) -> Dataset:
    """The data with columns in the model's order. Raises: DataError for classes or numbers that the model has not."""
    unknown = [name for name in dataset.outputs if name not in model.classes]
    lacking = [name for name in model.classes if name not in dataset.outputs]
    if unknown and model.card.task == "multi":
        raise unknown_classes(dataset.path, unknown, model.classes, all_of_them=True)
    if model.card.task == "number" and (unknown or lacking):
        raise DataError(
            f"{dataset.path} has the numbers {', '.join(dataset.outputs)}, but the model predicts {', '.join(model.classes)}",
            f"pass --target-column {','.join(model.classes)}",
        )
    place = {name: i for i, name in enumerate(dataset.outputs)}
    splits = {}
    for name, split in dataset.splits.items():
        values: NDArray[Any] = split.row_targets.values
        if isinstance(split.targets, Numbers):
            ordered = values[:, [place[n] for n in model.classes]]
            splits[name] = dataclasses.replace(split, targets=Numbers(ordered, model.classes))
        else:
            # A class that no image has is not in the list of a table with a separator.
            absent = np.zeros(len(split), bool)
            columns = [values[:, place[n]] if n in place else absent for n in model.classes]
            splits[name] = dataclasses.replace(split, targets=MultiLabels(np.stack(columns, axis=1)))
    return dataclasses.replace(dataset, splits=splits)
