"""Settings, tensors and descriptions of all kinds of pooling. Does not import torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from patchword.errors import SettingsError
from patchword.model.base import Shapes, below, linear_shapes, require_positive
from patchword.model.kinds.bases import Host, PoolKind, mlp_shapes

# The tokens that a pool reads: the patches, those in front of them (class token, registers), or all.
Over = Literal["patches", "prefix", "all"]


@dataclass(frozen=True, kw_only=True)
class ClassPool(PoolKind):
    """The class token."""

    kind: ClassVar[str] = "class"
    reads_first: ClassVar[bool] = True
    needs_class_token: ClassVar[bool] = True

    def shapes(self, model: Host) -> Shapes:
        return {}

    def words(self) -> str:
        return "the class token"


@dataclass(frozen=True, kw_only=True)
class FirstPool(PoolKind):
    """The first token, whichever it is (big_vision's pool "0")."""

    kind: ClassVar[str] = "first"
    reads_first: ClassVar[bool] = True

    def shapes(self, model: Host) -> Shapes:
        return {}

    def words(self) -> str:
        return "the first token"


@dataclass(frozen=True, kw_only=True)
class MeanPool(PoolKind):
    """The mean of the patches, of the tokens in front of them (Pixio's class tokens), or of all."""

    kind: ClassVar[str] = "mean"
    over: Over = "patches"

    def shapes(self, model: Host) -> Shapes:
        return {}

    def words(self) -> str:
        return f"the mean of all {_named(self.over)}"

    @property
    def averages(self) -> bool:
        return True

    @property
    def reads_prefix(self) -> bool:
        return self.over == "prefix"

    def check(self, model: Host) -> None:
        _check_over(self.over, model)


@dataclass(frozen=True, kw_only=True)
class MaxPool(PoolKind):
    """The largest value of each channel."""

    kind: ClassVar[str] = "max"
    over: Over = "patches"

    def shapes(self, model: Host) -> Shapes:
        return {}

    def words(self) -> str:
        return f"the largest value of each channel of all {_named(self.over)}"

    @property
    def reads_prefix(self) -> bool:
        return self.over == "prefix"

    def check(self, model: Host) -> None:
        _check_over(self.over, model)


@dataclass(frozen=True, kw_only=True)
class AttentionPool(PoolKind):
    """A learned query attends to the tokens, then x + mlp(norm x) (MAP, Zhai et al. 2022).

    num_heads, hidden: None for the same as in the blocks (PE uses 8 heads in any case). plain: the query is used as it
    is, no MLP follows, and keys and values have biases if those of the blocks have (AIMv2).
    """

    kind: ClassVar[str] = "attention"
    num_heads: int | None = None
    hidden: int | None = None
    over: Over = "patches"
    plain: bool = False

    def __post_init__(self) -> None:
        for name in ("num_heads", "hidden"):
            if (value := getattr(self, name)) is not None:
                require_positive(f"head.pool.{name}", value)

    def shapes(self, model: Host) -> Shapes:
        dim = model.dim
        found: Shapes = {"probe": (dim,)}
        if self.plain:
            kv = linear_shapes("kv", dim, 2 * dim, model.attention.bias == "qkv")
            return found | kv | linear_shapes("proj", dim, dim)
        found |= linear_shapes("q", dim, dim) | linear_shapes("kv", dim, 2 * dim)
        found |= linear_shapes("proj", dim, dim) | below("norm", model.norm.shapes(dim))
        return found | below("mlp", mlp_shapes(model, self.hidden or model.mlp_dim, gated=False))

    def words(self) -> str:
        return "a mean of the tokens with learned weights (attention pooling)"

    def multiply_adds(self, model: Host) -> int:
        dim, hidden = model.dim, self.hidden or model.mlp_dim
        extra, prefix = model.tokens.num_extra, model.tokens.num_prefix
        read = {"all": model.num_tokens, "patches": model.num_tokens - extra, "prefix": prefix}[self.over]
        if self.plain:
            return dim * dim + 2 * read * dim * dim + 2 * read * dim
        return 2 * dim * dim + 2 * read * dim * dim + 2 * read * dim + 2 * dim * hidden

    @property
    def reads_prefix(self) -> bool:
        return self.over == "prefix"

    def check(self, model: Host) -> None:
        _check_over(self.over, model)
        if model.dim % (self.num_heads or model.attention.num_heads):
            raise SettingsError(
                f"dim {model.dim} cannot be divided evenly among the attention pool's heads",
                "set head.pool.num_heads to a divisor of dim",
            )
        if self.plain:
            return
        model.norm.check_width("in the attention pool", model.dim, alone=True)
        if model.mlp.inner_norm:
            hidden = self.hidden or model.mlp_dim
            model.norm.check_width("the attention pool's hidden width", hidden, alone=True)


@dataclass(frozen=True, kw_only=True)
class JoinedPool(PoolKind):
    """Class tokens of the last blocks, each after the final norm, joined with the mean of the patches.

    DINOv2's linear heads are (1, mean) and (4, mean), DINO's (4, no mean) and (1, mean,
    interleaved: class 0, mean 0, class 1, …).
    """

    kind: ClassVar[str] = "joined"
    needs_class_token: ClassVar[bool] = True

    class_layers: int = 1
    mean: bool = True
    interleaved: bool = False

    def __post_init__(self) -> None:
        require_positive("head.pool.class_layers", self.class_layers)
        if self.interleaved and not (self.mean and self.class_layers == 1):
            raise SettingsError(
                "head.pool.interleaved needs one class token and the mean", "set interleaved = false"
            )

    def shapes(self, model: Host) -> Shapes:
        return {}

    def words(self) -> str:
        return "class tokens of the last blocks" + (" and the mean of the patches" if self.mean else "")

    @property
    def averages(self) -> bool:
        return self.mean

    @property
    def reads_prefix(self) -> bool:
        return not self.mean

    def width(self, dim: int) -> int:
        return dim * (self.class_layers + self.mean)

    def layers(self, depth: int) -> Sequence[int]:
        return range(depth - self.class_layers, depth)

    def check(self, model: Host) -> None:
        if self.class_layers > model.depth:
            raise SettingsError(
                f"head.pool.class_layers is {self.class_layers}, but the model has only {model.depth} blocks",
                f"set head.pool.class_layers to at most {model.depth}",
            )


@dataclass(frozen=True, kw_only=True)
class PrefixPool(PoolKind):
    """Tokens in front of the patches, joined: the class tokens that RADIO has for its teachers.

    tokens: their places, from 0.
    """

    kind: ClassVar[str] = "prefix"

    tokens: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        if not self.tokens or min(self.tokens) < 0:
            raise SettingsError(
                f"head.pool.tokens is {list(self.tokens)}", "give the places of tokens, from 0"
            )

    def shapes(self, model: Host) -> Shapes:
        return {}

    def words(self) -> str:
        return f"{len(self.tokens)} tokens in front of the patches"

    @property
    def reads_prefix(self) -> bool:
        return True

    def width(self, dim: int) -> int:
        return dim * len(self.tokens)

    def check(self, model: Host) -> None:
        if max(self.tokens) >= model.tokens.num_prefix:
            raise SettingsError(
                f"head.pool.tokens has {max(self.tokens)}, but the model has {model.tokens.num_prefix} tokens in front of the patches",
                "give places below that number, or set tokens.num_registers",
            )


def _named(over: Over) -> str:
    return {"patches": "patch tokens", "prefix": "prefix tokens", "all": "tokens"}[over]


def _check_over(over: Over, model: Host) -> None:
    if over == "prefix" and not model.tokens.num_prefix:
        raise SettingsError(
            "pooling over 'prefix' needs tokens in front of the patches, but the model has none",
            "set tokens.class_token = true, or head.pool.over = 'patches'",
        )


Pool = ClassPool | FirstPool | MeanPool | MaxPool | AttentionPool | JoinedPool | PrefixPool
