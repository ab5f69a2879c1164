"""Train with the real command for several seeds and record each result; shared by digits.py and flowers.py."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common import write_result


@dataclass(frozen=True)
class Goal:
    """top1: minimum mean over the seeds; seconds: maximum of any run, including process start and report."""

    top1: float
    seconds: float


def train_seeds(name: str, data: str, seeds: Sequence[int], goal: Goal, more: Sequence[str] = ()) -> bool:
    """Run `patchword train DATA --seed S` for each seed in turn; return whether the goal was met."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            rows.append(_train(data, seed, Path(folder) / str(seed), more))
            print(f"seed {seed}: top-1 {rows[-1]['top1']:.4f} in {rows[-1]['seconds']:.1f} s", flush=True)
    top1 = [row["top1"] for row in rows]
    mean, slowest = statistics.mean(top1), max(row["seconds"] for row in rows)
    met = mean >= goal.top1 and slowest <= goal.seconds
    lines = [
        f"`patchword train {Path(data).name} --seed S`, the last averaged weights evaluated on {rows[0]['images']} images "
        f"of {rows[0]['split']}.",
        "",
        "| seed | top-1 | loss | seconds | epochs | load before |",
        "|---|---|---|---|---|---|",
        *(
            f"| {r['seed']} | {100 * r['top1']:.2f} % | {r['loss']:.3f} | {r['seconds']:.1f} | {r['epochs']} | {r['load']} |"
            for r in rows
        ),
        "",
        f"Mean top-1 {100 * mean:.2f} % (lowest {100 * min(top1):.2f}, highest {100 * max(top1):.2f}), "
        f"slowest run {slowest:.1f} s. Goal: at least {100 * goal.top1:.1f} % in at most {goal.seconds:.0f} s: "
        f"{'met' if met else 'NOT met'}.",
    ]
    print("\n".join(lines))
    print(
        write_result(
            name, {"runs": rows, "mean_top1": mean, "slowest_s": slowest, "met": met}, "\n".join(lines)
        )
    )
    return met


def _train(data: str, seed: int, out: Path, more: Sequence[str]) -> dict[str, object]:
    command = [
        sys.executable,
        "-m",
        "patchword.cli.main",
        "train",
        data,
        "--seed",
        str(seed),
        "--out",
        str(out),
        *more,
    ]
    load = os.getloadavg()[0]
    start = time.perf_counter()
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    evaluation = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
    epochs = sum('"kind": "epoch"' in line for line in (out / "metrics.jsonl").read_text().splitlines())
    return {
        "seed": seed,
        "top1": evaluation["top1"],
        "loss": evaluation["loss"],
        "images": evaluation["scored"],
        "split": evaluation["split"],
        "seconds": round(seconds, 1),
        "epochs": epochs,
        "load": round(load, 2),
    }
