"""patchword: plain Vision Transformers, end to end, as a library and a command.

    import patchword as pw
    model = pw.load("runs/demo")
    model.predict("photo.jpg").top(3)
    run = pw.train("flowers/", out="runs/flowers")

Names are imported on first use, so `import patchword` is fast.
"""

import importlib
from typing import Any

_PLACES = {
    "Detections": "patchword.inference.detections",
    "Detector": "patchword.inference.detector",
    "Index": "patchword.retrieval.index",
    "MAE": "patchword.model.mae",
    "Model": "patchword.inference.model",
    "Options": "patchword.formats.facts",
    "PatchwordError": "patchword.errors",
    "Prediction": "patchword.inference.prediction",
    "Preprocess": "patchword.images.preprocess",
    "ViT": "patchword.model.vit",
    "ViTConfig": "patchword.model.config",
    "adapt": "patchword.api",
    "check": "patchword.api",
    "compare": "patchword.api_compare",
    "convert": "patchword.api",
    "diagnose": "patchword.api_diagnose",
    "evaluate": "patchword.api",
    "explain": "patchword.api_explain",
    "explain_detector": "patchword.api_explain",
    "inspect": "patchword.api",
    "learn": "patchword.api_learn",
    "load": "patchword.api_load",
    "load_detector": "patchword.api_load",
    "load_mae": "patchword.api_load",
    "plan": "patchword.api_plan",
    "pretrain": "patchword.api_pretrain",
    "score": "patchword.inference.score",
    "search": "patchword.api_search",
    "sized": "patchword.model.sizes",
    "reconstruct": "patchword.api_explain",
    "redundancy": "patchword.api_explain",
    "resume": "patchword.api",
    "train": "patchword.api",
}

__all__ = sorted(_PLACES)


def place_of(name: str) -> str:
    """Where a public name is defined: "patchword.api.train"."""
    return f"{_PLACES[name]}.{name}"


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'patchword' has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return __all__
