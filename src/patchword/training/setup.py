"""Set up a training: the model, what it learns, and what depends on this machine."""

import json
from typing import Any

import torch

from patchword import machine
from patchword import settings as tree
from patchword.data.dataset import Dataset
from patchword.model.vit import ViT
from patchword.training.chance import seed_of
from patchword.training.choose import Chosen, resolved
from patchword.training.config import TrainSettings
from patchword.training.ema import AveragedWeights
from patchword.training.groups import Group, parameter_groups
from patchword.training.memory import micro_batch_for, refuse_too_large
from patchword.training.optim import make_optimiser
from patchword.training.precision import LossScale, choose_compile, choose_precision
from patchword.training.progress import Progress
from patchword.training.state import TrainingState
from patchword.training.tasks.detectors import make_detr
from patchword.training.tasks.make import Begun, make_module


def refuse_without_memory(settings: TrainSettings, dataset: Dataset, device: torch.device) -> None:
    """Check the memory again: torch is loaded now and the device is known."""
    left = torch.cuda.mem_get_info(device)[1] if device.type == "cuda" else None
    refuse_too_large(settings, len(dataset.training), left=left)


def described(device: torch.device) -> str:
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def new_model(settings: TrainSettings) -> Begun:
    """With random weights."""
    generator = torch.Generator().manual_seed(settings.run.seed)
    return make_detr(settings, generator) if settings.detr is not None else ViT(settings.vit, generator)


def new_state(model: Begun, settings: TrainSettings) -> tuple[TrainingState, tuple[Group, ...]]:
    """The state before the first step, and the parameter groups."""
    module = make_module(settings, model)
    generator = torch.Generator().manual_seed(seed_of(settings.run.seed, "adapters"))
    groups = parameter_groups(module, settings.optim, settings.tune, generator)
    state = TrainingState(
        module=module,
        average=AveragedWeights(module, settings.average.decay),
        optimiser=make_optimiser(module, settings.optim, groups),
        loss_scale=LossScale(next(model.parameters()).device),
        settings=json.dumps(tree.to_plain(settings)),
    )
    return state, groups


def measured(
    chosen: Chosen, model: Begun, num_images: int, device: torch.device, progress: Progress
) -> Chosen:
    """Set what depends on this machine: threads, precision, compilation, micro-batches."""
    threads = chosen.settings.run.threads or machine.granted_threads()
    if threads > (there := machine.hardware_threads()):
        progress.message(
            f"warning: {threads} threads on a machine with {there} will be slower; use --threads {there}"
        )
    torch.set_num_threads(threads)
    settings = chosen.settings
    here: dict[str, Any] = {"threads": threads, "device": str(device)}
    if not is_given("run.precision", chosen):
        here["precision"], why = choose_precision(model, settings, device)
        progress.message(f"precision: {here['precision']} ({why})")
    if settings.run.compile == "auto":
        here["compile"], why = choose_compile(settings, num_images, device)
        if here["compile"] == "always":
            progress.message(f"compiled with torch.compile: {why}")
    if not is_given("run.micro_batch", chosen):
        left = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None
        here["micro_batch"] = micro_batch_for(settings, num_images, left=left)
        if here["micro_batch"]:
            progress.message(
                f"micro-batches of {here['micro_batch']}: a batch of {settings.run.batch_size} images does not fit into memory; "
                "the gradients are those of the complete batch"
            )
    return resolved(settings, chosen.sources, **here)


def is_given(path: str, chosen: Chosen) -> bool:
    """Whether the user set it, with an option or a file."""
    return tree.source_of(path, chosen.sources).startswith(("option", "file"))
