"""torch files since 1.6 (a zip with `data.pkl`), and TorchScript archives (the same with `code/`)."""

from pathlib import Path
from typing import Any

from patchword.containers.archive import Member, content, members
from patchword.containers.entry import Container
from patchword.containers.pickle_stubs import storage_of
from patchword.containers.torch_tree import Tree
from patchword.containers.unpickle import read_pickle
from patchword.errors import CheckpointError

# The longest known pickle, from a training file with its sampler's state, has a few megabytes.
MAX_PICKLE_BYTES = 256_000_000
# Pickles compress ten to twenty times; a ratio of a thousand indicates a decompression bomb.
MAX_PACKED_TIMES = 50


def is_torch_pickle(name: str) -> bool:
    """Whether this part of an archive is torch.save's single pickle: in the folder that holds everything, or at the top."""
    return name.rpartition("/")[2] == "data.pkl" and name.count("/") <= 1


def list_torch_zip(path: Path) -> tuple[Container, dict[str, Any], set[str]]:
    """Container, tree and the classes that were not created. Raises: CheckpointError if it is damaged."""
    parts = members(path)
    pickles = [name for name in parts if is_torch_pickle(name)]
    if len(pickles) != 1:
        raise CheckpointError(
            f"{path}: the zip archive has {len(pickles)} data.pkl files, but torch writes one",
            "give a file written by torch.save",
        )
    root = pickles[0].removesuffix("data.pkl")
    _check_order(path, root, parts)
    most = min(MAX_PICKLE_BYTES, MAX_PACKED_TIMES * parts[pickles[0]].packed + 100_000)
    found = read_pickle(content(path, pickles[0], most), path, storage_of)
    folder = f"{root}data/"
    storages = {name.removeprefix(folder): part for name, part in parts.items() if name.startswith(folder)}
    tree = Tree(path, storages)
    if f"{root}constants.pkl" in parts:
        return "torchscript", tree.scripted(found.value), set()
    return "torch", tree.plain(found.value), found.strangers


def _check_order(path: Path, root: str, parts: dict[str, Member]) -> None:
    name = f"{root}byteorder"
    if name in parts and content(path, name, 64).strip() == b"big":
        raise CheckpointError(
            f"{path}: written on a big-endian machine",
            "save it as .safetensors on that machine",
        )
