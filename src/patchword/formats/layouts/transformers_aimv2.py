"""AIMv2's image tower in transformers' format. Source: transformers 5.23, `models/aimv2`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from patchword.formats.checkpoint import Checkpoint
from patchword.formats.facts import Facts
from patchword.formats.layouts.transformers_blocks import Names
from patchword.formats.layouts.transformers_clip import ImageTower
from patchword.formats.layouts.transformers_config import CONFIG
from patchword.formats.layouts.transformers_tower import Family, Tower
from patchword.formats.ops import Joined, Op, Shape
from patchword.formats.rows import Row, token
from patchword.model.config import HeadConfig, PatchConfig, TokensConfig, ViTConfig
from patchword.model.kinds import AttentionPool, Learned, MeanPool, Positions, RMSNormConfig, SinCos2d
from patchword.weights.card import ModelCard

Size = tuple[int, int]
_NAMES = Names(
    layer="encoder.layers.{}.",
    q="attention.q_proj",
    k="attention.k_proj",
    v="attention.v_proj",
    out="attention.out_proj",
    norm1="rms_norm1",
    norm2="rms_norm2",
    first=("ffn.gate_proj", "ffn.up_proj"),
    second="ffn.down_proj",
)

_SINES = (
    "positions are inferred to be fixed sines (is_native), since there is no {0}: no {1} states it; a file that lost "
    "its table looks the same"
)


class TransformersAIMv2(ImageTower):
    """`Aimv2VisionModel` with its attention pool or without, alone or in `Aimv2Model`, whose projection is read too.

    Without a pool, the embedding is the mean of the patches. Positions are a table or fixed sines (`is_native`). Its code
    takes a table's own image size alone, so that for others it is resampled as timm does.
    """

    name = "transformers-aimv2"
    title = "transformers AIMv2"
    types = ("aimv2_vision_model", "aimv2")
    family = Family(
        act="silu", eps=1e-5, dim=1024, heads=8, processor="CLIP", norm="rms", eps_key="rms_norm_eps",
        published_heads={1024: 8, 1536: 12, 2048: 16, 3072: 24},
    )  # fmt: skip
    spellings = (_NAMES,)
    bare, head_class, head_prefix = "Aimv2VisionModel", None, ""
    kernel, norm_name = "embeddings.patch_embed", "rms_norm"
    bias = "any"
    always_biased = False

    @property
    def tower_type(self) -> str:
        return self.types[0]

    def evidence_without_config(self, checkpoint: Checkpoint, prefix: str) -> str | None:
        return "rms_norm" if checkpoint.has(f"{prefix}embeddings.rms_norm.weight") else None

    def patch(self, tower: Tower) -> tuple[PatchConfig, int]:
        patch, channels = super().patch(tower)
        return replace(patch, norm_output=True), channels

    def tokens(self, tower: Tower) -> TokensConfig:
        return TokensConfig(class_token=False)

    def image(self, tower: Tower, patch: Size, tokens: TokensConfig) -> Size:
        if not self._is_native(tower):
            return super().image(tower, patch, tokens)
        stated, usual = tower.declared.size("image_size"), (self.family.image,) * 2
        return tower.facts.require("image_size", (stated, CONFIG), (usual, "the default of its class"))

    def positions(self, tower: Tower) -> Positions:
        return SinCos2d(last_included=False) if self._is_native(tower) else Learned()

    def _is_native(self, tower: Tower) -> bool:
        """By config.json if there is one: a file that lost its table has the same names as one with sines."""
        if tower.declared.values:
            return bool(tower.declared.flag("is_native"))
        return not tower.has(self.positions_name)

    def doubts(self, checkpoint: Checkpoint, facts: Facts, config: ViTConfig) -> tuple[str, ...]:
        if checkpoint.config_json or isinstance(config.positions, Learned):
            return ()
        return (_SINES.format(self.positions_name, CONFIG),)

    def head(self, tower: Tower) -> HeadConfig:
        # An incomplete pool still counts as a pool, so that the plan reports its missing tensors.
        pools, name = bool(tower.checkpoint.under(f"{tower.prefix}head.")), "visual_projection.weight"
        there = tower.checkpoint.has(name)
        return HeadConfig(
            pool=tower.pool(AttentionPool(plain=True) if pools else MeanPool()),
            projection=tower.checkpoint.shape_of(name, 2)[0] if there else 0,
            num_classes=0,
        )

    def more_rows(self, prefix: str) -> Iterable[Row]:
        return ((f"{prefix}embeddings.rms_norm.{{wb}}", "patch_embed.norm_output.{wb}"),)

    def head_rows(self, spelling: Mapping[str, Any]) -> Iterable[Row]:
        head = f"{spelling['prefix']}head."
        yield f"{head}cls_token", "pool.probe", token
        yield (f"{head}k_proj.{{wb}}", f"{head}v_proj.{{wb}}"), "pool.kv.{wb}", _keys_and_values
        yield f"{head}output_proj.{{wb}}", "pool.proj.{wb}"
        yield "visual_projection.weight", "projection.weight"

    # Writing ---------------------------------------------------------------------------------

    def config_json(self, card: ModelCard) -> Mapping[str, Any]:
        values = dict(super().config_json(card))
        values["rms_norm_eps"] = values.pop("layer_norm_eps")
        return values

    def words(self, card: ModelCard) -> Mapping[str, Any]:
        config = card.config
        return {
            "qkv_bias": config.attention.bias == "qkv",
            "mlp_bias": config.mlp.bias,
            "use_head": isinstance(config.head.pool, AttentionPool),
            "is_native": isinstance(config.positions, SinCos2d),
        }

    def rewritten_for(self, card: ModelCard, tensors: Any) -> Any:
        return card, tensors

    def lacks(self, config: ViTConfig) -> Iterable[tuple[bool, str]]:
        yield from super().lacks(config)
        yield not isinstance(config.norm, RMSNormConfig), "layer norm"
        yield not config.patch.norm_output, "a patch embedding without a norm after it"
        yield not config.patch.bias, "a patch embedding without bias"
        biased = config.attention.bias == "qkv"
        yield biased != config.attention.out_bias, "biases in one part of attention alone"
        yield config.head.projection > 0, "a projection without the text tower"
        pool = config.head.pool
        own = isinstance(pool, AttentionPool) and pool.num_heads not in (None, config.attention.num_heads)
        yield own, "an attention pool with its own number of heads"


def _keys_and_values(ours: Sequence[Shape]) -> Op:
    return Joined(2)
