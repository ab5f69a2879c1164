"""Read and write transformers' `config.json`.

A missing value means the default of its class, which differs between classes. A value of the wrong
type, or one that contradicts the tensors, is an error that reports both.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from patchword.errors import CheckpointError
from patchword.formats.checkpoint import Checkpoint
from patchword.weights.card import ModelCard

Size = tuple[int, int]
CONFIG = "config.json"
# hidden_act of transformers → ours. All "gelu_tanh" entries are the same formula.
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
    "relu6": "relu6",
    "leaky_relu": "leaky_relu",
    "hardswish": "hard_swish",
    "mish": "mish",
    "sigmoid": "sigmoid",
    "tanh": "tanh",
}
_WRITTEN = {"gelu_tanh": "gelu_pytorch_tanh", "hard_swish": "hardswish"}


@dataclass(frozen=True)
class JsonConfig:
    """One JSON object. name: the checkpoint's name. where: the file and the part of it. Both are for messages."""

    name: str
    values: Mapping[str, Any] = field(default_factory=dict)
    where: str = CONFIG

    def part(self, key: str) -> "JsonConfig":
        """A nested object, empty if there is none."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, Mapping):
            raise self.wrong(key, "an object")
        return JsonConfig(self.name, value or {}, f"{self.where}: {key}")

    def whole(self, key: str) -> int | None:
        value = self.values.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise self.wrong(key, "an integer")
        return value

    def number(self, key: str) -> float | None:
        value = self.values.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.wrong(key, "a number")
        return float(value)

    def flag(self, key: str) -> bool | None:
        value = self.values.get(key)
        if value is not None and not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value

    def text(self, key: str) -> str | None:
        value = self.values.get(key)
        if value is not None and not isinstance(value, str):
            raise self.wrong(key, "a string")
        return value

    def size(self, key: str) -> Size | None:
        """Parse a number (a square), [h, w], or {"height", "width"}."""
        value = self.values.get(key)
        if isinstance(value, Mapping):
            value = [value.get("height"), value.get("width")]
        if value is None:
            return None
        sides: list[Any] = value if isinstance(value, list) else [value, value]
        if len(sides) != 2 or any(isinstance(s, bool) or not isinstance(s, int) or s < 1 for s in sides):
            raise self.wrong(key, "an integer or [height, width]")
        return sides[0], sides[1]

    def activation(self, key: str = "hidden_act") -> str | None:
        stated = self.text(key)
        if stated is not None and stated not in ACTIVATIONS:
            raise self.wrong(key, f"one of {', '.join(ACTIVATIONS)}")
        return None if stated is None else ACTIVATIONS[stated]

    def agrees(self, key: str, found: int, tensor: str) -> None:
        """Raises: CheckpointError if the file contradicts a tensor."""
        stated = self.whole(key)
        if stated is not None and stated != found:
            raise CheckpointError(
                f"{self.name}: {key} is {stated} in {self.where}, but {found} according to {tensor}",
                "use config.json and weights from the same model",
            )

    def wrong(self, key: str, wanted: str) -> CheckpointError:
        return CheckpointError(
            f"{self.name}: {self.where} has {key} = {self.values.get(key)!r}, which is not {wanted}",
            "download the config again, or fix it",
        )


def config_of(checkpoint: Checkpoint) -> JsonConfig:
    return JsonConfig(checkpoint.name, checkpoint.config_json)


def model_type(checkpoint: Checkpoint) -> str | None:
    found = checkpoint.config_json.get("model_type")
    return found if isinstance(found, str) else None


def classes_of(declared: JsonConfig, count: int) -> tuple[str, ...]:
    """The class names of `id2label`, ignoring LABEL_0, LABEL_1… Duplicate names get their index appended.

    (Published ImageNet lists have "crane" twice.)
    Raises: CheckpointError if their number differs from the head's outputs.
    """
    labels = declared.part("id2label").values
    if not labels or not count or all(re.fullmatch(r"LABEL_\d+", str(v)) for v in labels.values()):
        return ()
    if set(map(str, labels)) != {str(i) for i in range(count)}:
        raise CheckpointError(
            f"{declared.name}: {declared.where} has {len(labels)} classes, but the head has {count}",
            "use config.json and weights from the same model",
        )
    names = {int(key): str(value) for key, value in labels.items()}
    counts = Counter(names.values())
    return tuple(f"{names[i]} ({i})" if counts[names[i]] > 1 else names[i] for i in range(count))


# Writing -----------------------------------------------------------------------------------


def side(size: Size) -> int | list[int]:
    return size[0] if size[0] == size[1] else list(size)


def labels(card: ModelCard) -> dict[str, Any]:
    """id2label and label2id; without class names, transformers' own LABEL_0…, which define their number."""
    count = card.config.head.num_classes
    if not count:
        return {}
    names = card.classes or tuple(f"LABEL_{i}" for i in range(count))
    return {
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
    }


def activation_word(activation: str) -> str:
    """The name of an activation in transformers."""
    return _WRITTEN.get(activation, activation)


def sizes(card: ModelCard) -> dict[str, Any]:
    """Config keys that most classes share."""
    config = card.config
    return {
        "hidden_size": config.dim,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.attention.num_heads,
        "intermediate_size": config.mlp_dim,
        "hidden_act": activation_word(config.mlp.activation),
        "layer_norm_eps": config.norm.eps,
        "image_size": side(config.image.size),
        "patch_size": side(config.patch.size),
        "num_channels": config.image.channels,
    }


def written(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(values, indent=2, ensure_ascii=False, sort_keys=True) + "\n").encode()
