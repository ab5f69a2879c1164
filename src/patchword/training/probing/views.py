"""A linear layer on the features of augmented views, as published: the frozen encoder runs on each view.

Shapes: B images, D features, C classes.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from patchword.data.dataset import Split
from patchword.data.feed import Feed, stacked
from patchword.data.store import open_store, stored_as
from patchword.images.preprocess import Preprocess
from patchword.model.vit import ViT
from patchword.probes.features import frozen
from patchword.probes.parts import Part
from patchword.training.augment.settings import AugmentSettings, GeometrySettings
from patchword.training.augment.views import Augment
from patchword.training.chance import Draws, seed_of
from patchword.training.lars import LARS
from patchword.training.optimiser import set_lr
from patchword.training.probing.protocols import LEAST_BATCH, LinearPlan
from patchword.training.recipes.common import stored_size
from patchword.training.schedule import lr_factor
from patchword.training.sgd import SGD

CROPS = AugmentSettings(geometry=GeometrySettings(crop_scale=(0.08, 1.0), crop_ratio=(0.75, 4 / 3), flip=0.5))
MOMENTUM = 0.9
# Of BatchNorm's running statistics.
_FOLLOW, _EPS = 0.1, 1e-6


class LinearHead(nn.Module):
    """A linear layer, after BatchNorm without learned factors if `batch_norm`. Features [B, D] → logits [B, C].

    The running statistics start from the first batch, so that short runs do not end with part of a made-up start.
    """

    mean: Tensor
    variance: Tensor

    def __init__(
        self, dim: int, classes: int, *, batch_norm: bool, std: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, dim).normal_(0.0, std, generator=generator))
        self.bias = nn.Parameter(torch.zeros(classes))
        self.batch_norm, self.fresh = batch_norm, True
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("variance", torch.ones(dim))

    def forward(self, features: Tensor) -> Tensor:
        if not self.batch_norm:
            return F.linear(features, self.weight, self.bias)
        if self.training:
            self._follow(features)
            variance, mean = torch.var_mean(features, 0, correction=0)
        else:
            variance, mean = self.variance, self.mean
        return F.linear((features - mean) / (variance + _EPS).sqrt(), self.weight, self.bias)

    @torch.no_grad()
    def _follow(self, features: Tensor) -> None:
        share = 1.0 if self.fresh else _FOLLOW
        variance, mean = torch.var_mean(features, 0)
        self.mean.lerp_(mean, share)
        self.variance.lerp_(variance, share)
        self.fresh = False

    @torch.no_grad()
    def folded(self) -> tuple[Tensor, Tensor]:
        """weight [C, D] and bias [C] of the plain linear layer that gives the same logits as this one in evaluation mode."""
        if not self.batch_norm:
            return self.weight.clone(), self.bias.clone()
        weight = self.weight.double() / (self.variance.double() + _EPS).sqrt()
        return weight.float(), (self.bias.double() - weight @ self.mean.double()).float()


@dataclass(frozen=True, kw_only=True)
class ViewsFit:
    """weight [C, D], bias [C]: of a plain linear layer on features. skipped: names and reasons of unreadable images.

    losses: the mean loss of each epoch. steps: of the optimiser. seconds: for all of it.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    skipped: tuple[tuple[str, str], ...]
    losses: tuple[float, ...]
    steps: int
    seconds: float


