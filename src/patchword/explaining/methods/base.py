"""What every method takes and returns."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from patchword.errors import SettingsError
from patchword.explaining.methods.record import Record, recorded
from patchword.explaining.settings import MethodSettings
from patchword.model.config import ViTConfig
from patchword.model.vit import ViT


@dataclass(frozen=True, kw_only=True)
class Job:
    """vit in evaluation mode. images [B, C, H, W], normalised. classes [B]: whose logit is explained; None for
    methods that know no class. fitted: what `Method.fit` returned. record: of these images, if they were run already.
    """

    vit: ViT
    images: Tensor
    classes: Tensor | None = None
    settings: MethodSettings = field(default_factory=MethodSettings)
    fitted: Any = None
    record: Record | None = None

    def recorded(self) -> Record:
        return self.record or recorded(self.vit, self.images)


@dataclass(frozen=True, kw_only=True)
class Maps:
    """Maps of a batch, one for each image.

    label: the method and, if there are several, block and head. values [B, h, w] over the grid of patches, or
    [B, h, w, 3] as colours from 0 to 1. signed: negative values speak against the class.
    elsewhere: name of extra tokens → [B], the share of the map that lies on them; empty if the method gives none.
    facts: name → [B], other numbers.
    """

    label: str
    values: Tensor
    signed: bool = False
    elsewhere: Mapping[str, Tensor] = field(default_factory=dict)
    facts: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Method:
    """A row of the table.

    class_aware: the map depends on the class. scored: the map claims which patches the answer rests on, so deletion and
    insertion can test it. uses: fields of `MethodSettings`. passes: the cost of one image in forward passes.
    fit: from batches of all images, for a method that needs them together.
    """

    name: str
    title: str
    class_aware: bool
    run: Callable[[Job], list[Maps]]
    passes: Callable[[ViTConfig, MethodSettings], int]
    uses: frozenset[str] = frozenset()
    scored: bool = True
    fit: Callable[[ViT, Iterable[Tensor], MethodSettings], Any] | None = None


def chosen(requested: tuple[int, ...] | str | None, count: int, what: str, default: int) -> list[int]:
    """Indices from 0 of layers or heads. Raises: SettingsError if one is not there."""
    if requested == "all":
        return list(range(count))
    if requested is None:
        return [default]
    assert not isinstance(requested, str)
    found = [index + count if index < 0 else index for index in requested]
    for index, given in zip(found, requested, strict=True):
        if not 0 <= index < count:
            counted = f"{count} {'block' if what == 'layer' else 'head'}{'s' if count > 1 else ''}"
            has = f"the model has {counted}"
            highest = f"choose from {what}s 0 to {count - 1}, or all" if count > 1 else f"use {what} 0"
            raise SettingsError(f"there is no {what} {given}: {has}", highest)
    return found


def targets(job: Job) -> Tensor:
    """Whose logit is explained, [B]. Raises: SettingsError for a model without classes."""
    if job.vit.head is None or job.classes is None:
        raise without_classes()
    return job.classes


def without_classes() -> SettingsError:
    return SettingsError(
        "this model has no classes, so no map of a class can be drawn",
        "use a method that needs none (rollout, attention, value-norm, pca, outliers), or train a head",
    )
