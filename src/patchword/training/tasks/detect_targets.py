"""The objects of a batch between the views and the losses: a list that micro-batches can be cut from."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from patchword.model.matching import Targets

# For each image {"labels": [n], "boxes": [n, 4], "seed": []}: centres and sides as shares of the view, and what the queries for
# practice are drawn from.
ImageTargets = Mapping[str, Tensor]


def objects_of(targets: Sequence[ImageTargets]) -> Targets:
    """All objects, image after image."""
    return Targets(
        torch.cat([one["labels"] for one in targets]),
        torch.cat([one["boxes"] for one in targets]),
        tuple(len(one["labels"]) for one in targets),
    )
