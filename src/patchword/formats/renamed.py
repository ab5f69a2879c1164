"""A file's tensors under our names, and what they state about its model: the inverse of `model/shapes.py`."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from patchword.formats.checkpoint import Checkpoint
from patchword.formats.ops import Shape
from patchword.formats.rows import Rows, names_of
from patchword.model.config import Activation, AttentionConfig, MLPConfig
from patchword.model.kinds import Size

_BLOCK = "blocks.0."


@dataclass(frozen=True)
class Renamed:
    """rows: the file's names for ours. block: the file's prefix of its first block, if rows have `{b}`."""

    checkpoint: Checkpoint
    rows: Rows
    block: str = _BLOCK

    @cached_property
    def _theirs(self) -> dict[str, tuple[str, ...]]:
        """Our name → the names of the file that it is made of; of several spellings, the first that the file has."""
        found: dict[str, tuple[str, ...]] = {}
        for item in self.rows:
            for row in item if isinstance(item, list) else [item]:
                for name, names in names_of(row, self.block):
                    known = found.get(name)
                    if known is None or (not self._any(known) and self._any(names)):
                        found[name] = names
        return found

    def _any(self, names: Iterable[str]) -> bool:
        return any(map(self.checkpoint.has, names))

    def has(self, name: str, at: int = 0) -> bool:
        """Whether the file has our tensor. at: which of its parts decides, if it is made of several."""
        theirs = self._theirs.get(name, ())
        return bool(theirs) and self.checkpoint.has(theirs[min(at, len(theirs) - 1)])

    def in_block(self, name: str, at: int = 0) -> bool:
        """As `has`, for a tensor of the first block."""
        return self.has(f"{_BLOCK}{name}", at)

    def name(self, ours: str) -> str:
        """The file's first name for our tensor."""
        return self._theirs[ours][0]

    def shape(self, ours: str, axes: int) -> Shape:
        """The shape in the file, checked for its number of axes. Raises: CheckpointError."""
        return self.checkpoint.shape_of(self.name(ours), axes)

    @cached_property
    def kernel(self) -> tuple[int, int, Size]:
        """Width, channels and patch size of a patch convolution."""
        dim, channels, *sides = self.shape("patch_embed.proj.weight", 4)
        return dim, channels, (sides[0], sides[1])

    def rows_of(self, layer: str) -> int:
        """Outputs of a linear layer, 0 if the file has none."""
        return self.shape(f"{layer}.weight", 2)[0] if self.has(f"{layer}.weight") else 0

    def attention(self, num_heads: int) -> AttentionConfig:
        bias: Literal["qkv", "qv", "none"] = "none"
        # Of three biases, the keys' decides; of one with a mask, the mask.
        masked = len(self._theirs.get(f"{_BLOCK}attention.q_bias", ())) == 2
        if masked and self.in_block("attention.q_bias", 1):
            bias = "qv"
        elif self.in_block("attention.qkv.bias", 1):
            bias = "qkv"
        elif self.in_block("attention.q_bias") and not masked:
            bias = "qv"
        qk_norm: Literal["none", "layer", "rms"] = "none"
        if self.in_block("attention.q_norm.weight"):
            qk_norm = "layer" if self.in_block("attention.q_norm.bias") else "rms"
        return AttentionConfig(
            num_heads=num_heads,
            bias=bias,
            qk_norm=qk_norm,
            out_norm=self.in_block("attention.out_norm.weight"),
            out_bias=self.in_block("attention.proj.bias"),
        )

    def mlp(self, activation: Activation, *, gated: bool = False) -> MLPConfig:
        """gated: whether gate and value are one matrix or two, which no shape of the first tells apart."""
        first, second = f"{_BLOCK}mlp.fc1.weight", f"{_BLOCK}mlp.fc2.weight"
        return MLPConfig(
            hidden=self.shape(second, 2)[1] if gated else self.shape(first, 2)[0],
            activation=activation,
            gated=gated,
            bias=self.in_block("mlp.fc1.bias"),
            inner_norm=self.in_block("mlp.norm.weight"),
        )

    def plain_mlp(self, activation: Activation) -> MLPConfig:
        """Of code whose MLP always has biases."""
        return MLPConfig(hidden=self.shape(f"{_BLOCK}mlp.fc1.weight", 2)[0], activation=activation)
