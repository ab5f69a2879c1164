"""Inputs of a recipe besides the user's settings (training/overlay.py): facts about the data and initial weights."""

from dataclasses import dataclass, field

import numpy as np

from patchword.data.box_targets import Boxes
from patchword.data.check import CheckReport, natural_channels
from patchword.data.dataset import Dataset
from patchword.data.findings_targets import number_facts
from patchword.data.targets import MultiLabels, Nothing, Numbers
from patchword.model.detr.config import TrunkConfig
from patchword.model.vitdet.config import VitDetConfig
from patchword.model.yolos_config import YolosConfig
from patchword.training.tasks.detect_settings import DetectSettings
from patchword.training.tasks.settings import (
    ClassifySettings,
    MAESettings,
    MultiLabelSettings,
    RegressSettings,
    TaskSettings,
)
from patchword.weights.card import ModelCard
from patchword.weights.detector_card import DetectorCard

Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class ObjectFacts:
    """The objects of the training images. Sides are square roots of areas, as shares of the longer side of their image.

    count: of all objects. most: in one image. small, median, large: the side that 10, 50 and 90 % of the objects do not exceed.
    without: images without objects.
    """

    count: int
    most: int
    small: float
    median: float
    large: float
    without: int = 0


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """Facts about the data.

    Args:
        num_images: training images.
        size: median (h, w) of the images.
        mean, std: per channel, for values in 0..1.
        mirrors: whether a mirrored image probably still belongs to its class.
        weights: the card of the initial weights, if any.
        task: what the targets ask for, with the scale of numbers.
        objects: of data with boxes. detector: of the initial weights, if they are those of a detector on a ViT. detr: if they are
            those of DETR (its card), or of its trunk.
    """

    num_images: int
    num_classes: int
    channels: int
    size: Size
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mirrors: bool = True
    weights: ModelCard | None = None
    task: TaskSettings = field(default_factory=ClassifySettings)
    objects: ObjectFacts | None = None
    detector: VitDetConfig | YolosConfig | None = None
    detr: DetectorCard | TrunkConfig | None = None


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A value that a recipe chose, as text."""

    what: str
    why: str


def data_facts(report: CheckReport) -> DataFacts:
    """The facts that recipes use, from the results of the check."""
    dataset = report.dataset
    unreadable = {name for name, _ in report.skipped}
    height, width = report.sizes["median"]
    return DataFacts(
        num_images=sum(name not in unreadable for name in dataset.training.names),
        num_classes=len(dataset.outputs),
        channels=natural_channels(dataset),
        size=(height, width),
        mean=tuple(report.channel_mean),
        std=tuple(report.channel_std),
        mirrors=not written_signs(dataset.classes),
        task=task_of(dataset),
        objects=object_facts(dataset),
    )


def object_facts(dataset: Dataset) -> ObjectFacts | None:
    """None for data without boxes. Groups (crowd) are no objects."""
    boxes = dataset.training.targets
    if not isinstance(boxes, Boxes):
        return None
    real = ~boxes.crowd
    corners, owners = boxes.corners[real], boxes.owners()[real]
    longest = boxes.sizes[owners].max(axis=1) if len(owners) else np.ones(0)
    sides = np.sqrt((corners[:, 2:] - corners[:, :2]).clip(min=0).prod(axis=1)) / np.maximum(longest, 1)
    small, median, large = np.quantile(sides, (0.1, 0.5, 0.9)).tolist() if len(sides) else (0.0, 0.0, 0.0)
    each = np.bincount(owners, minlength=len(boxes))
    return ObjectFacts(
        count=len(owners),
        most=int(each.max(initial=0)),
        small=small,
        median=median,
        large=large,
        without=int((each == 0).sum()),
    )


def task_of(dataset: Dataset) -> TaskSettings:
    """The kind of training that the targets ask for. Numbers are normalised by their training mean and deviation."""
    targets = dataset.training.targets
    if isinstance(targets, Nothing):
        return MAESettings()
    if isinstance(targets, Boxes):
        return DetectSettings(num_classes=max(len(dataset.classes), 1))
    if isinstance(targets, MultiLabels):
        return MultiLabelSettings()
    if isinstance(targets, Numbers) and len(targets.values):
        found = [number_facts(values) for values in targets.values.T.astype(np.float64)]
        # A constant column is refused by the check.
        return RegressSettings(
            mean=tuple(f["mean"] for f in found), std=tuple(f["std"] or 1.0 for f in found)
        )
    return ClassifySettings()


def written_signs(classes: tuple[str, ...]) -> bool:
    """Whether the classes look like letters or digits (one character or a number), which mirroring would change."""
    return bool(classes) and all(len(name) == 1 or name.isdecimal() for name in classes)
