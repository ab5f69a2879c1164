"""Inputs of a recipe besides the user's settings (training/overlay.py): facts about the data and initial weights."""

from dataclasses import dataclass

from patchword.checkpoints.card import ModelCard
from patchword.data.check import CheckReport, natural_channels
from patchword.data.dataset import one_class_only

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


def data_facts(report: CheckReport) -> DataFacts:
    """The facts that recipes use, from the results of the check.

    Raises: DataError if images have several classes, or numbers.
    """
    dataset = report.dataset
    if dataset.task_kind != "single":
        raise one_class_only(dataset.path, dataset.task_kind)
    unreadable = {name for name, _ in report.skipped}
    height, width = report.sizes["median"]
    return DataFacts(
        num_images=sum(name not in unreadable for name in dataset.training.names),
        num_classes=len(dataset.classes),
        channels=natural_channels(dataset),
        size=(height, width),
        mean=tuple(report.channel_mean),
        std=tuple(report.channel_std),
        mirrors=not written_signs(dataset.classes),
    )


def written_signs(classes: tuple[str, ...]) -> bool:
    """Whether the classes look like letters or digits (one character or a number), which mirroring would change."""
    return all(len(name) == 1 or name.isdecimal() for name in classes)
