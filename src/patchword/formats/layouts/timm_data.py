"""Read and write timm's preprocessing (`pretrained_cfg`) and class names.

scale = floor(size / crop_pct); "center": resize the shorter side to scale, crop the centre; "squash": resize
both sides; "border": resize the longer side, pad with the mean. timm ignores EXIF orientation.
"""

import json
import math
from collections.abc import Mapping
from typing import Any, get_args

from patchword.errors import CheckpointError
from patchword.formats.checkpoint import Checkpoint
from patchword.formats.facts import Facts, Inferred
from patchword.formats.layouts.timm_facts import Size, TimmArchitecture, table
from patchword.formats.layouts.timm_write import Target
from patchword.images.geometry import Border, Cover, ResizeRule, Shorter, Squash
from patchword.images.preprocess import Interpolation, Preprocess, Reading
from patchword.images.preprocess import Resample as PixelResample
from patchword.model.config import ViTConfig
from patchword.weights.card import ModelCard


def preprocess_of(config: ViTConfig, known: TimmArchitecture, facts: Facts) -> Preprocess:
    """Raises: CheckpointError for an invalid data config."""
    source = f"{known.evidence}: pretrained_cfg" if known.data else Inferred("timm's default for ViTs")
    own = known.argument("img_size")
    size = config.image.size
    if own[0] is None or own[1] != known.evidence:
        size = known.input_size() or size
    given = {**table()["data"], **known.data}
    prepared = _prepared(given, size, config.image.channels, known)
    if not known.data and facts.options.mean is None:
        return facts.preprocess((None, ""), (prepared, source))
    return facts.preprocess((prepared, source), (None, ""))


def _prepared(data: Mapping[str, Any], size: Size, channels: int, known: TimmArchitecture) -> Preprocess:
    crop = data["crop_pct"]
    if isinstance(crop, bool) or not isinstance(crop, int | float) or not 0 < crop <= 4:
        raise known.wrong("crop_pct", crop, "a fraction between 0 and 1")
    scale = (math.floor(size[0] / crop), math.floor(size[1] / crop))
    interpolation = data["interpolation"]
    if interpolation not in get_args(Interpolation):
        raise known.wrong("interpolation", interpolation, " or ".join(get_args(Interpolation)))
    return Preprocess(
        image_size=size,
        resize=_rule(data["crop_mode"], scale, known),
        in_channels=channels,
        resample=PixelResample(interpolation=interpolation),
        mean=_per_channel("mean", data["mean"], channels, known),
        std=_per_channel("std", data["std"], channels, known),
        reading=Reading(apply_exif=False),
    )


def _rule(mode: Any, scale: Size, known: TimmArchitecture) -> ResizeRule:
    if mode == "squash":
        return Squash(size=scale)
    if mode == "border":
        return Border(size=scale)
    if mode == "center":
        return Shorter(size=scale[0]) if scale[0] == scale[1] else Cover(size=scale)
    raise known.wrong("crop_mode", mode, "center, squash or border")


def _per_channel(name: str, values: Any, channels: int, known: TimmArchitecture) -> tuple[float, ...]:
    numbers = isinstance(values, list | tuple) and all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in values
    )
    if not numbers or not values:
        raise known.wrong(name, values, "one number per channel")
    if len(values) not in (1, channels):  # timm's RGB means with a model of other channels
        return (sum(map(float, values)) / len(values),)
    return tuple(map(float, values))


def _numbered(names: Mapping[Any, Any], count: int) -> Any:
    """Names in the order of the outputs; timm writes the index for an output without a name."""
    found = {int(key): name for key, name in names.items() if str(key).isdecimal()}
    if len(found) != len(names) or not all(key < count for key in found):
        return names
    return [found.get(number, str(number)) for number in range(count)]


def _count(names: Any) -> str:
    return str(len(names)) if isinstance(names, list | tuple | Mapping) else repr(names)


def classes_of(checkpoint: Checkpoint, count: int) -> tuple[str, ...]:
    """The names of the head's outputs, replaced by their descriptions if these are unique."""
    config = checkpoint.config_json
    given = config.get("pretrained_cfg")
    data = given if isinstance(given, Mapping) else {}
    names = config.get("label_names") or data.get("label_names") or config.get("labels")  # before timm 0.9
    if not names or not count:
        return ()
    if isinstance(names, Mapping):
        names = _numbered(names, count)
    if not isinstance(names, list | tuple) or len(names) != count:
        raise CheckpointError(
            f"{checkpoint.name}: config.json has {_count(names)} labels, but the head has {count} outputs",
            "use the config.json that belongs to these weights",
        )
    words = config.get("label_descriptions") or data.get("label_descriptions")
    if isinstance(words, Mapping):
        described = [str(words.get(str(name), name)) for name in names]
        if len(set(described)) == len(described):
            return tuple(described)
    return tuple(str(name) for name in names)


# config.json --------------------------------------------------------------------------------


def config_json(card: ModelCard, found: Target) -> bytes:
    """config.json as timm's `save_for_hf` writes it."""
    count = card.config.head.num_classes
    written: dict[str, Any] = {
        "architecture": found.architecture,
        "num_classes": count,
        "num_features": card.config.dim,
        "global_pool": found.args["global_pool"],
        "model_args": dict(found.args),
        "pretrained_cfg": {
            **data_config(card.preprocess),
            "num_classes": count,
            "first_conv": "embeds.proj" if found.kind == "NaFlexVit" else "patch_embed.proj",
            "classifier": ["head", "head_dist"] if card.config.head.distilled else "head",
        },
    }
    if found.kind == "NaFlexVit":
        written["model_args"].pop("img_size")
        written["pretrained_cfg"]["fixed_input_size"] = False
    if card.classes:
        written["label_names"] = list(card.classes)
    if card.provenance.licence:
        written["pretrained_cfg"]["license"] = card.provenance.licence
    return (json.dumps(written, indent=2) + "\n").encode()


def data_config(preprocess: Preprocess) -> dict[str, Any]:
    """The closest equivalent that timm's evaluation supports; its crop_pct gives back exactly the same size."""
    size, rule = preprocess.image_size, preprocess.resize
    modes = {Squash: "squash", Border: "border"}
    scale = rule.size if isinstance(rule, Squash | Border | Cover) else size
    if isinstance(rule, Shorter):
        scale = (rule.size, rule.size)
    channels = preprocess.in_channels
    interpolation = preprocess.resample.interpolation
    return {
        "input_size": [channels, *size],
        "fixed_input_size": True,
        "interpolation": "bilinear" if interpolation == "area" else interpolation,
        "crop_pct": _share(min(size), min(scale)),
        "crop_mode": modes.get(type(rule), "center"),
        "mean": list(preprocess.mean if len(preprocess.mean) == channels else preprocess.mean * channels),
        "std": list(preprocess.std if len(preprocess.std) == channels else preprocess.std * channels),
    }


def _share(size: int, scale: int) -> float:
    """A crop_pct for which floor(size / crop_pct) = scale, with few digits if possible."""
    for digits in range(1, 9):
        share = round(size / scale, digits)
        if share > 0 and math.floor(size / share) == scale:
            return share
    return size / (scale + 0.5)
