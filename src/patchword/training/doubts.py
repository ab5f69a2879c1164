"""Settings that are known to train badly, named before they cost a night. Nothing is refused.

To add one, write a function from a `Case` to a `Choice` or None and enter it in `DOUBTS`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from patchword import machine
from patchword.errors import plural
from patchword.model.kinds import Learned
from patchword.training.config import TrainSettings
from patchword.training.optim_settings import effective_lr
from patchword.training.recipes.facts import Choice, DataFacts
from patchword.training.recipes.sizes import HEAD_DIM, MIN_TOKENS
from patchword.training.tune import Full, Head, LoRA

# Adam at 1e-2 on trained weights ends in one class for all images (lucidrains/vit-pytorch, issue 34).
PRETRAINED_LR = 3e-3
# From scratch, a ViT is far below a convolutional network on fewer images unless it is small.
MANY_IMAGES, WIDE = 20_000, 384
FEW_STEPS, FEW_EPOCHS = 300, 10


@dataclass(frozen=True, kw_only=True)
class Case:
    """The settings of a run, those of its recipe alone, and the facts about its data."""

    settings: TrainSettings
    by_recipe: TrainSettings
    facts: DataFacts

    @property
    def from_weights(self) -> bool:
        return self.facts.weights is not None or bool(self.settings.run.weights)

    @property
    def fits_head(self) -> bool:
        """Whether a head is fitted to features, so that optimiser, schedule and augmentation are not used."""
        return isinstance(self.settings.tune, Head) and self.settings.task.kind != "detect"

    @property
    def lr(self) -> float:
        return effective_lr(self.settings.optim, self.settings.run.batch_size)[0]

    @property
    def recipe_lr(self) -> float:
        return effective_lr(self.by_recipe.optim, self.by_recipe.run.batch_size)[0]

    @property
    def steps(self) -> int:
        per_epoch = max(self.facts.num_images // self.settings.run.batch_size, 1)
        return self.settings.schedule.epochs * per_epoch


def doubts(settings: TrainSettings, by_recipe: TrainSettings, facts: DataFacts) -> list[Choice]:
    """Warnings and notes about these settings, in the order of `DOUBTS`. by_recipe: the settings without the user's."""
    case = Case(settings=settings, by_recipe=by_recipe, facts=facts)
    return [found for doubt in DOUBTS if (found := doubt(case)) is not None]


def _warning(what: str, why: str) -> Choice:
    return Choice(what=f"warning: {what}", why=why)


def few_tokens(case: Case) -> Choice | None:
    rows, columns = case.settings.model.grid_size
    if rows * columns >= MIN_TOKENS:
        return None
    why = f"fewer than {MIN_TOKENS} are too few for attention to help; use a smaller patch or larger images"
    return _warning(f"only {rows} x {columns} tokens", why)


def coarse_patches(case: Case) -> Choice | None:
    """Enough tokens, but in a strip."""
    model = case.settings.model
    rows, columns = model.grid_size
    if rows * columns < MIN_TOKENS or min(rows, columns) >= math.isqrt(MIN_TOKENS):
        return None
    height, width = model.patch_span
    why = "patches larger than a quarter of the image's side hide what is in them; use a smaller --patch-size"
    return _warning(f"patches of {width}x{height} on images with {min(rows, columns)} of them in a line", why)


def narrow_heads(case: Case) -> Choice | None:
    model = case.settings.model
    # Trained heads work, however narrow.
    if model.head_dim >= HEAD_DIM or case.from_weights:
        return None
    why = f"heads narrower than {HEAD_DIM} cannot distinguish tokens; use fewer heads"
    return _warning(f"heads of {model.head_dim} channels", why)


def high_rate_for_weights(case: Case) -> Choice | None:
    settings = case.settings
    gentle = settings.optim.method == "sgd" or isinstance(settings.tune, LoRA)
    # Narrow models are trained at the rate from scratch.
    allowed = max(PRETRAINED_LR, 2 * case.recipe_lr)
    if not case.from_weights or case.fits_head or gentle or case.lr <= allowed:
        return None
    why = (
        f"{settings.optim.method} at such a rate destroys trained weights, and the model predicts one class for everything; "
        f"the recipe uses {case.recipe_lr:.2g}"
    )
    return _warning(f"learning rate {case.lr:g}", why)


def high_rate(case: Case) -> Choice | None:
    if case.fits_head or case.lr <= 10 * case.recipe_lr or high_rate_for_weights(case):
        return None
    why = f"more than ten times the recipe's {case.recipe_lr:.3g}; training is likely to diverge or collapse to one class"
    return _warning(f"learning rate {case.lr:g}", why)


