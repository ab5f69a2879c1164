"""The unit of a ResNet (He et al. 2016, arXiv 1512.03385, figure 5), for every kind of convolution and norm."""

import torch.nn.functional as F
from torch import Tensor, nn

ConvNorm = tuple[nn.Module, nn.Module]


class Bottleneck(nn.Module):
    """relu(x' + norm3(conv3(relu(norm2(conv2(relu(norm1(conv1 x)))))))).

    x' is x, or norm(conv x) if `proj` is given, for a unit that changes the width or the size.
    """

    def __init__(
        self, first: ConvNorm, second: ConvNorm, third: ConvNorm, proj: ConvNorm | None = None
    ) -> None:
        super().__init__()
        self.conv1, self.norm1 = first
        self.conv2, self.norm2 = second
        self.conv3, self.norm3 = third
        self.proj: nn.Module | None
        self.proj_norm: nn.Module | None
        self.proj, self.proj_norm = proj or (None, None)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        y = F.relu(self.norm2(self.conv2(y)))
        y = self.norm3(self.conv3(y))
        if self.proj is not None and self.proj_norm is not None:
            x = self.proj_norm(self.proj(x))
        return F.relu(x + y)
