"""Compute the cost of a model from its config, without torch and without building the model.

The tests check `parameters` against the built module for every kind of part.
"""

import math
from dataclasses import dataclass

from patchword.model.config import ViTConfig
from patchword.model.kinds import ResNetStem
from patchword.model.shapes import shapes


@dataclass(frozen=True, kw_only=True)
class Cost:
    """parameters: learned values, without buffers. flops: per image; a multiply-add counts as two.

    flops counts all matrix products, including the two of attention. Element-wise operations
    (norms, activations, softmax, positions) are not counted, as in published figures.
    tokens: patches and extra tokens.
    """

    parameters: int
    flops: int
    tokens: int


def cost(config: ViTConfig) -> Cost:
    """The cost at the config's own image size."""
    return Cost(
        parameters=_parameters(config),
        flops=2 * _multiply_adds(config),
        tokens=config.num_tokens,
    )


def _parameters(config: ViTConfig) -> int:
    kinds = config.norm, config.added_positions, config.inner_positions, config.head.pool
    buffers = {name for kind in kinds for name in kind.buffers}
    return sum(
        math.prod(shape) for name, shape in shapes(config).items() if name.rpartition(".")[2] not in buffers
    )


def _convolutions(config: ViTConfig) -> list[tuple[int, int, int]]:
    """The stem's convolutions: (inputs · kernel area, outputs, output positions). A norm follows each one."""
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
    head = config.head
    total = head.pool.multiply_adds(config)
    total += config.pooled_dim * head.pre_logits + config.embed_dim * head.projection
    return total + (head.projection or config.embed_dim) * head.num_classes * (1 + head.distilled)
