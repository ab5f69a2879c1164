"""A detector on a plain ViT: the patches propose boxes, a short decoder refines the best of them.

    image → ViT → maps → a proposal at each cell → the best become queries → decoder → classes and boxes

It answers with a set: no suppression of overlapping boxes. Shapes: B images, N cells of all maps, Q queries, C classes, L layers.
Sources: Zhu et al. 2021 (arXiv 2010.04159), two-stage Deformable DETR; Zhao et al. 2024, RT-DETR (arXiv 2304.08069).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from patchword.model.linear import Linear
from patchword.model.matching import Targets
from patchword.model.norms import LayerNorm
from patchword.model.vit import ViT
from patchword.model.vitdet.config import VitDetConfig
from patchword.model.vitdet.decoder import BoxHead, DecoderLayer, box_encoding, logit
from patchword.model.vitdet.found import Found, Practised
from patchword.model.vitdet.maps import Maps
from patchword.model.vitdet.practice import practice
from patchword.model.vitdet.windows import encode

# Probability of a class at the start, so that the many cells without an object do not dominate (Lin et al. 2017).
PRIOR = 0.01
# Side of a proposal at the start, in cells of its map.
START_CELLS = 2.0
# What the probability of a cell beside a likelier one is multiplied by.
BESIDE = 0.1


class VitDet(nn.Module):
    """images [B, C, H, W], normalised → `Found`."""

    def __init__(
        self, config: VitDetConfig, vit: ViT | None = None, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.vit = vit or ViT(config.vit, generator)
        dim = config.width
        self.maps = Maps(config)
        self.cell_norm = nn.Sequential(Linear(dim, dim), LayerNorm(dim, eps=1e-6))
        self.cell_class, self.cell_box = Linear(dim, config.num_classes), BoxHead(dim)
        self.place = nn.Sequential(Linear(4 * (dim // 4), dim), nn.ReLU(), Linear(dim, dim))
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_layers))
        self.classes = nn.ModuleList(Linear(dim, config.num_classes) for _ in range(config.num_layers))
        self.moves = nn.ModuleList(BoxHead(dim) for _ in range(config.num_layers))
        # A model on `meta` is filled from a file; filling it at random there first takes seconds.
        if self.cell_class.weight.device.type != "meta":
            self.init_weights(generator)

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator | None) -> None:
        """Glorot uniform for everything but the backbone; classes start at a probability of 0.01."""
        backbone = set(self.vit.modules())
        for module in self.modules():
            if module in backbone:
                continue
            if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                nn.init.xavier_uniform_(module.weight, generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in self.modules():
            if module not in backbone and callable(reset := getattr(module, "reset", None)):
                reset(generator)
        for head in (self.cell_class, *self.classes):
            nn.init.constant_(head.bias, -math.log((1 - PRIOR) / PRIOR))

    def forward(
        self, images: Tensor, targets: Targets | None = None, generator: torch.Generator | None = None
    ) -> Found:
        """targets: the objects of the images, in training alone; they give the queries for practice, moved by `generator`.

        The other answers do not depend on them.
        """
        maps = self.features(images)
        cells, memory = self._cells(maps), torch.cat([m.flatten(2).transpose(1, 2) for m in maps], 1)
        proposed = self.cell_norm(memory)
        cell_logits = self.cell_class(proposed)
        cell_boxes = (self.cell_box(proposed).float() + logit(cells)).sigmoid()
        count = min(self.config.num_queries, memory.shape[1])
        ranking, chosen = ranks(cell_logits, maps).topk(count, 1)
        boxes = cell_boxes.detach().gather(1, chosen[..., None].expand(-1, -1, 4))
        extra = None
        if targets is not None and self.config.practice:
            grids = [(m.shape[-2], m.shape[-1]) for m in maps]
            extra = practice(targets.to(images.device), grids, self.config.practice, count, generator)
        if extra is not None:
            chosen, boxes = torch.cat((chosen, extra.cell), 1), torch.cat((boxes, extra.boxes), 1)
        x = proposed.gather(1, chosen[..., None].expand(-1, -1, proposed.shape[-1]))
        logits, refined = self._decode(x, boxes, maps, None if extra is None else extra.apart)
        practised = None
        if extra is not None:
            practised = Practised(
                logits[:, :, count:], refined[:, :, count:], extra.target, self.config.practice
            )
        answer = logits[:, :, :count], refined[:, :, :count]
        return Found(*answer, cell_logits, cell_boxes, cells, ranking, practised)

    def _decode(
        self, x: Tensor, boxes: Tensor, maps: list[Tensor], apart: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The answers of all layers [L, B, Q, C] and [L, B, Q, 4] of queries x [B, Q, d] at boxes [B, Q, 4]."""
        logits, refined = [], []
        for layer, classify, move in zip(self.layers, self.classes, self.moves, strict=True):
            place = self.place(box_encoding(boxes, self.config.width).to(x.dtype))
            x = layer(x, place, boxes, maps, apart)
            moved = (move(x).float() + logit(boxes)).sigmoid()
            logits.append(classify(x))
            refined.append(moved)
            boxes = moved.detach()
        return torch.stack(logits), torch.stack(refined)

    def features(self, images: Tensor) -> list[Tensor]:
        """The maps [B, d, h, w], finest first."""
        if self.config.window:
            tokens = encode(self.vit, images, self.config.window, self.config.num_global)
        else:
            tokens = self.vit.forward_features(images)
        patches = self.vit.split(tokens, self.vit.layout(images))["patches"]
        found: list[Tensor] = self.maps(patches.permute(0, 3, 1, 2))
        return found

    def _cells(self, maps: list[Tensor]) -> Tensor:
        """A box around each cell of each map, as shares of the image: [N, 4]."""
        found = []
        for feature in maps:
            height, width = feature.shape[-2:]
            y, x = torch.meshgrid(
                (torch.arange(height, device=feature.device) + 0.5) / height,
                (torch.arange(width, device=feature.device) + 0.5) / width,
                indexing="ij",
            )
            sides = (torch.full_like(x, START_CELLS / width), torch.full_like(x, START_CELLS / height))
            found.append(torch.stack((x, y, *sides), -1).flatten(0, 1))
        return torch.cat(found)


@torch.no_grad()
def ranks(cell_logits: Tensor, maps: list[Tensor]) -> Tensor:
    """By what the queries are chosen [B, N]: the probability of the likeliest class, reduced where a neighbour has a higher one.

    Several cells of an object learn to propose it. Without this, those of the many or large objects would fill all queries.
    """
    shares = cell_logits.float().amax(-1).sigmoid()
    found = []
    for part, feature in zip(
        shares.split_with_sizes([m.shape[-2] * m.shape[-1] for m in maps], 1), maps, strict=True
    ):
        grid = part.reshape(-1, *feature.shape[-2:])
        highest = F.max_pool2d(grid, 3, stride=1, padding=1)
        found.append(torch.where(grid == highest, grid, BESIDE * grid).flatten(1))
    return torch.cat(found, 1)
