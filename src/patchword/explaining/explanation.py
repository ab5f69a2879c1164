"""Explain the answers of a model to any number of images: maps, with a measure of how far to trust them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from patchword.data.loader import Named
from patchword.explaining.measure import Faithful, Measured, measure
from patchword.explaining.methods.base import Job
from patchword.explaining.methods.patches import images_at_once
from patchword.explaining.methods.record import recorded
from patchword.explaining.methods.table import maps_of
from patchword.explaining.packed import Packing
from patchword.explaining.settings import MethodSettings, ScoreSettings
from patchword.explaining.subject import Subject, levels
from patchword.images.limits import MAX_PIXELS
from patchword.images.preprocess import ValueRange
from patchword.images.stored import Pixels
from patchword.inference.failures import Failures
from patchword.inference.model import Model

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Map:
    """One map of one image.

    values [h, w] over the grid of patches, or [h, w, 3] as colours from 0 to 1. class_aware: it depends on the class.
    signed: negative values speak against the class. elsewhere: the share of the map on extra tokens, by name.
    facts: other numbers, such as the count of outliers.
    """

    method: str
    label: str
    class_aware: bool
    signed: bool
    values: NDArray[np.float32]
    elsewhere: Mapping[str, float]
    facts: Mapping[str, float]

    def numbers(self) -> dict[str, Any]:
        """Plain values for JSON."""
        found = {"method": self.method, "label": self.label, "class_aware": self.class_aware}
        return {
            **found,
            "elsewhere": dict(self.elsewhere),
            "facts": dict(self.facts),
            "map": self.values.tolist(),
        }


@dataclass(frozen=True, kw_only=True)
class Explained:
    """One image, what the model answers, and maps.

    logits: as in `predict`, bit for bit; of a model without classes, its embedding. answer, probability: its most
    probable class; explained, explained_probability: the class that the maps explain. Empty and None without classes;
    a model of numbers has no probabilities. pixels [H, W, C] uint8: what the model was given; None if not asked for.
    """

    name: str
    logits: NDArray[np.float32]
    answer: str
    probability: float | None
    explained: str
    explained_probability: float | None
    maps: tuple[Map, ...]
    pixels: Pixels | None

    def numbers(self) -> dict[str, Any]:
        """Plain values for JSON."""
        found: dict[str, Any] = {"file": self.name}
        if self.explained:
            found |= {"answer": self.answer, "probability": self.probability}
            found |= {"explained": self.explained, "explained_probability": self.explained_probability}
        return {**found, "maps": [each.numbers() for each in self.maps]}


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """images: readable ones, in order. faithfulness: label of a map → how it did, on `scored` images. why: how the method was chosen; "" if it
    was given. titles: label → what it shows.
    """

    images: tuple[Explained, ...]
    faithfulness: Mapping[str, Faithful]
    scored: int
    scores: ScoreSettings
    why: str
    titles: Mapping[str, str]

    def numbers(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "why": self.why,
            "scored_images": self.scored,
            "steps": self.scores.steps,
            "seed": self.scores.seed,
            "faithfulness": {label: found.numbers() for label, found in self.faithfulness.items()},
            "images": [image.numbers() for image in self.images],
        }


def explain_images(
    model: Model,
    sources: Sequence[Named],
    *,
    methods: Sequence[str] = (),
    class_name: str | None = None,
    settings: MethodSettings | None = None,
    scores: ScoreSettings | None = None,
    value_range: ValueRange | None = None,
    max_pixels: int = MAX_PIXELS,
    batch_size: int | None = None,
    with_pixels: bool = True,
    failures: Failures | None = None,
    progress: Progress | None = None,
) -> Explanation:
    """Explain each readable image with each method; without methods, with the most faithful one on a sample.

    class_name: explain this class in every image; None for each image's most probable one. Images are read and batched as
    in `predict`, so answers are bit-equal. failures: takes unreadable images; without it, the first is raised.
    Raises: SettingsError for an unknown method or class, a layer or head that is not there, or a class map of a model without
    classes; CheckpointError for an untrained backbone; ImageError, DataError.
    """
    settings, scores = settings or MethodSettings(), scores or ScoreSettings()
    subject = Subject(model, class_name)
    chosen = subject.methods(methods)
    reading = {"value_range": value_range, "max_pixels": max_pixels}
    measured = measure(subject, sources, chosen, settings, scores, **reading)
    run = _Run(subject, measured, settings, with_pixels=with_pixels)
    run.fit(sources, reading)
    images = []
    for output in model.answers(
        list(sources), run, batch_size=batch_size, value_range=value_range, max_pixels=max_pixels
    ):
        if output.error is not None:
            if failures is None:
                raise output.error
            failures.add(output.name, output.error)
            continue
        assert output.values is not None
        images.append(run.explained(output.name, output.values))
        if progress:
            progress(len(images), len(sources))
    return Explanation(
        images=tuple(images),
        faithfulness=measured.faithfulness,
        scored=measured.images,
        scores=scores,
        why=measured.why,
        titles={method.name: method.title for method in measured.methods},
    )


class _Run:
    """What is computed for a batch: the answer exactly as in `predict`, then the maps."""

    def __init__(
        self, subject: Subject, measured: Measured, settings: MethodSettings, *, with_pixels: bool
    ) -> None:
        self.subject, self.methods, self.settings = subject, measured.methods, settings
        self.packing, self.with_pixels = Packing(), with_pixels
        self.fitted: dict[str, Any] = {}

    def fit(self, sources: Sequence[Named], reading: dict[str, Any]) -> None:
        """Let methods see all images first, if one asks for it."""
        for method in self.methods:
            if method.fit is not None:
                with torch.no_grad():
                    inputs = self.subject.inputs(sources, **reading)
                    self.fitted[method.name] = method.fit(self.subject.vit, inputs, self.settings)

    def __call__(self, images: Tensor) -> Tensor:
        """images [B, C, H, W] → [B, …], to be read by `explained`."""
        vit = self.subject.vit
        # The record costs memory in every block, so a large batch is answered without it and explained in parts.
        shared = recorded(vit, images) if len(images) <= images_at_once(vit, images) else None
        answers = vit(images) if shared is None else shared.answer
        job = Job(
            vit=vit,
            images=images,
            classes=self.subject.targets(answers),
            settings=self.settings,
            record=shared,
        )
        maps = [
            (method, found)
            for method in self.methods
            for found in maps_of(method, replace(job, fitted=self.fitted.get(method.name)))
        ]
        return self.packing.pack(answers, maps, vit.layout(images).grid, images if self.with_pixels else None)

    def explained(self, name: str, vector: NDArray[np.float32]) -> Explained:
        subject, card = self.subject, self.subject.model.card
        head = subject.model.config.head
        outputs = head.num_classes or head.projection or subject.model.config.embed_dim
        logits, found, image = self.packing.unpack(vector, outputs)
        shares, named = subject.probabilities(logits), subject.model.classes
        target = subject.target_of(logits) if subject.knows_classes else 0
        best = int(logits.argmax())
        return Explained(
            name=name,
            logits=logits,
            answer="" if shares is None else named[best],
            probability=None if shares is None else float(shares[best]),
            explained=named[target] if subject.knows_classes else "",
            explained_probability=None if shares is None else float(shares[target]),
            maps=tuple(
                Map(
                    method=each.slot.method.name,
                    label=each.slot.label,
                    class_aware=each.slot.method.class_aware,
                    signed=each.slot.signed,
                    values=each.values,
                    elsewhere=each.elsewhere,
                    facts=each.facts,
                )
                for each in found
            ),
            pixels=None if image is None else levels(torch.from_numpy(image), card.preprocess),
        )