def large_batch(case: Case) -> Choice | None:
    batch, images = case.settings.run.batch_size, case.facts.num_images
    if batch <= images or case.fits_head:
        return None
    why = f"there are {plural(images, 'training image')}, so each epoch is one step; use a --batch-size of at most {max(images // 4, 1)}"
    return _warning(f"batches of {batch}", why)


def long_warmup(case: Case) -> Choice | None:
    schedule = case.settings.schedule
    if schedule.warmup_epochs <= schedule.epochs / 2 or case.fits_head:
        return None
    why = f"longer than half of the {plural(schedule.epochs, 'epoch')}, so it is shortened to half; set schedule.warmup_epochs"
    return _warning(f"warm-up of {schedule.warmup_epochs:g} epochs", why)


def strong_mixing(case: Case) -> Choice | None:
    mixing, epochs = case.settings.augment.mixing, case.settings.schedule.epochs
    heavy = not mixing.is_identity and mixing.probability >= 0.5 and max(mixing.mixup, mixing.cutmix) >= 0.5
    if not heavy or epochs >= FEW_EPOCHS or case.fits_head:
        return None
    why = (
        "mixed images slow the first epochs down and help in long runs only; set augment.mixing.probability=0"
    )
    return _warning(f"mixup or CutMix in a run of {plural(epochs, 'epoch')}", why)


def few_steps(case: Case) -> Choice | None:
    if case.from_weights or case.steps >= FEW_STEPS:
        return None
    why = f"from scratch, a ViT learns little in fewer than {FEW_STEPS}; use more --epochs or a smaller --batch-size"
    return _warning(f"a run of {plural(case.steps, 'step')}", why)


def large_model_from_scratch(case: Case) -> Choice | None:
    width, images = case.settings.model.dim, case.facts.num_images
    if case.from_weights or width < WIDE or images >= MANY_IMAGES:
        return None
    why = (
        f"from scratch, a model this wide stays far below a convolutional network with fewer than {MANY_IMAGES:,} images; "
        "use --weights, or the recipe small-data"
    )
    return _warning(f"{width} channels for {plural(images, 'training image')}", why)


def decay_with_sgd(case: Case) -> Choice | None:
    optim = case.settings.optim
    if not case.from_weights or optim.method != "sgd" or optim.weight_decay < 1e-3 or case.fits_head:
        return None
    why = "fine-tuning with SGD uses none (Dosovitskiy et al. 2021, appendix B.1.1); set optim.weight_decay=0"
    return _warning(f"weight decay {optim.weight_decay:g} with SGD", why)


def layers_from_scratch(case: Case) -> Choice | None:
    tune = case.settings.tune
    if case.from_weights or isinstance(tune, Full):
        return None
    why = "without weights, early blocks hardly move from their random start; remove --tune, or add --weights"
    return _warning(f"--tune {tune.text} from scratch", why)


def other_size(case: Case) -> Choice | None:
    card, model = case.facts.weights, case.settings.model
    if card is None or not isinstance(model.added_positions, Learned):
        return None
    old, new = card.config.grid_size, model.grid_size
    if old == new:
        return None
    why = f"the weights have {old[0]} x {old[1]}; their positions are resampled, which fine-tuning makes good"
    return Choice(what=f"{new[0]} x {new[1]} patches", why=why)


def many_threads(case: Case) -> Choice | None:
    threads, granted = case.settings.run.threads, machine.granted_cores()
    if threads <= granted:
        return None
    why = f"only {plural(granted, 'core')} available, and additional threads wait for each other"
    return _warning(f"{threads} threads", why)


def padding(case: Case) -> Choice | None:
    model = case.settings.model
    padded = [-size % patch for size, patch in zip(model.image.size, model.patch_span, strict=True)]
    if not any(padded):
        return None
    why = "the patch size does not divide the image size, so the right and bottom edges are padded with zeros"
    return Choice(what=f"{padded[1]} columns and {padded[0]} rows of padding", why=why)


DOUBTS: tuple[Callable[[Case], Choice | None], ...] = (
    few_tokens,
    coarse_patches,
    narrow_heads,
    high_rate_for_weights,
    high_rate,
    large_batch,
    long_warmup,
    strong_mixing,
    few_steps,
    large_model_from_scratch,
    decay_with_sgd,
    layers_from_scratch,
    other_size,
    many_threads,
    padding,
)
