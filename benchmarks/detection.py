"""Time detectors: `python benchmarks/detection.py [--rounds 7] [--quick]`.

Forward and training step of DETR-R50 at 800 x 1066, batch 2, compared with transformers' DETR, with the same parts frozen (batch norms, the
first convolution and stage) and the losses of all six layers in both; in turn in one process. Beside them `vit-ti16-det` and
`vit-s16-det` on the same images, and the growth of time and memory from 400 to 1600 pixels, with and without windows.
Goals: neither DETR slower than the peer's; matching and losses of six layers at most 30 ms a step. --quick, for a busy machine,
measures the time of the processor on one thread, at half the size, in three rounds. transformers and timm need the bench extra.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from common import interleave, ratio_interval, write_result
from patchword import machine
from patchword.model.detection import DetectionOutput
from patchword.model.detr.config import DetrConfig
from patchword.model.detr.model import DETR
from patchword.model.kinds import Rope2d
from patchword.model.matching import Targets
from patchword.model.set_loss import set_loss
from patchword.model.sizes import sized
from patchword.model.vitdet.config import VitDetConfig
from patchword.model.vitdet.loss import losses
from patchword.model.vitdet.model import VitDet

BATCH, OBJECTS, CLASSES, LAYERS = 2, 10, 91, 6
GOAL_LOSS = 0.030
SIDES, QUICK_SIDES, WINDOW = (400, 640, 800, 1024, 1280, 1600), (400, 640, 800), 16
Step = Callable[[], Any]
Clock = Callable[[], float]


def pictures(height: int, width: int, batch: int = BATCH) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(0))


def truths(classes: int = CLASSES) -> Targets:
    generator = torch.Generator().manual_seed(1)
    return Targets.of(
        [
            (
                torch.randint(classes, (OBJECTS,), generator=generator),
                torch.rand(OBJECTS, 4, generator=generator) * 0.3 + 0.2,
            )
            for _ in range(BATCH)
        ]
    )


def steps(model: nn.Module, loss: Callable[[], Tensor], forward: Step) -> tuple[Step, Step]:
    """A forward pass without gradients, and a step with AdamW."""
    optimiser = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], 1e-4, weight_decay=1e-4, fused=True
    )

    def answer() -> None:
        model.eval()
        with torch.inference_mode():
            forward()

    def step() -> None:
        model.train()
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()

    return answer, step


def our_detr(images: Tensor, targets: Targets) -> tuple[Step, Step]:
    model = DETR(DetrConfig(num_classes=CLASSES), torch.Generator().manual_seed(0))
    for part in (model.trunk.root, model.trunk.stages[0]):
        part.requires_grad_(False)
    return steps(model, lambda: set_loss(model(images), targets).total, lambda: model(images))


def their_detr(images: Tensor, targets: Targets) -> tuple[Step, Step]:
    from transformers import DetrConfig as TheirConfig
    from transformers import DetrForObjectDetection

    # Dropout of attention weights as in the source, which transformers leaves out by default.
    config = TheirConfig(
        num_labels=CLASSES, auxiliary_loss=True, attention_dropout=0.1, attn_implementation="sdpa"
    )
    model: Any = DetrForObjectDetection(config)
    # What the source freezes; transformers does so for timm's trunk by itself.
    for name, parameter in model.model.backbone.named_parameters():
        if not any(stage in name for stage in ("layer2", "layer3", "layer4")):
            parameter.requires_grad_(False)
    labels = [
        {"class_labels": targets.labels[s : s + n], "boxes": targets.boxes[s : s + n]}
        for s, n in zip(targets.starts, targets.counts, strict=True)
    ]
    mask = torch.ones(len(images), *images.shape[-2:], dtype=torch.long)

    def loss() -> Tensor:
        found: Tensor = model(images, mask, labels=labels).loss
        return found

    return steps(model, loss, lambda: model(images, mask))


def vit_detector(name: str, height: int, width: int, window: int = 0) -> VitDet:
    vit = replace(sized(name, image_size=(height, width), num_classes=0), positions=Rope2d())
    config = VitDetConfig(vit=vit, num_classes=CLASSES, window=window)
    return VitDet(config, generator=torch.Generator().manual_seed(0))


def vit_steps(name: str, images: Tensor, targets: Targets) -> tuple[Step, Step]:
    model = vit_detector(name, *images.shape[-2:])

    def loss() -> Tensor:
        return torch.stack(list(losses(model(images), targets).values())).sum() / len(targets.labels)

    return steps(model, loss, lambda: model(images))


def loss_seconds(rounds: int, clock: Clock) -> dict[str, float]:
    """Matching, losses and their gradients of six layers, for DETR and for the detector on a ViT at 640 x 640 pixels."""
    targets = truths()
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(LAYERS, BATCH, 100, CLASSES + 1, generator=generator, requires_grad=True)
    boxes = (torch.rand(LAYERS, BATCH, 100, 4, generator=generator) * 0.5 + 0.25).requires_grad_()
    vit = replace(sized("ViT-Ti/16", image_size=(640, 640), num_classes=0), positions=Rope2d(), depth=1)
    config = VitDetConfig(vit=vit, num_classes=CLASSES, num_layers=LAYERS)
    with torch.no_grad():
        found = VitDet(config, generator=generator)(pictures(640, 640))
    found = found._replace(
        logits=found.logits.requires_grad_(), cell_logits=found.cell_logits.requires_grad_()
    )
    systems = {
        "DETR": lambda: set_loss(DetectionOutput(logits, boxes), targets).total.backward(),
        "ViT detector": lambda: torch.stack(list(losses(found, targets).values())).sum().backward(),
    }
    return {name: median(times) for name, times in interleave(systems, rounds, clock=clock).items()}


def grown(side: int, window: int) -> dict[str, float]:
    """Seconds of the processor and peak MiB of a forward pass of `vit-s16-det`, one image; alone in this process."""
    model, image = vit_detector("ViT-S/16", side, side, window).eval(), pictures(side, side, 1)
    with torch.inference_mode():
        model(image[..., :320, :320])  # what only the first call does
        before, start = _high_water_mib(), time.process_time()
        model(image)
    return {"seconds": time.process_time() - start, "mib": _high_water_mib() - before}


def _high_water_mib() -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def growth(sides: tuple[int, ...], threads: int) -> dict[str, dict[str, float]]:
    found = {}
    for side in sides:
        for window in (0, WINDOW):
            command = [sys.executable, __file__, "--grown", str(side), str(window), "--threads", str(threads)]
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found[f"{side}/{window}"] = json.loads(out)
            print(side, window, found[f"{side}/{window}"], flush=True)
    return found


def table(
    seconds: dict[str, list[float]], loss: dict[str, float], grew: dict[str, dict[str, float]]
) -> list[str]:
    lines = ["| | patchword | transformers | ratio, 95 % interval | goal |", "|---|---|---|---|---|"]
    for what in ("forward", "step"):
        ours, theirs = seconds[f"DETR-R50 {what}"], seconds[f"transformers {what}"]
        ratio, low, high = ratio_interval(ours, theirs)
        lines.append(
            f"| DETR-R50, {what} | {median(ours):.2f} s | {median(theirs):.2f} s | {ratio:.2f} [{low:.2f}, {high:.2f}] "
            f"| 1: {'met' if ratio >= 1 else 'NOT met' if high < 1 else 'within the noise'} |"
        )
    lines += ["", "| | forward | step |", "|---|---|---|"]
    for name in ("vit-ti16-det", "vit-s16-det"):
        both = (median(seconds[f"{name} {what}"]) for what in ("forward", "step"))
        lines.append(f"| {name} | " + " | ".join(f"{one:.2f} s" for one in both) + " |")
    lines += ["", "| matching, losses and gradients of six layers | ms | goal |", "|---|---|---|"]
    lines += [
        f"| {name} | {1000 * one:.1f} | 30: {'met' if one <= GOAL_LOSS else 'NOT met'} |"
        for name, one in loss.items()
    ]
    lines += ["", f"| vit-s16-det, one image | whole image | windows of {WINDOW} patches |", "|---|---|---|"]
    for side in dict.fromkeys(key.split("/")[0] for key in grew):
        cells = (
            f"{grew[f'{side}/{w}']['seconds']:.2f} s, {grew[f'{side}/{w}']['mib']:.0f} MiB"
            for w in (0, WINDOW)
        )
        lines.append(f"| {side} px | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--quick", action="store_true", help="for a busy machine")
    parser.add_argument("--threads", type=int, default=machine.granted_threads())
    parser.add_argument("--grown", nargs=2, type=int, help=argparse.SUPPRESS)
    parser.add_argument("--dont-write", action="store_true", help="print only")
    args = parser.parse_args()
    machine.tune_allocator()
    args.threads = 1 if args.quick else args.threads
    torch.set_num_threads(args.threads)
    if args.grown:
        print(json.dumps(grown(*args.grown)))
        return
    rounds = args.rounds or (3 if args.quick else 7)
    height, width = (400, 533) if args.quick else (800, 1066)
    clock = time.process_time if args.quick else time.perf_counter
    loss = loss_seconds(max(rounds, 9), clock)
    print(loss, flush=True)
    grew = growth(QUICK_SIDES if args.quick else SIDES, args.threads)
    images, targets = pictures(height, width), truths()
    systems: dict[str, Step] = {}
    for name, (forward, step) in {
        "DETR-R50": our_detr(images, targets),
        "transformers": their_detr(images, targets),
        "vit-ti16-det": vit_steps("ViT-Ti/16", images, targets),
        "vit-s16-det": vit_steps("ViT-S/16", images, targets),
    }.items():
        systems |= {f"{name} forward": forward, f"{name} step": step}
    seconds = interleave(systems, rounds, warm_up=1, clock=clock)
    note = f"{height} x {width} pixels, batch {BATCH}, {OBJECTS} objects an image, {args.threads} threads, float32, {rounds} rounds. Seconds "
    note += "of the processor." if args.quick else "on the clock, those of the growth of the processor."
    lines = [note, "", *table(seconds, loss, grew)]
    print("\n".join(lines))
    if not args.dont_write:
        payload = {"seconds": seconds, "loss": loss, "growth": grew, "size": (height, width)}
        print(write_result("detection", payload, "\n".join(lines)))


if __name__ == "__main__":
    main()
