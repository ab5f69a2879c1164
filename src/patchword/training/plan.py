"""What a training would do, as text: `train --dry-run`. Nothing is trained or written."""

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from patchword import machine
from patchword import settings as tree
from patchword.data.dataset import Dataset
from patchword.errors import plural
from patchword.training.autotune import seconds_of
from patchword.training.choose import Chosen
from patchword.training.config import TrainSettings
from patchword.training.expected import expectation
from patchword.training.groups import Row, parameter_groups, table, table_lines
from patchword.training.memory import gib, needed
from patchword.training.optim_settings import effective_lr
from patchword.training.progress import clock
from patchword.training.setup import described, new_model
from patchword.training.speed import seconds_per_image
from patchword.training.tasks.detect_settings import DetectSettings, DetrSettings, YolosSettings
from patchword.training.tasks.make import make_module
from patchword.training.tasks.settings import ClassifySettings, MAESettings, RegressSettings
from patchword.training.tune import Head
from patchword.training.workload import price

WIDTH, LABEL = 80, 10


_OUTPUTS = {
    "single": ("class", "classes"),
    "multi": ("class", "classes"),
    "number": ("number", "numbers"),
    "boxes": ("class of objects", "classes of objects"),
}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A training that was not started.

    lines: label and text of each line of the summary. groups: the table of parameter groups. toml: every setting with its
    source, as config.toml holds it. seconds: the estimated time of training, without decoding.
    """

    settings: TrainSettings
    lines: tuple[tuple[str, str], ...]
    groups: tuple[Row, ...]
    toml: str
    seconds: float

    @property
    def text(self) -> str:
        """The summary, at most 80 columns wide."""
        shown: list[str] = []
        before = ""
        for label, text in self.lines:
            name = "" if label == before else label
            before = label
            wrapped = textwrap.wrap(text, WIDTH - LABEL - 1, break_on_hyphens=False) or [""]
            shown += [f"{name if i == 0 else '':<{LABEL}} {line}".rstrip() for i, line in enumerate(wrapped)]
        return "\n".join([*shown, "", *table_lines(self.groups)])

    def __str__(self) -> str:
        return self.text


def make_plan(dataset: Dataset, chosen: Chosen) -> Plan:
    """The plan of a training with these settings. Times one block of the model.

    Raises: SettingsError if the parameter groups cannot be made, as `train` would.
    """
    settings = chosen.settings
    device = machine.find_device(settings.run.device)
    module = make_module(settings, new_model(settings))
    peak, _ = effective_lr(settings.optim, settings.run.batch_size)
    groups = table(parameter_groups(module, settings.optim, settings.tune, torch.Generator()), peak)
    images = len(dataset.training)
    each = seconds_per_image(settings, device)
    seconds = seconds_of(settings.tune, settings, images, each)
    if not settings.run.weights:
        seconds -= images * each  # no probe
    lines = [*_data(dataset, chosen), *_model(settings), *_training(settings, images)]
    return Plan(
        settings=settings,
        lines=(*lines, *_machine(settings, images, device, seconds)),
        groups=groups,
        toml=tree.to_toml(settings, chosen.sources),
        seconds=seconds,
    )


Lines = Iterator[tuple[str, str]]


def _data(dataset: Dataset, chosen: Chosen) -> Lines:
    outputs = _OUTPUTS.get(dataset.task_kind)
    what = "no labels" if outputs is None else plural(len(dataset.outputs), *outputs)
    held_out = f"{len(dataset.evaluation):,} held-out images, {what}"
    yield "data", f"{dataset.path}: {len(dataset.training):,} training and {held_out}"
    for choice in chosen.choices:
        yield "choices", f"{choice.what}: {choice.why}"
    if text := expectation(chosen.settings, len(dataset.training)):
        yield "note", text


def _detr(settings: TrainSettings, detr: DetrSettings) -> Lines:
    found, (shorter, longest) = price(settings), settings.view_size
    heads, trunk = plural(detr.num_heads, "head"), sum(detr.trunk.units)
    yield (
        "model",
        f"DETR: ResNet of {trunk} units, {detr.encoder_depth} + {detr.decoder_depth} layers of {detr.dim} channels and {heads}, "
        f"{plural(detr.num_queries, 'query', 'queries')}; images of up to {shorter}x{longest} pixels, {found.tokens} tokens; "
        f"{found.parameters:,} parameters, {found.flops / 1e9:.3g} GFLOPs per image",
    )
    if detr.dropout:
        yield "model", f"dropout {detr.dropout:g}"


def _model(settings: TrainSettings) -> Lines:
    if settings.detr is not None:
        yield from _detr(settings, settings.detr)
    else:
        yield from _vit(settings)
    yield "weights", settings.run.weights or "random (from scratch)"


def _vit(settings: TrainSettings) -> Lines:
    model, found = settings.vit, price(settings)
    (height, width), (rows, columns) = model.image.size, model.patch_span
    yield (
        "model",
        f"{model.dim} channels, {plural(model.depth, 'block')}, {plural(model.attention.num_heads, 'head')}; "
        f"images of {width}x{height} pixels in patches of {columns}x{rows}, {found.tokens} tokens; "
        f"{found.parameters:,} parameters, {found.flops / 1e9:.3g} GFLOPs per image",
    )
    if settings.view_size != model.image.size:
        yield "model", f"training views of {settings.view_size[1]}x{settings.view_size[0]} pixels"
    block = model.block
    parts: dict[str, object] = {
        "drop path": block.drop_path,
        "dropout": block.dropout,
        "LayerScale": block.layer_scale,
    }
    if shown := _named(parts):
        yield "model", shown


def _training(settings: TrainSettings, images: int) -> Lines:
    yield "tune", settings.tune.text
    if isinstance(settings.tune, Head) and not isinstance(settings.task, DetectSettings):
        yield (
            "head",
            "a logistic regression on the features of the frozen model, computed once, without steps",
        )
        return
    run, optim, schedule = settings.run, settings.optim, settings.schedule
    steps = max(images // run.batch_size, 1)
    copies = f", each image {run.repeats} times" if run.repeats > 1 else ""
    yield "batch", f"{plural(run.batch_size, 'image')}{copies}; {plural(steps, 'step')} per epoch"
    yield "rate", effective_lr(optim, run.batch_size)[1]
    warmup = min(schedule.warmup_epochs, schedule.epochs / 2)
    yield (
        "schedule",
        f"{schedule.shape}, {plural(schedule.epochs, 'epoch')} = {plural(schedule.epochs * steps, 'step')}, "
        f"after {warmup:.3g} epochs of warm-up down to {schedule.final_lr:.2g} of the peak",
    )
    moments = (
        f"momentum {optim.momentum:g}" if optim.method == "sgd" else f"betas {optim.beta1:g}, {optim.beta2:g}"
    )
    clip = f"gradients clipped to norm {optim.clip_grad:g}" if optim.clip_grad else "gradients not clipped"
    yield "optimiser", f"{optim.method}, {moments}, weight decay {optim.weight_decay:g}, {clip}"
    task = settings.task
    if isinstance(task, DetectSettings):
        unused = {} if task.augment.shorter else {"longest": 0}
        yield "augment", _named(tree.to_plain(task.augment) | {"colour": "", **unused})
        yield "augment", f"colour: {_named(tree.to_plain(task.augment.colour)) or 'none'}"
    else:
        yield from _augmentation(settings)
    loss = task.loss.replace("_", " ")
    if settings.detr is not None:
        loss = "classes and boxes, in every decoder layer"
    if isinstance(task, DetectSettings) and isinstance(task.detector, YolosSettings):
        loss = "classes and boxes"
    if isinstance(task, ClassifySettings):
        loss += f", smoothing {task.label_smoothing:g}"
    if not isinstance(task, RegressSettings | MAESettings | DetectSettings):
        loss += f", balance {task.balance}"
    if isinstance(task, ClassifySettings) and task.distill.teacher:
        loss += (
            f"; {task.distill.method} distillation from {task.distill.teacher}, alpha {task.distill.alpha:g}"
        )
    yield "loss", loss
    yield "average", f"of the weights, decay {settings.average.decay:g}; these weights are scored and saved"


def _augmentation(settings: TrainSettings) -> Lines:
    augment = settings.augment
    for name in ("geometry", "policy", "colour", "mixing"):
        part = getattr(augment, name)
        usual = tree.to_plain(type(part)())
        keeps = name == "policy"  # every value of a policy is in use
        plain = {k: v for k, v in tree.to_plain(part).items() if k != "kind" and (keeps or v != usual[k])}
        kind = getattr(part, "kind", "")
        off = kind == "none" or (hasattr(part, "is_identity") and part.is_identity)
        shown = "none" if off else " ".join(filter(None, (kind, _named(plain))))
        yield "augment", f"{name}: {shown}"
    if augment.erase:
        yield "augment", f"erasing: {augment.erase:g}"


def _named(values: Mapping[str, object]) -> str:
    """ "name value" of what is set, joined by commas."""
    shown = []
    for name, value in values.items():
        if isinstance(value, list | tuple):
            value = (
                " to ".join(f"{v:g}" for v in value) if len(value) < 3 else f"{value[0]:g} to {value[-1]:g}"
            )
        elif isinstance(value, float):
            value = f"{value:g}" if value else None
        if value not in (None, 0, ""):
            shown.append(f"{name} {value}")
    return ", ".join(shown)


def _machine(settings: TrainSettings, images: int, device: torch.device, seconds: float) -> Lines:
    yield "device", described(device)
    yield (
        "time",
        f"about {clock(seconds)}, estimated from one block of the model; decoding and evaluation are not included",
    )
    left = machine.device_memory_left_bytes(device)
    need = needed(settings, images, cache=device.type != "cuda")
    yield "memory", f"at least {need.total / 2**20:,.0f} MiB, {gib(left)} available"
