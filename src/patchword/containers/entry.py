"""The output of every container reader: the listed tensors of a file or folder, and the JSON files next to it. No torch."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from patchword.containers.header import DTYPE_BYTES
from patchword.containers.sniff import HEAD_BYTES, left_in_its_place
from patchword.errors import CheckpointError

Container = Literal["safetensors", "torch", "torchscript", "npz"]
MAX_CONFIG_BYTES = 16_000_000
CONFIGS = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "open_clip_config.json",
    "adapter_config.json",
)
WIDTHS = DTYPE_BYTES
# Dtype names in safetensors and in torch.
TORCH_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "C64": "complex64",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One tensor as stored in a file.

    dtype: a safetensors name. offset: its first byte in `file`; -1 if compressed, and then
    `member` is the part of the archive and `start` the byte in it. strides: in elements; None: row-major.
    """

    dtype: str
    shape: tuple[int, ...]
    file: Path
    offset: int
    strides: tuple[int, ...] | None = None
    member: str = ""
    start: int = 0


@dataclass(frozen=True, kw_only=True)
class Stored:
    """The contents of a file or folder.

    tree: Entry leaves among nested mappings and plain values; safetensors and npz are flat.
    configs: JSON files next to it, by name. why: the reason for the choice among several files.
    strangers: names of classes in a pickle that were not created.
    """

    path: Path
    container: Container
    tree: Mapping[str, Any]
    metadata: Mapping[str, str] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    why: str = ""
    strangers: tuple[str, ...] = ()


def configs_beside(folder: Path) -> dict[str, Mapping[str, Any]]:
    """The JSON files that publishers put next to weights. Raises: CheckpointError for one that is not a JSON object."""
    found: dict[str, Mapping[str, Any]] = {}
    for name in CONFIGS:
        file = folder / name
        if file.is_file():
            found[name] = read_json(file)
    return found


def read_json(file: Path) -> Mapping[str, Any]:
    """Read a JSON object. Raises: CheckpointError with the file and the problem."""
    try:
        if file.stat().st_size > MAX_CONFIG_BYTES:
            raise CheckpointError(
                f"{file}: {file.stat().st_size:,} bytes, too large for a config", "download it again"
            )
        content = file.read_bytes()
        if (instead := left_in_its_place(file, content[:HEAD_BYTES], len(content))) is not None:
            raise instead
        plain = json.loads(content.decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: it is not valid JSON ({error})", "download the file again") from error
    if not isinstance(plain, dict):
        raise CheckpointError(f"{file}: it is not a JSON object", "download the file again")
    return plain
