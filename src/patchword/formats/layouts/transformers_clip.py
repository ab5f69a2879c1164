"""CLIP's and SigLIP's image towers in transformers' format. Source: transformers 5.23, `models/{clip,siglip*}`."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from patchword.errors import CheckpointError
from patchword.formats.checkpoint import Checkpoint, square
from patchword.formats.facts import Facts
from patchword.formats.layout import Description, Ignored, Rule, rule
from patchword.formats.layouts.transformers_blocks import Names
from patchword.formats.layouts.transformers_config import JsonConfig, config_of, labels, sizes
from patchword.formats.layouts.transformers_layout import TransformersLayout, index_table, is_square
from patchword.formats.layouts.transformers_tower import Family, Tower
from patchword.formats.ops import Constant, Op, Parted, Permuted, Shape
from patchword.formats.rows import Row, Rows, token
from patchword.images.geometry import Patches
from patchword.images.preprocess import Preprocess
from patchword.model.config import HeadConfig, PatchConfig, TokensConfig, ViTConfig
from patchword.model.kinds import AttentionPool, ClassPool, MeanPool, Resample
from patchword.weights.card import ModelCard

NAMES = Names(
    layer="encoder.layers.{}.",
    q="self_attn.q_proj",
    k="self_attn.k_proj",
    v="self_attn.v_proj",
    out="self_attn.out_proj",
    norm1="layer_norm1",
    norm2="layer_norm2",
    first=("mlp.fc1",),
    second="mlp.fc2",
)
# AltCLIP's type in transformers 5.
_SINGULAR = replace(NAMES, layer="encoder.layer.{}.")
TEXT = (
    Ignored(r"text_model[.].*|text_projection[.]weight", "the text tower"),
    Ignored(r"logit_scale|logit_bias", "scale or bias of the image-text similarity"),
)

# Classes whose image tower outputs vectors in the space shared with text.
_PROJECTS = re.compile(r"(WithProjection|CLIPModel|Clip2Model)$")


class ImageTower(TransformersLayout):
    """Common part of the three layouts. types: `model_type` of the complete model and of the image tower."""

    spellings: tuple[Names, ...] = (NAMES,)
    head_prefix = "vision_model."
    kernel = "embeddings.patch_embedding"
    class_token = "embeddings.class_embedding"
    positions_name = "embeddings.position_embedding.weight"
    norm_name = "post_layernorm"
    batched = False

    @property
    def tower_type(self) -> str:
        """`model_type` of the image tower alone."""
        return self.types[1]

    def declared(self, checkpoint: Checkpoint) -> JsonConfig:
        declared = config_of(checkpoint)
        part = "vision_config" if "vision_config" in declared.values else "vision_config_dict"
        return declared.part(part) if declared.values.get(part) else declared

    def spelling(self, card: ModelCard) -> Mapping[str, Any]:
        return {"prefix": self.head_prefix, "names": self.spellings[0]}

    def ignored(self, description: Description, prefix: str) -> Iterable[Rule | Ignored]:
        yield index_table(re.escape(prefix) + r"embeddings[.]position_ids")
        yield from TEXT

    def config_json(self, card: ModelCard) -> Mapping[str, Any]:
        """Classes with a head read the complete model's config, others the tower's."""
        vision = {"model_type": self.tower_type, **sizes(card), **self.words(card)}
        architectures = {"architectures": [self.architecture(card)]}
        if not card.config.head.num_classes:
            return vision | architectures
        return {"model_type": self.types[0], "vision_config": vision, **architectures, **labels(card)}

    def lacks(self, config: ViTConfig) -> Iterable[tuple[bool, str]]:
        whole = is_square(config.image.size) and is_square(config.patch.size)
        yield not whole, "non-square images or patches (5.23)"


class TransformersCLIP(ImageTower):
    """`CLIPVisionModel`, `CLIPVisionModelWithProjection`, `CLIPForImageClassification`; the image tower of `CLIPModel`.

    The last norm applies only to the pooled class token; a classifier reads the mean of unnormalised patches.
    MetaCLIP 2, Chinese CLIP, AltCLIP and CLIPSeg have the same image tower and are read too. entry_name: of the norm
    before the blocks.
    """

    name = "transformers-clip"
    title = "transformers CLIP"
    types: tuple[str, ...] = (
        "clip",
        "clip_vision_model",
        "metaclip_2",
        "metaclip_2_vision_model",
        "chinese_clip",
        "chinese_clip_vision_model",
        "altclip",
        "altclip_vision_model",
        "clipseg",
        "clipseg_vision_model",
    )
    family = Family(act="quick_gelu", eps=1e-5, processor="CLIP")
    spellings: tuple[Names, ...] = (NAMES, _SINGULAR)
    bare: str = "CLIPVisionModel"
    head_class: str | None = "CLIPForImageClassification"
    entry_name = "pre_layrnorm"
    patch_bias, entry_norm, norms_pooled = False, True, True

    def evidence_without_config(self, checkpoint: Checkpoint, prefix: str) -> str | None:
        there = checkpoint.has(f"{prefix}{self.class_token}")
        others = any(map(checkpoint.has, (f"{prefix}pre_layernorm.weight", f"{prefix}class_pos_emb")))
        return "class_embedding" if there and not others else None

    def _projects(self, checkpoint: Checkpoint) -> bool:
        """Whether the model has a projection, according to its tensors, to config.json or to the text tower."""
        classes = checkpoint.config_json.get("architectures") or []
        named = isinstance(classes, list) and any(_PROJECTS.search(str(name)) for name in classes)
        there = any(map(checkpoint.has, ("visual_projection.weight", "text_projection.weight")))
        return named or there

    def patch(self, tower: Tower) -> tuple[PatchConfig, int]:
        return tower.patch(self.kernel, bias=False)

    def head(self, tower: Tower) -> HeadConfig:
        classes, checkpoint = tower.classifier(), tower.checkpoint
        projects = not classes and self._projects(checkpoint)
        return HeadConfig(
            projection=checkpoint.shape_of("visual_projection.weight", 2)[0] if projects else 0,
            pool=tower.pool(MeanPool() if classes else ClassPool()),
            norm="none" if classes else "pooled",
            num_classes=classes,
        )

    def doubts(self, checkpoint: Checkpoint, facts: Facts, config: ViTConfig) -> tuple[str, ...]:
        stated = checkpoint.config_json or facts.options.act is not None
        return () if stated else ("there is no config.json; if the model is LAION's, pass --act gelu",)

    def rows(self, spelling: Mapping[str, Any]) -> Rows:
        prefix = spelling["prefix"]
        yield from super().rows(spelling)
        yield f"{prefix}{self.entry_name}.{{wb}}", "entry_norm.{wb}"
        yield "visual_projection.weight", "projection.weight"

    def ignored(self, description: Description, prefix: str) -> Iterable[Rule | Ignored]:
        head, dim = description.config.head, description.config.dim
        if head.norm == "none":
            # The class has one that its classifier never uses.
            for part, value in (("weight", 1.0), ("bias", 0.0)):
                yield rule(f"{prefix}post_layernorm.{part}", (), Constant(((dim,),), value))
            pattern = re.escape(prefix) + r"post_layernorm[.](weight|bias)"
            yield Ignored(pattern, "the classifier reads patches before the norm")
        if head.num_classes:
            yield Ignored(r"visual_projection[.]weight", "the classifier does not use it")
        yield from super().ignored(description, prefix)

    def architecture(self, card: ModelCard) -> str:
        return f"{super().architecture(card)}{'WithProjection' if card.config.head.projection else ''}"

    def words(self, card: ModelCard) -> Mapping[str, Any]:
        head = card.config.head
        return {"projection_dim": head.projection} if head.projection else {}

    def lacks(self, config: ViTConfig) -> Iterable[tuple[bool, str]]:
        yield from super().lacks(config)
        yield config.patch.bias, "a patch embedding with bias"


class TransformersSigLIP(ImageTower):
    """`SiglipVisionModel` (attention pool) and `SiglipForImageClassification` (mean of all tokens).

    SigLIP 2 at a fixed size uses this format too; of `SiglipModel`, the image tower is read.
    """

    name = "transformers-siglip"
    title = "transformers SigLIP"
    types: tuple[str, ...] = ("siglip", "siglip_vision_model")
    family = Family(act="gelu_tanh", eps=1e-6, processor="Siglip", published_heads={1536: 16})
    bare: str = "SiglipVisionModel"
    head_class: str | None = "SiglipForImageClassification"
    # Of the patch embedding: a convolution, or a matrix of rows of values.
    kernel_axes = 4

    def holds_kernel(self, checkpoint: Checkpoint, prefix: str) -> bool:
        return len(checkpoint.shape(f"{prefix}{self.anchor}")) == self.kernel_axes

    def evidence_without_config(self, checkpoint: Checkpoint, prefix: str) -> str | None:
        others = (self.class_token, "encoder.layers.0.self_attn.projection_layer.weight")
        there = any(checkpoint.has(f"{prefix}{name}") for name in others)
        return None if there or not self.holds_kernel(checkpoint, prefix) else "no class_embedding"

    def tokens(self, tower: Tower) -> TokensConfig:
        return TokensConfig(class_token=False)

    def head(self, tower: Tower) -> HeadConfig:
        classes = tower.classifier()
        # An incomplete pool still counts as a pool, so that the plan reports its missing tensors.
        probed = bool(tower.checkpoint.under(f"{tower.prefix}head.")) and not classes
        return HeadConfig(pool=tower.pool(AttentionPool() if probed else MeanPool()), num_classes=classes)

    def head_rows(self, spelling: Mapping[str, Any]) -> Iterable[Row]:
        yield from _probe_rows(f"{spelling['prefix']}head.")
        yield from super().head_rows(spelling)

    def ignored(self, description: Description, prefix: str) -> Iterable[Rule | Ignored]:
        if not isinstance(description.config.head.pool, AttentionPool):
            pattern = re.escape(prefix) + r"head[.].*"
            yield Ignored(pattern, "the attention pool, which the classifier does not use")
        yield from super().ignored(description, prefix)

    def words(self, card: ModelCard) -> Mapping[str, Any]:
        return {"vision_use_head": isinstance(card.config.head.pool, AttentionPool)}


class TransformersSigLIP2NaFlex(TransformersSigLIP):
    """`Siglip2VisionModel` and `Siglip2ForImageClassification`: images of any shape, up to a number of patches.

    Patches are rows of values (row, column, channel). Positions are a square table, resized for each image.
    """

    name = "transformers-siglip2-naflex"
    title = "transformers SigLIP 2 NaFlex"
    types = ("siglip2", "siglip2_vision_model")
    family = Family(act="gelu_tanh", eps=1e-6, processor="Siglip2")
    bare, head_class = "Siglip2VisionModel", "Siglip2ForImageClassification"
    resample = Resample(interpolation="bilinear", antialias=True)
    kernel_axes = 2

    def evidence_without_config(self, checkpoint: Checkpoint, prefix: str) -> str | None:
        return "patches as rows of values" if self.holds_kernel(checkpoint, prefix) else None

    def patch(self, tower: Tower) -> tuple[PatchConfig, int]:
        pixels = tower.shape(self.anchor, 2)[1]
        channels = tower.declared.whole("num_channels") or 3
        side = tower.declared.size("patch_size") or (math.isqrt(pixels // channels),) * 2
        if side[0] * side[1] * channels != pixels:
            raise CheckpointError(
                f"{tower.checkpoint.name}: patches of {pixels} values are not {side[0]} x {side[1]} of {channels} "
                f"channels ({tower.declared.where})",
                "use config.json and weights from the same model",
            )
        return PatchConfig(size=side), channels

    def image(self, tower: Tower, patch: tuple[int, int], tokens: TokensConfig) -> tuple[int, int]:
        rows = tower.shape(self.positions_name, 2)[0]
        tower.declared.agrees("num_patches", rows, self.positions_name)
        side = square(rows)
        if side is None:
            raise CheckpointError(
                f"{tower.checkpoint.name}: {rows} positions do not form a square, which NaFlex requires",
                "download the complete file",
            )
        tower.facts.record("grid", (side, side), "the square position table")
        return tower.image((side, side), patch)

    def usual(self, config: ViTConfig) -> Preprocess:
        most = config.grid_size[0] * config.grid_size[1]
        return replace(super().usual(config), resize=Patches(patch=config.patch.size, max_patches=most))

    def rows(self, spelling: Mapping[str, Any]) -> Rows:
        _, *others = super().rows(spelling)
        name = f"{spelling['prefix']}{self.kernel}."
        yield name + "weight", "patch_embed.proj.weight", _values
        yield name + "bias", "patch_embed.proj.bias"
        yield from others

    def config_json(self, card: ModelCard) -> Mapping[str, Any]:
        rows, columns = card.config.grid_size
        written = dict(super().config_json(card))
        vision = written.get("vision_config", written)
        del vision["image_size"]
        vision["num_patches"] = rows * columns
        return written


def _values(ours: Sequence[Shape]) -> Op:
    """A patch as one row of values (row, column, channel) in the file, a kernel in the model."""
    dim, channels, rows, columns = ours[0]
    stored = (dim, rows * columns * channels)
    return Permuted((dim, rows, columns, channels), (0, 3, 1, 2), stored=stored)


def _stacked(ours: Sequence[Shape]) -> Op:
    """Queries, then keys and values, in one tensor."""
    return Parted((sum(shape[0] for shape in ours), *ours[0][1:]))


def _probe_rows(theirs: str) -> Iterable[Row]:
    """torch's MultiheadAttention: stacked queries, keys and values, and an underscore instead of a dot."""
    yield f"{theirs}probe", "pool.probe", token
    yield f"{theirs}attention.in_proj_{{wb}}", ("pool.q.{wb}", "pool.kv.{wb}"), _stacked
    yield f"{theirs}attention.out_proj.{{wb}}", "pool.proj.{wb}"
    yield f"{theirs}layernorm.{{wb}}", "pool.norm.{wb}"
    yield f"{theirs}mlp.fc1.{{wb}}", "pool.mlp.fc1.{wb}"
    yield f"{theirs}mlp.fc2.{{wb}}", "pool.mlp.fc2.{wb}"
