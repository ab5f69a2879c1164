"""What `predict` and `embed` take in Python: one image, many of them, or the path of a data set."""

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from patchword.data.loader import Named
from patchword.errors import SettingsError
from patchword.images.decode import Source
from patchword.inference.sources import Given, Reading, as_many
from patchword.weights.card import Provenance

Picture = Source | Tensor
Many = list[Any] | tuple[Any, ...] | Iterator[Any]


def many_of(source: Any, reading: Reading, origin: Provenance) -> Any:
    """The sources in a list, tuple, iterator, folder or data set; None if `source` is one image.

    origin: of the model, whose split of a data set is found again.
    Raises: DataError; SettingsError for options of data sets that do not apply to `source`.
    """
    if isinstance(source, str | os.PathLike):
        return as_many(source, replace(reading, origin=origin))
    opening = reading.opening
    for name, value in (
        ("split", reading.split),
        ("split_seed", reading.split_seed),
        ("image_column", opening.image_column),
        ("label_column", opening.label_column),
        ("split_column", opening.split_column),
        ("class_level", opening.class_level),
    ):
        if value is not None:
            raise SettingsError(
                f"{name}={value!r} only applies to the path of a data set", f"give a path, or remove {name}"
            )
    if isinstance(source, list | tuple | Given):
        return source
    # Open files and PIL images are iterable too (over lines or frames), but each is one image.
    if isinstance(source, Iterator) and not hasattr(source, "read") and not isinstance(source, Image.Image):
        return source
    return None


def named(source: Picture | Named) -> Named:
    """The image with its name: its path, its own name, or "image"."""
    if isinstance(source, Named):
        return source
    return Named(name=_name(source), source=untorched(source))


def untorched(source: Any) -> Any:
    """Convert a tensor to an array, which is read by the same rules; return anything else unchanged."""
    if not isinstance(source, Tensor):
        return source
    plain = source.detach().cpu()
    return (plain.float() if plain.dtype == torch.bfloat16 else plain).numpy()


def _name(source: Picture) -> str:
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    own = getattr(source, "filename", None) or getattr(source, "name", None)
    return own if isinstance(own, str) and own else "image"


def check_at_least_one(**numbers: int | None) -> None:
    """Raises: SettingsError for a number below 1."""
    for name, number in numbers.items():
        if number is not None and (not isinstance(number, int) or number < 1):
            raise SettingsError(f"{name} is {number!r}", f"set {name} to a whole number of at least 1")
