"""Which files of a folder belong together, and which reader a file goes to: by its content, never by its name."""

import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from patchword.checkpoints.header import read_header
from patchword.checkpoints.sniff import HEAD_BYTES, OLD_TORCH, refuse
from patchword.checkpoints.stored import Container, Entry, Stored, configs_beside, read_json
from patchword.errors import CheckpointError, UnsafeFile

INDEX = ".index.json"
# In the order in which they are preferred where several copies of the same weights lie together.
PREFERRED = (
    "model.safetensors",
    "model.safetensors.index.json",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "open_clip_pytorch_model.bin",
)
ENDINGS = (".safetensors", ".bin", ".pth", ".pt", ".npz", ".ckpt", ".tar")


def open_folder(folder: Path) -> Stored:
    """Raises: CheckpointError where there are no weights, or several that are not the same."""
    there = [name for name in PREFERRED if (folder / name).is_file()]
    if there:
        why = f"{there[0]}, before {', '.join(there[1:])}" if there[1:] else ""
        return open_file(folder / there[0], shown=folder, why=why)
    indices = sorted(folder.glob(f"*{INDEX}"))
    others = [file for file in sorted(folder.iterdir()) if file.suffix in ENDINGS and file.is_file()]
    if len(indices) == 1:
        return open_file(indices[0], shown=folder)
    if len(others) == 1:
        return open_file(others[0], shown=folder, why=f"{others[0].name}, the only weights file there")
    if not others:
        raise CheckpointError(
            f"{folder}: a folder without weights", "give the folder or file that holds them"
        )
    names = ", ".join(file.name for file in others[:4])
    raise CheckpointError(f"{folder}: {len(others)} weights files ({names})", "name the one that is meant")


def open_file(path: Path, *, shown: Path | None = None, why: str = "") -> Stored:
    """shown: what users are told. Raises: CheckpointError that says what the file is instead."""
    configs = configs_beside(path.parent)
    if path.name.endswith(INDEX):
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
    if head.startswith(OLD_TORCH):
        from patchword.checkpoints.containers.torch_old import list_torch_old

        tree, strangers = list_torch_old(path)
        return "torch", tree, {}, strangers
    header = read_header(path)
    entries = {
        name: Entry(dtype=entry.dtype, shape=entry.shape, file=path, offset=header.data_start + entry.start)
        for name, entry in header.tensors.items()
    }
    return "safetensors", entries, header.metadata, set()


def _zip(path: Path, head: bytes, size: int) -> Listed:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, OverflowError) as error:
        raise refuse(path, head, size) from error
    if any(name == "data.pkl" or name.endswith("/data.pkl") for name in names):
        from patchword.checkpoints.containers.torch_zip import list_torch_zip

        container, tree, strangers = list_torch_zip(path)
        return container, tree, {}, strangers
    if names and all(name.endswith(".npy") for name in names):
        from patchword.checkpoints.containers.npz import list_npz

        return "npz", list_npz(path), {}, set()
    raise refuse(path, head, size)


def _shards(index: Path) -> tuple[Container, dict[str, Any], Mapping[str, str], list[Path], set[str]]:
    """The tensors of an index's files, each in the file that it names."""
    listed = read_json(index).get("weight_map")
    if not isinstance(listed, dict) or not listed or not all(isinstance(v, str) for v in listed.values()):
        raise CheckpointError(f"{index}: it has no weight_map of tensors to files", "get the index again")
    shards: dict[str, Listed] = {}
    for name in sorted(set(listed.values())):
        if not _is_plain_name(name):
            raise UnsafeFile(
                f"{index}: it names {name!r}, a file outside of its own folder",
                "do not use this folder: such an index is made to mislead",
            )
        if not (index.parent / name).is_file():
            raise CheckpointError(f"{index}: its file {name} is missing", "get the whole folder")
        shards[name] = _one(index.parent / name)
    tree: dict[str, Any] = {}
    for key, name in listed.items():
        if key not in shards[name][1]:
            raise CheckpointError(
                f"{index}: the tensor {key!r} is not in {name}", "get the whole folder again"
            )
        tree[key] = shards[name][1][key]
    for name, shard in shards.items():
        extra = [key for key in shard[1] if key not in listed and isinstance(shard[1][key], Entry)]
        if extra:
            raise CheckpointError(
                f"{index}: {name} holds {extra[0]!r}, which the index does not name",
                "get the whole folder again",
            )
    first = next(iter(shards.values()))
    strangers = set().union(*(shard[3] for shard in shards.values()))
    return first[0], tree, first[2], [index.parent / name for name in shards], strangers


def _is_plain_name(name: str) -> bool:
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    outside = posix.is_absolute() or windows.is_absolute() or bool(windows.drive)
    return not outside and ".." not in posix.parts and ".." not in windows.parts and "\0" not in name
