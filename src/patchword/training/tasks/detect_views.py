"""The training views of a detector: stored images without their borders, augmented together with their boxes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from patchword.data.box_targets import Boxes, ImageBoxes
from patchword.data.dataset import Split
from patchword.data.feed import stacked
from patchword.images.frame import Frame
from patchword.training.augment.box_views import BoxAugment, BoxViews
from patchword.training.config import TrainSettings
from patchword.training.task import Batch
from patchword.training.tasks.detect_settings import DetectSettings


@dataclass(frozen=True, kw_only=True)
class Stored:
    """The objects of a stored image. corner: (top, left) of the image in it, around which there may be a border.

    boxes: in pixels of the image as it is stored, without border.
    """

    boxes: ImageBoxes
    corner: tuple[int, int]

    def cut(self, pixels: Tensor) -> Tensor:
        """The image [C, h, w] without its border."""
        (top, left), (height, width) = self.corner, self.boxes.size
        return pixels[:, top : top + height, left : left + width]


class DetectViews:
    """Makes batches of stored images, and views of them. boxes: of the training images."""

    def __init__(self, settings: TrainSettings, boxes: Boxes) -> None:
        assert isinstance(settings.task, DetectSettings)
        self.boxes, self.stored = boxes, settings.stored
        channels = settings.model.image.channels
        self.mean, self.std = (
            torch.tensor(np.broadcast_to(v, channels).copy()).float().view(1, channels, 1, 1)
            for v in (settings.preprocess.mean, settings.preprocess.std)
        )
        # A border in the mean colour is 0 after normalisation, in training views as in evaluation.
        self.augment = BoxAugment(settings.task.augment, settings.view_size, self.mean.flatten().tolist())

    def collate(self, pixels: Sequence[Tensor], rows: Sequence[int]) -> tuple[Tensor, list[Stored]]:
        """images [B, C, h, w] as they are stored, and the objects of each."""
        return stacked(pixels), [self._stored(row) for row in rows]

    def _stored(self, row: int) -> Stored:
        one = self.boxes.image(row)
        plan = self.stored.plan(one.size)
        # Without the shift: the border is cut off before anything is moved.
        frame = replace(Frame.of(plan, one.size), left=0, top=0)
        boxes = replace(
            one,
            corners=frame.forward(one.corners),
            areas=one.areas * frame.scale_x * frame.scale_y,
            size=plan.resized,
        )
        return Stored(boxes=boxes, corner=(max(-plan.top, 0), max(-plan.left, 0)))

    def augmented(self, batch: Batch) -> BoxViews:
        """Not normalised yet."""
        images = [one.cut(pixels) for one, pixels in zip(batch.targets, batch.images, strict=True)]
        return self.augment(images, [one.boxes for one in batch.targets], batch.draws)

    def views(self, batch: Batch) -> Batch:
        """Images normalised; targets: {"labels", "boxes"} of each image."""
        images = [one.cut(pixels) for one, pixels in zip(batch.targets, batch.images, strict=True)]
        return self._normalised(
            batch, self.augment(images, [one.boxes for one in batch.targets], batch.draws)
        )

    def plain_views(self, batch: Batch) -> Batch:
        """The complete images, unchanged but for their size."""
        images = [one.cut(pixels) for one, pixels in zip(batch.targets, batch.images, strict=True)]
        return self._normalised(batch, self.augment.plain(images, [one.boxes for one in batch.targets]))

    def _normalised(self, batch: Batch, views: BoxViews) -> Batch:
        device = views.images.device
        targets = views.targets()
        # On the CPU, where it is read.
        seeds = (batch.draws.stream("practice").uniform(1)[:, 0].double() * 2**31).long()
        labels, boxes = (
            torch.split(part.to(device), list(targets.counts)) for part in (targets.labels, targets.boxes)
        )
        return replace(
            batch,
            images=views.images.sub(self.mean.to(device)).div_(self.std.to(device)),
            targets=[
                {"labels": a, "boxes": b, "seed": c} for a, b, c in zip(labels, boxes, seeds, strict=True)
            ],
        )


def boxes_of(split: Split) -> Boxes:
    assert isinstance(split.targets, Boxes)
    return split.targets
