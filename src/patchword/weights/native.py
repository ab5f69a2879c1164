"""patchword's own weights file: one `.safetensors` with the model's card in its metadata.

safetensors alone can open it; the card is JSON under the key "patchword".
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from patchword.containers.header import Header, read_header
from patchword.containers.write import write_safetensors
from patchword.errors import (
    CheckpointError,
    KeyMismatch,
    OutputError,
    ShapeMismatch,
    UnknownLayout,
    near_text,
    plural,
)
from patchword.weights.card import CARD_KEY, ModelCard, card_from_json, card_to_json
from patchword.weights.detector_card import (
    DetectorCard,
    detector_card_from_json,
    detector_card_to_json,
    is_detector_card,
)

if TYPE_CHECKING:
    from torch import Tensor, nn


def check_suffix(path: str | Path) -> None:
    """Raises: OutputError for a file ending other than .safetensors."""
    path = Path(path)
    if path.suffix.lower() != ".safetensors":
        what = f"the ending {path.suffix!r}" if path.suffix else "no ending"
        raise OutputError(
            f"{path}: it has {what}, but patchword's own format is safetensors",
            f"use the name {path.with_suffix('.safetensors').name}, or use `convert` for another format",
        )


def write_model(path: str | Path, tensors: Mapping[str, "Tensor"], card: ModelCard | DetectorCard) -> None:
    """Write the weights file atomically: an older one stays until the new one is safe on disk.

    Raises: OutputError if there is no space or no permission.
    """
    # Other readers check "format": "pt" before they treat the tensors as torch's.
    text = detector_card_to_json(card) if isinstance(card, DetectorCard) else card_to_json(card)
    write_safetensors(Path(path), tensors, {"format": "pt", CARD_KEY: text})


def is_native(path: Path) -> bool:
    """Whether a file is safetensors with our card. False for a damaged header; reading the file reports why."""
    try:
        with path.open("rb") as file:
            start = file.read(9)
        return start[8:9] == b"{" and CARD_KEY in read_header(path).metadata
    except (CheckpointError, OSError):
        return False


def is_native_detector(path: Path) -> bool:
    """Whether a file is our own and holds a detector."""
    return is_native(path) and is_detector_card(read_header(path).metadata[CARD_KEY])


def read_card(path: str | Path) -> ModelCard:
    """Read the card of a weights file from its header; this loads neither torch nor a tensor.

    Raises: CheckpointError that states what the file is instead, or what is wrong with it.
    """
    path = Path(path)
    return card_from_json(_card_text(path, read_header(path)), str(path))


def read_detector_card(path: str | Path) -> DetectorCard:
    """As `read_card`, of a detector."""
    path = Path(path)
    return detector_card_from_json(_card_text(path, read_header(path)), str(path))


def read_model(path: str | Path) -> tuple[ModelCard, dict[str, "Tensor"]]:
    """Read the card and map the tensors from the file: bytes are read when they are used."""
    path = Path(path)
    return read_card(path), _tensors(path)


def read_detector(path: str | Path) -> tuple[DetectorCard, dict[str, "Tensor"]]:
    """As `read_model`, of a detector."""
    path = Path(path)
    return read_detector_card(path), _tensors(path)


def _tensors(path: Path) -> dict[str, "Tensor"]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: {error}", "download the file again") from error


def fill(model: "nn.Module", tensors: Mapping[str, "Tensor"], name: str) -> None:
    """Assign the file's tensors to the model without a copy; the model may be on `meta`.

    Raises: KeyMismatch, ShapeMismatch unless names and shapes match exactly.
    """
    expected = model.state_dict()
    missing = [key for key in expected if key not in tensors]
    left_over = [key for key in tensors if key not in expected]
    if missing or left_over:
        parts = [f"lacks {_list(missing)}"] * bool(missing) + [f"has unexpected {_list(left_over)}"] * bool(
            left_over
        )
        near = near_text(missing[0], left_over) if missing else ""
        raise KeyMismatch(
            f"{name}: the model has {plural(len(expected), 'tensor')}, but the file {' and '.join(parts)}{near}",
            "write the file again: its weights and its card belong to different models",
        )
    for key, tensor in tensors.items():
        if tensor.shape != expected[key].shape:
            raise ShapeMismatch(
                f"{name}: {key} has shape {list(tensor.shape)}, but the card describes {list(expected[key].shape)}",
                "write the file again: its weights and its card belong to different models",
            )
    model.load_state_dict(tensors, strict=True, assign=True)


def _list(keys: list[str]) -> str:
    shown = ", ".join(keys[:3])
    return f"{shown} and {len(keys) - 3} more" if len(keys) > 3 else shown


def _card_text(path: Path, header: Header) -> str:
    if CARD_KEY not in header.metadata:
        by = header.metadata.get("format", "")
        raise UnknownLayout(
            f"{path}: another program wrote this safetensors file "
            f"({plural(len(header.tensors), 'tensor')}{by and f', format {by!r}'}); it has no patchword card",
            "give a file that patchword wrote",
        )
    return header.metadata[CARD_KEY]
