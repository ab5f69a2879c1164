"""The objects of a batch between the views and the losses: a list that micro-batches can be cut from."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from patchword.model.detection import Batch
from patchword.model.matching import Targets

# For each image {"labels": [n], "boxes": [n, 4], "seed": [], "size": [2]}: centres and sides as shares of the view, what the queries
# for practice are drawn from, and (h, w) of the view, which may be smaller than the batch.
ImageTargets = Mapping[str, Tensor]


def objects_of(targets: Sequence[ImageTargets]) -> Targets:
    """All objects, image after image."""
    return Targets(
        torch.cat([one["labels"] for one in targets]),
        torch.cat([one["boxes"] for one in targets]),
        tuple(len(one["labels"]) for one in targets),
    )


def padded(images: Tensor, targets: Sequence[ImageTargets]) -> Batch:
    """Views [B, C, H, W] with what lies outside of each."""
    height, width = images.shape[-2:]
    rows, columns = (part.to(images.device) for part in torch.stack([one["size"] for one in targets]).T)
    below = torch.arange(height, device=images.device) >= rows[:, None]
    beside = torch.arange(width, device=images.device) >= columns[:, None]
    padding = below[:, :, None] | beside[:, None]
    # Asked of the sizes, which are on the CPU, so that a GPU need not be waited for.
    whole = all(one["size"].tolist() == [height, width] for one in targets)
    return Batch(images, None if whole else padding)
