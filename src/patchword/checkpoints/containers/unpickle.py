"""A pickle read as data: containers, numbers, text and the descriptions of tensors. Nothing of it is ever run.

`pickle` calls what `find_class` returns and nothing else; here that is what pickle_stubs.py holds.
"""

import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from patchword.checkpoints.containers.pickle_stubs import (
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
    """What was read: the object, and the names of classes that were not made."""

    value: Any = None
    strangers: set[str] = field(default_factory=set)


def read_pickle(
    content: bytes | io.BufferedIOBase, path: Path, load_storage: Callable[[tuple[Any, ...]], Storage]
) -> Pickle:
    """One pickle from the bytes, or from where an open file stands.

    load_storage: what becomes of torch's persistent ids. Raises: CheckpointError where it is damaged.
    """
    found = Pickle()
    stream: Any = io.BytesIO(content) if isinstance(content, bytes) else _Rest(content)
    reader = _Reader(stream, found.strangers, load_storage)
    try:
        found.value = reader.load()
    except CheckpointError:
        raise
    except EOFError as error:
        raise CheckpointError(f"{path}: truncated within its pickle", "get the file again") from error
    # A damaged pickle can go wrong in every way that its opcodes know; none of them ran anything.
    except Exception as error:
        what = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise CheckpointError(f"{path}: its pickle is damaged ({what})", "get the file again") from error
    return found


class _Rest:
    """What is left of a file. A pickle that asks for more bytes than there are gets no memory for them."""

    def __init__(self, file: io.BufferedIOBase) -> None:
        self._file = file
        here = file.tell()
        self._end = file.seek(0, io.SEEK_END)
        file.seek(here)
        self.readline = file.readline

    def read(self, size: int) -> bytes:
        return self._file.read(min(size, self._end - self._file.tell()))


def _opcodes() -> dict[int, Callable[[Any], None]]:
    """pickle's own, those before which something must be looked at wrapped."""
    opcodes: dict[int, Callable[[Any], None]] = dict(pickle._Unpickler.dispatch)

    def with_keys(opcode: int, keys: slice) -> Callable[[Any], None]:
        plain = opcodes[opcode]

        def run(reader: Any) -> None:
            for key in reader.stack[keys]:
                check_key(key)
            plain(reader)

        return run

    def refuse(reader: Any) -> None:
        # It would make room for as many bytes as the file says before it looks whether they are there.
        raise ValueError("a bytearray, which no checkpoint needs")

    # Where in the part of the stack that an opcode takes the keys stand.
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


# The unpickler that is written in Python: the one in C makes room for any number that a file
# gives as a place in its memo, and so for as much memory as a file of 20 bytes likes.
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
            return pid[1]  # with whole models, torch before 1.6 kept the source of their classes
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
            raise ValueError("a persistent id that is no storage")
        return self._load_storage(pid)
