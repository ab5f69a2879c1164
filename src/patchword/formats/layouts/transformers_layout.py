"""The base class of transformers' layouts: how they are recognised, read and written."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from patchword.errors import CheckpointError
from patchword.formats.checkpoint import Checkpoint
from patchword.formats.facts import Facts
from patchword.formats.layout import Description, Ignored, Layout, Rule
from patchword.formats.layouts.transformers_blocks import Names, mask_token
from patchword.formats.layouts.transformers_config import (
    CONFIG,
    JsonConfig,
    config_of,
    labels,
    model_type,
    sizes,
    written,
)
from patchword.formats.layouts.transformers_preprocess import FILE, usual_preprocess, write_preprocess
from patchword.formats.layouts.transformers_tower import Family, Tower
from patchword.formats.restate import (
    first_as_class,
    keys,
    restated,
    sines_as_table,
    with_zero_biases,
    without_periods,
    zeros_for_positions,
)
from patchword.formats.rows import Row, Rows, rows_alone, rules_of, table, token, unchanged
from patchword.images.preprocess import Preprocess
from patchword.model.config import HeadConfig, PatchConfig, TokensConfig, ViTConfig
from patchword.model.kinds import ClassPool, Learned, Pool, Positions, Resample
from patchword.model.shapes import shapes
from patchword.weights.card import ModelCard

if TYPE_CHECKING:
    from torch import Tensor

Size = tuple[int, int]
# Backbone prefixes in classes with a head.
PREFIXES = (
    "vit.",
    "deit.",
    "ijepa.",
    "beit.",
    "data2vec_vision.",
    "dinov2.",
    "dinov2_with_registers.",
    "vision_model.",
)


class TransformersLayout(Layout):
    """One model type of transformers, described by names, the facts of its class, and what differs in reading.

    types: `model_type` in config.json. bare, head_class: its classes without and with a classifier; head_prefix: of the
    backbone's names in the second. class_token, positions_name, norm_name: below the prefix. pools: the pooling of its classes. mean_std: of the published models, if not the processor's.
    """

    types: tuple[str, ...]
    family: Family
    spellings: tuple[Names, ...]
    bare: str
    head_class: str | None = None
    head_prefix: str
    kernel = "embeddings.patch_embeddings.projection"
    class_token = "embeddings.cls_token"
    positions_name = "embeddings.position_embeddings"
    norm_name = "layernorm"
    # Tokens and tables of most classes have a batch axis. Some norm the pooled vector alone.
    batched = True
    norms_pooled = False
    pools: Pool = ClassPool()
    mean_std: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    entry_norm = False
    resample = Resample(antialias=False)
    # Its classes pool in one way, which no option of theirs changes.
    reader_options = ("num_heads", "image_size", "act", "decoder_num_heads", "norm_pix_loss")

    @property
    def anchor(self) -> str:
        """A tensor of the embeddings."""
        return f"{self.kernel}.weight"

    def recognise(self, checkpoint: Checkpoint) -> str | None:
        prefix = self.prefix(checkpoint)
        if prefix is None or self.names(checkpoint, prefix) is None:
            return None
        stated = model_type(checkpoint)
        if stated is not None:
            fits = stated in self.types and self.holds_kernel(checkpoint, prefix)
            return f'model_type "{stated}" in {CONFIG}' if fits else None
        why = self.evidence_without_config(checkpoint, prefix)
        return None if why is None else f"{prefix}{self.anchor} and {why}"

    def holds_kernel(self, checkpoint: Checkpoint, prefix: str) -> bool:
        """Whether the patch embedding matches this layout (two types share its name)."""
        return True

    @abstractmethod
    def evidence_without_config(self, checkpoint: Checkpoint, prefix: str) -> str | None:
        """The evidence without config.json; None if the file is of another type."""

    def prefix(self, checkpoint: Checkpoint) -> str | None:
        """The prefix of the tower's names: one that its classes use, or one that all names share."""
        anchor = self.anchor
        found = [name.removesuffix(anchor) for name in checkpoint.tensors if name.endswith(anchor)]
        if len(found) != 1 or not (not found[0] or found[0].endswith(".")):
            return None
        theirs = found[0] in ("", *PREFIXES) or len(checkpoint.under(found[0])) == len(checkpoint.tensors)
        return found[0] if theirs else None

    def names(self, checkpoint: Checkpoint, prefix: str) -> Names | None:
        """The spelling of the file's first block."""
        for names in self.spellings:
            first = names.block(prefix, 0)
            if checkpoint.has(f"{first}{names.q}.weight", f"{first}{names.first[0]}.weight"):
                return names
        return None

    # Names -----------------------------------------------------------------------------------

    def rows(self, spelling: Mapping[str, Any]) -> Rows:
        """The names in a file of this spelling."""
        prefix = spelling["prefix"]
        norm, positions = (
            spelling.get("norm", f"{prefix}{self.norm_name}"),
            ("positions.prefix", "positions.grid"),
        )
        return (
            (f"{prefix}{self.kernel}.{{wb}}", "patch_embed.proj.{wb}"),
            (f"{prefix}{self.class_token}", "prefix.class_token", token if self.batched else unchanged),
            *self.more_rows(prefix),
            (f"{prefix}{self.positions_name}", positions, table if self.batched else rows_alone),
            spelling["names"].rows(prefix, spelling.get("biases", "")),
            (f"{norm}.{{wb}}", "norm.{wb}"),
            *(((f"{norm}.{{wb}}", "pooled_norm.{wb}"),) if self.norms_pooled else ()),
            *self.head_rows(spelling),
        )

    def more_rows(self, prefix: str) -> Iterable[Row]:
        """Those that few classes have."""
        return ()

    def head_rows(self, spelling: Mapping[str, Any]) -> Iterable[Row]:
        return (("classifier.{wb}", "head.{wb}"),)

    def rules(self, description: Description) -> Iterable[Rule | Ignored]:
        config, spelling = description.config, description.spelling
        yield from rules_of(self.rows(spelling), shapes(config), config.depth)
        yield from self.ignored(description, spelling["prefix"])

    def ignored(self, description: Description, prefix: str) -> Iterable[Rule | Ignored]:
        """What else the file has, or its readers expect."""
        yield mask_token(prefix)

    def spelling(self, card: ModelCard) -> Mapping[str, Any]:
        prefix = self.head_prefix if card.config.head.num_classes else ""
        return {"prefix": prefix, "names": self.spellings[0]}

    # Reading ---------------------------------------------------------------------------------

    def describe(self, checkpoint: Checkpoint, facts: Facts) -> Description:
        tower = self.tower(checkpoint, facts)
        patch, channels = self.patch(tower)
        tokens = self.tokens(tower)
        image = self.image(tower, patch.size, tokens)
        config = tower.config(
            image=image,
            channels=channels,
            patch=patch,
            tokens=tokens,
            positions=self.positions(tower),
            head=self.head(tower),
            act=self.act(tower),
            entry_norm=self.entry_norm,
        )
        notes = self.doubts(checkpoint, facts, config)
        return tower.description(config, self.usual(config), notes=notes, **self.spelled(tower))

    def tower(self, checkpoint: Checkpoint, facts: Facts) -> Tower:
        prefix = self.prefix(checkpoint) or ""
        names = self.names(checkpoint, prefix)
        assert names is not None, "recognised by its names"
        return Tower(
            checkpoint=checkpoint,
            facts=facts,
            declared=self.declared(checkpoint),
            family=self.family,
            prefix=prefix,
            names=names,
        )

    def declared(self, checkpoint: Checkpoint) -> JsonConfig:
        """The tower's part of config.json."""
        return config_of(checkpoint)

    def patch(self, tower: Tower) -> tuple[PatchConfig, int]:
        """The patch config, and the channels of an image."""
        return tower.patch(self.kernel)

    def tokens(self, tower: Tower) -> TokensConfig:
        return TokensConfig()

    def image(self, tower: Tower, patch: Size, tokens: TokensConfig) -> Size:
        """The image size, from the rows of the position table."""
        rows = tower.shape(self.positions_name, 3 if self.batched else 2)[-2]
        return tower.image(tower.grid(rows - tokens.class_token - tokens.distillation_token, patch), patch)

    def positions(self, tower: Tower) -> Positions:
        return Learned(resample=self.resample)

    def head(self, tower: Tower) -> HeadConfig:
        return HeadConfig(pool=tower.pool(self.pools), num_classes=tower.classifier())

    def act(self, tower: Tower) -> str | None:
        """The activation, if the class ignores the one in the file."""
        return None

    def usual(self, config: ViTConfig) -> Preprocess:
        """The preprocessing of the published models."""
        found = usual_preprocess(self.family.processor, config.image.channels, config.image.size)
        if self.mean_std is not None and config.image.channels == 3:
            found = replace(found, mean=self.mean_std[0], std=self.mean_std[1])
        return found

    def doubts(self, checkpoint: Checkpoint, facts: Facts, config: ViTConfig) -> tuple[str, ...]:
        return ()

    def spelled(self, tower: Tower) -> Mapping[str, Any]:
        """The spelling besides prefix and names."""
        return {}

    # Writing ---------------------------------------------------------------------------------

    # Biases that the class always has: on queries, keys and values, and on the patch embedding.
    bias: Literal["qkv", "qv", "any"] = "qkv"
    patch_bias = True
    always_biased = True

    def rewritten_for(
        self, card: ModelCard, tensors: "Mapping[str, Tensor]"
    ) -> "tuple[ModelCard, Mapping[str, Tensor]]":
        steps = (first_as_class, sines_as_table, without_periods, zeros_for_positions)
        if self.bias == "any":
            return restated(card, tensors, *steps)
        return restated(card, tensors, *steps, keys(self.bias), self._with_biases, with_zero_biases)

    def _with_biases(
        self, config: ViTConfig, tensors: "Mapping[str, Tensor]"
    ) -> "tuple[ViTConfig, Mapping[str, Tensor]]":
        """Biases that the class always has."""
        patch = replace(config.patch, bias=config.patch.bias or self.patch_bias)
        attention, mlp = replace(config.attention, out_bias=True), replace(config.mlp, bias=True)
        head = replace(config.head, bias=True)
        return replace(config, head=head, attention=attention, mlp=mlp, patch=patch), tensors

    def config_json(self, card: ModelCard) -> Mapping[str, Any]:
        """model_type, architectures, and the settings of the class."""
        return {
            "model_type": self.types[0],
            "architectures": [self.architecture(card)],
            **sizes(card),
            **labels(card),
            **self.words(card),
        }

    def architecture(self, card: ModelCard) -> str:
        return self.head_class if card.config.head.num_classes and self.head_class else self.bare

    def words(self, card: ModelCard) -> Mapping[str, Any]:
        """Settings of config.json that few classes have."""
        return {}

    def sidecar_files(self, card: ModelCard) -> Mapping[str, bytes]:
        return self.beside(card, {})

    def beside(self, card: ModelCard, spelling: Mapping[str, Any]) -> Mapping[str, bytes]:
        headless = bool(card.config.head.num_classes) and self.head_class is None
        unbiased = self.always_biased and card.config.attention.bias == "none"
        usual = ((headless, "a classifier"), (unbiased, "attention without biases"))
        lacks = next((what for wrong, what in (*usual, *self.lacks(card.config)) if wrong), None)
        if lacks is not None:
            raise CheckpointError(f"{self.title} does not support {lacks}", "choose another format")
        config = {**self.config_json(card), **self.spelled_words(card, spelling)}
        return {CONFIG: written(config), FILE: write_preprocess(card.preprocess)}

    def spelled_words(self, card: ModelCard, spelling: Mapping[str, Any]) -> Mapping[str, Any]:
        """Settings of config.json that a file of this spelling has."""
        return {}

    def lacks(self, config: ViTConfig) -> Iterable[tuple[bool, str]]:
        """What our reader reads and the class cannot build, as (whether the model has it, words)."""
        return ()


def is_square(size: Size) -> bool:
    return size[0] == size[1]


def index_table(pattern: str) -> Ignored:
    return Ignored(pattern, "an index table that patchword computes")
