"""A small run folder written by hand, as training and evaluation write it."""

import json
from pathlib import Path
from typing import Any

# One grey pixel.
PICTURE = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
)
CONFIG = """\
seed = 7  # option
data = "flowers # 5"  # option

[optim]
lr = 0.00125  # recipe: 1,200 images
weight_decay = 0.05  # default
"""


def write_sample(folder: Path, classes: list[str], *, wrong: int = 1, epochs: int = 3) -> dict[str, Any]:
    """Write a complete run of these classes, each confused `wrong` times with the next; return its evaluation."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.toml").write_text(CONFIG, encoding="utf-8")
    _write(folder / "data.json", data_of(classes))
    lines = [line for epoch in range(1, epochs + 1) for line in _lines(epoch, epochs, len(classes))]
    (folder / "metrics.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8"
    )
    (folder / "log.txt").write_text("05:00:01 started\n", encoding="utf-8")
    evaluation = evaluation_of(classes, wrong)
    _write(folder / "evaluation.json", evaluation)
    return evaluation


def data_of(classes: list[str]) -> dict[str, Any]:
    return {
        "path": "flowers5.zip",
        "kind": "zip",
        "classes": classes,
        "splits": {
            "train": {"images": 11 * len(classes), "per_class": [11] * len(classes)},
            "val": {"images": 7 * len(classes), "per_class": [7] * len(classes)},
        },
        "file_list_sha256": "ab" * 32,
        "skipped": [],
        "channel_mean": [0.4687, 0.4257, 0.3119],
        "channel_std": [0.296, 0.2699, 0.2913],
        "sizes": {"min": [128, 128], "median": [128, 171], "max": [402, 128]},
        "modes": {"RGB": 18 * len(classes)},
        "split_seed": 3,
        "groups": [
            {"name": "blocks 0 to 5", "lr": 0.0, "weight_decay": 0.0, "trainable": False, "count": 700_123},
            {"name": "head", "lr": 0.003, "weight_decay": 0.05, "trainable": True, "count": 1_925},
        ],
        "floor": {"kind": "linear", "top1": 0.7123, "interval": [0.61, 0.79], "seconds": 12.5},
    }


def evaluation_of(classes: list[str], wrong: int) -> dict[str, Any]:
    number = len(classes)
    confusion = [[0] * number for _ in classes]
    for i in range(number):
        confusion[i][i] = 7 - wrong
        confusion[i][(i + 1) % number] += wrong
    share = (7 - wrong) / 7
    evaluation = {
        "data": "flowers5.zip",
        "split": "val",
        "weights": "last.safetensors",
        "images": 7 * number + 2,
        "scored": 7 * number,
        "unreadable": [{"name": f"val/cut-{i}.jpg", "reason": "the file ends too early"} for i in range(2)],
        "top1": share,
        "top1_interval": [share - 0.0521, min(1.0, share + 0.0433)],
        "loss": 0.4321,
        "classes": [
            {"name": n, "images": 7, "precision": share, "recall": share, "f1": share} for n in classes
        ],
        "confusion": confusion,
        "mistakes": [
            {
                "name": f"val/{classes[0]}/1.jpg",
                "true": classes[0],
                "predicted": classes[1],
                "probability": 0.8765,
                "true_probability": 0.0432,
                "thumbnail": PICTURE,
            }
        ],
        "training": {
            "scored": 11 * number,
            "of": 11 * number,
            "top1": 0.981,
            "top1_interval": [0.941, 0.994],
            "loss": 0.1234,
        },
        "calibration": calibration_of(140),
    }
    pair = {
        "first_as_second": wrong,
        "second_as_first": confusion[1][0],
        "first_images": 7,
        "second_images": 7,
    }
    pair |= {"first": classes[0], "second": classes[1], "mistakes": evaluation["mistakes"] * 3}
    evaluation["pairs"] = [pair] if wrong else []
    return evaluation | ({"top5": 0.987} if number > 5 else {})


def calibration_of(images: int) -> dict[str, Any]:
    """An overconfident model, corrected by a temperature of 1.62."""
    spots = [(0.31, 0.28), (0.55, 0.41), (0.78, 0.61), (0.93, 0.72), (0.99, 0.9)]
    after = [(0.29, 0.3), (0.46, 0.44), (0.62, 0.61), (0.77, 0.75), (0.9, 0.92)]
    before, fixed = (
        [{"images": images // 5, "confidence": c, "accuracy": a} for c, a in place]
        for place in (spots, after)
    )
    return {
        "images": images,
        "ece": 0.1281,
        "nll": 0.4321,
        "bins": before,
        "temperature": 1.6234,
        "ece_after": 0.0213,
        "nll_after": 0.3717,
        "bins_after": fixed,
    }


def _lines(epoch: int, epochs: int, number: int) -> list[dict[str, Any]]:
    step = {
        "kind": "step",
        "epoch": epoch,
        "step": epoch * 9 - 4,
        "loss": 2 / epoch,
        "lr": 0.001,
        "seconds": 2.0,
    }
    end = {
        "kind": "epoch",
        "epoch": epoch,
        "epochs": epochs,
        "step": epoch * 9,
        "seconds": epoch * 31.0,
        "train_loss": 1.9 / epoch,
        "lr": 0.001 / epoch,
        "val_loss": 1.7 / epoch,
        "val_top1": 0.9 - 0.1 / epoch - 0.03 * (1 < epoch == epochs),
        "images_per_s": 812.0,
        "data_wait": 0.02,
        "read_s": 0.8,
        "decode_s": 9.4,
        "augment_s": 3.1,
        "step_s": 25.5,
        "peak_memory_mib": 900.0,
    }
    return [step, end | ({"val_top5": 0.97} if number > 5 else {})]


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")
