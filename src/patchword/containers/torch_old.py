"""torch files before 1.6: four pickles, then the storages in sequence."""

from pathlib import Path
from typing import IO, Any

from patchword.containers.archive import Member
from patchword.containers.entry import WIDTHS
from patchword.containers.pickle_stubs import Storage, storage_of
from patchword.containers.torch_tree import Tree
from patchword.containers.unpickle import read_pickle
from patchword.errors import CheckpointError

MAGIC = 0x1950A86A20F9469CFC6C
_AGAIN = "download the file again"


def list_torch_old(path: Path) -> tuple[dict[str, Any], set[str]]:
    """The tree, and the classes that were not created. Raises: CheckpointError if it is damaged or truncated."""
    storages = _Storages()
    try:
        with path.open("rb") as file:
            magic, _, machine = (read_pickle(file, path, storages.load).value for _ in range(3))
            if type(magic) is not int or magic != MAGIC:
                raise CheckpointError(f"{path}: not a PyTorch file", "give a weights file")
            if isinstance(machine, dict) and machine.get("little_endian") is False:
                raise CheckpointError(
                    f"{path}: written on a big-endian machine",
                    "save it as .safetensors on that machine",
                )
            found = read_pickle(file, path, storages.load)
            keys = read_pickle(file, path, storages.load).value
            if not isinstance(keys, list) or not all(isinstance(key, str | int) for key in keys):
                raise CheckpointError(f"{path}: it has no list of storages", _AGAIN)
            parts = _places(file, path, [str(key) for key in keys], storages.roots)
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error.strerror or error})", "give a weights file that can be read"
        ) from error
    return Tree(path, parts | storages.pieces(parts)).plain(found.value), found.strangers


class _Storages:
    """The storages in the pickle, and slices of storages, which torch before 0.4 also had."""

    def __init__(self) -> None:
        self.roots: dict[str, Storage] = {}
        self.views: dict[str, tuple[str, int]] = {}

    def load(self, pid: tuple[Any, ...]) -> Storage:
        storage = storage_of(pid)
        self.roots.setdefault(storage.key, storage)
        view = pid[5] if len(pid) > 5 else None
        if view is None:
            return storage
        key, offset, _ = view
        if not isinstance(key, str | int) or type(offset) is not int or offset < 0:
            raise ValueError("a slice of a storage has no name or place")
        self.views[str(key)] = (storage.key, offset)
        return Storage(key=str(key), dtype=storage.dtype)

    def pieces(self, parts: dict[str, Member | None]) -> dict[str, Member | None]:
        found: dict[str, Member | None] = {}
        for key, (root, offset) in self.views.items():
            part = parts.get(root)
            if part is not None:
                before = offset * WIDTHS[self.roots[root].dtype]
                found[key] = Member(key, part.offset + before, max(part.size - before, 0))
        return found


def _places(
    file: IO[bytes], path: Path, keys: list[str], roots: dict[str, Storage]
) -> dict[str, Member | None]:
    """Each storage: its number of elements in eight bytes, then the elements."""
    end = path.stat().st_size
    at = file.tell()
    found: dict[str, Member | None] = {}
    for key in keys:
        root = roots.get(key)
        if root is None or root.dtype not in WIDTHS:
            what = (
                "belongs to no tensor" if root is None else f"has dtype {root.dtype}, which is not supported"
            )
            raise CheckpointError(f"{path}: its storage {key!r} {what}", _AGAIN)
        file.seek(at)
        count = int.from_bytes(file.read(8), "little", signed=True)
        size = count * WIDTHS[root.dtype]
        if at + 8 > end or at + 8 + max(size, 0) > end:
            raise CheckpointError(
                f"{path}: truncated: its storage {key!r} ends {at + 8 + size - end:,} bytes after the end of the file",
                _AGAIN,
            )
        if size < 0:
            raise CheckpointError(f"{path}: its storage {key!r} has a negative size", _AGAIN)
        found[key] = Member(key, at + 8, size)
        at += 8 + size
    return found
