"""Detection: views in which pixels and boxes move together, the losses of a detector, COCO's AP on the held-out images."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from patchword.data.dataset import Split
from patchword.model.lora import merged_state
from patchword.training.config import TrainSettings
from patchword.training.ranks import Ranks
from patchword.training.task import Batch, Tally
from patchword.training.tasks.classify import HeldOut
from patchword.training.tasks.detect_settings import DetectSettings
from patchword.training.tasks.detect_tally import DetectTally
from patchword.training.tasks.detect_views import DetectViews, Stored, boxes_of
from patchword.training.tasks.detectors import TrainedDetector
from patchword.weights.detector_card import DetectionClass, DetectorCard


class Detect:
    """Detection as a task of the loop.

    training: only its boxes are read. classes: in the order of the head.
    """

    def __init__(
        self,
        settings: TrainSettings,
        module: TrainedDetector,
        training: Split,
        evaluation: Split,
        classes: tuple[str, ...],
        workers: int,
    ) -> None:
        assert isinstance(settings.task, DetectSettings)
        self.settings, self.module, self.classes, self.task = settings, module, classes, settings.task
        self.boxes = boxes_of(training)
        self.shown = DetectViews(settings, self.boxes)
        self.held_out = HeldOut(settings, evaluation, next(module.parameters()).device, workers)

    def begin(self, epoch: int) -> None:
        """Every epoch is the same."""

    def sample_weights(self) -> NDArray[np.float64] | None:
        """None: each training image is drawn once an epoch."""
        return None

    def collate(self, pixels: Sequence[Tensor], rows: Sequence[int]) -> tuple[Tensor, list[Stored]]:
        """images [B, C, h, w] as they are stored, and the objects of each."""
        return self.shown.collate(pixels, rows)

    def views(self, batch: Batch) -> Batch:
        """Images normalised; targets: as `detect_targets.ImageTargets`."""
        return self.shown.views(batch)

    def counts(self, batch: Batch) -> Mapping[str, float]:
        """The objects, over which the losses are averaged; DETR's loss of classes is, over the weights of its queries."""
        return self.module.counts([len(one["labels"]) for one in batch.targets])

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
        return merged_state(module)
