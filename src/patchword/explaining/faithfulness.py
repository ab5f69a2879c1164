"""Whether a map shows what the answer rests on: deletion and insertion of patches in its order.

Source: Petsiuk et al. 2018 (RISE, arXiv 1806.07421), section 3.2; here by patch, not by pixel.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from patchword.explaining.methods.patches import filled, images_at_once, to_pixels
from patchword.explaining.settings import Fill, ScoreSettings
from patchword.model.vit import ViT

RANDOM, CENTRE = "random", "centre"
BASELINES = (RANDOM, CENTRE)


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Areas under the curves of one order of patches, [images] per fill; from 0 to 1.

    deletion: what is left of the answer while patches go, most important first; low is good. insertion: what
    has come back while patches come; high is good.
    """

    deletion: Mapping[Fill, NDArray[np.float64]]
    insertion: Mapping[Fill, NDArray[np.float64]]

    @property
    def images(self) -> int:
        return len(next(iter(self.deletion.values())))

    @property
    def gain(self) -> float:
        """Insertion less deletion, mean of images and fills: what methods are ranked by."""
        return float(np.mean([self.insertion[fill] - self.deletion[fill] for fill in self.deletion]))

    def numbers(self) -> dict[str, Any]:
        """Plain values for JSON: means over images, by fill."""
        return {
            fill: {
                "deletion": float(self.deletion[fill].mean()),
                "insertion": float(self.insertion[fill].mean()),
            }
            for fill in self.deletion
        }


def joined(parts: list[dict[str, Curves]]) -> dict[str, Curves]:
    """Curves of single images as curves of all."""
    return {
        name: Curves(
            deletion={fill: np.concatenate([p[name].deletion[fill] for p in parts]) for fill in of.deletion},
            insertion={
                fill: np.concatenate([p[name].insertion[fill] for p in parts]) for fill in of.insertion
            },
        )
        for name, of in (parts[0] if parts else {}).items()
    }


def curves_of(
    vit: ViT,
    image: Tensor,
    maps: Mapping[str, Tensor],
    target: Tensor | None,
    settings: ScoreSettings,
    *,
    several: bool = False,
    index: int = 0,
) -> dict[str, Curves]:
    """Deletion and insertion of one image [1, C, H, W] in the order of each map [h, w], and of two baselines.

    The answer is the probability of class `target` []; without classes (None), the cosine similarity of the embedding
    with that of the whole image. several: probabilities of classes on their own, not of one class. "random": patches in
    random order (settings.seed and `index`); "centre": those nearest to the centre first.
    """
    grid = vit.layout(image).grid
    named = {
        **{name: values.double() for name, values in maps.items()},
        **_baselines(grid, settings.seed, index),
    }
    orders = torch.stack(
        [values.to(image.device).flatten().argsort(descending=True, stable=True) for values in named.values()]
    )
    score = _Score(vit, image, target, several)
    found: dict[str, tuple[dict[Fill, NDArray[np.float64]], dict[Fill, NDArray[np.float64]]]] = {
        name: ({}, {}) for name in named
    }
    for fill in settings.fills:
        deletion, insertion = _curves(score, image, filled(image, fill, vit.config), orders, settings.steps)
        for row, (deleted, inserted) in enumerate(found.values()):
            deleted[fill], inserted[fill] = _area(deletion[row]), _area(insertion[row])
    return {name: Curves(deletion=deleted, insertion=inserted) for name, (deleted, inserted) in found.items()}


def _baselines(grid: tuple[int, int], seed: int, index: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed * 1_000_003 + index)
    down, across = (torch.arange(side) - (side - 1) / 2 for side in grid)
    # In units of the image's sides, so that wide images have a wide centre.
    distance = (down / grid[0]).square()[:, None] + (across / grid[1]).square()
    return {RANDOM: torch.rand(grid, generator=generator, dtype=torch.float64), CENTRE: -distance.double()}


class _Score:
    """images [b, C, H, W] → how much of the answer is left, [b]"""

    def __init__(self, vit: ViT, image: Tensor, target: Tensor | None, several: bool) -> None:
        self.vit, self.target, self.several = vit, target, several
        self.whole = self.answer(image)
        self.at_once = images_at_once(vit, image)

    def __call__(self, images: Tensor) -> Tensor:
        return torch.cat([self.read(self.answer(part)) for part in torch.split(images, self.at_once)])

    def answer(self, images: Tensor) -> Tensor:
        return (self.vit.embed(images) if self.target is None else self.vit(images)).double()

    def read(self, answer: Tensor) -> Tensor:
        if self.target is None:
            return torch.cosine_similarity(answer, self.whole)
        shares = answer.sigmoid() if self.several else answer.softmax(1)
        return shares[:, self.target]


def _curves(score: _Score, image: Tensor, fill: Tensor, orders: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Both curves of each order, [orders, steps + 1]. The ends, the whole image and the fill, are shared."""
    count = orders.shape[1]
    grid = score.vit.layout(image).grid
    ranks = orders.argsort(1)
    ends = score.read(score.whole), score(fill)
    first = [ends[0].expand(len(orders)), ends[1].expand(len(orders))]
    deletion, insertion = [first[0]], [first[1]]
    for step in range(1, steps):
        taken = (ranks < round(step * count / steps)).view(-1, 1, *grid).to(image.dtype)
        mask = to_pixels(taken, image.shape, score.vit.config)
        deletion.append(score(image + mask * (fill - image)))
        insertion.append(score(fill + mask * (image - fill)))
    deletion.append(first[1])
    insertion.append(first[0])
    return torch.stack(deletion, 1), torch.stack(insertion, 1)


def _area(curve: Tensor) -> NDArray[np.float64]:
    """The area under one curve [steps + 1] over shares from 0 to 1, by the trapezoid rule: [1]."""
    area = (curve.sum() - (curve[0] + curve[-1]) / 2) / (len(curve) - 1)
    return np.array([float(area)])
