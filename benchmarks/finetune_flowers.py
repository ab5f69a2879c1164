"""Fine-tune a published ViT-S/14 on flowers5 at 126 pixels: `python benchmarks/finetune_flowers.py WEIGHTS [FOLDER]`.

WEIGHTS is a folder of a DINOv2 ViT-S/14 that patchword reads; FOLDER contains flowers5.zip (default: PATCHWORD_DATA).
Goals, mean of three seeds on val/: `--tune head` at least 84 % within 1.3 times one pass of `embed` over the same images;
`--tune llrd` at least 92 % after 15 passes, and not below timm's model with AdamW 1e-4 and cosine after as many passes.

With --hold-out, val/ is not touched: 300 images of train/ are scored, another 300 for each seed. Choose settings with it, e.g.
`--hold-out --only llrd --seeds 2 -o optim.lr=1e-3`. --passes and --images N shorten a trial.
The order of the systems is drawn anew for each seed. timm needs the bench extra.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import compile_source, write_result

SIZE, BATCH, HELD_OUT = 126, 64, 300
SYSTEMS = ("embed", "head", "llrd", "timm")
GOALS = {"head": 0.84, "llrd": 0.92}
HEAD_SHARE = 1.3
TIMM = "vit_small_patch14_dinov2.lvd142m"


def command(*args: str | Path) -> None:
    """Run the real command; features and decoded images are not taken from an earlier run."""
    with tempfile.TemporaryDirectory() as cache:
        subprocess.run(
            [sys.executable, "-m", "patchword.cli.main", *map(str, args)],
            check=True,
            env={**os.environ, "PATCHWORD_CACHE": cache},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )


def split_of(source: Path, out: Path, seed: int, *, hold_out: bool, images: int) -> Path:
    """A folder with train/ and val/. hold_out: val/ is a part of train/; images: at most so many for training, 0 for all."""
    files = sorted(source.glob("train/*/*"))
    drawn = random.Random(seed)
    drawn.shuffle(files)
    held = files[:HELD_OUT] if hold_out else sorted(source.glob("val/*/*"))
    rest = files[HELD_OUT:] if hold_out else files
    for name, chosen in (("train", rest[: images or None]), ("val", held)):
        for file in chosen:
            place = out / name / file.parent.name / file.name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, place)
    return out


def ours(data: Path, weights: str, tune: str, seed: int, more: Sequence[str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        run, start = Path(folder) / "run", time.perf_counter()
        base = ("--weights", weights, "--image-size", SIZE, "--tune", tune, "--seed", seed, "--offline")
        command("train", data, *map(str, base), "--out", run, *more)
        seconds = time.perf_counter() - start
        found = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
        return {"top1": found["top1"], "loss": found["loss"], "seconds": seconds}


def embed(data: Path, weights: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        adapted = Path(folder) / "adapted.safetensors"
        command("adapt", weights, "--to-image-size", str(SIZE), "--out", adapted)
        start = time.perf_counter()
        command("embed", adapted, data, "--out", Path(folder) / "vectors.npy")
        return {"seconds": time.perf_counter() - start}


def timm_model(weights: str, folder: Path, classes: int) -> Any:
    """timm's own model with the same weights, at the same size, and a new head."""
    import timm
    import torch
    from safetensors.torch import load_file

    adapted, converted = folder / "adapted.safetensors", folder / "timm"
    command("adapt", weights, "--to-image-size", str(SIZE), "--out", adapted)
    command("convert", adapted, "--to", "timm", "--out", converted)
    model = timm.create_model(TIMM, pretrained=False, img_size=SIZE, num_classes=classes)
    tensors = load_file(next(converted.glob("*.safetensors")))
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("head.")}
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    assert set(missing) <= {"head.weight", "head.bias"} and not unexpected, (missing, unexpected)
    assert isinstance(model, torch.nn.Module)
    return model


