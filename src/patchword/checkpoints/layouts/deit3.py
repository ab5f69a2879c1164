"""DeiT-III: LayerScale, and a class token that has no position. Source: facebookresearch/deit `models_v2.py`."""

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
    """`{"model": …}`: `gamma_1`, `gamma_2`, `pos_embed` [1, N, D] for the patches alone."""

    name = "deit3"
    title = "DeiT-III (its authors' file)"
    doubt = (
        "timm's ViTs with LayerScale and rotary positions next to learned ones (rope_ape) have the same tensors and "
        "answer otherwise; put timm's config.json next to it if it is one"
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
            return "gamma_1 beside pos_embed"
        return None

    def describe(self, checkpoint: Checkpoint, facts: Facts) -> Description:
        rows = checkpoint.shape_of("pos_embed", 3)[1]
        # The class token has no row; files of models with one for it (a square and one) are read as well.
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
                evaluated(usual, "DeiT-III's code: its evaluation, without a margin")
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
