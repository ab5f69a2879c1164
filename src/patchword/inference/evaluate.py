"""Evaluate a model on labelled images: each is scored once, unreadable ones are counted and never replaced."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from patchword import metrics
from patchword.data.align import align
from patchword.data.contents import seen_in, unpack
from patchword.data.dataset import Dataset, Split
from patchword.data.loader import from_split
from patchword.data.request import OpenRequest
from patchword.errors import DataError, plural
from patchword.images.preprocess import Preprocess, ValueRange
from patchword.inference.engine import Output, SameAnswers
from patchword.inference.from_features import head_on_features
from patchword.inference.mistakes import ConfusedPair, Entry, Mistake, Mistakes
from patchword.inference.model import Model
from patchword.inference.overlap import Overlap
from patchword.inference.sources import choose_split, open_as_trained
from patchword.inference.thumbnail import thumbnail
from patchword.metrics.calibration import Calibration, calibration
from patchword.probes.fit import ProbeReport
from patchword.weights.card import broken_notes

if TYPE_CHECKING:
    from patchword.inference.detector import Detector

# With this many classes or fewer, top-5 accuracy means little.
TOP5_ABOVE = 5
# 40 MB as float32; the calibration of 50,000 images of 1,000 classes uses every fifth.
MAX_LOGITS = 10_000_000
# Training images scored without augmentation at the end of a training.
MOST_TRAINING = 2000
_SURE_OF_ONE_CLASS = 20
_MISSING_LISTED = 3
NOT_RECORDED = (
    "these weights do not record their training images; if some of those are scored here, "
    "the score is optimistic"
)


@dataclass(frozen=True, kw_only=True)
class TrainingScore:
    """The score on training images without augmentation: `scored` of the `of` images of the split."""

    scored: int
    of: int
    top1: float
    top1_interval: tuple[float, float]
    loss: float


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The score of a model on a split: `scored` of its `images` were readable, and all shares are of those.

    top5: None with five classes or fewer. loss: mean cross-entropy. confusion: rows are true classes,
    columns predicted ones. mistakes: most confident first. notice: a warning about the model. notes:
    problems found while listing the data, such as images of classes unknown to the model; `images`
    does not include those. majority: the most frequent class of the scored images, and the accuracy
    of always predicting it. trained_on: how many images of the split the model was trained on; None
    if the weights do not record it. `images` includes them only if they are scored. calibration: of the
    probabilities. pairs: the classes confused most often. training: at the end of a training only. probe: what
    was fitted to the training split and scored, instead of the model's own head.
    """

    data: str
    split: str
    weights: str
    images: int
    scored: int
    unreadable: list[dict[str, str]]
    top1: float
    top1_interval: tuple[float, float]
    top5: float | None
    loss: float
    class_names: tuple[str, ...]
    classes: list[metrics.ClassScore]
    confusion: list[list[int]]
    mistakes: list[Mistake]
    notice: str = ""
    notes: tuple[str, ...] = ()
    majority: metrics.Majority | None = None
    trained_on: Overlap | None = None
    calibration: Calibration | None = None
    pairs: tuple[ConfusedPair, ...] = ()
    training: TrainingScore | None = None
    probe: ProbeReport | None = None

    @property
    def headline(self) -> str:
        return f"top-1 {100 * self.top1:.1f} %"

    @property
    def coverage(self) -> str:
        """ "over 3 of 4 classes (none of 'd')" if some have no scored image; "" if all have one."""
        lost = [n for n, c in zip(self.class_names, self.classes, strict=True) if not c.images]
        if not lost:
            return ""
        named = f" (none of {', '.join(map(repr, lost))})" if len(lost) <= _MISSING_LISTED else ""
        return f"over {len(self.classes) - len(lost)} of {len(self.classes)} classes{named}"

    def __repr__(self) -> str:
        low, high = (100 * share for share in self.top1_interval)
        warned = f"; warning: {self.notice}" if self.notice else ""
        return (
            f"Evaluation({self.weights!r} on {self.scored} of {plural(self.images, 'image')} of {self.split} of "
            f"{self.data!r}: top-1 {100 * self.top1:.1f} %, {low:.1f} to {high:.1f}{warned})"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return a dict like `evaluation.json` of a run folder."""
        plain = dataclasses.asdict(self)
        names = plain.pop("class_names")
        plain["classes"] = [{"name": n, **c} for n, c in zip(names, plain["classes"], strict=True)]
        plain["top1_interval"] = list(self.top1_interval)
        for optional in (
            "top5",
            "notice",
            "notes",
            "majority",
            "trained_on",
            "calibration",
            "pairs",
            "training",
            "probe",
        ):
            if not plain[optional]:
                plain.pop(optional)
        return plain


@dataclass(frozen=True, kw_only=True)
class EvaluationRequest:
    """split: its name; None for val, else test, else all. progress: called with (done, total).

    include_trained: also score images that the model was trained on; implied by the split "train".
    value_range: (lowest, highest) of float, 16- and 32-bit images; None for the model's own. from_features: compute the head
    alone on the features that a probe cached; for a model with one head.
    """

    split: str | None = None
    include_trained: bool = False
    batch_size: int | None = None
    ignore_unknown_classes: bool = False
    value_range: ValueRange | None = None
    progress: Callable[[int, int], None] | None = None
    from_features: bool = False


def open_for(
    model: Model, data: str | Path, request: OpenRequest | None = None, split_seed: int | None = None
) -> Dataset:
    """Open a data set for scoring this model on it.

    If the data has no split of its own and the model was trained on exactly this list of images, the
    images held out then are selected again. Any other data is scored completely, except for what
    `evaluate` leaves out. split_seed: hold out images as training with this seed does.
    Raises: SettingsError if the data has its own split and a seed is given; DataError, also if images have no class, or a class that the data's own train/ does not have.
    """
    return refuse_unassigned(open_as_trained(model.provenance, data, request or OpenRequest(), split_seed))


def refuse_unassigned(dataset: Dataset) -> Dataset:
    """Raises: DataError if images have no class or no split."""
    fatal = next((problem for problem in dataset.problems if problem.severity == "error"), None)
    if fatal is not None:  # some images are in no split, so a score would cover only the others
        raise DataError(fatal.message, fatal.fix)
    return dataset


def evaluate(model: Model, dataset: Dataset, request: EvaluationRequest | None = None) -> Evaluation:
    """Score the model on one split of the data, matching classes by name.

    Images that the model was trained on are skipped and counted, even if their files were renamed.
    Raises: DataError if classes are unknown to the model, the split does not exist, or none of its
    images is readable or new to the model; CheckpointError for a model without a trained head.
    """
    request = request or EvaluationRequest()
    model.check_can_predict()
    dataset = align(dataset, model.classes, ignore_unknown=request.ignore_unknown_classes)
    chosen = choose_split(dataset, request.split)
    keep = request.include_trained or request.split == "train"
    split, overlap = without_trained(dataset, chosen, model, keep=keep)
    tally = Tally(split, model.classes, model.preprocess.with_range(request.value_range))
    found = (
        head_on_features(model, split)
        if request.from_features
        else model.answers(
            from_split(split),
            model.vit,
            count=len(split),
            batch_size=request.batch_size,
            max_pixels=split.max_pixels,
            value_range=request.value_range,
        )
    )
    for answer in found:
        tally.add(answer)
        if request.progress is not None:
            request.progress(answer.index + 1, len(split))
    if not tally.true:
        raise DataError(
            f"{dataset.path}: cannot read any of the {plural(len(split), 'image')} of {split.name}"
            + (
                f"; {tally.unreadable[0]['name']}: {tally.unreadable[0]['reason']}"
                if tally.unreadable
                else ""
            ),
            "fix the images, or choose another split",
        )
    tallied = tally.evaluation(dataset.path, str(model.report.path))
    notes = [*broken_notes(model.card.provenance), *(problem.message for problem in dataset.problems)]
    notes += not_held_out(dataset, split)
    if overlap is None and model.provenance.data_hash and split.name in ("all", "train"):
        notes.append(NOT_RECORDED)
    return dataclasses.replace(tallied, notes=tuple(notes), trained_on=overlap)


def training_score(model: Model, dataset: Dataset) -> TrainingScore:
    """Score training images without augmentation: all, or always the same 2,000, drawn at random.

    Raises: DataError if none of them can be read.
    """
    split, most = dataset.training, MOST_TRAINING
    if len(split) > most:
        drawn = np.random.default_rng(0).choice(len(split), most, replace=False)
        split = split.subset(np.sort(drawn))
    sample = dataclasses.replace(dataset, splits={"train": split})
    found = evaluate(model, sample, EvaluationRequest(split="train"))
    return TrainingScore(
        scored=found.scored,
        of=len(dataset.training),
        top1=found.top1,
        top1_interval=found.top1_interval,
        loss=found.loss,
    )


def not_held_out(dataset: Dataset, split: Split) -> tuple[str, ...]:
    """Note the classes without an image in patchword's own split: the score does not cover them."""
    if dataset.split_seed is None or split.name == "train":
        return ()
    there = set(split.labels.tolist())
    lost = [name for label, name in enumerate(dataset.classes) if label not in there]
    if not lost:
        return ()
    shown = ", ".join(map(repr, lost[:5])) + (f" and {len(lost) - 5} more" if len(lost) > 5 else "")
    of = f"{len(dataset.classes) - len(lost)} of {len(dataset.classes)} classes"
    return (f"no image of {shown} is held out, because there are too few: the score covers {of}",)


def without_trained(
    dataset: Dataset, split: Split, model: "Model | Detector", *, keep: bool
) -> tuple[Split, Overlap | None]:
    """Remove the images that the model was trained on, if they are known, unless `keep` is set."""
    trained = unpack(model.provenance.trained_on)
    if not trained:
        return split, None
    seen = set(seen_in(split, trained))
    if keep or not seen:
        return split, Overlap(images=len(seen), of=len(split), scored=bool(seen))
    if len(seen) == len(split):
        raise DataError(
            f"{dataset.path}: this model was trained on all {len(split)} images of {split.name}",
            "use images that it has not seen, or score these anyway with --include-trained",
        )
    rest = [i for i in range(len(split)) if i not in seen]
    return split.subset(rest), Overlap(images=len(seen), of=len(split), scored=False)


class Tally:
    """Collects a few numbers per output, and the worst mistakes."""

    def __init__(self, split: Split, classes: tuple[str, ...], preprocess: Preprocess) -> None:
        self.split, self.classes, self.preprocess = split, classes, preprocess
        self.true: list[int] = []
        self.predicted: list[int] = []
        self.ranks: list[int] = []
        self.loss = 0.0
        self.unreadable: list[dict[str, str]] = []
        self.mistakes = Mistakes()
        # Logits of evenly spaced images, for the calibration: of all, unless they would fill the memory.
        self._every = -(-len(split) * len(classes) // MAX_LOGITS)
        self.logits: list[NDArray[np.float32]] = []
        self.same = SameAnswers()

    def add(self, answer: Output) -> None:
        if answer.values is None:
            assert answer.error is not None
            reason = answer.error.about(answer.name)
            self.unreadable.append({"name": answer.name, "reason": reason})
            return
        self.same.add(answer)
        logits, label = answer.values[None], int(self.split.labels[answer.index])
        labels = np.array([label])
        rank = int(metrics.ranks(logits, labels)[0])
        shares = metrics.softmax(answer.values)
        predicted = int(np.argmax(shares))
        self.loss += float(metrics.cross_entropy(logits, labels)[0])
        if len(self.true) % self._every == 0:
            self.logits.append(answer.values)
        self.true.append(label)
        self.predicted.append(predicted)
        self.ranks.append(rank)
        if predicted != label:
            found = (float(shares[predicted]), float(shares[label]))
            self.mistakes.add(answer.index, label, predicted, *found)

    def evaluation(self, data: str, weights: str) -> Evaluation:
        ranks, scored, num_classes = np.array(self.ranks), len(self.true), len(self.classes)
        images = np.bincount(self.true, minlength=num_classes).tolist()
        counts = metrics.confusion(np.array(self.true), np.array(self.predicted), num_classes)
        right = int((ranks == 0).sum())
        interval, majority = metrics.wilson_interval(right, scored), metrics.majority(images, self.classes)
        worth = majority.verdict(right / scored, interval[0]) if majority else ""
        notices = (self.same.notice or one_class_only(self.predicted, self.true, self.classes), worth)
        return Evaluation(
            data=data,
            split=self.split.name,
            weights=weights,
            images=len(self.split),
            scored=scored,
            unreadable=self.unreadable,
            top1=right / scored,
            top1_interval=interval,
            top5=float((ranks < 5).mean()) if num_classes > TOP5_ABOVE else None,
            loss=self.loss / scored,
            class_names=self.classes,
            classes=metrics.per_class(counts),
            confusion=counts.tolist(),
            mistakes=self.mistakes.worst(self._mistake),
            notice="; ".join(filter(None, notices)),
            majority=majority,
            calibration=calibration(np.stack(self.logits), np.array(self.true)[:: self._every]),
            pairs=tuple(self.mistakes.pairs(counts.tolist(), self.classes, self._mistake)),
        )

    def _mistake(self, entry: Entry) -> Mistake:
        share, index, true, predicted, true_share = entry
        index = -index
        return Mistake(
            name=self.split.names[index],
            true=self.classes[true],
            predicted=self.classes[predicted],
            probability=share,
            true_probability=true_share,
            thumbnail=thumbnail(
                self.split.source(index), self.split.names[index], self.preprocess, self.split.max_pixels
            ),
        )


def one_class_only(predicted: Sequence[int], true: Sequence[int], classes: Sequence[str]) -> str:
    """A warning if many images of several classes are all classified as one; else ""."""
    named, there = set(predicted), set(true)
    if len(named) > 1 or len(there) <= 1 or len(true) < _SURE_OF_ONE_CLASS:
        return ""
    return (
        f"all {len(true)} images are classified as {classes[named.pop()]!r}, although they "
        f"belong to {len(there)} classes: training collapsed, or these images differ from the training images"
    )
