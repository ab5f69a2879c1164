"""A detector's module from its config, and its tensors without storage."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Union

from patchword.model.base import Shapes
from patchword.model.detr.config import DetrConfig
from patchword.model.vitdet.config import VitDetConfig
from patchword.weights.detector_card import DetectorConfig

if TYPE_CHECKING:
    from torch import Tensor

    from patchword.model.detr.model import DETR
    from patchword.model.vitdet.model import VitDet
    from patchword.model.yolos import YOLOS

DetectorModel = Union["DETR", "YOLOS", "VitDet"]


def on_meta(config: DetectorConfig) -> DetectorModel:
    """The model without storage."""
    import torch

    with torch.device("meta"):
        if isinstance(config, DetrConfig):
            from patchword.model.detr.model import DETR

            return DETR(config)
        if isinstance(config, VitDetConfig):
            from patchword.model.vitdet.model import VitDet

            return VitDet(config)
        from patchword.model.yolos import YOLOS

        return YOLOS(config)


def shapes_of(model: DetectorModel) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def parameters_of(model: DetectorModel) -> int:
    """The number of weights; the frozen norms of a trunk are none."""
    return sum(math.prod(weight.shape) for weight in model.parameters())


def filled(config: DetectorConfig, tensors: Mapping[str, "Tensor"], name: str) -> DetectorModel:
    """The model in evaluation mode with these tensors. name: of the file, for messages. Raises: CheckpointError."""
    from patchword.weights.native import fill

    model = on_meta(config)
    fill(model, tensors, name)
    return model.eval()
