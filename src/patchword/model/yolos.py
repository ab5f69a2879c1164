"""YOLOS: a plain ViT with detection tokens, each of which becomes a class and a box.

Shapes: B images, Q detection tokens, C classes.
Source: Fang et al. 2021 (arXiv 2106.00666); hustvl/YOLOS, models/detector.py.
"""

import torch
from torch import Tensor, nn

from patchword.errors import SettingsError
from patchword.model.detection import Batch, DetectionOutput, HeadMLP, Images, by_size, init_linear
from patchword.model.vit import ViT
from patchword.model.yolos_config import YolosConfig


class YOLOS(nn.Module):
    """A detector on a ViT.

    Args:
        config: the backbone and the number of classes.
        generator: source of the random initial weights.
        vit: the backbone, if it is built already.
    """

    def __init__(
        self, config: YolosConfig, generator: torch.Generator | None = None, vit: ViT | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.backbone = ViT(config.backbone, generator) if vit is None else vit
        self.class_head = HeadMLP(config.backbone.dim, config.num_classes + 1)
        self.box_head = HeadMLP(config.backbone.dim, 4)
        if self.backbone.patch_embed.proj.weight.device.type != "meta":
            for module in (*self.class_head.modules(), *self.box_head.modules()):
                if isinstance(module, nn.Linear):
                    init_linear(module, generator)

    def forward(self, images: Images) -> DetectionOutput:
        """Predict classes and boxes in one layer.

        Args:
            images: a tensor [B, channels, H, W]; a list of images [channels, h, w] of any sizes; or a `Batch`.

        In a list, each image is processed with its own size, and its answer does not depend on the others. In a `Batch`,
        padding takes part in attention, as in the source: an image's answer then depends on how far it is padded.
        """
        if isinstance(images, Batch):
            images = images.images
        if isinstance(images, Tensor):
            return self._heads(self._queries(images))
        if not images:
            raise SettingsError("a batch of no images", "give at least one image")
        found: dict[int, Tensor] = {}
        for indices, group in by_size(images):
            found |= dict(zip(indices, self._queries(group), strict=True))
        return self._heads(torch.stack([found[index] for index in range(len(images))]))

    def _queries(self, images: Tensor) -> Tensor:
        """The detection tokens after the backbone: [B, Q, D]."""
        return self.backbone.forward_features(images)[:, -self.config.num_queries :]

    def _heads(self, queries: Tensor) -> DetectionOutput:
        layers = queries[None]
        return DetectionOutput(self.class_head(layers), self.box_head(layers).sigmoid())
