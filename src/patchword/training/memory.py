"""Check whether a training run fits into memory before anything is allocated, and suggest sizes that fit."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from patchword import machine
from patchword.data.store import MEMORY_SHARE
from patchword.errors import NotEnoughMemory, PatchwordError, plural
from patchword.model.config import ViTConfig
from patchword.model.memory import held_bytes, step_bytes, training_bytes
from patchword.model.vitdet import memory as vitdet
from patchword.training.config import RunSettings, TrainSettings, view_size
from patchword.training.tasks.detect_settings import DetectSettings, VitDetSettings
from patchword.training.tune import TRUNK_PARTS, Head, LoRA
from patchword.training.workload import computed, price

# The estimate is a lower bound; advise sizes with room to spare.
ROOM = 2.0


@dataclass(frozen=True, kw_only=True)
class Needed:
    """Bytes that training needs. images: the decoded training images, if they are cached."""

    step: int
    images: int

    @property
    def total(self) -> int:
        return self.step + self.images


def needed(settings: TrainSettings, num_images: int, *, cache: bool = True) -> Needed:
    """The estimate for these settings; bfloat16 is assumed until the precision is known."""
    run = settings.run
    at_once = run.micro_batch or run.batch_size
    method = settings.optim.method
    if settings.detr is not None:
        step = _of_detr(settings, at_once)
    else:
        if isinstance(settings.tune, Head) and settings.task.kind != "detect":
            at_once = 0  # without gradients, activations are not kept
        frozen = isinstance(settings.tune, Head | LoRA)
        step = sum(
            training_bytes(part, part.image.size, at_once, _width(run), method, frozen=frozen)
            for part in computed(settings)
        )
    if isinstance(settings.task, DetectSettings) and isinstance(settings.task.detector, VitDetSettings):
        detector = settings.task.detector.config(settings.vit, settings.task.num_classes)
        step += vitdet.held_bytes(detector, method)
        step += at_once * vitdet.step_bytes(detector, settings.view_size)
    height, width = run.stored_size
    images = num_images * settings.preprocess.in_channels * height * width
    kept = cache and images <= MEMORY_SHARE * machine.memory_limit_bytes()
    return Needed(step=step, images=images if kept else 0)


def _of_detr(settings: TrainSettings, at_once: int) -> int:
    from patchword.model.detr.cost import held_bytes as held

    return held(price(settings).parameters, settings.optim.method) + at_once * _each_of_detr(settings)


def _each_of_detr(settings: TrainSettings) -> int:
    """What a step keeps of each image."""
    from patchword.model.detr.cost import step_bytes as kept

    assert settings.detr is not None
    frozen = TRUNK_PARTS if isinstance(settings.tune, Head) else getattr(settings.tune, "frozen", 0)
    whole = kept(settings.detr.config(1), settings.view_size, frozen=frozen)
    return whole if _width(settings.run) == "float32" else whole // 2


def _width(run: RunSettings) -> Literal["float32", "bfloat16"]:
    """float16 takes as much memory as bfloat16."""
    return "float32" if run.precision == "float32" else "bfloat16"


def micro_batch_for(settings: TrainSettings, num_images: int, *, left: int | None = None) -> int:
    """How many images to compute at once so that a batch which is too large fits; 0 for the complete batch.

    left: as in `refuse_too_large`.
    """
    there = machine.most_memory_left_bytes() if left is None else left
    size = settings.run.batch_size

    def fits(images: int, room: float) -> bool:
        part = replace(settings, run=replace(settings.run, micro_batch=images, precision="bfloat16"))
        return needed(part, num_images, cache=left is None).total * room <= there

    if fits(size, 1.0):
        return 0
    while size > 2 and not fits(size, ROOM):
        size = size // 2 + size // 2 % 2
    return size if fits(size, ROOM) else 0


def refuse_too_large(settings: TrainSettings, num_images: int, *, left: int | None = None) -> None:
    """Refuse a run that cannot fit. left: free bytes of the device; None for this process's memory.

    Raises: NotEnoughMemory with the batch or image size that would fit.
    """
    there = machine.most_memory_left_bytes() if left is None else left
    # Measuring may still choose bfloat16, which needs less.
    least = replace(settings, run=replace(settings.run, precision="bfloat16"))
    found = needed(least, num_images, cache=left is None)
    if found.total <= there:
        return
    size = "x".join(map(str, reversed(settings.view_size)))
    raise NotEnoughMemory(
        f"not enough memory: training {_count(settings)} parameters on batches of {settings.run.batch_size} images "
        f"of {size} pixels needs at least {gib(found.total)}, but only {gib(there)} is available",
        advice(settings, there - found.images),
    )


def out_of_memory(settings: TrainSettings, trained: str = "") -> NotEnoughMemory:
    """The error for a failed allocation. trained: the run folder, if only its evaluation or report is missing."""
    if trained:
        return NotEnoughMemory(
            "not enough memory to evaluate the trained model and write its report",
            f"free memory, then finish with `patchword train --resume {trained}`",
        )
    size = "x".join(map(str, reversed(settings.view_size)))
    batch = settings.run.batch_size
    smaller = f"a smaller batch, such as --batch-size {batch // 2}, or " if batch > 1 else ""
    return NotEnoughMemory(
        f"not enough memory to train on batches of {plural(batch, 'image')} of {size} pixels",
        f"start a new run with {smaller}a smaller --image-size or --model",
    )


def advice(settings: TrainSettings, left: int) -> str:
    """Suggest the largest batch at this size, and the largest size at this batch, that should fit into `left` bytes."""
    if settings.detr is not None:
        return _advice_for_detr(settings, left)
    model, run, method = settings.vit, settings.run, settings.optim.method
    room = int(left / ROOM)
    each = step_bytes(model, settings.view_size, _width(run))
    batch = (room - held_bytes(model, method)) // each
    found = [f"--batch-size {batch}"] if 1 <= batch < run.batch_size else []

    def fits(side: int) -> bool:
        smaller = _at(model, side)
        if smaller is None:
            return False
        view = view_size(smaller, settings.augment)
        return training_bytes(smaller, view, run.batch_size, _width(run), method) <= room

    span = max(model.patch_span)
    sides = (max(model.image.size) // span, fits)
    side = _largest(*sides, span)
    found += [f"--image-size {side}"] if side else []
    return f"by this estimate, {' or '.join(found)} would fit" if found else "choose a smaller --model"


def _advice_for_detr(settings: TrainSettings, left: int) -> str:
    room = left / ROOM - _of_detr(settings, 0)
    batch = int(room // max(_each_of_detr(settings), 1))
    if batch >= 1:
        return f"by this estimate, --batch-size {min(batch, settings.run.batch_size)} would fit"
    share = math.sqrt(max(room, 0) / max(_each_of_detr(settings), 1))
    side = int(min(settings.preprocess.image_size) * share) // 32 * 32
    return (
        f"use --batch-size 1 and --image-size {side}, which fit by this estimate"
        if side
        else "train on a machine with more memory"
    )


def _largest(steps: int, fits: Callable[[int], bool], span: int) -> int:
    """The largest multiple of `span` that fits, by bisection; 0 if none does."""
    low, high = 0, steps
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle * span) else (low, middle - 1)
    return low * span


def _at(model: ViTConfig, side: int) -> ViTConfig | None:
    try:
        return replace(model, image=replace(model.image, size=(side, side)))
    except PatchwordError:  # the model does not support this size
        return None


def _count(settings: TrainSettings) -> str:
    return f"{price(settings).parameters:,}"


def gib(number: int) -> str:
    """Bytes as "3.2 GiB"."""
    return f"{number / 2**30:,.1f} GiB"
