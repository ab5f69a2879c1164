"""Harmless stand-ins for the names in a pickle: they store their arguments and do nothing.

A pickle calls what it names. The table at the end maps every call of a legitimate checkpoint to a
function in this file; any other name becomes an `OpaqueObject`.
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

# torch's storage classes and dtype names, as safetensors dtypes.
STORAGES = {
    "DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8",
    "ByteStorage": "U8", "BoolStorage": "BOOL", "ComplexFloatStorage": "C64", "UntypedStorage": "U8",
}  # fmt: skip
DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL", "complex64": "C64",
    "uint64": "U64", "uint32": "U32", "uint16": "U16",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
    "float": "F32", "double": "F64", "half": "F16", "long": "I64", "int": "I32", "short": "I16",
}  # fmt: skip
# NumPy dtypes and how to unpack one number.
_SCALARS = {
    "f8": "<d", "f4": "<f", "f2": "<e", "i8": "<q", "i4": "<i", "i2": "<h", "i1": "<b",
    "u8": "<Q", "u4": "<I", "u2": "<H", "u1": "<B", "b1": "<?",
}  # fmt: skip
# torch's maximum number of axes.
MAX_AXES = 64
MAX_ELEMENTS = 2**60
MAX_KEY_PARTS = 1000


def _fixed(self: Any, state: Any) -> None:
    """Replaces `__setstate__`: a pickle must not change an object after it was created and checked."""
    raise ValueError("the pickle changes an object after creating it")


@dataclass(frozen=True, slots=True)
class Named:
    """A storage class or dtype, by name."""

    dtype: str
    __setstate__ = _fixed


@dataclass(frozen=True, slots=True)
class Storage:
    """A block of memory in the file. key: its name. elements: their number in `dtype`, -1 if not stated."""

    key: str
    dtype: str
    elements: int = -1
    __setstate__ = _fixed


@dataclass(frozen=True, slots=True)
class TensorMade:
    """A tensor as the pickle describes it; offset and strides count elements of the storage."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    __setstate__ = _fixed


@dataclass(frozen=True, slots=True)
class Refused:
    """A tensor that is not read. kind: "quantized", "sparse"…"""

    kind: str
    __setstate__ = _fixed


class Maker:
    """A function that a pickle may call."""

    __slots__ = ("_make",)
    __setstate__ = _fixed

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def __call__(self, *given: Any) -> Any:
        return self._make(*given)


