"""Everything inside a module, also what is hidden from torch in lists, dicts and plain attributes."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

_DEEPEST = 4
_OF_TORCH = frozenset(vars(nn.Module()))


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors in nested tuples, lists, dicts and dataclass-like outputs."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from tensors_in(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from tensors_in(part)


def modules_in(root: nn.Module) -> Iterator[tuple[str, nn.Module, bool]]:
    """Each module once, with its path and whether it is registered: all registered ones first, then hidden ones."""
    seen: set[int] = set()
    found: list[tuple[str, nn.Module]] = []
    for path, module in root.named_modules():
        seen.add(id(module))
        found.append((path, module))
        yield path, module, True
    for owner, holder in found:
        for path, value in _hidden(holder, owner):
            if isinstance(value, nn.Module) and id(value) not in seen:
                for inner, module, _ in modules_in(value):
                    if id(module) not in seen:
                        seen.add(id(module))
                        yield f"{path}.{inner}" if inner else path, module, False


def paths_of(root: nn.Module) -> dict[int, str]:
    """The path of each module by its id; the root is called by its class."""
    return {id(module): path or type(module).__name__ for path, module, _ in modules_in(root)}


def hidden_tensors(root: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Tensors that torch does not know of: in lists, dicts and plain attributes of any module."""
    seen: set[int] = set()
    for owner, module, _ in modules_in(root):
        for path, value in _hidden(module, owner):
            if isinstance(value, Tensor) and id(value) not in seen:
                seen.add(id(value))
                yield path, value


def weights_in(root: nn.Module) -> dict[str, Tensor]:
    """Everything that could learn, once each, by path: parameters of all modules, and hidden tensors that require a gradient."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for owner, module, _ in modules_in(root):
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                found[f"{owner}.{name}" if owner else name] = parameter
    for path, tensor in hidden_tensors(root):
        if tensor.requires_grad and id(tensor) not in seen:
            found[path] = tensor
    return found


def _hidden(module: nn.Module, owner: str) -> Iterator[tuple[str, Any]]:
    """Modules and tensors in the plain attributes of a module."""
    prefix = f"{owner}." if owner else ""
    for name, value in vars(module).items():
        if name not in _OF_TORCH:
            yield from _unpacked(f"{prefix}{name}", value, _DEEPEST)


def _unpacked(path: str, value: Any, depth: int) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Tensor | nn.Module):
        yield path, value
    elif depth and isinstance(value, list | tuple):
        for index, part in enumerate(value):
            yield from _unpacked(f"{path}[{index}]", part, depth - 1)
    elif depth and isinstance(value, dict):
        for key, part in value.items():
            yield from _unpacked(f"{path}[{key!r}]", part, depth - 1)


def convert_hidden(root: nn.Module, dtype: Any) -> None:
    """Convert hidden modules and tensors too, so that the complete forward pass runs in `dtype`."""
    for _, module, registered in list(modules_in(root)):
        if not registered:
            module.to(dtype)
        for name, value in list(vars(module).items()):
            if name not in _OF_TORCH:
                vars(module)[name] = _converted(value, dtype, _DEEPEST)


def _converted(value: Any, dtype: Any, depth: int) -> Any:
    if isinstance(value, nn.Module):
        return value
    if isinstance(value, Tensor):
        if not value.is_floating_point() or value.dtype == dtype:
            return value
        return value.detach().to(dtype).requires_grad_(value.requires_grad)
    if depth and type(value) is list:
        return [_converted(part, dtype, depth - 1) for part in value]
    if depth and type(value) is tuple:
        return tuple(_converted(part, dtype, depth - 1) for part in value)
    if depth and type(value) is dict:
        return {key: _converted(part, dtype, depth - 1) for key, part in value.items()}
    return value
