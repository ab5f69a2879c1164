"""The ResNet in front of DETR's Transformer: images [B, C, H, W] → features [B, width, h, w].

Sources: He et al. 2016 (arXiv 1512.03385); facebookresearch/detr, models/backbone.py; torchvision, models/resnet.py, whose
stride is on the 3 x 3 convolution.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from patchword.model.bottleneck import Bottleneck, ConvNorm
from patchword.model.detr.config import TrunkConfig


class FrozenBatchNorm(nn.Module):
    """weight · (x - mean) / sqrt(variance + eps) + bias, for each channel; nothing of it is trained or updated."""

    weight: Tensor
    bias: Tensor
    mean: Tensor
    variance: Tensor

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        for name, value in (("weight", 1.0), ("bias", 0.0), ("mean", 0.0), ("variance", 1.0)):
            self.register_buffer(name, torch.full((channels,), value))

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.mean, self.variance, self.weight, self.bias, training=False, eps=self.eps)


class Trunk(nn.Module):
    """Root convolution, norm, relu and max pool, then four stages of bottlenecks; the last stage is returned."""

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        self.config = config
        self.root = _conv(config.channels, config.root, 7, stride=2)
        self.root_norm = FrozenBatchNorm(config.root, config.eps)
        self.stages = nn.ModuleList()
        inputs = config.root
        for stage, units in enumerate(config.units):
            middle, outputs = config.middle[stage], config.outputs[stage]
            dilated = config.dilation and stage == len(config.units) - 1
            blocks = nn.Sequential()
            for unit in range(units):
                stride = 2 if stage and not unit and not dilated else 1
                # The first unit of a dilated stage has the dilation of the stage before.
                spread = 2 if dilated and unit else 1
                blocks.append(
                    _bottleneck(inputs, middle, outputs, config.eps, stride=stride, dilation=spread)
                )
                inputs = outputs
            self.stages.append(blocks)

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """He normal by the outputs of each convolution, as torchvision."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(
                    module.weight, mode="fan_out", nonlinearity="relu", generator=generator
                )

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.root_norm(self.root(images)))
        x = F.max_pool2d(x, kernel_size=3, stride=2, padding=1)
        for stage in self.stages:
            x = stage(x)
        return x


def _bottleneck(
    inputs: int, middle: int, outputs: int, eps: float, *, stride: int, dilation: int
) -> Bottleneck:
    proj: ConvNorm | None = None
    if stride != 1 or inputs != outputs:
        proj = _conv(inputs, outputs, 1, stride), FrozenBatchNorm(outputs, eps)
    return Bottleneck(
        (_conv(inputs, middle, 1), FrozenBatchNorm(middle, eps)),
        (_conv(middle, middle, 3, stride, dilation), FrozenBatchNorm(middle, eps)),
        (_conv(middle, outputs, 1), FrozenBatchNorm(outputs, eps)),
        proj,
    )


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    padding = (kernel // 2) * dilation
    return nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=padding, dilation=dilation, bias=False)
