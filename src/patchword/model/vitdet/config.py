"""The configuration of the detector on a plain ViT. Does not import torch."""

from dataclasses import dataclass
from typing import ClassVar

from patchword.errors import SettingsError
from patchword.model.base import require_positive, require_share
from patchword.model.config import ViTConfig
from patchword.model.kinds import LayerNormConfig, ResNetStem, RMSNormConfig


@dataclass(frozen=True, kw_only=True)
class VitDetParts:
    """What a detector adds to its backbone.

    Args:
        dim: channels of the maps and the queries; 0 for those of the backbone, at most 256.
        scales: the maps, as multiples of the backbone's grid: 2 has four cells for each patch, which small objects need.
        num_queries: proposals that the decoder refines, and so the most objects in one answer.
        num_layers, num_heads: of the decoder.
        num_points: places that each head reads on each map.
        practice: queries that each object gives in training; 0 for none.
        window: side in patches of the windows in which the backbone's blocks look; 0 for the whole image.
        num_global: blocks that look at the whole image nevertheless, evenly spaced.
        dropout: in the decoder.
    """

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


@dataclass(frozen=True, kw_only=True)
class VitDetConfig(VitDetParts):
    """A detector on the patches of a ViT.

    Args:
        vit: the backbone; its head is not used.
        num_classes: classes of objects; "no object" is no class of its own.
    """

    vit: ViTConfig
    num_classes: int

    def __post_init__(self) -> None:
        for name in ("num_classes", "num_queries", "num_layers", "num_heads", "num_points"):
            require_positive(name, getattr(self, name))
        require_share("dropout", self.dropout)
        if self.window < 0 or (self.window and not 1 <= self.num_global <= self.vit.depth):
            raise SettingsError(
                f"windows of {self.window} patches and {self.num_global} global blocks of {self.vit.depth}",
                f"use 0 or more, and 1 to {self.vit.depth}",
            )
        if self.window and not isinstance(self.vit.norm, LayerNormConfig | RMSNormConfig):
            raise SettingsError("windows in a backbone whose norms average over tokens", "set window = 0")
        if isinstance(self.vit.patch.stem, ResNetStem):
            raise SettingsError("the backbone is a hybrid", "use a ViT without a convolutional stem")
        if not self.scales or not set(self.scales) <= {2.0, 1.0, 0.5}:
            raise SettingsError(f"scales are {self.scales}", "use some of 2, 1 and 0.5")
        if self.width % self.num_heads or self.width % 4:
            raise SettingsError(
                f"dim {self.width} cannot be divided evenly among {self.num_heads} heads",
                f"set dim = {-(-self.width // (4 * self.num_heads)) * 4 * self.num_heads}",
            )

    @property
    def width(self) -> int:
        return self.dim or min(self.vit.dim, 256)
