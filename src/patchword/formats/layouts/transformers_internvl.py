"""InternViT in transformers' format. Source: transformers 5.23, `models/internvl`."""

from collections.abc import Iterable, Mapping
from typing import Any

from patchword.errors import CheckpointError
from patchword.formats.checkpoint import Checkpoint
from patchword.formats.layouts.transformers_blocks import Names
from patchword.formats.layouts.transformers_config import CONFIG
from patchword.formats.layouts.transformers_layout import TransformersLayout, is_square
from patchword.formats.layouts.transformers_preprocess import IMAGENET_MEAN, IMAGENET_STD
from patchword.formats.layouts.transformers_tower import Family, Tower
from patchword.model.config import HeadConfig, TokensConfig, ViTConfig
from patchword.model.kinds import ClassPool, LayerNormConfig, MeanPool, NoPositions, Positions
from patchword.weights.card import ModelCard

Size = tuple[int, int]
_NAMES = Names(
    layer="encoder.layer.{}.",
    q="attention.q_proj",
    k="attention.k_proj",
    v="attention.v_proj",
    out="attention.projection_layer",
    norm1="layernorm_before",
    norm2="layernorm_after",
    first=("mlp.fc1",),
    second="mlp.fc2",
    scales=("lambda_1", "lambda_2"),
)


class TransformersInternViT(TransformersLayout):
    """`InternVLVisionModel`, alone or in InternVL. With `use_mean_pooling` there is no last norm, and the patches' mean is read."""

    name = "transformers-internvit"
    title = "transformers InternViT"
    types = ("internvl_vision",)
    family = Family(act="gelu", eps=1e-6, dim=1024, heads=16, image=448, processor="GotOcr2", norm="either")
    spellings = (_NAMES,)
    bare, head_prefix = "InternVLVisionModel", ""
    bias = "any"
    always_biased = False
    mean_std = IMAGENET_MEAN, IMAGENET_STD

    def recognise(self, checkpoint: Checkpoint) -> str | None:
        found = super().recognise(checkpoint)
        if found is not None and any(name.endswith("attention.q_norm.weight") for name in checkpoint.tensors):
            raise CheckpointError(
                f"{checkpoint.name}: an InternViT whose norms of queries and keys cover all heads at once (InternViT-6B), "
                "which the backbone does not support",
                "load it with transformers, or use InternViT-300M",
            )
        return found

    def evidence_without_config(self, checkpoint: Checkpoint, prefix: str) -> str | None:
        there = checkpoint.has(f"{prefix}encoder.layer.0.attention.projection_layer.weight")
        return "attention.projection_layer" if there else None

    def image(self, tower: Tower, patch: Size, tokens: TokensConfig) -> Size:
        if self._adds_positions(tower):
            return super().image(tower, patch, tokens)
        stated, usual = tower.declared.size("image_size"), (self.family.image,) * 2
        return tower.facts.require("image_size", (stated, CONFIG), (usual, "the default of its class"))

    def positions(self, tower: Tower) -> Positions:
        return super().positions(tower) if self._adds_positions(tower) else NoPositions()

    def _adds_positions(self, tower: Tower) -> bool:
        """By config.json alone: a file that lost its table has the same names as one that never had any."""
        return tower.declared.flag("use_absolute_position_embeddings") is not False

    def head(self, tower: Tower) -> HeadConfig:
        normed = tower.has(f"{self.norm_name}.weight")
        if normed and not isinstance(tower.norm(), LayerNormConfig):
            raise CheckpointError(
                f"{tower.checkpoint.name}: an InternViT with RMS norm in its blocks and layer norm after them, which the "
                "backbone does not support",
                "load it with transformers",
            )
        pool = tower.pool(ClassPool() if normed else MeanPool())
        return HeadConfig(pool=pool, norm="tokens" if normed else "none", num_classes=0)

    def words(self, card: ModelCard) -> Mapping[str, Any]:
        config = card.config
        return {
            "attention_bias": config.attention.bias == "qkv",
            "layer_scale_init_value": config.block.layer_scale,
            "norm_type": "layer_norm" if isinstance(config.norm, LayerNormConfig) else "rms_norm",
            "use_absolute_position_embeddings": not isinstance(config.positions, NoPositions),
            "use_mean_pooling": config.head.norm == "none",
            "use_qk_norm": False,
        }

    def lacks(self, config: ViTConfig) -> Iterable[tuple[bool, str]]:
        yield (
            not is_square(config.grid_size),
            "a non-square position grid (transformers 5.23 assumes a square)",
        )
        yield config.block.layer_scale is None, "blocks without LayerScale"
        yield not config.patch.bias, "a patch embedding without bias"
        yield not config.mlp.bias, "an MLP without biases"
        yield not config.attention.out_bias, "attention without an output bias"
        rms = not isinstance(config.norm, LayerNormConfig)
        yield rms and config.head.norm != "none", "RMS norm after the blocks"
