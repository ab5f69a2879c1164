"""Our own weights file: one `.safetensors` with the model's card in its metadata.

It opens with safetensors alone; the card is JSON under the key "patchword".
"""

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchword.checkpoints.card import CARD_KEY, ModelCard, card_from_json, card_to_json
from patchword.checkpoints.header import Header, read_header
from patchword.errors import (
    CheckpointError,
    KeyMismatch,
    OutputError,
    ShapeMismatch,
    UnknownLayout,
    near_text,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

# Tensors that begin on a cache line are read faster, and map as they are.
_ALIGNMENT = 64
_DTYPES = {
    "float32": "F32", "float16": "F16", "bfloat16": "BF16", "float64": "F64",
    "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip


def write_model(path: str | Path, tensors: Mapping[str, "Tensor"], card: ModelCard) -> None:
    """Write the weights file whole or not at all: an older one stays until the new one is safe on disk.

    Raises: OutputError where there is no space or no permission.
    """
    path = Path(path)
    header = _header_bytes(tensors, card)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(header)
            for _, tensor in _in_order(tensors):
                file.write(_bytes_of(tensor))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    _sync_folder(path.parent)


def is_native(path: Path) -> bool:
    """Whether a file is safetensors with our card. A damaged header is none; whoever reads it says why."""
    try:
        with path.open("rb") as file:
            start = file.read(9)
        return start[8:9] == b"{" and CARD_KEY in read_header(path).metadata
    except (CheckpointError, OSError):
        return False


def read_card(path: str | Path) -> ModelCard:
    """The card of a weights file, from its header; neither torch nor a tensor is loaded.

    Raises: CheckpointError that says what the file is instead, or what is wrong with it.
    """
    return _card_of(Path(path), read_header(Path(path)))


def read_model(path: str | Path) -> tuple[ModelCard, dict[str, "Tensor"]]:
    """The card and the tensors, mapped from the file: bytes come from disk when they are used."""
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    card = _card_of(path, read_header(path))
    try:
        with safe_open(path, framework="pt") as file:
            return card, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: {error}", "get the file again") from error


def fill(model: "nn.Module", tensors: Mapping[str, "Tensor"], name: str) -> None:
    """Make the file's tensors the model's own, without a copy; the model may be on `meta`.

    Raises: KeyMismatch, ShapeMismatch unless names and shapes are exactly the model's.
    """
    expected = model.state_dict()
    missing = [key for key in expected if key not in tensors]
    left_over = [key for key in tensors if key not in expected]
    if missing or left_over:
        parts = [f"lacks {_list(missing)}"] * bool(missing) + [f"has {_list(left_over)} too many"] * bool(
            left_over
        )
        near = near_text(missing[0], left_over) if missing else ""
        raise KeyMismatch(
            f"{name}: of the {len(expected)} tensors of its model the file {' and '.join(parts)}{near}",
            "write the file again: its weights and its card are of different models",
        )
    for key, tensor in tensors.items():
        if tensor.shape != expected[key].shape:
            raise ShapeMismatch(
                f"{name}: {key} is {list(tensor.shape)}, its card describes {list(expected[key].shape)}",
                "write the file again: its weights and its card are of different models",
            )
    model.load_state_dict(tensors, strict=True, assign=True)


def _list(keys: list[str]) -> str:
    shown = ", ".join(keys[:3])
    return f"{shown} and {len(keys) - 3} more" if len(keys) > 3 else shown


def _card_of(path: Path, header: Header) -> ModelCard:
    if CARD_KEY not in header.metadata:
        by = header.metadata.get("format", "")
        raise UnknownLayout(
            f"{path}: safetensors of another program ({len(header.tensors)} tensors{by and f', format {by!r}'}): "
            "it has no patchword card, so how the model is built and fed is not known",
            "give a file that patchword wrote",
        )
    return card_from_json(header.metadata[CARD_KEY], str(path))


def _in_order(tensors: Mapping[str, "Tensor"]) -> list[tuple[str, "Tensor"]]:
    """Wide types first, then by name, so that every tensor is aligned to its own width."""
    return sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))


def _header_bytes(tensors: Mapping[str, "Tensor"], card: ModelCard) -> bytes:
    # "format": "pt" is what other readers look for before they take the tensors as torch's.
    plain: dict[str, Any] = {"__metadata__": {"format": "pt", CARD_KEY: card_to_json(card)}}
    offset = 0
    for name, tensor in _in_order(tensors):
        end = offset + tensor.numel() * tensor.element_size()
        plain[name] = {
            "dtype": _DTYPES[str(tensor.dtype).removeprefix("torch.")],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _bytes_of(tensor: "Tensor") -> Any:
    """The tensor's memory as it is, no copy where it lies in order on the CPU."""
    import torch

    flat = tensor.detach().cpu().contiguous().flatten()
    return flat.view(torch.uint8).numpy()


def _sync_folder(folder: Path) -> None:
    """The rename itself must reach the disk; Windows has no such call and needs none."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _cannot_write(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{path}: cannot be written ({error.strerror or error}); what was there before is untouched",
        "make room, or choose another place",
    )
