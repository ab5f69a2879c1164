"""Settings, tensors and descriptions of all kinds of norms. Does not import torch."""

from dataclasses import dataclass
from typing import ClassVar

from patchword.errors import SettingsError
from patchword.model.base import Shapes, require_eps, require_positive
from patchword.model.kinds.bases import NormKind


@dataclass(frozen=True, kw_only=True)
class LayerNormConfig(NormKind):
    """Mean and variance over the channels of one token."""

    kind: ClassVar[str] = "layer"
    eps: float = 1e-6
    bias: bool = True

    def __post_init__(self) -> None:
        require_eps("norm.eps", self.eps)

    def shapes(self, width: int) -> Shapes:
        bias: Shapes = {"bias": (width,)} if self.bias else {}
        return {"weight": (width,), **bias}

    def words(self) -> str:
        return "layer norm (mean and variance over the channels of one token)"

    def check_width(self, name: str, width: int, *, alone: bool) -> None:
        if width == 1:
            raise SettingsError(f"layer norm of one channel ({name}) is always zero", "use more channels")


@dataclass(frozen=True, kw_only=True)
class RMSNormConfig(NormKind):
    """Mean square over the channels of one token, without subtracting the mean and without bias."""

    kind: ClassVar[str] = "rms"
    eps: float = 1e-6

    def __post_init__(self) -> None:
        require_eps("norm.eps", self.eps)

    def shapes(self, width: int) -> Shapes:
        return {"weight": (width,)}

    def words(self) -> str:
        return "RMS norm (the mean square over the channels of one token)"


@dataclass(frozen=True, kw_only=True)
class BatchNormConfig(NormKind):
    """Mean and variance of one channel over batch and tokens; in eval mode, the running averages."""

    kind: ClassVar[str] = "batch"
    buffers: ClassVar[frozenset[str]] = frozenset({"num_batches_tracked", "running_mean", "running_var"})

    eps: float = 1e-5
    momentum: float = 0.1

    def __post_init__(self) -> None:
        require_eps("norm.eps", self.eps)
        if not 0 < self.momentum <= 1:
            raise SettingsError(
                f"norm.momentum is {self.momentum}", "set norm.momentum to a value above 0 and at most 1"
            )

    def shapes(self, width: int) -> Shapes:
        names = ("weight", "bias", "running_mean", "running_var")
        return {name: (width,) for name in names} | {"num_batches_tracked": ()}

    def words(self) -> str:
        return "batch norm (mean and variance of one channel over the whole batch)"


@dataclass(frozen=True, kw_only=True)
class GroupNormConfig(NormKind):
    """Mean and variance over a group of channels and all tokens of one image."""

    kind: ClassVar[str] = "group"
    eps: float = 1e-5
    num_groups: int = 32

    def __post_init__(self) -> None:
        require_eps("norm.eps", self.eps)
        require_positive("norm.num_groups", self.num_groups)

    def shapes(self, width: int) -> Shapes:
        return {"weight": (width,), "bias": (width,)}

    def words(self) -> str:
        return "group norm (mean and variance of a group of channels over all tokens of one image)"

    def check_width(self, name: str, width: int, *, alone: bool) -> None:
        if width % self.num_groups:
            raise SettingsError(
                f"{name}, {width}, is not divisible into {self.num_groups} groups for group norm",
                f"set norm.num_groups to a divisor of {width}",
            )
        if alone and width <= 2 * self.num_groups:
            raise SettingsError(
                f"group norm of one vector ({name}) in groups of {width // self.num_groups} keeps at most the signs",
                "set norm.num_groups to a smaller divisor",
            )

    def levels_tokens(self, width: int) -> bool:
        return width == self.num_groups


@dataclass(frozen=True, kw_only=True)
class InstanceNormConfig(NormKind):
    """Mean and variance of one channel over all tokens of one image."""

    kind: ClassVar[str] = "instance"
    eps: float = 1e-5

    def __post_init__(self) -> None:
        require_eps("norm.eps", self.eps)

    def shapes(self, width: int) -> Shapes:
        return {"weight": (width,), "bias": (width,)}

    def words(self) -> str:
        return "instance norm (mean and variance of one channel over all tokens of one image)"

    def check_width(self, name: str, width: int, *, alone: bool) -> None:
        if alone:
            raise SettingsError(
                f"instance norm of one vector ({name}) is always zero",
                "set norm.kind = 'layer', or head.norm = 'tokens' and head.pool.kind = 'max'",
            )

    def levels_tokens(self, width: int) -> bool:
        return True


Norm = LayerNormConfig | RMSNormConfig | BatchNormConfig | GroupNormConfig | InstanceNormConfig
