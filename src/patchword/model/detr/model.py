"""DETR: ResNet features, a Transformer over their cells, learned queries that each become a class and a box.

    images → trunk → project → encoder → decoder → class head, box head

Shapes: B images, h x w cells (N of them), Q queries, D dim, L decoder layers, C classes.
Source: Carion et al. 2020 (arXiv 2005.12872); facebookresearch/detr, models/detr.py.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from patchword.errors import SettingsError
from patchword.model.detection import Batch, DetectionOutput, HeadMLP, Images, by_size, init_linear
from patchword.model.detr.config import DetrConfig
from patchword.model.detr.positions import LearnedPositions, SinePositions
from patchword.model.detr.transformer import Decoder, Encoder
from patchword.model.detr.trunk import Trunk
from patchword.model.linear import Linear


class DETR(nn.Module):
    """A detector that answers with a set of boxes.

    Args:
        config: the architecture.
        generator: source of the random initial weights.
    """

    def __init__(self, config: DetrConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        self.trunk = Trunk(config.trunk)
        self.project = nn.Conv2d(config.trunk.outputs[-1], config.dim, kernel_size=1)
        self.positions = (SinePositions if config.positions == "sine" else LearnedPositions)(config.dim)
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.queries = nn.Parameter(torch.empty(config.num_queries, config.dim))
        self.class_head = Linear(config.dim, config.num_classes + 1)
        self.box_head = HeadMLP(config.dim, 4)
        if self.queries.device.type != "meta":
            self.init_weights(generator)

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Initialise all weights randomly, as the source.

        Matrices of the Transformer: Glorot uniform, its biases as torch's. Queries: standard normal. Convolutions of the
        trunk: He normal. Heads and projection: torch's default.
        """
        self.trunk.init_weights(generator)
        nn.init.normal_(self.queries, generator=generator)
        for module in (self.project, *self.class_head.modules(), *self.box_head.modules()):
            if isinstance(module, nn.Linear | nn.Conv2d):
                init_linear(module, generator)
        if isinstance(self.positions, LearnedPositions):
            self.positions.reset(generator)
        for part in (self.encoder, self.decoder):
            for name, module in part.named_modules():
                if isinstance(module, nn.LayerNorm):
                    module.reset_parameters()
                elif isinstance(module, nn.Linear):
                    init_linear(module, generator)
                    nn.init.xavier_uniform_(module.weight, generator=generator)
                    if "attention" in name:
                        nn.init.zeros_(module.bias)

    def forward(self, images: Images) -> DetectionOutput:
        """Predict classes and boxes.

        Args:
            images: a tensor [B, channels, H, W]; a list of images [channels, h, w] of any sizes; or a `Batch`.

        In a list, each image passes the trunk with its own size, and its answer does not depend on the others. In a `Batch`,
        the convolutions see the padding, as in the source: an image's answer then depends on how far it is padded.
        """
        features, padding = self.features(images)
        memory, positions = self.encode(features, padding)
        return self.heads(self.decode(memory, positions, padding))

    def features(self, images: Images) -> tuple[Tensor, Tensor | None]:
        """The trunk's features [B, width, h, w], and which cells are padding [B, h, w] (None if no cell is).

        Raises: SettingsError if the images have another number of channels.
        """
        if isinstance(images, Tensor):
            images = Batch(images)
        if isinstance(images, Batch):
            self._check(images.images)
            found: Tensor = self.trunk(images.images)
            return found, None if images.padding is None else shrink_padding(images.padding, found.shape[-2:])
        return self._one_by_one(images)

    def encode(self, features: Tensor, padding: Tensor | None) -> tuple[Tensor, Tensor]:
        """The encoder's output [B, N, D] and the positions of the cells [B, N, D]."""
        if padding is None:
            # The same positions for every image.
            shape = (1, *features.shape[-2:])
            placed = self.positions(torch.zeros(shape, dtype=torch.bool, device=features.device))
        else:
            placed = self.positions(padding)
            padding = padding.flatten(1)
        tokens = self.project(features).flatten(2).transpose(1, 2)
        positions = placed.to(tokens.dtype)
        memory: Tensor = self.encoder(tokens, positions, padding)
        return memory, positions

    def decode(self, memory: Tensor, positions: Tensor, padding: Tensor | None) -> Tensor:
        """The queries after every decoder layer, normed: [L, B, Q, D]."""
        flat = None if padding is None else padding.flatten(1)
        decoded: Tensor = self.decoder(self.queries, memory, positions, flat)
        return decoded

    def heads(self, decoded: Tensor) -> DetectionOutput:
        """Classes and boxes of queries [L, B, Q, D]."""
        return DetectionOutput(self.class_head(decoded), self.box_head(decoded).sigmoid())

    def _one_by_one(self, images: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
        """The features of each image by itself, padded to the largest."""
        if not images:
            raise SettingsError("a batch of no images", "give at least one image")
        found: dict[int, Tensor] = {}
        for indices, group in by_size(images):
            self._check(group)
            found |= dict(zip(indices, self.trunk(group), strict=True))
        listed = [found[index] for index in range(len(images))]
        rows, columns = (max(one.shape[axis] for one in listed) for axis in (1, 2))
        features = torch.stack(
            [F.pad(one, (0, columns - one.shape[2], 0, rows - one.shape[1])) for one in listed]
        )
        if len({one.shape for one in listed}) == 1:
            return features, None
        padding = torch.ones((len(listed), rows, columns), dtype=torch.bool, device=features.device)
        for index, one in enumerate(listed):
            padding[index, : one.shape[1], : one.shape[2]] = False
        return features, padding

    def _check(self, images: Tensor) -> None:
        channels = self.config.trunk.channels
        if images.ndim != 4 or images.shape[1] != channels or not images.numel():
            raise SettingsError(
                f"the detector expects images [batch, {channels} channels, height, width], not {list(images.shape)}",
                f"pass images with {channels} channels and at least one pixel",
            )


def shrink_padding(padding: Tensor, grid: Sequence[int]) -> Tensor:
    """padding [B, H, W] of pixels → [B, h, w] of cells: that of the pixel at floor(i · H / h), floor(j · W / w)."""
    cells: Tensor = F.interpolate(padding[None].float(), size=tuple(grid))[0].bool()
    return cells
