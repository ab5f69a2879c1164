"""What Google's model definitions have no place for, by name."""

from patchword.model.config import ViTConfig
from patchword.model.kinds import AttentionPool, LayerNormConfig, Learned, ResNetStem, SinCos2d


def cannot_hold(config: ViTConfig) -> str | None:
    """The first part of a model that neither repository's ViT has; None where it fits."""
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
        (tokens.distillation_token or head.distilled, "distillation token"),
        (not (sines or isinstance(config.positions, Learned)), f"positions of kind {config.positions.kind}"),
        (
            not isinstance(norm, LayerNormConfig) or not norm.bias,
            f"{norm.kind} norm" + (" that lacks its bias" if isinstance(norm, LayerNormConfig) else ""),
        ),
        (attention.bias != "qkv" or not attention.out_bias, "attention that lacks a bias"),
        (attention.qk_norm != "none", "norm of queries and keys"),
        (attention.out_norm or mlp.inner_norm, "norm inside attention or the MLP"),
        (mlp.gated, "gated MLP"),
        (not mlp.bias, "MLP that lacks its biases"),
        (block.order != "pre", f"blocks of order {block.order}"),
        (block.entry_norm, "norm before the blocks"),
        (block.layer_scale is not None, "LayerScale"),
        (not config.patch.bias, "patch embedding that lacks its bias"),
        (config.patch.norm_pixels or config.patch.norm_output, "norm around the patches"),
        (
            config.patch.stem.kind != "none" and not _google_stem(config),
            "ResNet stem with jeonsworld's or timm's padding and norms",
        ),
        (head.norm != "tokens", f"head with norm = {head.norm}"),
        (head.pool.kind not in ("class", "first", "mean", "attention"), f"pooling of kind {head.pool.kind}"),
        (isinstance(head.pool, AttentionPool) and tokens.class_token, "attention pool beside a class token"),
        (bool(head.projection) and not head.projection_bias, "projection without a bias"),
        (bool(head.projection and head.num_classes), "classifier behind a projection"),
        (bool(head.num_classes) and not head.bias, "head without a bias"),
    ]


def _google_stem(config: ViTConfig) -> bool:
    stem = config.patch.stem
    return isinstance(stem, ResNetStem) and stem == ResNetStem(units=stem.units, width=stem.width)
