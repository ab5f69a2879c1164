"""All settings of a training run, as one frozen tree. `config.toml` mirrors it."""

from dataclasses import dataclass, field
from typing import Literal

from patchword.data.store import Cache, stored_as
from patchword.errors import SettingsError
from patchword.images.geometry import Border, Squash
from patchword.images.preprocess import Preprocess
from patchword.model.config import ViTConfig
from patchword.model.decoder import num_visible, require_maskable
from patchword.training.augment.settings import AugmentSettings
from patchword.training.optim_settings import OptimSettings
from patchword.training.schedule import ScheduleSettings
from patchword.training.tasks.detect_settings import DetectSettings
from patchword.training.tasks.settings import ClassifySettings, MAESettings, TaskSettings
from patchword.training.tune import Full, TuneSettings

Precision = Literal["float32", "bfloat16", "float16"]
Compile = Literal["auto", "always", "never"]
Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class AverageSettings:
    """Decay of the averaged weights, which rises to this value (ema.py). These weights are evaluated and saved."""

    decay: float = 0.998

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise SettingsError(f"average.decay is {self.decay}", "use a value from 0 to below 1")


# OpenMP ends the process if it cannot start as many threads as requested.
MAX_THREADS = 1024
MAX_REPEATS = 16


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Settings of one run.

    Args:
        seed: for weights, data order and augmentation.
        split_seed: for held-out images, if the data have no split of their own.
        device: a torch device; "auto" is CUDA if available, else the CPU.
        threads: 0 uses all threads available at the start. A resumed run keeps the number, because another
            order of summation changes the last digits.
        stored_size: (h, w) of the decoded images that are augmented.
        evaluate_every: in epochs.
        micro_batch: images computed at once; their gradients add up to those of the batch. 0 for the complete batch.
        save_minutes: how often the state is saved within an epoch; 0 for only after each epoch.
        max_minutes: training stops in the middle of an epoch after this time and is evaluated; 0 for no limit.
        patience: training stops after so many evaluations without a better score; 0 for never.
        compile: with torch.compile; "auto" on a GPU if the run is long enough to repay it.
        cache: where decoded training images are kept (data/store.py); "auto" is memory if they fit, else disk, else none.
        tensorboard: also write the records for TensorBoard, in the run folder.
        find_lr: measure the learning rate before the first step (find_lr.py) instead of taking `optim.lr`.
        repeats: copies of each image in a batch, augmented independently (Hoffer et al. 2020, arXiv 1901.09335); an epoch keeps
            its number of steps, so it has fewer different images.
        weights: the initial weights, as `patchword.load` accepts them; "" trains from scratch.
    """

    batch_size: int = 64
    seed: int = 0
    split_seed: int = 0
    precision: Precision = "float32"
    device: str = "auto"
    threads: int = 0
    stored_size: tuple[int, int] = (96, 96)
    evaluate_every: int = 1
    micro_batch: int = 0
    save_minutes: float = 10.0
    max_minutes: float = 0.0
    patience: int = 0
    compile: Compile = "auto"
    cache: Cache = "auto"
    find_lr: bool = False
    tensorboard: bool = False
    repeats: int = 1
    recipe: str = ""
    weights: str = ""

    def __post_init__(self) -> None:
        if (
            self.batch_size < 1
            or self.evaluate_every < 1
            or min(self.micro_batch, self.save_minutes, self.max_minutes, self.patience) < 0
            or not 0 <= self.threads <= MAX_THREADS
            or min(self.stored_size) < 1
            or not 1 <= self.repeats <= MAX_REPEATS
        ):
            raise SettingsError(
                f"run: batch_size {self.batch_size}, evaluate_every {self.evaluate_every}, threads {self.threads}, "
                f"micro_batch {self.micro_batch}, save_minutes {self.save_minutes}, max_minutes {self.max_minutes}, "
                f"patience {self.patience}, repeats {self.repeats}",
                f"use integers from 1 for batch_size and evaluate_every, 0 or more for the others (threads up to {MAX_THREADS}, repeats from 1 to {MAX_REPEATS})",
            )
        if not 0 <= self.seed < 2**63:
            raise SettingsError(f"run.seed is {self.seed}", "use an integer from 0 to 2**63 - 1")


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """All settings of a run. Raises: SettingsError if parts contradict each other."""

    model: ViTConfig
    preprocess: Preprocess
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    optim: OptimSettings = field(default_factory=OptimSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    tune: TuneSettings = field(default_factory=Full)
    task: TaskSettings = field(default_factory=ClassifySettings)
    average: AverageSettings = field(default_factory=AverageSettings)
    run: RunSettings = field(default_factory=RunSettings)

    def __post_init__(self) -> None:
        if self.preprocess.in_channels != self.model.image.channels:
            raise SettingsError(
                f"preprocess.in_channels is {self.preprocess.in_channels}, "
                f"but model.image.channels is {self.model.image.channels}",
                "set both to the same value",
            )
        if self.preprocess.image_size != self.model.image.size:
            raise SettingsError(
                f"preprocess.image_size is {self.preprocess.image_size}, but model.image.size is {self.model.image.size}",
                "set the size with --image-size, which changes both",
            )
        if isinstance(self.task, MAESettings):
            require_maskable(self.model)
            rows, columns = self.model.grid_size
            num_visible(rows * columns, self.task.decoder.mask_ratio)
        if isinstance(self.task, DetectSettings):
            self._check_detector(self.task)
        if self.task.one_size and not self.preprocess.fixed_size:
            raise SettingsError(
                f"preprocess.resize is {self.preprocess.resize.kind!r}, which gives images of different sizes",
                "train with a resize that gives one size, such as cover or squash",
            )

    def _check_detector(self, task: DetectSettings) -> None:
        task.detector.config(self.model, task.num_classes)
        if self.augment != AugmentSettings():
            raise SettingsError(
                "augment is for images with classes, but the task is to find objects in boxes",
                "use task.augment instead, such as -o task.augment.flip=0.5",
            )
        if not isinstance(self.preprocess.resize, Border | Squash):
            raise SettingsError(
                f"preprocess.resize is {self.preprocess.resize.kind!r}, which would cut off objects at the edges",
                "use border, which keeps the complete image, or squash",
            )

    @property
    def stored(self) -> Preprocess:
        """How training images are stored until they are augmented."""
        whole = isinstance(self.task, DetectSettings)
        return stored_as(self.preprocess, self.run.stored_size, whole=whole)

    @property
    def view_size(self) -> Size:
        """(h, w) of a training view, in pixels."""
        return view_size(self.model, self.augment)


def view_size(model: ViTConfig, augment: AugmentSettings) -> Size:
    """The model's image size times augment.view, rounded to complete patches; the image size itself if view is 1."""
    if augment.view == 1:
        return model.image.size
    sides = zip(model.image.size, model.patch_span, strict=True)
    rows, columns = (max(round(augment.view * side / span), 1) * span for side, span in sides)
    return rows, columns
