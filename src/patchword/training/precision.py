"""Choose float32 or bfloat16: whichever is measured as faster on this machine, for this model and batch."""

import copy
import statistics
import time
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from patchword.model.cost import cost
from patchword.training.config import Compile, Precision, TrainSettings
from patchword.training.workload import share_of_a_pass

# bfloat16 must be faster by this factor; a small gain is not worth the lower precision.
WORTH = 1.15
ROUNDS = 3
# Limit for one forward pass, so that large models are measured on fewer images.
TRIAL_FLOPS = 2e10


def choose_precision(
    model: nn.Module, settings: TrainSettings, device: torch.device
) -> tuple[Precision, str]:
    """Return the precision and the reason. Runs a few steps on random images; the model is not changed."""
    if settings.model is None:
        # Corners of boxes in bfloat16 are off by pixels.
        return "float32", "as DETR was published; -o run.precision=bfloat16 is less exact"
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported():
            return "bfloat16", "supported by the GPU"
        return "float16", "the GPU does not support bfloat16; the loss is scaled"
    if device.type != "cpu":
        return "float32", "default on this device"
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return "float32", "this CPU has no fast bfloat16"
    trial = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(0)
    images_per_step = max(1, min(settings.run.batch_size, int(TRIAL_FLOPS / cost(settings.vit).flops)))
    shape = (images_per_step, settings.vit.image.channels, *settings.view_size)
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


# Compiling takes about a minute; a run this long on a GPU of this speed repays it.
REPAID_S, GPU_FLOPS = 300.0, 1e14


def choose_compile(settings: TrainSettings, num_images: int, device: torch.device) -> tuple[Compile, str]:
    """Return "always" or "never", and the reason."""
    if device.type != "cuda":
        return "never", "on this device it takes longer than it saves"
    if settings.model is None:
        return "never", "views have different sizes, and each would be compiled"
    each = cost(settings.vit).flops * share_of_a_pass(settings)
    work = 3 * each * num_images * settings.schedule.epochs
    if work / GPU_FLOPS > REPAID_S:
        return "always", "the run is long enough to repay it"
    return "never", "the run is too short to repay it"


def _step(model: nn.Module, images: torch.Tensor, precision: Precision) -> float:
    start = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        loss = model(images).float().square().mean()
    loss.backward()
    model.zero_grad(set_to_none=True)
    return time.perf_counter() - start


def autocast(
    device: torch.device, precision: Precision, *, enabled: bool = True
) -> AbstractContextManager[Any]:
    """Compute matrix products in this precision."""
    dtype = torch.float16 if precision == "float16" else torch.bfloat16
    return torch.autocast(device.type, dtype, enabled=enabled and precision != "float32")


class LossScale:
    """Multiplies the loss so that float16 gradients do not vanish; halved after an overflow, doubled after 2,000 steps without.

    Both tensors stay on the device. Source: Micikevicius et al. 2018 (arXiv 1710.03740), section 3.2.
    """

    START, LEAST, STEPS = 65536.0, 1.0, 2000

    def __init__(self, device: torch.device) -> None:
        self.scale = torch.full((1,), self.START, device=device)
        self.tracker = torch.zeros(1, dtype=torch.int32, device=device)

    def update(self, found_inf: Tensor) -> None:
        torch._amp_update_scale_(self.scale, self.tracker, found_inf.view(1), 2.0, 0.5, self.STEPS)

    def state_dict(self) -> dict[str, Tensor]:
        return {"scale": self.scale, "tracker": self.tracker}

    def load_state_dict(self, stored: dict[str, Tensor]) -> None:
        self.scale.copy_(stored["scale"])
        self.tracker.copy_(stored["tracker"])
