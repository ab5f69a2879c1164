"""What a probe is fitted to and scored on: `patchword evaluate --probe`. `runs/probing.py` fits it."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from patchword.data.dataset import Dataset, Split
from patchword.data.loader import Failure
from patchword.data.open import open_data
from patchword.data.request import OpenRequest
from patchword.errors import DataError, ImageError, SettingsError, near_text, plural
from patchword.images.preprocess import Preprocess
from patchword.inference.engine import Output
from patchword.inference.evaluate import (
    Evaluation,
    EvaluationRequest,
    Tally,
    not_held_out,
    refuse_unassigned,
    without_trained,
)
from patchword.inference.model import Model
from patchword.inference.overlap import Overlap
from patchword.inference.parts import choose_part
from patchword.inference.sources import choose_split, open_as_trained
from patchword.probes.fit import ProbeReport, require_classes
from patchword.probes.kinds import PROBES, TRAINED, ProbeKind
from patchword.weights.card import broken_notes


@dataclass(frozen=True, kw_only=True)
class ProbeRequest:
    """Which probe, and how it is fitted.

    k: neighbours of "knn"; None for 20, or fewer with few images per class. cache: keep features. epochs, seed: of a probe that is
    trained in several passes ("attentive", "dino-linear", "mae-linear"); None for its own number, and 0. say: called with
    what the user should know before a long computation.

    Raises: SettingsError for an unknown kind, a value below the least, or an option that this probe does not have.
    """

    kind: ProbeKind
    k: int | None = None
    cache: bool = True
    epochs: int | None = None
    seed: int | None = None
    say: Callable[[str], None] | None = None

    def __post_init__(self) -> None:
        if self.kind not in PROBES:
            raise SettingsError(
                f"unknown probe {self.kind!r}{near_text(str(self.kind), PROBES)}",
                f"use one of: {', '.join(PROBES)}",
            )
        if self.k is not None and self.kind != "knn":
            why = "always uses k 20" if self.kind == "dino-knn" else "has no k"
            article = "an" if self.kind[0] in "aeiou" else "a"
            raise SettingsError(
                f"k is {self.k}, but {article} {self.kind} probe {why}", "remove k, or use knn"
            )
        for name, least in (("k", 1), ("epochs", 1), ("seed", 0)):
            value = getattr(self, name)
            if value is not None and name != "k" and self.kind not in TRAINED:
                raise SettingsError(
                    f"{name} is {value}, but the {self.kind} probe has no {name}: it is not trained in passes",
                    f"remove {name}, or use one of: {', '.join(TRAINED)}",
                )
            if value is not None and value < least:
                raise SettingsError(f"{name} is {value}", f"set {name} to a whole number of at least {least}")


def probe_request(
    probe: str | None,
    k: int | None,
    cache: bool,
    epochs: int | None = None,
    seed: int | None = None,
    say: Callable[[str], None] | None = None,
) -> ProbeRequest | None:
    """The request of these options; None without a probe. Raises: SettingsError for options of a probe without one."""
    if probe is not None:
        return ProbeRequest(kind=probe, k=k, cache=cache, epochs=epochs, seed=seed, say=say)  # type: ignore[arg-type]
    given = [f"--{name} {v}" for name, v in (("k", k), ("epochs", epochs), ("seed", seed)) if v is not None]
    if given or not cache:
        option = given[0] if given else "--no-cache"
        raise SettingsError(f"{option} only applies to a probe", "add --probe, or remove it")
    return None


def open_for_probe(
    model: Model, data: str | Path, request: OpenRequest | None = None, split_seed: int | None = None
) -> Dataset:
    """Open a data set with a training split: its own, or the one that training would make.

    split_seed: hold out images as training with this seed does.
    Raises: SettingsError if the data has its own split and a seed is given; DataError, also if images have no class, or if
        the data's own splits have no train.
    """
    if split_seed is not None:
        dataset = open_as_trained(model.provenance, data, request or OpenRequest(), split_seed)
        return refuse_unassigned(dataset)
    seed = model.provenance.facts.get("split_seed", 0)
    how = replace(request or OpenRequest(), split=True, split_seed=seed if isinstance(seed, int) else 0)
    dataset = refuse_unassigned(open_data(data, how))
    if not len(dataset.training):
        raise DataError(f"{dataset.path} has no training images", "add a train/ folder")
    return dataset


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What a probe is fitted to and scored on.

    split: to score, without the images the model was trained on unless `keep`; overlap: those, `of` all images of the chosen split.
    """

    model: Model
    dataset: Dataset
    split: Split
    overlap: Overlap | None
    keep: bool
    of: int
    preprocess: Preprocess


