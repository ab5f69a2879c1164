"""Does pre-training pay? `python benchmarks/pretraining.py [FOLDER]` (default: PATCHWORD_DATA, which contains flowers5.zip).

For each seed, on the same data: from scratch for --epochs; and pre-trained on the training images without labels for a share of
that time, then fine-tuned by the same recipe and optimiser for the rest. Times are CPU seconds of the whole commands, so that
other work on the machine does not change them much; the epochs of pre-training are chosen from a trial of both speeds, and what
each took is reported. Scored on val/ once, by the last averaged weights. Goal: 4 points more, mean of three seeds.
--hold-out splits the training images instead (300 of them are scored): for choosing settings.
"""

import argparse
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import compile_source, write_result

HELD_OUT, GOAL = 300, 0.04


def run(verb: str, data: Path, out: Path, *args: object) -> tuple[dict[str, Any], float]:
    """The evaluation of a run of the command, and its CPU seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as cache:
        subprocess.run(
            [sys.executable, "-m", "patchword.cli.main", verb, data, "--out", out, *map(str, args)],
            check=True,
            env={**os.environ, "PATCHWORD_CACHE": cache},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return json.loads((out / "evaluation.json").read_text(encoding="utf-8")), seconds


def held_out(source: Path, out: Path, seed: int) -> Path:
    """The training images alone: 300 of them as val/."""
    files = sorted(source.glob("train/*/*"))
    random.Random(seed).shuffle(files)
    for name, chosen in (("val", files[:HELD_OUT]), ("train", files[HELD_OUT:])):
        for file in chosen:
            place = out / name / file.parent.name / file.name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, place)
    return out


def speeds(data: Path, folder: Path, common: Sequence[object]) -> tuple[float, float]:
    """CPU seconds of an epoch of `train` and of `pretrain`: the difference of runs of three epochs and of one."""
    each = []
    for verb in ("train", "pretrain"):
        took = [run(verb, data, folder / f"{verb}{n}", "--epochs", n, *common)[1] for n in (1, 3)]
        each.append((took[1] - took[0]) / 2)
    return each[0], each[1]


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with zipfile.ZipFile(Path(args.folder) / "flowers5.zip") as archive:
            archive.extractall(folder / "source")
        common = ("--threads", args.threads)
        train_s, pretrain_s = speeds(folder / "source", folder, common)
        tuned = round(args.epochs * (1 - args.share))
        first = round(args.epochs * args.share * train_s / pretrain_s)
        print(
            f"an epoch: train {train_s:.1f} s, pretrain {pretrain_s:.1f} s; {first} + {tuned} epochs",
            flush=True,
        )
        for seed in range(args.seeds):
            data = folder / "source"
            if args.hold_out:
                data = held_out(data, folder / f"data{seed}", seed)
            place = folder / str(seed)
            seeded = ("--seed", seed, *common)
            scratch, seconds = run("train", data, place / "scratch", "--epochs", args.epochs, *seeded)
            rows.append({"system": "scratch", "seed": seed, "top1": scratch["top1"], "cpu_seconds": seconds})
            print(rows[-1], flush=True)
            mae, before = run("pretrain", data, place / "mae", "--epochs", first, *seeded)
            weights = ("--weights", place / "mae", "--tune", "full", "-o", "optim.method=muon")
            both, after = run("train", data, place / "both", "--epochs", tuned, *weights, *seeded)
            rows.append(
                {
                    "system": "pre-trained",
                    "seed": seed,
                    "top1": both["top1"],
                    "cpu_seconds": before + after,
                    "epochs": [first, tuned],
                    "pixels": mae["pixels"],
                    "baselines": mae["baselines"],
                }
            )
            print(rows[-1], flush=True)
    return rows


def summary(rows: Sequence[dict[str, Any]], args: argparse.Namespace) -> list[str]:
    where = f"{HELD_OUT} images held out of train/" if args.hold_out else "val/"
    lines = [f"flowers5, {args.epochs} epochs from scratch or as much CPU time, scored on {where}.", ""]
    lines += ["| system | seed | top-1 | CPU seconds |", "|---|---|---|---|"]
    lines += [
        f"| {r['system']} | {r['seed']} | {100 * r['top1']:.1f} % | {r['cpu_seconds']:.0f} |" for r in rows
    ]
    pairs = [statistics.mean(r["top1"] for r in rows if r["system"] == s) for s in ("pre-trained", "scratch")]
    gain = pairs[0] - pairs[1]
    lines += [
        "",
        f"mean: pre-trained {100 * pairs[0]:.1f} %, from scratch {100 * pairs[1]:.1f} %: {100 * gain:+.1f} points "
        f"(aim {100 * GOAL:+.0f}: {'met' if gain >= GOAL else 'NOT met'}).",
    ]
    return lines


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("folder", nargs="?", default=os.environ.get("PATCHWORD_DATA", "."))
parser.add_argument("--seeds", type=int, default=3)
parser.add_argument("--epochs", type=int, default=40, help="from scratch")
parser.add_argument("--share", type=float, default=0.5, help="of the time that is spent on pre-training")
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--hold-out", action="store_true")
parser.add_argument("--dont-write", action="store_true", help="print only")

if __name__ == "__main__":
    arguments = parser.parse_args()
    compile_source()
    measured = measure(arguments)
    text = summary(measured, arguments)
    print("\n".join(text))
    if not arguments.dont_write:
        payload = {"runs": measured, "arguments": vars(arguments)}
        print(write_result("pretraining", payload, "\n".join(text)))
