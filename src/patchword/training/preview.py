"""Training views of some images, to look at before training."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from patchword.data.box_targets import ImageBoxes
from patchword.data.dataset import Dataset
from patchword.errors import DataError, ImageError
from patchword.images.prepare import read_pixels
from patchword.images.stored import Pixels
from patchword.training.augment.geometry import as_unit_float
from patchword.training.augment.mix import mix
from patchword.training.augment.views import Augment
from patchword.training.chance import Draws
from patchword.training.config import TrainSettings
from patchword.training.task import Batch
from patchword.training.tasks.detect_views import DetectViews, boxes_of

SMALLEST = 0.005


@dataclass(frozen=True, kw_only=True)
class TrainingView:
    """source: the stored image [H, W, C], view: a training view of it [h, w, C], both uint8.

    mixed: whether another image is in the view. shares: class → its part of the target.
    """

    name: str
    source: Pixels
    view: Pixels
    mixed: bool
    shares: dict[str, float]


def draw_views(dataset: Dataset, settings: TrainSettings, count: int = 16) -> tuple[TrainingView, ...]:
    """`count` training views of training images that are drawn with the run's seed; fewer images appear several times.

    Raises: DataError if no training image can be read.
    """
    found = _images(dataset, settings, count)
    rows = [found[i % len(found)][0] for i in range(count)]
    # The number of a copy differs from that of its image, so each is augmented differently.
    copies = [i // len(found) for i in range(count)]
    samples = np.array(rows) + len(dataset.training) * np.array(copies)
    images = torch.stack([as_unit_float(found[i % len(found)][1][None])[0] for i in range(count)])
    draws = Draws(settings.run.seed, 0, samples)
    views = Augment(settings.augment, settings.view_size)(images, draws)
    mixed, shares = mix(views, torch.eye(count), settings.augment.mixing, draws)
    names = [dataset.training.targets.text(row, dataset.classes).replace("\x1f", " + ") for row in rows]
    return tuple(
        TrainingView(
            name=dataset.training.names[row],
            source=_shown(images[i]),
            view=_shown(mixed[i]),
            mixed=int((shares[i] >= SMALLEST).sum()) > 1,
            shares=_by_class(names, shares[i]),
        )
        for i, row in enumerate(rows)
    )


@dataclass(frozen=True, kw_only=True)
class BoxView:
    """A view with the boxes that training sees. pixels [h, w, C] uint8."""

    name: str
    pixels: Pixels
    boxes: ImageBoxes


def draw_box_views(dataset: Dataset, settings: TrainSettings, count: int = 16) -> tuple[BoxView, ...]:
    """Views of half as many training images, two of each, as the first two epochs would see them."""
    shown = DetectViews(settings, boxes_of(dataset.training))
    found = _images(dataset, settings, -(-count // 2))
    rows = [row for row, _ in found]
    images, targets = shown.collate([pixels for _, pixels in found], rows)
    names = tuple(dataset.training.names[row] for row in rows)
    views = []
    for epoch in (0, 1):
        draws = Draws(settings.run.seed, epoch, np.asarray(rows, np.int64))
        made = shown.augmented(Batch(images=images, targets=targets, names=names, draws=draws))
        views.append(
            [
                BoxView(name=name, pixels=_shown(image), boxes=boxes)
                for name, image, boxes in zip(names, made.images, made.boxes, strict=True)
            ]
        )
    return tuple(view for pair in zip(*views, strict=True) for view in pair)[:count]


def _images(dataset: Dataset, settings: TrainSettings, count: int) -> list[tuple[int, Tensor]]:
    """Readable training images as they are stored for augmentation, [C, h, w], with their rows."""
    split = dataset.training
    stored = settings.stored
    found: list[tuple[int, Tensor]] = []
    for row in np.random.default_rng((settings.run.seed, 0)).permutation(len(split)).tolist():
        name = split.names[row]
        try:
            pixels = read_pixels(split.source(row), stored, name=name, max_pixels=split.max_pixels)
        except ImageError:  # listed by the check
            continue
        found.append((row, torch.from_numpy(np.array(pixels.transpose(2, 0, 1), order="C"))))
        if len(found) == count:
            break
    if not found:
        raise DataError(f"none of the {len(split)} training images can be read", "fix the images")
    return found


def _by_class(names: list[str], shares: Tensor) -> dict[str, float]:
    """Largest first, without parts that are too small to see."""
    parts: dict[str, float] = {}
    for name, share in zip(names, shares.tolist(), strict=True):
        parts[name] = parts.get(name, 0.0) + share
    ordered = sorted(parts.items(), key=lambda part: -part[1])
    return {name: share for name, share in ordered if share >= SMALLEST}


def _shown(image: Tensor) -> Pixels:
    levels: Pixels = (image * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
    return levels
