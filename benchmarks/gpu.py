"""Training on one CUDA GPU: images per second, model FLOP utilisation, and time to an accuracy on CIFAR-10.

    python benchmarks/gpu.py [--minutes 8]

Fits in one call of eight minutes: ViT-B/16, then ViT-L/16 at 224 pixels in bfloat16, both sides compiled, with decoding,
augmentation and mixing as in `training.py`, against timm; then, in the time that is left, `patchword train --recipe cifar` if
PATCHWORD_DATA holds cifar10/. Utilisation is three forward passes of the model's arithmetic per image, over the rate of a
product of two 8192 x 8192 bfloat16 matrices measured on the same card. Prints one line of JSON for each part; --out also writes
it to a file. `--tiny` runs the same on a CPU at a size that only shows that the script works.
"""

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from common import machine_facts, ratio_interval
from patchword import machine
from patchword.data.dataset import Split
from patchword.model.cost import cost
from patchword.model.sizes import sized
from training import WARM_UP, Files, Job, Theirs, run_ours

ROUNDS = 4
# Images a step, steps a round.
JOBS = {"ViT-B/16": ("vit_base_patch16_224", 256, 16), "ViT-L/16": ("vit_large_patch16_224", 128, 16)}
TINY = {"ViT-Ti/16": ("vit_tiny_patch16_224", 2, 1)}
TARGETS = (0.90, 0.93, 0.94)


def matrix_rate(device: str, side: int) -> float:
    """FLOP/s of bfloat16 products."""
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    wait = torch.cuda.synchronize if device == "cuda" else int
    for _ in range(3):
        a @ b
    wait()
    began = time.perf_counter()
    for _ in range(20):
        a @ b
    wait()
    return 20 * 2 * side**3 / (time.perf_counter() - began)


def made_split(count: int, distinct: int = 512) -> Split:
    """JPEGs of 400 x 400 pixels with detail at several scales."""
    drawn = np.random.default_rng(0)
    contents = []
    for _ in range(min(distinct, count)):
        layers = [drawn.integers(0, 86, (n, n, 3), np.uint8) for n in (5, 25, 100)]
        pixels = sum(np.kron(layer, np.ones((400 // len(layer),) * 2 + (1,), np.uint8)) for layer in layers)
        file = io.BytesIO()
        Image.fromarray(np.asarray(pixels, np.uint8)).save(file, "JPEG", quality=90)
        contents.append(file.getvalue())
    chosen = np.arange(count, dtype=np.int64) % len(contents)
    return Split(
        name="train",
        names=tuple(f"{i}.jpg" for i in range(count)),
        labels=np.arange(count, dtype=np.int64) % 1000,
        reader=Files(tuple(contents)),
        rows=chosen,
    )


def trained(
    size: str, entry: tuple[str, int, int], device: str, rate: float, *, compiled: bool, rounds: int = ROUNDS
) -> dict[str, Any]:
    import timm

    name, batch, steps = entry
    job = Job(
        size,
        sized(size),
        batch,
        steps,
        336,
        lambda: timm.create_model(name, num_classes=1000),
        device=device,
        precision="bfloat16",
    )
    split = made_split(batch * steps)
    threads = machine.granted_cores()
    settings = job.settings(rounds + WARM_UP, compiled, threads, "memory")
    watch = run_ours(job, split, settings, Theirs(job, split, compiled, threads))
    ours, theirs = watch.ours[WARM_UP:], watch.theirs[WARM_UP:]
    flops = 3 * cost(job.model).flops * batch * steps
    return {
        "part": size,
        "batch": batch,
        "compiled": compiled,
        "ours_images_per_s": batch * steps / statistics.median(ours),
        "theirs_images_per_s": batch * steps / statistics.median(theirs),
        "ours_utilisation": flops / statistics.median(ours) / rate,
        "theirs_utilisation": flops / statistics.median(theirs) / rate,
        "theirs_over_ours": ratio_interval(ours, theirs),
        "waiting": watch.waiting[WARM_UP:],
        "stages": watch.stages[-1],
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else None,
        "ours_s": ours,
        "theirs_s": theirs,
    }


def cifar(data: Path, minutes: float) -> dict[str, Any]:
    """Seconds of training until each accuracy on the held-out images was first reached."""
    with tempfile.TemporaryDirectory() as place:
        run = Path(place) / "run"
        command = [sys.executable, "-m", "patchword.cli.main", "train", str(data), "--recipe", "cifar"]
        began = time.perf_counter()
        done = subprocess.run(
            [*command, "--out", str(run), "--max-time", f"{minutes:g}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        seconds = time.perf_counter() - began
        metrics = run / "metrics.jsonl"
        lines = metrics.read_text(encoding="utf-8").splitlines() if metrics.exists() else []
    epochs = [record for record in map(json.loads, lines) if record["kind"] == "epoch"]
    scored = [(record["seconds"], record["val_top1"]) for record in epochs if "val_top1" in record]
    return {
        "part": "cifar",
        "command_s": seconds,
        "exit": done.returncode,
        "last_words": done.stderr.splitlines()[-8:],
        "epochs": len(epochs),
        "best": max((top1 for _, top1 in scored), default=None),
        "seconds_to": {target: next((s for s, top1 in scored if top1 >= target), None) for target in TARGETS},
        "last": epochs[-1] if epochs else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--out", type=Path, help="a file for the lines of JSON")
    parser.add_argument("--eager", action="store_true", help="compile neither side")
    parser.add_argument("--tiny", action="store_true")
    chosen = parser.parse_args()
    began = time.perf_counter()
    device = "cpu" if chosen.tiny else "cuda"
    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no CUDA device; --tiny runs on a CPU")

    def tell(found: dict[str, Any]) -> None:
        line = json.dumps(found)
        print(line, flush=True)
        if chosen.out:
            with chosen.out.open("a", encoding="utf-8") as file:
                file.write(line + "\n")

    def left() -> float:
        return chosen.minutes - (time.perf_counter() - began) / 60

    rate = matrix_rate(device, 512 if chosen.tiny else 8192)
    card = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    tell({"part": "machine", "card": card, "matrix_flops_per_s": rate, **machine_facts()})
    for size, entry in (TINY if chosen.tiny else JOBS).items():
        if left() < 1.5 and not chosen.tiny:
            tell({"part": size, "error": "no time left"})
            continue
        try:
            tell(
                trained(
                    size, entry, device, rate, compiled=not chosen.eager, rounds=1 if chosen.tiny else ROUNDS
                )
            )
        except Exception as error:  # the parts after it are still worth their time
            tell({"part": size, "error": repr(error)[:2000]})
        if device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
    data = Path(os.environ.get("PATCHWORD_DATA", "")) / "cifar10" / "train.parquet"
    if data.is_file() and left() > 1 and not chosen.tiny:
        tell(cifar(data, max(left() - 0.7, 0.3)))


if __name__ == "__main__":
    main()
