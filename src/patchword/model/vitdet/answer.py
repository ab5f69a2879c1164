"""What a detector's output says about each image: its surest objects, without suppression."""

import torch
from torch import Tensor

from patchword.model.boxes import to_corners
from patchword.model.detection import Found
from patchword.model.vitdet.found import Found as Output


@torch.no_grad()
def answers(output: Output, most: int | None = None) -> list[Found]:
    """The objects of each image, highest score first; boxes are corners as shares of the model's input.

    most: at most so many of an image; None for as many as there are queries. A query may answer with several classes, each with a score
    of its own, as in Deformable DETR (Zhu et al. 2021, arXiv 2010.04159).
    """
    scores = output.scores
    boxes = to_corners(output.boxes[-1].float())
    _, queries, classes = scores.shape
    count = min(queries if most is None else most, queries * classes)
    best, places = scores.flatten(1).topk(count, 1)
    chosen: Tensor = boxes.gather(1, (places // classes)[..., None].expand(-1, -1, 4))
    return [Found(*parts) for parts in zip(best, places % classes, chosen, strict=True)]
