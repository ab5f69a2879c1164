"""Shared by the published recipes: the model by name, and the settings around it."""

from dataclasses import dataclass, replace

from patchword.errors import SettingsError
from patchword.images.preprocess import Preprocess
from patchword.model.config import ViTConfig
from patchword.model.sizes import IMAGE_SIZE, sized
from patchword.training.augment.settings import AugmentSettings, ColourSettings, GeometrySettings
from patchword.training.config import AverageSettings, RunSettings, TrainSettings, view_size
from patchword.training.optim_settings import OptimSettings
from patchword.training.overlay import Overlay
from patchword.training.recipes.common import batch_for, decay_over, safe_std, stored_size
from patchword.training.recipes.facts import Choice, DataFacts
from patchword.training.recipes.sizes import patch_for
from patchword.training.schedule import ScheduleSettings
from patchword.training.tasks.settings import ClassifySettings

# These recipes were made for ImageNet-1k.
MADE_FOR = 1_281_167


@dataclass(frozen=True, kw_only=True)
class Published:
    """What a published recipe says.

    warmup_steps: 0 if `warmup_epochs` holds. repeats: copies of each image in a batch.
    """

    name: str
    batch: int
    epochs: int
    optim: OptimSettings
    augment: AugmentSettings
    task: ClassifySettings
    warmup_epochs: float = 5.0
    warmup_steps: int = 0
    repeats: int = 1


def refuse_weights(recipe: str, facts: DataFacts) -> None:
    """Raises: SettingsError if weights are given to a recipe that trains from scratch."""
    if facts.weights is not None:
        raise SettingsError(
            f"the recipe {recipe} trains from scratch and cannot use weights",
            "remove --recipe or --weights, or use --recipe finetune or finetune-sgd",
        )


def model_for(
    recipe: str, facts: DataFacts, overlay: Overlay, default: str
) -> tuple[ViTConfig, list[Choice]]:
    """The named size (`default` without --model) at 224 pixels, or at the images' own size if that is smaller.

    Raises: SettingsError for weights, or an unknown size.
    """
    refuse_weights(recipe, facts)
    name, given = overlay.model_name(), overlay.get("model.image.size")
    side = min(*facts.size, IMAGE_SIZE)
    size = given or (side, side)
    why = [
        Choice(
            what=f"{name or default} at {size[1]}x{size[0]} pixels",
            why=overlay.source("model") if name else f"the recipe {recipe}; change with --model",
        )
    ]
    model = sized(name or default, image_size=size, in_channels=facts.channels, num_classes=facts.num_classes)
    patch = overlay.get("model.patch.size")
    if patch is None and not name and min(size) < IMAGE_SIZE:
        patch = (patch_for(min(size)),) * 2
        reason = "smaller than published, because so small images would give too few tokens"
        if patch != model.patch.size:
            why.append(Choice(what=f"patches of {patch[1]}x{patch[0]}", why=reason))
    elif patch is not None:
        why.append(Choice(what=f"patches of {patch[1]}x{patch[0]}", why=overlay.source("model.patch.size")))
    if patch is not None:
        model = replace(model, patch=replace(model.patch, size=patch))
    return model, why


def inception_crop(
    facts: DataFacts, smallest: float = 0.08, colour: float = 0.0
) -> tuple[GeometrySettings, ColourSettings]:
    """Random-resized-crop from `smallest` of the area, mirrored half of the time, and colour jitter."""
    geometry = GeometrySettings(
        crop_scale=(smallest, 1.0), crop_ratio=(0.75, 1.3333), flip=0.5 if facts.mirrors else 0.0
    )
    return geometry, ColourSettings(brightness=colour, contrast=colour, saturation=colour)


def settings_of(
    recipe: Published,
    model: ViTConfig,
    facts: DataFacts,
    overlay: Overlay,
    preprocess: Preprocess | None = None,
) -> tuple[TrainSettings, list[Choice]]:
    """The settings of a published recipe, with the batch and the warm-up capped by the data.

    preprocess: that of the weights; without it, images are normalised by the statistics of the data.
    """
    batch, why = batch_for(recipe.batch, facts.num_images), []
    if batch < recipe.batch:
        reason = f"instead of the recipe's {recipe.batch}: there are {facts.num_images} images"
        why.append(Choice(what=f"batches of {batch}", why=reason))
    steps_per_epoch = max(facts.num_images // batch, 1)
    epochs = overlay.get("schedule.epochs") or recipe.epochs
    warmup = recipe.warmup_steps / steps_per_epoch if recipe.warmup_steps else recipe.warmup_epochs
    shortened = min(warmup, epochs / 10)
    if recipe.warmup_steps and shortened < warmup:
        reason = f"instead of the recipe's {recipe.warmup_steps:,}: a tenth of the run"
        why.append(Choice(what=f"{round(shortened * steps_per_epoch):,} steps of warm-up", why=reason))
    settings = TrainSettings(
        model=model,
        preprocess=preprocess
        or Preprocess.simple(
            model.image.size, in_channels=facts.channels, mean=facts.mean, std=safe_std(facts.std)
        ),
        augment=recipe.augment,
        optim=recipe.optim,
        schedule=ScheduleSettings(epochs=epochs, warmup_epochs=round(shortened, 3), final_lr=0.001),
        task=recipe.task,
        average=AverageSettings(decay=decay_over(epochs * steps_per_epoch)),
        run=RunSettings(
            batch_size=batch,
            stored_size=stored_size(view_size(model, recipe.augment)),
            repeats=recipe.repeats,
            recipe=recipe.name,
        ),
    )
    return settings, why
