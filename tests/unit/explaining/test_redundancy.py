"""How much images repeat themselves."""

import numpy as np
import pytest

from patchword.errors import DataError, SettingsError
from patchword.explaining.redundancy import correlation, redundancy
from support.photos import photos


def noise(count=20, size=64, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def of_photos():
    return redundancy(photos(), patch=8, seed=3)


def test_white_noise_is_not_predictable_and_photographs_are(of_photos):
    found = of_photos
    assert max(abs(value) for value in found.noise.correlation.values()) < 0.06
    for distance in (1, 2, 4):
        assert abs(found.noise.ridge[distance]) < 0.02 and abs(found.noise.mean_colour[distance]) < 0.1
    assert found.images.correlation[1] > 0.85 > 0.6 > found.images.correlation[64]
    assert found.images.ridge[1] > 0.45
    assert found.images.ridge[1] > found.images.ridge[2] > found.images.ridge[4]


def test_noise_as_input_scores_like_the_control():
    found = redundancy(noise(), patch=8)
    for source in (found.images, found.shuffled, found.noise):
        assert max(map(abs, source.correlation.values())) < 0.06
        assert abs(source.ridge[1]) < 0.02


def test_shuffled_patches_keep_what_is_inside_them_and_lose_their_neighbours(of_photos):
    found = of_photos
    # Seven of eight pairs at distance 1 lie inside a patch.
    assert found.shuffled.within[1] > 0.75 * found.images.within[1]
    assert abs(found.shuffled.within[16]) < 0.05 < found.images.within[16]
    assert found.shuffled.ridge[1] < found.images.ridge[1] - 0.2


def test_the_correlation_is_pearsons_over_all_pairs():
    planes = noise(3, 20).astype(np.float32).mean(axis=3).cumsum(axis=2)
    for distance in (1, 5, 19):
        a = np.concatenate([planes[:, :, :-distance].ravel(), planes[:, :-distance].ravel()])
        b = np.concatenate([planes[:, :, distance:].ravel(), planes[:, distance:].ravel()])
        assert correlation(planes)[distance] == pytest.approx(np.corrcoef(a, b)[0, 1], abs=1e-5)


def test_what_the_neighbours_determine_is_predicted_completely():
    """Tiles that repeat over an image: a neighbour says all. Their mean colour says nothing about their pattern."""
    draws = np.random.default_rng(0)
    patterns = draws.standard_normal((3, 4, 4, 3))
    patterns -= patterns.mean(axis=(1, 2), keepdims=True)
    tiles = np.einsum("nk,khwc->nhwc", draws.standard_normal((20, 3)), patterns)
    tiled = np.tile(tiles.repeat(2, axis=1).repeat(2, axis=2), (1, 5, 5, 1)).astype(np.float32)
    found = redundancy(tiled, patch=8)
    assert found.images.ridge[1] > 0.99 and abs(found.images.mean_colour[1]) < 0.01
    assert abs(found.noise.ridge[1]) < 0.05


def test_the_score_is_that_of_images_which_the_regression_has_not_seen():
    """Four images to fit, each of one tile: they teach four of 48 dimensions, and the others have new tiles."""
    tiles = np.random.default_rng(0).standard_normal((8, 4, 4, 3)).astype(np.float32)
    found = redundancy(np.tile(tiles, (1, 5, 5, 1)), patch=4)
    assert 0 < found.images.ridge[1] < 0.3


def test_scale_and_offset_change_nothing_and_the_seed_repeats():
    few = photos()[:4, :32, :32]
    plain, scaled = (redundancy(x, patch=8, seed=3) for x in (few, few.astype(np.float32) / 255 - 0.5))
    assert plain.images.ridge == pytest.approx(scaled.images.ridge, abs=1e-3)
    assert plain.images.correlation == pytest.approx(scaled.images.correlation, abs=1e-3)
    assert redundancy(few, patch=8, seed=3) == plain != redundancy(few, patch=8, seed=4)


def test_distances_beyond_the_grid_are_left_out_and_partial_rings_are_named():
    found = redundancy(noise(8, 32), patch=16)
    assert list(found.images.ridge) == [1] and not found.complete(1)
    assert max(found.images.correlation) == 31
    assert redundancy(noise(8, 48), patch=16).complete(1)


@pytest.mark.parametrize("patch", [1, 5])
def test_any_patch_size_works(patch):
    found = redundancy(photos()[:6, :22, :22], patch=patch)
    assert found.images.ridge[1] > 0.3 and found.size == 22 // patch * patch


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(DataError, match="at least 4 images, and there is 1"):
        redundancy(noise(1))
    with pytest.raises(DataError, match="of one colour"):
        redundancy(np.full((5, 32, 32, 3), 7, np.uint8))
    with pytest.raises(SettingsError, match="fewer than two patches") as caught:
        redundancy(noise(5, 30))
    assert "at most 15 pixels" in caught.value.fix
