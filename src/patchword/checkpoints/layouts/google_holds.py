"""Parts of a model that Google's model definitions cannot represent."""

from patchword.model.config import ViTConfig
from patchword.model.kinds import AttentionPool, LayerNormConfig, Learned, ResNetStem, SinCos2d


def cannot_hold(config: ViTConfig) -> str | None:
    """The first part that neither repository's ViT supports; None if the model fits."""
    return next((words for wrong, words in _limits(config) if wrong), None)


def _limits(config: ViTConfig) -> list[tuple[bool, str]]:
    tokens, attention, mlp, block, head = (
        config.tokens,
        config.attention,
        config.mlp,
        config.block,
        config.head,
    )
    sines = isinstance(config.positions, SinCos2d)
    norm = config.norm
    return [
        (tokens.num_registers > 0, "registers"),
        (tokens.distillation_token or head.distilled, "distillation tokens"),
        (not (sines or isinstance(config.positions, Learned)), f"positions of kind {config.positions.kind}"),
        (
            not isinstance(norm, LayerNormConfig) or not norm.bias,
            f"the {norm.kind} norm" + (" without bias" if isinstance(norm, LayerNormConfig) else ""),
        ),
        (attention.bias != "qkv" or not attention.out_bias, "attention without biases"),
        (attention.qk_norm != "none", "normalised queries and keys"),
        (attention.out_norm or mlp.inner_norm, "norms inside attention or the MLP"),
        (mlp.gated, "gated MLPs"),
        (not mlp.bias, "MLPs without biases"),
        (block.order != "pre", f"blocks of order {block.order}"),
        (block.entry_norm, "a norm before the blocks"),
        (block.layer_scale is not None, "LayerScale"),
        (not config.patch.bias, "a patch embedding without bias"),
        (config.patch.norm_pixels or config.patch.norm_output, "norms around the patch embedding"),
        (
            config.patch.stem.kind != "none" and not _google_stem(config),
            "a ResNet stem with jeonsworld's or timm's padding and norms",
        ),
        (head.norm != "tokens", f"a head with norm = {head.norm}"),
        (head.pool.kind not in ("class", "first", "mean", "attention"), f"pooling of kind {head.pool.kind}"),
        (isinstance(head.pool, AttentionPool) and tokens.class_token, "an attention pool with a class token"),
        (bool(head.projection) and not head.projection_bias, "a projection without bias"),
        (bool(head.projection and head.num_classes), "a classifier after a projection"),
        (bool(head.num_classes) and not head.bias, "a head without bias"),
    ]


def _google_stem(config: ViTConfig) -> bool:
    stem = config.patch.stem
    return isinstance(stem, ResNetStem) and stem == ResNetStem(units=stem.units, width=stem.width)
