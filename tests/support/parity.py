"""A recorded case: its meta.json, its file loaded with its hints, and our outputs under the recorded names."""

import atexit
import functools
import json
import math
import os
import shutil
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from patchword.formats.facts import Options
from patchword.inference.load import load
from patchword.inference.load_mae import LoadedMAE, load_mae
from patchword.inference.model import Model
from patchword.model.kinds import JoinedPool
from patchword.model.positions.layout import AttentionPositions, TokenLayout
from patchword.model.vit import ViT

PACKED = Path(__file__).parents[1] / "data" / "parity" / "cases"


@dataclass(frozen=True)
class Case:
    folder: Path
    meta: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.meta["case"])

    @property
    def path(self) -> Path:
        return self.folder / self.meta["load"]

    def arrays(self) -> dict[str, NDArray[Any]]:
        with np.load(self.folder / "io.npz") as io:
            return dict(io)

    def load(self) -> Model:
        return load(self.path, device="cpu", options=options_of(self.meta["hints"], self.folder))

    def load_mae(self) -> LoadedMAE:
        options = options_of(self.meta["hints"], self.folder, decoder=True)
        return load_mae(self.path, device="cpu", options=options)


@functools.cache
def committed() -> Path:
    """The folder of the committed cases, unpacked for this process: packed they stay under 7 MB."""
    folder = Path(tempfile.mkdtemp(prefix="patchword-cases-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for packed in sorted(PACKED.glob("*.zip")):
        with zipfile.ZipFile(packed) as archive:
            archive.extractall(folder)
    return folder


def folders() -> list[Path]:
    """Where cases lie: the folder that PATCHWORD_CASES names, whose cases are whole, then the repository's."""
    named = os.environ.get("PATCHWORD_CASES")
    return [*([Path(named)] if named else []), committed()]


def cases_in(folders: list[Path], kinds: set[str]) -> list[Case]:
    """Each case once, by name, the first folder first."""
    found: dict[str, Case] = {}
    for folder in folders:
        for meta in sorted(folder.glob("*/meta.json")):
            case = Case(meta.parent, json.loads(meta.read_text(encoding="utf-8")))
            if case.meta["kind"] in kinds:
                found.setdefault(case.name, case)
    return list(found.values())


def options_of(hints: dict[str, Any], folder: Path, *, decoder: bool = False) -> Options:
    """A case's hints as the options a user would give. A hint that is not one of our options is an error.

    decoder: also those about MAE's decoder, which the encoder is read without.
    """
    said = dict(hints)
    for name in () if decoder else ("decoder_num_heads", "norm_pix_loss"):
        said.pop(name, None)
    for name in ("image_size", "patch_size"):
        if name in said:
            value = said[name]
            said[name] = (value, value) if isinstance(value, int) else (value[0], value[1])
    if "head" in said:
        said["head"] = folder / said["head"]
    return Options(**said)


# What an original records beside the names that have one meaning everywhere, for finding faults.
MORE = {"patches"}


def differences(case: Case, model: Model) -> dict[str, float]:
    """Return each recorded output's relative difference to ours; infinite if we have none of that name or shape."""
    arrays = case.arrays()
    apart = "head_input" in case.meta["outputs"]
    ours = answers(model, torch.from_numpy(arrays["image"]), recorded_apart=apart)
    if "logits_dist" in case.meta["outputs"] and "logits_cls" not in case.meta["outputs"]:
        # Recorded here: each head alone. The originals (timm, transformers) answer with their mean (tests/peers).
        ours["logits"] = ours["logits_cls"]
    compared = [name for name in case.meta["outputs"] if name not in MORE]
    return {n: difference(ours[n], arrays[n]) if n in ours else float("inf") for n in compared}


@torch.no_grad()
def answers(model: Model, image: Tensor, *, recorded_apart: bool = False) -> dict[str, Tensor]:
    """Return the backbone's outputs under the names of the recorded ones.

    recorded_apart: the original's head is a file of its own, so `embedding` is what the backbone
    pools without it, and `head_input` what the head reads.
    """
    vit = model.vit
    embedded, layout = vit.embed_tokens(image)
    places = vit.places(layout)
    found = {"embedded": embedded, "block_0": vit.blocks[0](embedded, places[0])}
    found["tokens"] = vit.forward_features(image)
    found |= _intermediate(vit, embedded, places, layout)
    found["embedding"] = found["head_input"] = vit.embed(image)
    if isinstance(vit.config.head.pool, JoinedPool) and recorded_apart:
        found["embedding"] = found["tokens"][:, 0]
    answer = vit(image)
    found["projected"] = answer
    if vit.head is not None:
        found["logits"] = answer
        heads = vit.logits_by_head(image)
        if "distillation" in heads:
            found |= {"logits_dist": heads["distillation"], "logits_cls": heads["class"]}
    return found


def _intermediate(
    vit: ViT, x: Tensor, places: list[AttentionPositions], layout: TokenLayout
) -> dict[str, Tensor]:
    """Every block's tokens through the final norm [L, B, N, D]; patches and class token apart, and rope's tables."""
    kept = []
    for block, place in zip(vit.blocks, places, strict=True):
        x = block(x, place)
        kept.append(vit.norm(x))
    every = torch.stack(kept)
    found = {"intermediate": every, "intermediate_patches": every[:, :, layout.num_prefix :]}
    if vit.config.tokens.class_token:
        found["intermediate_cls"] = every[:, :, 0]
    place = places[0]
    if place.cos is not None and place.sin is not None and not place.neighbours:
        # Ours carries the sign of the turned channel in its first half.
        behind = place.sin[layout.num_prefix :].chunk(2, -1)[1]
        found |= {"rope_cos": place.cos[layout.num_prefix :], "rope_sin": torch.cat((behind, behind), -1)}
    return found


def difference(ours: Tensor, theirs: NDArray[Any]) -> float:
    """max abs(a - b) / max abs(b), over the array."""
    ours_array = ours.double().numpy()
    if ours_array.shape != theirs.shape:
        return float("inf")
    found = float(np.abs(ours_array - theirs).max() / max(float(np.abs(theirs).max()), 1e-30))
    # Nothing compares as larger than "not a number".
    return float("inf") if math.isnan(found) else found
