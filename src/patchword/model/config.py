"""The configuration of a ViT: one frozen tree for the whole family. Does not import torch.

A part that comes in several kinds is a union of dataclasses, distinguished by `kind`. Each kind
has only the settings that apply to it. The differences between families are values of these
parts, so the model contains no `if family`. Sizes are (rows, columns) everywhere.
"""

from dataclasses import dataclass, field
from types import UnionType
from typing import Literal, get_args

from patchword.errors import SettingsError
from patchword.model.base import Size, require_positive
from patchword.model.kinds import (
    Added,
    AnyAdded,
    AnyInner,
    ClassPool,
    Combined,
    Inner,
    LayerNormConfig,
    Learned,
    NoPositions,
    Norm,
    NoStem,
    Pool,
    Positions,
    Resample,
    Stem,
)
from patchword.model.parts import Activation, AttentionConfig, BlockConfig, MLPConfig, TokensConfig

__all__ = [
    "Activation",
    "AttentionConfig",
    "BlockConfig",
    "HeadConfig",
    "ImageConfig",
    "MLPConfig",
    "PatchConfig",
    "TokensConfig",
    "ViTConfig",
]


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """The image size and channels that a model is built for; it accepts any other size at run time."""

    size: Size = (224, 224)
    channels: int = 3

    def __post_init__(self) -> None:
        require_positive("image.size", *self.size)
        require_positive("image.channels", self.channels)


@dataclass(frozen=True, kw_only=True)
class PatchConfig:
    """The patch convolution (stride = kernel size), and the norms that some models put around it.

    edge: how to handle an image that is not a multiple of the patch size. "pad" adds zeros at the
    right and the bottom, so no pixel is lost; the grid size is rounded up. "cut" crops the rest; the
    grid size is rounded down (timm and big_vision, e.g. SigLIP's 384 pixels with patches of 14).
    resample: how patches are resized when the kernel is converted to another size (`resample.py`).
    """

    size: Size = (16, 16)
    bias: bool = True  # off with CLIP's norm before the blocks
    norm_pixels: bool = False  # over the pixels of one patch, before the projection (lucidrains)
    norm_output: bool = False  # over the channels after it (lucidrains, AIMv2)
    edge: Literal["pad", "cut"] = "pad"
    stem: Stem = field(default_factory=NoStem)
    resample: Resample = field(default_factory=Resample)

    def __post_init__(self) -> None:
        require_positive("patch.size", *self.size)


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """From tokens to the output.

    norm: "tokens" normalises before pooling, "pooled" after it (fc_norm; CLIP's class token).
    pre_logits: width of a linear layer with tanh after pooling; 0 for none. projection: width of
    a linear layer after that (CLIP without bias, LiT with bias); 0 for none. num_classes: 0 returns
    the embedding. distilled: a second head reads the distillation token, and the output is the
    mean of both heads (DeiT); without classes, it is the mean of both tokens.
    """

    pool: Pool = field(default_factory=ClassPool)
    norm: Literal["tokens", "pooled", "none"] = "tokens"
    pre_logits: int = 0
    projection: int = 0
    projection_bias: bool = False
    num_classes: int = 1000
    bias: bool = True
    distilled: bool = False

    def __post_init__(self) -> None:
        for name in ("pre_logits", "projection", "num_classes"):
            if getattr(self, name) < 0:
                raise SettingsError(f"head.{name} is {getattr(self, name)}", f"set head.{name} to 0 or more")