def theirs(data: Path, weights: str, passes: int, seed: int, threads: int) -> dict[str, Any]:
    """timm's model, training transform and optimiser: AdamW 1e-4, cosine with one pass of warm-up, in a plain loop."""
    import timm.data
    import torch
    from timm.optim import create_optimizer_v2
    from timm.scheduler import CosineLRScheduler

    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    sets = []
    for name, training in (("train", True), ("val", False)):
        view = timm.data.create_transform(
            SIZE, is_training=training, interpolation="bicubic", mean=mean, std=std, crop_pct=1.0
        )
        sets.append(timm.data.create_dataset("", root=str(data / name), transform=view))
    generator = torch.Generator().manual_seed(seed)
    batches = torch.utils.data.DataLoader(
        sets[0], BATCH, shuffle=True, drop_last=True, num_workers=threads, generator=generator
    )
    held_out = torch.utils.data.DataLoader(sets[1], BATCH, num_workers=threads)
    with tempfile.TemporaryDirectory() as folder:
        model = timm_model(weights, Path(folder), len(sets[0].reader.class_to_idx))
    start = time.perf_counter()
    optimiser = create_optimizer_v2(model, opt="adamw", lr=1e-4, weight_decay=0.05)
    schedule = CosineLRScheduler(
        optimiser, t_initial=passes, warmup_t=min(1, passes - 1), warmup_lr_init=1e-6
    )
    for epoch in range(passes):
        model.train()
        for step, (images, targets) in enumerate(batches):
            schedule.step(epoch + step / len(batches))
            loss = torch.nn.functional.cross_entropy(model(images), targets, label_smoothing=0.1)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
    model.eval()
    right, total, losses = 0, 0, 0.0
    with torch.inference_mode():
        for images, targets in held_out:
            logits = model(images)
            right += int((logits.argmax(1) == targets).sum())
            losses += float(torch.nn.functional.cross_entropy(logits, targets, reduction="sum"))
            total += len(targets)
    return {"top1": right / total, "loss": losses / total, "seconds": time.perf_counter() - start}


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    more = [part for text in args.overrides for part in ("-o", text)]
    passes = ["--epochs", str(args.passes)]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        with zipfile.ZipFile(Path(args.folder) / "flowers5.zip") as archive:
            archive.extractall(source)
        for seed in range(args.seeds):
            place = Path(folder) / str(seed)
            data = split_of(source, place, seed, hold_out=args.hold_out, images=args.images)
            for system in random.Random(seed).sample(args.only, len(args.only)):
                load = os.getloadavg()[0]
                if system == "embed":
                    row = embed(data, args.weights)
                elif system == "timm":
                    row = theirs(data, args.weights, args.passes, seed, args.threads)
                else:
                    given = [*more, *passes] if system == "llrd" else []
                    row = ours(data, args.weights, system, seed, [*given, "--threads", str(args.threads)])
                rows.append({"system": system, "seed": seed, "load": round(load, 2), **row})
                print(rows[-1], flush=True)
    return rows


def summary(rows: Sequence[dict[str, Any]], args: argparse.Namespace) -> list[str]:
    """The table, and each goal that these rows can decide."""
    where = f"{HELD_OUT} images held out of train/" if args.hold_out else "val/"
    lines = [
        f"flowers5 at {SIZE} pixels, {args.passes} passes, {args.threads} threads, scored on {where}.",
        "",
    ]
    lines += ["| system | seed | top-1 | loss | seconds | load before |", "|---|---|---|---|---|---|"]
    for row in rows:
        score = f"{100 * row['top1']:.2f} % | {row['loss']:.3f}" if "top1" in row else "- | -"
        lines.append(f"| {row['system']} | {row['seed']} | {score} | {row['seconds']:.1f} | {row['load']} |")
    lines.append("")
    means = {
        system: statistics.mean(row["top1"] for row in rows if row["system"] == system)
        for system in args.only
        if system != "embed"
    }
    for system, mean in means.items():
        goal = GOALS.get(system)
        verdict = (
            ""
            if goal is None
            else f" Goal: at least {100 * goal:.0f} %: {'met' if mean >= goal else 'NOT met'}."
        )
        lines.append(f"{system}: mean {100 * mean:.2f} %.{verdict}")
    if {"llrd", "timm"} <= means.keys():
        met = means["llrd"] >= means["timm"]
        lines.append(f"llrd is not below timm's model: {'met' if met else 'NOT met'}.")
    if {"head", "embed"} <= set(args.only):
        took = {(row["system"], row["seed"]): row["seconds"] for row in rows}
        ratio = statistics.median(took["head", s] / took["embed", s] for s in range(args.seeds))
        met = ratio <= HEAD_SHARE
        lines.append(
            f"head takes {ratio:.2f} times one pass of embed (goal: {HEAD_SHARE}): {'met' if met else 'NOT met'}."
        )
    return lines


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("weights")
parser.add_argument("folder", nargs="?", default=os.environ.get("PATCHWORD_DATA", "."))
parser.add_argument("--seeds", type=int, default=3)
parser.add_argument("--passes", type=int, default=15)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--images", type=int, default=0, help="at most so many training images; 0 for all")
parser.add_argument("--hold-out", action="store_true")
parser.add_argument("--only", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
parser.add_argument(
    "-o", dest="overrides", action="append", default=[], metavar="A.B=C", help="for llrd alone"
)
parser.add_argument("--dont-write", action="store_true", help="print only")

if __name__ == "__main__":
    arguments = parser.parse_args()
    compile_source()
    measured = measure(arguments)
    text = summary(measured, arguments)
    print("\n".join(text))
    if not arguments.dont_write:
        payload = {
            "runs": measured,
            "arguments": {**vars(arguments), "weights": Path(arguments.weights).name},
        }
        print(write_result("finetune-flowers", payload, "\n".join(text)))
