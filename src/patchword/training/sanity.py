"""Before a detector is trained: can it learn eight images by heart? If not, say what stands in the way.

The images are complete and unchanged, the rate and the optimiser are those of the run, and the weights are thrown away.
"""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from patchword import machine
from patchword.data.dataset import Dataset, Split
from patchword.errors import DataError, ImageError, TrainingBroken, plural
from patchword.images.prepare import read_pixels
from patchword.training.chance import Draws
from patchword.training.config import TrainSettings
from patchword.training.groups import train_mode
from patchword.training.optim_settings import effective_lr
from patchword.training.optimiser import set_lr
from patchword.training.progress import Progress
from patchword.training.setup import new_model, new_state
from patchword.training.task import Batch
from patchword.training.tasks.detect import Detect
from patchword.training.tasks.detect_settings import DetectSettings
from patchword.training.tasks.detect_tally import DetectTally, Scored, scored
from patchword.training.tasks.detect_views import boxes_of
from patchword.training.tasks.make import make_task
from patchword.training.tune import Full, LayerDecay
from patchword.training.weights import Start, fill, fill_rest

IMAGES, BATCH, STEPS, WARMUP, LOOK_EVERY = 8, 4, 400, 20, 20
# AP50 on the eight images that counts as learned by heart.
ENOUGH = 0.9
# A loss that fell by less than this share in the last quarter of the steps has come to rest.
AT_REST = 0.1
# Objects below so many patches are hard to see.
SMALL = 0.75
REPORT_EVERY_S = 15.0


@dataclass(frozen=True, kw_only=True)
class Sanity:
    """What came of it. images: their names. any_class: AP50 if classes do not count. losses: of each step, for each object.

    patches: how many patches half of the objects span at most. frozen: what of the backbone does not learn, in words.
    """

    images: tuple[str, ...]
    steps: int
    seconds: float
    ap50: float
    any_class: float
    losses: tuple[float, ...]
    rate: float
    patches: float
    frozen: str = ""

    @property
    def passed(self) -> bool:
        return self.ap50 >= ENOUGH

    @property
    def text(self) -> str:
        return (
            f"sanity: AP50 {100 * self.ap50:.1f} % on {plural(len(self.images), 'training image')} after "
            f"{plural(self.steps, 'step')} ({self.seconds:.0f} s)"
        )


def check_sanity(
    dataset: Dataset, settings: TrainSettings, start: Start | None, progress: Progress
) -> Sanity:
    """Overfit eight training images. Writes nothing.

    Raises: DataError without readable images, TrainingBroken with the probable cause.
    """
    found = overfit(dataset, settings, start, progress)
    if not found.passed:
        raise explained(found, settings)
    progress.message(found.text)
    return found


def overfit(
    dataset: Dataset, settings: TrainSettings, start: Start | None, progress: Progress, steps: int = STEPS
) -> Sanity:
    """Train on the eight images until they are learned or `steps` are over."""
    device = machine.find_device(settings.run.device)
    torch.set_num_threads(settings.run.threads or machine.granted_threads())
    model = new_model(settings)
    if start is not None:
        fill(model, start, settings, ())
    state, _ = new_state(model.to(device), settings)
    if start is not None:
        fill_rest((state.module,), start, dataset.classes)
    split = dataset.training
    task = make_task(settings, state.module, dataset, split, machine.granted_cores())
    assert isinstance(task, Detect)
    rows, pixels = _images(split, settings)
    began, shown = time.perf_counter(), time.perf_counter()
    losses: list[float] = []
    found: tuple[float, float] = (0.0, 0.0)
    rate = effective_lr(settings.optim, settings.run.batch_size)[0]
    for step, chosen in zip(range(steps), _orders(len(rows)), strict=False):
        batch = _batch(task, split, [rows[i] for i in chosen], [pixels[i] for i in chosen], step).to(device)
        set_lr(state.optimiser, rate * min((step + 1) / WARMUP, 1.0))
        losses.append(_step(state.module, task, batch, settings.optim.clip_grad))
        state.optimiser.step()
        if not math.isfinite(losses[-1]):
            break
        if (step + 1) % LOOK_EVERY == 0 or step + 1 == steps:
            found = _scores(task, state.module, split, rows, pixels, device)
            if found[0] >= ENOUGH:
                break
        if time.perf_counter() - shown > REPORT_EVERY_S:
            shown = time.perf_counter()
            progress.message(
                f"sanity: step {step + 1} of at most {steps}, loss {losses[-1]:.2f}, AP50 {100 * found[0]:.1f} %"
            )
    return Sanity(
        images=tuple(split.names[row] for row in rows),
        steps=len(losses),
        seconds=time.perf_counter() - began,
        ap50=found[0],
        any_class=found[1],
        losses=tuple(losses),
        rate=rate,
        patches=_patches(split, rows, settings),
        frozen="" if isinstance(settings.tune, Full | LayerDecay) else settings.tune.text,
    )


def explained(found: Sanity, settings: TrainSettings) -> TrainingBroken:
    """The error of a detector that did not learn its images, with the probable cause."""
    cause, fix = _cause(found, settings)
    return TrainingBroken(
        f"the detector does not learn even {plural(len(found.images), 'training image')} by heart: AP50 "
        f"{100 * found.ap50:.1f} % after {plural(found.steps, 'step')}; {cause}",
        fix,
    )


