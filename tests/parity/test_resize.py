"""Every recorded resampling of the originals: positions, tables of differences, patch kernels.

A few cases are committed; PATCHWORD_CASES names a folder with all of them.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

from patchword.model.kinds import Resample
from patchword.model.resample import resample_differences, resample_grid, resample_kernel
from support.parity import Case, cases_in, difference, folders

CASES = cases_in(folders(), {"resize"})

FLEXI = Resample(interpolation="bilinear", antialias=False)


def in_words(method: str) -> Resample:
    """The rule that a case describes in a sentence."""
    half_pixel_jax = "half-pixel" in method and "no antialias" not in method
    return Resample(
        interpolation="bicubic" if "cubic" in method else "bilinear",
        antialias=half_pixel_jax or ("antialias" in method and "no antialias" not in method),
        align_corners="corners aligned" in method or "align_corners true" in method.lower(),
        offset=0.1 if "+ 0.1" in method else 0.0,
    )


def rule_of(config: dict[str, Any]) -> Resample:
    if "method" in config:
        return in_words(config["method"])
    return Resample(
        interpolation=config.get("interpolation", "bicubic"),
        antialias=config["antialias"],
        align_corners=config.get("align_corners", False),
        offset=config.get("offset", 0.0),
    )


def resized(case: Case) -> Tensor:
    config, arrays = case.meta["config"], case.arrays()
    old, new = tuple(config["old"]), tuple(config["size"])
    if "kernel" in arrays:
        rule = FLEXI if case.meta["origin"] == "google" else rule_of(config)
        return resample_kernel(torch.from_numpy(arrays["kernel"]), new, rule)
    grid = torch.from_numpy(arrays["grid"])
    if "relative_bias" not in case.name:
        return resample_grid(grid, new, rule_of(config))
    extra = config.get("extra_entries", 0)
    table = (grid[: len(grid) - extra] if extra else grid).reshape(-1, grid.shape[-1])
    done = resample_differences(table, old, new, "linear" if case.meta["origin"] == "timm" else "cubic")
    return torch.cat((done, grid[-extra:])) if extra else done.view(arrays["resized"].shape)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_is_resized_as_its_original_does(case: Case) -> None:
    far = difference(resized(case), case.arrays()["resized"])
    assert far <= case.meta["tolerance"], far
