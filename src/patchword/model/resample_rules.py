"""List the weights that a model resamples if the image size differs from the stored one."""

from patchword.model.config import ViTConfig
from patchword.model.kinds import Learned, LearnedBetween, LearnedTokens, RelativeBias, Resample, Size

_TOKENS = "bicubic"


def resampled(config: ViTConfig, image_size: Size | None) -> tuple[str, ...]:
    """Each position table that is resampled at run time: from which grid, to which, by which rule.

    image_size: (height, width) of the model's input; None if each image has its own.
    """
    old, new = config.grid_size, config.grid_of(image_size) if image_size else None
    there = f"{new[0]} x {new[1]}" if new else "the grid of each image"
    found = []
    if isinstance(added := config.added_positions, Learned) and old != new:
        found.append(f"positions from {old[0]} x {old[1]} to {there}: {rule_text(added.resample)}")
    if isinstance(added, LearnedTokens) and old != new:
        found.append(f"positions from {old[0]} x {old[1]} to {there}: {_TOKENS}")
    if isinstance(inner := config.inner_positions, RelativeBias) and old != new:
        found.append(f"relative positions from {old[0]} x {old[1]} to {there}: {inner.rule}")
    if isinstance(inner, LearnedBetween) and inner.grid != new:
        found.append(f"positions between blocks from {inner.grid[0]} x {inner.grid[1]} to {there}: {_TOKENS}")
    return tuple(found)


def rules(config: ViTConfig) -> dict[str, str]:
    """The resampling rule of each table that depends on the image size."""
    found = {}
    if isinstance(added := config.added_positions, Learned):
        found["positions"] = rule_text(added.resample)
    if isinstance(inner := config.inner_positions, RelativeBias):
        found["relative positions"] = inner.rule
    return found


def rule_text(rule: Resample) -> str:
    """ "bicubic, antialias"."""
    extras = {
        "antialias": rule.antialias,
        "corners kept": rule.align_corners,
        f"offset {rule.offset:g}": rule.offset,
        "aspect kept": rule.keep_aspect,
    }
    return ", ".join([rule.interpolation, *(words for words, on in extras.items() if on)])
