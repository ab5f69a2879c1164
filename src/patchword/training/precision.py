"""float32 or bfloat16: whichever is measured faster here, for this model and batch."""

import copy
import statistics
import time

import torch
from torch import nn

from patchword.model.cost import cost
from patchword.training.config import Precision, TrainSettings

# bfloat16 must win by this much: a close race is not worth fewer digits.
WORTH = 1.15
ROUNDS = 3
# Of one forward pass at most: a large model is measured on fewer images, not for minutes.
TRIAL_FLOPS = 2e10


def choose_precision(
    model: nn.Module, settings: TrainSettings, device: torch.device
) -> tuple[Precision, str]:
    """The precision and the reason in words. Takes some steps on random images; the model is not changed."""
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported():
            return "bfloat16", "the GPU has it"
        return "float32", "the GPU has no bfloat16"
    if device.type != "cpu":
        return "float32", "kept on this device"
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return "float32", "this processor has no fast bfloat16"
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
    return chosen, f"measured here: a step in bfloat16 is {ratio:.2f} times as fast as in float32"


def _step(model: nn.Module, images: torch.Tensor, precision: Precision) -> float:
    start = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        loss = model(images).float().square().mean()
    loss.backward()
    model.zero_grad(set_to_none=True)
    return time.perf_counter() - start
