"""Draw every weight anew to unit gain, so that zero heads, LayerScale and tiny tokens hide nothing.

How a weight is used says what it is, not its name: a factor of a product, a gain, or something added.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from patchword.diagnosis.tape import Op, Tape
from patchword.diagnosis.walk import weights_in

PRODUCTS = frozenset(
    (
        "linear", "conv1d", "conv2d", "conv3d", "matmul", "bmm", "mm", "einsum", "addmm", "baddbmm",
        "tensordot", "multi_head_attention_forward",
    )
)  # fmt: skip
_VIEWS = frozenset(
    (
        "view", "reshape", "expand", "expand_as", "repeat", "transpose", "permute", "unsqueeze", "squeeze", "getitem",
        "T", "mT", "flatten", "chunk", "split", "unbind", "to", "double", "type_as", "contiguous", "data", "detach",
        "clone", "cat", "stack", "unflatten", "repeat_interleave", "interpolate", "parameter", "type", "float",
    )
)  # fmt: skip
Role = tuple[Literal["matrix", "gain", "bias", "added"], int]
_SMALL_BIAS, _ADDED = 0.1, 0.5


def roles(tape: Tape, module: nn.Module) -> dict[str, Role]:
    """What each weight is used for, with the number of summands of a product, by path. Unused weights are missing."""
    weights = {id(weight): path for path, weight in weights_in(module).items()}
    found: dict[str, Role] = {}
    views: dict[int, str] = dict(weights)
    for op in tape.ops:
        for tensor in op.inputs:
            path = views.get(id(tensor))
            if path is None:
                continue
            if op.name in _VIEWS:
                for output in op.outputs:
                    views.setdefault(id(output), path)
                if op.name in ("cat", "stack"):
                    found.setdefault(path, ("added", 0))
            else:
                found.setdefault(path, _role(op, tensor))
    return found


def _role(op: Op, tensor: Tensor) -> Role:
    if op.name in PRODUCTS:
        return ("matrix", _summands(op, tensor)) if tensor.ndim > 1 else ("bias", 0)
    if "norm" in op.name:
        positions = [i for i, given in enumerate(op.inputs) if given is tensor]
        return ("gain", 0) if positions and positions[0] == _gain_position(op) else ("bias", 0)
    if op.name in ("mul", "div", "pow", "exp"):
        return "gain", 0
    return "added", 0


def _gain_position(op: Op) -> int:
    """Index among the inputs: batch norm has its two running averages in front."""
    return 3 if op.name == "batch_norm" and len(op.inputs) > 3 else 1


def _summands(op: Op, tensor: Tensor) -> int:
    if op.name in ("linear", "conv1d", "conv2d", "conv3d"):
        return max(tensor[0].numel(), 1)
    if op.name == "multi_head_attention_forward":
        return tensor.shape[-1]
    if op.name == "einsum" and isinstance(op.arguments[0], str) and "->" in op.arguments[0]:
        given, _, result = op.arguments[0].replace(" ", "").partition("->")
        terms = given.split(",")
        position = next((i for i, t in enumerate(op.inputs) if t is tensor), 0)
        if position < len(terms) and len(terms[position]) == tensor.ndim:
            sizes = zip(terms[position], tensor.shape, strict=True)
            return max(math.prod(size for letter, size in sizes if letter not in result), 1)
    left = bool(op.inputs) and op.inputs[0] is tensor
    return tensor.shape[-1] if left else tensor.shape[-2]


@torch.no_grad()
def redraw(module: nn.Module, used: dict[str, Role], seed: int) -> None:
    """Draw the weights: products keep the second moment of what they take; gains stay around one; added vectors matter."""
    generator = torch.Generator().manual_seed(seed)
    for path, weight in weights_in(module).items():
        role = used.get(path)
        if role is None or not weight.is_floating_point():
            continue
        kind, summands = role
        drawn = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
        if kind == "matrix":
            drawn *= summands**-0.5
        elif kind == "bias":
            drawn *= _SMALL_BIAS
        elif kind == "added":
            drawn *= _ADDED
        elif weight.numel() < 2 or (weight.numel() < 32 and weight.ndim > 1):
            continue  # a temperature, not a gain of channels
        else:
            drawn = 1 + 0.3 * drawn.tanh()
            drawn *= drawn.square().mean().rsqrt()
        weight.copy_(drawn)
