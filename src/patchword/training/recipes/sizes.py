"""Image size, patch, width and depth from the data: the part of a recipe that N18 is about.

A ViT sees its image as a handful of tokens. Too few (a 16-pixel patch on a 32-pixel image
leaves four) and there is nothing to attend to; heads narrower than 32 cannot tell tokens apart.
"""

import math
from dataclasses import dataclass

from patchword.model.config import ImageConfig, PatchConfig
from patchword.training.overlay import Overlay
from patchword.training.recipes.common import VIEW, answered_size, is_tiny
from patchword.training.recipes.facts import Choice, DataFacts, Size

PATCHES = (1, 2, 4, 8, 12, 14, 16, 32)
MIN_TOKENS = 16
HEAD_DIM = 32


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What `shape_for` chose, and why. view: of each side of the image, the share that a training view has."""

    image_size: Size
    view: float
    patch_size: Size
    dim: int
    depth: int
    num_heads: int
    why: tuple[Choice, ...]

    @property
    def num_patches(self) -> int:
        rows, columns = (-(-i // p) for i, p in zip(self.image_size, self.patch_size, strict=True))
        return rows * columns


def shape_for(facts: DataFacts, overlay: Overlay) -> Shape:
    """Image, patch, width and depth for these data, each with its reason."""
    why = []
    size, view = overlay.get("model.image.size"), 1.0
    is_chosen = size is None
    if is_chosen:
        size, reason = _image_size(facts)
        why.append(Choice(what=f"images of {size[1]}x{size[0]} pixels", why=reason))
    patch = overlay.get("model.patch.size")
    if patch is None:
        patch = (_patch(min(size)),) * 2
    # A size of 0 must not be divided by.
    size, patch = ImageConfig(size=size).size, PatchConfig(size=patch).size
    dim, depth = _width_and_depth(facts, size)
    dim, depth = overlay.get("model.dim") or dim, overlay.get("model.depth") or depth
    if is_chosen and not is_tiny(size):
        size, view = answered_size(size, patch), VIEW
        reason = "training crops show things larger; --image-size sets one size for both"
        why.append(Choice(what=f"{size[1]}x{size[0]} where it answers", why=reason))
    rows, columns = (-(-i // p) for i, p in zip(size, patch, strict=True))
    seen = f"each image becomes {rows} x {columns} = {rows * columns} tokens"
    why.append(Choice(what=f"patches of {patch[1]}x{patch[0]} pixels", why=seen))
    heads = overlay.get("model.attention.num_heads") or max(dim // HEAD_DIM, 1)
    reason = f"{facts.num_images} training images; heads of {HEAD_DIM} channels"
    why.append(Choice(what=f"{dim} channels, {depth} blocks, {heads} heads", why=reason))
    return Shape(
        image_size=size, view=view, patch_size=patch, dim=dim, depth=depth, num_heads=heads, why=tuple(why)
    )


def _image_size(facts: DataFacts) -> tuple[Size, str]:
    """The pictures' own size up to 48 pixels; then what so many images can fill on this budget."""
    side = min(facts.size)
    if side <= 48:
        return facts.size if max(facts.size) <= 48 else (side, side), "the size of the pictures"
    largest = 64 if facts.num_images < 10_000 else 96 if facts.num_images < 100_000 else 224
    if side <= largest:
        size = (side, side)
        return size, "the shorter side of most pictures"
    why = f"{facts.num_images} images do not teach a ViT more from larger ones in the time; --image-size changes it"
    return (largest, largest), why


def _patch(side: int) -> int:
    """The patch whose tokens are nearest to 8 x 8; up to 16 pixels the largest that leaves 4 x 4.

    Fewer leave attention little to do; more cost time (28-pixel images in patches of 2 take
    four times as long as in patches of 4) that a small data set does not repay.
    """
    fitting = [p for p in PATCHES if side / p >= MIN_TOKENS**0.5] or [1]
    if side <= 16:
        return fitting[-1]
    return 16 if side >= 160 else min(fitting, key=lambda patch: _distance(side, patch))


def _distance(side: int, patch: int) -> float:
    """How far a grid is from 8 x 8 tokens, as a ratio's logarithm; a border that must be padded counts too."""
    return abs(2 * math.log(side / patch / 8)) + (0.3 if side % patch else 0.0)


def _width_and_depth(facts: DataFacts, size: Size) -> tuple[int, int]:
    if is_tiny(size):
        return 64, 4
    if facts.num_images < 500:
        return 96, 4
    if facts.num_images < 10_000:
        return 128, 6
    return (192, 9) if facts.num_images < 100_000 else (384, 12)
