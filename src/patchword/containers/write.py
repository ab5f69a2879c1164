"""Write weights files atomically: an older file stays until the new one is safe on disk."""

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from patchword.containers.entry import TORCH_DTYPES
from patchword.errors import CheckpointError, OutputError

if TYPE_CHECKING:
    from torch import Tensor

# Tensors that start on a cache line are read faster and can be mapped.
_ALIGNMENT = 64
_DTYPES = {theirs: name for name, theirs in TORCH_DTYPES.items()}


def write_safetensors(path: Path, tensors: Mapping[str, "Tensor"], metadata: Mapping[str, str]) -> None:
    """Raises: OutputError if there is no space or no permission."""

    def write(file: IO[bytes]) -> None:
        file.write(_header(tensors, metadata))
        for _, tensor in _in_order(tensors):
            file.write(_bytes_of(tensor))

    _whole(path, write)


def write_torch(path: Path, tree: Mapping[str, Any]) -> None:
    """Write a file with torch.save. Raises: OutputError."""
    import torch

    def write(file: IO[bytes]) -> None:
        try:
            torch.save(_own(tree), file)
        except RuntimeError as error:  # torch's writer on a full disk
            raise OSError(str(error).splitlines()[0]) from error

    _whole(path, write)


def write_npz(path: Path, arrays: Mapping[str, "Tensor"]) -> None:
    """Write an uncompressed archive of arrays; bfloat16 as two untyped bytes, as JAX does. Raises: OutputError."""
    import zipfile

    import numpy as np

    def write(file: IO[bytes]) -> None:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            for name, tensor in arrays.items():
                array = _array(name, tensor)
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)

    _whole(path, write)


def _array(name: str, tensor: "Tensor") -> Any:
    import torch

    plain = tensor.detach().cpu().contiguous()
    if plain.dtype == torch.bfloat16:
        return plain.view(torch.int16).numpy().view("V2")
    try:
        return plain.numpy()
    except TypeError as error:
        raise CheckpointError(
            f"NumPy has no {plain.dtype}, the dtype of {name}", "choose another format"
        ) from error


def _own(value: Any) -> Any:
    """The same tree with every tensor dense; saving a view would save its complete storage."""
    import torch

    if isinstance(value, torch.Tensor):
        plain = value.detach().cpu()
        whole = plain.is_contiguous() and plain.untyped_storage().nbytes() == plain.nbytes
        return plain if whole else plain.clone(memory_format=torch.contiguous_format)
    if isinstance(value, Mapping):
        return {key: _own(part) for key, part in value.items()}
    return [_own(part) for part in value] if isinstance(value, list) else value


def _whole(path: Path, write: Callable[[IO[bytes]], None]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    _sync_folder(path.parent)


def _in_order(tensors: Mapping[str, "Tensor"]) -> list[tuple[str, "Tensor"]]:
    """Sort wide types first, then by name, so that every tensor is aligned to its own width."""
    return sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))


def _header(tensors: Mapping[str, "Tensor"], metadata: Mapping[str, str]) -> bytes:
    plain: dict[str, Any] = {"__metadata__": dict(metadata)}
    offset = 0
    for name, tensor in _in_order(tensors):
        end = offset + tensor.numel() * tensor.element_size()
        dtype = _DTYPES.get(str(tensor.dtype).removeprefix("torch."))
        if dtype is None:
            raise CheckpointError(
                f"safetensors has no {tensor.dtype}, the dtype of {name}", "choose another format"
            )
        plain[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _bytes_of(tensor: "Tensor") -> Any:
    """The tensor's memory, without a copy if it is contiguous on the CPU."""
    import torch

    flat = tensor.detach().cpu().contiguous().flatten()
    return flat.view(torch.uint8).numpy()


def _sync_folder(folder: Path) -> None:
    """Flush the rename itself to disk; Windows has no such call and needs none."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _cannot_write(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{path}: cannot be written ({error.strerror or error}); any existing file is unchanged",
        "free some space, or choose another location",
    )
