"""The arithmetic that a masked autoencoder is compared with."""

import pytest
import torch

from patchword.model.baselines import BASELINES, baseline_errors, baseline_patches, fill, nearest_visible
from patchword.model.mae import TARGET_EPS, Masking, num_visible, patchify, rows_of

SIZE = (4, 4)


def masked(batch, grid, ratio=0.75, seed=0):
    noise = torch.rand(batch, grid[0] * grid[1], generator=torch.Generator().manual_seed(seed))
    return Masking(noise.argsort(dim=1), num_visible(noise.shape[1], ratio))


def images_of(batch=2, height=32, width=24, seed=1):
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


def test_the_patch_mean_has_error_one_under_normalised_targets_less_what_the_unbiased_variance_and_eps_take():
    images, masking = images_of(), masked(2, (8, 6))
    found = baseline_errors(images, masking, SIZE, norm_targets=True)["patch_mean"]
    assert found == pytest.approx(47 / 48, rel=1e-4)
    # Where contrast is low, eps matters.
    faint = baseline_errors(images * 1e-3, masking, SIZE, norm_targets=True)["patch_mean"]
    variance = rows_of(patchify(images * 1e-3, SIZE), masking.hidden).var(dim=-1)
    assert torch.allclose(faint, (47 / 48 * variance / (variance + TARGET_EPS)).mean(dim=1), rtol=1e-4)


def test_the_patch_mean_is_the_variance_inside_hidden_patches_in_pixels():
    images, masking = images_of(), masked(2, (8, 6))
    found = baseline_errors(images, masking, SIZE, norm_targets=False)["patch_mean"]
    inside = rows_of(patchify(images, SIZE), masking.hidden).var(dim=-1, correction=0).mean(dim=1)
    assert torch.allclose(found, inside)


@pytest.mark.parametrize("norm_targets", [False, True])
def test_no_baseline_reads_a_hidden_pixel_and_a_batch_equals_its_images(norm_targets):
    images, masking = images_of(), masked(2, (8, 6))
    hidden = masking.mask.reshape(2, 1, 8, 6).repeat_interleave(4, 2).repeat_interleave(4, 3) > 0
    spoilt = baseline_patches(torch.where(hidden, 1e6, images), masking, SIZE)
    for name, patches in baseline_patches(images, masking, SIZE).items():
        assert torch.equal(patches, spoilt[name]), name
    both = baseline_errors(images, masking, SIZE, norm_targets)
    assert tuple(both) == BASELINES
    for index in range(2):
        one = Masking(masking.order[index : index + 1], masking.num_visible)
        alone = baseline_errors(images[index : index + 1], one, SIZE, norm_targets)
        for name in BASELINES:
            assert torch.allclose(both[name][index], alone[name][0]), name


def test_interpolation_is_exact_for_a_bilinear_image_between_known_values():
    y, x = torch.meshgrid(torch.arange(12.0), torch.arange(16.0), indexing="ij")
    image = (3 + 2 * x - y + 0.5 * x * y)[None, None]
    known = torch.zeros(1, 12, 16, dtype=torch.bool)
    known[:, 0], known[:, -1], known[:, :, 0], known[:, :, -1], known[:, 5, 7] = (True,) * 5
    filled, reached = fill(torch.where(known[:, None], image, -1e3), known)
    assert reached.all()
    assert torch.allclose(filled, image, atol=1e-4)


def test_beyond_the_last_known_value_it_is_constant_and_without_any_it_says_so():
    known = torch.zeros(1, 3, 4, dtype=torch.bool)
    known[0, 1, 1] = True
    filled, reached = fill(torch.full((1, 1, 3, 4), 7.0), known)
    assert reached[0].tolist() == [
        [False, True, False, False],
        [True] * 4,
        [False, True, False, False],
    ]
    assert filled[0, 0].tolist() == [[0, 7, 0, 0], [7] * 4, [0, 7, 0, 0]]


def test_nearest_is_the_patch_with_the_nearest_centre_in_pixels():
    # Patches 0 … 11 in a grid of 3 x 4; 0 and 7 visible.
    order = torch.tensor([[0, 7, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11]])
    found = nearest_visible(Masking(order, 2), (3, 4))
    assert found.tolist() == [[0, 7, 7, 0, 0, 7, 0, 0, 7, 7]]


@pytest.mark.parametrize(("size", "wanted"), [((4, 4), [0, 0]), ((8, 4), [0, 3]), ((4, 8), [3, 0])])
def test_distances_are_in_pixels_and_the_first_of_equals_is_taken(size, wanted):
    masking = Masking(torch.tensor([[3, 0, 1, 2]]), 2)
    assert nearest_visible(masking, (2, 2), size).tolist() == [wanted]


def test_a_patch_alone_in_row_and_column_is_copied_from_the_nearest():
    images = images_of(1, 12, 12)
    masking = Masking(torch.tensor([[0, 1, 2, 3, 4, 5, 6, 7, 8]]), 1)
    filled = baseline_patches(images, masking, SIZE)
    assert torch.equal(filled["bilinear"][0, -1], patchify(images, SIZE)[0, 0])
    assert not torch.equal(filled["bilinear"][0, 0], filled["nearest"][0, 0])


def test_on_a_smooth_image_interpolation_beats_the_nearest_patch_and_on_noise_nothing_beats_the_mean():
    y, x = torch.meshgrid(torch.linspace(0, 3, 32), torch.linspace(0, 2, 24), indexing="ij")
    smooth = torch.stack([torch.sin(x + y + shift) for shift in (0.0, 0.5, 1.0)])[None]
    masking = masked(1, (8, 6))
    for norm_targets in (False, True):
        found = baseline_errors(smooth, masking, SIZE, norm_targets)
        assert found["bilinear"] < found["nearest"]
        noise = baseline_errors(images_of(1), masking, SIZE, norm_targets)
        assert noise["patch_mean"] < min(noise["bilinear"], noise["nearest"])
