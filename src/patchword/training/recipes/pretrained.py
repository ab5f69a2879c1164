"""Shared by the recipes that start from weights: the model of the weights, and how they expect their images."""

from dataclasses import replace

from patchword.errors import SettingsError
from patchword.images.preprocess import Preprocess
from patchword.model.config import ViTConfig
from patchword.training.overlay import Overlay
from patchword.training.recipes.common import safe_std
from patchword.training.recipes.facts import Choice, DataFacts
from patchword.weights.card import ModelCard


def card_for(recipe: str, facts: DataFacts, overlay: Overlay) -> ModelCard:
    """The card of the weights. Raises: SettingsError if there are none, or if another model is asked for."""
    if facts.weights is None:
        raise SettingsError(
            f"the recipe {recipe} needs weights", "add --weights, or use --recipe scratch or small-data"
        )
    if (name := overlay.model_name()) is not None:
        raise SettingsError(
            f"--model {name} cannot be combined with weights",
            "remove --model; the weights determine the model",
        )
    return facts.weights


def model_of(card: ModelCard, facts: DataFacts, overlay: Overlay) -> tuple[ViTConfig, list[Choice]]:
    """The model of the weights, at the specified size, with a head for these classes."""
    old, why = card.config, []
    size, reason = overlay.get("model.image.size"), "the size of the weights"
    if size is not None:
        reason = overlay.source("model.image.size")
    else:
        size = card.preprocess.image_size if card.preprocess.fixed_size else old.image.size
    why.append(Choice(what=f"images of {size[1]}x{size[0]} pixels", why=reason))
    # A colour model reads grey images as equal channels, which occur in its training data. A grey model
    # would lose the colours, so its kernel is widened. Files with other channel counts only fit such a model.
    keeps = old.image.channels > 1 and (facts.channels == 1 or old.image.channels != 3)
    channels = old.image.channels if keeps else facts.channels
    if channels != old.image.channels:
        why.append(Choice(what=f"{channels} channels instead of {old.image.channels}", why="as in the data"))
    patch, patch_size = old.patch, overlay.get("model.patch.size")
    if patch_size is not None:
        patch = replace(old.patch, size=patch_size)
        source = overlay.source("model.patch.size")
        why.append(Choice(what=f"patches of {patch_size[1]}x{patch_size[0]}", why=source))
    model = replace(
        old,
        image=replace(old.image, size=size, channels=channels),
        patch=patch,
        head=replace(old.head, num_classes=facts.num_classes),
    )
    return model, why


def preprocess_of(card: ModelCard, facts: DataFacts, model: ViTConfig) -> Preprocess:
    """Normalise as the weights expect; for another number of channels, use the statistics of the data."""
    same = model.image.channels == card.config.image.channels
    simple = Preprocess.simple(
        model.image.size,
        in_channels=model.image.channels,
        mean=card.preprocess.mean if same else facts.mean,
        std=card.preprocess.std if same else safe_std(facts.std),
    )
    reading = replace(simple.reading, value_range=card.preprocess.reading.value_range)
    return replace(simple, resample=card.preprocess.resample, reading=reading)
