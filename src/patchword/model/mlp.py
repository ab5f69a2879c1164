"""The MLP of a block, plain or gated."""

import torch.nn.functional as F
from torch import Tensor, nn

from patchword.model.config import Activation, ViTConfig
from patchword.model.linear import Linear, linear_gelu
from patchword.model.norms import make_norm


class GELU(nn.Module):
    """x · Φ(x), exact."""

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x)


class GELUTanh(nn.Module):
    """The tanh approximation of GELU, the default in flax and therefore in Google's models."""

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x, approximate="tanh")


class QuickGELU(nn.Module):
    """x · sigmoid(1.702 x), as in OpenAI's CLIP."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (1.702 * x).sigmoid()


ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "gelu": GELU,
    "gelu_tanh": GELUTanh,
    "quick_gelu": QuickGELU,
    "silu": nn.SiLU,
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "leaky_relu": nn.LeakyReLU,
    "hard_swish": nn.Hardswish,
    "mish": nn.Mish,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
}


class MLP(nn.Module):
    """fc2(norm(act(fc1 x))), or gated: fc2(norm(act(gate) · value)), where fc1 computes gate, then value.

    Shapes: x [..., D] → [..., D]; fc1.weight [M, D], gated [2M, D]; fc2.weight [D, M].
    """

    def __init__(self, config: ViTConfig, hidden: int, *, gated: bool) -> None:
        super().__init__()
        self.gated = gated
        # fc1 and act stay separate modules, so that hooks on them still receive their inputs and outputs.
        self.fused = {"gelu": "none", "gelu_tanh": "tanh"}.get(config.mlp.activation)
        self.fc1 = Linear(config.dim, hidden * (2 if gated else 1), bias=config.mlp.bias)
        self.act = ACTIVATIONS[config.mlp.activation]()
        self.norm = make_norm(config.norm, hidden) if config.mlp.inner_norm else nn.Identity()
        self.dropout = nn.Dropout(config.block.dropout)
        self.fc2 = Linear(hidden, config.dim, bias=config.mlp.bias)

    def forward(self, x: Tensor) -> Tensor:
        if self.gated:
            gate, value = self.fc1(x).chunk(2, dim=-1)
            x = self.act(gate) * value
        elif (
            self.fused is not None
            and type(self.fc1) is Linear  # not one with an adapter
            and not (self.fc1._forward_hooks or self.act._forward_hooks)
        ):
            x = linear_gelu(x, self.fc1.weight, self.fc1.bias, self.fused)
        else:
            x = self.act(self.fc1(x))
        out: Tensor = self.dropout(self.fc2(self.dropout(self.norm(x))))
        return out
