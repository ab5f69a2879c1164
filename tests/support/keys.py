"""The names and shapes of a published checkpoint, as a file that is listed: no values, nothing downloaded."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from patchword.containers.stored import Entry, Stored
from patchword.formats.facts import Options
from patchword.formats.layout import Ignored
from patchword.formats.read import Opened, resolve
from patchword.model.mae import MAE
from patchword.model.vit import ViT
from patchword.weights.card import ModelCard

# JsonConfig by name and not read: the word in the name of the list, the word in the message.
REFUSED = {"detr": "detector", "yolos": "detector", "samvit": "SAM's image encoder"}


def folders() -> list[Path]:
    """The committed lists, then those that PATCHWORD_KEYS names, or that lie beside the folder of PATCHWORD_CASES."""
    committed = Path(__file__).parents[1] / "data" / "parity" / "keys"
    named = os.environ.get("PATCHWORD_KEYS")
    cases = os.environ.get("PATCHWORD_CASES")
    more = Path(named) if named else Path(cases).parent / "keys" if cases else None
    return [committed] + ([more] if more is not None and more.is_dir() else [])


def lists_in(folders: list[Path]) -> dict[str, Path]:
    """Each list once, by name, the first folder first."""
    return {file.stem: file for folder in reversed(folders) for file in sorted(folder.glob("*.json"))}


def refused(file: Path) -> str | None:
    """The word in the message that refuses this model, None for those that are read."""
    return next((said for word, said in REFUSED.items() if word in file.stem), None)


def opened(file: Path) -> Opened:
    """Raises: CheckpointError where a tensor has no home, or one is missing."""
    listed = json.loads(file.read_text(encoding="utf-8"))
    return resolve(stored_of(listed), options_of(listed))


def unmapped(found: Opened) -> list[str]:
    """Tensors of the built model that the rules do not give in their shape, and tensors of the file without a home."""
    with torch.device("meta"):
        expected = {name: tuple(t.shape) for name, t in built(found.card).items()}
        got: dict[str, tuple[int, ...]] = {}
        for rule in found.plan.rules:
            theirs = [torch.empty(found.checkpoint.shape(name)) for name in rule.theirs]
            ours = rule.op.read(theirs, [found.plan.shapes[name] for name in rule.ours])
            got |= {name: tuple(t.shape) for name, t in zip(rule.ours, ours, strict=True)}
    wrong = [name for name in expected.keys() | got.keys() if expected.get(name) != got.get(name)]
    named = {name for rule in found.plan.rules for name in rule.theirs}
    drops = [part for part in found.layout.rules(found.description) if isinstance(part, Ignored)]
    homeless = [n for n in found.checkpoint.tensors if n not in named and not any(d.names(n) for d in drops)]
    return wrong + homeless


def built(card: ModelCard) -> dict[str, Tensor]:
    """The state dict of the card's model: a ViT, or encoder and decoder."""
    vit = ViT(card.config)
    if card.decoder is None:
        return vit.state_dict()
    return {name.removeprefix("vit."): tensor for name, tensor in MAE(vit, card.decoder).state_dict().items()}


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
    """What no tensor says: the size of the images, where positions are a formula, and what a decoder predicts."""
    no_table = not any("pos" in name and "embed" in name for name in listed["tensors"])
    if listed["origin"] in ("lucidrains", "google") and no_table:
        return Options(image_size=(224, 224))
    # The published file's name, which says what its decoder predicts, is not in the list.
    return Options(norm_pix_loss=False if "decoder_embed.weight" in listed["tensors"] else None)
