"""The card of a detector: architecture, preprocessing, classes with their own numbers, and provenance. In our own file, it
takes the place of a model's card."""

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from patchword.errors import CheckpointError, SettingsError, plural
from patchword.images.preprocess import Preprocess
from patchword.model.detr.config import DetrConfig
from patchword.model.vitdet.config import VitDetConfig
from patchword.model.yolos_config import YolosConfig
from patchword.settings import from_plain, to_json, to_plain
from patchword.weights.card import DETECTOR_VERSION, Provenance, parse_card, provenance_of

# What to do instead of loading a detector as a classifier.
LOAD_DETECTOR = "use it with `patchword predict`, `evaluate`, `explain` or `convert`, or load it with patchword.load_detector(PATH)"
DetectorConfig = DetrConfig | YolosConfig | VitDetConfig


class DetectionClass(NamedTuple):
    """What one output of the class head stands for.

    id: the category's number in the data that the model was trained on. name: "" if no file states it.
    """

    id: int
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class DetectorCard:
    """Everything a detector needs besides its tensors. classes: one for each output but "no object".

    Raises: CheckpointError if the parts contradict each other.
    """

    config: DetectorConfig
    preprocess: Preprocess
    classes: tuple[DetectionClass, ...]
    provenance: Provenance = field(default_factory=Provenance)

    def __post_init__(self) -> None:
        if len(self.classes) != self.config.num_classes:
            raise CheckpointError(
                f"the detector has {self.config.num_classes} classes, but {len(self.classes)} are listed",
                "list every class once, in the order of the head",
            )
        twice = [number for number, count in Counter(c.id for c in self.classes).items() if count > 1]
        if twice:
            raise CheckpointError(
                f"two classes of the detector have the number {twice[0]}", "give each class its own number"
            )


@dataclass(frozen=True, kw_only=True)
class _Config:
    """The config with its kind, as the settings read a choice of several."""

    detector: DetectorConfig


def detector_card_to_json(card: DetectorCard) -> str:
    plain = {
        "version": DETECTOR_VERSION,
        **to_plain(_Config(detector=card.config)),
        "preprocess": to_plain(card.preprocess),
        "classes": [list(one) for one in card.classes],
        "provenance": to_plain(card.provenance),
    }
    return to_json(plain, allow_nan=False, separators=(",", ":"))


def detector_card_from_json(text: str, name: str) -> DetectorCard:
    """Parse the card in `text`; `name` is the file's name, for messages.

    Raises: CheckpointError if the text is not the card of a detector, is from a newer patchword, or contradicts itself.
    """
    plain = parse_card(text, name, ("detector", "preprocess"), ("classes", "provenance"))
    try:
        return DetectorCard(
            config=from_plain(_Config, {"detector": plain["detector"]}, "its config").detector,
            preprocess=from_plain(Preprocess, plain["preprocess"], "its preprocess"),
            classes=_classes(plain.get("classes")),
            provenance=provenance_of(plain.get("provenance", {})),
        )
    except SettingsError as error:
        raise CheckpointError(
            f"{name}: its card cannot be read: {error.message}",
            "update patchword if a newer version wrote the file; otherwise download it again",
        ) from error
    except CheckpointError as error:
        raise CheckpointError(f"{name}: {error.message}", error.fix) from error


def is_detector_card(text: str) -> bool:
    """Whether a card in our own file is that of a detector; False for text that is no card."""
    try:
        plain = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(plain, dict) and "detector" in plain


def _classes(plain: Any) -> tuple[DetectionClass, ...]:
    if not isinstance(plain, list) or not all(_is_class(one) for one in plain):
        raise CheckpointError(
            "the card's classes are not pairs of number and name", "download the file again"
        )
    if not plain:
        raise CheckpointError(f"the card lists {plural(0, 'class', 'classes')}", "download the file again")
    return tuple(DetectionClass(number, name) for number, name in plain)


def _is_class(one: Any) -> bool:
    return isinstance(one, list) and len(one) == 2 and type(one[0]) is int and isinstance(one[1], str)
