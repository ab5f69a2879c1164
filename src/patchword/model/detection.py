"""What every detector shares: batches of images of different sizes, its output, its box head, and boxes in pixels.

Shapes: B images, L layers that predict (1 for models without auxiliary outputs), Q queries, C classes.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from patchword.errors import SettingsError
from patchword.model.boxes import to_corners
from patchword.model.linear import Linear


@dataclass(frozen=True)
class Batch:
    """Images of different sizes in one tensor, each in the upper left corner, zeros elsewhere.

    images [B, channels, H, W]; padding [B, H, W] is true outside the images, or None if all have the same size.
    """

    images: Tensor
    padding: Tensor | None = None

    def to(self, device: torch.device | str) -> "Batch":
        return Batch(self.images.to(device), None if self.padding is None else self.padding.to(device))


Images = Tensor | Batch | Sequence[Tensor]


def pad_batch(images: Sequence[Tensor]) -> Batch:
    """Put normalised images [channels, h, w] into one batch of the largest height and width.

    Raises: SettingsError without images, or if they have different numbers of channels.
    """
    if not images:
        raise SettingsError("a batch of no images", "give at least one image")
    shapes = [tuple(image.shape) for image in images]
    if any(len(shape) != 3 for shape in shapes) or len({shape[0] for shape in shapes}) > 1:
        raise SettingsError(
            f"images of shapes {', '.join(str(list(shape)) for shape in dict.fromkeys(shapes))} cannot form a batch",
            "give images [channels, height, width] with the same number of channels",
        )
    if len(set(shapes)) == 1:
        return Batch(torch.stack(tuple(images)))
    height, width = (max(shape[axis] for shape in shapes) for axis in (1, 2))
    batch = images[0].new_zeros((len(images), shapes[0][0], height, width))
    padding = torch.ones((len(images), height, width), dtype=torch.bool, device=batch.device)
    for index, image in enumerate(images):
        rows, columns = image.shape[1:]
        batch[index, :, :rows, :columns] = image
        padding[index, :rows, :columns] = False
    return Batch(batch, padding)


def by_size(images: Sequence[Tensor]) -> Iterator[tuple[list[int], Tensor]]:
    """Images [channels, h, w] in groups of one size: their indices, and the group [n, channels, h, w]."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, image in enumerate(images):
        groups.setdefault(tuple(image.shape), []).append(index)
    for indices in groups.values():
        yield indices, torch.stack([images[index] for index in indices])


class DetectionOutput(NamedTuple):
    """What a detector predicts, layer by layer; the last layer is its answer, the others are auxiliary.

    logits [L, B, Q, C + 1]: before softmax; the last class is "no object".
    boxes [L, B, Q, 4]: centre x, centre y, width and height, as shares of the image without padding.
    """

    logits: Tensor
    boxes: Tensor

    @property
    def pred_logits(self) -> Tensor:
        """[B, Q, C + 1]"""
        return self.logits[-1]

    @property
    def pred_boxes(self) -> Tensor:
        """[B, Q, 4]"""
        return self.boxes[-1]

    @property
    def scores(self) -> Tensor:
        """Of each query and class, from 0 to 1, without "no object" [B, Q, C]."""
        return self.pred_logits.float().softmax(-1)[..., :-1]


class Found(NamedTuple):
    """The predictions for one image: scores [Q], class indices [Q], corners in pixels [Q, 4]."""

    scores: Tensor
    labels: Tensor
    boxes: Tensor


def postprocess(output: DetectionOutput, sizes: Sequence[tuple[int, int]]) -> list[Found]:
    """The best class of every query and its box in pixels, one `Found` for each image.

    All queries are returned: a detector that predicts a set needs no suppression, and a threshold is the caller's. Boxes
    are not clipped. sizes: (height, width) of each original image.
    Raises: SettingsError if there is not one size for each image.
    """
    if len(sizes) != output.logits.shape[1]:
        raise SettingsError(
            f"{len(sizes)} sizes for {output.logits.shape[1]} images", "give (height, width) of each image"
        )
    scores, labels = output.scores.max(-1)
    scale = torch.tensor([(w, h, w, h) for h, w in sizes], dtype=torch.float32, device=scores.device)
    boxes = to_corners(output.pred_boxes.float()) * scale[:, None]
    return [Found(*parts) for parts in zip(scores, labels, boxes, strict=True)]


class HeadMLP(nn.Module):
    """Linear layers with relu between them: x [..., dim] → [..., outputs]."""

    def __init__(self, dim: int, outputs: int, depth: int = 3) -> None:
        super().__init__()
        widths = [dim] * depth + [outputs]
        self.layers = nn.ModuleList(Linear(a, b) for a, b in itertools.pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        out: Tensor = self.layers[-1](x)
        return out


@torch.no_grad()
def init_linear(module: nn.Linear | nn.Conv2d, generator: torch.Generator | None) -> None:
    """Torch's own initial values: uniform within 1 / sqrt(inputs) for weights and biases."""
    bound = module.weight[0].numel() ** -0.5
    nn.init.uniform_(module.weight, -bound, bound, generator=generator)
    if module.bias is not None:
        nn.init.uniform_(module.bias, -bound, bound, generator=generator)
