"""The image towers of BLIP, BLIP-2 and InstructBLIP in transformers' format. Source: transformers 5.23, `models/blip*`."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from patchword.formats.checkpoint import Checkpoint
from patchword.formats.layout import Description, Ignored, Rule
from patchword.formats.layouts.transformers_blocks import Names
from patchword.formats.layouts.transformers_clip import TEXT, ImageTower
from patchword.formats.layouts.transformers_tower import Family, Tower
from patchword.formats.rows import Row
from patchword.model.config import HeadConfig, ViTConfig
from patchword.weights.card import ModelCard

_NAMES = Names(
    layer="encoder.layers.{}.",
    q="self_attn.qkv",
    k="self_attn.qkv",
    v="self_attn.qkv",
    out="self_attn.projection",
    norm1="layer_norm1",
    norm2="layer_norm2",
    first=("mlp.fc1",),
    second="mlp.fc2",
)
# BLIP-2's larger tower: both have the same tensors, but other epsilons.
_WIDTH_OF_2 = 1408


class TransformersBLIP(ImageTower):
    """`BlipVisionModel`, alone or in a complete model. The embedding is the normed class token, which BLIP's own heads read.

    (`pooler_output` of the class norms that token a second time.) `BlipForImageTextRetrieval` has a projection.
    """

    name = "transformers-blip"
    title = "transformers BLIP"
    types: tuple[str, ...] = ("blip_vision_model", "blip")
    family = Family(act="gelu", eps=1e-5, image=384, processor="Blip")
    spellings = (_NAMES,)
    bare: str = "BlipVisionModel"
    head_class, head_prefix = None, ""
    positions_name = "embeddings.position_embedding"
    batched = True

    @property
    def tower_type(self) -> str:
        return self.types[0]

    def evidence_without_config(self, checkpoint: Checkpoint, prefix: str) -> str | None:
        return None if self._is_2(checkpoint, prefix) else "self_attn.qkv and class_embedding"

    def _is_2(self, checkpoint: Checkpoint, prefix: str) -> bool:
        wide = checkpoint.shape(f"{prefix}{self.anchor}")[0] == _WIDTH_OF_2
        return wide or bool(checkpoint.under("qformer."))

    def head(self, tower: Tower) -> HeadConfig:
        shape = tower.checkpoint.tensors.get("vision_proj.weight")
        width = 0 if shape is None else tower.checkpoint.shape_of("vision_proj.weight", 2)[0]
        return HeadConfig(
            pool=tower.pool(self.pools), projection=width, projection_bias=width > 0, num_classes=0
        )

    def head_rows(self, spelling: Mapping[str, Any]) -> Iterable[Row]:
        return (("vision_proj.{wb}", "projection.{wb}"),)

    def ignored(self, description: Description, prefix: str) -> Iterable[Rule | Ignored]:
        yield from super().ignored(description, prefix)
        text = r"(text_(encoder|decoder|proj|projection|model)|itm_head|embeddings[.](word|position)_|language_(model|projection)).*"
        yield Ignored(text, TEXT[0].reason)
        yield Ignored(r"(qformer[.].*|query_tokens)", "the Q-Former, which reads the tower's tokens")
        yield Ignored(
            r"visual_projection[.]weight", "projects a token that BlipModel, a deprecated class, norms twice"
        )

    def lacks(self, config: ViTConfig) -> Iterable[tuple[bool, str]]:
        yield from super().lacks(config)
        yield config.image.channels != 3, "images without three channels"
        yield config.head.projection > 0, "a projection without the text tower"


class TransformersBLIP2(TransformersBLIP):
    """`Blip2VisionModel`, and the same tower in InstructBLIP: EVA-CLIP's giant in its published models."""

    name = "transformers-blip-2"
    title = "transformers BLIP-2"
    types = (
        "blip_2_vision_model",
        "instructblip_vision_model",
        "instructblipvideo_vision_model",
        "blip-2",
        "instructblip",
        "instructblipvideo",
    )
    family = Family(act="gelu", eps=1e-6, dim=1408, heads=16, processor="Blip")
    bare = "Blip2VisionModel"
    always_biased = False
    bias: Literal["qkv", "qv", "any"] = "qkv"

    def evidence_without_config(self, checkpoint: Checkpoint, prefix: str) -> str | None:
        return "self_attn.qkv and the width 1408" if self._is_2(checkpoint, prefix) else None

    def head(self, tower: Tower) -> HeadConfig:
        return HeadConfig(pool=tower.pool(self.pools), num_classes=0)

    def ignored(self, description: Description, prefix: str) -> Iterable[Rule | Ignored]:
        yield from super().ignored(description, prefix)
        yield Ignored(r"(vision|text)_(proj|projection)[.].*", "a projection of the Q-Former's output")

    def words(self, card: ModelCard) -> Mapping[str, Any]:
        return {"qkv_bias": card.config.attention.bias != "none"}