def fit_on_views(
    vit: ViT,
    preprocess: Preprocess,
    split: Split,
    num_classes: int,
    plan: LinearPlan,
    part: Part,
    *,
    seed: int,
    workers: int,
    device: torch.device,
    batch_size: int | None = None,
    say: Callable[[str], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ViewsFit:
    """Train the layer as the plan says, on views of the images of `split`.

    vit: on `device`; its weights and mode are unchanged afterwards. batch_size: images in the encoder at once. say: called with
    the expected cost before the start. progress: called with (views done, of all).
    Raises: DataError if no image can be read.
    """
    began = time.perf_counter()
    micro = _micro(plan.batch, batch_size or LEAST_BATCH)
    views = _Views(vit, preprocess, split, part, seed, device, micro, workers)
    generator = torch.Generator().manual_seed(seed_of(seed, plan.protocol.name))
    head = LinearHead(
        part.width(vit),
        num_classes,
        batch_norm=plan.protocol.batch_norm,
        std=plan.protocol.init,
        generator=generator,
    ).to(device)
    groups = [{"params": [head.weight, head.bias], "weight_decay": 0.0}]
    make = LARS if plan.protocol.method == "lars" else SGD
    optimiser = make(groups, lr=plan.lr, momentum=MOMENTUM)
    per_epoch, step, losses = max(plan.num_images // plan.batch, 1), 0, []
    with frozen(vit):
        if say is not None:
            say(_cost(plan, views.seconds_each()))
        for epoch in range(plan.schedule.epochs):
            summed, seen, done = 0.0, 0, 0
            for features, labels, read in views.batches(epoch, plan.batch // micro):
                loss = F.cross_entropy(head(features), labels)
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                set_lr(optimiser, plan.lr * lr_factor(step, per_epoch, plan.schedule))
                optimiser.step()
                step, seen, done = step + 1, seen + len(labels), done + read
                summed += float(loss.detach()) * len(labels)
                if progress is not None:
                    progress(epoch * plan.num_images + done, plan.views)
            losses.append(summed / max(seen, 1))
    weight, bias = head.folded()
    return ViewsFit(
        weight=weight.cpu().numpy(),
        bias=bias.cpu().numpy(),
        skipped=tuple(views.feed.skipped),
        losses=tuple(losses),
        steps=step,
        seconds=time.perf_counter() - began,
    )


class _Views:
    """Features of augmented views, in batches of several micro-batches of the encoder."""

    def __init__(
        self,
        vit: ViT,
        preprocess: Preprocess,
        split: Split,
        part: Part,
        seed: int,
        device: torch.device,
        micro: int,
        workers: int,
    ) -> None:
        self.vit, self.part, self.seed, self.device, self.micro = vit, part, seed, device, micro
        self.size = preprocess.image_size
        channels = preprocess.in_channels
        self.mean, self.std = (
            torch.tensor(np.broadcast_to(v, channels).copy()).float().view(1, channels, 1, 1).to(device)
            for v in (preprocess.mean, preprocess.std)
        )
        self.labels = torch.from_numpy(split.labels)
        self.augment = Augment(CROPS, self.size)
        store = open_store(split, stored_as(preprocess, stored_size(self.size)))
        self.feed = Feed(split, store, self._collate, batch_size=micro, seed=seed, workers=workers)

    def _collate(self, pixels: Sequence[Tensor], rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        return stacked(pixels), self.labels[torch.tensor(rows)]

    def batches(self, epoch: int, parts: int) -> Iterator[tuple[Tensor, Tensor, int]]:
        """Features [B, D], labels [B], and the number of images read; an incomplete batch at the end is dropped."""
        found: list[Tensor] = []
        labels: list[Tensor] = []
        for fed in self.feed.epoch(epoch):
            images = self.augment(fed.images.to(self.device), Draws(self.seed, epoch, fed.samples))
            found.append(self.read(images))
            labels.append(fed.targets.to(self.device))
            if len(found) == parts:
                yield torch.cat(found), torch.cat(labels), parts * self.micro
                found, labels = [], []

    @torch.no_grad()
    def read(self, images: Tensor) -> Tensor:
        """Features [B, D] float32 of images [B, C, H, W] in 0..1."""
        normal = images.sub(self.mean).div_(self.std)
        return self.part.read(self.vit, normal.to(next(self.vit.parameters()).dtype)).float()

    def seconds_each(self) -> float:
        """The encoder's time for an image, measured on grey ones."""
        images = torch.full((self.micro, len(self.mean[0]), *self.size), 0.5, device=self.device)
        times = []
        for _ in range(4):  # the first ones also warm up
            began = time.perf_counter()
            self.read(images).cpu()
            times.append(time.perf_counter() - began)
        return min(times) / self.micro


def _cost(plan: LinearPlan, each: float) -> str:
    seconds = plan.views * each
    took = (
        f"{seconds / 3600:.1f} h"
        if seconds >= 3600
        else f"{seconds / 60:.0f} min"
        if seconds >= 90
        else f"{seconds:.0f} s"
    )
    epochs = plan.schedule.epochs
    less = f"; --epochs {epochs // 10} takes a tenth" if epochs >= 20 else ""
    return (
        f"{plan.name}: augmented views cannot be cached, so the encoder runs on {plan.views:,} of them "
        f"({epochs} x {plan.num_images:,} images): about {took}{less}"
    )


def _micro(batch: int, most: int) -> int:
    """The largest number of images up to `most` that divides the batch."""
    return next(size for size in range(min(batch, most), 0, -1) if batch % size == 0)
