"""Compare preprocessing by the pixels that it gives."""

from typing import Any

from patchword.images.geometry import Cover, ResizeRule, Shorter, Squash
from patchword.images.preprocess import Preprocess

# Image sizes (portrait, landscape, odd) whose crops distinguish the roundings.
PICTURES = tuple((480 + i, 641 - 7 * i) for i in range(0, 60, 3))


def _sides(rule: ResizeRule) -> ResizeRule:
    """The rule without its rounding; covering a square equals resizing the shorter side."""
    match rule:
        case Cover(size=(height, width)) if height == width:
            return Shorter(size=height)
        case Shorter(size=size):
            return Shorter(size=size)
        case Squash(size=size):
            return Squash(size=size)
    return rule


def preparations(ours: Preprocess, theirs: Preprocess) -> list[tuple[str, Any, Any]]:
    """Steps that give different pixels, as (field, ours, theirs); one number for all channels equals three."""
    found = []
    for name in ("image_size", "resize", "resample", "mean", "std"):
        mine, other = getattr(ours, name), getattr(theirs, name)
        if name in ("mean", "std"):
            mine, other = ((v * ours.in_channels if len(v) == 1 else v) for v in (mine, other))
        same = _sides(mine) == _sides(other) if name == "resize" else mine == other
        if not same:
            found.append((name, mine, other))
        elif name == "resize" and _rounds_otherwise(ours, theirs):
            found.append(("resize (rounding only, at most one pixel)", mine, other))
    return found


def _rounds_otherwise(ours: Preprocess, theirs: Preprocess) -> bool:
    return any(ours.plan(size) != theirs.plan(size) for size in PICTURES)
