"""Choose float32 or bfloat16: whichever is measured as faster on this machine, for this model and batch."""

import copy
import statistics
import time

import torch
from torch import nn

from patchword.model.cost import cost
from patchword.training.config import Precision, TrainSettings

# bfloat16 must be faster by this factor; a small gain is not worth the lower precision.
WORTH = 1.15
ROUNDS = 3
# Limit for one forward pass, so that large models are measured on fewer images.
TRIAL_FLOPS = 2e10


def choose_precision(
    model: nn.Module, settings: TrainSettings, device: torch.device
) -> tuple[Precision, str]:
    """Return the precision and the reason. Runs a few steps on random images; the model is not changed."""
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported():
            return "bfloat16", "supported by the GPU"
        return "float32", "the GPU does not support bfloat16"
    if device.type != "cpu":
        return "float32", "default on this device"
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return "float32", "this CPU has no fast bfloat16"
    trial = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(0)
    images_per_step = max(1, min(settings.run.batch_size, int(TRIAL_FLOPS / cost(settings.model).flops)))
    shape = (images_per_step, settings.model.image.channels, *settings.view_size)
    images = torch.randn(shape, generator=generator)
    state = torch.get_rng_state()
    seconds: dict[Precision, list[float]] = {"float32": [], "bfloat16": []}
    for _ in range(ROUNDS + 1):
        for precision in seconds:
            seconds[precision].append(_step(trial, images, precision))
    torch.set_rng_state(state)
    ratio = statistics.median(seconds["float32"][1:]) / statistics.median(seconds["bfloat16"][1:])
    chosen: Precision = "bfloat16" if ratio > WORTH else "float32"
    return chosen, f"measured: a bfloat16 step is {ratio:.2f} times as fast as a float32 step"


def _step(model: nn.Module, images: torch.Tensor, precision: Precision) -> float:
    start = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        loss = model(images).float().square().mean()
    loss.backward()
    model.zero_grad(set_to_none=True)
    return time.perf_counter() - start
