"""A small ResNet to compare with a small ViT: images [B, C, H, W] → logits [B, classes].

Source: He et al. 2016 (arXiv 1512.03385); its unit is that of the hybrids and of DETR (`model/bottleneck.py`).
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from patchword.model.bottleneck import Bottleneck, ConvNorm

Padding = Literal["zeros", "replicate", "reflect"]


class SmallResNet(nn.Module):
    """A 3 x 3 convolution, then two stages of two bottlenecks, the mean over all places, and a linear head.

    Args:
        channels, classes: of images and output. width: channels of the first stage; the second halves the map and
            doubles them. padding: of every 3 x 3 convolution.
        generator: source of the initial weights.
    """

    def __init__(
        self,
        channels: int = 1,
        classes: int = 10,
        width: int = 64,
        padding: Padding = "zeros",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.padding = padding
        self.root = _conv(channels, width, 3, 1, padding)
        self.root_norm = nn.BatchNorm2d(width)
        self.stages = nn.ModuleList(
            (
                nn.Sequential(_unit(width, width, 1, padding), _unit(width, width, 1, padding)),
                nn.Sequential(_unit(width, 2 * width, 2, padding), _unit(2 * width, 2 * width, 1, padding)),
            )
        )
        self.head = nn.Linear(2 * width, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(
                    module.weight, mode="fan_out", nonlinearity="relu", generator=generator
                )
        nn.init.normal_(self.head.weight, std=0.02, generator=generator)
        nn.init.zeros_(self.head.bias)

    @property
    def layers(self) -> list[tuple[int, int]]:
        """(kernel, stride) of the convolutions on the longest path."""
        return [(3, 1), *[(3, 1)] * 2, (3, 2), (3, 1)]

    def features(self, images: Tensor, stages: int = 2) -> Tensor:
        """The map [B, channels, h, w] after the root and so many stages."""
        x = F.relu(self.root_norm(self.root(images)))
        for stage in self.stages[:stages]:
            x = stage(x)
        return x

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(images).mean(dim=(2, 3)))
        return logits


def _unit(inputs: int, outputs: int, stride: int, padding: Padding) -> Bottleneck:
    middle = outputs // 4
    proj: ConvNorm | None = None
    if stride != 1 or inputs != outputs:
        proj = _conv(inputs, outputs, 1, stride, padding), nn.BatchNorm2d(outputs)
    return Bottleneck(
        (_conv(inputs, middle, 1, 1, padding), nn.BatchNorm2d(middle)),
        (_conv(middle, middle, 3, stride, padding), nn.BatchNorm2d(middle)),
        (_conv(middle, outputs, 1, 1, padding), nn.BatchNorm2d(outputs)),
        proj,
    )


def _conv(inputs: int, outputs: int, kernel: int, stride: int, padding: Padding) -> nn.Conv2d:
    return nn.Conv2d(
        inputs, outputs, kernel, stride=stride, padding=kernel // 2, padding_mode=padding, bias=False
    )
