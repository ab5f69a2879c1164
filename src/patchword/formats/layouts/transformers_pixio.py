"""Pixio in transformers' format. Source: transformers 5.23, `models/pixio`."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from patchword.formats.checkpoint import Checkpoint
from patchword.formats.layouts.transformers_blocks import Names
from patchword.formats.layouts.transformers_dino import mlp_ratio
from patchword.formats.layouts.transformers_layout import TransformersLayout, is_square
from patchword.formats.layouts.transformers_preprocess import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    usual_preprocess,
)
from patchword.formats.layouts.transformers_tower import Family, Tower
from patchword.formats.rows import Rows, table
from patchword.images.preprocess import Preprocess
from patchword.model.config import HeadConfig, TokensConfig, ViTConfig
from patchword.model.kinds import Learned, MeanPool, Positions
from patchword.weights.card import ModelCard

Size = tuple[int, int]
_PUBLISHED = Names(
    layer="encoder.layer.{}.",
    q="attention.attention.query",
    k="attention.attention.key",
    v="attention.attention.value",
    out="attention.output.dense",
    norm1="norm1",
    norm2="norm2",
    first=("intermediate.dense",),
    second="output.dense",
)
_FIVE = Names(
    layer="layers.{}.",
    q="attention.q_proj",
    k="attention.k_proj",
    v="attention.v_proj",
    out="attention.o_proj",
    norm1="layernorm_before",
    norm2="layernorm_after",
    first=("mlp.fc1",),
    second="mlp.fc2",
)


class TransformersPixio(TransformersLayout):
    """`PixioModel`: several class tokens with positions, whose mean is the embedding."""

    name = "transformers-pixio"
    title = "transformers Pixio"
    types = ("pixio",)
    family = Family(act="gelu", eps=1e-6, dim=1280, heads=16, image=256, processor="Bit")
    spellings = (_PUBLISHED, _FIVE)
    bare, head_prefix = "PixioModel", ""
    always_biased = False

    def names(self, checkpoint: Checkpoint, prefix: str) -> Names | None:
        """ViT's blocks have the same names for queries; the norms distinguish them, or the class tokens."""
        found = super().names(checkpoint, prefix)
        if found is None or not checkpoint.has(f"{found.block(prefix, 0)}{found.norm1}.weight"):
            return None
        return found

    def evidence_without_config(self, checkpoint: Checkpoint, prefix: str) -> str | None:
        name = f"{prefix}{self.class_token}"
        count = checkpoint.shape(name)[1:2] if checkpoint.has(name) else ()
        return "several class tokens" if count and count[0] > 1 else None

    def tokens(self, tower: Tower) -> TokensConfig:
        """The first is the class token, the others are registers with positions."""
        count = tower.shape(self.class_token, 3)[1]
        tower.declared.agrees("n_cls_tokens", count, self.class_token)
        return TokensConfig(num_registers=count - 1)

    def image(self, tower: Tower, patch: Size, tokens: TokensConfig) -> Size:
        rows = tower.shape(self.positions_name, 3)[1]
        return tower.image(tower.grid(rows - tokens.num_prefix, patch), patch)

    def positions(self, tower: Tower) -> Positions:
        return Learned(covers="all", resample=self.resample)

    def head(self, tower: Tower) -> HeadConfig:
        return HeadConfig(pool=tower.pool(MeanPool(over="prefix")), num_classes=0)

    def usual(self, config: ViTConfig) -> Preprocess:
        """As Pixio's own evaluation: both sides resized, ImageNet's mean and standard deviation."""
        found = usual_preprocess("ViT", config.image.channels, config.image.size)
        found = replace(found, resample=replace(found.resample, interpolation="bicubic"))
        three = config.image.channels == 3
        return replace(found, mean=IMAGENET_MEAN, std=IMAGENET_STD) if three else found

    def rows(self, spelling: Mapping[str, Any]) -> Rows:
        token = f"{spelling['prefix']}{self.class_token}"
        for row in super().rows(spelling):
            several = isinstance(row, tuple) and row[0] == token
            yield (token, ("prefix.class_token", "prefix.registers"), table) if several else row

    # Writing ---------------------------------------------------------------------------------

    def config_json(self, card: ModelCard) -> Mapping[str, Any]:
        values = dict(super().config_json(card))
        del values["intermediate_size"]
        return values

    def words(self, card: ModelCard) -> Mapping[str, Any]:
        config = card.config
        return {
            "n_cls_tokens": config.tokens.num_prefix,
            "mlp_ratio": mlp_ratio(config, self.title),
            "qkv_bias": config.attention.bias == "qkv",
            "drop_path_rate": config.block.drop_path,
        }

    def lacks(self, config: ViTConfig) -> Iterable[tuple[bool, str]]:
        square = is_square(config.grid_size)
        yield not square, "a non-square position grid (transformers 5.23 assumes a square)"
        yield config.mlp.gated, "a gated MLP"
        yield config.tokens.distillation_token, "a distillation token"
