"""DINOv2, with and without registers. Source: facebookresearch/dinov2 `models/vision_transformer.py`, `hub/`."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from patchword.checkpoints.card import ModelCard
from patchword.checkpoints.checkpoint import Checkpoint
from patchword.checkpoints.facts import Facts
from patchword.checkpoints.layout import Description, Ignored, Rule, rule
from patchword.checkpoints.layouts.blocks import both, token
from patchword.checkpoints.layouts.heads import LINEAR_HEAD, head_apart, linear_head
from patchword.checkpoints.layouts.original import (
    USUAL_HEADS,
    Constants,
    Original,
    back,
    block_spelling,
    blocks,
    evaluated,
    first_block,
    front,
    has_flat_mask,
    is_common,
    patch_of,
    pool_of,
    positions,
    preprocess,
    trunk,
)
from patchword.checkpoints.layouts.transformers_blocks import Zeros
from patchword.images.preprocess import Preprocess
from patchword.model.config import HeadConfig, TokensConfig, ViTConfig
from patchword.model.kinds import Learned, Resample

MASK_REASON = "stands in for hidden patches, in pre-training only"
# Inputs of the published heads: class tokens of one or four blocks, and the mean of the patches.
_LINEAR = {2: (1, True, False), 5: (4, True, False)}


def _registers(checkpoint: Checkpoint) -> int:
    """Number of registers in the file, or for its published name, so that lost registers are reported as missing."""
    if checkpoint.has("register_tokens"):
        return checkpoint.shape_of("register_tokens", 3)[1]
    named = re.match(r"dinov2_\w*_reg(\d)_", checkpoint.path.name)
    return int(named[1]) if named else 0


class DINOv2(Original):
    """A flat state dict with `ls1.gamma`, `ls2.gamma` and `mask_token` [1, D]; the gate of giant is `mlp.w12`."""

    name = "dinov2"
    title = "DINOv2 (its authors' file)"
    constants = Constants(who="DINOv2's code", heads=USUAL_HEADS | {1536: 24})

    def recognise(self, checkpoint: Checkpoint) -> str | None:
        first = first_block(checkpoint)
        if (
            is_common(checkpoint)
            and checkpoint.has("cls_token", "pos_embed", f"{first}attn.qkv.weight")
            and not checkpoint.has("rope_embed.periods")
            and not checkpoint.has("reg_token")
        ):
            signs = [name for name in ("register_tokens", f"{first}ls1.gamma") if checkpoint.has(name)]
            if has_flat_mask(checkpoint):
                signs.insert(0, "mask_token")
            return " and ".join(sign.removeprefix(first) for sign in signs) or None
        return None

    def describe(self, checkpoint: Checkpoint, facts: Facts) -> Description:
        dim, _, patch = patch_of(checkpoint)
        registers = _registers(checkpoint)
        rows = checkpoint.shape_of("pos_embed", 3)[1] - 1
        # Values of the published hub configurations for both kinds.
        resample = Resample() if registers else Resample(antialias=False, offset=0.1)
        config = trunk(
            checkpoint,
            facts,
            self.constants,
            grid=facts.grid(rows, patch),
            tokens=TokensConfig(num_registers=registers),
            positions=Learned(resample=resample),
            head=linear_head(checkpoint, facts, dim, _LINEAR)
            or HeadConfig(pool=pool_of(facts, "class", self.constants.who), num_classes=0),
        )
        usual = evaluated(self.preprocess(config), "the evaluation in DINOv2's code")
        return Description(
            config=config, preprocess=facts.preprocess(usual), spelling=block_spelling(checkpoint)
        )

    def preprocess(self, config: ViTConfig) -> Preprocess:
        """Preprocessing at 224, the authors' evaluation size, although the published positions are for 518."""
        size = (224, 224) if config.image.size == (518, 518) else config.image.size
        return preprocess(config, min(size) * 256 // 224, size=size)

    def rules(self, description: Description) -> Iterable[Rule | Ignored]:
        config = description.config
        yield from front(config)
        if config.tokens.num_registers:
            yield token("register_tokens", "prefix.registers", config, config.tokens.num_registers)
        yield positions(config)
        yield from blocks(config, description.spelling)
        yield from back(replace(config, head=replace(config.head, num_classes=0, distilled=False)))
        if config.head.num_classes:
            yield from both(LINEAR_HEAD, "head", config.head.bias)
        # The class expects one, although only pre-training uses it.
        yield rule("mask_token", (), Zeros(((1, config.dim),)))
        yield Ignored("mask_token", MASK_REASON)

    def head_apart(self, tensors: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        return head_apart(tensors)

    def spelling(self, card: ModelCard) -> Mapping[str, Any]:
        return {"gate": "w12"}
