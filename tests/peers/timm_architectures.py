"""timm's own words for its ViT architectures: what each name means, asked of the installed timm.

    python tests/peers/timm_architectures.py > src/patchword/formats/layouts/timm_architectures.json

Each constructor is stopped before it builds anything, so only its arguments are seen. Classes and
functions become "@Name", a partial ["@Name", {its arguments}].
"""

import dataclasses
import functools
import inspect
import json
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import timm
import torch
from timm.models import beit, deit, eva, naflexvit, vision_transformer, vision_transformer_relpos
from timm.models._registry import _model_to_module, _module_to_deprecated_models
from timm.models.resnetv2 import ResNetV2

CLASSES = (
    vision_transformer.VisionTransformer,
    deit.VisionTransformerDistilled,
    eva.Eva,
    beit.Beit,
    vision_transformer_relpos.VisionTransformerRelPos,
    naflexvit.NaFlexVit,
)
MODULES = (
    "vision_transformer",
    "vision_transformer_hybrid",
    "deit",
    "eva",
    "beit",
    "vision_transformer_relpos",
    "naflexvit",
)
# What the tensors themselves say.
SAID_BY_TENSORS = ("num_classes", "in_chans")
DATA = {
    "input_size": [3, 224, 224],
    "fixed_input_size": True,
    "interpolation": "bicubic",
    "crop_pct": 0.9,
    "crop_mode": "center",
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
}


class Stopped(Exception):
    def __init__(self, name: str, args: dict[str, Any]) -> None:
        super().__init__(name)
        self.name, self.constructor_args = name, args


def hybrid(embed: "functools.partial[Any]") -> str:
    """A hybrid's patches, by the units of its ResNet's stages; "root alone" where it has none."""
    backbone = embed.keywords["backbone"]
    if isinstance(backbone, ResNetV2):
        return "@HybridEmbed " + ",".join(str(len(stage.blocks)) for stage in backbone.stages)
    root = type(backbone) is torch.nn.Sequential and len(backbone) == 3 and "proj" not in embed.keywords
    return "@HybridEmbed root alone" if root else f"@HybridEmbed {type(backbone).__name__}"


def plain(value: Any) -> Any:
    if isinstance(value, functools.partial) and value.func.__name__ == "HybridEmbed":
        return hybrid(value)
    if isinstance(value, functools.partial):
        return [plain(value.func), plain(value.keywords)]
    if inspect.isclass(value) or inspect.isfunction(value):
        return f"@{value.__name__}"
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


def stopping(cls: type) -> Any:
    signature = inspect.signature(cls.__init__)

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        bound = signature.bind(self, *args, **kwargs).arguments
        bound.pop("self")
        raise Stopped(cls.__name__, {**bound, **bound.pop("kwargs", {})})

    init.__signature__ = signature  # type: ignore[attr-defined]
    return init


def arguments(name: str) -> tuple[str, dict[str, Any]] | None:
    """The class and what its constructor is called with, where that is not its default."""
    try:
        timm.create_model(name)
    except Stopped as stopped:
        found = dict(stopped.constructor_args)
        cfg = found.pop("cfg", None)
        if cfg is not None:
            default = type(cfg)()
            names = [field.name for field in dataclasses.fields(cfg)]
            found |= {n: getattr(cfg, n) for n in names if getattr(cfg, n) != getattr(default, n)}
        return stopped.name, {k: plain(v) for k, v in found.items() if k not in SAID_BY_TENSORS}
    return None


def data_of(name: str) -> dict[str, Any]:
    given = timm.get_pretrained_cfg(name)
    assert given is not None
    said = given.to_dict()
    return {k: plain(said[k]) for k, v in DATA.items() if said.get(k) is not None and plain(said[k]) != v}


def architectures() -> dict[str, dict[str, Any]]:
    originals = {cls: cls.__init__ for cls in CLASSES}
    found = {}
    try:
        for cls in CLASSES:
            cls.__init__ = stopping(cls)  # type: ignore[method-assign]
        for name in [n for module in MODULES for n in timm.list_models(module=module)]:
            asked = arguments(name)
            if asked is not None:
                found[name] = {"class": asked[0], "args": asked[1], "data": data_of(name)}
    finally:
        for cls, init in originals.items():
            cls.__init__ = init  # type: ignore[method-assign]
    for name in found:
        whole = found[name]["data"]
        tags = {tag.partition(".")[2]: data_of(tag) for tag in timm.list_pretrained(f"{name}.*")}
        found[name]["tags"] = {tag: data for tag, data in tags.items() if data != whole}
    return dict(sorted(found.items()))


def renamed() -> dict[str, str]:
    """Names of older releases, which timm still takes and training files of their time still say."""
    return {
        old: new for module in MODULES for old, new in _module_to_deprecated_models.get(module, {}).items()
    }


def others(known: Iterable[str]) -> dict[str, list[str]]:
    """timm's architectures that are not read, by module."""
    read, found = set(known), defaultdict(list)
    for name in timm.list_models():
        if name not in read:
            found[_model_to_module[name]].append(name)
    return dict(sorted(found.items()))


def table() -> str:
    """One architecture a line, so that a change of timm shows as the lines it touches."""
    known = architectures()
    lines = [f'  "{name}": {json.dumps(entry)}' for name, entry in known.items()]
    head = {"source": f"timm {timm.__version__}", "data": DATA, "renamed": renamed(), "others": others(known)}
    said = "".join(f' "{key}": {json.dumps(value)},\n' for key, value in head.items())
    return "{\n" + said + ' "architectures": {\n' + ",\n".join(lines) + "\n }\n}\n"


if __name__ == "__main__":
    print(table(), end="")
