"""Detection: views in which pixels and boxes move together, the losses of a detector, COCO's AP on the held-out images."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from patchword.checkpoints.detector_card import DetectionClass, DetectorCard
from patchword.checkpoints.native import fill
from patchword.data.box_targets import Boxes, ImageBoxes
from patchword.data.dataset import Split
from patchword.data.feed import stacked
from patchword.images.frame import Frame
from patchword.model.matching import Targets
from patchword.model.vit import ViT
from patchword.model.vitdet.found import Found
from patchword.model.vitdet.loss import losses
from patchword.model.vitdet.model import VitDet
from patchword.training.augment.box_views import BoxAugment, BoxViews
from patchword.training.config import TrainSettings
from patchword.training.ranks import Ranks
from patchword.training.task import Batch, Tally
from patchword.training.tasks.classify import HeldOut
from patchword.training.tasks.detect_settings import DetectSettings
from patchword.training.tasks.detect_tally import DetectTally
from patchword.training.tasks.detect_targets import ImageTargets, objects_of


class TrainedVitDet(VitDet):
    """The detector with its losses."""

    def forward(self, images: Tensor, targets: Sequence[ImageTargets]) -> dict[str, Tensor]:  # type: ignore[override]
        there = objects_of(targets)
        generator = None
        if self.config.practice and self.training:
            generator = torch.Generator().manual_seed(int(targets[0]["seed"]))
        found = super().forward(images, None if generator is None else there, generator)
        return {DetectSettings.loss: self.loss(found, there)}

    def predict(self, images: Tensor) -> Found:
        return super().forward(images)

    @staticmethod
    def loss(found: Found, targets: Targets) -> Tensor:
        """The sum over all objects of the batch."""
        return torch.stack(list(losses(found, targets).values())).sum()


def make_detector(settings: TrainSettings, vit: ViT, generator: torch.Generator) -> TrainedVitDet:
    assert isinstance(settings.task, DetectSettings)
    config = settings.task.detector.config(settings.model, settings.task.num_classes)
    return TrainedVitDet(config, vit, generator).to(next(vit.parameters()).device)


def filled_detector(settings: TrainSettings, tensors: Mapping[str, Tensor], name: str) -> TrainedVitDet:
    """The detector of the settings in evaluation mode, with the tensors of the file `name`. Raises: CheckpointError."""
    assert isinstance(settings.task, DetectSettings)
    with torch.device("meta"):
        module = TrainedVitDet(settings.task.detector.config(settings.model, settings.task.num_classes))
    fill(module, tensors, name)
    return module.eval()


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


class Detect:
    """Detection as a task of the loop.

    training: only its boxes are read. classes: in the order of the head.
    """

    def __init__(
        self,
        settings: TrainSettings,
        module: TrainedVitDet,
        training: Split,
        evaluation: Split,
        classes: tuple[str, ...],
        workers: int,
    ) -> None:
        assert isinstance(settings.task, DetectSettings)
        self.settings, self.module, self.classes, self.task = settings, module, classes, settings.task
        self.boxes = boxes_of(training)
        self.stored = settings.stored
        self.held_out = HeldOut(settings, evaluation, next(module.parameters()).device, workers)
        channels = settings.model.image.channels
        self.mean, self.std = (
            torch.tensor(np.broadcast_to(v, channels).copy()).float().view(1, channels, 1, 1)
            for v in (settings.preprocess.mean, settings.preprocess.std)
        )
        # A border in the mean colour is 0 after normalisation, in training views as in evaluation.
        self.augment = BoxAugment(settings.task.augment, settings.view_size, self.mean.flatten().tolist())

    def begin(self, epoch: int) -> None:
        """Every epoch is the same."""

    def sample_weights(self) -> NDArray[np.float64] | None:
        """None: each training image is drawn once an epoch."""
        return None

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
        labels, boxes = (part.to(device).split(targets.counts) for part in (targets.labels, targets.boxes))
        return replace(
            batch,
            images=views.images.sub(self.mean.to(device)).div_(self.std.to(device)),
            targets=[
                {"labels": a, "boxes": b, "seed": c} for a, b, c in zip(labels, boxes, seeds, strict=True)
            ],
        )

    def counts(self, batch: Batch) -> Mapping[str, float]:
        """The objects, over which the losses are averaged."""
        return {self.task.loss: sum(len(one["labels"]) for one in batch.targets)}

    def tally(self) -> Tally:
        return DetectTally(self.settings.preprocess, self.classes)

    def evaluation(self, ranks: Ranks) -> Iterable[Batch]:
        """targets: the `ImageBoxes` of each image, in its own pixels."""
        return self.held_out.batches(ranks)

    def card(self, scores: Mapping[str, float]) -> DetectorCard:
        ids = self.boxes.class_ids
        numbers = [one for one in ids if isinstance(one, int)]
        if len(numbers) < len(ids):
            numbers = list(range(1, len(ids) + 1))
        return DetectorCard(
            config=self.module.config,
            preprocess=self.settings.preprocess,
            classes=tuple(map(DetectionClass, numbers, self.classes)),
        )

    def shipped(self, module: torch.nn.Module) -> Mapping[str, Tensor]:
        return module.state_dict()


def boxes_of(split: Split) -> Boxes:
    assert isinstance(split.targets, Boxes)
    return split.targets
