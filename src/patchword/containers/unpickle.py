"""Read a pickle as data: containers, numbers, text and descriptions of tensors. None of it is ever executed.

`pickle` calls only what `find_class` returns, which here is always from pickle_stubs.py.
"""

import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from patchword.containers.pickle_stubs import (
    DTYPES,
    KNOWN,
    NAMESPACES,
    STORAGES,
    Named,
    Namespace,
    OpaqueObject,
    Storage,
    check_key,
    stranger,
)
from patchword.errors import CheckpointError


@dataclass
class Pickle:
    """The object that was read, and the names of classes that were not created."""

    value: Any = None
    strangers: set[str] = field(default_factory=set)


def read_pickle(
    content: bytes | io.BufferedIOBase, path: Path, load_storage: Callable[[tuple[Any, ...]], Storage]
) -> Pickle:
    """Read one pickle from bytes, or from the current position of an open file.

    load_storage: handles torch's persistent ids. Raises: CheckpointError if the pickle is damaged.
    """
    found = Pickle()
    stream: Any = io.BytesIO(content) if isinstance(content, bytes) else _Rest(content)
    reader = _Reader(stream, found.strangers, load_storage)
    try:
        found.value = reader.load()
    except CheckpointError:
        raise
    except EOFError as error:
        raise CheckpointError(f"{path}: truncated within its pickle", "download the file again") from error
    # A damaged pickle can raise any error of its opcodes; none of them executes anything.
    except Exception as error:
        what = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise CheckpointError(f"{path}: its pickle is damaged ({what})", "download the file again") from error
    return found


class _Rest:
    """The rest of a file. A pickle that requests more bytes than it has gets no memory for them."""

    def __init__(self, file: io.BufferedIOBase) -> None:
        self._file = file
        here = file.tell()
        self._end = file.seek(0, io.SEEK_END)
        file.seek(here)
        self.readline = file.readline

    def read(self, size: int) -> bytes:
        return self._file.read(min(size, self._end - self._file.tell()))


def _opcodes() -> dict[int, Callable[[Any], None]]:
    """pickle's opcodes, with wrappers around those that need a check first."""
    opcodes: dict[int, Callable[[Any], None]] = dict(pickle._Unpickler.dispatch)

    def with_keys(opcode: int, keys: slice) -> Callable[[Any], None]:
        plain = opcodes[opcode]

        def run(reader: Any) -> None:
            for key in reader.stack[keys]:
                check_key(key)
            plain(reader)

        return run

    def refuse(reader: Any) -> None:
        # pickle would allocate as many bytes as the file states before checking that they exist.
        raise ValueError("it has a bytearray, which no checkpoint needs")

    # The position of the keys in the part of the stack that an opcode uses.
    for opcode, keys in (
        (pickle.SETITEM, slice(-2, -1)),
        (pickle.SETITEMS, slice(None, None, 2)),
        (pickle.DICT, slice(None, None, 2)),
        (pickle.ADDITEMS, slice(None)),
        (pickle.FROZENSET, slice(None)),
    ):
        opcodes[opcode[0]] = with_keys(opcode[0], keys)
    opcodes[pickle.BYTEARRAY8[0]] = refuse
    return opcodes


# The Python unpickler: the C one allocates its memo for any index that a file gives, so a file
# of 20 bytes could request any amount of memory.
class _Reader(pickle._Unpickler):
    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = _opcodes()

    def __init__(
        self, stream: Any, strangers: set[str], load_storage: Callable[[tuple[Any, ...]], Storage]
    ) -> None:
        super().__init__(stream, encoding="latin1")
        self._strangers, self._load_storage = strangers, load_storage
        self._classes: dict[str, type[OpaqueObject]] = {}

    def find_class(self, module: str, name: str) -> Any:
        known = KNOWN.get((module, name))
        if known is not None:
            return known
        if module in ("torch", "torch.storage") and name in STORAGES:
            return Named(STORAGES[name])
        if module == "torch" and name in DTYPES:
            return Named(DTYPES[name])
        called = f"{module}.{name}"
        if (module, name) in NAMESPACES:
            return self._classes.setdefault(called, type("Namespace", (Namespace,), {"called": called}))
        self._strangers.add(called)
        return self._classes.setdefault(called, stranger(called))

    def persistent_load(self, pid: Any) -> Any:
        if isinstance(pid, tuple) and len(pid) > 1 and pid[0] == "module":
            return pid[1]  # for pickled models, torch before 1.6 saved the source of their classes
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
            raise ValueError("a persistent id is not a storage")
        return self._load_storage(pid)
