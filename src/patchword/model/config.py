"""What a ViT is made of: one frozen tree for the whole family. No torch in here.

A part with kinds is a union of dataclasses told apart by `kind`; what another kind would
need cannot be set. A family's own way of doing things is a value of a part, so there is no
`if family` in the model. Sizes are (rows, columns) everywhere.
"""

from dataclasses import dataclass, field
from typing import Literal

from patchword.errors import SettingsError
from patchword.model.checks import check
from patchword.model.kinds import (
    ClassPool,
    Combined,
    Inner,
    JoinedPool,
    LayerNormConfig,
    Learned,
    NoPositions,
    Norm,
    NoStem,
    Pool,
    Positions,
    Resample,
    SinCos1d,
    SinCos2d,
    Size,
    Stem,
    require_positive,
    require_share,
)


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """The images a model is made for; at run time any other size will do."""

    size: Size = (224, 224)
    channels: int = 3

    def __post_init__(self) -> None:
        require_positive("image.size", *self.size)
        require_positive("image.channels", self.channels)


@dataclass(frozen=True, kw_only=True)
class PatchConfig:
    """The convolution whose stride is its kernel, and the norms some put around it.

    edge: what becomes of an image that is no multiple of the patch. "pad": zeros are put at
    the right and the bottom, so no pixel is lost; the grid is rounded up. "cut": what fills no
    patch is left out; rounded down (timm and big_vision: SigLIP's 384 pixels by 14).
    resample: how patches are resized when the kernel is brought to another size (`kernel.py`).
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
class TokensConfig:
    """Tokens that are no patches. Order: class, distillation, registers, patches.

    `registers_last` puts the registers behind the patches instead (lucidrains).
    """

    class_token: bool = True
    distillation_token: bool = False
    num_registers: int = 0
    registers_last: bool = False

    def __post_init__(self) -> None:
        if self.num_registers < 0:
            raise SettingsError(f"tokens.num_registers is {self.num_registers}", "give 0 or more")
        if self.registers_last and not self.num_registers:
            raise SettingsError(
                "tokens.registers_last is set, but there are no registers", "set tokens.num_registers"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each token before and after the patches, "patches" standing for all of them."""
        front = ["class"] * self.class_token + ["distillation"] * self.distillation_token
        registers = ["registers"] * self.num_registers
        if self.registers_last:
            return (*front, "patches", *registers)
        return (*front, *registers, "patches")

    @property
    def num_prefix(self) -> int:
        """Tokens in front of the patches."""
        return self.names.index("patches")

    @property
    def num_extra(self) -> int:
        """All tokens that are no patches."""
        return len(self.names) - 1


# Blocks --------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class AttentionConfig:
    """Multi-head self-attention.

    head_dim: None is dim / num_heads. bias: on queries, keys and values; "qv" has none on
    keys (BEiT, EVA, DINOv3). qk_norm: over each head's channels, eps of the model's norm.
    out_norm: over the joined heads before the projection (EVA-02's sub-LN).
    """

    num_heads: int = 12
    head_dim: int | None = None
    bias: Literal["qkv", "qv", "none"] = "qkv"
    qk_norm: Literal["none", "layer", "rms"] = "none"
    out_norm: bool = False
    out_bias: bool = True
    dropout: float = 0.0

    def __post_init__(self) -> None:
        require_positive("attention.num_heads", self.num_heads)
        if self.head_dim is not None:
            require_positive("attention.head_dim", self.head_dim)
        require_share("attention.dropout", self.dropout)


Activation = Literal[
    "gelu",
    "gelu_tanh",
    "quick_gelu",
    "silu",
    "relu",
    "relu6",
    "leaky_relu",
    "hard_swish",
    "mish",
    "sigmoid",
    "tanh",
]


