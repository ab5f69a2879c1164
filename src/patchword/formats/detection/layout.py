"""The base class of detectors' layouts, and the options of a detector's file."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from patchword.errors import CheckpointError, SettingsError
from patchword.formats.checkpoint import Checkpoint
from patchword.formats.facts import Facts, Options, Size
from patchword.formats.layout import Container, Ignored
from patchword.formats.rows import Row
from patchword.images.geometry import Capped
from patchword.images.preprocess import Preprocess, Resample
from patchword.weights.detector_card import DetectorCard, DetectorConfig

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class DetectorOptions(Options):
    """What a user may specify about a detector if no file does.

    dilation: whether the last stage of DETR's trunk is dilated (DC5). mid_image_size: (h, w) of the images that YOLOS'
    positions between the blocks were made for.
    """

    dilation: bool | None = None
    mid_image_size: Size | None = None


def with_detector_facts(options: Options) -> DetectorOptions:
    """The options of a model that turned out to be a detector."""
    if isinstance(options, DetectorOptions):
        return options
    return DetectorOptions(**{f.name: getattr(options, f.name) for f in fields(options)})


def without_detector_facts(options: Options) -> Options:
    """The options of a model that is no detector. Raises: SettingsError for one that only a detector has."""
    if not isinstance(options, DetectorOptions):
        return options
    plain = Options(**{f.name: getattr(options, f.name) for f in fields(Options)})
    for name in (f.name for f in fields(options) if not hasattr(plain, f.name)):
        if getattr(options, name) is not None:
            option = f"--{name.replace('_', '-')}"
            raise SettingsError(
                f"{option} applies to detectors only, and this model is none", f"remove {option}"
            )
    return plain


@dataclass(frozen=True, kw_only=True)
class DetectorDescription:
    """A file's detector once every fact is known. names: of its classes, if the file states them.

    spelling: the variant of the layout that the file uses.
    """

    config: DetectorConfig
    preprocess: Preprocess
    names: tuple[str, ...] = ()
    spelling: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class DetectorLayout(ABC):
    """One way to store a detector. name: to choose it for writing. title: for messages."""

    name: str
    title: str
    container: Container = "safetensors"
    file_name: str = "model.safetensors"
    ignored: tuple[Ignored, ...] = (
        Ignored(r".*num_batches_tracked", "a counter of batch norm, which is frozen"),
        Ignored(r"(.*\.)?fc\.(weight|bias)", "the classifier that the trunk was pre-trained with"),
    )

    @abstractmethod
    def recognise(self, checkpoint: Checkpoint) -> str | None:
        """Evidence for this layout; None if it does not match."""

    @abstractmethod
    def describe(self, checkpoint: Checkpoint, facts: Facts) -> DetectorDescription:
        """Describe the detector; every fact goes through `facts` with its source."""

    @abstractmethod
    def rows(self, config: DetectorConfig, spelling: Mapping[str, Any]) -> Iterable[Row]:
        """The tensors in the file and in the model."""

    @abstractmethod
    def refuse(self, card: DetectorCard) -> None:
        """Raises: CheckpointError if the format cannot hold this detector."""

    def spelling(self, card: DetectorCard) -> Mapping[str, Any]:
        """The spelling for writing a model; the published one if there are several."""
        return {}

    def nest(self, tensors: Mapping[str, Any], card: DetectorCard) -> Mapping[str, Any]:
        """What the container holds: the state dict as its origin wraps it."""
        return tensors

    def beside(self, card: DetectorCard, spelling: Mapping[str, Any]) -> Mapping[str, bytes]:
        """Files that the format's readers expect next to the weights."""
        return {}


def capped(shorter: int, longest: int, multiple: int = 1) -> Preprocess:
    """The evaluation of DETR and YOLOS in their authors' code: shorter side, unless the longer one would pass `longest`."""
    return Preprocess(
        image_size=(shorter, longest),
        resize=Capped(shorter=shorter, longest=longest, multiple=multiple),
        resample=Resample(interpolation="bilinear"),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
    )


def nominal(preprocess: Preprocess) -> Preprocess:
    """With the sides of its rule as the nominal size, since images keep their aspect."""
    rule = preprocess.resize
    return (
        replace(preprocess, image_size=(rule.shorter, rule.longest))
        if isinstance(rule, Capped)
        else preprocess
    )


def require_fitting(title: str, *conditions: tuple[bool, str]) -> None:
    """conditions: (is met, what the format cannot hold otherwise). Raises: CheckpointError for the first that is not met."""
    for holds, what in conditions:
        if not holds:
            raise CheckpointError(f"{title} cannot hold {what}", "choose another format")
