"""Shared by the recipes of masked autoencoders: the model, the decoder and the views."""

from dataclasses import dataclass, replace

from patchword.errors import SettingsError
from patchword.images.preprocess import Preprocess
from patchword.model.config import ViTConfig
from patchword.model.decoder import DecoderConfig
from patchword.training.augment.settings import AugmentSettings, GeometrySettings
from patchword.training.config import AverageSettings, RunSettings, TrainSettings
from patchword.training.optim_settings import OptimSettings
from patchword.training.overlay import Overlay
from patchword.training.recipes import scratch
from patchword.training.recipes.common import batch_for, decay_over, safe_std, stored_size
from patchword.training.recipes.facts import Choice, DataFacts
from patchword.training.recipes.pretrained import model_of, preprocess_of
from patchword.training.schedule import ScheduleSettings
from patchword.training.tasks.settings import MAESettings
from patchword.training.tune import Full, LayerDecay

# Width from which an encoder has the published decoder.
WIDE = 768
# Share of the epochs in which a new decoder is fitted to trained weights, and the factor of the rate from block to block.
FROZEN, DECAY = 0.1, 0.75


@dataclass(frozen=True, kw_only=True)
class Masked:
    """What a recipe says. warmup: share of the epochs. model: the size without --model; "" for one sized for the data."""

    name: str
    optim: OptimSettings
    batch: int
    epochs: int
    warmup: float
    published_decoder: bool
    model: str = ""


def masked_settings(facts: DataFacts, overlay: Overlay, says: Masked) -> tuple[TrainSettings, list[Choice]]:
    """Return the settings, and the choices as text. Raises: SettingsError if the data are labelled for another task."""
    if not isinstance(facts.task, MAESettings):
        raise SettingsError(
            f"the recipe {says.name} learns without labels", "use it with `patchword pretrain`"
        )
    model, preprocess, why = _model(facts, overlay, says)
    decoder, choice = _decoder(model, says)
    epochs = overlay.get("schedule.epochs") or says.epochs
    batch = batch_for(says.batch, facts.num_images)
    steps = max(facts.num_images // (overlay.get("run.batch_size") or batch), 1) * epochs
    frozen = 0.0
    if facts.weights is not None:
        frozen = float(min(max(round(FROZEN * epochs), 1), epochs - 1))
        why.append(Choice(what=f"encoder frozen for {frozen:g} of {epochs} epochs", why="the decoder is new"))
    return TrainSettings(
        model=model,
        preprocess=preprocess,
        augment=AugmentSettings(
            geometry=GeometrySettings(crop_scale=(0.2, 1.0), flip=0.5 if facts.mirrors else 0.0)
        ),
        optim=says.optim,
        schedule=ScheduleSettings(epochs=epochs, warmup_epochs=says.warmup * epochs, final_lr=0.0),
        tune=Full() if facts.weights is None else LayerDecay(decay=DECAY),
        task=MAESettings(decoder=decoder, freeze_epochs=frozen),
        average=AverageSettings(decay=decay_over(steps)),
        run=RunSettings(
            batch_size=batch,
            stored_size=stored_size(model.image.size),
            recipe=says.name,
            evaluate_every=max(epochs // 40, 1),
        ),
    ), [*why, choice]


def _model(facts: DataFacts, overlay: Overlay, says: Masked) -> tuple[ViTConfig, Preprocess, list[Choice]]:
    if facts.weights is not None:
        model, why = model_of(facts.weights, facts, overlay)
        head = replace(model.head, distilled=False)
        model = replace(model, head=head)
        return model, preprocess_of(facts.weights, facts, model), why
    model, why = scratch.model_for(facts, overlay, says.model)
    preprocess = Preprocess.simple(
        model.image.size, in_channels=facts.channels, mean=facts.mean, std=safe_std(facts.std)
    )
    return model, preprocess, why


def _decoder(model: ViTConfig, says: Masked) -> tuple[DecoderConfig, Choice]:
    if says.published_decoder or model.dim >= WIDE:
        config = DecoderConfig()
        reason = "as published"
    else:
        dim = max(model.dim // 2 // 32 * 32, 32)
        config = DecoderConfig(dim=dim, depth=4, num_heads=dim // 32)
        reason = f"smaller than published, as the encoder has {model.dim} channels"
    return config, Choice(what=f"decoder of {config.depth} blocks of {config.dim} channels", why=reason)
