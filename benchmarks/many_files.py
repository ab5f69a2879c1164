"""Train on 100,000 small JPEGs: time to the first step, and resident memory after each epoch.

    python benchmarks/many_files.py --images 100000

Runs the real command on files that it makes in a temporary folder. Goals: the first step within 20 s, and memory that is flat
within 2 % over three epochs. The first epoch is not one of them: its evaluation keeps the prepared evaluation images, once, and the
allocator keeps freed buffers for reuse (docs/decisions/0006-threads-and-allocator.md), which the second epoch fills up.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from common import write_result

SIDE, CLASSES, EPOCHS = 48, 10, 4
# Small enough that reading and decoding are most of the work.
MODEL = ("-o", "model.dim=32", "-o", "model.depth=2", "--batch-size", "512", "--epochs", str(EPOCHS))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("options", nargs="*", help="further options of `patchword train`, after --")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        data = Path(place) / "data"
        make_images(data, chosen.images)
        found = train(data, Path(place) / "run", chosen.options)
    resident = found["resident_mib"]
    growth = max(resident[1:]) / resident[1] - 1
    rows = [f"| first step | {found['first_step_s']:.1f} s |"]
    rows += [f"| memory after epoch {i} | {mib:.0f} MiB |" for i, mib in enumerate(resident, 1)]
    table = (
        "| | |\n|---|---|\n"
        + "\n".join(rows)
        + f"\n\n{chosen.images:,} JPEGs of {SIDE} x {SIDE} pixels; the goals are "
        f"20 s and growth of at most 2 % from the second epoch on (here {100 * growth:.1f} %)."
    )
    print(table)
    print(write_result("many_files", {"images": chosen.images, **found}, table))


def make_images(folder: Path, count: int) -> None:
    """Blocks of random colours, each class darker than the next; a tenth is for evaluation."""
    drawn = np.random.default_rng(0)
    for label in range(CLASSES):
        for split in ("train", "val"):
            (folder / split / f"class{label}").mkdir(parents=True)
    for i in range(count):
        label = i % CLASSES
        small = drawn.integers(0, 60 + 19 * label, (SIDE // 8, SIDE // 8, 3), np.uint8)
        split = "val" if i // CLASSES % 10 == 0 else "train"
        pixels = np.kron(small, np.ones((8, 8, 1), np.uint8))
        Image.fromarray(pixels).save(folder / split / f"class{label}" / f"{i}.jpg", quality=85)


def train(data: Path, run: Path, options: list[str]) -> dict[str, object]:
    """Seconds from the start of the command to the first step, and MiB resident at the end of each epoch."""
    command = [sys.executable, "-m", "patchword.cli.main", "train", str(data), "--out", str(run), *MODEL]
    began = time.perf_counter()
    process = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL)
    first_step, resident, seen = 0.0, [], 0
    while process.poll() is None:
        time.sleep(0.05)
        for record in _records(run / "metrics.jsonl")[seen:]:
            seen += 1
            if record["kind"] == "step" and not first_step:
                # The record's seconds are those of all its steps.
                steps = max(int(record["step"]), 1)
                first_step = time.perf_counter() - began - float(record["seconds"]) * (1 - 1 / steps)
            if record["kind"] == "epoch":
                resident.append(_resident_mib(process.pid))
    if process.returncode or len(resident) != EPOCHS:
        raise SystemExit(f"{' '.join(command)} exited with {process.returncode}")
    return {"first_step_s": first_step, "resident_mib": resident}


def _records(path: Path) -> list[dict[str, object]]:
    """The complete lines so far."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def _resident_mib(process: int) -> float:
    pages = int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    main()
