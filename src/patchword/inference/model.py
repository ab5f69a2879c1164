"""What `patchword.load` gives: a torch module that knows how it is fed and what it answers."""

import os
import typing
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from patchword.checkpoints.card import ModelCard, Provenance
from patchword.checkpoints.plan import HEADS
from patchword.checkpoints.report import LoadReport
from patchword.data.loader import Named
from patchword.data.request import OpenRequest
from patchword.errors import CheckpointError, SettingsError, near_text
from patchword.images.decode import Source
from patchword.images.limits import MAX_PIXELS
from patchword.images.preprocess import Preprocess, ValueRange
from patchword.inference.engine import Output, Route, answers, fitted, make_plan
from patchword.inference.prediction import Prediction
from patchword.inference.sources import Given, Reading, as_many
from patchword.model.config import ViTConfig
from patchword.model.vit import ViT

Feature = Literal["embedding", "class", "mean", "tokens"]
FEATURES: tuple[Feature, ...] = ("embedding", "class", "mean", "tokens")
Vectors = NDArray[np.float32]
Picture = Source | Tensor
Many = list[Any] | tuple[Any, ...] | Iterator[Any]


class Model(nn.Module):
    """A ViT with its card. Begins in evaluation mode.

    model(images [B, C, H, W] as `preprocess` gives them) → logits [B, classes]; of a model
    without a head, embeddings. `predict` and `embed` take files, arrays, PIL images or lists.
    """

    def __init__(self, vit: ViT, card: ModelCard, report: LoadReport) -> None:
        super().__init__()
        self.vit = vit
        self.card = card
        self.report = report
        self.eval()

    @property
    def config(self) -> ViTConfig:
        return self.card.config

    @property
    def preprocess(self) -> Preprocess:
        return self.card.preprocess

    @property
    def classes(self) -> tuple[str, ...]:
        """Names in the order of the logits; "class 17" where the file names none."""
        return self.card.classes or tuple(f"class {i}" for i in range(self.config.head.num_classes))

    @property
    def provenance(self) -> Provenance:
        return self.card.provenance

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    def forward(self, images: Tensor) -> Tensor:
        if (self.card.untrained or self.report.new) and not self.training:
            raise self._untrained()
        logits: Tensor = self.vit(images)
        return logits

    @overload
    def predict(
        self,
        source: Many,
        *,
        split: str | None = None,
        image_column: str | None = None,
        label_column: str | None = None,
        value_range: ValueRange | None = None,
        batch_size: int | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> list[Prediction]: ...
    @overload
    def predict(
        self,
        source: Picture,
        *,
        split: str | None = None,
        image_column: str | None = None,
        label_column: str | None = None,
        value_range: ValueRange | None = None,
        batch_size: int | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> Prediction: ...
    def predict(
        self,
        source: Picture | Many,
        *,
        split: str | None = None,
        image_column: str | None = None,
        label_column: str | None = None,
        value_range: ValueRange | None = None,
        batch_size: int | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> Prediction | list[Prediction]:
        """One image (path, bytes, open file, array, tensor, PIL image) → Prediction; many → a list of them.

        Many is a list, a tuple, an iterator, or the path of a folder, zip, table, list file or pattern. split: of
        the data set at that path; None takes all its images. image_column, label_column: of a table.
        value_range: (lowest, highest) of float, 16- and 32-bit images; None takes the model's own.
        Raises: ImageError if a single image cannot be read; among many, its own Prediction holds the error.
        DataError if nothing that was named can be read; CheckpointError for a model that has no trained head.
        """
        how = Reading(split=split, opening=_opening(image_column, label_column, max_pixels))
        if (many := self._many(source, how)) is not None:
            return list(
                self.predict_each(many, value_range=value_range, batch_size=batch_size, max_pixels=max_pixels)
            )
        self.check_can_predict()
        (answer,) = self.answers([source], self.vit, max_pixels=max_pixels, value_range=value_range)
        if answer.error is not None:
            raise answer.error
        return self._prediction(answer, typing.cast(Picture, source), value_range)

    def predict_each(
        self,
        sources: Iterable[Any] | str | os.PathLike[str],
        *,
        value_range: ValueRange | None = None,
        batch_size: int | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> Iterator[Prediction]:
        """As `predict` of many, one after the other while the next are computed; memory stays flat."""
        self.check_can_predict()
        if isinstance(sources, str | os.PathLike):
            path = sources
            sources = self._many(path, Reading(opening=_opening(None, None, max_pixels))) or [path]
        for answer, prediction in self.answer_each(
            sources, batch_size=batch_size, max_pixels=max_pixels, value_range=value_range
        ):
            # Of what was given as a list the image itself is known, also if it is no path.
            if isinstance(sources, list | tuple) and not isinstance(sources[answer.index], Named):
                prediction = replace(prediction, source=_untorched(sources[answer.index]))
            yield prediction

    def answer_each(
        self,
        sources: Iterable[Any],
        *,
        value_range: ValueRange | None = None,
        batch_size: int | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> Iterator[tuple[Output, Prediction]]:
        """As `predict_each`, with the logits beside each Prediction."""
        self.check_can_predict()
        for answer in self.answers(
            sources, self.vit, batch_size=batch_size, max_pixels=max_pixels, value_range=value_range
        ):
            yield answer, self._prediction(answer, None, value_range)

    def embed(
        self,
        source: Picture | Many,
        *,
        feature: Feature = "embedding",
        split: str | None = None,
        image_column: str | None = None,
        label_column: str | None = None,
        value_range: ValueRange | None = None,
        batch_size: int | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> Vectors:
        """One image → its vector [D]; many → [images, D]. The arguments are those of `predict`.

        feature: "embedding" is what the head reads, pooled and normed (the recommended one);
        "class" the class token and "mean" the mean of the patches, both after the final norm;
        "tokens" all tokens [N, D], prefix first.
        Raises: ImageError for the first image that cannot be read (the command goes on).
        """
        many = self._many(
            source, Reading(split=split, opening=_opening(image_column, label_column, max_pixels))
        )
        sources = [source] if many is None else many
        rows: list[Vectors] = []
        for answer in self.answers(
            sources,
            self.feature(feature),
            batch_size=batch_size,
            max_pixels=max_pixels,
            value_range=value_range,
        ):
            if answer.values is None:
                assert answer.error is not None
                raise answer.error
            rows.append(answer.values)
        if many is None:
            return rows[0]
        return np.stack(rows) if rows else np.empty((0, self.config.embed_dim), np.float32)

    def feature(self, name: Feature) -> "Any":
        """The function images [B, C, H, W] → [B, D] (or [B, N, D]) of that name.

        Raises: SettingsError for an unknown name, or a class token that the model has not.
        """
        if self._drawn() and not self.training:
            raise self._untrained()
        names = self.config.tokens.names
        if name not in FEATURES:
            raise SettingsError(
                f"no feature {name!r}{near_text(str(name), FEATURES)}", f"use one of: {', '.join(FEATURES)}"
            )
        if name == "class" and "class" not in names:
            raise SettingsError("this model has no class token", "use the feature 'embedding' or 'mean'")
        if name == "embedding":
            return self.vit.embed
        if name == "tokens":
            return self.vit.forward_features

        def part(images: Tensor) -> Tensor:
            parts = self.vit.split(self.vit.forward_features(images), self.vit.layout(images))
            return parts["class"][:, 0] if name == "class" else parts["patches"].flatten(1, 2).mean(1)

        return part

    def check_can_predict(self) -> None:
        """Raises: CheckpointError where an answer would come from a head that nobody trained."""
        if self.config.head.num_classes == 0:
            raise CheckpointError(
                f"{self.report.path}: a model without a classifier head, it has no names to give",
                "use `embed` for its vectors, or train a head on it",
            )
        if self.card.untrained or self.report.new:
            raise self._untrained()

    def _untrained(self) -> CheckpointError:
        if lost := self._drawn():
            more = f" and {len(lost) - 3} more" if len(lost) > 3 else ""
            return CheckpointError(
                f"{self.report.path}: {', '.join(lost[:3])}{more} was in no file and drawn at random; "
                "what it answers would be noise",
                "give the whole file, or train it (in Python, `mark_trained` says that it is)",
            )
        return CheckpointError(
            f"{self.report.path}: nobody trained its {', '.join(self.card.untrained)}; its answers would be noise",
            "train it (in Python, `mark_trained` says that it is), or use `embed`",
        )

    def _drawn(self) -> list[str]:
        """Tensors of the backbone that no file filled (`allow_partial`): vectors pass them too."""
        return [name for name in self.report.new if not name.startswith(HEADS)]

    def mark_trained(self) -> None:
        """Say that all parts have been trained, a new head among them: it may answer, and be saved."""
        self.card = replace(self.card, untrained=())
        self.report = replace(self.report, new=())

    def save(self, path: str | Path) -> None:
        """Write the weights as they are now, with config, preprocessing, class names and origin, as one
        .safetensors file that `load` and every command take. What the scores were is left out.

        Raises: OutputError where `path` exists or cannot be written; CheckpointError for weights that are no
        numbers, that do not fit `config`, or of which a part was drawn at random and never trained.
        """
        from patchword.inference.save import save_model

        save_model(self.vit, self.card, self.report, Path(path))

    def answers(
        self,
        sources: Iterable[Any],
        compute: Any,
        *,
        count: int | None = None,
        value_range: ValueRange | None = None,
        batch_size: int | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> Iterator[Output]:
        """What `compute` gives for every source, in order; prediction, embedding and evaluation end here.

        compute: images [b, C, h, w] → [b, …], such as `self.vit` or `self.feature(…)`. sources:
        pictures, or `Named` ones; count: how many, where the iterable cannot tell.
        Raises: SettingsError for a batch_size or max_pixels below 1, or a value_range that is none.
        """
        _check_at_least_one(batch_size=batch_size, max_pixels=max_pixels)
        preprocess = self.preprocess.with_range(value_range)
        # Dropout and the like must not touch an answer, whatever mode a training loop left.
        was_training = self.training
        self.eval()
        try:
            count = len(sources) if isinstance(sources, list | tuple | Given) else count
            plan = make_plan(count, self.device, batch_size)
            if self.device.type == "cpu":
                plan = fitted(plan, self.config, self.config.image.size, batch_size)
            route = Route(
                preprocess=preprocess,
                compute=compute,
                device=self.device,
                dtype=self.dtype,
                max_pixels=max_pixels,
            )
            yield from answers(map(_named, sources), route, plan)
        finally:
            self.train(was_training)

    def _many(self, source: Any, reading: Reading) -> Any:
        """The sources in a list, tuple, iterator, folder or data set; None for what is one image."""
        if isinstance(source, str | os.PathLike):
            return as_many(source, replace(reading, origin=self.provenance))
        for name, value in (
            ("split", reading.split),
            ("image_column", reading.opening.image_column),
            ("label_column", reading.opening.label_column),
        ):
            if value is not None:
                raise SettingsError(
                    f"{name}={value!r} is for the path of a data set", "give a path, or leave it out"
                )
        if isinstance(source, list | tuple | Given):
            return source
        # Open files and PIL images can be iterated too, over lines or frames.
        if (
            isinstance(source, Iterator)
            and not hasattr(source, "read")
            and not isinstance(source, Image.Image)
        ):
            return source
        return None

    def _prediction(
        self, answer: Output, source: Picture | None, value_range: ValueRange | None
    ) -> Prediction:
        error, probabilities = "", None
        if answer.values is None:
            assert answer.error is not None
            error = answer.error.about(answer.name)
        else:
            probabilities = softmax(answer.values)
        return Prediction(
            name=answer.name,
            classes=self.classes,
            probabilities=probabilities,
            error=error,
            source=answer.again or _untorched(source),
            value_range=value_range or self.preprocess.reading.value_range,
        )


def softmax(logits: NDArray[Any]) -> NDArray[np.float32]:
    """[..., classes] → probabilities, computed in float64 so that their sum is 1 to the last digit."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    shares: NDArray[np.float32] = (shifted / shifted.sum(-1, keepdims=True)).astype(np.float32)
    return shares


def _check_at_least_one(**numbers: int | None) -> None:
    for name, number in numbers.items():
        if number is not None and (not isinstance(number, int) or number < 1):
            raise SettingsError(f"{name} is {number!r}", "give a whole number from 1")


def _named(source: Picture | Named) -> Named:
    if isinstance(source, Named):
        return source
    return Named(name=_name(source), source=_untorched(source))


def _untorched(source: Any) -> Any:
    """A tensor as an array, which is read by the same rules; anything else as it is."""
    if not isinstance(source, Tensor):
        return source
    plain = source.detach().cpu()
    return (plain.float() if plain.dtype == torch.bfloat16 else plain).numpy()


def _name(source: Picture) -> str:
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    own = getattr(source, "filename", None) or getattr(source, "name", None)
    return own if isinstance(own, str) and own else "image"


def _opening(image_column: str | None, label_column: str | None, max_pixels: int) -> OpenRequest:
    return OpenRequest(image_column=image_column, label_column=label_column, max_pixels=max_pixels)
