"""torch's files since 1.6 (a zip with `data.pkl`), and TorchScript archives (the same with `code/`)."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from patchword.checkpoints.containers.archive import Member, content, members
from patchword.checkpoints.containers.unpickle import (
    Namespace,
    Storage,
    Stranger,
    TensorMade,
    read_pickle,
    storage_of,
)
from patchword.checkpoints.stored import WIDTHS, Container, Entry
from patchword.errors import CheckpointError

MOST_PICKLE_BYTES = 512_000_000
DEEPEST = 100


def list_torch_zip(path: Path) -> tuple[Container, dict[str, Any], set[str]]:
    """Container, tree and the classes that were not made. Raises: CheckpointError where it is damaged."""
    parts = members(path)
    pickles = [name for name in parts if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise CheckpointError(
            f"{path}: a zip archive with {len(pickles)} data.pkl, torch writes one",
            "give a file of torch.save",
        )
    root = pickles[0].removesuffix("data.pkl")
    _check_order(path, root, parts)
    found = read_pickle(content(path, pickles[0], MOST_PICKLE_BYTES), path, storage_of)
    entries = Entries(path, {key: parts.get(f"{root}data/{key}") for key in _keys(root, parts)})
    scripted = f"{root}constants.pkl" in parts
    if scripted:
        return "torchscript", script_state(found.value, entries), set()
    return "torch", plain_tree(found.value, entries), found.strangers


def _keys(root: str, parts: Mapping[str, Member]) -> list[str]:
    before = f"{root}data/"
    return [name.removeprefix(before) for name in parts if name.startswith(before)]


def _check_order(path: Path, root: str, parts: Mapping[str, Member]) -> None:
    name = f"{root}byteorder"
    if name in parts and content(path, name, 64).strip() == b"big":
        raise CheckpointError(
            f"{path}: written on a machine of the other byte order (big-endian)",
            "save it as .safetensors there",
        )


class Entries:
    """From the tensors of a pickle to their places in the file. parts: storage key → where it lies."""

    def __init__(self, path: Path, parts: Mapping[str, Member | None]) -> None:
        self.path, self.parts = path, parts

    def __call__(self, made: TensorMade) -> Entry:
        part = self.parts.get(made.storage.key)
        if part is None:
            raise CheckpointError(
                f"{self.path}: its storage {made.storage.key!r} is missing",
                "get the file again: it is damaged",
            )
        width = WIDTHS[made.dtype]
        dense = made.strides == row_major(made.shape)
        spanned = 0
        if 0 not in made.shape:
            spanned = 1 + sum((side - 1) * step for side, step in zip(made.shape, made.strides, strict=True))
        if (made.offset + spanned) * width > part.size:
            raise CheckpointError(
                f"{self.path}: a tensor {list(made.shape)} reaches beyond its storage of {part.size:,} bytes",
                "get the file again: it is damaged",
            )
        first = made.offset * width
        packed = part.offset < 0
        return Entry(
            dtype=made.dtype,
            shape=made.shape,
            file=self.path,
            offset=-1 if packed else part.offset + first,
            strides=None if dense or math.prod(made.shape) < 2 else made.strides,
            member=part.name if packed else "",
            start=first if packed else 0,
        )


def row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides, step = [], 1
    for side in reversed(shape):
        strides.append(step)
        step *= max(side, 1)
    return tuple(reversed(strides))


def plain_tree(value: Any, entries: Entries) -> dict[str, Any]:
    """The checkpoint as a dict of entries and plain values; a list of tensors is numbered."""
    found = _plain(value, entries, 0)
    if isinstance(found, Entry):
        return {"": found}
    if isinstance(found, list):
        return {str(index): part for index, part in enumerate(found)}
    if not isinstance(found, dict):
        raise CheckpointError(
            f"{entries.path}: it holds {_what(value)}, no tensors by name",
            "save the state dict: torch.save(model.state_dict(), path)",
        )
    return found


def _what(value: Any) -> str:
    if isinstance(value, Stranger):
        return "a whole model, which only its own code could bring back"
    return f"a {type(value).__name__}"


def _plain(value: Any, entries: Entries, depth: int) -> Any:
    if depth > DEEPEST:
        raise CheckpointError(f"{entries.path}: it nests deeper than {DEEPEST}", "get the file again")
    if isinstance(value, TensorMade):
        return entries(value)
    if isinstance(value, Storage):
        return None
    if isinstance(value, dict):
        return {str(key): _plain(part, entries, depth + 1) for key, part in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(part, entries, depth + 1) for part in value]
    if isinstance(value, Namespace):
        return _plain(value.plain or {}, entries, depth + 1)
    return value if isinstance(value, str | int | float | bool) else None


def script_state(value: Any, entries: Entries) -> dict[str, Any]:
    """The tensors of a scripted or traced module under their dotted names; its code is not looked at."""
    found: dict[str, Any] = {}
    pending: list[tuple[str, Any, int]] = [("", value, 0)]
    while pending:
        prefix, module, depth = pending.pop()
        attributes = module.state if isinstance(module, Stranger) else module
        if not isinstance(attributes, dict) or depth > DEEPEST:
            continue
        for name, part in attributes.items():
            if isinstance(part, TensorMade):
                found[f"{prefix}{name}"] = entries(part)
            elif isinstance(part, Stranger):
                pending.append((f"{prefix}{name}.", part, depth + 1))
    return found
