"""Read and write files of timm's VisionTransformer, Eva, Beit, VisionTransformerRelPos and NaFlexVit.

Reads a hub folder with config.json, a training checkpoint, or a bare state dict whose file name is a
timm architecture or whose tensor names only timm uses. Checked against timm 1.0.31.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from patchword.formats.checkpoint import Checkpoint, square
from patchword.formats.facts import Facts
from patchword.formats.layout import Description, Ignored, Layout, Rule
from patchword.formats.layouts.original_signs import is_mae_pytorch, sign_of
from patchword.formats.layouts.timm_data import classes_of, config_json, preprocess_of
from patchword.formats.layouts.timm_describe import Reading
from patchword.formats.layouts.timm_facts import TimmArchitecture, known, table
from patchword.formats.layouts.timm_names import INDEX, rows
from patchword.formats.layouts.timm_write import target
from patchword.formats.restate import (
    Tensors,
    class_position_in_token,
    first_as_class,
    projection_as_head,
    sines_in_its_dtype,
    with_zero_biases,
    without_periods,
)
from patchword.formats.rows import rules_of
from patchword.model.config import ViTConfig
from patchword.model.kinds import LayerNormConfig, NoPositions
from patchword.model.shapes import shapes
from patchword.weights.card import ModelCard

# Names that no other format has. timm shares the rest with the original code it is based on.
ONLY_TIMM = (
    "reg_token",
    "attn_pool.latent",
    "norm_pre.weight",
    "embeds.proj.weight",
    "blocks.0.mlp.fc1_g.weight",
    "blocks.0.attn.rel_pos.mlp.fc1.weight",
    "shared_rel_pos.mlp.fc1.weight",
    "rope.freqs",
    "blocks.0.attn.q_norm.weight",
    "blocks.0.attn.norm.weight",
    "blocks.0.mlp.norm.weight",
)

# Of TIPSv2's and DINOv2's code, whose other names timm shares.
NEVER_TIMM = ("blocks.0.mlp.c_fc.weight", "blocks.0.mlp.w12.weight")


def _classifies(checkpoint: Checkpoint) -> bool:
    return checkpoint.has("head.weight") or checkpoint.has("fc_norm.weight")


def _gate_is_packed(checkpoint: Checkpoint) -> bool:
    names = ("blocks.0.mlp.fc1.weight", "blocks.0.mlp.fc2.weight")
    shapes = [checkpoint.shape(name) for name in names if checkpoint.has(name)]
    return [len(shape) for shape in shapes] == [2, 2] and shapes[0][0] == 2 * shapes[1][1]


def _has_no_positions(checkpoint: Checkpoint) -> bool:
    words = ("pos_embed", "rope", "relative_position", "rel_pos")
    return not any(word in name for name in checkpoint.tensors for word in words)


def _spares_the_class_token(checkpoint: Checkpoint) -> bool:
    """Whether positions form a square without a row for the class token, and no original's wrapper (`model`) is present."""
    if not checkpoint.has("cls_token", "pos_embed", "blocks.0.attn.qkv.weight") or checkpoint.wrapper:
        return False
    others = ("dist_token", "mask_token", "register_tokens", "blocks.0.gamma_1", "blocks.0.attn.q_bias")
    if any(map(checkpoint.has, others)) or not sign_of(checkpoint).guess:
        return False
    rows = checkpoint.shape_of("pos_embed", 3)[1]
    return square(rows) is not None and square(rows - 1) is None


# Combinations that no original has, although it has each of the names.
TOGETHER: tuple[tuple[str, Callable[[Checkpoint], bool]], ...] = (
    ("both LayerScale named ls1 and a classifier", lambda c: c.has("blocks.0.ls1.gamma") and _classifies(c)),
    ("LayerScale named ls1 without a class token", lambda c: c.has("blocks.0.ls1.gamma") and not c.has("cls_token")),
    ("a classifier without a class token", lambda c: not c.has("cls_token") and _classifies(c)),
    ("a gate packed in mlp.fc1", _gate_is_packed),
    ("ViT blocks without any positions", _has_no_positions),
    ("a ResNet before the patches", lambda c: bool(c.under("patch_embed.backbone."))),
    ("a class token without a row in pos_embed", _spares_the_class_token),
)  # fmt: skip


