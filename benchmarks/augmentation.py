"""Compare our batched augmentation with torchvision.transforms.v2 and timm's create_transform.

    python benchmarks/augmentation.py --data imagenet-sample.zip

From decoded photographs in memory (uint8) to a float32 batch of views in 0..1, with the same kinds of augmentation. "batch"
gives one set of parameters to all images of a batch, because torchvision's transforms draw once per call: it is the
library's bound, not the same augmentation. The per-image systems run in as many threads as ours has.
A second table compares each operation on one batch, with an amount per image where the library allows it.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from common import compile_source, interleave, ratio_interval, write_result
from patchword import machine
from patchword.training.augment.policy import Step, apply_steps
from patchword.training.augment.settings import (
    AugmentSettings,
    ColourSettings,
    GeometrySettings,
    NoPolicy,
    Policy,
    RandAugment,
    ThreeAugment,
    TrivialAugment,
)
from patchword.training.augment.views import Augment
from patchword.training.chance import Draws
from peers import photographs

Systems = dict[str, Callable[[], Any]]
OTHERS = ("torchvision, batch", "torchvision, tensors", "torchvision, Pillow", "timm, Pillow")
# Sides of the stored images and of the views, images in a batch.
SIZES = ((96, 64, 64), (336, 224, 32))
JITTER = ColourSettings(brightness=0.3, contrast=0.3, saturation=0.3)
# Name: degrees of rotation, policy, colour jitter.
KINDS: dict[str, tuple[float, Policy, ColourSettings]] = {
    "crop, flip, rotation, jitter": (15.0, NoPolicy(), JITTER),
    "crop, flip, RandAugment": (0.0, RandAugment(), ColourSettings()),
    "crop, flip, TrivialAugment": (0.0, TrivialAugment(), ColourSettings()),
    "crop, flip, 3-Augment, jitter": (0.0, ThreeAugment(), JITTER),
}


def ours(kind: str, view: int, images: Tensor) -> Callable[[], Any]:
    degrees, policy, colour = KINDS[kind]
    geometry = GeometrySettings(crop_scale=(0.35, 1.0), crop_ratio=(0.75, 4 / 3), flip=0.5, degrees=degrees)
    augment = Augment(AugmentSettings(geometry=geometry, policy=policy, colour=colour), view)
    epochs = iter(range(10**6))
    return lambda: augment(images, Draws(0, next(epochs), np.arange(len(images))))


def torchvision_steps(kind: str, view: int) -> list[Any]:
    from torchvision.transforms import v2

    degrees, policy, colour = KINDS[kind]
    bilinear = v2.InterpolationMode.BILINEAR
    steps: list[Any] = [
        v2.RandomResizedCrop(view, scale=(0.35, 1.0), antialias=True),
        v2.RandomHorizontalFlip(),
    ]
    if degrees:
        steps.append(v2.RandomRotation(degrees, interpolation=bilinear))
    if isinstance(policy, RandAugment):
        # torchvision applies every operation, timm half of them.
        steps.append(v2.RandAugment(magnitude=27, interpolation=bilinear))
    if isinstance(policy, TrivialAugment):
        steps.append(v2.TrivialAugmentWide(interpolation=bilinear))
    if isinstance(policy, ThreeAugment):
        one = [v2.Grayscale(3), v2.RandomSolarize(128, p=1.0), v2.GaussianBlur(13, (0.1, 2.0))]
        steps.append(v2.RandomChoice(one))
    if colour == JITTER:
        steps.append(v2.ColorJitter(0.3, 0.3, 0.3))
    return steps


def timm_transform(kind: str, view: int) -> Callable[[Image.Image], Any] | None:
    from timm.data.transforms_factory import create_transform

    policies = {
        # mmax9, because Pillow 13 refuses to posterise to no bits, which timm draws at magnitude 10.
        RandAugment: "rand-m9-mstd0.5-inc1-mmax9",
        NoPolicy: None,
    }
    _, policy, colour = KINDS[kind]
    if type(policy) not in policies:
        return None
    made: Any = create_transform(
        view,
        is_training=True,
        use_prefetcher=True,
        scale=(0.35, 1.0),
        auto_augment=policies[type(policy)],
        color_jitter=0.3 if colour == JITTER else None,
        interpolation="bilinear",
    )
    return made


def in_threads(pool: ThreadPoolExecutor, one: Callable[[Any], Any], images: list[Any]) -> Callable[[], Any]:
    def run() -> Tensor:
        views = list(pool.map(one, images))
        stacked = torch.stack([v if isinstance(v, Tensor) else torch.from_numpy(np.array(v)) for v in views])
        return stacked if stacked.is_floating_point() else stacked.float().div_(255)

    return run


def systems(kind: str, view: int, images: Tensor, pool: ThreadPoolExecutor) -> Systems:
    from torchvision.transforms import v2

    steps = v2.Compose(torchvision_steps(kind, view))
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
    made: Systems = {
        "ours": ours(kind, view, images),
        "torchvision, batch": lambda: steps(images).float().div_(255),
        "torchvision, tensors": in_threads(pool, steps, list(images)),
        "torchvision, Pillow": in_threads(pool, steps, pictures),
    }
    if (timm := timm_transform(kind, view)) is not None:
        made["timm, Pillow"] = in_threads(pool, timm, pictures)
    return made


def operations(images: Tensor) -> dict[str, Systems]:
    """One operation on a float batch, for each image with an amount of its own."""
    from torchvision.transforms.v2 import InterpolationMode, functional

    count = len(images)
    amounts = torch.linspace(0.3, 0.9, count)
    alone: dict[str, Callable[[Tensor, float], Tensor]] = {
        "brightness": functional.adjust_brightness,
        "colour": functional.adjust_saturation,
        "contrast": functional.adjust_contrast,
        "sharpness": functional.adjust_sharpness,
        "posterise": lambda image, amount: functional.posterize(image, 3),
        "solarise": functional.solarize,
        "rotate": lambda image, amount: functional.rotate(image, amount, InterpolationMode.BILINEAR),
        "blur": lambda image, amount: functional.gaussian_blur(image, [7, 7], [amount]),
    }
    batched = {"autocontrast": functional.autocontrast, "equalise": functional.equalize}

    def step(name: str) -> Step:
        return Step([name] * count, torch.full((count,), 3.0) if name == "posterise" else amounts)

    found: dict[str, Systems] = {}
    for name, one in alone.items():
        found[name] = {
            "ours": lambda name=name: apply_steps(images, [step(name)], 0.0),  # type: ignore[misc]
            "torchvision": lambda one=one: torch.stack(  # type: ignore[misc]
                [one(image, float(amount)) for image, amount in zip(images, amounts, strict=True)]
            ),
        }
    for name, whole in batched.items():
        found[name] = {
            "ours": lambda name=name: apply_steps(images, [step(name)], 0.0),  # type: ignore[misc]
            "torchvision": lambda whole=whole: whole(images),  # type: ignore[misc]
        }
    return found


def stacked(pictures: list[Image.Image], side: int) -> Tensor:
    small = [np.asarray(picture.resize((side, side), Image.Resampling.BILINEAR)) for picture in pictures]
    return torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).contiguous()


def compared(found: Systems, count: int, rounds: int) -> tuple[dict[str, list[float]], float, dict[str, str]]:
    """Seconds, our images per second, and how many times as long each other system takes."""
    seconds = interleave(found, rounds, warm_up=1)
    ratios = {}
    for name in found:
        if name != "ours":
            ratio, low, high = ratio_interval(seconds["ours"], seconds[name])
            ratios[name] = f"{ratio:.2f} [{low:.2f}, {high:.2f}]"
    return seconds, count / statistics.median(seconds["ours"]), ratios


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--threads", type=int, nargs="+", default=[machine.granted_cores()])
    chosen = parser.parse_args()
    compile_source()
    machine.tune_allocator()
    with tempfile.TemporaryDirectory() as place:
        files = photographs(chosen.data, Path(place))[:64]
        pictures = [Image.open(p).convert("RGB") for p in files]
    payload: dict[str, Any] = {"threads": chosen.threads, "rounds": chosen.rounds}
    rows, single = [], []
    for threads in chosen.threads:
        torch.set_num_threads(threads)
        pool = ThreadPoolExecutor(threads, initializer=lambda: torch.set_num_threads(1))
        for stored, view, count in SIZES:
            images = stacked(pictures[:count], stored)
            for kind in KINDS:
                seconds, rate, ratios = compared(systems(kind, view, images, pool), count, chosen.rounds)
                cells = " | ".join(ratios.get(name, "–") for name in OTHERS)
                rows.append(f"| {threads} | {view} | {kind} | {rate:.0f} | {cells} |")
                print(rows[-1], flush=True)
                payload[f"{threads} threads, {view} pixels, {kind}"] = seconds
    # One thread, because torchvision's many short operations would wait for the slowest thread.
    torch.set_num_threads(1)
    floats = stacked(pictures[:16], 224).float() / 255
    for name, found in operations(floats).items():
        seconds, rate, ratios = compared(found, len(floats), chosen.rounds)
        single.append(f"| {name} | {rate:.0f} | {ratios['torchvision']} |")
        print(single[-1], flush=True)
        payload[f"operation {name}"] = seconds
    table = "\n".join(
        [
            f"`benchmarks/augmentation.py`, {chosen.rounds} rounds. Times as long as ours (above 1 ours is faster), median of "
            "rounds and 95 % interval. Batches of 64 images of 96 pixels to views of 64, and of 32 images of 336 to 224.",
            "",
            f"| threads | pixels | augmentation | ours, images/s | {' | '.join(OTHERS)} |",
            "|---|---|---|---|---|---|---|---|",
            *rows,
            "",
            "One operation on 16 float images of 224 x 224, one thread; torchvision per image (equalise and autocontrast on the batch):",
            "",
            "| operation | ours, images/s | torchvision |",
            "|---|---|---|",
            *single,
        ]
    )
    print(write_result("augmentation", payload, table))


if __name__ == "__main__":
    main()