@dataclass(frozen=True, kw_only=True)
class ViTConfig:
    """A complete Vision Transformer. Raises: SettingsError if its parts contradict each other."""

    image: ImageConfig = ImageConfig()
    patch: PatchConfig = PatchConfig()
    dim: int = 768
    depth: int = 12
    tokens: TokensConfig = field(default_factory=TokensConfig)
    positions: Positions = field(default_factory=Learned)
    attention: AttentionConfig = field(default_factory=AttentionConfig)
    mlp: MLPConfig = field(default_factory=MLPConfig)
    block: BlockConfig = field(default_factory=BlockConfig)
    norm: Norm = field(default_factory=LayerNormConfig)
    head: HeadConfig = HeadConfig()

    def __post_init__(self) -> None:
        require_positive("dim", self.dim)
        require_positive("depth", self.depth)
        for check in (
            _check_kinds,
            _check_grid,
            _check_attention,
            _check_positions,
            _check_norm,
            _check_head,
        ):
            check(self)

    def grid_of(self, size: Size) -> Size:
        """Rows and columns of patches for an image of this size in pixels."""
        (height, width), (rows, columns) = self.patch.stem.size_after(size), self.patch.size
        if self.patch.edge == "cut":
            return height // rows, width // columns
        return -(-height // rows), -(-width // columns)

    @property
    def grid_size(self) -> Size:
        return self.grid_of(self.image.size)

    @property
    def patch_span(self) -> Size:
        """Height and width, in image pixels, that one patch covers."""
        stride = self.patch.stem.stride
        return self.patch.size[0] * stride, self.patch.size[1] * stride

    @property
    def patch_pixels(self) -> int:
        """The number of values in one patch, of the image or of the stem's features."""
        return self.patch.stem.features(self.image.channels) * self.patch.size[0] * self.patch.size[1]

    @property
    def num_tokens(self) -> int:
        return self.grid_size[0] * self.grid_size[1] + self.tokens.num_extra

    @property
    def head_dim(self) -> int:
        return self.attention.head_dim or self.dim // self.attention.num_heads

    @property
    def attention_dim(self) -> int:
        return self.head_dim * self.attention.num_heads

    @property
    def mlp_dim(self) -> int:
        if self.mlp.hidden is not None:
            return self.mlp.hidden
        return -(-self.dim // 3) * 8 if self.mlp.gated else 4 * self.dim

    @property
    def added_positions(self) -> NoPositions | AnyAdded:
        """Positions that are added to the tokens before the first block."""
        if isinstance(self.positions, Combined):
            return self.positions.added
        return self.positions if isinstance(self.positions, Added) else NoPositions()

    @property
    def inner_positions(self) -> NoPositions | AnyInner:
        """Positional information passed to attention."""
        if isinstance(self.positions, Combined):
            return self.positions.inner
        return self.positions if isinstance(self.positions, Inner) else NoPositions()

    @property
    def num_prefix_positions(self) -> int:
        """The number of leading prefix tokens that have a learned position."""
        return self.added_positions.prefix_rows(self.tokens)

    @property
    def pooled_dim(self) -> int:
        """Width of the pooled vector."""
        return self.head.pool.width(self.dim)

    @property
    def embed_dim(self) -> int:
        """Width of the vectors that `embed` returns."""
        return self.head.pre_logits or self.pooled_dim


# Contradictions between parts, each with a fix ---------------------------------------------


def _check_kinds(config: ViTConfig) -> None:
    """Reject kinds that no union lists: they would build without an error but could not be read back."""
    places: dict[str, tuple[object, UnionType]] = {
        "patch.stem": (config.patch.stem, Stem),
        "positions": (config.positions, Positions),
        "norm": (config.norm, Norm),
        "head.pool": (config.head.pool, Pool),
    }
    if isinstance(config.positions, Combined):
        places["positions.added"] = (config.positions.added, AnyAdded)
        places["positions.inner"] = (config.positions.inner, AnyInner)
    for name, (part, union) in places.items():
        if not isinstance(part, union):
            known = ", ".join(kind.__name__ for kind in get_args(union))
            raise SettingsError(f"{name} is {part!r}, which is not a known kind", f"use one of: {known}")
    # Such a kind would be treated as no positions at all.
    if not isinstance(config.positions, (Added, Inner, Combined)):
        raise TypeError(f"{type(config.positions).__name__} inherits from neither Added nor Inner")


def _check_grid(config: ViTConfig) -> None:
    if min(config.patch.stem.size_after(config.image.size)) < 1:
        raise SettingsError(
            f"an image of {config.image.size[0]} x {config.image.size[1]} is too small for the stem",
            f"set image.size to at least {2 * config.patch.stem.stride} pixels per side",
        )
    if not all(config.grid_size):
        raise SettingsError(
            f"images of {config.image.size} are smaller than one patch of {config.patch.size}",
            "set image.size to at least one patch, or patch.edge = 'pad'",
        )


def _check_attention(config: ViTConfig) -> None:
    heads = config.attention.num_heads
    if config.attention.head_dim is None and config.dim % heads:
        fitting = [n for n in range(1, config.dim + 1) if config.dim % n == 0]
        nearest = min(fitting, key=lambda n: abs(n - heads))
        raise SettingsError(
            f"dim {config.dim} cannot be divided evenly among {heads} attention heads",
            f"set attention.num_heads = {nearest}, or set attention.head_dim",
        )
    if config.attention.qk_norm == "layer" and config.head_dim == 1:
        raise SettingsError(
            "layer norm over attention heads with one channel is always zero",
            "set attention.qk_norm = 'none', or use fewer heads",
        )


def _check_positions(config: ViTConfig) -> None:
    added, inner = config.added_positions, config.inner_positions
    added.check(config)
    inner.check(config)
    reads_prefix = config.head.pool.reads_prefix and config.tokens.num_prefix
    alone = isinstance(added, NoPositions) and not inner.reaches_prefix
    if config.depth == 1 and alone and reads_prefix:
        raise SettingsError(
            f"with a single block, {inner.kind} positions do not affect the pooled token",
            "set depth to at least 2, or head.pool.kind = 'mean'",
        )


def _check_norm(config: ViTConfig) -> None:
    """Check that the norm supports every width that it is applied to."""
    norm, head = config.norm, config.head
    widths = {"dim": config.dim}
    if config.mlp.inner_norm:
        widths["the MLP's hidden width"] = config.mlp_dim
    if config.attention.out_norm:
        widths["num_heads · head_dim"] = config.attention_dim
    if config.patch.norm_pixels:
        widths["the pixels of a patch"] = config.patch_pixels
    for name, width in widths.items():
        norm.check_width(name, width, alone=False)
    if head.norm == "pooled":
        norm.check_width("head.norm = 'pooled'", config.pooled_dim, alone=True)
    if not norm.levels_tokens(config.dim):
        return
    if config.num_tokens == 1:
        raise SettingsError(
            f"{norm.kind} norm over a single token per image is always zero", "use a smaller patch.size"
        )
    # If the last norm before pooling, or each block's output, has the same mean over tokens in every image,
    # so does the pooled vector.
    if head.pool.averages and (head.norm == "tokens" or config.block.order != "pre"):
        raise SettingsError(
            f"{head.pool.kind!r} pooling would give every image the same output, because {norm.kind} norm gives "
            "each channel the same mean over the tokens of every image",
            "set norm.kind = 'layer', or head.pool.kind = 'max'",
        )


def _check_head(config: ViTConfig) -> None:
    head, tokens = config.head, config.tokens
    if head.pool.needs_class_token and not tokens.class_token:
        raise SettingsError(
            f"pooling {head.pool.kind!r} needs a class token, but the model has none",
            "set tokens.class_token = true, or head.pool.kind = 'mean'",
        )
    head.pool.check(config)
    if head.distilled and not (tokens.distillation_token and isinstance(head.pool, ClassPool)):
        raise SettingsError(
            "a distilled head needs a distillation token and pooling by class token",
            "set tokens.distillation_token = true and head.pool.kind = 'class'",
        )
    if head.projection_bias and not head.projection:
        raise SettingsError(
            "head.projection_bias is set, but there is no projection",
            "set head.projection, or remove head.projection_bias",
        )
    if head.distilled and (head.norm != "tokens" or head.pre_logits or head.projection):
        raise SettingsError(
            "a distilled head reads normed tokens directly, without another norm, pre_logits or projection",
            "set head.norm = 'tokens', head.pre_logits = 0, head.projection = 0",
        )
