"""timm's VisionTransformer, Eva, Beit, VisionTransformerRelPos and NaFlexVit files, in and out.

A hub folder with config.json, a training checkpoint, or a bare state dict that is named as timm
names the architecture, or whose tensors only timm names so. Checked against timm 1.0.31.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from patchword.checkpoints.card import ModelCard
from patchword.checkpoints.checkpoint import Checkpoint
from patchword.checkpoints.facts import Facts
from patchword.checkpoints.layout import Description, Drop, Layout, Rule
from patchword.checkpoints.layouts.timm_data import classes_of, config_json, preprocess_of
from patchword.checkpoints.layouts.timm_describe import Reading
from patchword.checkpoints.layouts.timm_facts import Known, known, table
from patchword.checkpoints.layouts.timm_restate import restated
from patchword.checkpoints.layouts.timm_rules import rules
from patchword.checkpoints.layouts.timm_write import target

if TYPE_CHECKING:
    from torch import Tensor

# Names that no other format has; the rest of timm's are shared with the originals that it grew from.
ONLY_TIMM = (
    "reg_token",
    "attn_pool.latent",
    "norm_pre.weight",
    "embeds.proj.weight",
    "blocks.0.mlp.fc1_g.weight",
    "blocks.0.attn.rel_pos.mlp.fc1.weight",
    "shared_rel_pos.mlp.fc1.weight",
    "rope.freqs",
)


def evidence(checkpoint: Checkpoint) -> str | None:
    """What makes a file timm's and nobody else's; None where nothing does. For the originals' layouts too."""
    if not checkpoint.has("blocks.0.norm1.weight"):
        return None
    if not (checkpoint.has("patch_embed.proj.weight") or checkpoint.has("embeds.proj.weight")):
        return None
    if (words := known(checkpoint)) is not None:
        return f"{words.evidence} names timm's {words.architecture}"
    found = next((name for name in ONLY_TIMM if checkpoint.has(name)), None)
    return None if found is None else f"only timm names a tensor {found}"


class Timm(Layout):
    name = "timm"
    title = "timm"

    def recognise(self, checkpoint: Checkpoint) -> str | None:
        return evidence(checkpoint)

    def describe(self, checkpoint: Checkpoint, facts: Facts) -> Description:
        words = known(checkpoint) or Known(name=checkpoint.name, evidence="its tensors", certain=False)
        if words.architecture:
            facts.say("architecture", words.architecture, words.evidence)
        config = Reading(checkpoint, facts, words).config()
        return Description(
            config=config,
            preprocess=preprocess_of(config, words, facts),
            classes=classes_of(checkpoint, config.head.num_classes),
            spelling=spelled(checkpoint, words),
            notes=_doubts(words),
        )

    def rules(self, description: Description) -> Iterable[Rule | Drop]:
        return rules(description.config, description.spelling)

    def restated(
        self, card: ModelCard, tensors: "Mapping[str, Tensor]"
    ) -> "tuple[ModelCard, Mapping[str, Tensor]]":
        config, tensors = restated(card.config, tensors)
        return replace(card, config=config), tensors

    def spelling(self, card: ModelCard) -> Mapping[str, Any]:
        return target(card.config, {}).spelling

    def beside(self, card: ModelCard, spelling: Mapping[str, Any]) -> Mapping[str, bytes]:
        return {"config.json": config_json(card, target(card.config, spelling))}


def _doubts(words: Known) -> tuple[str, ...]:
    if not words.architecture or words.kind:
        return ()
    return (
        f"{words.architecture} is no ViT of {table()['source']}; what its name stands for was taken as usual",
    )


def spelled(checkpoint: Checkpoint, words: Known) -> Mapping[str, Any]:
    """How this file names what timm's classes name differently.

    naflex: under `embeds.`; patches: the kernel as a convolution, or as a matrix with channels
    last or first; scale: `gamma_1` or `ls1.gamma`; split: three projections; gate: `fc1_g` and
    `fc1_x` "apart", or packed in one; relative: where the table of differences lies.
    """
    names = ("relative_position_bias_table", "mlp.fc1.weight")
    stems = ("blocks.0.attn.", "blocks.0.attn.rel_pos.", "rel_pos_bias.", "shared_rel_pos.")
    relative = next((s for s in stems if any(checkpoint.has(s + name) for name in names)), "")
    flat = checkpoint.has("embeds.proj.weight") and len(checkpoint.shape("embeds.proj.weight")) == 2
    last = words.say("patchify_channels_last")[0] is not False
    return {
        "architecture": words.architecture if words.kind else "",
        "kind": words.kind,
        "naflex": checkpoint.has("embeds.proj.weight"),
        "patches": ("channels last" if last else "channels first") if flat else "kernel",
        "scale": "gamma" if checkpoint.has("blocks.0.gamma_1") else "ls",
        "split": checkpoint.has("blocks.0.attn.q_proj.weight"),
        "gate": "apart" if checkpoint.has("blocks.0.mlp.fc1_g.weight") else "packed",
        "relative": relative.removeprefix("blocks.0.attn."),
    }
