"""Positions and kernels at another size, against the installed timm, for grids from 1 x 1 to 40 x 40."""

import random

import pytest
import torch
import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed, resample_patch_embed
from torch import Tensor

from patchword.model.kinds import Resample
from patchword.model.resample import resample_grid, resample_kernel

pytestmark = pytest.mark.peers
TIMM = Resample(interpolation="bicubic", antialias=True)
DINOV2 = Resample(interpolation="bicubic", antialias=False, offset=0.1)


def sampled(count: int) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Old and new grids; a third of them one row or one column, where implementations part."""
    drawn = random.Random(0)
    found = []
    for index in range(count):
        sides = [drawn.randint(1, 40) for _ in range(4)]
        if index % 3 == 0:
            sides[drawn.randrange(4)] = 1
        found.append(((sides[0], sides[1]), (sides[2], sides[3])))
    return found


def apart(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


def test_positions_are_timms_for_all_grids() -> None:
    for old, new in sampled(1500):
        table = torch.randn(*old, 6, generator=torch.Generator().manual_seed(sum(old)))
        flat = table.reshape(1, -1, 6)
        theirs = resample_abs_pos_embed(flat, list(new), list(old), num_prefix_tokens=0)[0]
        assert apart(resample_grid(table, new, TIMM).reshape(-1, 6), theirs) < 1e-5, (old, new)


def test_positions_are_dinov2s_for_all_grids() -> None:
    """DINOv2 hands the sampler the factor (target + 0.1) / side, as its `interpolate_pos_encoding` says."""
    for (side, _), new in sampled(600):
        if new == (side, side):
            continue
        table = torch.randn(side, side, 6, generator=torch.Generator().manual_seed(side))
        x = table.reshape(1, side, side, 6).permute(0, 3, 1, 2)
        factors = [(target + 0.1) / side for target in new]
        theirs = F.interpolate(x, scale_factor=factors, mode="bicubic", antialias=False)
        assert theirs.shape[-2:] == new
        ours = resample_grid(table, new, DINOV2)
        assert apart(ours, theirs[0].permute(1, 2, 0)) < 1e-5, (side, new)


@pytest.mark.parametrize(("old", "new"), [(16, 8), (8, 14), (14, 16), (32, 12), (7, 7)])
def test_kernels_are_timms(old: int, new: int) -> None:
    kernel = torch.randn(5, 3, old, old, generator=torch.Generator().manual_seed(0))
    theirs = resample_patch_embed(kernel, [new, new])
    assert apart(resample_kernel(kernel, (new, new), TIMM), theirs) < 1e-4
