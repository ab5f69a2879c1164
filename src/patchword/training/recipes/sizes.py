"""Choose image size, patch size, width and depth from the data.

Too few tokens leave nothing to attend to (a 16-pixel patch on a 32-pixel image gives only four), and
heads narrower than 32 cannot distinguish tokens.
"""

import math
from dataclasses import dataclass

from patchword.model.config import ImageConfig, PatchConfig
from patchword.training.overlay import Overlay
from patchword.training.recipes.common import VIEW, evaluation_size, is_tiny
from patchword.training.recipes.facts import Choice, DataFacts, Size

PATCHES = (1, 2, 4, 8, 12, 14, 16, 32)
MIN_TOKENS = 16
HEAD_DIM = 32


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The choices of `shape_for`, with reasons. view: side of a training view, as a share of the image's side."""

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


def shape_for(facts: DataFacts, overlay: Overlay, *, larger: bool = True) -> Shape:
    """Choose image size, patch size, width and depth for these data, each with a reason.

    larger: evaluate at a larger size than that of the training views.
    """
    why = []
    size, view = overlay.get("model.image.size"), 1.0
    is_chosen = size is None
    if is_chosen:
        size, reason = _image_size(facts)
        why.append(Choice(what=f"images of {size[1]}x{size[0]} pixels", why=reason))
    patch = overlay.get("model.patch.size")
    if patch is None:
        patch = (patch_for(min(size)),) * 2
    # Validate the sizes first, because they are used as divisors.
    size, patch = ImageConfig(size=size).size, PatchConfig(size=patch).size
    dim, depth = _width_and_depth(facts, size)
    dim, depth = overlay.get("model.dim") or dim, overlay.get("model.depth") or depth
    if larger and is_chosen and not is_tiny(size):
        size, view = evaluation_size(size, patch), VIEW
        reason = "because objects look larger in training crops; --image-size uses one size for both"
        why.append(Choice(what=f"evaluated at {size[1]}x{size[0]}", why=reason))
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
    """The images' own size up to 48 pixels, else a size that suits the number of images."""
    side = min(facts.size)
    if side <= 48:
        return facts.size if max(facts.size) <= 48 else (side, side), "the size of the images"
    largest = 64 if facts.num_images < 10_000 else 96 if facts.num_images < 100_000 else 224
    if side <= largest:
        size = (side, side)
        return size, "the shorter side of most images"
    why = f"with {facts.num_images} images, larger inputs do not improve accuracy in the same time; change with --image-size"
    return (largest, largest), why


def patch_for(side: int) -> int:
    """The patch size whose grid is nearest to 8 x 8; up to 16 pixels, the largest that gives 4 x 4.

    Fewer tokens are too few for attention to help. More take longer (28-pixel images in patches of 2 take
    four times as long as in patches of 4) without a benefit on small data sets.
    """
    fitting = [p for p in PATCHES if side / p >= MIN_TOKENS**0.5] or [1]
    if side <= 16:
        return fitting[-1]
    return 16 if side >= 160 else min(fitting, key=lambda patch: _distance(side, patch))


def _distance(side: int, patch: int) -> float:
    """Distance of a grid from 8 x 8 tokens, as a log ratio, with a penalty for padding."""
    return abs(2 * math.log(side / patch / 8)) + (0.3 if side % patch else 0.0)


def _width_and_depth(facts: DataFacts, size: Size) -> tuple[int, int]:
    if is_tiny(size):
        return 64, 4
    if facts.num_images < 500:
        return 96, 4
    if facts.num_images < 10_000:
        return 128, 6
    return (192, 9) if facts.num_images < 100_000 else (384, 12)
