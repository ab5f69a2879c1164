"""The configuration of YOLOS. Does not import torch."""

from dataclasses import dataclass
from typing import ClassVar

from patchword.errors import SettingsError
from patchword.model.base import require_positive
from patchword.model.config import ViTConfig


@dataclass(frozen=True, kw_only=True)
class YolosConfig:
    """YOLOS: a ViT whose last tokens become classes and boxes (Fang et al. 2021, arXiv 2106.00666).

    Args:
        backbone: the ViT. Its registers, behind the patches, are the detection tokens. It has no classes of its own.
        num_classes: without "no object", which has the last output.
    """

    kind: ClassVar[str] = "yolos"

    backbone: ViTConfig
    num_classes: int = 91

    def __post_init__(self) -> None:
        require_positive("yolos.num_classes", self.num_classes)
        tokens, head = self.backbone.tokens, self.backbone.head
        if not tokens.registers_last:
            raise SettingsError(
                "a YOLOS backbone needs detection tokens behind its patches",
                "set backbone.tokens.num_registers = 100 and backbone.tokens.registers_last = true",
            )
        if head.num_classes or head.norm != "tokens":
            raise SettingsError(
                "a YOLOS backbone has no classes, and its norm is over all tokens",
                "set backbone.head.num_classes = 0 and backbone.head.norm = 'tokens'",
            )

    @property
    def num_queries(self) -> int:
        """The number of detection tokens, and of boxes that every image gets."""
        return self.backbone.tokens.num_registers
