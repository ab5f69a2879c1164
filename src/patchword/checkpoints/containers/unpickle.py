"""A pickle read as data: containers, numbers, text and the descriptions of tensors. Nothing of it is ever run.

`pickle` calls what `find_class` returns and nothing else. Here that is a table of harmless
stand-ins; every class that is not in it becomes a `Stranger`, which keeps its name and nothing more.
"""

import io
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from patchword.errors import CheckpointError

# torch's storage classes, and torch.dtype's names, in safetensors' words.
STORAGES = {
    "DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8",
    "ByteStorage": "U8", "BoolStorage": "BOOL", "ComplexFloatStorage": "C64", "UntypedStorage": "U8",
}  # fmt: skip
DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL", "complex64": "C64",
    "float": "F32", "double": "F64", "half": "F16", "long": "I64", "int": "I32", "short": "I16",
}  # fmt: skip


@dataclass(frozen=True)
class Named:
    """A storage class or dtype, by name."""

    dtype: str


@dataclass(frozen=True)
class Storage:
    """A piece of memory in the file. key: which. elements: how many of `dtype`, -1 where it is not said."""

    key: str
    dtype: str
    elements: int = -1


@dataclass(frozen=True)
class TensorMade:
    """A tensor as the pickle describes it; offset and strides count elements of the storage."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Maker:
    """A function that a pickle may call. Nothing can be set on it, so no file reaches into the next."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def __call__(self, *given: Any) -> Any:
        return self._make(*given)

    def __setstate__(self, state: Any) -> None:
        raise ValueError("a pickle that changes what it calls")


class Stranger:
    """Stands for an object of a class that is not made. Takes whatever a pickle gives it, keeps a dict."""

    state: Any = None  # also of objects that are made without their initialiser

    def __init__(self, *given: Any, **named: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        pass

    def extend(self, values: Any) -> None:
        pass

    def add(self, value: Any) -> None:
        pass

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    @property
    def plain(self) -> Any:
        """The attributes of a Namespace, None of anything else."""
        return self.state if isinstance(self.state, dict) else None


class Namespace(Stranger):
    """argparse.Namespace: what a training script was called with."""


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
    stream = io.BytesIO(content) if isinstance(content, bytes) else content
    reader = _Reader(stream, found.strangers, load_storage)
    try:
        found.value = reader.load()
    except CheckpointError:
        raise
    # A damaged pickle can go wrong in every way that its opcodes know; none of them ran anything.
    except Exception as error:
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path}: its pickle is damaged ({what[:120]})", "get the file again"
        ) from error
    return found


# The unpickler that is written in Python: the one in C makes room for any number that a file
# gives as a place in its memo, and so for as much memory as a file of 20 bytes likes.
class _Reader(pickle._Unpickler):
    def __init__(
        self, stream: Any, strangers: set[str], load_storage: Callable[[tuple[Any, ...]], Storage]
    ) -> None:
        super().__init__(stream, encoding="latin1")
        self._strangers, self._load_storage = strangers, load_storage

    def find_class(self, module: str, name: str) -> Any:
        known = _KNOWN.get((module, name))
        if known is not None:
            return known
        if module in ("torch", "torch.storage") and name in STORAGES:
            return Named(STORAGES[name])
        if module == "torch" and name in DTYPES:
            return Named(DTYPES[name])
        self._strangers.add(f"{module}.{name}")
        return Stranger

    def persistent_load(self, pid: Any) -> Storage:
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
            raise ValueError("a persistent id that is no storage")
        return self._load_storage(pid)


def storage_of(pid: tuple[Any, ...]) -> Storage:
    """("storage", class, key, place, elements) of torch's pickles."""
    kind, key, elements = pid[1], pid[2], pid[4]
    if not isinstance(kind, Named) or not isinstance(elements, int):
        raise ValueError("a storage of no known kind")
    return Storage(key=str(key), dtype=kind.dtype, elements=elements)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> TensorMade:
    numbers = (offset, *shape, *strides)
    if not isinstance(storage, Storage) or not all(type(n) is int and n >= 0 for n in numbers):
        raise ValueError("a tensor without storage, or of negative size")
    if len(shape) != len(strides):
        raise ValueError("a tensor with as many sides as strides was expected")
    return TensorMade(storage, storage.dtype, offset, tuple(shape), tuple(strides))


def _tensor_v3(
    storage: Any, offset: Any, shape: Any, strides: Any, grad: Any, hooks: Any, dtype: Any, *rest: Any
) -> TensorMade:
    made = _tensor(storage, offset, shape, strides)
    if not isinstance(dtype, Named):
        raise ValueError("a tensor of no known dtype")
    return TensorMade(made.storage, dtype.dtype, made.offset, made.shape, made.strides)


def _parameter(data: Any, *rest: Any) -> Any:
    return data


def _refused(what: str) -> Callable[..., Any]:
    def refuse(*given: Any) -> Any:
        raise CheckpointError(f"the checkpoint holds a {what} tensor", "save plain tensors instead")

    return refuse


def _subclass(rebuild: Any, kind: Any, arguments: Any, state: Any = None) -> Any:
    """torch's way to bring back tensors with attributes: the tensor alone matters here."""
    return rebuild(*arguments) if isinstance(rebuild, Maker) else Stranger()


class _Dict(dict[Any, Any]):
    """An OrderedDict whose attributes (`_metadata` of a state dict) are let go."""

    def __setstate__(self, state: Any) -> None:
        pass


def _default_dict(*given: Any) -> dict[Any, Any]:
    return _Dict()


def _size(sides: Any = ()) -> tuple[Any, ...]:
    return tuple(sides)


def _text(*given: Any) -> str:
    return "/".join(str(part) for part in given)


def _scalar(kind: Any, content: Any = b"") -> Any:
    """A numpy number: its bytes are kept as they are, nobody reads one."""
    return None


_KNOWN: Mapping[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): Maker(_Dict),
    ("collections", "defaultdict"): Maker(_default_dict),
    ("collections", "Counter"): Maker(_Dict),
    ("builtins", "dict"): Maker(_Dict),
    ("__builtin__", "dict"): Maker(_Dict),
    ("builtins", "set"): Maker(set),
    ("__builtin__", "set"): Maker(set),
    ("builtins", "slice"): Stranger,
    ("argparse", "Namespace"): Namespace,
    ("torch._utils", "_rebuild_tensor"): Maker(_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): Maker(_tensor),
    ("torch._utils", "_rebuild_tensor_v3"): Maker(_tensor_v3),
    ("torch._utils", "_rebuild_parameter"): Maker(_parameter),
    ("torch._utils", "_rebuild_parameter_with_state"): Maker(_parameter),
    ("torch._tensor", "_rebuild_from_type_v2"): Maker(_subclass),
    ("torch._utils", "_rebuild_qtensor"): Maker(_refused("quantized")),
    ("torch._utils", "_rebuild_sparse_tensor"): Maker(_refused("sparse")),
    ("torch", "Size"): Maker(_size),
    ("torch", "device"): Maker(_text),
    ("pathlib", "PosixPath"): Maker(_text),
    ("pathlib", "WindowsPath"): Maker(_text),
    ("pathlib", "PurePosixPath"): Maker(_text),
    ("numpy.core.multiarray", "scalar"): Maker(_scalar),
    ("numpy._core.multiarray", "scalar"): Maker(_scalar),
}
