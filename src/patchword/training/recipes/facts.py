"""What a recipe looks at besides the user's own settings (training/overlay.py): the data, and weights to begin from."""

from dataclasses import dataclass

from patchword.checkpoints.card import ModelCard

Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """num_images: to train on. size: median (h, w) of the pictures. mean, std: of 0..1, by channel.

    mirrors: whether a mirrored picture still is of its class, as far as one can guess. weights: the card of those to
    begin from.
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
    """A value that a recipe chose, in words for a person."""

    what: str
    why: str
