"""A ResNet in front of the patches (the hybrids of Dosovitskiy et al. 2021, section 3.1).

    images [B, C, H, W] → features [B, channels, h, w], from which the patches are cut

Group norm replaces batch norm, and the weight of every convolution is standardised when it is
used (Kolesnikov et al. 2020, arXiv 1912.11370). Source: google-research/vision_transformer,
`models_resnet.py`; jeonsworld/ViT-pytorch, `models/modeling_resnet.py`, and timm's
`resnetv2.py` for their variants.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from patchword.model.bottleneck import Bottleneck
from patchword.model.kinds import ResNetStem

CHANNEL_EPS = 1e-5  # jeonsworld's norm of each channel


class StandardisedConv(nn.Conv2d):
    """A convolution without bias; its weight is scaled to mean 0 and deviation 1 per output channel.

    config.weight_eps: whether epsilon is added to the "deviation" (Google) or the "variance" (jeonsworld).
    config.padding: TensorFlow's "same" pads an odd row at the bottom and the right; torch's is "symmetric".
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, config: ResNetStem, stride: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride=stride, bias=False)
        self.config = config

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        x = F.pad(
            x, (self.config.pads(x.shape[3], kernel, stride) + self.config.pads(x.shape[2], kernel, stride))
        )
        return F.conv2d(x, self._standardised(), stride=stride)

    def _standardised(self) -> Tensor:
        weight = self.weight.flatten(1)
        centred = weight - weight.mean(dim=1, keepdim=True)
        variance = centred.square().mean(dim=1, keepdim=True)
        if self.config.weight_eps == "deviation":
            return (centred / (variance.sqrt() + self.config.small)).view_as(self.weight)
        return (centred * (variance + self.config.small).rsqrt()).view_as(self.weight)


class GroupNorm(nn.GroupNorm):
    """Like torch's, but accepts groups of one value (tiny images): the output is then the bias alone."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


class StemBottleneck(Bottleneck):
    """A unit of the hybrids' stem; a stage's first unit projects its input."""

    def __init__(self, inputs: int, middle: int, config: ResNetStem, *, first: bool, stride: int) -> None:
        groups, outputs = ResNetStem.GROUPS, 4 * middle
        by_channel = config.proj_norm == "channel"
        proj_norm = GroupNorm(
            outputs if by_channel else groups, outputs, eps=CHANNEL_EPS if by_channel else config.norm_eps
        )
        super().__init__(
            (StandardisedConv(inputs, middle, 1, config), GroupNorm(groups, middle, eps=config.norm_eps)),
            (
                StandardisedConv(middle, middle, 3, config, stride),
                GroupNorm(groups, middle, eps=config.norm_eps),
            ),
            (StandardisedConv(middle, outputs, 1, config), GroupNorm(groups, outputs, eps=config.norm_eps)),
            (StandardisedConv(inputs, outputs, 1, config, stride), proj_norm) if first else None,
        )


class ResNetFeatures(nn.Module):
    """Root convolution, norm, relu, max pool, then stages of bottlenecks: images → features."""

    def __init__(self, config: ResNetStem, channels: int) -> None:
        super().__init__()
        self.config = config
        self.root = StandardisedConv(channels, config.width, 7, config, stride=2)
        self.root_norm = GroupNorm(ResNetStem.GROUPS, config.width, eps=config.norm_eps)
        self.stages = nn.ModuleList()
        inputs = config.width
        for stage, units in enumerate(config.units):
            middle = config.width * 2**stage
            blocks = nn.Sequential()
            for unit in range(units):
                stride = 2 if stage and not unit else 1
                blocks.append(StemBottleneck(inputs, middle, config, first=not unit, stride=stride))
                inputs = 4 * middle
            self.stages.append(blocks)

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.root_norm(self.root(images)))
        if self.config.padding == "same":
            pads = self.config.pads(x.shape[3], 3, 2) + self.config.pads(x.shape[2], 3, 2)
            x = F.pad(x, pads, value=float("-inf"))
        x = F.max_pool2d(x, kernel_size=3, stride=2)
        for stage in self.stages:
            x = stage(x)
        return x
