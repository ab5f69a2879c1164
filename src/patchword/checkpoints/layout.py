"""What a layout is: how to tell it, what it states, and the rules that read and write it.

A new format is one file in `layouts/` with a Layout in it, and one line in `layouts/__init__.py`.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from patchword.checkpoints.card import ModelCard
from patchword.checkpoints.checkpoint import Checkpoint
from patchword.checkpoints.ops import Op, Same
from patchword.images.preprocess import Preprocess
from patchword.model.config import ViTConfig

if TYPE_CHECKING:
    from torch import Tensor

    from patchword.checkpoints.facts import Facts

Container = Literal["safetensors", "torch", "npz"]


@dataclass(frozen=True)
class Rule:
    """theirs: names in the file; ours: names in the model's state dict; op: how one becomes the other."""

    theirs: tuple[str, ...]
    ours: tuple[str, ...]
    op: Op = field(default_factory=Same)


@dataclass(frozen=True)
class Ignored:
    """Tensors of the file that the model does not take, each with its reason for the report.

    pattern: a regular expression for the whole name. Never written.
    """

    pattern: str
    reason: str

    def names(self, name: str) -> bool:
        return re.fullmatch(self.pattern, name) is not None


def rule(theirs: str | tuple[str, ...], ours: str | tuple[str, ...], op: Op | None = None) -> Rule:
    """A Rule; a single name may stand for a tuple of one."""
    return Rule(
        (theirs,) if isinstance(theirs, str) else theirs,
        (ours,) if isinstance(ours, str) else ours,
        Same() if op is None else op,
    )


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a file says of its model, once every fact is known.

    spelling: what the rules need beside the config, as {"prefix": "vit."}: which of a layout's
    spellings this file has. untrained: parts of the config that no file fills ("head").
    """

    config: ViTConfig
    preprocess: Preprocess
    classes: tuple[str, ...] = ()
    spelling: Mapping[str, Any] = field(default_factory=dict)
    untrained: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Layout(ABC):
    """One way to store a ViT. name: as `convert --to` takes it. title: for people."""

    name: str
    title: str
    # What other models have the same tensors, and what then differs; "" where none has. Loading notes it for a file
    # that nothing but its tensors tells: published_names and wrappers of the origin's own do.
    doubt: str = ""
    published_names: tuple[str, ...] = ()
    own_wrappers: tuple[str, ...] = ()
    # Layouts whose files have the same tensors, told apart by a file's name or not at all.
    twins: tuple[str, ...] = ()
    container: Container = "safetensors"
    # The file that `convert` writes, in the folder of the sidecar_files where there are any.
    file_name: str = "model.safetensors"

    @abstractmethod
    def recognise(self, checkpoint: Checkpoint) -> str | None:
        """The evidence that a file is of this layout, as "blocks.0.attn.qkv beside config.json"; None: it is not."""

    @abstractmethod
    def describe(self, checkpoint: Checkpoint, facts: "Facts") -> Description:
        """Everything that the model needs, each fact taken through `facts` with its source."""

    @abstractmethod
    def rules(self, description: Description) -> Iterable[Rule | Ignored]:
        """What becomes of each tensor, for a config and a spelling; the same for reading and writing."""

    def spelling(self, card: ModelCard) -> Mapping[str, Any]:
        """The spelling to write a model in; the published one where there are several."""
        return {}

    def rewritten_for(
        self, card: ModelCard, tensors: "Mapping[str, Tensor]"
    ) -> "tuple[ModelCard, Mapping[str, Tensor]]":
        """The same model in this format's words, for writing; as it is where the format has those it comes with.

        Its answers stay the same: a projection may become a head whose bias is zeros.
        """
        return card, tensors

    def second_choice(self, card: ModelCard) -> bool:
        """Of a family's formats that hold the model, one that the others go before."""
        return False

    def nest(self, tensors: Mapping[str, Any]) -> Mapping[str, Any]:
        """The state dict as the origin wraps it, for containers that nest."""
        return tensors

    def head_apart(self, tensors: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Tensors of the weights file, and the tree of a linear head's own file, {} where there is none."""
        return tensors, {}

    def sidecar_files(self, card: ModelCard) -> Mapping[str, bytes]:
        """Files that the peer expects beside the weights (config.json, preprocessor_config.json…).

        Raises: CheckpointError naming what the format cannot hold.
        """
        return {}

    def beside(self, card: ModelCard, spelling: Mapping[str, Any]) -> Mapping[str, bytes]:
        """As `sidecar_files`, for a layout where those depend on how the tensors are spelled."""
        return self.sidecar_files(card)
