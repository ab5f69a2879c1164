"""Turn what a torch pickle describes into a tree of entries, each tensor checked against its file."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from patchword.containers.archive import Member
from patchword.containers.entry import WIDTHS, Entry
from patchword.containers.pickle_stubs import (
    Namespace,
    OpaqueObject,
    Refused,
    Storage,
    TensorMade,
)
from patchword.errors import CheckpointError

DEEPEST = 100
# A short pickle can nest repeated references, which would expand to an endless tree.
MAX_PARTS = 3_000_000
# A tensor may repeat its numbers (zero strides), but not so often that they fill the memory.
MAX_REPEATED_BYTES = 2**30
_AGAIN = "download the file again: it is damaged"


class Tree:
    """The entries of one file. parts: storage key → its place in the file."""

    def __init__(self, path: Path, parts: Mapping[str, Member | None]) -> None:
        self.path, self.parts = path, parts
        self._seen = 0

    def plain(self, value: Any) -> dict[str, Any]:
        """The checkpoint as a dict of entries and plain values; a list gets numbers, a pickled model its state dict."""
        found = self._plain(value, "", 0)
        if isinstance(found, Entry):
            return {"": found}
        if isinstance(found, list):
            return {str(index): part for index, part in enumerate(found)}
        if isinstance(found, dict):
            return found
        raise CheckpointError(
            f"{self.path}: it holds {_what(value)} instead of named tensors",
            "save the state dict: torch.save(model.state_dict(), path)",
        )

    def scripted(self, value: Any) -> dict[str, Any]:
        """The tensors of a scripted or traced module under their dotted names; its code is ignored."""
        found: dict[str, Any] = {}
        pending: list[tuple[str, Any, int]] = [("", value, 0)]
        while pending:
            prefix, module, depth = pending.pop()
            self._count(depth)
            if not isinstance(module, OpaqueObject) or not isinstance(module.state, dict):
                continue
            for name, part in module.state.items():
                if isinstance(part, TensorMade | Refused):
                    found[f"{prefix}{name}"] = self._plain(part, f"{prefix}{name}", depth)
                elif isinstance(part, OpaqueObject):
                    pending.append((f"{prefix}{name}.", part, depth + 1))
        return found

    def _plain(self, value: Any, name: str, depth: int) -> Any:
        self._count(depth)
        if isinstance(value, TensorMade):
            return self._entry(value, name)
        if isinstance(value, Refused):
            raise CheckpointError(
                f"{self.path}: {name!r} is a {value.kind} tensor, which is not supported",
                "save it as a plain tensor on the CPU",
            )
        if isinstance(value, OpaqueObject):
            return self._of_stranger(value, name, depth)
        if isinstance(value, dict):
            return {_key(k): self._plain(part, _key(k), depth + 1) for k, part in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self._plain(part, f"{name}[{i}]", depth + 1) for i, part in enumerate(value)]
        if isinstance(value, int):
            return value if abs(value) < 2**64 else None
        return value if isinstance(value, str | float) else None

    def _of_stranger(self, value: OpaqueObject, name: str, depth: int) -> Any:
        if _is_module(value):
            found: dict[str, Any] = {}
            self._module(value.state, "", depth, found)
            return found
        if value.items is not None:
            return self._plain(value.items, name, depth + 1)
        if isinstance(value, Namespace) and isinstance(value.state, dict):
            return self._plain(value.state, name, depth + 1)
        return {} if isinstance(value, Namespace) else None

    def _module(self, state: Mapping[str, Any], prefix: str, depth: int, found: dict[str, Any]) -> None:
        """The state dict of a module pickled as a complete object, in torch's order."""
        self._count(depth)
        hidden = state.get("_non_persistent_buffers_set") or ()
        hidden = hidden if isinstance(hidden, set | frozenset | list) else ()
        for kind in ("_parameters", "_buffers"):
            for name, part in state[kind].items():
                if isinstance(part, TensorMade | Refused) and not (kind == "_buffers" and name in hidden):
                    found[f"{prefix}{_key(name)}"] = self._plain(part, f"{prefix}{_key(name)}", depth)
        for name, part in state["_modules"].items():
            if _is_module(part):
                self._module(part.state, f"{prefix}{_key(name)}.", depth + 1, found)

    def _count(self, depth: int) -> None:
        self._seen += 1
        if depth > DEEPEST or self._seen > MAX_PARTS:
            what = (
                f"is nested deeper than {DEEPEST} levels"
                if depth > DEEPEST
                else f"has over {MAX_PARTS:,} parts"
            )
            raise CheckpointError(f"{self.path}: it {what}", "download the file again")

    def _entry(self, made: TensorMade, name: str) -> Entry:
        if made.dtype not in WIDTHS:
            raise CheckpointError(
                f"{self.path}: {name!r} has dtype {made.dtype}, which is not supported",
                "save it as float32, float16 or bfloat16",
            )
        part = self.parts.get(made.storage.key)
        if part is None:
            raise CheckpointError(f"{self.path}: the storage of {name!r} is missing", _AGAIN)
        width, elements = WIDTHS[made.dtype], math.prod(made.shape)
        spanned = 0
        if elements:
            spanned = 1 + sum((side - 1) * step for side, step in zip(made.shape, made.strides, strict=True))
        repeated = elements > spanned and elements * width > MAX_REPEATED_BYTES
        if (made.offset + spanned) * width > part.size or repeated or not _is_possible(made.shape):
            raise CheckpointError(
                f"{self.path}: {name!r} has shape {list(made.shape)}, but its storage has {part.size:,} bytes",
                _AGAIN,
            )
        first, packed = made.offset * width, part.offset < 0
        return Entry(
            dtype=made.dtype,
            shape=made.shape,
            file=self.path,
            offset=-1 if packed else part.offset + first,
            strides=None if _is_row_major(made.shape, made.strides) else made.strides,
            member=part.name if packed else "",
            start=first if packed else 0,
        )


def _is_possible(shape: tuple[int, ...]) -> bool:
    # An empty tensor may state any size in its other axes; torch counts them anyway.
    return math.prod(max(side, 1) for side in shape) < 2**60


def _is_row_major(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    step = 1
    for side, stride in zip(reversed(shape), reversed(strides), strict=True):
        if side == 0:
            return True
        if side > 1 and stride != step:
            return False
        step *= side
    return True


def _is_module(value: Any) -> bool:
    """Whether it was a torch.nn.Module: each has certain dicts."""
    state = value.state if isinstance(value, OpaqueObject) else None
    return isinstance(state, dict) and all(
        isinstance(state.get(kind), dict) for kind in ("_parameters", "_buffers", "_modules")
    )


def _key(key: Any) -> str:
    if isinstance(key, OpaqueObject) or (isinstance(key, type) and issubclass(key, OpaqueObject)):
        return key.called
    return key if isinstance(key, str) else str(key)


def _what(value: Any) -> str:
    if isinstance(value, OpaqueObject):
        return f"an object of {value.called or 'an unknown class'}, which only its own code can restore"
    return "a bare storage" if isinstance(value, Storage) else f"a {type(value).__name__}"
