"""What DETR costs: parameters, arithmetic and memory, found by running it on tensors without storage."""

from functools import cache

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from patchword.model.base import Size
from patchword.model.cost import Cost
from patchword.model.detr.config import DetrConfig
from patchword.model.detr.model import DETR

_FLOAT = 4


@cache
def cost(config: DetrConfig, size: Size) -> Cost:
    """For an image of (h, w). parameters: without the trunk's frozen norms. tokens: cells that the encoder reads."""
    detr = _without_storage(config).requires_grad_(False)
    counter = FlopCounterMode(display=False)
    with counter:
        detr(_image(config, size))
    rows, columns = config.trunk.grid_of(size)
    parameters = sum(weight.numel() for weight in detr.parameters())
    return Cost(parameters=parameters, flops=counter.get_total_flops(), tokens=rows * columns)


@cache
def step_bytes(config: DetrConfig, size: Size, *, frozen: int = 0) -> int:
    """What the trunk keeps of an image of (h, w) for the backward pass, in float32; the Transformer adds little to it.

    frozen: parts of the trunk that do not learn, from the front, as `Trunk` of the training settings: the root, then the stages.
    """
    trunk = _without_storage(config).trunk
    for part in (trunk.root, *trunk.stages)[:frozen]:
        part.requires_grad_(False)
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        # Weights are kept as well, but are there anyway.
        if not isinstance(tensor, nn.Parameter) and tensor.ndim == 4:
            kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        trunk(_image(config, size))
    return sum(tensor.numel() * _FLOAT for tensor in kept.values())


def held_bytes(parameters: int, method: str) -> int:
    """Weights, gradients, their average and the optimiser's state, as `model/memory.py`."""
    return _FLOAT * parameters * (4 if method in ("muon", "sgd", "lars") else 5)


def _without_storage(config: DetrConfig) -> DETR:
    with torch.device("meta"):
        return DETR(config)


def _image(config: DetrConfig, size: Size) -> Tensor:
    return torch.empty(1, config.trunk.channels, *size, device="meta")
