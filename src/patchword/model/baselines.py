"""What a masked autoencoder is to be compared with: hidden patches filled in by arithmetic, without learning.

Shapes: B images, N patches, k of them visible, V values per patch.
"""

import torch
from torch import Tensor

from patchword.model.mae import Masking, patchify, rows_of, standardise
from patchword.model.positions.layout import Grid

BASELINES = ("patch_mean", "nearest", "bilinear")


@torch.no_grad()
def baseline_errors(
    images: Tensor, masking: Masking, size: tuple[int, int], norm_targets: bool
) -> dict[str, Tensor]:
    """The error [B] of each baseline, averaged over the hidden patches, in the units of the loss of `MAE`.

    patch_mean: each hidden patch filled with its own mean over all pixels and channels. It knows the truth: a model with a
        larger error has learnt nothing about what is inside a patch. With norm_targets, a patch of variance v (unbiased)
        gives (V - 1)/V · v/(v + eps): V - 1, because the targets divide by the unbiased variance; eps matters in flat patches.
    nearest, bilinear: see `baseline_patches`. With norm_targets they are standardised patch by patch, like any prediction of
        the targets. Two unrelated patches then have an error of about 2, so both can be worse than patch_mean.

    Args:
        images: [B, C, H, W], as they enter the model; H and W are multiples of size.
        masking: which patches are visible.
        size: pixels of a patch, rows and columns.
        norm_targets: whether the model predicts patches standardised one by one.
    """
    truth = rows_of(patchify(images.float(), size), masking.hidden)
    filled = {"patch_mean": truth.mean(dim=-1, keepdim=True).expand_as(truth)}
    filled |= baseline_patches(images, masking, size)
    if norm_targets:
        truth = standardise(truth)
        # Deviations of rounding size, divided by the root of eps, would not be zero.
        filled = {
            name: torch.zeros_like(truth) if name == "patch_mean" else standardise(patches)
            for name, patches in filled.items()
        }
    return {name: (patches - truth).square().mean(dim=(1, 2)) for name, patches in filled.items()}


def baseline_patches(images: Tensor, masking: Masking, size: tuple[int, int]) -> dict[str, Tensor]:
    """Pixels for the hidden patches from the visible ones alone, in the order of `masking.hidden`: name → [B, N - k, V].

    nearest: a copy of the nearest visible patch.
    bilinear: `fill` from the visible pixels; the nearest visible patch where a row and column have none.
    """
    images = images.float()
    grid = (images.shape[2] // size[0], images.shape[3] // size[1])
    patches = patchify(images, size)
    nearest = rows_of(patches, nearest_visible(masking, grid, size))
    seen = masking.mask.reshape(-1, *grid) == 0
    bilinear, reached = fill(images, seen.repeat_interleave(size[0], dim=1).repeat_interleave(size[1], dim=2))
    # False for a patch that has no visible patch in its row and column.
    reached = rows_of(patchify(reached[:, None], size), masking.hidden)[..., :1]
    smooth = rows_of(patchify(bilinear, size), masking.hidden)
    return {"nearest": nearest, "bilinear": torch.where(reached, smooth, nearest)}


def nearest_visible(masking: Masking, grid: Grid, size: tuple[int, int] = (1, 1)) -> Tensor:
    """The visible patch nearest to each hidden one (of several, the first by row, column): indices [B, N - k].

    Distances are between centres, in pixels of patches of the given size.
    """
    index = torch.arange(grid[0] * grid[1], device=masking.order.device)
    places = torch.stack((index // grid[1] * size[0], index % grid[1] * size[1]), dim=-1)
    apart = places[masking.hidden][:, :, None] - places[masking.visible][:, None]
    # The index makes every value unique: argmin promises no order among equals.
    rank = apart.square().sum(dim=-1) * len(index) + masking.visible[:, None]
    return masking.visible.gather(1, rank.argmin(dim=-1))


def fill(values: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Interpolate where values are not known, from the nearest known values left, right, above and below.

    Each of the four counts by 1/distance: linear interpolation between two on one axis. So a function a + bx + cy + dxy is
    reproduced exactly between known values on each side; beyond the last known value of a row or column it is constant.

    Args:
        values: [B, C, H, W]; those that are not known are not read.
        known: [B, H, W], true where the value is known.

    Returns: the filled values, and where there is one [B, H, W]. Without a known value in its row and column, a place is 0.
    """
    total, weights = torch.zeros_like(values), torch.zeros_like(values[:, :1])
    for dim in (2, 3):
        for backwards in (False, True):
            value, distance = _last_known(values, known[:, None], dim, backwards)
            weight = 1 / distance
            total, weights = total + weight * value, weights + weight
    return torch.where(known[:, None], values, total / weights.clamp(min=1e-12)), known | (weights[:, 0] > 0)


def _last_known(values: Tensor, known: Tensor, dim: int, backwards: bool) -> tuple[Tensor, Tensor]:
    """The nearest known value before each place along a dimension (or behind it), and its distance: infinite if none."""
    if backwards:
        values, known = values.flip(dim), known.flip(dim)
    length = values.shape[dim]
    place = torch.arange(length, device=values.device).reshape(-1, *(1,) * (3 - dim))
    last = torch.where(known, place, -1).cummax(dim=dim).values
    value = values.gather(dim, last.clamp(min=0).expand_as(values))
    distance = torch.where(last < 0, torch.inf, (place - last).clamp(min=1).to(values.dtype))
    value = torch.where(last < 0, 0, value)
    return (value.flip(dim), distance.flip(dim)) if backwards else (value, distance)
