"""A short measurement: how long one forward pass takes on this machine, from one block of the model."""

import time
from dataclasses import replace

import torch
from torch import nn

from patchword import machine
from patchword.errors import PatchwordError
from patchword.model.base import Size
from patchword.model.config import ViTConfig
from patchword.model.cost import cost
from patchword.model.detr.config import DetrConfig
from patchword.model.detr.cost import cost as detr_cost
from patchword.model.detr.model import DETR
from patchword.model.vit import ViT
from patchword.training.autotune import at_view_size
from patchword.training.config import TrainSettings
from patchword.training.workload import share_of_a_pass

ROUNDS = 3
# Arithmetic of one trial: long enough to be timed, short enough not to be noticed.
CPU_FLOPS, GPU_FLOPS = 4e9, 4e11
MOST_IMAGES = 256
# DETR is timed on images whose sides are so many times shorter.
DETR_PART = 4


def seconds_per_image(settings: TrainSettings, device: torch.device) -> float:
    """Seconds of one forward pass of the model on a training view; float32 on a CPU, bfloat16 on CUDA.

    A model of one block is timed, and the time scaled by the arithmetic.
    """
    if device.type == "cpu":
        torch.set_num_threads(settings.run.threads or machine.granted_threads())
    if settings.detr is not None:
        return _of_detr(settings.detr.config(1), settings.view_size, device)
    config = at_view_size(settings)
    small = _one_block(config)
    flops = cost(small).flops
    trial = GPU_FLOPS if device.type == "cuda" else CPU_FLOPS
    count = int(min(max(trial / max(flops, 1), 1), MOST_IMAGES))
    generator = torch.Generator().manual_seed(0)
    model = ViT(small, generator).to(device).eval()
    shape = (count, small.image.channels, *small.image.size)
    each = _seconds(model, torch.randn(shape, generator=generator).to(device)) / count
    return each / max(flops, 1) * cost(config).flops * share_of_a_pass(settings)


def _of_detr(config: DetrConfig, size: Size, device: torch.device) -> float:
    """Timed on a part of a view, and scaled by the arithmetic."""
    generator = torch.Generator().manual_seed(0)
    part = max(size[0] // DETR_PART, config.trunk.stride), max(size[1] // DETR_PART, config.trunk.stride)
    images = torch.randn((1, config.trunk.channels, *part), generator=generator).to(device)
    seconds = _seconds(DETR(config, generator).to(device).eval(), images)
    return seconds / detr_cost(config, part).flops * detr_cost(config, size).flops


def _seconds(model: nn.Module, images: torch.Tensor) -> float:
    """Of one forward pass, the fastest of some."""
    device, seconds = images.device, []
    autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda")
    with torch.inference_mode(), autocast:
        for _ in range(ROUNDS + 1):
            start = time.perf_counter()
            model(images)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


def _one_block(config: ViTConfig) -> ViTConfig:
    try:
        return replace(config, depth=1)
    except PatchwordError:  # parts that read several blocks
        return config
