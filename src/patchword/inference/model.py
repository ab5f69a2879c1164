"""The model that `patchword.load` returns: a torch module with its preprocessing and class names."""

import os
import typing
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from patchword.data.loader import Named
from patchword.errors import CheckpointError
from patchword.formats.plan import HEADS
from patchword.formats.report import LoadReport
from patchword.images.limits import MAX_PIXELS
from patchword.images.preprocess import Preprocess, ValueRange
from patchword.inference.engine import Output, Route, answers, fitted, make_plan
from patchword.inference.inputs import Many, Picture, check_at_least_one, many_of, named, untorched
from patchword.inference.outputs import read_output
from patchword.inference.parts import ChosenPart, choose_part, part_function
from patchword.inference.prediction import Prediction
from patchword.inference.sources import Given, reading_of
from patchword.metrics.calibration import FEWEST_IMAGES
from patchword.model.config import ViTConfig
from patchword.model.vit import ViT
from patchword.python_words import as_python, in_python
from patchword.retrieval.card import Part
from patchword.weights.card import ModelCard, Provenance

Vectors = NDArray[np.float32]


class Model(nn.Module):
    """A ViT with its preprocessing, class names and origin. Starts in evaluation mode.

    model(images [B, C, H, W] from `preprocess`) → logits [B, classes], or embeddings if the model
    has no head. `predict` and `embed` accept files, arrays, PIL images or lists of them.
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
        """Class names in the order of the logits; "class 17" if the file does not contain names."""
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
        split_seed: int | None = None,
        image_column: str | None = None,
        label_column: str | None = None,
        split_column: str | None = None,
        class_level: int | None = None,
        value_range: ValueRange | None = None,
        calibrated: bool = False,
        batch_size: int | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> list[Prediction]: ...
    @overload
    def predict(
        self,
        source: Picture,
        *,
        split: str | None = None,
        split_seed: int | None = None,
        image_column: str | None = None,
        label_column: str | None = None,
        split_column: str | None = None,
        class_level: int | None = None,
        value_range: ValueRange | None = None,
        calibrated: bool = False,
        batch_size: int | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> Prediction: ...
    @in_python
    def predict(
        self,
        source: Picture | Many,
        *,
        split: str | None = None,
        split_seed: int | None = None,
        image_column: str | None = None,
        label_column: str | None = None,
        split_column: str | None = None,
        class_level: int | None = None,
        value_range: ValueRange | None = None,
        calibrated: bool = False,
        batch_size: int | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> Prediction | list[Prediction]:
        """Classify one image and return a Prediction, or many images and return a list.

        Args:
            source: one image (path, bytes, open file, array, tensor or PIL image), or many: a list, a tuple,
                an iterator, or the path of a folder, zip, table, list file or pattern.
            split: a split of the data set at that path; None for all its images.
            split_seed: hold out images as `train` does with this seed; None for the split of the model's training.
            image_column, label_column, split_column: columns of a table.
            class_level: depth of the class folders, with `split`; None if they are found without it.
            value_range: (lowest, highest) of float, 16- and 32-bit images; None for the model's own.
            calibrated: divide the logits by the temperature in the file. The order of the classes does not change.
        Raises: ImageError if a single image is unreadable (among many, its own Prediction holds the error);
            DataError if no source can be read; CheckpointError without a trained head, or a temperature if `calibrated`.
        """
        reading = reading_of(
            split, split_seed, image_column, label_column, split_column, class_level, max_pixels
        )
        if (many := many_of(source, reading, self.provenance)) is not None:
            return list(
                self.predict_each(
                    many,
                    value_range=value_range,
                    calibrated=calibrated,
                    batch_size=batch_size,
                    max_pixels=max_pixels,
                )
            )
        self.check_can_predict()
        (answer,) = self.answers(
            [source], self.logits(calibrated), max_pixels=max_pixels, value_range=value_range
        )
        if answer.error is not None:
            raise answer.error
        return self._prediction(answer, typing.cast(Picture, source), value_range)

    @in_python
    def predict_each(
        self,
        sources: Iterable[Any] | str | os.PathLike[str],
        *,
        split: str | None = None,
        split_seed: int | None = None,
        image_column: str | None = None,
        label_column: str | None = None,
        split_column: str | None = None,
        class_level: int | None = None,
        value_range: ValueRange | None = None,
        calibrated: bool = False,
        batch_size: int | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> Iterator[Prediction]:
        """Like `predict` for many images, but yields each prediction while the next are computed, in constant memory."""
        self.check_can_predict()
        reading = reading_of(
            split, split_seed, image_column, label_column, split_column, class_level, max_pixels
        )
        if isinstance(sources, str | os.PathLike):
            sources = many_of(sources, reading, self.provenance) or [sources]
        else:
            many_of([], reading, self.provenance)  # raises for options that only apply to a path
        for answer, prediction in self.answer_each(
            sources,
            batch_size=batch_size,
            max_pixels=max_pixels,
            value_range=value_range,
            calibrated=calibrated,
        ):
            prediction = replace(prediction, error=as_python(prediction.error))
            # Sources in a list stay available for `plot`, even if they are not paths.
            if isinstance(sources, list | tuple) and not isinstance(sources[answer.index], Named):
                prediction = replace(prediction, source=untorched(sources[answer.index]))
            yield prediction

    def answer_each(
        self,
        sources: Iterable[Any],
        *,
        value_range: ValueRange | None = None,
        calibrated: bool = False,
        batch_size: int | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> Iterator[tuple[Output, Prediction]]:
        """Like `predict_each`, but yields the raw output (logits) with each Prediction."""
        self.check_can_predict()
        compute = self.logits(calibrated)
        for answer in self.answers(
            sources, compute, batch_size=batch_size, max_pixels=max_pixels, value_range=value_range
        ):
            yield answer, self._prediction(answer, None, value_range)

    def logits(self, calibrated: bool = False) -> Any:
        """Return the function images [B, C, H, W] → logits [B, classes], divided by the temperature if `calibrated`.

        Raises: CheckpointError with `calibrated` if the file has no temperature.
        """
        if not calibrated:
            return self.vit
        if (temperature := self.card.temperature) is None:
            raise CheckpointError(
                f"{self.report.path}: this file has no temperature, so predictions cannot be calibrated",
                f"remove --calibrated, or train again with at least {FEWEST_IMAGES} held-out images",
            )
        return lambda images: self.vit(images) / temperature

    @in_python
    def embed(
        self,
        source: Picture | Many,
        *,
        part: Part = "pooled",
        layer: int | None = None,
        norm: bool | None = None,
        split: str | None = None,
        split_seed: int | None = None,
        image_column: str | None = None,
        label_column: str | None = None,
        split_column: str | None = None,
        class_level: int | None = None,
        value_range: ValueRange | None = None,
        batch_size: int | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> Vectors:
        """Compute the vector [D] of one image, or [images, D] of many. Other arguments: see `predict`.

        part: "pooled" for the input of the head (recommended), "class" for the class token, "mean" for the mean of
        the patches, [D] each; "registers" [R, D], "grid" [h, w, D] for the patches, "tokens" [N, D] for all, prefix first.
        layer: the block (from 0) whose tokens are read; None for the last. norm: apply the final norm; None if there is one.
        Raises: ImageError for the first unreadable image (the command continues instead).
        """
        reading = reading_of(
            split, split_seed, image_column, label_column, split_column, class_level, max_pixels
        )
        many = many_of(source, reading, self.provenance)
        sources = [source] if many is None else many
        rows: list[Vectors] = []
        for answer in self.answers(
            sources,
            self.part(choose_part(self.config, part, layer, norm)),
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

    def part(self, chosen: ChosenPart) -> Any:
        """Return the function images [B, C, H, W] → that part of the tokens (see `part_function`).

        Raises: CheckpointError if tensors of the backbone were initialised randomly.
        """
        if self._drawn() and not self.training:
            raise self._untrained()
        return part_function(self.vit, chosen)

    def check_can_predict(self) -> None:
        """Raises: CheckpointError if the model has no head, or one that was never trained."""
        if self.config.head.num_classes == 0:
            raise CheckpointError(
                f"{self.report.path}: this model has no classification head, so it cannot predict classes",
                "use `embed` for its vectors, or train a head on it",
            )
        if self.card.untrained or self.report.new:
            raise self._untrained()

    def _untrained(self) -> CheckpointError:
        if missing := self._drawn():
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            were = "was" if len(missing) == 1 else "were"
            return CheckpointError(
                f"{self.report.path}: {', '.join(missing[:3])}{more} {were} not in the file and {were} initialised "
                "randomly, so its output would be noise",
                "use the complete file, or train the model (in Python, call `mark_trained` afterwards)",
            )
        return CheckpointError(
            f"{self.report.path}: its {', '.join(self.card.untrained)} is untrained, so its predictions would be noise",
            "train the model (in Python, call `mark_trained` afterwards), or use `embed`",
        )

    def _drawn(self) -> list[str]:
        """Backbone tensors that were not in the file (`allow_partial`); they affect embeddings too."""
        return [name for name in self.report.new if not name.startswith(HEADS)]

    def mark_trained(self) -> None:
        """Mark all parts as trained, including a new head, so that the model can predict and be saved."""
        self.card = replace(self.card, untrained=())
        self.report = replace(self.report, new=())

    def save(self, path: str | Path) -> None:
        """Save the current weights, with config, preprocessing, class names and origin.

        The result is one .safetensors file that `load` and every command accept. Metrics are not saved.
        Raises: OutputError if `path` exists or cannot be written; CheckpointError if weights are NaN or
            infinite, do not match `config`, or were initialised randomly and never trained.
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
        """Yield the output of `compute` for every source, in order. All predictions and embeddings use this.

        sources: images, or `Named` ones. compute: images [b, C, h, w] → [b, …], such as `self.vit` or
        `self.part(…)`. count: the number of sources, if the iterable has no length.
        Raises: SettingsError for a batch_size or max_pixels below 1, or an invalid value_range.
        """
        check_at_least_one(batch_size=batch_size, max_pixels=max_pixels)
        preprocess = self.preprocess.with_range(value_range)
        # Outputs must not depend on dropout, whatever mode a training loop left.
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
            yield from answers(map(named, sources), route, plan)
        finally:
            self.train(was_training)

    def _prediction(
        self, answer: Output, source: Picture | None, value_range: ValueRange | None
    ) -> Prediction:
        probabilities, numbers = read_output(self.card, self.classes, answer.values)
        error = "" if answer.error is None else answer.error.about(answer.name)
        return Prediction(
            numbers=numbers,
            name=answer.name,
            classes=self.classes,
            probabilities=probabilities,
            error=error,
            thresholds=self.card.thresholds if self.card.task == "multi" else None,
            source=answer.again or untorched(source),
            value_range=value_range or self.preprocess.reading.value_range,
        )
