"""A picture with three digits, and a small DETR that learns it by heart."""

import torch
from torch import Tensor

from patchword.model.detr.config import DetrConfig, TrunkConfig
from patchword.model.detr.model import DETR
from patchword.model.matching import Targets
from patchword.model.set_loss import set_loss

SIDE, SCALE, QUERIES = 128, 4, 6
# Upper left corners of the digits in pixels.
PLACES = ((10, 14), (22, 84), (86, 50))
SMALL_DETR = DetrConfig(
    trunk=TrunkConfig(
        units=(1, 1, 1, 1), root=16, middle=(8, 16, 32, 64), outputs=(32, 64, 128, 128), channels=1
    ),
    dim=64,
    num_heads=4,
    hidden=128,
    encoder_depth=1,
    decoder_depth=2,
    num_queries=QUERIES,
    num_classes=10,
    dropout=0.0,
)
STEPS = 80


def compose(images: Tensor, labels: Tensor) -> tuple[Tensor, Targets]:
    """The first three digits [n, 1, 8, 8] on a canvas of 128 x 128 pixels: [1, 1, 128, 128], and their classes and boxes."""
    canvas = torch.full((1, 1, SIDE, SIDE), float(images.min()))
    side = 8 * SCALE
    boxes = []
    for index, (top, left) in enumerate(PLACES):
        large = images[index, 0].repeat_interleave(SCALE, 0).repeat_interleave(SCALE, 1)
        canvas[0, 0, top : top + side, left : left + side] = large
        boxes.append([(left + side / 2) / SIDE, (top + side / 2) / SIDE, side / SIDE, side / SIDE])
    return canvas, Targets.of([(labels[: len(PLACES)], torch.tensor(boxes))])


def trained_detector(image: Tensor, targets: Targets, generator: torch.Generator, steps: int = STEPS) -> DETR:
    """A small DETR after so many steps on this one picture; with 0, its weights are random."""
    detr = DETR(SMALL_DETR, generator)
    optimiser = torch.optim.AdamW(detr.parameters(), lr=1e-3, fused=True)
    for _ in range(steps):
        optimiser.zero_grad()
        torch.autograd.backward(set_loss(detr(image), targets).total)
        torch.nn.utils.clip_grad_norm_(detr.parameters(), 1.0)
        optimiser.step()
    return detr.eval()
