"""The loss of a detector that predicts a set: match first, then compare each query with its object.

Shapes: L layers, B images, Q queries, C classes, k matched pairs.
Source: Carion et al. 2020 (arXiv 2005.12872), section 3.1; facebookresearch/detr, models/detr.py.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from patchword.model.boxes import giou, to_corners
from patchword.model.detection import DetectionOutput
from patchword.model.matching import Matches, Targets, match
from patchword.model.set_loss_config import SetLossConfig


class SetLosses(NamedTuple):
    """The terms of every layer, unweighted; the last layer is the model's answer.

    ce [L]: cross-entropy, averaged with the weights of the classes. l1, giou [L]: of matched boxes, over `num_boxes`.
    cardinality [L]: by how many the queries with an object differ from the objects of an image, on average.
    class_error: percentage of matched queries of the last layer whose best class is wrong; 100 without objects.
    total: the weighted sum of ce, l1 and giou over all layers. The last two terms are for logs alone.
    """

    ce: Tensor
    l1: Tensor
    giou: Tensor
    cardinality: Tensor
    class_error: Tensor
    total: Tensor

    def named(self) -> dict[str, Tensor]:
        """Every term by its name in the source: "loss_ce", and "loss_ce_0" for the first of the earlier layers."""
        terms = {
            "loss_ce": self.ce,
            "loss_bbox": self.l1,
            "loss_giou": self.giou,
            "cardinality_error": self.cardinality,
        }
        last = len(self.ce) - 1
        found = {
            name if layer == last else f"{name}_{layer}": values[layer]
            for name, values in terms.items()
            for layer in range(last + 1)
        }
        return found | {"class_error": self.class_error, "loss_total": self.total}


def set_loss(
    output: DetectionOutput,
    targets: Targets,
    config: SetLossConfig | None = None,
    *,
    num_boxes: float | None = None,
    matches: Matches | None = None,
) -> SetLosses:
    """The losses of all layers in one pass; each layer is matched with the objects by itself.

    Args:
        output: of any number of layers.
        targets: the objects; images without any teach their queries "no object".
        config: costs and weights.
        num_boxes: what box losses are divided by, at least 1; None for the objects of this batch. Of several processes,
            pass the mean of their objects.
        matches: as `match` returns them; None to match here.

    Raises: SettingsError for labels that are not classes.
    """
    config, targets = config or SetLossConfig(), targets.to(output.logits.device)
    output = DetectionOutput(output.logits.float(), output.boxes.float())
    pairs = match(output, targets, config) if matches is None else matches
    count = max(float(len(targets.labels) if num_boxes is None else num_boxes), 1.0)
    layer = torch.arange(len(output.logits), device=output.logits.device)[:, None]
    wanted = targets.labels[pairs.target]  # [L, k]
    at = (layer, pairs.image, pairs.query)
    ce = _cross_entropy(output.logits, at, wanted, config.no_object)
    boxes, real = output.boxes[at], targets.boxes[pairs.target]  # [L, k, 4]
    l1 = (boxes - real).abs().sum((1, 2)) / count
    apart = (1 - giou(to_corners(boxes), to_corners(real))).sum(1) / count
    weighted = config.weight_class * ce + config.weight_l1 * l1 + config.weight_giou * apart
    with torch.no_grad():
        cardinality = _cardinality(output.logits, targets)
        error = _class_error(output.logits[-1], Matches(*(part[-1:] for part in pairs)), wanted[-1])
    return SetLosses(ce, l1, apart, cardinality, error, weighted.sum())


def _cross_entropy(
    logits: Tensor, at: tuple[Tensor, Tensor, Tensor], wanted: Tensor, no_object: float
) -> Tensor:
    """The weighted mean of each layer: logits [L, B, Q, C + 1] → [L]."""
    outputs = logits.shape[-1]
    labels = torch.full(logits.shape[:3], outputs - 1, device=logits.device)
    labels[at] = wanted
    weight = torch.ones(outputs, device=logits.device)
    weight[-1] = no_object
    errors = F.cross_entropy(logits.flatten(0, 2), labels.flatten(), weight, reduction="none")
    return errors.view(len(logits), -1).sum(1) / weight[labels].flatten(1).sum(1)


def _cardinality(logits: Tensor, targets: Targets) -> Tensor:
    """[L, B, Q, C + 1] → [L]"""
    found = (logits.argmax(-1) != logits.shape[-1] - 1).sum(2)
    real = torch.tensor(targets.counts, device=logits.device)
    return (found - real).abs().float().mean(1)


def _class_error(logits: Tensor, pairs: Matches, wanted: Tensor) -> Tensor:
    """In per cent, of one layer's logits [B, Q, C + 1]."""
    if not len(wanted):
        return torch.full((), 100.0, device=logits.device)
    right = logits[pairs.image[0], pairs.query[0]].argmax(-1) == wanted
    return 100 - 100 * right.float().mean()
