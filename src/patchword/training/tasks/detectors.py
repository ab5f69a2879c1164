"""The detectors that are trained, each with its losses and its answers."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from patchword.model.boxes import to_corners
from patchword.model.detection import DetectionOutput, Found
from patchword.model.detr.config import DetrConfig
from patchword.model.detr.model import DETR
from patchword.model.matching import Targets
from patchword.model.set_loss import set_loss
from patchword.model.set_loss_config import SetLossConfig
from patchword.model.vit import ViT
from patchword.model.vitdet.answer import answers
from patchword.model.vitdet.found import Found as VitDetOutput
from patchword.model.vitdet.loss import losses
from patchword.model.vitdet.model import VitDet
from patchword.model.yolos import YOLOS
from patchword.model.yolos_config import YolosConfig
from patchword.training.config import TrainSettings
from patchword.training.tasks.detect_settings import DetectSettings, DetrSettings, YolosSettings
from patchword.training.tasks.detect_targets import ImageTargets, objects_of, padded

# The losses by name. DETR's of classes and of boxes are divided by different numbers.
BOXES, CLASSES = DetectSettings.loss, "classes"


class TrainedVitDet(VitDet):
    """The detector with its losses."""

    def forward(self, images: Tensor, targets: Sequence[ImageTargets]) -> dict[str, Tensor]:  # type: ignore[override]
        there = objects_of(targets)
        generator = None
        if self.config.practice and self.training:
            generator = torch.Generator().manual_seed(int(targets[0]["seed"]))
        found = super().forward(images, None if generator is None else there, generator)
        return self.losses(found, there)

    def predict(self, images: Tensor) -> VitDetOutput:
        return super().forward(images)

    def losses(self, found: VitDetOutput, targets: Targets) -> dict[str, Tensor]:
        """Sums over all objects of the batch."""
        return {BOXES: torch.stack(list(losses(found, targets).values())).sum()}

    def counts(self, objects: Sequence[int]) -> dict[str, float]:
        """What each loss is divided by. objects: the number of each image."""
        return {BOXES: float(sum(objects))}

    def answers(self, found: VitDetOutput, most: int) -> list[Found]:
        """The surest objects of each image, corners as shares of the model's input."""
        return answers(found, max(most, found.logits.shape[2]))


class SetLossed:
    """The losses and the answers of a detector whose class head has an output for "no object": DETR and YOLOS.

    Source: Carion et al. 2020 (arXiv 2005.12872), section 3.1 and appendix A.4.
    """

    config: DetrConfig | YolosConfig
    loss: SetLossConfig

    def losses(self, found: DetectionOutput, targets: Targets) -> dict[str, Tensor]:
        """Sums over the batch, so that those of micro-batches add up: divided by `counts`, they are the published means."""
        terms, weights = set_loss(found, targets, self.loss, num_boxes=1.0), self.loss
        return {
            CLASSES: weights.weight_class * terms.ce.sum() * self.counts(targets.counts)[CLASSES],
            BOXES: (weights.weight_l1 * terms.l1 + weights.weight_giou * terms.giou).sum(),
        }

    def counts(self, objects: Sequence[int]) -> dict[str, float]:
        """What each loss is divided by: the weights of all queries' classes, and the objects. objects: the number of each image."""
        queries = self.config.num_queries
        matched = [min(queries, count) for count in objects]
        weight = sum(count + self.loss.no_object * (queries - count) for count in matched)
        return {CLASSES: weight, BOXES: float(sum(objects))}

    def answers(self, found: DetectionOutput, most: int) -> list[Found]:
        """The best class of every query, the surest first, corners as shares of the model's input."""
        scores, labels = found.scores.max(-1)
        scores, order = scores.sort(dim=1, descending=True, stable=True)
        corners = to_corners(found.pred_boxes.float())
        ordered = labels.gather(1, order), corners.gather(1, order[..., None].expand(-1, -1, 4))
        return [Found(*parts) for parts in zip(scores, *ordered, strict=True)]


class TrainedDetr(SetLossed, DETR):
    """DETR with its losses, those of every decoder layer."""

    config: DetrConfig

    def __init__(
        self, config: DetrConfig, loss: SetLossConfig, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(config, generator)
        self.loss = loss

    def forward(self, images: Tensor, targets: Sequence[ImageTargets]) -> dict[str, Tensor]:  # type: ignore[override]
        found = super().forward(padded(images, targets))
        return self.losses(found, objects_of(targets))

    def predict(self, images: Tensor) -> DetectionOutput:
        """images: [B, C, H, W] of one size."""
        return super().forward(images)


class TrainedYolos(SetLossed, YOLOS):
    """YOLOS with its losses, which are DETR's, of the last layer alone.

    Source: Fang et al. 2021 (arXiv 2106.00666), section 2.2.
    """

    config: YolosConfig

    def __init__(
        self,
        config: YolosConfig,
        loss: SetLossConfig,
        vit: ViT,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(config, generator, vit)
        self.loss = loss

    @property
    def vit(self) -> ViT:
        """The backbone, as other modules that train one name it."""
        return self.backbone

    def forward(self, images: Tensor, targets: Sequence[ImageTargets]) -> dict[str, Tensor]:  # type: ignore[override]
        """images: [B, C, H, W], views of one size."""
        return self.losses(super().forward(images), objects_of(targets))

    def predict(self, images: Tensor) -> DetectionOutput:
        """images: [B, C, H, W] of one size."""
        return super().forward(images)


TrainedDetector = TrainedVitDet | TrainedDetr | TrainedYolos


class Answering(Protocol):
    """What the tally asks of a detector; `found` is what `predict` returned."""

    def predict(self, images: Tensor) -> object: ...

    def losses(self, found: object, targets: Targets) -> Mapping[str, Tensor]: ...

    def counts(self, objects: Sequence[int]) -> Mapping[str, float]: ...

    def answers(self, found: object, most: int) -> list[Found]: ...


def make_detr(settings: TrainSettings, generator: torch.Generator) -> TrainedDetr:
    """DETR with random weights."""
    assert isinstance(settings.task, DetectSettings) and isinstance(settings.task.detector, DetrSettings)
    detr = settings.task.detector
    return TrainedDetr(detr.config(settings.task.num_classes), detr.loss, generator)


def make_on_vit(
    settings: TrainSettings, vit: ViT, generator: torch.Generator
) -> TrainedVitDet | TrainedYolos:
    """A detector on `vit`; the rest has random weights."""
    assert isinstance(settings.task, DetectSettings)
    detector, classes = settings.task.detector, settings.task.num_classes
    assert not isinstance(detector, DetrSettings)
    module: TrainedVitDet | TrainedYolos
    if isinstance(detector, YolosSettings):
        module = TrainedYolos(detector.config(settings.vit, classes), detector.loss, vit, generator)
    else:
        module = TrainedVitDet(detector.config(settings.vit, classes), vit, generator)
    return module.to(next(vit.parameters()).device)
