"""The model whose answers are explained: its classes, and which methods apply to it."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from patchword.data.loader import Named
from patchword.errors import DataError, ImageError, SettingsError, near_text
from patchword.explaining.methods.base import Method, without_classes
from patchword.explaining.methods.table import METHODS, methods_of
from patchword.images.limits import MAX_PIXELS
from patchword.images.prepare import read
from patchword.images.preprocess import Preprocess, ValueRange
from patchword.images.stored import Pixels
from patchword.inference.model import Model
from patchword.inference.outputs import read_output
from patchword.inference.parts import choose_part


class Subject:
    """A model and the class to explain.

    class_name: one for all images; None for the most probable class of each. A model of numbers answers with all of them;
    the first is explained unless another is named.
    Raises: SettingsError for an unknown class, or a class of a model without classes; CheckpointError for an
    untrained backbone.
    """

    def __init__(self, model: Model, class_name: str | None = None) -> None:
        model.part(choose_part(model.config))  # raises for a backbone that was drawn at random
        self.model, self.vit = model, model.vit
        self.knows_classes = bool(model.config.head.num_classes) and not model.card.untrained
        self.task = model.card.task
        self.fixed = self._index(class_name)

    def _index(self, name: str | None) -> int | None:
        if name is None:
            return 0 if self.task == "number" else None
        if not self.knows_classes:
            raise without_classes()
        known = self.model.classes
        if name in known:
            return known.index(name)
        if name.isdecimal() and int(name) < len(known):
            return int(name)
        near = near_text(name, known)
        few = ", ".join(known[:5]) + (f" … ({len(known)} in all)" if len(known) > 5 else "")
        raise SettingsError(
            f"{self.model.report.path}: there is no class {name!r}{near}", f"give one of its classes: {few}"
        )

    def methods(self, names: Sequence[str]) -> list[Method]:
        """Raises: SettingsError for an unknown method, or one that needs classes that the model does not have."""
        found = methods_of(names)
        for method in found:
            if method.class_aware and not self.knows_classes:
                self._check_head()
                raise SettingsError(
                    f"{self.model.report.path}: {method.name} explains a class, and this model has no classes",
                    f"use one of: {', '.join(m.name for m in METHODS.values() if not m.class_aware)}; or train a head on it",
                )
        return found

    def _check_head(self) -> None:
        """Raises: CheckpointError if there is a head that was never trained."""
        if self.model.config.head.num_classes:
            self.model.check_can_predict()

    def candidates(self) -> list[Method]:
        """Methods among which the default is chosen: those whose claim can be tested."""
        aware_only = self.fixed is not None
        return [
            method
            for method in METHODS.values()
            if method.scored
            and (self.knows_classes or not method.class_aware)
            and (method.class_aware or not aware_only)
        ]

    def targets(self, answers: Tensor) -> Tensor | None:
        """The class to explain in each image, [B], from the model's answers [B, classes]."""
        if not self.knows_classes:
            return None
        if self.fixed is not None:
            return torch.full((len(answers),), self.fixed, device=answers.device)
        return answers.argmax(1)

    def target_of(self, logits: NDArray[np.float32]) -> int:
        return int(logits.argmax()) if self.fixed is None else self.fixed

    def probabilities(self, logits: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """Of all classes; None for a model without classes, or of numbers."""
        if not self.knows_classes:
            return None
        return read_output(self.model.card, self.model.classes, logits)[0]

    def inputs(
        self, sources: Sequence[Named], value_range: ValueRange | None = None, max_pixels: int = MAX_PIXELS
    ) -> Iterator[Tensor]:
        """Readable images as the model takes them, [1, C, H, W] each. Others are left to the pass that lists them."""
        preprocess = self.model.preprocess.with_range(value_range)
        for source in sources:
            try:
                pixels = read(source.fetch(), preprocess, name=source.name, max_pixels=max_pixels)
            except (ImageError, DataError):
                continue
            yield torch.from_numpy(pixels)[None].to(self.model.device, self.model.dtype)


def levels(image: Tensor, preprocess: Preprocess) -> Pixels:
    """Model input [C, H, W] → [H, W, C] uint8, the inverse of the normalisation."""
    mean, std = (image.new_tensor(values)[:, None, None] for values in (preprocess.mean, preprocess.std))
    shown = ((image * std + mean) * 255).round().clamp(0, 255)
    pixels: Pixels = shown.to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    return np.ascontiguousarray(pixels)
