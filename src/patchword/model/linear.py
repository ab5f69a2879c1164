"""The linear layer, using the faster of torch's two CPU matrix products.

Torch computes float32 products with MKL, which does not use AVX-512 on processors of other
makers than Intel. oneDNN, which torch includes for convolutions, does. On an AMD EPYC with
AVX-512 it is 1.9 to 2.3 times as fast for every shape of a ViT, with the same rounding error
(docs/decisions/0004). In all other cases (Intel, GPU, other dtypes, autocast, compile, export,
functorch) this is exactly `torch.nn.functional.linear`.
"""

import functools
import platform
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# With fewer rows, the overhead of the call exceeds the time saved.
MIN_ROWS = 16


class Linear(nn.Linear):
    """x [..., in] → x weightᵀ + bias [..., out]; parameters, state dict and init are those of nn.Linear."""

    def forward(self, x: Tensor) -> Tensor:
        return self.outputs(x, self.bias)

    def outputs(self, x: Tensor, bias: Tensor | None, part: slice | None = None) -> Tensor:
        """x [..., in] → the outputs `part`, or all of them, with this bias instead of the layer's own."""
        return linear(x, self.weight if part is None else self.weight[part], bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear`, differentiable any number of times."""
    if not _suits(x, weight):
        return F.linear(x, weight, bias)
    if torch.is_grad_enabled():
        product: Tensor = _Product.apply(x, weight, bias)
        return product
    return _onednn(x, weight, bias)


def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor | None, approximate: str) -> Tensor:
    """gelu(linear(x)), fused into one operation if no gradient is needed."""
    if torch.is_grad_enabled() or not _suits(x, weight):
        return F.gelu(linear(x, weight, bias), approximate=approximate)
    return _onednn(x, weight, bias, "gelu", approximate)


class _Product(torch.autograd.Function):
    """Adds the gradient that oneDNN's product lacks: two more products."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        # What is frozen needs no inputs for its gradient.
        of_x, of_weight, _ = ctx.needs_input_grad
        ctx.save_for_backward(x if of_weight else None, weight if of_x else None)
        return _onednn(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        (gradient,) = gradients
        x, weight = ctx.saved_tensors
        rows = gradient.flatten(0, -2)
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad
        of_x = linear(gradient, weight.t()) if wants_x else None
        of_weight = linear(rows.t(), x.flatten(0, -2).t()) if wants_weight else None
        return of_x, of_weight, rows.sum(0) if wants_bias else None


def _onednn(
    x: Tensor, weight: Tensor, bias: Tensor | None, activation: str = "none", algorithm: str = ""
) -> Tensor:
    # torch.compile uses this operator on CPUs; it has no public name.
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation, [], algorithm)
    return product


def _suits(x: Tensor, weight: Tensor) -> bool:
    return (
        # Checked first, so that a compiler traces nothing below: the cached function would break its graph.
        not torch.compiler.is_compiling()
        and x.is_cpu
        and x.dtype is torch.float32
        and weight.dtype is torch.float32
        and onednn_is_faster()
        and x.numel() >= MIN_ROWS * x.shape[-1]
        # Subclasses such as fake or sharded tensors have their own dispatch rules.
        and type(x) in (Tensor, nn.Parameter)
        and type(weight) in (Tensor, nn.Parameter)
        and torch._C._get_tracing_state() is None
        and not torch.is_autocast_enabled("cpu")
        and not torch._C._are_functorch_transforms_active()
    )


@functools.cache
def onednn_is_faster() -> bool:
    """Whether to use oneDNN, decided by processor and build, so that a machine always gives the same results.

    If both were timed instead, system load could change the last digit of a prediction.
    """
    mkldnn: Any = torch.backends.mkldnn
    mkl: Any = torch.backends.mkl
    has_operator = mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    wide = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return bool(has_operator and mkl.is_available() and wide and "Intel" not in _vendor())


def _vendor() -> str:
    """The maker of the processor, or "" if it is unknown."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next((line.partition(":")[2] for line in file if line.startswith("vendor_id")), "")
    except OSError:
        return platform.processor()
