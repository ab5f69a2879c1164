"""From images with boxes to training views with boxes: pixels and boxes move together."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from patchword.data.box_targets import ImageBoxes
from patchword.model.boxes import to_centres
from patchword.model.matching import Targets
from patchword.training.augment.box_settings import BoxAugmentSettings
from patchword.training.augment.box_windows import Window, draw_windows, letterbox, moved
from patchword.training.augment.colour import jitter_colour
from patchword.training.augment.geometry import as_unit_float, warp
from patchword.training.chance import Draws

# `warp` halves an image up to so often before it samples; sides that divide evenly keep every pixel where it is.
_HALVINGS = 4


@dataclass(frozen=True, kw_only=True)
class BoxViews:
    """images [B, C, h, w] float32 in 0..1. padding [B, h, w] bool: pixels that no image covers. boxes, windows: B each."""

    images: Tensor
    padding: Tensor
    boxes: list[ImageBoxes]
    windows: list[Window]

    def targets(self) -> Targets:
        """The objects as shares of the views, for the set losses. Groups (crowd) are no objects to find."""
        height, width = self.images.shape[-2:]
        sides = torch.tensor([width, height, width, height], dtype=torch.float64)
        found = []
        for one in self.boxes:
            kept = ~one.crowd
            corners = torch.from_numpy(one.corners[kept])
            found.append((torch.from_numpy(one.labels[kept]), to_centres(corners / sides).float()))
        return Targets.of(found)


class BoxAugment:
    """Turns images of any size into training views of one size.

    Scale, crop, stretch and flip are one map for each image, so pixels are sampled once. A view depends on its own image
    and draws only, not on the batch.
    """

    def __init__(
        self, settings: BoxAugmentSettings, output_size: tuple[int, int], fill: Sequence[float] = (0.5,)
    ) -> None:
        """output_size: (h, w) of the views. fill: of pixels outside the image, for each channel or one for all."""
        self.settings, self.output_size = settings, output_size
        self.fill = torch.tensor(fill, dtype=torch.float32).view(-1, 1, 1)

    def __call__(self, images: Sequence[Tensor], boxes: Sequence[ImageBoxes], draws: Draws) -> BoxViews:
        """images: B of [C, H, W], uint8 or float in 0..1, each of the size of its boxes.

        Raises: ValueError if they do not fit together.
        """
        if not len(images) == len(boxes) == len(draws):
            raise ValueError(f"{len(images)} images, {len(boxes)} boxes and {len(draws)} draws")
        windows = draw_windows(list(boxes), self.output_size, self.settings, draws.stream("window"))
        return self._views(images, boxes, windows, draws)

    def plain(self, images: Sequence[Tensor], boxes: Sequence[ImageBoxes]) -> BoxViews:
        """The complete images in the middle of their views, unchanged but for their size."""
        windows = [letterbox(one.size, self.output_size) for one in boxes]
        return self._views(images, boxes, windows, None)

    def _views(
        self,
        images: Sequence[Tensor],
        boxes: Sequence[ImageBoxes],
        windows: list[Window],
        draws: Draws | None,
    ) -> BoxViews:
        keep = 0.0 if draws is None else self.settings.keep
        shown, paddings = [], []
        for i, (image, one, window) in enumerate(zip(images, boxes, windows, strict=True)):
            if tuple(image.shape[-2:]) != one.size:
                raise ValueError(f"an image of {tuple(image.shape)} with boxes of {one.size}")
            view = sampled(image, window)
            if draws is not None and not self.settings.colour.is_identity:
                part = draws.part(slice(i, i + 1)).stream("colour")
                view = jitter_colour(view[None], self.settings.colour, part)[0].clamp_(0.0, 1.0)
            padding = outside(window).to(view.device)
            shown.append(torch.where(padding, self.fill.to(view.device), view))
            paddings.append(padding)
        return BoxViews(
            images=torch.stack(shown),
            padding=torch.stack(paddings),
            boxes=[moved(one, window, keep) for one, window in zip(boxes, windows, strict=True)],
            windows=windows,
        )


def sampled(image: Tensor, window: Window) -> Tensor:
    """[C, H, W] → the view [C, h, w] float32 in 0..1. Beyond the image its edge is repeated."""
    pixels = as_unit_float(image[None])
    height, width = pixels.shape[-2:]
    step = 2**_HALVINGS
    pixels = F.pad(pixels, (0, -width % step, 0, -height % step), mode="replicate")
    size = pixels.shape[-2], pixels.shape[-1]
    return warp(pixels, window.matrix(size).to(pixels.device), window.view, "border")[0]


def outside(window: Window) -> Tensor:
    """[h, w] bool: the pixels of the view whose centre the image does not cover."""
    left, top, right, bottom = window.shown()[0].tolist()
    height, width = window.view
    rows, columns = torch.arange(height) + 0.5, torch.arange(width) + 0.5
    inside: Tensor = ((rows >= top) & (rows <= bottom))[:, None] & ((columns >= left) & (columns <= right))
    return inside.logical_not()
