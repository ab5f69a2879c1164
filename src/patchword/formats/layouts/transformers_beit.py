"""BEiT and data2vec-vision in transformers' format. Source: transformers 5.23, `models/{beit,data2vec}`."""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from patchword.errors import CheckpointError, MissingFact
from patchword.formats.checkpoint import Checkpoint
from patchword.formats.layout import Description, Ignored, Rule
from patchword.formats.layouts.transformers_config import CONFIG
from patchword.formats.layouts.transformers_layout import TransformersLayout, index_table, is_square
from patchword.formats.layouts.transformers_tower import Family, Tower
from patchword.formats.layouts.transformers_vit import FIVE, PUBLISHED
from patchword.formats.rows import Row
from patchword.model.config import HeadConfig, TokensConfig, ViTConfig
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
from patchword.weights.card import ModelCard

Size = tuple[int, int]
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
    bare, head_class, head_prefix = "BeitModel", "BeitForImageClassification", "beit."
    norms_pooled = True
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

    def image(self, tower: Tower, patch: Size, tokens: TokensConfig) -> Size:
        return tower.image(self._grid(tower, patch), patch)

    def positions(self, tower: Tower) -> Positions:
        return _positions(tower)

    def head(self, tower: Tower) -> HeadConfig:
        return self._head(tower)[0]

    def spelled(self, tower: Tower) -> Mapping[str, Any]:
        return {"norm": self._head(tower)[1], "shared": _table(tower) in _OF_ALL.values()}

    def _grid(self, tower: Tower, patch: Size) -> Size:
        if tower.has(TransformersLayout.positions_name):
            return tower.grid(tower.shape(TransformersLayout.positions_name, 3)[1] - 1, patch)
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
        head, inner = card.config.head, card.config.inner_positions
        prefix = self.head_prefix if head.num_classes else ""
        norm = f"{prefix}{'pooler.' if head.norm == 'pooled' else ''}layernorm"
        shared = isinstance(inner, RelativeBias) and inner.shared
        return {"prefix": prefix, "names": PUBLISHED, "norm": norm, "shared": shared}

    def head_rows(self, spelling: Mapping[str, Any]) -> Iterable[Row]:
        prefix, names = spelling["prefix"], spelling["names"]
        if spelling["shared"]:
            yield f"{prefix}{_OF_ALL[names]}", "attention_positions.tables.0"
        else:
            yield f"{names.block(prefix, '{i}')}{_OF_BLOCK[names]}", "attention_positions.tables.{i}"
        yield from super().head_rows(spelling)

    def ignored(self, description: Description, prefix: str) -> Iterable[Rule | Ignored]:
        yield from super().ignored(description, prefix)
        yield Ignored(r"lm_head[.](weight|bias)", "the masked-image pre-training head")
        yield index_table(rf"{re.escape(prefix)}.*relative_position_index")
        if not description.config.head.num_classes:
            pattern = rf"{re.escape(prefix)}pooler[.]layernorm[.](weight|bias)"
            yield Ignored(pattern, "config.json disables the pooler")

    # Writing ---------------------------------------------------------------------------------

    def words(self, card: ModelCard) -> Mapping[str, Any]:
        config, inner = card.config, card.config.inner_positions
        shared = inner.shared if isinstance(inner, RelativeBias) else None
        return {
            "use_absolute_position_embeddings": isinstance(config.added_positions, Learned),
            "use_relative_position_bias": shared is False,
            "use_shared_relative_position_bias": shared is True,
            "use_mean_pooling": config.head.norm != "tokens",
            "layer_scale_init_value": float(config.block.layer_scale or 0.0),
            "drop_path_rate": config.block.drop_path,
        }

    def lacks(self, config: ViTConfig) -> Iterable[tuple[bool, str]]:
        inner, square = config.inner_positions, is_square(config.grid_size)
        if isinstance(inner, RelativeBias):
            yield not square, "non-square windows (transformers 5.23 confuses their rows and columns)"
            yield not is_square(config.patch.size), "relative bias with non-square patches (5.23)"
        learned = isinstance(config.added_positions, Learned)
        head = config.head
        unpooled = head.norm == "pooled" and not head.num_classes and not self.bare_pools
        yield unpooled, "mean pooling without a classifier"
        # Mean pooling without a head to use it: the output is the tokens of the last block.
        yield head.norm == "none" and (self.bare_pools or head.num_classes > 0), "a model without a last norm"
        yield learned and not square, "a non-square position grid (transformers 5.23 assumes a square)"


class TransformersData2Vec(TransformersBEiT):
    """`Data2VecVisionModel` and `Data2VecVisionForImageClassification`: BEiT under different names."""

    name = "transformers-data2vec"
    title = "transformers Data2VecVision"
    types = ("data2vec-vision",)
    bare, head_class = "Data2VecVisionModel", "Data2VecVisionForImageClassification"
    head_prefix = _DATA2VEC
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
    learned = (
        tower.has(TransformersLayout.positions_name)
        or tower.declared.values.get("use_absolute_position_embeddings") is True
    )
    added = Learned(resample=Resample(antialias=False)) if learned else None
    table = _table(tower)
    inner = None if table is None else RelativeBias(shared=table in _OF_ALL.values(), rule="bilinear")
    if added is not None and inner is not None:
        return Combined(added=added, inner=inner)
    return added or inner or NoPositions()
