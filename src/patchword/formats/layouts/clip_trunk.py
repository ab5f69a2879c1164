"""open_clip's models with a timm image tower (SigLIP): timm's names under `visual.trunk.`, plus a head.

Source: open_clip `timm_model.py`. Only the image tower is written; open_clip also needs the text tower and its config.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from patchword.errors import CheckpointError
from patchword.formats.checkpoint import Checkpoint
from patchword.formats.facts import Facts
from patchword.formats.layout import Description, Ignored, Layout, Rule, rule
from patchword.formats.layouts.clip import CONFIG, TEXT, preprocess_cfg
from patchword.formats.layouts.timm import Timm
from patchword.model.config import ViTConfig
from patchword.weights.card import ModelCard

TRUNK = "visual.trunk."
PROJECTION = "visual.head.proj.weight"


class OpenClipTrunk(Layout):
    name = "open_clip-timm"
    title = "open_clip with a timm trunk"
    file_name = "open_clip_model.safetensors"

    def __init__(self) -> None:
        self.timm = Timm()

    def recognise(self, checkpoint: Checkpoint) -> str | None:
        vit = checkpoint.has(f"{TRUNK}patch_embed.proj.weight", f"{TRUNK}blocks.0.norm1.weight")
        return f"tensors under {TRUNK}" if vit else None

    def describe(self, checkpoint: Checkpoint, facts: Facts) -> Description:
        self._refuse(checkpoint)
        inner = self.timm.describe(_trunk(checkpoint), facts)
        config = inner.config
        if checkpoint.has(PROJECTION):
            config = replace(config, head=replace(config.head, projection=checkpoint.shape(PROJECTION)[0]))
        declared = preprocess_cfg(config, checkpoint.configs.get(CONFIG, {}).get("preprocess_cfg", {}))
        preprocess = facts.preprocess(
            (declared, f"{CONFIG}: preprocess_cfg"),
            (inner.preprocess, "timm's data config for this architecture"),
        )
        return replace(inner, config=config, preprocess=preprocess)

    def _refuse(self, checkpoint: Checkpoint) -> None:
        odd = [n for n in checkpoint.under("visual.head.") if n != PROJECTION]
        if odd:
            raise CheckpointError(
                f"{checkpoint.name}: its projection is not a single matrix ({odd[0]})",
                "load this model with open_clip",
            )

    def spelling(self, card: ModelCard) -> Mapping[str, Any]:
        return self.timm.spelling(replace(card, config=_without_projection(card.config)))

    def rules(self, description: Description) -> Iterable[Rule | Ignored]:
        config = description.config
        for part in self.timm.rules(replace(description, config=_without_projection(config))):
            if isinstance(part, Ignored):
                yield Ignored(f"{TRUNK.replace('.', '[.]')}({part.pattern})", part.reason)
            else:
                yield Rule(tuple(TRUNK + name for name in part.theirs), part.ours, part.op)
        if config.head.projection:
            yield rule(PROJECTION, "projection.weight")
        yield from TEXT


def _without_projection(config: ViTConfig) -> ViTConfig:
    return replace(config, head=replace(config.head, projection=0, projection_bias=False))


def _trunk(checkpoint: Checkpoint) -> Checkpoint:
    """The trunk in timm's own format, under the architecture name in open_clip's config."""
    tensors = {n.removeprefix(TRUNK): e for n, e in checkpoint.tensors.items() if n.startswith(TRUNK)}
    model = checkpoint.configs.get(CONFIG, {}).get("model_cfg", {})
    declared = model.get("vision_cfg", {}) if isinstance(model, dict) else {}
    configs = {}
    if isinstance(declared, dict) and isinstance(declared.get("timm_model_name"), str):
        config = {"architecture": declared["timm_model_name"], "global_pool": declared.get("timm_pool") or ""}
        configs["config.json"] = {key: value for key, value in config.items() if value}
    return replace(checkpoint, tensors=tensors, stored=replace(checkpoint.stored, configs=configs))
