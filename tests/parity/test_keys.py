"""Every published full-size checkpoint, by the names and shapes of its tensors: all of them find a home.

The model is built on the `meta` device and the rules are carried out there. PATCHWORD_KEYS
names a folder of more such lists; a few are committed.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from patchword.checkpoints.facts import Options
from patchword.checkpoints.layout import Drop
from patchword.checkpoints.read import understand
from patchword.checkpoints.stored import Entry, Stored
from patchword.errors import UnknownLayout
from patchword.model.vit import ViT

COMMITTED = Path(__file__).parents[1] / "data" / "parity" / "keys"
FOLDERS = [COMMITTED] + [Path(named) for named in [os.environ.get("PATCHWORD_KEYS")] if named]
KEYS = {file.stem: file for folder in reversed(FOLDERS) for file in sorted(folder.glob("*.json"))}
# Told by name and not read: the word in the name of the list, the word in the message.
REFUSED = {"detr": "detector", "yolos": "detector", "samvit": "SAM's image encoder"}


def stored_of(listed: Mapping[str, Any]) -> Stored:
    container = "npz" if listed["origin"] == "google" else "torch"
    entries = {
        name: Entry(dtype="F32", shape=tuple(shape), file=Path("listed"), offset=0)
        for name, shape in listed["tensors"].items()
    }
    return Stored(
        path=Path(listed["name"]), container=container, tree=entries, files=(), configs=configs_of(listed)
    )


def configs_of(listed: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The least of what is published beside such a file: which class it is of."""
    config = listed.get("config", {})
    match listed["origin"]:
        case "timm":
            return {"config.json": {"architecture": config["architecture"], "global_pool": config["pool"]}}
        case "transformers":
            return {"config.json": {"model_type": config["model_type"], "architectures": [config["class"]]}}
        case "open_clip":
            model = {name: part for name, part in config.items() if name != "wrapper"}
            return {"open_clip_config.json": {"model_cfg": model}}
    return {}


def options_of(listed: Mapping[str, Any]) -> Options:
    """The size of the images, where positions are a formula and no file has it."""
    no_table = not any("pos" in name and "embed" in name for name in listed["tensors"])
    if listed["origin"] in ("lucidrains", "google") and no_table:
        return Options(image_size=(224, 224))
    return Options()


@pytest.mark.parametrize("file", KEYS.values(), ids=KEYS.keys())
def test_every_tensor_finds_a_home(file: Path) -> None:
    listed = json.loads(file.read_text(encoding="utf-8"))
    refused = next((said for word, said in REFUSED.items() if word in file.stem), None)
    if refused is not None:
        with pytest.raises(UnknownLayout, match=refused):
            understand(stored_of(listed), options_of(listed))
        return
    opened = understand(stored_of(listed), options_of(listed))
    assert opened.report.filled == 1 and not opened.report.new
    with torch.device("meta"):
        expected = {name: tuple(t.shape) for name, t in ViT(opened.card.config).state_dict().items()}
        got: dict[str, tuple[int, ...]] = {}
        for rule in opened.plan.rules:
            theirs = [torch.empty(opened.checkpoint.shape(name)) for name in rule.theirs]
            ours = rule.op.read(theirs, [opened.plan.shapes[name] for name in rule.ours])
            got |= {name: tuple(t.shape) for name, t in zip(rule.ours, ours, strict=True)}
    assert got == expected
    named = {name for rule in opened.plan.rules for name in rule.theirs}
    drops = [p for p in opened.layout.rules(opened.description) if isinstance(p, Drop)]
    assert all(name in named or any(d.names(name) for d in drops) for name in opened.checkpoint.tensors)
