"""Views with boxes: pixels and boxes move together, and objects are neither lost nor misplaced."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from patchword.data.box_targets import ImageBoxes
from patchword.errors import SettingsError
from patchword.training.augment.box_settings import BoxAugmentSettings
from patchword.training.augment.box_views import BoxAugment, sampled
from patchword.training.augment.box_windows import Window, letterbox, moved
from patchword.training.augment.settings import ColourSettings
from patchword.training.chance import Draws

STRONG = BoxAugmentSettings(scale=(0.4, 3.0), stretch=(0.8, 1.25), flip=0.5)


def _boxes(corners: list[list[float]], size: tuple[int, int], crowd: bool = False) -> ImageBoxes:
    array = np.array(corners, np.float64).reshape(-1, 4)
    return ImageBoxes(
        corners=array,
        labels=np.arange(len(array)),
        crowd=np.full(len(array), crowd),
        difficult=np.zeros(len(array), np.bool_),
        areas=(array[:, 2:] - array[:, :2]).prod(axis=1),
        ids=tuple(range(10, 10 + len(array))),
        size=size,
        image_id=7,
    )


def _draws(count: int, epoch: int = 0) -> Draws:
    return Draws(1, epoch, np.arange(count))


def _white(box: list[int], size: tuple[int, int]) -> torch.Tensor:
    image = torch.zeros((3, *size))
    image[:, box[1] : box[3], box[0] : box[2]] = 1.0
    return image


def _found(view: torch.Tensor) -> list[float]:
    """The corners of the bright part, to about half a pixel of the view."""
    bright = view.mean(0) > 0.5
    rows, columns = bright.any(1).nonzero().flatten(), bright.any(0).nonzero().flatten()
    return [float(v) for v in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)]


def test_boxes_stay_around_their_pixels_in_every_view() -> None:
    # Odd sides and an image far larger than its view: nothing may shift when it is halved.
    sizes = [(97, 131), (60, 60), (501, 333), (40, 90)] * 8
    objects = [[w // 3, h // 4, w // 3 + max(w // 4, 8), h // 4 + max(h // 3, 8)] for h, w in sizes]
    images = [_white(box, size) for box, size in zip(objects, sizes, strict=True)]
    boxes = [_boxes([box], size) for box, size in zip(objects, sizes, strict=True)]
    augment = BoxAugment(STRONG, (64, 96), fill=(0.0,))
    views = augment(images, boxes, _draws(len(images)))
    for view, one, window in zip(views.images, views.boxes, views.windows, strict=True):
        assert len(one) == 1
        # Half a pixel of the image, where it is enlarged, and one of the view.
        slack = 1.0 + 0.5 * max(window.scale_x, window.scale_y)
        np.testing.assert_allclose(_found(view), one.corners[0], atol=slack)
    assert {window.flip for window in views.windows} == {True, False}
    assert views.images.shape == (32, 3, 64, 96) and views.padding.any()


CORNER = st.tuples(st.integers(0, 40), st.integers(0, 30), st.integers(1, 20), st.integers(1, 20))


@given(st.lists(CORNER, max_size=6), st.integers(0, 1000))
@settings(max_examples=30)
def test_kept_boxes_lie_inside_and_one_object_is_always_complete(
    found: list[tuple[int, ...]], epoch: int
) -> None:
    boxes = _boxes([[x, y, x + w, y + h] for x, y, w, h in found], (50, 60))
    image = torch.zeros((1, 50, 60), dtype=torch.uint8)
    views = BoxAugment(STRONG, (48, 48))([image], [boxes], _draws(1, epoch))
    one, window = views.boxes[0], views.windows[0]
    assert (one.corners >= 0).all() and (one.corners <= 48).all()
    assert (one.corners[:, 2:] > one.corners[:, :2]).all()
    whole = window.forward(boxes.corners)
    complete = ((whole >= -1e-6) & (whole <= 48 + 1e-6)).all(axis=1)
    assert complete.any() or not len(boxes)
    np.testing.assert_allclose(window.back(whole), boxes.corners, atol=1e-9)
    # Labels and ids belong to the same boxes as before.
    for corners, label, name in zip(one.corners, one.labels, one.ids, strict=True):
        assert name == 10 + label
        np.testing.assert_allclose(corners, np.clip(whole[label], 0, 48), atol=1e-9)


def test_flipping_twice_is_the_identity() -> None:
    size = (37, 53)
    image = torch.rand((3, *size), generator=torch.Generator().manual_seed(0))
    boxes = _boxes([[3, 4, 20, 30], [0, 0, 53, 37]], size)
    flip = Window(image=size, view=size, left=0.0, top=0.0, scale_x=1.0, scale_y=1.0, flip=True)
    once = sampled(image, flip)
    torch.testing.assert_close(once, image.flip(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(sampled(once, flip), image, atol=1e-5, rtol=0)
    twice = moved(moved(boxes, flip, 0.3), flip, 0.3)
    np.testing.assert_array_equal(twice.corners, boxes.corners)


def test_without_settings_the_view_is_the_letterbox() -> None:
    image, boxes = torch.full((3, 40, 80), 255, dtype=torch.uint8), _boxes([[0, 0, 80, 40]], (40, 80))
    augment = BoxAugment(BoxAugmentSettings(), (64, 64), fill=(0.1, 0.2, 0.3))
    drawn, plain = augment([image], [boxes], _draws(1)), augment.plain([image], [boxes])
    for views in (drawn, plain):
        assert views.boxes[0].corners.tolist() == [[0, 16, 64, 48]]
        assert views.boxes[0].areas.tolist() == [64 * 32]
        torch.testing.assert_close(views.images[0, :, 0, 0], torch.tensor([0.1, 0.2, 0.3]))
        assert views.padding[0].sum() == 64 * 32 and not views.padding[0, 16:48].any()
        assert views.images[0, :, 20].min() == 1.0
    assert letterbox((40, 80), (64, 64)) == plain.windows[0]


def test_a_view_depends_on_its_own_image_and_draws_alone() -> None:
    generator = torch.Generator().manual_seed(1)
    images = [torch.rand((3, 30 + 7 * i, 50), generator=generator) for i in range(4)]
    boxes = [_boxes([[5, 5, 25, 25]], (30 + 7 * i, 50)) for i in range(4)]
    colour = ColourSettings(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.1)
    strong = BoxAugmentSettings(scale=STRONG.scale, flip=0.5, colour=colour)
    augment = BoxAugment(strong, (32, 32))
    together = augment(images, boxes, _draws(4))
    again = augment(images, boxes, _draws(4))
    alone = augment(images[2:3], boxes[2:3], _draws(4).part(slice(2, 3)))
    assert torch.equal(together.images, again.images) and torch.equal(together.images[2:3], alone.images)
    assert together.windows != augment(images, boxes, _draws(4, epoch=1)).windows
    plain = BoxAugment(BoxAugmentSettings(scale=STRONG.scale, flip=0.5), (32, 32))(images, boxes, _draws(4))
    assert not torch.equal(plain.images, together.images) and plain.windows == together.windows
    assert together.images.min() >= 0 and together.images.max() <= 1


def test_targets_are_shares_of_the_views_without_groups() -> None:
    first, group = (
        _boxes([[0, 0, 80, 40], [20, 10, 40, 30]], (40, 80)),
        _boxes([[0, 0, 9, 9]], (40, 80), crowd=True),
    )
    images = [torch.zeros((3, 40, 80)), torch.zeros((3, 40, 80))]
    targets = BoxAugment(BoxAugmentSettings(), (64, 64)).plain(images, [first, group]).targets()
    assert targets.counts == (2, 0) and targets.labels.tolist() == [0, 1]
    expected = torch.tensor([[0.5, 0.5, 1.0, 0.5], [24 / 64, 32 / 64, 16 / 64, 16 / 64]])
    torch.testing.assert_close(targets.boxes, expected)


def test_objects_mostly_outside_are_dropped_but_groups_stay() -> None:
    window = Window(image=(50, 50), view=(50, 50), left=20.0, top=0.0, scale_x=1.0, scale_y=1.0)
    for crowd, kept in ((False, 1), (True, 2)):
        one = moved(_boxes([[0, 0, 24, 10], [10, 0, 40, 10]], (50, 50), crowd), window, 0.3)
        assert len(one) == kept and one.corners[-1].tolist() == [0, 0, 20, 10]
    assert len(moved(_boxes([], (50, 50)), window, 0.3)) == 0


@pytest.mark.parametrize(
    "wrong", [{"scale": (2.0, 1.0)}, {"flip": 1.5}, {"keep": -0.1}, {"stretch": (1.0, 9.0)}]
)
def test_settings_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match=f"augment.{next(iter(wrong))}"):
        BoxAugmentSettings(**wrong)  # type: ignore[arg-type]