def set_up(model: Model, dataset: Dataset, request: EvaluationRequest) -> Setup:
    """Choose what is scored. Raises: DataError if no image is left; CheckpointError for a backbone that was drawn at random."""
    model.part(choose_part(model.config))  # refuses a backbone that was initialised randomly
    require_classes(dataset.training.labels)
    chosen = choose_split(dataset, request.split)
    keep = request.include_trained or chosen.name == "train"
    split, overlap = without_trained(dataset, chosen, model, keep=keep)
    return Setup(
        model=model,
        dataset=dataset,
        split=split,
        overlap=overlap,
        keep=keep,
        of=len(chosen),
        preprocess=model.preprocess.with_range(request.value_range),
    )


def without_fitted(
    setup: Setup, fitted: Collection[bytes], contents: Sequence[bytes]
) -> tuple[list[int], Overlap | None]:
    """Which of the images to score the probe was not fitted to, by content; and how many images are not held out.

    Raises: DataError if none is left.
    """
    path = setup.dataset.path
    if not contents:
        raise DataError(
            f"{path}: cannot read any of the {plural(len(setup.split), 'image')} of {setup.split.name}",
            "fix the images, or choose another split",
        )
    known = set(fitted)
    rest = [i for i, content in enumerate(contents) if setup.keep or content not in known]
    removed = len(contents) - len(rest)
    if not removed:
        return rest, setup.overlap
    if not rest:
        raise DataError(
            f"{path}: all {removed} images to score are also training images of the probe",
            "use images that are not in train, or score these anyway with --include-trained",
        )
    images = removed + (setup.overlap.images if setup.overlap else 0)
    return rest, Overlap(images=images, of=setup.of, scored=False)


def scored_probe(
    setup: Setup,
    report: ProbeReport,
    *,
    indices: Sequence[int],
    logits: NDArray[np.float32],
    failures: Sequence[Failure],
    overlap: Overlap | None,
    notes: Sequence[str],
    fitted_labels: NDArray[np.int64],
) -> Evaluation:
    """The evaluation of logits [M, C] of these images of the split. fitted_labels: of the images that the probe was fitted to."""
    dataset, split, model = setup.dataset, setup.split, setup.model
    tally = Tally(split, dataset.classes, setup.preprocess)
    for failure in failures:
        tally.add(Output(index=failure.index, name=failure.name, error=ImageError(failure.reason)))
    for index, row in zip(indices, logits, strict=True):
        tally.add(Output(index=index, name=split.names[index], values=row))
    found = tally.evaluation(dataset.path, str(model.report.path))
    said = [*broken_notes(model.card.provenance), *(problem.message for problem in dataset.problems)]
    said += [*not_held_out(dataset, split), *notes, *_unlearned(setup, indices, fitted_labels)]
    return replace(
        found,
        images=len(indices) + len(failures),
        notes=tuple(said),
        trained_on=overlap,
        probe=report,
    )


def _unlearned(setup: Setup, indices: Sequence[int], fitted_labels: NDArray[np.int64]) -> list[str]:
    """A note of scored images whose class has no readable training image."""
    classes = setup.dataset.classes
    labels = setup.split.labels[np.asarray(indices, np.int64)]
    lost = labels[~np.isin(labels, fitted_labels)]
    if not len(lost):
        return []
    names = ", ".join(repr(classes[i]) for i in np.unique(lost)[:3])
    more = ", …" if len(np.unique(lost)) > 3 else ""
    return [
        f"{plural(len(lost), 'scored image')} can only be wrong: no readable training image is of class {names}{more}"
    ]


def skipped_note(skipped: Sequence[tuple[str, str]]) -> list[str]:
    """A note of the unreadable training images (name, reason), if there are any."""
    if not skipped:
        return []
    (name, reason), count = skipped[0], plural(len(skipped), "unreadable image")
    return [f"{count} of train skipped, such as {name}: {reason}"]
