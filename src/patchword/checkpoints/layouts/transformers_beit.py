"""BEiT and data2vec-vision in transformers' format. Source: transformers 5.23, `models/{beit,data2vec}`."""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from patchword.checkpoints.card import ModelCard
from patchword.checkpoints.checkpoint import Checkpoint
from patchword.checkpoints.facts import Facts
from patchword.checkpoints.layout import Description, Ignored, Rule, rule
from patchword.checkpoints.layouts.blocks import both, patches, token
from patchword.checkpoints.layouts.transformers_blocks import block_rules, mask_token, position_rule
from patchword.checkpoints.layouts.transformers_config import CONFIG, labels, require, sizes
from patchword.checkpoints.layouts.transformers_preprocess import usual_preprocess
from patchword.checkpoints.layouts.transformers_tower import Family, Tower, TransformersLayout
from patchword.checkpoints.layouts.transformers_vit import FIVE, PUBLISHED
from patchword.errors import CheckpointError, MissingFact
from patchword.model.config import HeadConfig, ViTConfig
from patchword.model.kinds import (
    ClassPool,
    Combined,
    Learned,
    MeanPool,
    NoPositions,
    Positions,
    RelativeBias,
    Resample,
)

Size = tuple[int, int]
_KERNEL = "embeddings.patch_embeddings.projection"
_POSITIONS = "embeddings.position_embeddings"
_DATA2VEC = "data2vec_vision."
_TABLE = "relative_position_bias_table"
# Names of the tables: per block (after the layer's name), or shared by all (after the prefix).
_OF_BLOCK = {
    PUBLISHED: f"attention.attention.relative_position_bias.{_TABLE}",
    FIVE: f"relative_position_bias.{_TABLE}",
}
_OF_ALL = {PUBLISHED: f"encoder.relative_position_bias.{_TABLE}", FIVE: f"shared_position_bias.{_TABLE}"}


