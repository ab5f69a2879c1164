"""From scratch on hundreds to a few thousand images: the model of `scratch`, regularised more and trained longer.

    patchword train flowers/ --recipe small-data

The model, the sizes and the optimiser (Muon) are those of `scratch` (recipes/scratch.py has their measurements). In addition:
TrivialAugment (Müller and Hutter 2021, arXiv 2103.10158) instead of colour jitter, erasing 0.25, drop path 0.1, and 2.5 times as many
steps. Regularisation of this kind is what a ViT needs on few images (Touvron et al. 2021, arXiv 2012.12877; Steiner et al.
2022, arXiv 2106.10270, section 4.1). Tiny images keep their small shifts and rotations, and get the steps only.
Not measured here: on the recipe `scratch` with AdamW, drop path or erasing alone changed nothing that could be proven.
With weights, fine-tuning is better on few images: --weights.
"""

import math
from dataclasses import replace

from patchword.training.augment.settings import ColourSettings, TrivialAugment
from patchword.training.config import AverageSettings, TrainSettings
from patchword.training.overlay import Overlay
from patchword.training.recipes import scratch
from patchword.training.recipes.common import decay_over, is_tiny
from patchword.training.recipes.facts import Choice, DataFacts
from patchword.training.recipes.published import refuse_weights

DESCRIPTION = "from scratch on hundreds to a few thousand images, longer and more regularised"
LONGER = 2.5


def settings_for(facts: DataFacts, overlay: Overlay) -> tuple[TrainSettings, list[Choice]]:
    """Return the settings for these data, and the choices as text. Raises: SettingsError if weights are given."""
    refuse_weights("small-data", facts)
    settings, why = scratch.settings_for(facts, overlay)
    augment, model = settings.augment, settings.vit
    if not is_tiny(model.image.size):
        augment = replace(augment, policy=TrivialAugment(), colour=ColourSettings(), erase=0.25)
        model = replace(model, block=replace(model.block, drop_path=0.1))
    epochs = overlay.get("schedule.epochs") or math.ceil(LONGER * settings.schedule.epochs)
    steps = epochs * max(facts.num_images // settings.run.batch_size, 1)
    settings = replace(
        settings,
        model=model,
        augment=augment,
        schedule=replace(settings.schedule, epochs=epochs, warmup_epochs=min(5.0, epochs / 10)),
        average=AverageSettings(decay=decay_over(steps)),
        run=replace(settings.run, recipe="small-data"),
    )
    return settings, why
