"""Fine-tune trained weights with SGD, as the paper of the Vision Transformer does.

    patchword train flowers/ --weights NAME --recipe finetune-sgd

SGD with momentum 0.9, no weight decay, batch 512, cosine with a warm-up, gradients clipped to norm 1, at 384 pixels where the
positions can be resampled; crops and mirroring alone, no mixing, no smoothing (Dosovitskiy et al. 2021, arXiv 2010.11929,
section 4.1 and appendix B.1.1). The paper picks the rate from 0.001, 0.003, 0.01 and 0.03; 0.01 is used here, for a batch of
512 and linear in the batch. Its 500 to 20,000 steps become 500 to 2,500 for few images.
Published, not measured here: ViT-B/16 from ImageNet-21k on CIFAR-10 98.59 % after 500 steps (17 minutes), 99.02 % after all,
2.2 h on an A100 (google-research/vision_transformer, README).
"""

import math
from dataclasses import replace

from patchword.training.augment.settings import AugmentSettings, GeometrySettings
from patchword.training.config import AverageSettings, RunSettings, TrainSettings
from patchword.training.optim_settings import OptimSettings
from patchword.training.overlay import Overlay
from patchword.training.recipes.common import batch_for, decay_over, gentle, is_tiny, stored_size
from patchword.training.recipes.facts import Choice, DataFacts, Size
from patchword.training.recipes.pretrained import card_for, model_of, preprocess_of
from patchword.training.schedule import ScheduleSettings
from patchword.training.tasks.settings import ClassifySettings
from patchword.training.tune import Full
from patchword.weights.card import ModelCard

DESCRIPTION = "from weights, SGD at a larger image size, as in the ViT paper"
SIDE, BATCH, EPOCHS, MIN_STEPS, MAX_STEPS = 384, 512, 20, 500, 2500
# Learned tables are resampled; the others are computed for any grid.
ANY_SIZE = ("learned", "sincos2d", "rope2d", "rope_mixed", "none")


def settings_for(facts: DataFacts, overlay: Overlay) -> tuple[TrainSettings, list[Choice]]:
    """Return the settings for these data and weights, and the choices as text.

    Raises: SettingsError if there are no weights, or if another model is specified.
    """
    card = card_for("finetune-sgd", facts, overlay)
    model, why = model_of(card, facts, overlay)
    if overlay.get("model.image.size") is None:
        size, reason = _size(card, facts)
        model = replace(model, image=replace(model.image, size=size))
        why[0] = Choice(what=f"images of {size[1]}x{size[0]} pixels", why=reason)
    batch = batch_for(BATCH, facts.num_images)
    steps_per_epoch = max(facts.num_images // batch, 1)
    epochs = overlay.get("schedule.epochs")
    if epochs is None:
        fewest, most = MIN_STEPS / steps_per_epoch, MAX_STEPS / steps_per_epoch
        epochs = max(1, math.ceil(min(max(EPOCHS, fewest), most)))
    geometry = GeometrySettings(
        crop_scale=(0.35, 1.0), crop_ratio=(0.75, 1.3333), flip=0.5 if facts.mirrors else 0.0
    )
    settings = TrainSettings(
        model=model,
        preprocess=preprocess_of(card, facts, model),
        augment=gentle() if is_tiny(model.image.size) else AugmentSettings(geometry=geometry),
        optim=OptimSettings(method="sgd", lr=0.005, lr_rule="linear", momentum=0.9, weight_decay=0.0),
        schedule=ScheduleSettings(epochs=epochs, warmup_epochs=min(5.0, epochs / 10), final_lr=0.0),
        tune=Full(),
        task=ClassifySettings(label_smoothing=0.0),
        average=AverageSettings(decay=decay_over(epochs * steps_per_epoch)),
        run=RunSettings(batch_size=batch, stored_size=stored_size(model.image.size), recipe="finetune-sgd"),
    )
    return settings, why


def _size(card: ModelCard, facts: DataFacts) -> tuple[Size, str]:
    """384 pixels in complete patches, unless the weights or the images do not allow or need it."""
    old = card.preprocess.image_size if card.preprocess.fixed_size else card.config.image.size
    if max(old) >= SIDE:
        return old, "the size of the weights"
    if card.config.positions.kind not in ANY_SIZE:
        return old, "the size of the weights, whose positions hold for no other"
    if min(facts.size) <= max(old):
        return old, "the size of the weights; the images are no larger"
    rows, columns = (max(SIDE // span, 1) * span for span in card.config.patch_span)
    return (rows, columns), "larger than the weights' size, as in the paper; the positions are resampled"
