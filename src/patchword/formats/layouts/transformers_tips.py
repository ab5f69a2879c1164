"""TIPSv2's image tower in transformers' format. Source: transformers 5.23, `models/tipsv2`.

Published files and default output have the names of Google's own code; transformers 5 has others in memory.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from patchword.formats.checkpoint import Checkpoint
from patchword.formats.facts import Facts
from patchword.formats.layout import Description, Ignored, Rule
from patchword.formats.layouts.transformers_blocks import MASK_REASON, Names
from patchword.formats.layouts.transformers_clip import TEXT
from patchword.formats.layouts.transformers_config import JsonConfig, config_of
from patchword.formats.layouts.transformers_dino import FIVE, FIVE_SWIGLU, TransformersDINOv2Registers
from patchword.formats.layouts.transformers_preprocess import usual_preprocess
from patchword.formats.layouts.transformers_tower import Family
from patchword.images.preprocess import Preprocess
from patchword.model.config import ViTConfig
from patchword.model.kinds import Resample
from patchword.weights.card import ModelCard

_PUBLISHED = Names(
    layer="blocks.{}.",
    q="attn.qkv",
    k="attn.qkv",
    v="attn.qkv",
    out="attn.proj",
    norm1="norm1",
    norm2="norm2",
    first=("mlp.c_fc",),
    second="mlp.c_proj",
    scales=("ls1.gamma", "ls2.gamma"),
)


_PUBLISHED_SWIGLU = replace(_PUBLISHED, first=("mlp.w12",), second="mlp.w3")


class _TIPSv2(TransformersDINOv2Registers):
    """DINOv2 with registers, whose positions are resized bilinearly with antialias."""

    name = "transformers-tipsv2"
    title = "transformers TIPSv2"
    types = ("tipsv2_vision_model", "tipsv2")
    family = Family(eps=1e-6, image=448, processor="Tipsv2")
    resample = Resample(interpolation="bilinear")
    bare, head_class, head_prefix = "Tipsv2VisionModel", None, ""

    def declared(self, checkpoint: Checkpoint) -> JsonConfig:
        declared = config_of(checkpoint)
        return declared.part("vision_config") if "vision_config" in declared.values else declared

    def usual(self, config: ViTConfig) -> Preprocess:
        return usual_preprocess("Tipsv2", config.image.channels, config.image.size)

    def ignored(self, description: Description, prefix: str) -> Iterable[Rule | Ignored]:
        yield from super().ignored(description, prefix)
        yield Ignored(r"(text_(model|encoder)[.].*|temperature)", TEXT[0].reason)

    def ratio_of(self, config: ViTConfig) -> float:
        ratio = config.mlp_dim / config.dim
        exact = not config.mlp.gated and int(config.dim * ratio) == config.mlp_dim
        return ratio if exact else super().ratio_of(config)


class _TIPSv2InMemory(_TIPSv2):
    """The names of transformers 5."""

    spellings = (FIVE, FIVE_SWIGLU)

    def evidence_without_config(self, checkpoint: Checkpoint, prefix: str) -> str | None:
        return None  # its tensors are DINOv2's


class TransformersTIPSv2(_TIPSv2):
    """`Tipsv2VisionModel`, alone or in `Tipsv2Model`, under either set of names."""

    spellings = (_PUBLISHED, _PUBLISHED_SWIGLU)
    kernel, class_token, positions_name, norm_name = "patch_embed.proj", "cls_token", "pos_embed", "norm"
    registers_name, mask_name = "register_tokens", "mask_token"

    def __init__(self) -> None:
        self.in_memory = _TIPSv2InMemory()

    def prefix(self, checkpoint: Checkpoint) -> str | None:
        whole = "vision_encoder."
        return whole if checkpoint.has(f"{whole}{self.anchor}") else super().prefix(checkpoint)

    def recognise(self, checkpoint: Checkpoint) -> str | None:
        return super().recognise(checkpoint) or self.in_memory.recognise(checkpoint)

    def evidence_without_config(self, checkpoint: Checkpoint, prefix: str) -> str | None:
        there = checkpoint.has(f"{prefix}blocks.0.mlp.c_fc.weight")
        return "mlp.c_fc with LayerScale" if there and checkpoint.stored.container != "npz" else None

    def describe(self, checkpoint: Checkpoint, facts: Facts) -> Description:
        if super().recognise(checkpoint) is None:
            return self.in_memory.describe(checkpoint, facts)
        return super().describe(checkpoint, facts)

    def rules(self, description: Description) -> Iterable[Rule | Ignored]:
        if description.spelling["names"] in self.in_memory.spellings:
            return self.in_memory.rules(description)
        return super().rules(description)

    def ignored(self, description: Description, prefix: str) -> Iterable[Rule | Ignored]:
        yield from super().ignored(description, prefix)
        yield Ignored(rf"{prefix.replace('.', '[.]')}{self.mask_name}", MASK_REASON)

    def spelling(self, card: ModelCard) -> Mapping[str, Any]:
        return {"prefix": "", "names": _PUBLISHED_SWIGLU if card.config.mlp.gated else _PUBLISHED}
