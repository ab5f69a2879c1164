"""Positions: maps each kind of positions to its module.

A module for positions added to the tokens maps `grid → [patches, D]`. Its `prefix` holds rows for
the first prefix tokens, or None, and its `suffix` those of tokens behind the patches. A module for positions inside blocks maps `(layout, depth)` to
one `AttentionPositions` per block. A module with weights initialises them in `reset(generator)`.
"""

from collections.abc import Mapping
from typing import Any

from patchword.model.config import ViTConfig
from patchword.model.kinds import positions as k
from patchword.model.positions.learned import LearnedPositions
from patchword.model.positions.learned_tokens import LearnedBetweenPositions, LearnedTokensPositions
from patchword.model.positions.relative_bias import RelativeBiasPositions
from patchword.model.positions.relative_mlp import RelativeMLPPositions
from patchword.model.positions.rope2d import Rope2dPositions, RopeMixedPositions
from patchword.model.positions.sincos import SinCos1dPositions, SinCos2dPositions

MODULES: Mapping[type[k.AnyAdded | k.AnyInner], type[Any]] = {
    k.Learned: LearnedPositions,
    k.LearnedTokens: LearnedTokensPositions,
    k.LearnedBetween: LearnedBetweenPositions,
    k.SinCos1d: SinCos1dPositions,
    k.SinCos2d: SinCos2dPositions,
    k.RelativeBias: RelativeBiasPositions,
    k.RelativeMLP: RelativeMLPPositions,
    k.Rope2d: Rope2dPositions,
    k.RopeMixed: RopeMixedPositions,
}


def added_positions(config: ViTConfig) -> Any:
    """Build the module whose rows are added to the tokens, or return None."""
    return _module(config.added_positions, config)


def inner_positions(config: ViTConfig) -> Any:
    """Build the module that provides positions inside attention, or return None."""
    return _module(config.inner_positions, config)


def _module(part: k.NoPositions | k.AnyAdded | k.AnyInner, config: ViTConfig) -> Any:
    if isinstance(part, k.NoPositions):
        return None
    return MODULES[type(part)](part, config)
