"""Choose the files of a folder that belong together, and a file's reader: by its content, never by its name."""

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from patchword.containers.entry import Container, Entry, Stored, configs_beside, read_json
from patchword.containers.header import read_header
from patchword.containers.others import other_folder
from patchword.containers.sniff import HEAD_BYTES, is_old_torch, refuse, zip_names
from patchword.errors import CheckpointError, UnsafeFile

# E.g. "model.safetensors.index.json"; for a variant "model.safetensors.index.fp16.json".
_INDEX = re.compile(r"\.index(\.\w+)?\.json$")
# In order of preference if several copies of the same weights are in one folder.
PREFERRED = (
    "model.safetensors",
    "model.safetensors.index.json",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "open_clip_pytorch_model.bin",
)
ENDINGS = (".safetensors", ".bin", ".pth", ".pt", ".npz", ".ckpt", ".tar")
_PART = re.compile(r"-(\d{5})-of-(\d{5})\.(?:safetensors|bin)$")


def open_folder(folder: Path) -> Stored:
    """Raises: CheckpointError if there are no weights, or several different ones."""
    there = [name for name in PREFERRED if (folder / name).is_file()]
    if there:
        why = f"{there[0]}, preferred over {', '.join(there[1:])}" if there[1:] else ""
        return open_file(folder / there[0], shown=folder, why=why)
    try:
        files = sorted(file for file in folder.iterdir() if file.is_file())
    except OSError as error:
        raise CheckpointError(
            f"{folder}: cannot be read ({error.strerror or error})", "give a folder that can be read"
        ) from error
    indices = [file for file in files if _INDEX.search(file.name)]
    if len(indices) == 1:
        return open_file(indices[0], shown=folder)
    weights = [file for file in files if file.suffix in ENDINGS]
    if len({file.stem for file in weights}) == 1:
        weights.sort(key=lambda file: ENDINGS.index(file.suffix))
        others = ", ".join(file.name for file in weights[1:])
        why = f"{weights[0].name}, {f'preferred over {others}' if others else 'the only weights file there'}"
        return open_file(weights[0], shown=folder, why=why)
    if weights:
        names = ", ".join(file.name for file in weights[:4])
        raise CheckpointError(
            f"{folder}: it holds {len(weights)} weights files ({names})", "specify one of them"
        )
    raise _no_weights(folder)


def _no_weights(folder: Path) -> CheckpointError:
    if (other := other_folder(folder)) is not None:
        return CheckpointError(f"{folder}: {other[0]}, which patchword does not read", other[1])
    return CheckpointError(f"{folder}: this folder has no weights", "give the folder or file that holds them")


def open_file(path: Path, *, shown: Path | None = None, why: str = "") -> Stored:
    """shown: the name in messages. Raises: CheckpointError that states what the file is instead."""
    _check_whole(path)
    configs = configs_beside(path.parent)
    if _INDEX.search(path.name):
        container, tree, metadata, files, strangers = _shards(path)
    else:
        container, one, metadata, strangers = _one(path)
        tree, files = dict(one), [path]
    return Stored(
        path=shown or path,
        container=container,
        tree=tree,
        metadata=metadata,
        files=tuple(files),
        configs=configs,
        why=why,
        strangers=tuple(sorted(strangers)),
    )


def _check_whole(path: Path) -> None:
    part = _PART.search(path.name)
    if part and int(part[2]) > 1:
        raise CheckpointError(
            f"{path}: this is part {int(part[1])} of {int(part[2])} of a model",
            f"give the folder with all parts and their index: {path.parent}",
        )


Listed = tuple[Container, Mapping[str, Any], Mapping[str, str], set[str]]


def _one(path: Path) -> Listed:
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error.strerror or error})", "give a weights file that can be read"
        ) from error
    if head.startswith(b"PK\x03\x04"):
        return _zip(path, head, size)
    if is_old_torch(head):
        from patchword.containers.torch_old import list_torch_old

        tree, strangers = list_torch_old(path)
        return "torch", tree, {}, strangers
    header = read_header(path)
    entries = {
        name: Entry(dtype=entry.dtype, shape=entry.shape, file=path, offset=header.data_start + entry.start)
        for name, entry in header.tensors.items()
    }
    return "safetensors", entries, header.metadata, set()


def _zip(path: Path, head: bytes, size: int) -> Listed:
    from patchword.containers.npz import list_npz
    from patchword.containers.torch_zip import is_torch_pickle, list_torch_zip

    names = zip_names(path)
    if any(is_torch_pickle(name) for name in names):
        container, tree, strangers = list_torch_zip(path)
        return container, tree, {}, strangers
    if names and all(name.endswith(".npy") for name in names):
        return "npz", list_npz(path), {}, set()
    raise refuse(path, head, size)


def _shards(index: Path) -> tuple[Container, dict[str, Any], Mapping[str, str], list[Path], set[str]]:
    """The tensors of an index's files, each in its listed file."""
    listed = read_json(index).get("weight_map")
    if not isinstance(listed, dict) or not listed or not all(isinstance(v, str) for v in listed.values()):
        raise CheckpointError(
            f"{index}: it has no weight_map of tensors to files", "download the index again"
        )
    shards: dict[str, Listed] = {}
    for name in sorted(set(listed.values())):
        if not _is_plain_name(name):
            raise UnsafeFile(
                f"{index}: it lists {name!r}, which is outside its folder",
                "do not use this folder: such an index may be malicious",
            )
        if not _is_file(index.parent / name):
            raise CheckpointError(f"{index}: its file {name!r} is missing", "use the complete folder")
        shards[name] = _one(index.parent / name)
    tree: dict[str, Any] = {}
    for key, name in listed.items():
        if key not in shards[name][1]:
            raise CheckpointError(
                f"{index}: the tensor {key!r} is not in {name!r}", "download the complete folder again"
            )
        tree[key] = shards[name][1][key]
    for name, shard in shards.items():
        extra = [key for key in shard[1] if key not in listed and isinstance(shard[1][key], Entry)]
        if extra:
            raise CheckpointError(
                f"{index}: {name!r} holds {extra[0]!r}, which the index does not list",
                "download the complete folder again",
            )
        twice = [
            key for key in shard[1] if listed.get(key, name) != name and isinstance(shard[1][key], Entry)
        ]
        if twice:
            raise CheckpointError(
                f"{index}: {twice[0]!r} is in both {name!r} and {listed[twice[0]]!r}",
                "download the complete folder again",
            )
    first = next(iter(shards.values()))
    strangers = set().union(*(shard[3] for shard in shards.values()))
    return first[0], tree, first[2], [index.parent / name for name in shards], strangers


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # the name is too long or has invalid characters
        return False


def _is_plain_name(name: str) -> bool:
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    outside = posix.is_absolute() or windows.is_absolute() or bool(windows.drive)
    return not outside and ".." not in posix.parts and ".." not in windows.parts and "\0" not in name