class OpaqueObject:
    """Stands in for an object of a class that is not created. Accepts anything from the pickle.
    called: the name of the class. state: its attributes. items: its content as a dict.
    """

    called = ""
    state: Any = None  # also for objects created without their initialiser
    items: dict[Any, Any] | None = None

    def __init__(self, *given: Any, **named: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        # Objects with slots have a two-part state; the second part is the slots.
        self.state = state[0] if isinstance(state, tuple) and len(state) == 2 else state

    def __setitem__(self, key: Any, value: Any) -> None:
        if self.items is None:
            self.items = {}
        self.items[key] = value

    def append(self, value: Any) -> None:
        pass

    def extend(self, values: Any) -> None:
        pass

    def add(self, value: Any) -> None:
        pass


class Namespace(OpaqueObject):
    """argparse.Namespace and similar: a training script's arguments."""

    called = "argparse.Namespace"


def stranger(name: str) -> type[OpaqueObject]:
    """A new class for a name each time, so that one file cannot affect the next."""
    return type("OpaqueObject", (OpaqueObject,), {"called": name})


# Classes and similar are hashed by identity, sets once, element by element when created.
_KEYS = (str, bytes, float, type(None), type, frozenset, OpaqueObject, Maker, Named, Storage, TensorMade)


def storage_of(pid: tuple[Any, ...]) -> Storage:
    """("storage", class, key, place, elements) from torch's pickles."""
    kind, key, elements = pid[1], pid[2], pid[4]
    if not isinstance(key, str | int) or type(elements) is not int:
        raise ValueError("a storage has no name or size")
    if isinstance(kind, type) and issubclass(kind, OpaqueObject):
        return Storage(key=str(key), dtype=kind.called, elements=elements)
    if not isinstance(kind, Named):
        raise ValueError("a storage has an unknown type")
    return Storage(key=str(key), dtype=kind.dtype, elements=elements)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> TensorMade:
    if not isinstance(storage, Storage) or not isinstance(shape, tuple) or not isinstance(strides, tuple):
        raise ValueError("a tensor has no storage")
    if len(shape) != len(strides) or len(shape) > MAX_AXES:
        raise ValueError("a tensor has strides that do not fit its shape")
    if not all(type(n) is int and 0 <= n < MAX_ELEMENTS for n in (offset, *shape, *strides)):
        raise ValueError("a tensor has an impossible size")
    return TensorMade(storage, storage.dtype, offset, tuple(shape), tuple(strides))


def _tensor_v3(
    storage: Any, offset: Any, shape: Any, strides: Any, grad: Any, hooks: Any, dtype: Any, *rest: Any
) -> Any:
    made = _tensor(storage, offset, shape, strides)
    if not isinstance(dtype, Named):
        return Refused(
            dtype.called if isinstance(dtype, type) and issubclass(dtype, OpaqueObject) else "nameless"
        )
    return TensorMade(made.storage, dtype.dtype, made.offset, made.shape, made.strides)


def _parameter(data: Any = None, *rest: Any) -> Any:
    return data


def _refused(kind: str) -> Maker:
    return Maker(lambda *given: Refused(kind))


def _of_type(rebuild: Any = None, kind: Any = None, arguments: Any = (), state: Any = None) -> Any:
    """torch's function to restore tensors with attributes; only the tensor is kept."""
    return rebuild(*arguments) if isinstance(rebuild, Maker) else OpaqueObject()


class _Dict(dict[Any, Any]):
    """An OrderedDict without its attributes (`_metadata` of a state dict)."""

    def __setstate__(self, state: Any) -> None:
        pass


def _dict(pairs: Any = ()) -> dict[Any, Any]:
    found = _Dict()
    for key, value in pairs.items() if isinstance(pairs, dict) else pairs:
        check_key(key)
        found[key] = value
    return found


def _default_dict(*given: Any) -> dict[Any, Any]:
    return _Dict()


def _set(parts: Any = ()) -> list[Any]:
    """A set as a list: it is never searched."""
    return list(parts)


def _frozen_set(parts: Any = ()) -> frozenset[Any]:
    for part in parts:
        check_key(part)
    return frozenset(parts)


def check_key(key: Any) -> None:
    """Allow only text, numbers and small tuples of these as keys: hashing deeply nested tuples may take forever."""
    pending, seen = [key], 0
    while pending:
        part = pending.pop()
        seen += 1
        if isinstance(part, tuple) and seen + len(part) <= MAX_KEY_PARTS:
            pending.extend(part)
        elif isinstance(part, int):
            if abs(part) >= MAX_ELEMENTS:
                raise ValueError("a dict has keys of impossible size")
        elif seen > MAX_KEY_PARTS or not isinstance(part, _KEYS):
            raise ValueError("a dict has keys that are not names")


def _size(sides: Any = ()) -> tuple[Any, ...]:
    return tuple(sides)


def _path(*given: Any) -> str:
    return str(PurePosixPath(*(part for part in given if isinstance(part, str))))


def _device(kind: Any = "", index: Any = None) -> str:
    if not isinstance(kind, str):
        return ""
    return f"{kind}:{index}" if type(index) is int and 0 <= index < 1000 else kind


def _object(kind: Any = None, *rest: Any) -> OpaqueObject:
    """copyreg's function to create an object without its initialiser (protocols 0 and 1)."""
    return kind() if isinstance(kind, type) and issubclass(kind, OpaqueObject) else OpaqueObject()


def _encoded(text: Any = "", encoding: Any = "") -> bytes:
    """Bytes in protocols without a bytes type."""
    return text.encode("latin1") if isinstance(text, str) else b""


@dataclass(slots=True)
class NumpyType:
    """A NumPy dtype, e.g. "f8"."""

    name: str

    def __setstate__(self, state: Any) -> None:
        pass  # byte order and alignment are ignored: numbers are assumed little-endian


def _numpy_type(name: Any = "", *rest: Any) -> NumpyType:
    return NumpyType(name if isinstance(name, str) else "")


def _scalar(kind: Any = None, content: Any = b"") -> Any:
    """A NumPy number as a plain one; None if it is not a number."""
    form = _SCALARS.get(kind.name) if isinstance(kind, NumpyType) else None
    if form is None or not isinstance(content, bytes) or len(content) != struct.calcsize(form):
        return None
    return struct.unpack(form, content)[0]


def _table() -> dict[tuple[str, str], Any]:
    dictionary, path = Maker(_dict), Maker(_path)
    known: dict[tuple[str, str], Any] = {
        ("collections", "OrderedDict"): dictionary,
        ("collections", "Counter"): dictionary,
        ("collections", "defaultdict"): Maker(_default_dict),
        ("torch", "Size"): Maker(_size),
        ("torch", "device"): Maker(_device),
        ("torch._utils", "_rebuild_tensor"): Maker(_tensor),
        ("torch._utils", "_rebuild_tensor_v2"): Maker(_tensor),
        ("torch._utils", "_rebuild_tensor_v3"): Maker(_tensor_v3),
        ("torch._utils", "_rebuild_parameter"): Maker(_parameter),
        ("torch._utils", "_rebuild_parameter_with_state"): Maker(_parameter),
        ("torch._tensor", "_rebuild_from_type_v2"): Maker(_of_type),
        ("torch._utils", "_rebuild_qtensor"): _refused("quantized"),
        ("torch._utils", "_rebuild_sparse_tensor"): _refused("sparse"),
        ("torch._utils", "_rebuild_sparse_csr_tensor"): _refused("sparse"),
        ("torch._utils", "_rebuild_nested_tensor"): _refused("nested"),
        ("torch._utils", "_rebuild_meta_tensor_no_storage"): _refused("meta"),
        ("torch._utils", "_rebuild_wrapper_subclass"): _refused("wrapper"),
        ("torch._utils", "_rebuild_xla_tensor"): _refused("XLA"),
        ("torch._utils", "_rebuild_device_tensor_from_numpy"): _refused("XLA"),
        ("numpy", "dtype"): Maker(_numpy_type),
        ("_codecs", "encode"): Maker(_encoded),
    }
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        known[module, "scalar"] = Maker(_scalar)
    for module in ("builtins", "__builtin__"):
        known |= {(module, "dict"): dictionary, (module, "set"): Maker(_set)}
        known[module, "frozenset"] = Maker(_frozen_set)
    for module in ("copyreg", "copy_reg"):
        known[module, "_reconstructor"] = Maker(_object)
    for name in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath", "Path", "PurePath"):
        known["pathlib", name] = path
        known["pathlib._local", name] = path
    return known


KNOWN: Mapping[tuple[str, str], Any] = _table()
NAMESPACES = (("argparse", "Namespace"), ("types", "SimpleNamespace"), ("easydict", "EasyDict"))
