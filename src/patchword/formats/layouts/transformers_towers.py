"""Image towers of other systems whose blocks are CLIP's or SigLIP's, in transformers' format.

Source: transformers 5.23, `models/{owlvit,git,mlcd,idefics3,phi4_multimodal,janus}`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from patchword.errors import CheckpointError
from patchword.formats.checkpoint import Checkpoint
from patchword.formats.layouts.transformers_clip import NAMES, TransformersCLIP, TransformersSigLIP
from patchword.formats.layouts.transformers_config import CONFIG
from patchword.formats.layouts.transformers_tower import Family, Tower
from patchword.formats.ops import Op, Reshaped, Shape
from patchword.formats.rows import Rows
from patchword.model.config import HeadConfig, TokensConfig, ViTConfig
from patchword.model.kinds import (
    AttentionPool,
    ClassPool,
    IndexCoordinates,
    MeanPool,
    Positions,
    Resample,
    Rope2d,
)
from patchword.weights.card import ModelCard

Size = tuple[int, int]
_NEAREST = Resample(interpolation="nearest", antialias=False)


class _OneTower(TransformersCLIP):
    """A CLIP tower whose class has neither a projection nor a classifier. types: of the tower alone comes first."""

    head_class = None
    spellings = (NAMES,)

    @property
    def tower_type(self) -> str:
        return self.types[0]

    def _projects(self, checkpoint: Checkpoint) -> bool:
        return checkpoint.has("visual_projection.weight")

    def lacks(self, config: ViTConfig) -> Iterable[tuple[bool, str]]:
        yield from super().lacks(config)
        yield config.head.projection > 0, "a projection without the text tower"


class TransformersOwlViT(_OneTower):
    """`OwlViTVisionModel` and `Owlv2VisionModel`, alone or in a detector, whose heads are left in the file."""

    name = "transformers-owlvit"
    title = "transformers OWL-ViT"
    types = ("owlvit_vision_model", "owlv2_vision_model", "owlvit", "owlv2")
    family = Family(act="quick_gelu", eps=1e-5, image=768, processor="OwlViT")
    bare = "OwlViTVisionModel"
    entry_name = "pre_layernorm"

    def evidence_without_config(self, checkpoint: Checkpoint, prefix: str) -> str | None:
        there = checkpoint.has(f"{prefix}{self.class_token}", f"{prefix}{self.entry_name}.weight")
        return self.entry_name if there else None


class TransformersGIT(_OneTower):
    """`GitVisionModel`. Its last norm applies to all tokens."""

    name = "transformers-git"
    title = "transformers GIT"
    types = ("git_vision_model",)
    family = Family(act="quick_gelu", eps=1e-5, processor="CLIP")
    bare = "GitVisionModel"

    def evidence_without_config(self, checkpoint: Checkpoint, prefix: str) -> str | None:
        return None  # its tensors are CLIP's

    def head(self, tower: Tower) -> HeadConfig:
        return HeadConfig(pool=tower.pool(ClassPool()), num_classes=0)


class TransformersMLCD(_OneTower):
    """`MLCDVisionModel`: rotary positions of row and column, learned angles for the class token, and no table."""

    name = "transformers-mlcd"
    title = "transformers MLCD"
    types = ("mlcd_vision_model", "mlcd")
    family = Family(act="gelu", eps=1e-5, dim=1664, heads=16, image=336, processor="CLIP")
    bare, head_prefix = "MLCDVisionModel", ""

    def evidence_without_config(self, checkpoint: Checkpoint, prefix: str) -> str | None:
        return "class_pos_emb" if checkpoint.has(f"{prefix}class_pos_emb") else None

    def image(self, tower: Tower, patch: Size, tokens: TokensConfig) -> Size:
        shared = tower.declared.whole("num_key_value_groups")
        if shared not in (None, 1):
            raise tower.declared.wrong("num_key_value_groups", "1, which all published models have")
        stated, usual = tower.declared.size("image_size"), (self.family.image,) * 2
        return tower.facts.require("image_size", (stated, CONFIG), (usual, "the default of its class"))

    def positions(self, tower: Tower) -> Positions:
        rope = tower.declared.part("rope_parameters")
        theta = rope.number("rope_theta")
        if theta is not None and theta <= 0:
            raise rope.wrong("rope_theta", "above 0")
        theta = tower.facts.require("rope_theta", (theta, CONFIG), (10_000.0, "the default of its class"))
        return Rope2d(theta=theta, coordinates=IndexCoordinates(), class_angles=True)

    def rows(self, spelling: Mapping[str, Any]) -> Rows:
        yield from super().rows(spelling)
        yield f"{spelling['prefix']}class_pos_emb", "attention_positions.class_angles", _one_row

    def words(self, card: ModelCard) -> Mapping[str, Any]:
        rope = card.config.positions
        theta = rope.theta if isinstance(rope, Rope2d) else 10_000.0
        return {"rope_parameters": {"rope_type": "axial", "rope_theta": theta}}


def _one_row(ours: Sequence[Shape]) -> Op:
    return Reshaped((1, *ours[0]))


class TransformersIdefics(TransformersSigLIP):
    """`Idefics3VisionTransformer`, Idefics2's and SmolVLM's: SigLIP whose positions are those of the nearest stored patch."""

    name = "transformers-idefics3"
    title = "transformers Idefics3"
    types: tuple[str, ...] = ("idefics3_vision", "idefics2_vision", "smolvlm_vision")
    family = Family(act="gelu_tanh", eps=1e-6, dim=1152, heads=16, processor="Idefics3")
    bare, head_class, head_prefix = "Idefics3VisionTransformer", None, ""
    resample = _NEAREST

    @property
    def tower_type(self) -> str:
        return self.types[0]

    def evidence_without_config(self, checkpoint: Checkpoint, prefix: str) -> str | None:
        return None  # its tensors are SigLIP's

    def words(self, card: ModelCard) -> Mapping[str, Any]:
        return {}

    def lacks(self, config: ViTConfig) -> Iterable[tuple[bool, str]]:
        yield from super().lacks(config)
        yield isinstance(config.head.pool, AttentionPool), "attention pooling"


class TransformersPhi4(TransformersIdefics):
    """`Phi4MultimodalVisionModel`: as Idefics3's, with SigLIP's attention pool."""

    name = "transformers-phi4-multimodal"
    title = "transformers Phi-4 multimodal"
    types = ("phi4_multimodal_vision",)
    family = Family(act="gelu_tanh", eps=1e-6, dim=1152, heads=16, image=448, processor="Phi4Multimodal")
    bare = "Phi4MultimodalVisionModel"

    def words(self, card: ModelCard) -> Mapping[str, Any]:
        # With any other kernel, 5.23 hides later patches from earlier ones, which the authors' code does not.
        return {"attn_implementation": "eager"}

    def lacks(self, config: ViTConfig) -> Iterable[tuple[bool, str]]:
        yield from TransformersSigLIP.lacks(self, config)
        yield not isinstance(config.head.pool, AttentionPool), "a model without attention pooling"


class TransformersJanus(TransformersSigLIP):
    """`JanusVisionModel`: SigLIP's blocks with another name for the projection after attention, and no pool."""

    name = "transformers-janus"
    title = "transformers Janus"
    types = ("janus_vision_model",)
    family = Family(act="gelu", eps=1e-6, dim=1024, heads=16, image=384, processor="Janus")
    spellings = (replace(NAMES, out="self_attn.projection_layer"),)
    bare, head_class, head_prefix = "JanusVisionModel", None, ""
    bias = "any"
    always_biased = False

    @property
    def tower_type(self) -> str:
        return self.types[0]

    def recognise(self, checkpoint: Checkpoint) -> str | None:
        found = super().recognise(checkpoint)
        if found is not None and any(name.endswith("self_attn.q_norm.weight") for name in checkpoint.tensors):
            raise CheckpointError(
                f"{checkpoint.name}: a Janus tower with normalised queries and keys, which its own code cannot run",
                "use a published model, none of which has them",
            )
        return found

    def evidence_without_config(self, checkpoint: Checkpoint, prefix: str) -> str | None:
        there = checkpoint.has(f"{prefix}encoder.layers.0.self_attn.projection_layer.weight")
        classes = checkpoint.has(f"{prefix}{self.class_token}")
        return "self_attn.projection_layer" if there and not classes else None

    def head(self, tower: Tower) -> HeadConfig:
        return HeadConfig(pool=tower.pool(MeanPool()), num_classes=0)

    def config_json(self, card: ModelCard) -> Mapping[str, Any]:
        values = dict(super().config_json(card))
        del values["intermediate_size"]
        return values

    def words(self, card: ModelCard) -> Mapping[str, Any]:
        config = card.config
        return {"attention_bias": config.attention.bias == "qkv", "mlp_ratio": config.mlp_dim / config.dim}

    def lacks(self, config: ViTConfig) -> Iterable[tuple[bool, str]]:
        yield from super().lacks(config)
        yield isinstance(config.head.pool, AttentionPool), "attention pooling"
        yield int(config.dim * (config.mlp_dim / config.dim)) != config.mlp_dim, "an MLP of this width"