def _cause(found: Sanity, settings: TrainSettings) -> tuple[str, str]:
    first, last = float(np.mean(found.losses[:LOOK_EVERY])), float(np.mean(found.losses[-LOOK_EVERY:]))
    if not math.isfinite(last) or last > first:
        fell = f"the loss went from {first:.2f} to {last:.2f}"
        return f"{fell}, so the rate {found.rate:.2g} is too high", f"use --lr {found.rate / 10:.2g}"
    if found.any_class >= ENOUGH:
        what = f"the boxes are right (AP50 {100 * found.any_class:.1f} % if classes do not count), so the classes contradict each other"
        return what, "look at the class ids with `patchword check DATA --draw FILE`"
    if found.frozen:
        return f"the backbone is frozen (--tune {found.frozen})", "use --tune full, or other --weights"
    if found.patches < SMALL:
        side = math.ceil(max(settings.model.image.size) / found.patches / 32) * 32
        what = f"half of the objects are below {found.patches:.2f} patches, too small to be told apart"
        return what, f"use --image-size {side} or a smaller --patch-size"
    quarter = max(len(found.losses) // 4, 1)
    before = float(np.mean(found.losses[-2 * quarter : -quarter]))
    now = float(np.mean(found.losses[-quarter:]))
    if now < (1 - AT_REST) * before:
        what = f"the loss still falls ({before:.2f} to {now:.2f}), so the steps are too few for the rate {found.rate:.2g}"
        return what, f"use --lr {3 * found.rate:.2g}, or --epochs for a longer run"
    return (
        f"the loss rests at {now:.2f}, so the boxes do not follow from the pictures",
        "look at the boxes with `patchword check DATA --draw FILE`; --box-format says what their numbers mean",
    )


def _images(split: Split, settings: TrainSettings) -> tuple[list[int], list[Tensor]]:
    """Up to eight readable images with objects, as they are stored, [C, h, w]; those with rare classes first."""
    rows: list[int] = []
    pixels: list[Tensor] = []
    for row in _candidates(split, settings):
        try:
            read = read_pixels(
                split.source(row), settings.stored, name=split.names[row], max_pixels=split.max_pixels
            )
        except ImageError:  # listed by the check
            continue
        rows.append(row)
        pixels.append(torch.from_numpy(np.array(read.transpose(2, 0, 1), order="C")))
        if len(rows) == IMAGES:
            return rows, pixels
    if not rows:
        raise DataError("no training image with boxes can be read", "fix the images")
    return rows, pixels


def _candidates(split: Split, settings: TrainSettings) -> Iterator[int]:
    assert isinstance(settings.task, DetectSettings)
    boxes = boxes_of(split)
    present = boxes.where(~boxes.crowd).present(settings.task.num_classes)
    rest = np.flatnonzero(present.any(axis=1)).tolist()
    order = np.argsort(present.sum(axis=0), kind="stable")
    taken: list[int] = []
    for label in order.tolist():
        if len(taken) < IMAGES // 2 and not present[taken, label].any():
            taken += [row for row in rest if present[row, label]][:1]
    shuffled = np.random.default_rng((settings.run.seed, IMAGES)).permutation(rest).tolist()
    yield from [*taken, *(row for row in shuffled if row not in taken)]


def _orders(count: int) -> Iterator[Sequence[int]]:
    """Places of the images of each step: all of them in turn."""
    step = 0
    while True:
        yield [(BATCH * step + i) % count for i in range(min(BATCH, count))]
        step += 1


def _batch(task: Detect, split: Split, rows: list[int], pixels: list[Tensor], step: int = 0) -> Batch:
    images, stored = task.collate(pixels, rows)
    names = tuple(split.names[row] for row in rows)
    draws = Draws(0, step, np.asarray(rows, np.int64))
    return task.shown.plain_views(Batch(images=images, targets=stored, names=names, draws=draws))


def _step(module: nn.Module, task: Detect, batch: Batch, clip: float) -> float:
    """The gradients of one step; returns the loss for each object."""
    train_mode(module)
    module.zero_grad()
    counts = task.counts(batch)
    losses: dict[str, Tensor] = module(batch.images, batch.targets)
    total = torch.stack([loss / max(counts[name], 1.0) for name, loss in losses.items()]).sum()
    total.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(module.parameters(), clip or math.inf)
    return float(total.detach())


def _scores(
    task: Detect,
    module: nn.Module,
    split: Split,
    rows: list[int],
    pixels: list[Tensor],
    device: torch.device,
) -> tuple[float, float]:
    """AP50 on the images, and AP50 if classes do not count."""
    module.eval()
    tally = task.tally()
    assert isinstance(tally, DetectTally)
    for first in range(0, len(rows), BATCH):
        some = slice(first, first + BATCH)
        batch = _batch(task, split, rows[some], pixels[some])
        # As in evaluation: boxes in pixels of the files.
        batch = replace(batch, targets=boxes_of(split).rows(rows[some])).to(device)
        with torch.inference_mode():
            tally.add(module, batch)
    alike = [_without_classes(one) for one in tally.images]
    return scored(tally.images, task.classes).ap50 or 0.0, scored(alike, ["object"]).ap50 or 0.0


def _without_classes(one: Scored) -> Scored:
    return replace(
        one,
        true=replace(one.true, classes=np.zeros_like(one.true.classes)),
        found=replace(one.found, classes=np.zeros_like(one.found.classes)),
    )


def _patches(split: Split, rows: list[int], settings: TrainSettings) -> float:
    """The median side of the objects in patches of the model."""
    boxes = boxes_of(split).subset(rows)
    corners, longest = boxes.corners[~boxes.crowd], boxes.sizes[boxes.owners()[~boxes.crowd]].max(axis=1)
    sides = np.sqrt((corners[:, 2:] - corners[:, :2]).prod(axis=1)) / longest
    return float(np.median(sides)) * max(settings.model.image.size) / max(settings.model.patch_span)
