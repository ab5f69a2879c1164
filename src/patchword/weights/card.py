"""The card of a weights file: architecture, preprocessing, class names and provenance."""

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

from patchword.errors import CheckpointError, SettingsError, plural
from patchword.images.preprocess import Preprocess
from patchword.model.config import ViTConfig
from patchword.model.decoder import DecoderConfig
from patchword.model.shapes import DECODER
from patchword.settings import from_plain, to_json, to_plain

# Incremented when older code can no longer read new files; older files always stay readable.
CARD_VERSION = 4
# Of files whose card is a detector's (`detector_card.py`).
DETECTOR_VERSION = 5
_WITHOUT_DECODER_OR_THRESHOLDS = 3
_WITHOUT_TASK = 2
_WITHOUT_TEMPERATURE = 1
# The card's key in the metadata of a .safetensors file.
CARD_KEY = "patchword"
_TASK = ("task", "mean", "std")
_PARTS = (
    "version",
    "config",
    "preprocess",
    "classes",
    "untrained",
    "provenance",
    "temperature",
    *_TASK,
    "thresholds",
    "decoder",
)
T = TypeVar("T")
TaskKind = Literal["single", "multi", "number"]
Fact = str | int | float | bool
# The fact that records where training diverged, and the one of best weights that stand for their run instead of the last.
BROKEN, STANDS_FOR_RUN = "broken", "stands_for_run"


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where weights come from. Every field may be empty if the file does not state it.

    created: UTC, ISO 8601. data_hash: hash of the list of training files. trained_on: content hashes of the
    training images, as written by `data.contents.pack`. source, source_sha256: the weights these were made
    from. metrics: shares and losses, e.g. {"top1": 0.93}.
    facts: any other information, e.g. {"epoch": 30, "weights": "averaged"}.
    """

    created: str = ""
    patchword: str = ""
    data: str = ""
    data_hash: str = ""
    trained_on: str = ""
    seed: int | None = None
    recipe: str = ""
    source: str = ""
    source_sha256: str = ""
    licence: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, Fact] = field(default_factory=dict)

    @property
    def num_trained_on(self) -> int:
        """Number of images in `trained_on` (eight characters each)."""
        return len(self.trained_on) // 8


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """Everything a model needs besides its tensors; stored in the weights file.

    classes: names in the order of the head's outputs; empty if there is no head or the names are
    unknown. untrained: parts with untrained weights ("head"); they are never used for predictions.
    task: whether outputs are logits of one class ("single"), of each class on its own ("multi"), or numbers, which are
    output · std + mean. temperature: what calibrated predictions divide the logits by; None if it was not fitted.
    thresholds: of "multi", from which probability on each class is present with the best F1 on held-out images; empty if
    they were not chosen.
    decoder: of a masked autoencoder, whose tensors are then in the file too.
    Raises: CheckpointError if the parts contradict each other.
    """

    config: ViTConfig
    preprocess: Preprocess
    classes: tuple[str, ...] = ()
    untrained: tuple[str, ...] = ()
    provenance: Provenance = field(default_factory=Provenance)
    temperature: float | None = None
    task: TaskKind = "single"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    thresholds: tuple[float, ...] = ()
    decoder: DecoderConfig | None = None

    def __post_init__(self) -> None:
        _check_temperature(self.temperature)
        _check_scale(self)
        _check_thresholds(self)
        _check_classes(self.classes, self.config.head.num_classes)
        if self.preprocess.in_channels != self.config.image.channels:
            raise CheckpointError(
                f"the card's preprocess gives {plural(self.preprocess.in_channels, 'channel')}, "
                f"but its model takes {self.config.image.channels}",
                "write the file again with the same number in both",
            )


def broken_notes(provenance: Provenance) -> tuple[str, ...]:
    """A warning for weights from a run that diverged; empty for others."""
    why = provenance.facts.get(BROKEN)
    return (f"these weights are from a training run that diverged: {why}",) if why else ()


def _check_classes(classes: tuple[str, ...], num_classes: int) -> None:
    if classes and len(classes) != num_classes:
        raise CheckpointError(
            f"the card lists {plural(len(classes), 'class', 'classes')}, but the model's head has {num_classes}",
            "list every class once, in the order of the head",
        )
    twice = [name for name, count in Counter(classes).items() if count > 1]
    if twice:
        raise CheckpointError(
            f"the card lists {plural(len(twice), 'class', 'classes')} more than once: {', '.join(map(repr, twice[:3]))}",
            "give each class a unique name",
        )


def _check_scale(card: ModelCard) -> None:
    wanted = card.config.head.num_classes if card.task == "number" else 0
    if card.task not in ("single", "multi", "number") or not len(card.mean) == len(card.std) == wanted:
        raise CheckpointError(
            f"the card's task is {card.task!r} with {len(card.mean)} means and {len(card.std)} deviations",
            "download the file again, or update patchword",
        )
    numbers = all(
        isinstance(value, int | float) and math.isfinite(value) for value in (*card.mean, *card.std)
    )
    if not numbers or not all(value > 0 for value in card.std):
        raise CheckpointError("the card's mean or std is not a finite number", "download the file again")


def _check_thresholds(card: ModelCard) -> None:
    if not card.thresholds:
        return
    if card.task != "multi" or len(card.thresholds) != card.config.head.num_classes:
        raise CheckpointError(
            f"the card has {plural(len(card.thresholds), 'threshold')}, but its model of task {card.task!r} has "
            f"{plural(card.config.head.num_classes, 'output')}",
            "give one threshold for each class of a model of several classes, or none",
        )
    for value in card.thresholds:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise CheckpointError(
                f"the card's thresholds have {value!r}", "use probabilities from 0 to 1, or remove them"
            )


def _check_temperature(value: object) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is not None and not (is_number and 0 < value < math.inf):  # type: ignore[operator]
        raise CheckpointError(
            f"the card's temperature is {value!r}", "use a positive number, or remove it from the card"
        )


def encoder_only(card: ModelCard, tensors: Mapping[str, T]) -> tuple[ModelCard, dict[str, T]]:
    """The same model without its decoder."""
    if card.decoder is None:
        return card, dict(tensors)
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(DECODER)}
    return replace(card, decoder=None), kept


def decoders_of(card: ModelCard, tensors: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the decoder's tensors in a file that patchword wrote."""
    return () if card.decoder is None else tuple(name for name in tensors if name.startswith(DECODER))


