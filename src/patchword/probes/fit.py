"""Fit a probe to features, and the score that training must not fall below."""

import time
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from patchword import metrics
from patchword.data.dataset import Dataset
from patchword.errors import DataError, SettingsError
from patchword.images.preprocess import Preprocess
from patchword.model.vit import ViT
from patchword.probes.cache import FeatureCache
from patchword.probes.features import Features, Progress, features
from patchword.probes.knn import default_k, knn_votes
from patchword.probes.linear import fit_linear
from patchword.probes.parts import HEAD, Part, feature_dim

ProbeKind = Literal["knn", "linear"]
PROBES: tuple[ProbeKind, ...] = ("knn", "linear")
# The logarithm of no votes at all.
_LEAST_SHARE = 1e-6


@dataclass(frozen=True, kw_only=True)
class ProbeReport:
    """What was fitted. feature: what the probe reads. images: of the training split; unreadable: names and reasons of others.

    k: neighbours, of k-NN. penalty: L2, of the mean loss of the linear probe, on standardised features. converged: whether
    that fit ended before its limit of iterations. cached: how many of the `computed_of` images, of both splits, had their features
    in the cache. cache: the folder; "" without one. seconds: for features and fit.
    """

    kind: ProbeKind
    feature: str
    images: int
    unreadable: tuple[dict[str, str], ...]
    cached: int
    computed_of: int
    cache: str
    seconds: float
    k: int | None = None
    penalty: float | None = None
    converged: bool = True


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """logits [M, C] of the scored images; of k-NN, the logarithms of the shares of votes."""

    logits: NDArray[np.float32]
    k: int | None = None
    penalty: float | None = None
    converged: bool = True


def fit_probe(
    kind: ProbeKind, train: Features, scored: Features, num_classes: int, *, k: int | None = None
) -> Fitted:
    """Fit to the training features and compute logits of the others.

    Raises: SettingsError for a k above the number of training images; DataError for training images of one class.
    """
    if kind == "linear":
        probe = fit_linear(train.values, train.labels, num_classes)
        return Fitted(logits=probe.logits(scored.values), penalty=probe.penalty, converged=probe.converged)
    if len(np.unique(train.labels)) < 2:
        raise DataError(
            "a probe needs training images of at least two classes, and these are of one",
            "add class folders, or choose other data",
        )
    chosen = default_k(train.labels) if k is None else k
    votes = knn_votes(train.values, train.labels, scored.values, num_classes, k=chosen)
    return Fitted(logits=np.log(votes.clip(_LEAST_SHARE)).astype(np.float32), k=chosen)


@dataclass(frozen=True, kw_only=True)
class Floor:
    """The score of a linear probe on the evaluation split: fine-tuning the same model should end no worse.

    weight [C, D], bias [C]: float32; `set_head` puts them into the model. interval: 95 %, of top1. seconds: for features and
    fit. cached: how many images had their features in the cache, of `images`. loss: mean cross-entropy. training_…: of the
    images that it was fitted to. notes: problems with the cache.
    """

    kind: ProbeKind
    top1: float
    interval: tuple[float, float]
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    penalty: float
    converged: bool
    seconds: float
    images: int
    cached: int
    loss: float
    training_images: int
    training_top1: float
    training_loss: float
    notes: tuple[str, ...] = ()


def floor(
    vit: ViT,
    preprocess: Preprocess,
    dataset: Dataset,
    *,
    workers: int,
    device: torch.device,
    cache: FeatureCache | None = None,
    progress: Progress | None = None,
) -> Floor:
    """Fit a linear probe to the training split of `dataset` and score it on the evaluation split.

    vit: on `device`; its own head, if any, is ignored. progress: called with (done, total) over both splits.
    Raises: DataError if there is no training split, if it has one class, or if no evaluation image is readable;
        CheckpointError if the features are NaN or infinite.
    """
    start = time.perf_counter()
    train, scored = feature_pair(
        vit,
        preprocess,
        dataset,
        workers=workers,
        device=device,
        cache=cache,
        progress=progress,
    )
    if not len(scored):
        raise DataError(
            f"{dataset.path}: cannot read any of the images of {dataset.evaluation.name}", "fix the images"
        )
    probe = fit_linear(train.values, train.labels, len(dataset.classes), bias=vit.config.head.bias)
    logits, fitted = probe.logits(scored.values), probe.logits(train.values)
    right = int((metrics.ranks(logits, scored.labels) == 0).sum())
    return Floor(
        kind="linear",
        top1=right / len(scored),
        interval=metrics.wilson_interval(right, len(scored)),
        weight=probe.weight,
        bias=probe.bias,
        penalty=probe.penalty,
        converged=probe.converged,
        seconds=time.perf_counter() - start,
        images=len(train) + len(scored),
        cached=train.cached + scored.cached,
        loss=float(metrics.cross_entropy(logits, scored.labels).mean()),
        training_images=len(train),
        training_top1=float((metrics.ranks(fitted, train.labels) == 0).mean()),
        training_loss=float(metrics.cross_entropy(fitted, train.labels).mean()),
        notes=tuple(cache.notes) if cache is not None else (),
    )


def feature_pair(
    vit: ViT,
    preprocess: Preprocess,
    dataset: Dataset,
    *,
    workers: int,
    device: torch.device,
    cache: FeatureCache | None = None,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> tuple[Features, Features]:
    """Features of the training and the evaluation split. Arguments and errors as of `features` and `floor`."""
    splits = (dataset.training, dataset.evaluation)
    total = sum(map(len, splits))
    found: list[Features] = []
    for split in splits:
        before = 0 if not found else len(splits[0])

        def report(done: int, _: int, before: int = before) -> None:
            if progress is not None:
                progress(before + done, total)

        found.append(
            features(
                vit,
                preprocess,
                split,
                workers=workers,
                device=device,
                cache=cache,
                batch_size=batch_size,
                progress=report,
            )
        )
    return found[0], found[1]


@torch.no_grad()
def set_head(vit: ViT, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> None:
    """Put weight [C, D] and bias [C] of a linear probe into the head of `vit`: its predictions are then the probe's.

    A distilled model averages two heads: the first gets twice the probe, the second becomes zero.
    Raises: SettingsError if the head has another shape, or no bias while the probe has one.
    """
    head = vit.head
    shape = (vit.config.head.num_classes, feature_dim(vit))
    if head is None or weight.shape != shape:
        raise SettingsError(
            f"a probe of shape {list(weight.shape)} does not fit a head of shape {list(shape)}",
            "build the model with one output per class of the data",
        )
    if head.bias is None and bias.any():
        raise SettingsError("the head of this model has no bias", "fit the probe with bias=False")
    other = vit.head_distillation
    factor = 1 if other is None else 2
    head.weight.copy_(torch.from_numpy(weight) * factor)
    if head.bias is not None:
        head.bias.copy_(torch.from_numpy(bias) * factor)
    if other is not None:
        for tensor in other.parameters():
            tensor.zero_()