@dataclass(frozen=True, kw_only=True)
class MLPConfig:
    """fc2(act(fc1 x)); gated: fc2(act(first half of fc1 x) · second half), SwiGLU with silu.

    hidden: None is 4 · dim, or gated 8/3 · dim rounded up to a multiple of 8.
    inner_norm: over the hidden channels before fc2 (EVA-02).
    """

    hidden: int | None = None
    activation: Activation = "gelu"
    gated: bool = False
    bias: bool = True
    inner_norm: bool = False

    def __post_init__(self) -> None:
        if self.hidden is not None:
            require_positive("mlp.hidden", self.hidden)


@dataclass(frozen=True, kw_only=True)
class BlockConfig:
    """How attention and MLP are joined to the stream of tokens.

    order: "pre" x + f(norm x); "post" norm(x + f x) (Vaswani et al.); "res_post"
    x + norm(f x). entry_norm: over all tokens before the first block (CLIP). layer_scale:
    the value that learned factors on each branch begin with; None is without. drop_path:
    chance to leave a branch out in training, rising linearly from 0 to this over the depth.
    dropout: after the positions, the attention and the MLP.
    """

    order: Literal["pre", "post", "res_post"] = "pre"
    entry_norm: bool = False
    layer_scale: float | None = None
    drop_path: float = 0.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        require_share("block.drop_path", self.drop_path)
        require_share("block.dropout", self.dropout)


# Head ----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """From tokens to the answer.

    norm: "tokens" before pooling; "pooled" after it (fc_norm; CLIP's class token); "none".
    pre_logits: width of a linear layer with tanh after pooling, 0 for none. projection:
    width of a linear layer after that (CLIP, without bias; LiT, with), 0 for none. num_classes 0: the
    answer is the embedding. distilled: a second head reads the distillation token and the
    answer is the mean of both (DeiT); without classes, the mean of both tokens.
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
                raise SettingsError(f"head.{name} is {getattr(self, name)}", "give 0 or more")


@dataclass(frozen=True, kw_only=True)
class ViTConfig:
    """A whole Vision Transformer. Raises: SettingsError where parts contradict each other."""

    image: ImageConfig = ImageConfig()
    patch: PatchConfig = PatchConfig()
    dim: int = 768
    depth: int = 12
    tokens: TokensConfig = TokensConfig()
    positions: Positions = field(default_factory=Learned)
    attention: AttentionConfig = AttentionConfig()
    mlp: MLPConfig = MLPConfig()
    block: BlockConfig = BlockConfig()
    norm: Norm = field(default_factory=LayerNormConfig)
    head: HeadConfig = HeadConfig()

    def __post_init__(self) -> None:
        require_positive("dim", self.dim)
        require_positive("depth", self.depth)
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
        """Rows and columns of the image, in pixels, that one patch stands for."""
        stride = self.patch.stem.stride
        return self.patch.size[0] * stride, self.patch.size[1] * stride

    @property
    def patch_pixels(self) -> int:
        """Numbers in one patch: of the image, or of the stem's features."""
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
    def added_positions(self) -> NoPositions | Learned | SinCos1d | SinCos2d:
        """What is added to the tokens before the first block."""
        if isinstance(self.positions, Combined):
            return self.positions.added
        return self.positions if isinstance(self.positions, Learned | SinCos1d | SinCos2d) else NoPositions()

    @property
    def inner_positions(self) -> NoPositions | Inner:
        """What each attention is told of where its tokens are."""
        if isinstance(self.positions, Combined):
            return self.positions.inner
        return self.positions if isinstance(self.positions, Inner) else NoPositions()

    @property
    def num_prefix_positions(self) -> int:
        """Prefix tokens, from the first on, that have a learned row."""
        added = self.added_positions
        if not isinstance(added, Learned) or added.covers == "patches":
            return 0
        if added.covers == "all":
            return self.tokens.num_prefix
        return self.tokens.class_token + self.tokens.distillation_token

    @property
    def pooled_dim(self) -> int:
        """Width of what pooling gives."""
        pool = self.head.pool
        return self.dim * (pool.class_layers + pool.mean) if isinstance(pool, JoinedPool) else self.dim

    @property
    def embed_dim(self) -> int:
        """Width of what `embed` answers."""
        return self.head.pre_logits or self.pooled_dim
