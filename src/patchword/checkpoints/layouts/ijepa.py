"""I-JEPA's target encoder. Source: facebookresearch/ijepa `models/vision_transformer.py`."""

from collections.abc import Iterable, Mapping
from typing import Any

from patchword.checkpoints.checkpoint import Checkpoint
from patchword.checkpoints.facts import Facts
from patchword.checkpoints.layout import Description, Ignored, Rule
from patchword.checkpoints.layouts.original import (
    USUAL_HEADS,
    Constants,
    Original,
    back,
    blocks,
    evaluated,
    first_block,
    front,
    is_common,
    patch_of,
    pool_of,
    positions,
    preprocess,
    trunk,
    with_margin,
)
from patchword.model.config import HeadConfig, TokensConfig
from patchword.model.kinds import Learned, Resample


class IJEPA(Original):
    """`target_encoder` of a training file: no class token, no head, stored sine-cosine positions."""

    name = "ijepa"
    title = "I-JEPA (its authors' file)"
    doubt = (
        "assumed to be I-JEPA; timm's ViTs without class token and head (SigLIP, gap) have the same tensors, but differ in "
        "activation (--act) and preprocessing (--mean, --std)"
    )
    published_names = ("in1k-vit", "in22k-vit", "ijepa")
    own_wrappers = ("target_encoder", "encoder")
    constants = Constants(who="I-JEPA's code", heads=USUAL_HEADS | {1408: 16})

    def recognise(self, checkpoint: Checkpoint) -> str | None:
        first = first_block(checkpoint)
        if (
            is_common(checkpoint)
            and checkpoint.has(
                "pos_embed", "norm.weight", f"{first}attn.qkv.weight", f"{first}mlp.fc1.weight"
            )
            and not checkpoint.has("cls_token")
            and not checkpoint.has("head.weight")
            and not checkpoint.under("attn_pool.")
            and not checkpoint.has(f"{first}ls1.gamma")
            and not checkpoint.has("reg_token")
        ):
            taken = checkpoint.wrapper.split(":")[0]
            return f"{taken}: no class token" if taken else "no class token and no head"
        return None

    def describe(self, checkpoint: Checkpoint, facts: Facts) -> Description:
        rows = checkpoint.shape_of("pos_embed", 3)[1]
        config = trunk(
            checkpoint,
            facts,
            self.constants,
            grid=facts.grid(rows, patch_of(checkpoint)[2]),
            tokens=TokensConfig(class_token=False),
            positions=Learned(resample=Resample(antialias=False)),
            head=HeadConfig(pool=pool_of(facts, "mean", "the linear probe of I-JEPA's paper"), num_classes=0),
        )
        # The repository has no evaluation code; the paper follows MAE's linear probe.
        size = config.image.size
        usual = preprocess(config, with_margin(size) if min(size) <= 224 else min(size))
        return Description(
            config=config, preprocess=facts.preprocess(evaluated(usual, "the standard ImageNet evaluation"))
        )

    def rules(self, description: Description) -> Iterable[Rule | Ignored]:
        config = description.config
        yield from front(config)
        yield positions(config)
        yield from blocks(config, description.spelling)
        yield from back(config)

    def nest(self, tensors: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"target_encoder": {f"module.{name}": tensor for name, tensor in tensors.items()}}
