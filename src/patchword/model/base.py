"""Helpers for all parts of a config: checks of single values, and tensor shapes. Does not import torch."""

from patchword.errors import SettingsError

Size = tuple[int, int]
Shape = tuple[int, ...]
Shapes = dict[str, Shape]  # a tensor's name → its shape


def require_positive(name: str, *values: int) -> None:
    if any(value < 1 for value in values):
        shown = values[0] if len(values) == 1 else values
        raise SettingsError(f"{name} is {shown}", f"set {name} to at least 1")


def require_share(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise SettingsError(f"{name} is {value}", f"set {name} to at least 0 and less than 1")


def require_above_zero(name: str, value: float) -> None:
    if not 0 < value < float("inf"):
        raise SettingsError(f"{name} is {value}", f"set {name} to a finite value above 0")


def require_eps(name: str, value: float) -> None:
    if not 0 <= value < float("inf"):
        raise SettingsError(f"{name} is {value}", f"set {name} to a small value, such as 1e-6")


def linear_shapes(name: str, inputs: int, outputs: int, bias: bool = True) -> Shapes:
    """The tensors of a linear layer."""
    return {f"{name}.weight": (outputs, inputs)} | ({f"{name}.bias": (outputs,)} if bias else {})


def below(name: str, shapes: Shapes) -> Shapes:
    """Prefix the shapes of a submodule with its `name` in the parent module."""
    return {f"{name}.{part}": shape for part, shape in shapes.items()}
