"""What the lessons are about: one model and one image, the user's or ours."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from patchword.data.loader import Named
from patchword.data.request import OpenRequest
from patchword.data.sources.digits import read as read_digits
from patchword.errors import SettingsError
from patchword.explaining.sample import chosen, sources_of
from patchword.formats.facts import Options
from patchword.images.limits import MAX_PIXELS
from patchword.images.prepare import read
from patchword.images.preprocess import Preprocess
from patchword.images.stored import Pixels
from patchword.images.suffixes import SUFFIXES
from patchword.inference.sources import Reading, reading_of
from patchword.lessons.laboratory import DIGITS, PREPROCESS, Laboratory, digit_images
from patchword.model.vit import ViT
from patchword.weights.card import Provenance

if TYPE_CHECKING:
    from patchword.inference.model import Model

# The batch that norms and gradients are measured on: the image, and so many digits less one.
BATCH = 8


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One model, one image, and the small models next to them.

    model: as loaded; None for the small ViT that is trained when it is first needed (`lab.vit`).
    image [1, C, H, W]: as the model takes it. name: of the image. photos: all images that were given.
    seed: of everything random.
    """

    model: "Model | None"
    image: Tensor
    name: str
    photos: tuple[Named, ...]
    seed: int
    lab: Laboratory

    @property
    def vit(self) -> ViT:
        return self.lab.vit if self.model is None else self.model.vit

    @property
    def preprocess(self) -> Preprocess:
        return PREPROCESS if self.model is None else self.model.preprocess

    @property
    def classes(self) -> tuple[str, ...]:
        return DIGITS if self.model is None else self.model.classes

    @property
    def has_answers(self) -> bool:
        """Whether the model has a trained classification head."""
        if self.model is None:
            return True
        return bool(self.model.config.head.num_classes) and not (
            self.model.card.untrained or self.model.report.new
        )

    @property
    def pixels(self) -> Pixels:
        """The image as the model sees it: [H, W, C] uint8."""
        return levels(self.image[0], self.preprocess)

    @cached_property
    def batch(self) -> Tensor:
        """The image and seven digits, as the model takes them: [8, C, H, W]."""
        others = digit_images(self.preprocess, BATCH - 1)
        if others.shape[2:] != self.image.shape[2:]:
            others = F.interpolate(others, size=self.image.shape[2:], mode="bilinear", antialias=True)
        return torch.cat((self.image, others))


def open_subject(
    model: str | Path | None = None,
    image: Any = None,
    *,
    seed: int = 0,
    options: Options | None = None,
    offline: bool = False,
    reading: Reading | None = None,
    lab: Laboratory | None = None,
) -> Subject:
    """Load a model and an image for the lessons.

    Args:
        model: as for `patchword.load`; None for a small ViT that is trained on handwritten digits when it is needed. A path
            that ends like an image is taken as `image` if that is None.
        image: one image, or a path of many, of which the seed chooses one; None for a scan of a digit.
        options, offline: as for `patchword.load`. reading: how a path of many images is read.
        lab: the small models; None for new ones.

    Raises: CheckpointError, ImageError, DataError; SettingsError for a negative seed.
    """
    if seed < 0:
        raise SettingsError(f"seed is {seed}", "use a seed of 0 or more")
    if (
        model is not None
        and image is None
        and Path(model).suffix.lower() in SUFFIXES
        and Path(model).is_file()
    ):
        model, image = None, model
    loaded = None
    if model is not None:
        from patchword.inference.load import load

        loaded = load(model, device="cpu", options=options, offline=offline)
    lab = lab or Laboratory(seed)
    preprocess = PREPROCESS if loaded is None else loaded.preprocess
    photos: tuple[Named, ...] = ()
    if image is None:
        # The first scan of the test part: a digit that our model was not trained on.
        split = read_digits("digits", OpenRequest()).splits["test"]
        name, tensor = split.names[0], digit_images(preprocess, 1)
    else:
        origin = Provenance() if loaded is None else loaded.provenance
        reading = reading or reading_of(None, None, None, None, None, None, MAX_PIXELS)
        photos = tuple(sources_of(image, reading, origin))
        (one,) = chosen(photos, 1, seed)
        name = one.name
        tensor = torch.from_numpy(
            read(one.fetch(), preprocess, name=name, max_pixels=reading.opening.max_pixels)
        )[None]
    return Subject(model=loaded, image=tensor, name=name, photos=photos, seed=seed, lab=lab)


def levels(image: Tensor, preprocess: Preprocess) -> Pixels:
    """Model input [C, H, W] → [H, W, C] uint8, the inverse of the normalisation."""
    mean, std = (image.new_tensor(values)[:, None, None] for values in (preprocess.mean, preprocess.std))
    values = ((image * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(values.permute(1, 2, 0).cpu().numpy())
