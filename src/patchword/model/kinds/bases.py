"""Base classes of the kinds of positions, norms and pools. Does not import torch.

Each kind describes itself, so that no other list has to: its tensors (`shapes`), a description for
reports (`words`), and the configs it cannot work with (`check`). A kind that does not implement the
abstract methods cannot be instantiated.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Protocol

from patchword.model.base import Shapes, Size, below, linear_shapes
from patchword.model.parts import AttentionConfig, MLPConfig, TokensConfig


class Kind(ABC):
    """One of several dataclasses that fit the same place in a config, distinguished by `kind`.

    buffers: the names, among `shapes`, of tensors that are stored but not learned.
    """

    kind: ClassVar[str]
    buffers: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def words(self) -> str:
        """Describe this kind for a report, in the terms of the papers."""


class NormKind(Kind):
    """A norm over tokens [B, N, D] or pooled vectors [B, D]; its module is in `model/norms.py`."""

    @abstractmethod
    def shapes(self, width: int) -> Shapes:
        """The tensors of a norm over `width` channels, with the module's own names."""

    def check_width(self, name: str, width: int, *, alone: bool) -> None:
        """Raises: SettingsError if this width cannot be normed. alone: one vector per image, not tokens."""

    def levels_tokens(self, width: int) -> bool:
        """Whether the output has the same mean over tokens, in each channel, for every image."""
        return False


class Host(Protocol):
    """The properties of a model that a kind may use; a ViTConfig has all of them."""

    @property
    def dim(self) -> int: ...
    @property
    def depth(self) -> int: ...
    @property
    def grid_size(self) -> Size: ...
    @property
    def num_tokens(self) -> int: ...
    @property
    def head_dim(self) -> int: ...
    @property
    def mlp_dim(self) -> int: ...
    @property
    def tokens(self) -> TokensConfig: ...
    @property
    def attention(self) -> AttentionConfig: ...
    @property
    def mlp(self) -> MLPConfig: ...
    @property
    def norm(self) -> NormKind: ...


class Added(Kind):
    """Positions that are added to the tokens before the first block.

    The module maps `grid → [patches, D]`. Its `prefix` holds rows for the first prefix tokens, or None, and its `suffix`
    those of the tokens behind the patches.
    """

    @abstractmethod
    def shapes(self, model: Host) -> Shapes:
        """The module's tensors, with its own names."""

    def prefix_rows(self, tokens: TokensConfig) -> int:
        """The number of leading prefix tokens that have a learned row."""
        return 0

    def check(self, model: Host) -> None:
        """Raises: SettingsError if this kind cannot work in that model."""


class Inner(Kind):
    """Positions inside the blocks. The module maps `(layout, depth)` to one `AttentionPositions` per block.

    reaches_prefix: whether what a prefix token reads from the patches depends on their positions.
    """

    reaches_prefix: ClassVar[bool] = True

    @abstractmethod
    def shapes(self, model: Host) -> Shapes:
        """The module's tensors, with its own names."""

    def check(self, model: Host) -> None:
        """Raises: SettingsError if this kind cannot work in that model."""


class PoolKind(Kind):
    """From the tokens of an image to one vector. The module is in `model/pool.py` and reads the normed tokens of `layers`.

    reads_first: it reads only the first token, so the last block may compute that one alone.
    averages: it takes the mean over tokens. needs_class_token: it reads the class token.
    """

    reads_first: ClassVar[bool] = False
    needs_class_token: ClassVar[bool] = False

    @abstractmethod
    def shapes(self, model: Host) -> Shapes:
        """The module's tensors, with its own names."""

    @property
    def averages(self) -> bool:
        return False

    @property
    def reads_prefix(self) -> bool:
        """It reads none but the tokens in front of the patches, if there are any."""
        return self.reads_first

    def width(self, dim: int) -> int:
        """Channels of the pooled vector."""
        return dim

    def layers(self, depth: int) -> Sequence[int]:
        """The blocks whose tokens it reads, counted from 0; always includes the last block."""
        return (depth - 1,)

    def multiply_adds(self, model: Host) -> int:
        """The multiply-adds of its matrix products, for one image."""
        return 0

    def check(self, model: Host) -> None:
        """Raises: SettingsError if this kind cannot work in that model."""


def mlp_shapes(model: Host, hidden: int, *, gated: bool) -> Shapes:
    """The tensors of an MLP of this model."""
    found = linear_shapes("fc1", model.dim, hidden * (1 + gated), model.mlp.bias)
    if model.mlp.inner_norm:
        found |= below("norm", model.norm.shapes(hidden))
    return found | linear_shapes("fc2", hidden, model.dim, model.mlp.bias)
