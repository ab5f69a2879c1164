"""The settings of training a detector. This module does not import torch."""

from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from patchword.errors import SettingsError
from patchword.model.config import ViTConfig
from patchword.model.detr.config import DetrConfig, DetrParts
from patchword.model.set_loss_config import SetLossConfig
from patchword.model.vitdet.config import VitDetConfig, VitDetParts
from patchword.model.yolos_config import YolosConfig
from patchword.training.augment.box_settings import BoxAugmentSettings


@dataclass(frozen=True, kw_only=True)
class VitDetSettings(VitDetParts):
    """What a detector adds to its backbone, which is `model`."""

    @classmethod
    def of(cls, config: VitDetConfig) -> "VitDetSettings":
        """Of a complete detector."""
        return cls(**_parts(VitDetParts, config))

    def config(self, model: ViTConfig, num_classes: int) -> VitDetConfig:
        """The complete detector. Raises: SettingsError for values that contradict each other."""
        return VitDetConfig(vit=model, num_classes=num_classes, **_parts(VitDetParts, self))


@dataclass(frozen=True, kw_only=True)
class DetrSettings(DetrParts):
    """DETR. loss: costs and weights of its set loss."""

    loss: SetLossConfig = field(default_factory=SetLossConfig)

    @classmethod
    def of(cls, config: DetrConfig) -> "DetrSettings":
        """Of a complete detector, with the published loss."""
        return cls(**_parts(DetrParts, config))

    def config(self, num_classes: int) -> DetrConfig:
        """The complete detector. Raises: SettingsError for values that contradict each other."""
        return DetrConfig(num_classes=num_classes, **_parts(DetrParts, self))


@dataclass(frozen=True, kw_only=True)
class YolosSettings:
    """YOLOS, whose ViT is `model`, detection tokens and all. loss: costs and weights of its set loss, which are DETR's."""

    kind: ClassVar[str] = "yolos"

    loss: SetLossConfig = field(default_factory=SetLossConfig)

    def config(self, model: ViTConfig, num_classes: int) -> YolosConfig:
        """The complete detector. Raises: SettingsError if `model` is no ViT of YOLOS."""
        return YolosConfig(backbone=model, num_classes=num_classes)


def _parts(of: type[VitDetParts | DetrParts], values: VitDetParts | DetrParts) -> dict[str, Any]:
    """The fields of a base class."""
    return {one.name: getattr(values, one.name) for one in fields(of)}


@dataclass(frozen=True, kw_only=True)
class DetectSettings:
    """Any number of objects in each image, each with its class and its box.

    Args:
        num_classes: of the objects; filled in from the data.
        detector: what follows the ViT, which is `model`; the heads of YOLOS; or all of DETR.
        augment: the training views, in which pixels and boxes move together.
    """

    kind: ClassVar[str] = "detect"
    one_size: ClassVar[bool] = True
    loss: ClassVar[str] = "boxes"

    num_classes: int = 1
    detector: VitDetSettings | DetrSettings | YolosSettings = field(default_factory=VitDetSettings)
    augment: BoxAugmentSettings = field(default_factory=BoxAugmentSettings)

    def __post_init__(self) -> None:
        if self.num_classes < 1:
            raise SettingsError(
                f"task.num_classes is {self.num_classes}", "remove it; it comes from the data"
            )
        if isinstance(self.detector, DetrSettings):
            self.detector.config(self.num_classes)