class TransformersBEiT(TransformersLayout):
    """`BeitModel`, `BeitForImageClassification`, and the encoder of `BeitForMaskedImageModeling`.

    With mean pooling, the norm applies to the mean of the patches. Otherwise it applies to all tokens, and
    the class token is read. In a pre-training file, the norm is outside the backbone.
    """

    name = "transformers-beit"
    title = "transformers BEiT"
    types = ("beit",)
    family = Family(eps=1e-12, processor="Beit")
    spellings = (PUBLISHED, FIVE)
    bias = "qv"
    # Class name prefix, and the prefix of its backbone's tensors.
    classes, head_prefix = "Beit", "beit."
    # Whether the bare class pools when mean pooling is used.
    bare_pools = True

    def evidence_without_config(self, checkpoint: Checkpoint, prefix: str) -> str | None:
        return None if prefix.endswith(_DATA2VEC) else self._evidence(checkpoint, prefix)

    def _evidence(self, checkpoint: Checkpoint, prefix: str) -> str | None:
        names = self.names(checkpoint, prefix)
        for candidates in (_OF_ALL, _OF_BLOCK):
            for name in candidates.values():
                if any(stored.startswith(prefix) and stored.endswith(name) for stored in checkpoint.tensors):
                    return name
        scaled = names is not None and checkpoint.has(f"{names.block(prefix, 0)}lambda_1")
        return "lambda_1" if scaled else None

    def describe(self, checkpoint: Checkpoint, facts: Facts) -> Description:
        tower = self.tower(checkpoint, facts)
        patch, channels = tower.patch(_KERNEL)
        grid = self._grid(tower, patch.size)
        head, norm = self._head(tower)
        config = tower.config(
            image=tower.image(grid, patch.size),
            channels=channels,
            patch=patch,
            positions=_positions(tower),
            head=head,
        )
        usual = usual_preprocess("Beit", channels, config.image.size)
        return tower.description(config, usual, norm=norm)

    def _grid(self, tower: Tower, patch: Size) -> Size:
        if tower.has(_POSITIONS):
            return tower.grid(tower.shape(_POSITIONS, 3)[1] - 1, patch)
        table = _table(tower)
        stated = tower.declared.size("image_size")
        if table is None:
            image = tower.facts.require(
                "image_size", (stated, CONFIG), ((224, 224), "the default of its class")
            )
            return image[0] // patch[0], image[1] // patch[1]
        length = tower.shape(table, 2)[0] - 3
        for size, source in ((tower.facts.options.image_size, "option"), (stated, CONFIG)):
            if size is not None:
                rows, columns = size[0] // patch[0], size[1] // patch[1]
                if (2 * rows - 1) * (2 * columns - 1) == length:
                    tower.facts.record("grid", (rows, columns), source)
                    return rows, columns
        side = math.isqrt(max(length, 0))
        if side * side != length or side % 2 == 0 or (stated and not tower.facts.options.image_size):
            raise MissingFact(
                f"{tower.checkpoint.name}: {table} has {length} rows, "
                f"which match no square grid{f' and not the {stated[0]} x {stated[1]} pixels in {CONFIG}' if stated else ''}",
                "pass --image-size HEIGHTxWIDTH with the size the model was trained for",
                "image_size",
            )
        tower.facts.record("grid", ((side + 1) // 2,) * 2, "the square position table")
        return (side + 1) // 2, (side + 1) // 2

    def _head(self, tower: Tower) -> tuple[HeadConfig, str]:
        """The head config, and the name of the norm before it."""
        checkpoint, classes = tower.checkpoint, tower.classifier()
        inner, outer, pooled = (
            checkpoint.has(f"{name}.weight")
            for name in (f"{tower.prefix}layernorm", "layernorm", f"{tower.prefix}pooler.layernorm")
        )
        if tower.prefix and inner and outer:
            raise CheckpointError(
                f"{checkpoint.name}: it has both {tower.prefix}layernorm and layernorm, "
                "which the backbone does not support",
                "load this model with transformers",
            )
        mean = tower.declared.flag("use_mean_pooling")
        if pooled and mean is not False:
            norm = f"{tower.prefix}pooler.layernorm"
            return HeadConfig(pool=tower.pool(MeanPool()), norm="pooled", num_classes=classes), norm
        norm = "layernorm" if outer else f"{tower.prefix}layernorm"
        there: Literal["tokens", "none"] = "tokens" if inner or outer else "none"
        return HeadConfig(pool=tower.pool(ClassPool()), norm=there, num_classes=classes), norm

    def spelling(self, card: ModelCard) -> Mapping[str, Any]:
        head = card.config.head
        prefix = self.head_prefix if head.num_classes else ""
        norm = f"{prefix}pooler.layernorm" if head.norm == "pooled" else f"{prefix}layernorm"
        return {"prefix": prefix, "names": PUBLISHED, "norm": norm}

    def rules(self, description: Description) -> Iterable[Rule | Ignored]:
        config, spelling = description.config, description.spelling
        prefix, head = spelling["prefix"], config.head
        yield from patches(config, f"{prefix}{_KERNEL}")
        yield token(f"{prefix}embeddings.cls_token", "prefix.class_token", config)
        if isinstance(config.added_positions, Learned):
            yield position_rule(f"{prefix}{_POSITIONS}", config)
        yield from _table_rules(description)
        yield from block_rules(description)
        if head.norm != "none":
            yield from both(spelling["norm"], "pooled_norm" if head.norm == "pooled" else "norm")
        if head.num_classes:
            yield from both("classifier", "head")
        yield mask_token(prefix)
        yield Ignored(r"lm_head[.](weight|bias)", "the masked-image pre-training head")
        yield Ignored(
            rf"{re.escape(prefix)}.*relative_position_index", "an index table that patchword computes"
        )
        if not head.num_classes:
            yield Ignored(
                rf"{re.escape(prefix)}pooler[.]layernorm[.](weight|bias)",
                "config.json disables the pooler",
            )

    # Writing ---------------------------------------------------------------------------------

    def config_json(self, card: ModelCard) -> Mapping[str, Any]:
        config, inner = card.config, card.config.inner_positions
        shared = inner.shared if isinstance(inner, RelativeBias) else None
        scale = config.block.layer_scale
        return {
            "model_type": self.types[0],
            "architectures": [
                f"{self.classes}{'ForImageClassification' if config.head.num_classes else 'Model'}"
            ],
            **sizes(card),
            **labels(card),
            "use_absolute_position_embeddings": isinstance(config.added_positions, Learned),
            "use_relative_position_bias": shared is False,
            "use_shared_relative_position_bias": shared is True,
            "use_mean_pooling": config.head.norm != "tokens",
            "layer_scale_init_value": float(scale or 0.0),
            "drop_path_rate": config.block.drop_path,
        }

    def check(self, config: ViTConfig) -> None:
        super().check(config)
        head, inner = config.head, config.inner_positions
        pooled = (
            head.pool == MeanPool() and head.norm == "pooled" and (head.num_classes > 0 or self.bare_pools)
        )
        # Mean pooling without a head to use it: the output is the tokens of the last block.
        bare = (
            head.norm == "none" and head.pool == ClassPool() and not head.num_classes and not self.bare_pools
        )
        require(
            self.title,
            (isinstance(config.added_positions, Learned | NoPositions), f"{config.positions.kind!r} positions"),
            (isinstance(inner, RelativeBias | NoPositions), f"{config.positions.kind!r} positions"),
            (not isinstance(inner, RelativeBias) or inner.prefix_rows, "relative bias without class token rows"),
            (
                not isinstance(inner, RelativeBias) or config.grid_size[0] == config.grid_size[1],
                "non-square windows (transformers 5.23 confuses their rows and columns)",
            ),
            (
                not isinstance(inner, RelativeBias) or config.patch.size[0] == config.patch.size[1],
                "relative bias with non-square patches (5.23)",
            ),
            (
                not isinstance(config.added_positions, Learned) or config.grid_size[0] == config.grid_size[1],
                "a non-square position grid (transformers 5.23 assumes a square)",
            ),
            (config.attention.bias == "qv", f"bias {config.attention.bias!r} (only queries and values have one)"),
            (config.attention.out_bias and config.mlp.bias and config.patch.bias, "linear layers without biases"),
            (not config.block.entry_norm, "a norm before the blocks"),
            (not config.mlp.gated, "gated MLPs"),
            (config.tokens.names == ("class", "patches"), "tokens other than the class token and the patches"),
            (not head.projection and not head.pre_logits, "a projection or pre_logits"),
            (
                pooled or bare or (head.norm == "tokens" and head.pool == ClassPool()),
                f"pooling by {head.pool.kind!r} with norm {head.norm!r}",
            ),
        )  # fmt: skip


class TransformersData2Vec(TransformersBEiT):
    """`Data2VecVisionModel` and `Data2VecVisionForImageClassification`: BEiT under different names."""

    name = "transformers-data2vec"
    title = "transformers Data2VecVision"
    types = ("data2vec-vision",)
    classes, head_prefix = "Data2VecVision", _DATA2VEC
    bare_pools = False

    def evidence_without_config(self, checkpoint: Checkpoint, prefix: str) -> str | None:
        """None without its prefix: the tensors then match BEiT, which is read instead, with the same outputs."""
        return self._evidence(checkpoint, prefix) if prefix.endswith(_DATA2VEC) else None


def _table(tower: Tower) -> str | None:
    """The name of the table without the prefix; None if there is none. Raises: CheckpointError if both kinds exist."""
    places = [
        name
        for names in (PUBLISHED, FIVE)
        for name in (_OF_ALL[names], f"{names.layer.format(0)}{_OF_BLOCK[names]}")
        if tower.has(name)
    ]
    if len(places) > 1:
        raise CheckpointError(
            f"{tower.checkpoint.name}: it has both shared and per-block relative positions "
            f"({', '.join(places)}), which the backbone does not support",
            "load this model with transformers; no published model has both",
        )
    if places:
        return places[0]
    for stated, name in (
        ("use_shared_relative_position_bias", _OF_ALL[tower.names]),
        ("use_relative_position_bias", f"{tower.names.layer.format(0)}{_OF_BLOCK[tower.names]}"),
    ):
        if tower.declared.values.get(stated) is True:
            tower.shape(name, 2)  # raises because it is missing
    return None


def _positions(tower: Tower) -> Positions:
    learned = tower.has(_POSITIONS) or tower.declared.values.get("use_absolute_position_embeddings") is True
    added = Learned(resample=Resample(antialias=False)) if learned else None
    table = _table(tower)
    inner = None if table is None else RelativeBias(shared=table in _OF_ALL.values(), rule="bilinear")
    if added is not None and inner is not None:
        return Combined(added=added, inner=inner)
    return added or inner or NoPositions()


def _table_rules(description: Description) -> Iterable[Rule]:
    config, prefix, names = description.config, description.spelling["prefix"], description.spelling["names"]
    inner = config.inner_positions
    if not isinstance(inner, RelativeBias):
        return
    if inner.shared:
        yield rule(f"{prefix}{_OF_ALL[names]}", "attention_positions.tables.0")
        return
    for index in range(config.depth):
        theirs = f"{names.block(prefix, index)}{_OF_BLOCK[names]}"
        yield rule(theirs, f"attention_positions.tables.{index}")
