"""CLIP's and SigLIP's image towers in transformers' format. Source: transformers 5.23, `models/{clip,siglip*}`."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal

from patchword.checkpoints.card import ModelCard
from patchword.checkpoints.checkpoint import Checkpoint, square
from patchword.checkpoints.facts import Facts
from patchword.checkpoints.layout import Description, Ignored, Rule, rule
from patchword.checkpoints.layouts.blocks import both, patches
from patchword.checkpoints.layouts.transformers_blocks import Names, Zeros, block_rules, position_rule
from patchword.checkpoints.layouts.transformers_config import JsonConfig, config_of, labels, require, sizes
from patchword.checkpoints.layouts.transformers_preprocess import usual_preprocess
from patchword.checkpoints.layouts.transformers_tower import Family, Tower, TransformersLayout
from patchword.checkpoints.ops import Parted, Permuted, Reshaped
from patchword.errors import CheckpointError
from patchword.images.geometry import Patches
from patchword.images.preprocess import Preprocess
from patchword.model.config import HeadConfig, PatchConfig, TokensConfig, ViTConfig
from patchword.model.kinds import AttentionPool, ClassPool, Learned, MeanPool, Resample

_NAMES = Names(
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
_SINGULAR = replace(_NAMES, layer="encoder.layer.{}.")
_KERNEL = "embeddings.patch_embedding"
_POSITIONS = "embeddings.position_embedding.weight"
_TEXT = (
    Ignored(r"text_model[.].*|text_projection[.]weight", "the text tower"),
    Ignored(r"logit_scale|logit_bias", "scale or bias of the image-text similarity"),
)

# Classes whose image tower outputs vectors in the space shared with text.
_PROJECTS = re.compile(r"(WithProjection|CLIPModel|Clip2Model)$")


class _ImageTower(TransformersLayout):
    """Common part of the three layouts. types: `model_type` of the complete model and of the image tower."""

    anchor = f"{_KERNEL}.weight"
    spellings: tuple[Names, ...] = (_NAMES,)
    head_class: str
    model: str

    def vision(self, checkpoint: Checkpoint) -> JsonConfig:
        declared = config_of(checkpoint)
        part = "vision_config" if "vision_config" in declared.values else "vision_config_dict"
        return declared.part(part) if declared.values.get(part) else declared

    def position_ids(self, prefix: str) -> Ignored:
        return Ignored(
            re.escape(prefix) + r"embeddings[.]position_ids", "an index table that patchword computes"
        )

    def check(self, config: ViTConfig) -> None:
        super().check(config)
        (height, width), (rows, columns) = config.image.size, config.patch.size
        require(self.title, (height == width and rows == columns, "non-square images or patches (5.23)"))

    def _config(self, vision: Mapping[str, Any], card: ModelCard, architecture: str) -> Mapping[str, Any]:
        """The config to write: classes with a head read the complete model's config, others the tower's."""
        if not card.config.head.num_classes:
            return {"model_type": self.types[1], "architectures": [architecture], **vision}
        return {
            "model_type": self.types[0],
            "architectures": [architecture],
            "vision_config": {"model_type": self.types[1], **vision},
            **labels(card),
        }


class TransformersCLIP(_ImageTower):
    """`CLIPVisionModel`, `CLIPVisionModelWithProjection`, `CLIPForImageClassification`; the image tower of `CLIPModel`.

    The last norm applies only to the pooled class token; a classifier reads the mean of unnormalised patches.
    MetaCLIP 2, Chinese CLIP and AltCLIP have the same image tower and are read too.
    """

    name = "transformers-clip"
    title = "transformers CLIP"
    types = (
        "clip",
        "clip_vision_model",
        "metaclip_2",
        "metaclip_2_vision_model",
        "chinese_clip",
        "chinese_clip_vision_model",
        "altclip",
        "altclip_vision_model",
    )
    family = Family(act="quick_gelu", eps=1e-5, processor="CLIP")
    spellings = (_NAMES, _SINGULAR)
    model, head_class = "CLIPVisionModel", "CLIPForImageClassification"
    patch_bias = False

    def evidence_without_config(self, checkpoint: Checkpoint, prefix: str) -> str | None:
        there = checkpoint.has(f"{prefix}embeddings.class_embedding")
        return "class_embedding" if there else None

    def _projects(self, checkpoint: Checkpoint) -> bool:
        """Whether the model has a projection, according to config.json or the text tower."""
        classes = checkpoint.config_json.get("architectures") or []
        named = isinstance(classes, list) and any(_PROJECTS.search(str(name)) for name in classes)
        return named or checkpoint.has("text_projection.weight")

    def describe(self, checkpoint: Checkpoint, facts: Facts) -> Description:
        tower = self.tower(checkpoint, facts, self.vision(checkpoint))
        patch, channels = tower.patch(_KERNEL, bias=False)
        grid = tower.grid(tower.shape(_POSITIONS, 2)[0] - 1, patch.size)
        classes, projection = tower.classifier(), "visual_projection.weight"
        norm: Literal["none", "pooled"] = "none" if classes else "pooled"
        projects = not classes and (checkpoint.has(projection) or self._projects(checkpoint))
        width = checkpoint.shape_of(projection, 2)[0] if projects else 0
        config = tower.config(
            image=tower.image(grid, patch.size),
            channels=channels,
            patch=patch,
            positions=Learned(resample=Resample(antialias=False)),
            entry_norm=True,
            head=HeadConfig(
                pool=tower.pool(MeanPool() if classes else ClassPool()),
                norm=norm,
                projection=width,
                num_classes=classes,
            ),
        )
        usual = usual_preprocess("CLIP", channels, config.image.size)
        open_act = not checkpoint.config_json and facts.options.act is None
        notes = ("there is no config.json; if the model is LAION's, pass --act gelu",) if open_act else ()
        return tower.description(config, usual, notes=notes)

    def spelling(self, card: ModelCard) -> Mapping[str, Any]:
        return {"prefix": "vision_model.", "names": _NAMES}

    def rules(self, description: Description) -> Iterable[Rule | Ignored]:
        config, prefix = description.config, description.spelling["prefix"]
        yield from patches(config, f"{prefix}{_KERNEL}")
        yield rule(f"{prefix}embeddings.class_embedding", "prefix.class_token")
        yield position_rule(f"{prefix}{_POSITIONS}", config, batch=False)
        yield from both(f"{prefix}pre_layrnorm", "entry_norm")
        yield from block_rules(description)
        if config.head.norm != "none":
            # The norm over all tokens or only the class token: the output is the same.
            yield from both(
                f"{prefix}post_layernorm", "pooled_norm" if config.head.norm == "pooled" else "norm"
            )
        else:
            # The class has one that its classifier never uses.
            for part, value in (("weight", 1.0), ("bias", 0.0)):
                yield rule(f"{prefix}post_layernorm.{part}", (), Zeros(((config.dim,),), value))
            yield Ignored(
                re.escape(prefix) + r"post_layernorm[.](weight|bias)",
                "the classifier reads patches before the norm",
            )
        if config.head.projection:
            yield rule("visual_projection.weight", "projection.weight")
        if config.head.num_classes:
            yield from both("classifier", "head")
            yield Ignored(r"visual_projection[.]weight", "the classifier does not use it")
        yield self.position_ids(prefix)
        yield from _TEXT

    # Writing ---------------------------------------------------------------------------------

    def config_json(self, card: ModelCard) -> Mapping[str, Any]:
        head, vision = card.config.head, sizes(card)
        if head.num_classes:
            return self._config(vision, card, self.head_class)
        if head.projection:
            vision["projection_dim"] = head.projection
        return self._config(vision, card, self.model + ("WithProjection" if head.projection else ""))

    def check(self, config: ViTConfig) -> None:
        super().check(config)
        head = config.head
        pool = MeanPool() if head.num_classes else ClassPool()
        norms = ("none",) if head.num_classes else ("pooled", "tokens")
        require(
            self.title,
            (isinstance(config.positions, Learned), f"positions of kind {config.positions.kind!r}"),
            (config.tokens.names == ("class", "patches"), "tokens other than the class token and the patches"),
            (config.block.entry_norm, "models without a norm before the blocks"),
            (not config.patch.bias, "a patch embedding with bias"),
            (config.block.layer_scale is None, "LayerScale"),
            (not config.mlp.gated, "gated MLPs"),
            (config.attention.bias == "qkv" and config.attention.out_bias and config.mlp.bias,
             "linear layers without biases"),
            (not head.pre_logits, "pre_logits"),
            (not (head.num_classes and head.projection), "a classifier after a projection"),
            (head.pool == pool, f"pooling by {head.pool.kind!r} {'before' if head.num_classes else 'without'} a head"),
            (head.norm in norms, f"the last norm {head.norm!r} (it has {norms[0]!r})"),
        )  # fmt: skip


class TransformersSigLIP(_ImageTower):
    """`SiglipVisionModel` (attention pool) and `SiglipForImageClassification` (mean of all tokens).

    SigLIP 2 at a fixed size uses this format too; of `SiglipModel`, the image tower is read.
    """

    name = "transformers-siglip"
    title = "transformers SigLIP"
    types = ("siglip", "siglip_vision_model")
    family = Family(act="gelu_tanh", eps=1e-6, processor="Siglip", published_heads={1536: 16})
    model, head_class = "SiglipVisionModel", "SiglipForImageClassification"
    resample = Resample(antialias=False)

    def holds_kernel(self, checkpoint: Checkpoint, prefix: str) -> bool:
        return len(checkpoint.shape(f"{prefix}{self.anchor}")) == 4

    def evidence_without_config(self, checkpoint: Checkpoint, prefix: str) -> str | None:
        there = checkpoint.has(f"{prefix}embeddings.class_embedding")
        return None if there or not self.holds_kernel(checkpoint, prefix) else "no class_embedding"

    def describe(self, checkpoint: Checkpoint, facts: Facts) -> Description:
        tower = self.tower(checkpoint, facts, self.vision(checkpoint))
        patch, channels = self._patch(tower)
        grid = self._grid(tower, patch)
        classes = tower.classifier()
        # An incomplete pool still counts as a pool, so that the plan reports its missing tensors.
        probed = bool(checkpoint.under(f"{tower.prefix}head.")) and not classes
        config = tower.config(
            image=tower.image(grid, patch.size),
            channels=channels,
            patch=patch,
            tokens=TokensConfig(class_token=False),
            positions=Learned(resample=self.resample),
            head=HeadConfig(
                pool=tower.pool(AttentionPool() if probed else MeanPool()),
                num_classes=classes,
            ),
        )
        return tower.description(config, self._usual(config))

    def _patch(self, tower: Tower) -> tuple[PatchConfig, int]:
        return tower.patch(_KERNEL)

    def _grid(self, tower: Tower, patch: PatchConfig) -> tuple[int, int]:
        return tower.grid(tower.shape(_POSITIONS, 2)[0], patch.size)

    def _usual(self, config: ViTConfig) -> Preprocess:
        return usual_preprocess("Siglip", config.image.channels, config.image.size)

    def spelling(self, card: ModelCard) -> Mapping[str, Any]:
        return {"prefix": "vision_model.", "names": _NAMES}

    def rules(self, description: Description) -> Iterable[Rule | Ignored]:
        config, prefix = description.config, description.spelling["prefix"]
        yield self._kernel(f"{prefix}{_KERNEL}.weight", config)
        yield rule(f"{prefix}{_KERNEL}.bias", "patch_embed.proj.bias")
        yield position_rule(f"{prefix}{_POSITIONS}", config, batch=False)
        yield from block_rules(description)
        yield from both(f"{prefix}post_layernorm", "norm")
        if isinstance(config.head.pool, AttentionPool):
            yield from _probe_rules(f"{prefix}head.", config)
        else:
            yield Ignored(
                re.escape(prefix) + r"head[.].*", "the attention pool, which the classifier does not use"
            )
        if config.head.num_classes:
            yield from both("classifier", "head")
        yield self.position_ids(prefix)
        yield from _TEXT

    def _kernel(self, name: str, config: ViTConfig) -> Rule:
        return rule(name, "patch_embed.proj.weight")

    # Writing ---------------------------------------------------------------------------------

    def config_json(self, card: ModelCard) -> Mapping[str, Any]:
        probed = isinstance(card.config.head.pool, AttentionPool)
        vision = {**sizes(card), "vision_use_head": probed}
        return self._config(vision, card, self.head_class if card.config.head.num_classes else self.model)

    def check(self, config: ViTConfig) -> None:
        super().check(config)
        head, pool = config.head, config.head.pool
        probed = isinstance(pool, AttentionPool)
        require(
            self.title,
            (isinstance(config.positions, Learned), f"positions of kind {config.positions.kind!r}"),
            (config.tokens.names == ("patches",), "tokens other than the patches"),
            (not config.block.entry_norm, "a norm before the blocks"),
            (config.block.layer_scale is None, "LayerScale"),
            (not config.mlp.gated, "gated MLPs"),
            (config.attention.bias == "qkv" and config.attention.out_bias and config.mlp.bias and config.patch.bias,
             "linear layers without biases"),
            (not head.pre_logits and not head.projection, "pre_logits or a projection"),
            (head.norm == "tokens", f"the last norm {head.norm!r}"),
            (isinstance(pool, AttentionPool | MeanPool), f"pooling by {pool.kind!r}"),
            (not (probed and head.num_classes), "a classifier after the attention pool"),
            (not isinstance(pool, AttentionPool) or pool.num_heads in (None, config.attention.num_heads),
             "an attention pool whose heads differ from the blocks'"),
            (not isinstance(pool, AttentionPool) or pool.hidden in (None, config.mlp_dim),
             "an attention pool whose MLP differs from the blocks'"),
        )  # fmt: skip


class TransformersSigLIP2NaFlex(TransformersSigLIP):
    """`Siglip2VisionModel` and `Siglip2ForImageClassification`: images of any shape, up to a number of patches.

    Patches are rows of values (row, column, channel). Positions are a square table, resized for each image.
    """

    name = "transformers-siglip2-naflex"
    title = "transformers SigLIP 2 NaFlex"
    types = ("siglip2", "siglip2_vision_model")
    family = Family(act="gelu_tanh", eps=1e-6, processor="Siglip2")
    model, head_class = "Siglip2VisionModel", "Siglip2ForImageClassification"
    resample = Resample(interpolation="bilinear", antialias=True)

    def holds_kernel(self, checkpoint: Checkpoint, prefix: str) -> bool:
        return len(checkpoint.shape(f"{prefix}{self.anchor}")) == 2

    def evidence_without_config(self, checkpoint: Checkpoint, prefix: str) -> str | None:
        return "patches as rows of values" if self.holds_kernel(checkpoint, prefix) else None

    def _patch(self, tower: Tower) -> tuple[PatchConfig, int]:
        pixels = tower.shape(f"{_KERNEL}.weight", 2)[1]
        channels = tower.declared.whole("num_channels") or 3
        side = tower.declared.size("patch_size") or (math.isqrt(pixels // channels),) * 2
        if side[0] * side[1] * channels != pixels:
            raise CheckpointError(
                f"{tower.checkpoint.name}: patches of {pixels} values are not {side[0]} x {side[1]} of {channels} "
                f"channels ({tower.declared.where})",
                "use config.json and weights from the same model",
            )
        return PatchConfig(size=side), channels

    def _grid(self, tower: Tower, patch: PatchConfig) -> tuple[int, int]:
        rows = tower.shape(_POSITIONS, 2)[0]
        tower.declared.agrees("num_patches", rows, _POSITIONS)
        side = square(rows)
        if side is None:
            raise CheckpointError(
                f"{tower.checkpoint.name}: {rows} positions do not form a square, which NaFlex requires",
                "download the complete file",
            )
        tower.facts.record("grid", (side, side), "the square position table")
        return side, side

    def _usual(self, config: ViTConfig) -> Preprocess:
        found = usual_preprocess("Siglip2", config.image.channels, config.image.size)
        most = config.grid_size[0] * config.grid_size[1]
        return replace(found, resize=Patches(patch=config.patch.size, max_patches=most))

    def _kernel(self, name: str, config: ViTConfig) -> Rule:
        (rows, columns), channels = config.patch.size, config.image.channels
        stored = (config.dim, rows * columns * channels)
        order = Permuted((config.dim, rows, columns, channels), (0, 3, 1, 2), stored=stored)
        return rule(name, "patch_embed.proj.weight", order)

    def _config(self, vision: Mapping[str, Any], card: ModelCard, architecture: str) -> Mapping[str, Any]:
        rows, columns = card.config.grid_size
        kept = {key: value for key, value in vision.items() if key != "image_size"}
        return super()._config(kept | {"num_patches": rows * columns}, card, architecture)

    def check(self, config: ViTConfig) -> None:
        super().check(config)
        require(
            self.title,
            (config.grid_size[0] == config.grid_size[1], "a non-square position table"),
            (config.patch.size[0] == config.patch.size[1], "non-square patches"),
        )


def _probe_rules(theirs: str, config: ViTConfig) -> Iterable[Rule]:
    """torch's MultiheadAttention: stacked queries, keys and values, and an underscore instead of a dot."""
    dim = config.dim
    yield rule(f"{theirs}probe", "pool.probe", Reshaped((1, 1, dim)))
    yield rule(
        f"{theirs}attention.in_proj_weight", ("pool.q.weight", "pool.kv.weight"), Parted((3 * dim, dim))
    )
    yield rule(f"{theirs}attention.in_proj_bias", ("pool.q.bias", "pool.kv.bias"), Parted((3 * dim,)))
    yield from both(f"{theirs}attention.out_proj", "pool.proj")
    yield from both(f"{theirs}layernorm", "pool.norm")
    yield from both(f"{theirs}mlp.fc1", "pool.mlp.fc1")
    yield from both(f"{theirs}mlp.fc2", "pool.mlp.fc2")
