"""What a weights file says of itself: how the model is built, fed, named, and where it comes from."""

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from patchword.errors import CheckpointError, SettingsError
from patchword.images.preprocess import Preprocess
from patchword.model.config import ViTConfig
from patchword.settings import from_plain, to_json, to_plain

# Counted up when a file could no longer be read by this code; older ones stay readable for ever.
CARD_VERSION = 1
# Where the card stands in the metadata of a .safetensors file.
CARD_KEY = "patchword"
_PARTS = ("version", "config", "preprocess", "classes", "untrained", "provenance")
Fact = str | int | float | bool
# In the facts of weights from a run that broke: where it broke.
BROKEN = "broken"


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where weights come from. All may be empty: a file from elsewhere may not say.

    created: UTC, ISO 8601. data_hash: of the list of training files. source, source_sha256:
    the weights that these were made from. metrics: shares and losses, as {"top1": 0.93}.
    facts: anything else a reader may want, as {"epoch": 30, "weights": "averaged"}.
    """

    created: str = ""
    patchword: str = ""
    data: str = ""
    data_hash: str = ""
    seed: int | None = None
    recipe: str = ""
    source: str = ""
    source_sha256: str = ""
    licence: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, Fact] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """Everything beside the tensors that a model needs to answer; it travels in the weights file.

    classes: names in the order of the head's outputs; empty where there is no head, or where
    nobody named them. untrained: parts whose weights nobody trained ("head"); nothing answers
    through them.
    Raises: CheckpointError where the parts contradict each other.
    """

    config: ViTConfig
    preprocess: Preprocess
    classes: tuple[str, ...] = ()
    untrained: tuple[str, ...] = ()
    provenance: Provenance = field(default_factory=Provenance)

    def __post_init__(self) -> None:
        _check_classes(self.classes, self.config.head.num_classes)
        if self.preprocess.in_channels != self.config.image.channels:
            raise CheckpointError(
                f"the card's preprocess gives {self.preprocess.in_channels} channels, "
                f"its model takes {self.config.image.channels}",
                "write the file again with both the same",
            )


def broken_notes(card: ModelCard) -> tuple[str, ...]:
    """What must be said of weights whose training broke; nothing of others."""
    why = card.provenance.facts.get(BROKEN)
    return (f"these weights are from a training run that broke: {why}",) if why else ()


def _check_classes(classes: tuple[str, ...], num_classes: int) -> None:
    if classes and len(classes) != num_classes:
        raise CheckpointError(
            f"the card names {len(classes)} classes, the model's head has {num_classes}",
            "name every class once, in the order of the head",
        )
    twice = [name for name, count in Counter(classes).items() if count > 1]
    if twice:
        raise CheckpointError(
            f"the card names {len(twice)} classes more than once: {', '.join(map(repr, twice[:3]))}",
            "give each class a name of its own",
        )


def card_to_json(card: ModelCard) -> str:
    plain = {"version": CARD_VERSION, **to_plain(card)}
    return to_json(plain, allow_nan=False, separators=(",", ":"))


def card_from_json(text: str, name: str) -> ModelCard:
    """The card in `text`; `name` is the file's, for messages.

    Raises: CheckpointError where the text is no card, is of a newer patchword, or contradicts itself.
    """
    plain = _parse(text, name)
    try:
        return ModelCard(
            config=from_plain(ViTConfig, plain["config"], "its config"),
            preprocess=from_plain(Preprocess, plain["preprocess"], "its preprocess"),
            classes=_names(plain, "classes", name),
            untrained=_names(plain, "untrained", name),
            provenance=_provenance(plain.get("provenance", {})),
        )
    except SettingsError as error:
        raise CheckpointError(
            f"{name}: its card cannot be read: {error.message}",
            "update patchword if a newer one wrote the file; else get the file again",
        ) from error
    except CheckpointError as error:
        raise CheckpointError(f"{name}: {error.message}", error.fix) from error


def _parse(text: str, name: str) -> dict[str, Any]:
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{name}: its card is no JSON ({error})", "get the file again") from error
    plain: dict[str, Any] = parsed if isinstance(parsed, dict) else {}
    version = plain.get("version")
    if not isinstance(version, int):
        raise CheckpointError(f"{name}: its card has no version", "get the file again")
    if version > CARD_VERSION:
        raise CheckpointError(
            f"{name}: its card is of version {version}, this patchword reads up to {CARD_VERSION}",
            "update patchword",
        )
    missing = [part for part in ("config", "preprocess") if not isinstance(plain.get(part), dict)]
    unknown = [part for part in plain if part not in _PARTS]
    if missing or unknown:
        what = f"lacks {', '.join(missing)}" if missing else f"has unknown parts: {', '.join(unknown)}"
        raise CheckpointError(f"{name}: its card {what}", "get the file again, or update patchword")
    return plain


def _names(plain: Mapping[str, Any], part: str, name: str) -> tuple[str, ...]:
    names = plain.get(part, [])
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        raise CheckpointError(f"the card's {part} are no list of names", "get the file again")
    return tuple(names)


def _provenance(plain: Any) -> Provenance:
    """Unknown entries go to the facts: where a file comes from must never keep it from loading."""
    if not isinstance(plain, dict):
        return Provenance()
    texts_and_seed = {f.name for f in dataclasses.fields(Provenance)} - {"metrics", "facts"}
    known = {k: v for k, v in plain.items() if k in texts_and_seed and _fits(k, v)}
    facts = {k: v for k, v in plain.items() if k not in known and isinstance(v, str | int | float)}
    metrics = plain.get("metrics") or {}
    return Provenance(
        **known,
        metrics={str(k): float(v) for k, v in metrics.items() if isinstance(v, int | float)},
        facts=facts | dict(plain.get("facts") or {}),
    )


def _fits(entry: str, value: Any) -> bool:
    return isinstance(value, int) or value is None if entry == "seed" else isinstance(value, str)
