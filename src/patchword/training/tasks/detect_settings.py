"""The settings of training a detector. This module does not import torch."""

from dataclasses import dataclass, field, fields
from typing import ClassVar

from patchword.errors import SettingsError
from patchword.model.config import ViTConfig
from patchword.model.vitdet.config import VitDetConfig
from patchword.training.augment.box_settings import BoxAugmentSettings


@dataclass(frozen=True, kw_only=True)
class VitDetSettings:
    """What a detector adds to its backbone, which is `model`; the fields are those of `VitDetConfig`."""

    kind: ClassVar[str] = "vitdet"

    dim: int = 0
    scales: tuple[float, ...] = (2.0, 1.0, 0.5)
    num_queries: int = 100
    num_layers: int = 3
    num_heads: int = 8
    num_points: int = 4
    practice: int = 4
    window: int = 0
    num_global: int = 4
    dropout: float = 0.0

    @classmethod
    def of(cls, config: VitDetConfig) -> "VitDetSettings":
        """Of a complete detector."""
        return cls(**{one.name: getattr(config, one.name) for one in fields(cls)})

    def config(self, model: ViTConfig, num_classes: int) -> VitDetConfig:
        """The complete detector. Raises: SettingsError for values that contradict each other."""
        return VitDetConfig(
            vit=model,
            num_classes=num_classes,
            dim=self.dim,
            scales=self.scales,
            num_queries=self.num_queries,
            num_layers=self.num_layers,
            num_heads=self.num_heads,
            num_points=self.num_points,
            practice=self.practice,
            window=self.window,
            num_global=self.num_global,
            dropout=self.dropout,
        )


@dataclass(frozen=True, kw_only=True)
class DetectSettings:
    """Any number of objects in each image, each with its class and its box.

    Args:
        num_classes: of the objects; filled in from the data.
        detector: what follows the backbone.
        augment: the training views, in which pixels and boxes move together.
    """

    kind: ClassVar[str] = "detect"
    one_size: ClassVar[bool] = True
    loss: ClassVar[str] = "boxes"

    num_classes: int = 1
    detector: VitDetSettings = field(default_factory=VitDetSettings)
    augment: BoxAugmentSettings = field(default_factory=BoxAugmentSettings)

    def __post_init__(self) -> None:
        if self.num_classes < 1:
            raise SettingsError(
                f"task.num_classes is {self.num_classes}", "remove it; it comes from the data"
            )
