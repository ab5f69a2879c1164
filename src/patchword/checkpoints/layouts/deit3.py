"""DeiT-III: LayerScale, and a class token without a position. Source: facebookresearch/deit `models_v2.py`."""

from collections.abc import Iterable, Mapping
from typing import Any

from patchword.checkpoints.checkpoint import Checkpoint, square
from patchword.checkpoints.facts import Facts
from patchword.checkpoints.layout import Description, Ignored, Rule
from patchword.checkpoints.layouts.original import (
    Constants,
    Original,
    back,
    block_spelling,
    blocks,
    classifier,
    evaluated,
    first_block,
    front,
    is_common,
    patch_of,
    pool_of,
    positions,
    preprocess,
    trunk,
)
from patchword.model.kinds import Learned, Resample


class DeiT3(Original):
    """`{"model": …}`: `gamma_1`, `gamma_2`, and `pos_embed` [1, N, D] for the patches only."""

    name = "deit3"
    title = "DeiT-III (its authors' file)"
    doubt = (
        "assumed to be DeiT-III; timm's ViTs with LayerScale and both rotary and learned positions (rope_ape) have the same tensors "
        "but other outputs. If this is one of them, put timm's config.json next to it"
    )
    published_names = ("deit_3",)
    constants = Constants(who="DeiT-III's code", layer_scale=1e-4)

    def recognise(self, checkpoint: Checkpoint) -> str | None:
        first = first_block(checkpoint)
        if (
            is_common(checkpoint)
            and checkpoint.has("cls_token", "pos_embed", f"{first}gamma_1", f"{first}attn.qkv.weight")
            and not checkpoint.has(f"{first}attn.q_bias")
            and not checkpoint.has(f"{first}attn.relative_position_bias_table")
            and not checkpoint.has("rel_pos_bias.relative_position_bias_table")
        ):
            return "gamma_1 and pos_embed"
        return None

    def describe(self, checkpoint: Checkpoint, facts: Facts) -> Description:
        rows = checkpoint.shape_of("pos_embed", 3)[1]
        # The class token has no row. Files with a row for it (a square plus one) are read too.
        with_class = (
            square(rows) is None and square(rows - 1) is not None and facts.options.image_size is None
        )
        config = trunk(
            checkpoint,
            facts,
            self.constants,
            grid=facts.grid(rows - with_class, patch_of(checkpoint)[2]),
            positions=Learned(
                covers="all_but_registers" if with_class else "patches", resample=Resample(antialias=False)
            ),
            head=classifier(checkpoint, pool_of(facts, "class", self.constants.who)),
        )
        usual = preprocess(config, min(config.image.size))
        return Description(
            config=config,
            preprocess=facts.preprocess(
                evaluated(usual, "DeiT-III's evaluation code, without a crop margin")
            ),
            spelling=block_spelling(checkpoint),
        )

    def spelling(self, card: Any) -> Mapping[str, Any]:
        return {"scale": ("gamma_1", "gamma_2")}

    def rules(self, description: Description) -> Iterable[Rule | Ignored]:
        config = description.config
        yield from front(config)
        yield positions(config)
        yield from blocks(config, description.spelling)
        yield from back(config)

    def nest(self, tensors: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"model": tensors}
