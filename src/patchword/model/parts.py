"""The parts of a ViTConfig that have only one kind: extra tokens, attention, MLP, blocks. Does not import torch."""

from dataclasses import dataclass
from typing import Literal

from patchword.errors import SettingsError
from patchword.model.base import require_positive, require_share


@dataclass(frozen=True, kw_only=True)
class TokensConfig:
    """The learned tokens next to the patches. Order: class, distillation, registers, patches.

    `registers_last` puts the registers after the patches instead (lucidrains; the detection tokens of YOLOS).
    """

    class_token: bool = True
    distillation_token: bool = False
    num_registers: int = 0
    registers_last: bool = False

    def __post_init__(self) -> None:
        if self.num_registers < 0:
            raise SettingsError(
                f"tokens.num_registers is {self.num_registers}", "set tokens.num_registers to 0 or more"
            )
        if self.registers_last and not self.num_registers:
            raise SettingsError(
                "tokens.registers_last is set, but there are no registers", "set tokens.num_registers"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each token in order; a single "patches" stands for all patches."""
        front = ["class"] * self.class_token + ["distillation"] * self.distillation_token
        registers = ["registers"] * self.num_registers
        if self.registers_last:
            return (*front, "patches", *registers)
        return (*front, *registers, "patches")

    @property
    def num_prefix(self) -> int:
        """The number of tokens in front of the patches."""
        return self.names.index("patches")

    @property
    def num_extra(self) -> int:
        """The number of tokens other than patches."""
        return len(self.names) - 1


@dataclass(frozen=True, kw_only=True)
class AttentionConfig:
    """Multi-head self-attention.

    head_dim: None for dim / num_heads. bias: on queries, keys and values; "qv" omits it on keys
    (BEiT, EVA, DINOv3). qk_norm: over each head's channels, with the eps of the model's norm.
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

    hidden: None for 4 · dim, or if gated, 8/3 · dim rounded up to a multiple of 8.
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
    """How attention and MLP are added to the residual stream.

    order: "pre" x + f(norm x); "post" norm(x + f x) (Vaswani et al.); "res_post" x + norm(f x).
    entry_norm: over all tokens before the first block (CLIP). layer_scale: the initial value of the
    learned factors on each branch; None for no factors. drop_path: the probability of skipping a
    branch in training, rising linearly from 0 to this value over the depth. dropout: after the
    positions, the attention and the MLP.
    """

    order: Literal["pre", "post", "res_post"] = "pre"
    entry_norm: bool = False
    layer_scale: float | None = None
    drop_path: float = 0.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        require_share("block.drop_path", self.drop_path)
        require_share("block.dropout", self.dropout)
