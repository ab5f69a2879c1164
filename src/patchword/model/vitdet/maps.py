"""Maps of several scales from the one map of a plain ViT.

Source: Li et al. 2022, "Exploring Plain Vision Transformer Backbones for Object Detection" (arXiv 2203.16527), the simple pyramid.
"""

from torch import Tensor, nn

from patchword.model.norms import LayerNorm
from patchword.model.vitdet.config import VitDetConfig


class ChannelNorm(nn.Module):
    """Layer norm over the channels of a map [B, d, h, w]."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = LayerNorm(dim, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = self.norm(x.permute(0, 2, 3, 1))
        return normed.permute(0, 3, 1, 2)


class Maps(nn.Module):
    """The backbone's patches [B, D, h, w] → one map [B, d, h · scale, w · scale] for each scale, finest first."""

    def __init__(self, config: VitDetConfig) -> None:
        super().__init__()
        self.paths = nn.ModuleList(self._path(config, scale) for scale in config.scales)

    @staticmethod
    def _path(config: VitDetConfig, scale: float) -> nn.Module:
        before, dim = config.vit.dim, config.width
        resize: list[nn.Module] = []
        if scale == 2:
            resize = [nn.ConvTranspose2d(before, dim, 2, stride=2), ChannelNorm(dim), nn.GELU()]
            before = dim
        elif scale == 0.5:
            # An odd side keeps its last cell.
            resize = [nn.MaxPool2d(2, ceil_mode=True)]
        return nn.Sequential(
            *resize,
            nn.Conv2d(before, dim, 1, bias=False),
            ChannelNorm(dim),
            nn.Conv2d(dim, dim, 3, padding=1, bias=False),
            ChannelNorm(dim),
        )

    def forward(self, patches: Tensor) -> list[Tensor]:
        return [path(patches) for path in self.paths]
