"""The configuration of a masked autoencoder's decoder. Does not import torch."""

from dataclasses import dataclass
from typing import Literal

from patchword.errors import SettingsError
from patchword.model.base import require_above_zero, require_positive
from patchword.model.config import HeadConfig, ImageConfig, PatchConfig, ViTConfig
from patchword.model.kinds import LayerNormConfig, Learned, MeanPool, ResNetStem, SinCos2d
from patchword.model.parts import Activation, AttentionConfig, MLPConfig, TokensConfig


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """The decoder of a masked autoencoder, and what it was trained to predict (He et al. 2022, arXiv 2111.06377).

    The defaults are the published decoder, the same for ViT-B, L and H.

    Args:
        dim, depth, num_heads: of the decoder's blocks.
        hidden: width of their MLPs; None for 4 · dim.
        eps: of their norms.
        positions: "sincos2d" is computed, "learned" is a table in the file (the published files contain sines in it).
        norm_targets: the decoder predicts each patch less its mean, divided by its deviation.
        mask_ratio: the share of patches that were hidden in training.
    """

    dim: int = 512
    depth: int = 8
    num_heads: int = 16
    hidden: int | None = None
    activation: Activation = "gelu"
    eps: float = 1e-6
    positions: Literal["sincos2d", "learned"] = "sincos2d"
    norm_targets: bool = True
    mask_ratio: float = 0.75

    def __post_init__(self) -> None:
        for name in ("dim", "depth", "num_heads"):
            require_positive(f"decoder.{name}", getattr(self, name))
        if self.hidden is not None:
            require_positive("decoder.hidden", self.hidden)
        require_above_zero("decoder.eps", self.eps)
        if self.dim % self.num_heads:
            fitting = [n for n in range(1, self.dim + 1) if self.dim % n == 0]
            nearest = min(fitting, key=lambda n: abs(n - self.num_heads))
            raise SettingsError(
                f"decoder.dim {self.dim} cannot be divided evenly among {self.num_heads} attention heads",
                f"set decoder.num_heads = {nearest}",
            )
        if self.positions == "sincos2d" and self.dim % 4:
            raise SettingsError(
                f"decoder.dim is {self.dim}, but sincos2d positions need a multiple of 4",
                f"set decoder.dim = {-(-self.dim // 4) * 4}",
            )
        if not 0 < self.mask_ratio < 1:
            raise SettingsError(
                f"decoder.mask_ratio is {self.mask_ratio}", "use a value between 0 and 1, such as 0.75"
            )

    def trunk(self, encoder: ViTConfig) -> ViTConfig:
        """The decoder's blocks as the config of a ViT with the encoder's grid and prefix tokens.

        One "pixel" stands for one patch: nothing but grid, width and blocks is read from the result.
        """
        tokens = encoder.tokens
        kept = 0 if tokens.registers_last else tokens.num_registers
        positions = SinCos2d(last_included=False) if self.positions == "sincos2d" else Learned()
        return ViTConfig(
            image=ImageConfig(size=encoder.grid_size, channels=1),
            patch=PatchConfig(size=(1, 1)),
            dim=self.dim,
            depth=self.depth,
            tokens=TokensConfig(
                class_token=tokens.class_token,
                distillation_token=tokens.distillation_token,
                num_registers=kept,
            ),
            positions=positions,
            attention=AttentionConfig(num_heads=self.num_heads),
            mlp=MLPConfig(hidden=self.hidden, activation=self.activation),
            norm=LayerNormConfig(eps=self.eps),
            head=HeadConfig(pool=MeanPool(), num_classes=0),
        )


def require_maskable(config: ViTConfig) -> None:
    """Raises: SettingsError if patches cannot be left out of this encoder without its seeing them."""
    if isinstance(config.patch.stem, ResNetStem):
        raise SettingsError(
            "a hybrid cannot be a masked autoencoder: its convolutions see the pixels of hidden patches",
            "use a model whose patches are cut from the image itself, such as vit-s16",
        )


def num_visible(num_patches: int, mask_ratio: float) -> int:
    """How many patches stay visible: int(N · (1 - mask_ratio)).

    Raises: SettingsError if that is none of them, or all.
    """
    count = int(num_patches * (1 - mask_ratio))
    if not 0 < count < num_patches:
        what = "no patch visible" if count <= 0 else "no patch hidden"
        lowest, highest = 1 / num_patches, 1 - 1 / num_patches
        raise SettingsError(
            f"a mask ratio of {mask_ratio:g} leaves {what} of {num_patches}",
            f"use a ratio from {lowest:.3g} to {highest:.3g}, such as 0.75"
            if lowest <= highest and num_patches > 1
            else "use larger images or smaller patches",
        )
    return count
