"""What a model costs, by arithmetic on its config: no torch, no model built.

The tests hold `parameters` equal to the built module's count for every kind of part.
"""

from dataclasses import dataclass

from patchword.model.config import ViTConfig
from patchword.model.kinds import (
    AttentionPool,
    BatchNormConfig,
    GroupNormConfig,
    InstanceNormConfig,
    LayerNormConfig,
    Learned,
    NoPositions,
    Norm,
    RelativeBias,
    RelativeMLP,
    ResNetStem,
    Rope2d,
    RopeMixed,
)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """parameters: learned numbers (buffers are none). flops: for one image, two a multiply-add.

    Counted are the products of matrices, attention's two among them; what goes element by
    element (norms, activations, softmax, positions) is left out, as published counts do.
    tokens: patches and prefix.
    """

    parameters: int
    flops: int
    tokens: int


def cost(config: ViTConfig) -> Cost:
    """The cost at the config's own image size."""
    return Cost(
        parameters=_embed_parameters(config)
        + _position_parameters(config)
        + config.depth * _block_parameters(config)
        + _head_parameters(config),
        flops=2 * _multiply_adds(config),
        tokens=config.num_tokens,
    )


def _norm(norm: Norm, width: int) -> int:
    match norm:
        case LayerNormConfig():
            return width * (2 if norm.bias else 1)
        case BatchNormConfig() | GroupNormConfig() | InstanceNormConfig():
            return 2 * width
        case _:
            return width


def _linear(inputs: int, outputs: int, bias: bool = True) -> int:
    return outputs * (inputs + bias)


def _convolutions(config: ViTConfig) -> list[tuple[int, int, int]]:
    """Of the stem: (inputs · kernel, outputs, places where it is applied) each; every one is followed by a norm."""
    stem = config.patch.stem
    if not isinstance(stem, ResNetStem):
        return []
    root, *after = (height * width for height, width in stem.sizes(config.image.size))
    found = [(config.image.channels * 49, stem.width, root)]
    inputs, before = stem.width, after[0]
    for stage, units in enumerate(stem.units):
        middle, places = stem.width * 2**stage, after[stage]
        for unit in range(units):
            found += [(inputs, middle, before), (9 * middle, middle, places), (middle, 4 * middle, places)]
            if not unit:
                found.append((inputs, 4 * middle, places))
            inputs, before = 4 * middle, places
    return found


def _embed_parameters(config: ViTConfig) -> int:
    pixels = config.patch_pixels
    return (
        sum(inputs * outputs + 2 * outputs for inputs, outputs, _ in _convolutions(config))
        + _linear(pixels, config.dim, config.patch.bias)
        + (_norm(config.norm, pixels) if config.patch.norm_pixels else 0)
        + (_norm(config.norm, config.dim) if config.patch.norm_output else 0)
        + config.tokens.num_extra * config.dim
        + (_norm(config.norm, config.dim) if config.block.entry_norm else 0)
    )


def _position_parameters(config: ViTConfig) -> int:
    rows, columns = config.grid_size
    added = 0
    if isinstance(config.added_positions, Learned):
        added = (rows * columns + config.num_prefix_positions) * config.dim
    match config.inner_positions:
        case RelativeBias(shared=shared, prefix_rows=prefix_rows):
            table = ((2 * rows - 1) * (2 * columns - 1) + 3 * prefix_rows) * config.attention.num_heads
            return added + table * (1 if shared else config.depth)
        case RelativeMLP(hidden=hidden, shared=shared):
            mlp = _linear(2, hidden) + _linear(hidden, config.attention.num_heads)
            return added + mlp * (1 if shared else config.depth)
        case RopeMixed():
            return added + config.depth * config.attention_dim
        case Rope2d() | NoPositions():
            return added


def _block_parameters(config: ViTConfig) -> int:
    part, inner = config.attention, config.attention_dim
    qkv_bias = {"qkv": 3, "qv": 2, "none": 0}[part.bias] * inner
    head_norms = {"none": 0, "layer": 4, "rms": 2}[part.qk_norm] * config.head_dim
    attention = (
        _linear(config.dim, 3 * inner, bias=False)
        + qkv_bias
        + head_norms
        + (_norm(config.norm, inner) if part.out_norm else 0)
        + _linear(inner, config.dim, part.out_bias)
    )
    scales = 0 if config.block.layer_scale is None else 2 * config.dim
    mlp = _mlp_parameters(config, config.mlp_dim, config.mlp.gated)
    return attention + mlp + 2 * _norm(config.norm, config.dim) + scales


def _mlp_parameters(config: ViTConfig, hidden: int, gated: bool) -> int:
    return (
        _linear(config.dim, hidden * (1 + gated), config.mlp.bias)
        + (_norm(config.norm, hidden) if config.mlp.inner_norm else 0)
        + _linear(hidden, config.dim, config.mlp.bias)
    )


def _head_parameters(config: ViTConfig) -> int:
    head, dim = config.head, config.dim
    total = 0
    if isinstance(head.pool, AttentionPool):
        total += dim + 4 * _linear(dim, dim) + _norm(config.norm, dim)
        total += _mlp_parameters(config, head.pool.hidden or config.mlp_dim, gated=False)
    if head.norm != "none":
        total += _norm(config.norm, dim if head.norm == "tokens" else config.pooled_dim)
    if head.pre_logits:
        total += _linear(config.pooled_dim, head.pre_logits)
    width = head.projection or config.embed_dim
    if head.projection:
        total += _linear(config.embed_dim, head.projection, head.projection_bias)
    if head.num_classes:
        total += _linear(width, head.num_classes, head.bias) * (1 + head.distilled)
    return total


def _multiply_adds(config: ViTConfig) -> int:
    tokens, dim, inner = config.num_tokens, config.dim, config.attention_dim
    patches = tokens - config.tokens.num_extra
    block = (
        tokens * dim * 3 * inner
        + 2 * tokens * tokens * inner
        + tokens * inner * dim
        + tokens * dim * config.mlp_dim * (2 + config.mlp.gated)
    )
    stem = sum(inputs * outputs * places for inputs, outputs, places in _convolutions(config))
    return stem + patches * config.patch_pixels * dim + config.depth * block + _head_multiply_adds(config)


def _head_multiply_adds(config: ViTConfig) -> int:
    head, dim = config.head, config.dim
    total = 0
    if isinstance(head.pool, AttentionPool):
        read = config.num_tokens
        if head.pool.over == "patches":
            read -= config.tokens.num_extra
        hidden = head.pool.hidden or config.mlp_dim
        total += 2 * dim * dim + 2 * read * dim * dim + 2 * read * dim + 2 * dim * hidden
    total += config.pooled_dim * head.pre_logits + config.embed_dim * head.projection
    return total + (head.projection or config.embed_dim) * head.num_classes * (1 + head.distilled)
