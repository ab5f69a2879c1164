"""The images of blood cells as data with boxes, and settings of a detector so small that a run takes seconds."""

import json
from pathlib import Path
from typing import Any

CELLS = Path(__file__).resolve().parent.parent / "data" / "cells"
NAMES, IDS = ("RBC", "WBC", "Platelets"), (7, 3, 40)

# One block of 32 channels at 64x48 pixels.
TINY: dict[str, Any] = {
    "model.image.size": (48, 64),
    "model.patch.size": (8, 8),
    "model.dim": 32,
    "model.depth": 1,
    "model.attention.num_heads": 2,
    "model.mlp.hidden": 64,
    "task.detector.dim": 32,
    "task.detector.num_heads": 4,
    "task.detector.num_layers": 2,
    "task.detector.num_queries": 30,
    "run.batch_size": 4,
    "run.threads": 1,
    "run.precision": "float32",
}


def options() -> list[str]:
    """`TINY` for the command."""
    found = []
    for path, value in TINY.items():
        shown = str(list(value)) if isinstance(value, tuple) else str(value)
        found += ["-o", f"{path}={shown}"]
    return found


def written(folder: Path, change: Any = None) -> Path:
    """A copy of the data, whose annotations `change` may edit in place."""
    (folder / "images").mkdir(parents=True)
    for path in (CELLS / "images").iterdir():
        (folder / "images" / path.name).write_bytes(path.read_bytes())
    plain = json.loads((CELLS / "annotations.json").read_text(encoding="utf-8"))
    if change is not None:
        change(plain)
    (folder / "annotations.json").write_text(json.dumps(plain), encoding="utf-8")
    return folder
