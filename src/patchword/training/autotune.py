"""`--tune auto`: choose what is tuned from the data, the device and an estimate of the time. `choose_tune` is a pure function."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from patchword.errors import PatchwordError
from patchword.model.config import ViTConfig
from patchword.model.cost import cost
from patchword.training.config import TrainSettings
from patchword.training.memory import needed
from patchword.training.progress import clock
from patchword.training.recipes.facts import DataFacts
from patchword.training.tune import Full, Head, Last, LayerDecay, LoRA, Trunk, TuneSettings

# With fewer images per class, tuning more than the head mostly learns the images by heart.
FEW_PER_CLASS = 10
LONGEST_S = 3600.0
# The smallest micro-batch that is tried.
LEAST_BATCH = 2


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """What is tuned, why, and the seconds that each choice would take."""

    tune: TuneSettings
    why: str
    seconds: Mapping[str, float]

    @property
    def text(self) -> str:
        """The reason and the price of each choice, such as "head 0:40, lora 12:00"."""
        return f"{self.why}; about {prices(self.seconds)}"


def prices(seconds: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {clock(value)}" for name, value in seconds.items())


def passes(tune: TuneSettings, depth: int) -> float:
    """The arithmetic of one training step, in forward passes.

    A backward pass is two forward passes: one for the inputs, one for the weights. Frozen weights need none of the second,
    frozen first blocks neither. Adapters hardly add to it.
    """
    match tune:
        case Head():
            return 1.0
        case Last(blocks=blocks):
            return 1.0 + 2.0 * min(blocks / max(depth, 1), 1.0)
        case LoRA():
            return 2.2
        case Full() | LayerDecay() | Trunk():
            return 3.0


def seconds_of(
    tune: TuneSettings, settings: TrainSettings, num_images: int, seconds_per_image: float
) -> float:
    """The estimated time of a run: one pass for the features of the probe, and the epochs. Decoding is not included."""
    epochs = 0 if isinstance(tune, Head) and settings.task.kind != "detect" else settings.schedule.epochs
    return (
        num_images
        * seconds_per_image
        * (1 + epochs * passes(tune, 0 if settings.model is None else settings.model.depth))
    )


def choose_tune(
    facts: DataFacts,
    settings: TrainSettings,
    device: str,
    seconds_per_image: float,
    memory_left: int,
    *,
    keeps_training: str = "",
) -> Tuning:
    """Choose what is tuned, with the reason as a sentence.

    Args:
        settings: of the recipe; its `tune` is the candidate.
        device: for the sentence.
        seconds_per_image: of one forward pass here.
        memory_left: bytes on the device.
        keeps_training: a setting of the user's that means more than a head, such as --epochs; "" for none.
    """
    candidate, images = settings.tune, facts.num_images
    kinds: tuple[TuneSettings, ...] = (Head(), LoRA(), LayerDecay(), Full())
    seconds = {kind.kind: seconds_of(kind, settings, images, seconds_per_image) for kind in kinds}
    long = seconds[candidate.kind]
    per_class = images / max(facts.num_classes, 1)

    def found(tune: TuneSettings, why: str) -> Tuning:
        return Tuning(tune=tune, why=why, seconds=seconds)

    if not keeps_training and per_class < FEW_PER_CLASS:
        return found(
            Head(), f"{per_class:.0f} training images per class are too few to tune more than the head"
        )
    if not keeps_training and long > LONGEST_S:
        why = f"{candidate.kind} would take about {clock(long)} on {device}, longer than an hour; choose it with --tune {candidate.kind}"
        return found(Head(), why)
    if _least_bytes(settings, candidate, images) > memory_left:
        why = f"{candidate.kind} does not fit into memory; adapters need no gradients of the weights"
        return found(LoRA(), why)
    why = f"{per_class:.0f} training images per class, and about {clock(long)} on {device}"
    return found(candidate, f"{why}, as {keeps_training} asks for training" if keeps_training else why)


def _least_bytes(settings: TrainSettings, tune: TuneSettings, num_images: int) -> int:
    run = replace(settings.run, micro_batch=min(LEAST_BATCH, settings.run.batch_size), precision="bfloat16")
    return needed(replace(settings, run=run, tune=tune), num_images, cache=False).total


def at_view_size(settings: TrainSettings) -> ViTConfig:
    """The model at the size of a training view, as far as it allows that."""
    model = settings.vit
    try:
        return replace(model, image=replace(model.image, size=settings.view_size))
    except PatchwordError:
        return model


def flops_per_image(settings: TrainSettings) -> int:
    """Of one forward pass on a training view."""
    return cost(at_view_size(settings)).flops
