"""The base class of layouts: how to detect one, what it states, and the rules to read and write it.

A new format is one file in `layouts/` with a Layout in it, and one line in `layouts/__init__.py`.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from patchword.errors import MissingFact
from patchword.formats.checkpoint import Checkpoint
from patchword.formats.ops import Op, Same
from patchword.formats.restate import Step, restated
from patchword.images.preprocess import Preprocess
from patchword.model.config import ViTConfig
from patchword.model.decoder import DecoderConfig
from patchword.weights.card import ModelCard

if TYPE_CHECKING:
    from torch import Tensor

    from patchword.formats.facts import Facts

Container = Literal["safetensors", "torch", "npz"]


@dataclass(frozen=True)
class Rule:
    """theirs: names in the file; ours: names in the model's state dict; op: how one becomes the other."""

    theirs: tuple[str, ...]
    ours: tuple[str, ...]
    op: Op = field(default_factory=Same)


@dataclass(frozen=True)
class Ignored:
    """Tensors of the file that the model does not use, each with its reason for the report.

    pattern: a regular expression for the complete name. Never written.
    """

    pattern: str
    reason: str

    def names(self, name: str) -> bool:
        return re.fullmatch(self.pattern, name) is not None


def rule(theirs: str | tuple[str, ...], ours: str | tuple[str, ...], op: Op | None = None) -> Rule:
    """Make a Rule; a single name counts as a tuple of one."""
    return Rule(
        (theirs,) if isinstance(theirs, str) else theirs,
        (ours,) if isinstance(ours, str) else ours,
        Same() if op is None else op,
    )


@dataclass(frozen=True, kw_only=True)
class Description:
    """Describes a file's model once every fact is known.

    spelling: what the rules need besides the config, e.g. {"prefix": "vit."}: the variant of the
    layout that this file uses. untrained: parts of the config that no file fills ("head").
    decoder: of a masked autoencoder. decoder_fault: why the file's decoder cannot be described.
    """

    config: ViTConfig
    preprocess: Preprocess
    classes: tuple[str, ...] = ()
    spelling: Mapping[str, Any] = field(default_factory=dict)
    untrained: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    decoder: DecoderConfig | None = None
    decoder_fault: MissingFact | None = None


class Layout(ABC):
    """One way to store a ViT. name: for `convert --to`. title: for messages."""

    name: str
    title: str
    # Other models with the same tensors and how they differ; "" if there are none. Loading adds it as a note unless
    # published_names or the origin's own wrappers identify the file.
    doubt: str = ""
    published_names: tuple[str, ...] = ()
    own_wrappers: tuple[str, ...] = ()
    # Layouts whose files have the same tensors; only a file's name may distinguish them.
    twins: tuple[str, ...] = ()
    container: Container = "safetensors"
    # `model_type` in transformers' config.json.
    types: tuple[str, ...] = ()
    # The file that `convert` writes, in the folder of the sidecar_files if there are any.
    file_name: str = "model.safetensors"
    # The pattern (--drop) of the tensors of a masked autoencoder's decoder; "" if the format has no place for one.
    decoder_pattern: str = ""
    # What rewrites a model for this format, in this order. Its outputs stay the same: a projection may become a head with
    # a zero bias.
    steps: tuple[Step, ...] = ()
    # Options that its readers take for facts that the format has no place for.
    reader_options: tuple[str, ...] = (
        "num_heads",
        "image_size",
        "pool",
        "act",
        "decoder_num_heads",
        "norm_pix_loss",
    )

    @abstractmethod
    def recognise(self, checkpoint: Checkpoint) -> str | None:
        """Evidence for this layout, e.g. "blocks.0.attn.qkv next to config.json"; None if it does not match."""

    @abstractmethod
    def describe(self, checkpoint: Checkpoint, facts: "Facts") -> Description:
        """Describe the model; every fact goes through `facts` with its source."""

    @abstractmethod
    def rules(self, description: Description) -> Iterable[Rule | Ignored]:
        """The rule for each tensor, for a config and a spelling; used for reading and writing."""

    def spelling(self, card: ModelCard) -> Mapping[str, Any]:
        """The spelling for writing a model; the published one if there are several."""
        return {}

    def rewritten_for(
        self, card: ModelCard, tensors: "Mapping[str, Tensor]"
    ) -> "tuple[ModelCard, Mapping[str, Tensor]]":
        """The same model after the format's `steps`; unchanged if the format can express it as it is."""
        return restated(card, tensors, *self.steps)

    def second_choice(self, card: ModelCard) -> bool:
        """Whether the family's other formats come first for this model."""
        return False

    def nest(self, tensors: Mapping[str, Any]) -> Mapping[str, Any]:
        """The state dict wrapped as by the origin, for nested containers."""
        return tensors

    def written_beside(self, card: ModelCard) -> Mapping[str, Any]:
        """What else the container holds next to the state dict: facts that its origin stores there."""
        return {}

    def head_apart(self, tensors: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Tensors of the weights file, and the tree for a separate linear head file, {} if there is none."""
        return tensors, {}

    def sidecar_files(self, card: ModelCard) -> Mapping[str, bytes]:
        """Files that the format's readers expect next to the weights (config.json, preprocessor_config.json…).

        Raises: CheckpointError that lists what the format cannot hold.
        """
        return {}

    def beside(self, card: ModelCard, spelling: Mapping[str, Any]) -> Mapping[str, bytes]:
        """As `sidecar_files`, for layouts where these depend on the spelling."""
        return self.sidecar_files(card)
