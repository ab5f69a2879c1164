"""Boxes: conversions, areas and overlaps."""

import pytest
import torch
from torch import Tensor

from patchword.model.boxes import area, giou, iou, pairs, to_centres, to_corners


def boxes(*shape: int, seed: int = 0) -> Tensor:
    """Corners with a positive area."""
    corners = torch.rand((*shape, 2, 2), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    low, high = corners.amin(-2), corners.amax(-2)
    return torch.cat((low, high + 0.01), -1)


def test_centres_and_corners_are_inverse() -> None:
    corners = boxes(3, 5)
    torch.testing.assert_close(to_corners(to_centres(corners)), corners)
    assert to_centres(torch.tensor([0.0, 2.0, 4.0, 8.0])).tolist() == [2.0, 5.0, 4.0, 6.0]


def test_overlaps_of_boxes_that_can_be_counted() -> None:
    a = torch.tensor([0.0, 0.0, 2.0, 2.0])
    b = torch.tensor([1.0, 0.0, 3.0, 2.0])
    far = torch.tensor([4.0, 0.0, 6.0, 2.0])
    assert area(a) == 4
    assert iou(a, b) == pytest.approx(2 / 6)
    assert giou(a, b) == pytest.approx(2 / 6)  # the hull is the union
    assert iou(a, far) == 0
    assert giou(a, far) == pytest.approx(-4 / 12)


def test_overlaps_are_symmetric_bounded_and_one_for_equal_boxes() -> None:
    a, b = boxes(40), boxes(40, seed=1)
    for overlap, low in ((iou, 0.0), (giou, -1.0)):
        torch.testing.assert_close(overlap(a, b), overlap(b, a))
        torch.testing.assert_close(overlap(a, a), torch.ones(40, dtype=a.dtype))
        assert (overlap(a, b) >= low).all() and (overlap(a, b) <= 1).all()
    assert (giou(a, b) <= iou(a, b)).all()


def test_overlaps_do_not_change_with_scale_and_place() -> None:
    a, b = boxes(40), boxes(40, seed=1)
    for overlap in (iou, giou):
        torch.testing.assert_close(overlap(a * 300 + 7, b * 300 + 7), overlap(a, b))


def test_pairs_hold_every_combination() -> None:
    a, b = boxes(2, 3), boxes(2, 4, seed=1)
    found = giou(*pairs(a, b))
    assert found.shape == (2, 3, 4)
    assert found[1, 2, 3] == giou(a[1, 2], b[1, 3])


def test_boxes_without_area_overlap_nothing_and_have_finite_gradients() -> None:
    point = torch.tensor([0.5, 0.5, 0.5, 0.5], requires_grad=True)
    assert iou(point, point) == 0
    giou(point, point.detach()).backward()
    assert point.grad is not None and point.grad.isfinite().all()
