"""The order of the images: pure, resumable, cut between processes, repeated and balanced."""

import numpy as np
import pytest

from patchword.data.order import order, steps_in
from patchword.training.ranks import Ranks


def _epoch(*args: object, **named: object) -> list[list[int]]:
    return [step.tolist() for step in order(*args, **named)]  # type: ignore[arg-type]


@pytest.mark.parametrize("repeats", [1, 3])
@pytest.mark.parametrize("weights", [None, np.arange(1.0, 51.0)])
def test_a_start_in_mid_epoch_gives_the_rest_of_the_epoch(repeats: int, weights: np.ndarray | None) -> None:
    whole = _epoch(50, 8, 0, 3, repeats=repeats, weights=weights)
    assert len(whole) == steps_in(50, 8) == 6
    assert _epoch(50, 8, 0, 3, 4, repeats=repeats, weights=weights) == whole[4:]
    assert whole != _epoch(50, 8, 0, 4, repeats=repeats, weights=weights)
    assert whole != _epoch(50, 8, 1, 3, repeats=repeats, weights=weights)


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("repeats", [1, 3])
def test_the_slices_of_all_processes_are_the_global_batch(world: int, repeats: int) -> None:
    parts = [
        _epoch(50, 14, 0, 0, part=Ranks(rank=r, world=world).part, repeats=repeats) for r in range(world)
    ]
    joined = [[number for part in step for number in part] for step in zip(*parts, strict=True)]
    assert joined == _epoch(50, 14, 0, 0, repeats=repeats)


def test_an_epoch_has_each_image_once_and_few_images_are_one_batch() -> None:
    seen = [number for step in _epoch(48, 8, 0, 0) for number in step]
    assert sorted(seen) == list(range(48))
    assert sorted(_epoch(5, 8, 0, 0)[0]) == list(range(5)) and len(_epoch(5, 8, 0, 0)) == 1


@pytest.mark.parametrize("batch", [6, 8, 9, 16, 24])
@pytest.mark.parametrize("repeats", [2, 3])
def test_copies_are_in_one_batch_with_numbers_of_their_own_and_never_partners(
    batch: int, repeats: int
) -> None:
    n = 100
    for step in _epoch(n, batch, 0, 0, repeats=repeats):
        images = [number % n for number in step]
        assert len(step) == batch == len(set(step))
        assert len(set(images)) == -(-batch // repeats)
        assert all(images[i] != images[i + 1] for i in range(0, batch - 1, 2))


def test_weights_give_rare_images_their_share_with_new_random_numbers_each_time() -> None:
    weights = np.array([1.0] * 90 + [9.0] * 10)  # 90 images of one class, 10 of another
    numbers = np.concatenate([np.array(_epoch(100, 10, 0, e, weights=weights)).ravel() for e in range(20)])
    assert 0.45 < np.mean(numbers % 100 >= 90) < 0.55
    once = np.array(_epoch(100, 10, 0, 0, weights=weights)).ravel()
    assert len(set(once.tolist())) == 100  # an image that is drawn again is another copy
    for image in set((once % 100).tolist()):
        copies = [int(number) // 100 for number in once if number % 100 == image]
        assert copies == list(range(len(copies)))
