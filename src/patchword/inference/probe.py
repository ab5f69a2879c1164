"""Score a probe on frozen features of a model: `patchword evaluate --probe`."""

from dataclasses import dataclass, replace
from pathlib import Path

from patchword import machine
from patchword.checkpoints.card import broken_notes
from patchword.data.dataset import Dataset
from patchword.data.open import open_data
from patchword.data.request import OpenRequest
from patchword.errors import DataError, ImageError, SettingsError, near_text, plural
from patchword.inference.engine import Output
from patchword.inference.evaluate import (
    Evaluation,
    EvaluationRequest,
    Overlap,
    Tally,
    not_held_out,
    refuse_unassigned,
    without_trained,
)
from patchword.inference.model import Model
from patchword.inference.parts import choose_part
from patchword.inference.sources import choose_split, open_as_trained
from patchword.probes.cache import FeatureCache
from patchword.probes.features import Features, feature_text
from patchword.probes.fit import PROBES, ProbeKind, ProbeReport, feature_pair, fit_probe


@dataclass(frozen=True, kw_only=True)
class ProbeRequest:
    """kind: "knn" or "linear". k: neighbours of k-NN; None for 20, or fewer with few images per class. cache: keep features.

    Raises: SettingsError for an unknown kind, a k below 1, or a k for a linear probe.
    """

    kind: ProbeKind
    k: int | None = None
    cache: bool = True

    def __post_init__(self) -> None:
        if self.kind not in PROBES:
            raise SettingsError(
                f"unknown probe {self.kind!r}{near_text(str(self.kind), PROBES)}",
                f"use one of: {', '.join(PROBES)}",
            )
        if self.k is not None and self.kind != "knn":
            raise SettingsError(f"k is {self.k}, but a {self.kind} probe has no k", "remove k, or use knn")
        if self.k is not None and self.k < 1:
            raise SettingsError(f"k is {self.k}", "set k to a whole number of at least 1")


def probe_request(probe: str | None, k: int | None, cache: bool) -> ProbeRequest | None:
    """The request of these options; None without a probe. Raises: SettingsError for options of a probe without one."""
    if probe is not None:
        return ProbeRequest(kind=probe, k=k, cache=cache)  # type: ignore[arg-type]
    given = f"--k {k}" if k is not None else "" if cache else "--no-cache"
    if given:
        raise SettingsError(f"{given} only applies to a probe", "add --probe, or remove it")
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


def evaluate_probe(
    model: Model, dataset: Dataset, probe: ProbeRequest, request: EvaluationRequest | None = None
) -> Evaluation:
    """Fit a probe to the training split and score it on another one. The model's own head, if any, is ignored.

    Images of the scored split that the model or the probe was trained on are skipped and counted, as in `evaluate`.
    Raises: DataError if there is no training split, if it has one class, or if no image is left to score; SettingsError.
    """
    request = request or EvaluationRequest()
    model.part(choose_part(model.config))  # refuses a backbone that was initialised randomly
    chosen = choose_split(dataset, request.split)
    keep = request.include_trained or chosen.name == "train"
    split, overlap = without_trained(dataset, chosen, model, keep=keep)
    cache = FeatureCache() if probe.cache else None
    train, scored = feature_pair(
        model.vit,
        model.preprocess.with_range(request.value_range),
        replace(dataset, splits={"train": dataset.training, "val": split}),
        workers=machine.granted_threads(),
        device=model.device,
        cache=cache,
        batch_size=request.batch_size,
        progress=request.progress,
    )
    if not keep:
        scored, overlap = _without_fitted(train, scored, overlap, len(chosen), dataset.path)
    if not len(scored):
        raise DataError(
            f"{dataset.path}: cannot read any of the {plural(len(split), 'image')} of {split.name}",
            "fix the images, or choose another split",
        )
    fitted = fit_probe(probe.kind, train, scored, len(dataset.classes), k=probe.k)
    tally = Tally(split, dataset.classes, model.preprocess.with_range(request.value_range))
    for failure in scored.failures:
        tally.add(Output(index=failure.index, name=failure.name, error=ImageError(failure.reason)))
    for index, logits in zip(scored.indices.tolist(), fitted.logits, strict=True):
        tally.add(Output(index=index, name=split.names[index], values=logits))
    found = tally.evaluation(dataset.path, str(model.report.path))
    notes = [*broken_notes(model.card), *(problem.message for problem in dataset.problems)]
    notes += [*not_held_out(dataset, split), *(cache.notes if cache else ())]
    notes += _skipped(train)
    if not fitted.converged:
        notes.append("the linear probe did not converge: more iterations could change its score slightly")
    report = ProbeReport(
        kind=probe.kind,
        feature=feature_text(model.vit),
        images=len(train),
        unreadable=tuple({"name": f.name, "reason": f.reason} for f in train.failures),
        cached=train.cached + scored.cached,
        computed_of=len(dataset.training) + len(split),
        cache=str(cache.folder) if cache else "",
        seconds=train.seconds + scored.seconds,
        k=fitted.k,
        penalty=fitted.penalty,
        converged=fitted.converged,
    )
    images = len(scored) + len(scored.failures)
    return replace(found, images=images, notes=tuple(notes), trained_on=overlap, probe=report)


def _skipped(train: Features) -> list[str]:
    """A note of the unreadable training images, if there are any."""
    if not train.failures:
        return []
    first, count = train.failures[0], plural(len(train.failures), "unreadable image")
    return [f"{count} of train skipped, such as {first.name}: {first.reason}"]


def _without_fitted(
    train: Features, scored: Features, overlap: Overlap | None, of: int, path: str
) -> tuple[Features, Overlap | None]:
    """Remove images whose files are also in the training split. Raises: DataError if none is left."""
    fitted = set(train.contents)
    rest = [i for i, content in enumerate(scored.contents) if content not in fitted]
    removed = len(scored) - len(rest)
    if not removed:
        return scored, overlap
    if not rest:
        raise DataError(
            f"{path}: all {removed} images to score are also training images of the probe",
            "use images that are not in train, or score these anyway with --include-trained",
        )
    images = removed + (overlap.images if overlap else 0)
    less = replace(
        scored,
        values=scored.values[rest],
        labels=scored.labels[rest],
        indices=scored.indices[rest],
        contents=tuple(scored.contents[i] for i in rest),
    )
    return less, Overlap(images=images, of=of, scored=False)
