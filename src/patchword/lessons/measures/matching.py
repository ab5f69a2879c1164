"""The matching of DETR in small numbers.

Source: Carion et al. 2020 (arXiv 2005.12872), section 3.1.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from patchword.model.detection import DetectionOutput
from patchword.model.matching import Targets, match, matching_costs
from patchword.model.set_loss_config import SetLossConfig


class Assignment(NamedTuple):
    """costs [Q, T]: of every query for every object. best, greedy [T]: the query of each object in the cheapest one-to-one
    assignment, and when each object in turn takes the cheapest query that is left. nearest [T]: the cheapest query of each
    object, which may be the same for several."""

    costs: Tensor
    best: Tensor
    greedy: Tensor
    nearest: Tensor

    def total(self, queries: Tensor) -> float:
        """The summed cost of an assignment [T]."""
        return float(self.costs[queries, torch.arange(len(queries))].sum())


def assignment(output: DetectionOutput, targets: Targets, config: SetLossConfig | None = None) -> Assignment:
    """For the first image of the batch and the last layer."""
    costs = matching_costs(output, targets, config or SetLossConfig())[-1, 0, :, : targets.counts[0]]
    found = match(DetectionOutput(output.logits[-1:], output.boxes[-1:]), targets, config)
    mine = found.image[0] == 0
    best = torch.empty(targets.counts[0], dtype=torch.long)
    best[found.target[0][mine]] = found.query[0][mine]
    left, greedy = costs.clone(), []
    for index in range(targets.counts[0]):
        query = int(left[:, index].argmin())
        left[query] = torch.inf
        greedy.append(query)
    return Assignment(costs, best, torch.tensor(greedy), costs.argmin(dim=0))
