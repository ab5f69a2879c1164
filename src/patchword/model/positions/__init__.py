"""Where tokens are: the one table from a kind of config to its module.

A kind added to the tokens is a module of `grid → [patches, D]` with `prefix`, rows for the
first prefix tokens or None. A kind inside attention is one of `(layout, depth) → a Place
for each block`.
"""

from typing import Any

from patchword.model import kinds as k
from patchword.model.config import ViTConfig
from patchword.model.positions.learned import LearnedPositions
from patchword.model.positions.relative_bias import RelativeBiasPositions
from patchword.model.positions.relative_mlp import RelativeMLPPositions
from patchword.model.positions.rope2d import Rope2dPositions, RopeMixedPositions
from patchword.model.positions.sincos import SinCos1dPositions, SinCos2dPositions

AddedPositions = LearnedPositions | SinCos1dPositions | SinCos2dPositions
InnerPositions = RelativeBiasPositions | RelativeMLPPositions | Rope2dPositions | RopeMixedPositions

ADDED: dict[type, type[Any]] = {
    k.Learned: LearnedPositions,
    k.SinCos1d: SinCos1dPositions,
    k.SinCos2d: SinCos2dPositions,
}
INNER: dict[type, type[Any]] = {
    k.RelativeBias: RelativeBiasPositions,
    k.RelativeMLP: RelativeMLPPositions,
    k.Rope2d: Rope2dPositions,
    k.RopeMixed: RopeMixedPositions,
}


def added_positions(config: ViTConfig) -> AddedPositions | None:
    """The module whose rows are added to the tokens, or None."""
    part = config.added_positions
    return None if isinstance(part, k.NoPositions) else ADDED[type(part)](part, config)


def inner_positions(config: ViTConfig) -> InnerPositions | None:
    """The module that places tokens inside attention, or None."""
    part = config.inner_positions
    return None if isinstance(part, k.NoPositions) else INNER[type(part)](part, config)
