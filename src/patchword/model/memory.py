"""Estimate the memory a model needs from its config: a lower bound, so that nothing that fits is refused.

The estimate counts the tensors that cannot be avoided: parameters, gradients, optimiser state, averaged copy, and
what a block keeps for the backward pass. Measured peaks of training steps on a CPU were 1.1 to about 3.5 times the estimate
(docs/training.md). A size that is refused therefore cannot fit, and one that is accepted may still fail.
"""

from typing import Literal

from patchword.model.config import ViTConfig
from patchword.model.cost import cost
from patchword.model.kinds import RelativeBias, RelativeMLP, Rope2d, RopeMixed

Size = tuple[int, int]
Precision = Literal["float32", "bfloat16"]
_FLOAT = 4


def held_bytes(config: ViTConfig, method: str, *, frozen: bool = False) -> int:
    """Parameters, their gradients, the averaged copy, and the optimiser's state (one value per weight with Muon, SGD or LARS, two with AdamW).

    frozen: only the parameters and the averaged copy, because almost nothing is trained.
    """
    return _FLOAT * cost(config).parameters * (2 if frozen else 4 if method in ("muon", "sgd", "lars") else 5)


def step_bytes(config: ViTConfig, view: Size, precision: Precision) -> int:
    """What a training step keeps in memory per image of `view` pixels."""
    tokens, dim, inner, hidden = _tokens(config, view), config.dim, config.attention_dim, config.mlp_dim
    width = _FLOAT if precision == "float32" else 2
    # Under autocast the residual stream stays in float32; inputs and outputs of matrix products use `precision`.
    stream = 2 * dim + (2 * dim if config.block.layer_scale is not None else 0)
    turned = 4 * inner if isinstance(config.inner_positions, Rope2d | RopeMixed) else 0
    products = 2 * dim + 4 * inner + turned + hidden * (3 if config.mlp.gated else 2)
    block = tokens * (_FLOAT * stream + width * products)
    return config.depth * block + 2 * _image_bytes(config, view)


def training_bytes(
    config: ViTConfig, view: Size, batch: int, precision: Precision, method: str, *, frozen: bool = False
) -> int:
    """A step with `batch` images, or the copy of the weights for saving the state between epochs if that is larger."""
    held = held_bytes(config, method, frozen=frozen)
    return held + max(batch * step_bytes(config, view, precision) + _shared_bytes(config, view), held // 2)


def inference_bytes(config: ViTConfig, size: Size, images: int) -> int:
    """Predicting `images` at once: the parameters, and the largest tensors that a block holds at one time."""
    tokens, dim = _tokens(config, size), config.dim
    moment = max(4 * config.attention_dim + dim, config.mlp_dim * (2 if config.mlp.gated else 1) + 2 * dim)
    each = _FLOAT * tokens * moment + _image_bytes(config, size)
    return _FLOAT * cost(config).parameters + images * each + _shared_bytes(config, size)


def _tokens(config: ViTConfig, size: Size) -> int:
    rows, columns = (-(-side // span) for side, span in zip(size, config.patch_span, strict=True))
    return rows * columns + config.tokens.num_extra


def _image_bytes(config: ViTConfig, size: Size) -> int:
    return _FLOAT * config.image.channels * size[0] * size[1]


def _shared_bytes(config: ViTConfig, size: Size) -> int:
    """The bias between all pairs of tokens, shared by all images of a batch."""
    if not isinstance(config.inner_positions, RelativeBias | RelativeMLP):
        return 0
    return _FLOAT * config.attention.num_heads * _tokens(config, size) ** 2
