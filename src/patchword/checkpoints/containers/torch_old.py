"""torch's files before 1.6: four pickles, then the storages one behind the other."""

from pathlib import Path
from typing import Any

from patchword.checkpoints.containers.archive import Member
from patchword.checkpoints.containers.torch_zip import Entries, plain_tree
from patchword.checkpoints.containers.unpickle import Storage, read_pickle, storage_of
from patchword.checkpoints.stored import WIDTHS
from patchword.errors import CheckpointError

MAGIC = 0x1950A86A20F9469CFC6C


def list_torch_old(path: Path) -> tuple[dict[str, Any], set[str]]:
    """Tree, and the classes that were not made. Raises: CheckpointError where it is damaged or cut off."""
    sizes: dict[str, Storage] = {}
    views: dict[str, tuple[str, int]] = {}

    def load_storage(pid: tuple[Any, ...]) -> Storage:
        storage = storage_of(pid)
        sizes[storage.key] = storage
        view = pid[5] if len(pid) > 5 else None
        if view is None:
            return storage
        key, offset, _ = view
        views[str(key)] = (storage.key, int(offset))
        return Storage(key=str(key), dtype=storage.dtype, elements=-1)

    try:
        with path.open("rb") as file:
            magic, _, _ = (read_pickle(file, path, load_storage).value for _ in range(3))
            if magic != MAGIC:
                raise CheckpointError(f"{path}: no file of torch", "give a weights file")
            found = read_pickle(file, path, load_storage)
            keys = read_pickle(file, path, load_storage).value
            if not isinstance(keys, list):
                raise CheckpointError(f"{path}: it has no list of storages", "get the file again")
            parts = _places(file, path, [str(key) for key in keys], sizes)
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error.strerror or error})", "check the file"
        ) from error
    for key, (root, offset) in views.items():
        part = parts.get(root)
        if part is not None:
            width = WIDTHS[sizes[root].dtype]
            parts[key] = Member(key, part.offset + offset * width, part.size - offset * width)
    return plain_tree(found.value, Entries(path, parts)), found.strangers


def _places(file: Any, path: Path, keys: list[str], sizes: dict[str, Storage]) -> dict[str, Member | None]:
    """Each storage: its number of elements in eight bytes, then these."""
    end = path.stat().st_size
    at = file.tell()
    found: dict[str, Member | None] = {}
    for key in keys:
        file.seek(at)
        count = int.from_bytes(file.read(8), "little", signed=True)
        size = count * WIDTHS[sizes[key].dtype] if key in sizes else -1
        if size < 0 or at + 8 + size > end:
            raise CheckpointError(
                f"{path}: truncated: its storage {key!r} ends {at + 8 + size - end:,} bytes behind the file"
                if size >= 0
                else f"{path}: its storage {key!r} has no size",
                "get the file again",
            )
        found[key] = Member(key, at + 8, size)
        at += 8 + size
    return found
