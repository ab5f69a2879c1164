"""Match the queries of a detector with the objects of an image, one to one, at the least total cost.

Shapes: L layers, B images, Q queries, C classes, T objects in the batch, M the most objects in one image.
Source: Carion et al. 2020 (arXiv 2005.12872), section 3.1; the assignment is scipy's `linear_sum_assignment`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from patchword.errors import SettingsError
from patchword.model.boxes import giou, pairs, to_corners
from patchword.model.detection import DetectionOutput
from patchword.model.set_loss_config import SetLossConfig


@dataclass(frozen=True)
class Targets:
    """The objects of a batch, image after image.

    labels [T]: class indices. boxes [T, 4]: centre x, centre y, width and height, as shares of the image without padding.
    counts: the number of objects of each image; 0 is allowed.
    """

    labels: Tensor
    boxes: Tensor
    counts: tuple[int, ...]

    @classmethod
    def of(cls, images: Sequence[tuple[Tensor, Tensor]]) -> "Targets":
        """From (labels [n], boxes [n, 4]) of each image.

        Raises: SettingsError for boxes that are not finite or have no area, and for unequal numbers.
        """
        for index, (labels, boxes) in enumerate(images):
            if labels.ndim != 1 or boxes.shape != (len(labels), 4):
                raise SettingsError(
                    f"image {index} of the batch has labels {list(labels.shape)} and boxes {list(boxes.shape)}",
                    "give labels [n] and boxes [n, 4]",
                )
            good = boxes.isfinite().all(1) & (boxes[:, 2:] > 0).all(1)
            if not good.all():
                first = int((~good).nonzero()[0])
                raise SettingsError(
                    f"box {first} of image {index} of the batch is {boxes[first].tolist()}",
                    "give centre x, centre y, width and height, with a width and a height above 0",
                )
        if not images:
            raise SettingsError("targets of no images", "give one pair of labels and boxes for each image")
        return cls(
            torch.cat([labels for labels, _ in images]).long(),
            torch.cat([boxes for _, boxes in images]).float(),
            tuple(len(labels) for labels, _ in images),
        )

    def to(self, device: torch.device | str) -> "Targets":
        if self.labels.device == torch.device(device):
            return self
        return Targets(self.labels.to(device), self.boxes.to(device), self.counts)

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """The index of the first object of each image."""
        return tuple(int(start) for start in np.cumsum((0, *self.counts))[:-1])

    @cached_property
    def rows(self) -> Tensor:
        """Indices of the objects of each image [B, M]; those that it lacks point to object 0."""
        places = torch.arange(max(self.counts))
        first, count = torch.tensor(self.starts)[:, None], torch.tensor(self.counts)[:, None]
        rows = torch.where(places < count, first + places, 0)
        return rows.to(self.labels.device)


class Matches(NamedTuple):
    """Matched pairs, k for each layer: image, query and object (index in the targets), each [L, k]."""

    image: Tensor
    query: Tensor
    target: Tensor


def check_labels(targets: Targets, num_classes: int, num_images: int) -> None:
    """Raises: SettingsError if a label is not a class, or the number of images differs."""
    if len(targets.counts) != num_images:
        raise SettingsError(
            f"targets of {len(targets.counts)} images for a batch of {num_images}",
            "give one pair of labels and boxes for each image",
        )
    if len(targets.labels) and not 0 <= int(targets.labels.min()) <= int(targets.labels.max()) < num_classes:
        wrong = next(label for label in targets.labels.tolist() if not 0 <= label < num_classes)
        raise SettingsError(
            f"an object has label {wrong}, but the detector has classes 0 to {num_classes - 1}",
            "number the classes in the order of the detector's outputs, or build it with more classes",
        )


@torch.no_grad()
def costs(classes: Tensor, boxes: Tensor, targets: Targets, l1: float, overlap: float) -> Tensor:
    """The cost of every query for every object of its image, all layers at once: [L, B, Q, M].

    classes [L, B, Q, C]: the cost of answering with each class. boxes [L, B, Q, 4]. Added are l1 · (L1 of the boxes) and
    -overlap · GIoU. `targets` is on their device.
    """
    rows = targets.rows
    wanted, labels = targets.boxes[rows], targets.labels[rows]
    boxes = boxes.float()
    # [L, B, Q, M]: of each object, what a query pays for its class
    at = labels[None, :, None].expand(len(boxes), -1, boxes.shape[2], -1)
    apart = torch.cdist(boxes, wanted.expand(len(boxes), -1, -1, -1), p=1.0)
    near = giou(*pairs(to_corners(boxes), to_corners(wanted)))
    return l1 * apart + classes.gather(-1, at) - overlap * near


@torch.no_grad()
def matching_costs(output: DetectionOutput, targets: Targets, config: SetLossConfig) -> Tensor:
    """DETR's costs [L, B, Q, M]: cost_l1 · (L1 of the boxes) - cost_class · (probability of the class) - cost_giou · GIoU."""
    targets = targets.to(output.boxes.device)
    classes = -config.cost_class * output.logits.float().softmax(-1)
    return costs(classes, output.boxes, targets, config.cost_l1, config.cost_giou)


@torch.no_grad()
def assign(cost: Tensor, targets: Targets) -> Matches:
    """The cheapest one-to-one assignment in each layer and image, of min(Q, objects) pairs. cost [L, B, Q, M]."""
    if not len(targets.labels):
        none = torch.zeros((len(cost), 0), dtype=torch.long, device=cost.device)
        return Matches(none, none, none)
    # A diverged model has costs that cannot be compared. Any assignment then gives the loss that shows it.
    table = np.nan_to_num(cost.cpu().numpy(), nan=0.0, posinf=1e9, neginf=-1e9)
    found: list[list[np.ndarray]] = []
    for layer in table:
        for image, (costs, count, start) in enumerate(
            zip(layer, targets.counts, targets.starts, strict=True)
        ):
            query, target = linear_sum_assignment(costs[:, :count])
            found.append([np.full(len(query), image), query, target + start])
    joined = np.concatenate([np.stack(part) for part in found], axis=1).reshape(3, len(table), -1)
    image_of, query_of, target_of = torch.from_numpy(joined).to(cost.device)
    return Matches(image_of, query_of, target_of)


@torch.no_grad()
def match(output: DetectionOutput, targets: Targets, config: SetLossConfig | None = None) -> Matches:
    """DETR's assignment: the cheapest by `matching_costs`.

    Raises: SettingsError for labels that are not classes.
    """
    _, images, _, outputs = output.logits.shape
    check_labels(targets, outputs - 1, images)
    return assign(matching_costs(output, targets, config or SetLossConfig()), targets)