def card_to_json(card: ModelCard) -> str:
    plain = {"version": CARD_VERSION, **to_plain(card)}
    if card.decoder is None:
        del plain["decoder"]
    if not card.thresholds:
        del plain["thresholds"]
    if (
        card.decoder is None and not card.thresholds
    ):  # without what a version added, older ones can read the file too
        plain["version"] = _WITHOUT_DECODER_OR_THRESHOLDS
        if card.task == "single":
            plain = {name: part for name, part in plain.items() if name not in _TASK}
            plain["version"] = _WITHOUT_TASK
            if card.temperature is None:
                plain["version"] = _WITHOUT_TEMPERATURE
                del plain["temperature"]
    return to_json(plain, allow_nan=False, separators=(",", ":"))


def card_from_json(text: str, name: str) -> ModelCard:
    """Parse the card in `text`; `name` is the file's name, for messages.

    Raises: CheckpointError if the text is not a card, is from a newer patchword, or contradicts itself.
    """
    plain = parse_card(text, name, ("config", "preprocess"), _PARTS)
    try:
        return ModelCard(
            config=from_plain(ViTConfig, plain["config"], "its config"),
            preprocess=from_plain(Preprocess, plain["preprocess"], "its preprocess"),
            classes=_names(plain, "classes", name),
            untrained=_names(plain, "untrained", name),
            provenance=provenance_of(plain.get("provenance", {})),
            temperature=plain.get("temperature"),
            task=plain.get("task", "single"),
            mean=tuple(plain.get("mean", ())),
            std=tuple(plain.get("std", ())),
            thresholds=tuple(plain.get("thresholds", ())),
            decoder=_decoder(plain.get("decoder")),
        )
    except SettingsError as error:
        raise CheckpointError(
            f"{name}: its card cannot be read: {error.message}",
            "update patchword if a newer version wrote the file; otherwise download it again",
        ) from error
    except CheckpointError as error:
        raise CheckpointError(f"{name}: {error.message}", error.fix) from error


def parse_card(text: str, name: str, needed: Sequence[str], known: Sequence[str]) -> dict[str, Any]:
    """The parts of a card. needed: those that are tables and must be there. known: the others.

    Raises: CheckpointError, also for a detector's card where a model's is read, and the other way round.
    """
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{name}: its card is not valid JSON ({error})", "download the file again"
        ) from error
    plain: dict[str, Any] = parsed if isinstance(parsed, dict) else {}
    version = plain.get("version")
    if not isinstance(version, int):
        raise CheckpointError(f"{name}: its card has no version", "download the file again")
    newest = max(CARD_VERSION, DETECTOR_VERSION)
    if version > newest:
        raise CheckpointError(
            f"{name}: its card has version {version}, but this patchword reads up to {newest}",
            "update patchword",
        )
    is_detector, wants_detector = "detector" in plain, "detector" in needed
    if is_detector and not wants_detector:
        raise CheckpointError(
            f"{name}: it is a detector, which has no classes of whole images", "read it with load_detector"
        )
    if wants_detector and not is_detector:
        raise CheckpointError(
            f"{name}: a patchword file without boxes", "give a detector's file; load(PATH) reads this one"
        )
    missing = [part for part in needed if not isinstance(plain.get(part), dict)]
    unknown = [part for part in plain if part not in ("version", *needed, *known)]
    if missing or unknown:
        what = f"lacks {', '.join(missing)}" if missing else f"has unknown parts: {', '.join(unknown)}"
        raise CheckpointError(f"{name}: its card {what}", "download the file again, or update patchword")
    return plain


def _decoder(plain: Any) -> DecoderConfig | None:
    return None if plain is None else from_plain(DecoderConfig, plain, "its decoder")


def _names(plain: Mapping[str, Any], part: str, name: str) -> tuple[str, ...]:
    names = plain.get(part, [])
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        raise CheckpointError(f"the card's {part} are not a list of names", "download the file again")
    return tuple(names)


def provenance_of(plain: Any) -> Provenance:
    """Unknown entries become facts: provenance must never prevent a file from loading."""
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
