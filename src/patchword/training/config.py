"""Every setting of a training, as one frozen tree. `config.toml` mirrors it."""

from dataclasses import dataclass, field
from typing import Literal

from patchword.errors import SettingsError
from patchword.images.preprocess import Preprocess
from patchword.model.config import ViTConfig
from patchword.training.augment_settings import AugmentSettings
from patchword.training.optim_settings import OptimSettings
from patchword.training.schedule import ScheduleSettings

Precision = Literal["float32", "bfloat16"]
Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class LossSettings:
    """label_smoothing: share of each target that is spread over all classes."""

    label_smoothing: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise SettingsError(f"loss.label_smoothing is {self.label_smoothing}", "give 0 or more, below 1")


@dataclass(frozen=True, kw_only=True)
class AverageSettings:
    """decay of the averaged weights; they rise to it (ema.py). They are what is scored and kept."""

    decay: float = 0.998

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise SettingsError(f"average.decay is {self.decay}", "give 0 or more, below 1")


# The library that computes ends the process where it cannot have as many as it is told.
MAX_THREADS = 1024


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """seed: of weights, order, augmentation. device: as torch names it; "auto" takes CUDA where there
    is one, else the CPU. stored_size: (h, w) of the decoded pictures that are
    augmented. threads: 0 takes what the machine grants at the start, and the run keeps it, since
    sums in another order end in other digits. evaluate_every: epochs. weights: what the run begins
    from, as `patchword.load` takes it; "" is from scratch. split_seed: another number holds out other images,
    where the data have no split of their own.
    """

    batch_size: int = 64
    seed: int = 0
    split_seed: int = 0
    precision: Precision = "float32"
    device: str = "auto"
    threads: int = 0
    stored_size: tuple[int, int] = (96, 96)
    evaluate_every: int = 1
    recipe: str = ""
    weights: str = ""

    def __post_init__(self) -> None:
        if (
            self.batch_size < 1
            or self.evaluate_every < 1
            or not 0 <= self.threads <= MAX_THREADS
            or min(self.stored_size) < 1
        ):
            raise SettingsError(
                f"run: batch_size {self.batch_size}, evaluate_every {self.evaluate_every}, threads {self.threads}",
                f"give whole numbers from 1 (threads from 0 to {MAX_THREADS})",
            )
        if not 0 <= self.seed < 2**63:
            raise SettingsError(f"run.seed is {self.seed}", "give a whole number from 0 to 2**63 - 1")


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Raises: SettingsError where parts contradict each other."""

    model: ViTConfig
    preprocess: Preprocess
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    optim: OptimSettings = field(default_factory=OptimSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    average: AverageSettings = field(default_factory=AverageSettings)
    run: RunSettings = field(default_factory=RunSettings)

    def __post_init__(self) -> None:
        if self.preprocess.in_channels != self.model.image.channels:
            raise SettingsError(
                f"preprocess.in_channels is {self.preprocess.in_channels}, "
                f"model.image.channels is {self.model.image.channels}",
                "set both to the same",
            )
        if self.preprocess.image_size != self.model.image.size:
            raise SettingsError(
                f"preprocess.image_size is {self.preprocess.image_size}, model.image.size is {self.model.image.size}",
                "set the size with --image-size, which changes both",
            )
        if not self.preprocess.fixed_size:
            raise SettingsError(
                f"preprocess.resize is {self.preprocess.resize.kind!r}, whose pictures differ in size",
                "train with a resize that gives one size, as cover or squash",
            )

    @property
    def view_size(self) -> Size:
        """(h, w) of what a step sees of a picture."""
        return view_size(self.model, self.augment)


def view_size(model: ViTConfig, augment: AugmentSettings) -> Size:
    """augment.view of the model's image, in whole patches; all of it where that is 1."""
    if augment.view == 1:
        return model.image.size
    sides = zip(model.image.size, model.patch_span, strict=True)
    rows, columns = (max(round(augment.view * side / span), 1) * span for side, span in sides)
    return rows, columns
