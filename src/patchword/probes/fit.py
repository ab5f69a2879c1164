"""Fit a probe to features, and the score that training must not fall below."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from patchword import metrics
from patchword.data.dataset import Dataset
from patchword.errors import DataError, SettingsError, plural
from patchword.images.preprocess import Preprocess
from patchword.model.vit import ViT
from patchword.probes.cache import FeatureCache
from patchword.probes.features import Features, Progress, features
from patchword.probes.kinds import ProbeKind
from patchword.probes.knn import TEMPERATURE, K, default_k, knn_votes
from patchword.probes.linear import fit_linear
from patchword.probes.parts import HEAD, Part, feature_dim

# The logarithm of no votes at all.
_LEAST_SHARE = 1e-6


@dataclass(frozen=True, kw_only=True)
class ProbeReport:
    """What was fitted. name: the kind, and the epochs if they are not the published ones. source: of a published protocol.

    feature: what the probe reads, as text; layer, pooling, norm: the same in parts. images: of the training split; unreadable:
    names and reasons of others. settings: how the probe was fitted, by name. scaled: departures from the published protocol.
    parameters: how many numbers of each part of the probe were fitted to these images; it has no others. seed: of a probe
    that draws random numbers.

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
    name: str = ""
    source: str = ""
    layer: str = ""
    pooling: str = ""
    norm: str = ""
    settings: Mapping[str, float | str] = field(default_factory=dict)
    scaled: tuple[str, ...] = ()
    parameters: Mapping[str, int] = field(default_factory=dict)
    seed: int | None = None
    k: int | None = None
    penalty: float | None = None
    converged: bool = True


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """logits [M, C] of the scored images; of k-NN, the logarithms of the shares of votes. Others: as in `ProbeReport`."""

    logits: NDArray[np.float32]
    name: str = ""
    source: str = ""
    settings: Mapping[str, float | str] = field(default_factory=dict)
    scaled: tuple[str, ...] = ()
    parameters: Mapping[str, int] = field(default_factory=dict)
    k: int | None = None
    penalty: float | None = None
    converged: bool = True


DINO_KNN = "Caron et al. 2021 (arXiv 2104.14294), facebookresearch/dino eval_knn.py"


def fit_probe(
    kind: ProbeKind, train: Features, scored: Features, num_classes: int, *, k: int | None = None
) -> Fitted:
    """Fit "knn", "linear" or "dino-knn" to the training features and compute logits of the others.

    Raises: SettingsError for a k above the number of training images; DataError for training images of one class.
    """
    require_classes(train.labels)
    if kind == "linear":
        probe = fit_linear(train.values, train.labels, num_classes)
        return Fitted(
            logits=probe.logits(scored.values),
            name=kind,
            settings={"penalty": probe.penalty},
            parameters={"weight": probe.weight.size, "bias": probe.bias.size},
            penalty=probe.penalty,
            converged=probe.converged,
        )
    chosen = K if kind == "dino-knn" else default_k(train.labels) if k is None else k
    if kind == "dino-knn" and len(train) < K:
        raise SettingsError(
            f"dino-knn votes among {K} neighbours, but there are {plural(len(train), 'training image')}",
            f"use --probe knn --k {default_k(train.labels)}, or at least {K} training images",
        )
    votes = knn_votes(train.values, train.labels, scored.values, num_classes, k=chosen)
    return Fitted(
        logits=np.log(votes.clip(_LEAST_SHARE)).astype(np.float32),
        name=kind,
        source=DINO_KNN if kind == "dino-knn" else "",
        settings={"k": chosen, "temperature": TEMPERATURE, "features": "scaled to length 1"},
        k=chosen,
    )


def require_classes(labels: NDArray[np.int64]) -> None:
    """Raises: DataError if the labels are of fewer than two classes."""
    present = len(np.unique(labels))
    if present < 2:
        raise DataError(
            "a probe needs training images of at least two classes, and these are of "
            + ("one" if present else "none"),
            "add class folders, or choose other data",
        )


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
    part: Part = HEAD,
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
                part=part,
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
