"""Search an index for the images nearest to others, embedded exactly as the index was."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from patchword.errors import CheckpointError
from patchword.formats.compare import differences, explicit
from patchword.formats.facts import Options
from patchword.images.limits import MAX_PIXELS
from patchword.images.preprocess import ValueRange
from patchword.inference.load import load
from patchword.inference.model import Model
from patchword.inference.parts import ChosenPart, part_function, weights_sha256
from patchword.model.config import ViTConfig
from patchword.retrieval.found import Found, Hit
from patchword.retrieval.index import Index
from patchword.retrieval.nearest import Metric

_DIGITS = 12


def model_of_index(
    index: Index,
    weights: Model | str | os.PathLike[str] | None = None,
    *,
    device: str | None = None,
    options: Options | None = None,
    offline: bool = False,
) -> Model:
    """The model that made the index: `weights`, or what its card names.

    Raises: CheckpointError if it cannot be loaded, or if its weights or config differ from those that made the index.
    """
    if isinstance(weights, Model):
        model, given = weights, str(weights.report.path)
    else:
        given = os.fspath(weights) if weights is not None else _where(index)
        try:
            model = load(given, device=device, options=options, offline=offline)
        except CheckpointError as error:
            if weights is not None:
                raise
            raise type(error)(
                f"{index.path} was made by {index.card.weights}, which cannot be loaded: {error.message}",
                f"give that model with --weights; or: {error.fix}",
            ) from error
    _check_same(index, model, given)
    return model


def _where(index: Index) -> str:
    """The model that the card names; a path starts in the folder where `embed` ran."""
    there = os.path.join(index.card.folder, index.card.weights)
    return there if os.path.exists(there) else index.card.weights


def _check_same(index: Index, model: Model, given: str) -> None:
    card, fix = index.card, "give the weights that made the index with --weights, or embed the images again"
    found = weights_sha256(model.vit)
    if found != card.weights_sha256:
        raise CheckpointError(
            f"{index.path} was made by other weights: {card.weights} (sha256 {card.weights_sha256[:_DIGITS]}…), "
            f"not {given} (sha256 {found[:_DIGITS]}…)",
            fix,
        )
    for name, ours, theirs in differences(_headless(model.config), _headless(card.config)):
        raise CheckpointError(
            f"{index.path} was made with {name} {theirs}, but {given} has {ours}",
            "load the model with the options that `patchword embed` had",
        )


def _headless(config: ViTConfig) -> ViTConfig:
    """Without what comes after the embedding. A distilled model without classes pools otherwise than one with them."""
    classes = int(config.head.distilled and config.head.num_classes > 0)
    return explicit(replace(config, head=replace(config.head, num_classes=classes, bias=True)))


def search_each(
    index: Index,
    model: Model,
    sources: Iterable[Any],
    *,
    top: int = 10,
    metric: Metric = "cosine",
    value_range: ValueRange | None = None,
    batch_size: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[Found]:
    """Yield the hits of each source, in order. model: from `model_of_index`. An unreadable image has an error instead.

    The part, layer, norm and preprocessing are those of the index; value_range: of the sources, if theirs differs.
    Raises: SettingsError if `top` exceeds the vectors, or for an unknown metric.
    """
    card = index.card
    index.check_top(top)
    compute = part_function(model.vit, ChosenPart(part=card.part, layer=card.layer, norm=card.norm))
    for answer in _as_indexed(index, model).answers(
        sources, compute, value_range=value_range, batch_size=batch_size, max_pixels=max_pixels
    ):
        if answer.values is None:
            assert answer.error is not None
            yield Found(name=answer.name, metric=metric, failure=answer.error)
            continue
        near = index.nearest(answer.values[None], top, metric)
        hits = tuple(
            Hit(rank=rank, name=index.names[row], row=int(row), score=float(score))
            for rank, (row, score) in enumerate(zip(near.indices[0], near.scores[0], strict=True), 1)
        )
        source = answer.again
        if source is None and isinstance(sources, list | tuple):
            source = sources[answer.index]
        yield Found(name=answer.name, metric=metric, hits=hits, source=source)


def _as_indexed(index: Index, model: Model) -> Model:
    """The model with the preprocessing of the index, sharing its weights."""
    if model.preprocess == index.card.preprocess:
        return model
    was_training = model.training
    indexed = Model(model.vit, replace(model.card, preprocess=index.card.preprocess), model.report)
    indexed.train(was_training)
    return indexed
