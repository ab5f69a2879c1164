"""What every kind of position, norm and pool says of itself, so that no list elsewhere has to. No torch in here.

A kind states its tensors (`shapes`), itself in words (`words`, for reports), and what it cannot work
with (`check`). A kind that leaves out what is abstract here cannot be made.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Protocol

from patchword.model.base import Shapes, Size, below, linear_shapes
from patchword.model.parts import AttentionConfig, MLPConfig, TokensConfig


class Kind(ABC):
    """One of several dataclasses that can stand in the same place, told apart by `kind`.

    buffers: the names, among `shapes`, of tensors that are stored but not learned.
    """

    kind: ClassVar[str]
    buffers: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def words(self) -> str:
        """This kind in the words of the papers, as a report says it."""


class NormKind(Kind):
    """A norm over tokens [B, N, D] or pooled vectors [B, D]; its module is in `model/norms.py`."""

    @abstractmethod
    def shapes(self, width: int) -> Shapes:
        """The tensors of a norm of so many channels, in the module's own names."""

    def check_width(self, name: str, width: int, *, alone: bool) -> None:
        """alone: one vector an image is normed, not a row of tokens. Raises: SettingsError where it can't be."""

    def levels_tokens(self, width: int) -> bool:
        """Whether each channel's mean over the tokens of an image is the same for every image afterwards."""
        return False


class Host(Protocol):
    """What a kind may ask of the model that it stands in; a ViTConfig has it all."""

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

    The module is `grid → [patches, D]`, with `prefix`: rows for the first prefix tokens, or None.
    """

    @abstractmethod
    def shapes(self, model: Host) -> Shapes:
        """The module's tensors, in its own names."""

    def prefix_rows(self, tokens: TokensConfig) -> int:
        """Prefix tokens, from the first on, that have a learned row."""
        return 0

    def check(self, model: Host) -> None:
        """Raises: SettingsError where this kind cannot work in that model."""


class Inner(Kind):
    """Positions that each attention is told; the module is `(layout, depth) → a AttentionPositions for each block`.

    reaches_prefix: whether what a prefix token takes from the patches depends on where they are.
    """

    reaches_prefix: ClassVar[bool] = True

    @abstractmethod
    def shapes(self, model: Host) -> Shapes:
        """The module's tensors, in its own names."""

    def check(self, model: Host) -> None:
        """Raises: SettingsError where this kind cannot work in that model."""


class PoolKind(Kind):
    """From the tokens of an image to one vector; the module, in `model/pool.py`, gets the normed tokens of `layers`.

    reads_first: the first token is all that it reads, so that the last block may answer for that alone.
    averages: it takes the mean over tokens. needs_class_token: it reads one.
    """

    reads_first: ClassVar[bool] = False
    needs_class_token: ClassVar[bool] = False

    @abstractmethod
    def shapes(self, model: Host) -> Shapes:
        """The module's tensors, in its own names."""

    @property
    def averages(self) -> bool:
        return False

    def width(self, dim: int) -> int:
        """Channels of the pooled vector."""
        return dim

    def layers(self, depth: int) -> Sequence[int]:
        """Which blocks' tokens it reads, counted from 0; the last block is always among them."""
        return (depth - 1,)

    def multiply_adds(self, model: Host) -> int:
        """Of its products of matrices, for one image."""
        return 0

    def check(self, model: Host) -> None:
        """Raises: SettingsError where this kind cannot work in that model."""


def mlp_shapes(model: Host, hidden: int, *, gated: bool) -> Shapes:
    """The tensors of an MLP of this model."""
    found = linear_shapes("fc1", model.dim, hidden * (1 + gated), model.mlp.bias)
    if model.mlp.inner_norm:
        found |= below("norm", model.norm.shapes(hidden))
    return found | linear_shapes("fc2", hidden, model.dim, model.mlp.bias)
