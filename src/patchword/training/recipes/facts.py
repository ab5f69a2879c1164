"""Inputs of a recipe besides the user's settings (training/overlay.py): facts about the data and initial weights."""

from dataclasses import dataclass

from patchword.checkpoints.card import ModelCard

Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """Facts about the data.

    Args:
        num_images: training images.
        size: median (h, w) of the images.
        mean, std: per channel, for values in 0..1.
        mirrors: whether a mirrored image probably still belongs to its class.
        weights: the card of the initial weights, if any.
    """

    num_images: int
    num_classes: int
    channels: int
    size: Size
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mirrors: bool = True
    weights: ModelCard | None = None


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A value that a recipe chose, as text."""

    what: str
    why: str
