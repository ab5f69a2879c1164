"""The settings of training a detector. This module does not import torch."""

from dataclasses import dataclass, field, fields
from typing import ClassVar, Literal

from patchword.errors import SettingsError
from patchword.model.config import ViTConfig
from patchword.model.detr.config import DetrConfig, TrunkConfig
from patchword.model.set_loss_config import SetLossConfig
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
class DetrSettings:
    """DETR; the fields are those of `DetrConfig`, and `loss`: costs and weights of its set loss."""

    kind: ClassVar[str] = "detr"

    trunk: TrunkConfig = field(default_factory=TrunkConfig)
    dim: int = 256
    num_heads: int = 8
    hidden: int = 2048
    decoder_heads: int | None = None
    decoder_hidden: int | None = None
    encoder_depth: int = 6
    decoder_depth: int = 6
    num_queries: int = 100
    positions: Literal["sine", "learned"] = "sine"
    order: Literal["post", "pre"] = "post"
    decoder_norm: Literal["outputs", "between"] = "outputs"
    eps: float = 1e-5
    dropout: float = 0.1
    loss: SetLossConfig = field(default_factory=SetLossConfig)

    @classmethod
    def of(cls, config: DetrConfig) -> "DetrSettings":
        """Of a complete detector, with the published loss."""
        return cls(
            **{one.name: getattr(config, one.name) for one in fields(config) if one.name != "num_classes"}
        )

    def config(self, num_classes: int) -> DetrConfig:
        """The complete detector. Raises: SettingsError for values that contradict each other."""
        named = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "loss"}
        return DetrConfig(num_classes=num_classes, **named)


@dataclass(frozen=True, kw_only=True)
class DetectSettings:
    """Any number of objects in each image, each with its class and its box.

    Args:
        num_classes: of the objects; filled in from the data.
        detector: what follows the ViT, which is `model`; or all of DETR.
        augment: the training views, in which pixels and boxes move together.
    """

    kind: ClassVar[str] = "detect"
    one_size: ClassVar[bool] = True
    loss: ClassVar[str] = "boxes"

    num_classes: int = 1
    detector: VitDetSettings | DetrSettings = field(default_factory=VitDetSettings)
    augment: BoxAugmentSettings = field(default_factory=BoxAugmentSettings)

    def __post_init__(self) -> None:
        if self.num_classes < 1:
            raise SettingsError(
                f"task.num_classes is {self.num_classes}", "remove it; it comes from the data"
            )
        if isinstance(self.detector, DetrSettings):
            self.detector.config(self.num_classes)
