"""The ViT of a YOLOS file as a config, and its tensors that no other ViT has."""

from collections.abc import Sequence

from patchword.formats.detection.layout import require_fitting
from patchword.formats.facts import Facts, Size
from patchword.formats.ops import Op, Reshaped, Shape
from patchword.model.config import (
    Activation,
    AttentionConfig,
    HeadConfig,
    ImageConfig,
    MLPConfig,
    PatchConfig,
    TokensConfig,
    ViTConfig,
)
from patchword.model.kinds import Combined, LayerNormConfig, LearnedBetween, LearnedTokens
from patchword.model.kinds.positions import ResampledBy


def mid_table(ours: Sequence[Shape]) -> Op:
    """[depth - 1, 1, tokens, D] in the file, [depth - 1, tokens, D] in the model."""
    layers, tokens, dim = ours[0]
    return Reshaped((layers, 1, tokens, dim))


def between_positions(middle: Size | None, resampled_by: ResampledBy) -> LearnedTokens | Combined:
    """middle: the grid of the positions between the blocks, None if there are none."""
    added = LearnedTokens(resampled_by=resampled_by)
    if middle is None:
        return added
    return Combined(added=added, inner=LearnedBetween(grid=middle, resampled_by=resampled_by))


def detection_backbone(
    facts: Facts,
    *,
    patch: Shape,
    grid: Size,
    depth: int,
    num_heads: int,
    hidden: int,
    queries: int,
    eps: float,
    positions: LearnedTokens | Combined,
    activation: Activation = "gelu",
    qkv_bias: bool = True,
) -> ViTConfig:
    """patch: the shape of the patch convolution. grid: rows and columns of its positions."""
    dim, channels, rows, columns = patch
    return ViTConfig(
        image=ImageConfig(size=(grid[0] * rows, grid[1] * columns), channels=channels),
        patch=PatchConfig(size=(rows, columns), edge="cut"),
        dim=dim,
        depth=depth,
        tokens=TokensConfig(num_registers=queries, registers_last=True),
        positions=positions,
        attention=AttentionConfig(num_heads=num_heads, bias="qkv" if qkv_bias else "none"),
        mlp=MLPConfig(hidden=hidden, activation=activation),
        norm=LayerNormConfig(eps=eps),
        head=HeadConfig(num_classes=0),
    )


def refuse_backbone(title: str, config: ViTConfig, *, resampled_by: ResampledBy) -> None:
    """Raises: CheckpointError if the ViT is not one that YOLOS' code builds."""
    added, inner = config.added_positions, config.inner_positions
    plain = ViTConfig(
        image=config.image,
        patch=PatchConfig(size=config.patch.size, edge="cut"),
        dim=config.dim,
        depth=config.depth,
        tokens=TokensConfig(num_registers=config.tokens.num_registers, registers_last=True),
        positions=config.positions,
        attention=AttentionConfig(num_heads=config.attention.num_heads, bias=config.attention.bias),
        mlp=MLPConfig(hidden=config.mlp_dim, activation=config.mlp.activation),
        norm=LayerNormConfig(eps=config.norm.eps),
        head=HeadConfig(num_classes=0),
    )
    by = {part.resampled_by for part in (added, inner) if isinstance(part, LearnedTokens | LearnedBetween)}
    require_fitting(
        title,
        (isinstance(added, LearnedTokens), "other positions than learned ones of every token"),
        (
            by <= {resampled_by},
            f"positions resampled by {', '.join(sorted(by))}: its readers do it by {resampled_by}",
        ),
        (_same(plain, config), "a backbone that YOLOS' code does not build"),
    )


def _same(plain: ViTConfig, config: ViTConfig) -> bool:
    from dataclasses import replace

    return replace(config, mlp=replace(config.mlp, hidden=config.mlp_dim)) == plain