def evidence(checkpoint: Checkpoint) -> str | None:
    """Evidence that only timm writes such a file, or None. The layouts of the originals use it too."""
    if not checkpoint.has("blocks.0.norm1.weight"):
        return None
    if not (checkpoint.has("patch_embed.proj.weight") or checkpoint.has("embeds.proj.weight")):
        return None
    if (words := known(checkpoint)) is not None:
        return f"{words.evidence} specifies timm's {words.architecture}"
    if is_mae_pytorch(checkpoint) or any(map(checkpoint.has, NEVER_TIMM)):
        return None
    found = next((name for name in ONLY_TIMM if checkpoint.has(name)), None)
    if found is not None:
        return f"only timm has a tensor named {found}"
    return next((f"only timm's models have {what}" for what, fits in TOGETHER if fits(checkpoint)), None)


def _with_biases(config: ViTConfig, tensors: Tensors) -> tuple[ViTConfig, Tensors]:
    """The biases that timm always has."""
    norm, attention, mlp = config.norm, config.attention, config.mlp
    if isinstance(norm, LayerNormConfig):
        norm = replace(norm, bias=True)
    plain = isinstance(config.inner_positions, NoPositions) and attention.bias != "qv"
    if attention.out_bias != mlp.bias or not plain:
        attention, mlp = replace(attention, out_bias=True), replace(mlp, bias=True)
    patch = config.patch if config.block.entry_norm else replace(config.patch, bias=True)
    head = replace(config.head, bias=True)
    return replace(config, norm=norm, head=head, attention=attention, mlp=mlp, patch=patch), tensors


class Timm(Layout):
    name = "timm"
    title = "timm"
    steps = (
        first_as_class,
        projection_as_head,
        class_position_in_token,
        sines_in_its_dtype,
        _with_biases,
        with_zero_biases,
        without_periods,
    )

    def recognise(self, checkpoint: Checkpoint) -> str | None:
        return evidence(checkpoint)

    def describe(self, checkpoint: Checkpoint, facts: Facts) -> Description:
        words = known(checkpoint) or TimmArchitecture(
            name=checkpoint.name, evidence="its tensors", certain=False
        )
        if words.architecture:
            facts.record("architecture", words.architecture, words.evidence)
        spelling = spelled(checkpoint, words)
        config = Reading(checkpoint, facts, words, spelling).config()
        return Description(
            config=config,
            preprocess=preprocess_of(config, words, facts),
            classes=classes_of(checkpoint, config.head.num_classes),
            spelling=spelling,
            notes=_doubts(words),
        )

    def rules(self, description: Description) -> Iterable[Rule | Ignored]:
        config = description.config
        names = rows(description.spelling, config.patch.stem)
        yield from rules_of(names, shapes(config), config.depth)
        yield INDEX

    def spelling(self, card: ModelCard) -> Mapping[str, Any]:
        return target(card.config, {}).spelling

    def beside(self, card: ModelCard, spelling: Mapping[str, Any]) -> Mapping[str, bytes]:
        return {"config.json": config_json(card, target(card.config, spelling))}


def _doubts(words: TimmArchitecture) -> tuple[str, ...]:
    if not words.architecture:
        return (
            "its timm architecture is unknown, so norms are assumed to precede each branch, and rotary positions in "
            "addition to learned ones would go unnoticed; put timm's config.json next to it",
        )
    if words.kind:
        return ()
    return (f"{words.architecture} is not a ViT of {table()['source']}, so timm's usual values are assumed",)


def spelled(checkpoint: Checkpoint, words: TimmArchitecture) -> Mapping[str, Any]:
    """How this file spells what timm's classes name differently.

    naflex: names start with `embeds.`. patches: the kernel is a convolution, or a matrix with channels
    last or first. scale: `gamma_1` or `ls1.gamma`. split: three projections. gate: separate `fc1_g` and
    `fc1_x` ("apart"), or packed in one. relative: the place of the relative position table.
    """
    names = ("relative_position_bias_table", "mlp.fc1.weight")
    stems = ("blocks.0.attn.", "blocks.0.attn.rel_pos.", "rel_pos_bias.", "shared_rel_pos.")
    relative = next((s for s in stems if any(checkpoint.has(s + name) for name in names)), "")
    flat = checkpoint.has("embeds.proj.weight") and len(checkpoint.shape("embeds.proj.weight")) == 2
    last = words.argument("patchify_channels_last")[0] is not False
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
