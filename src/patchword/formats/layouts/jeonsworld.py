"""jeonsworld/ViT-pytorch, a port used in many courses. Source: the repository at 460a162.

A bare state dict. Its code uses exact GELU, although most of its weights were trained with Google's tanh GELU.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from patchword.errors import CheckpointError
from patchword.formats.checkpoint import Checkpoint
from patchword.formats.facts import Facts, Inferred, by_width
from patchword.formats.layout import Description
from patchword.formats.layouts.evaluation import evaluation
from patchword.formats.layouts.stems import TORCH, StemNames, units_of
from patchword.formats.renamed import Renamed
from patchword.formats.rows import RowLayout, Rows, queries_keys_values, table, token
from patchword.images.geometry import Squash
from patchword.images.preprocess import Preprocess
from patchword.model.config import AttentionConfig, HeadConfig, ImageConfig, PatchConfig, ViTConfig
from patchword.model.kinds import LayerNormConfig, Learned, NoStem, Resample, ResNetStem, Stem

_CODE = "jeonsworld's modeling.py"
_EMBED = "transformer.embeddings."
_LAYER = "transformer.encoder.layer.{i}."
_HYBRID = f"{_EMBED}hybrid_model."
# Heads by width for the sizes in its configs: B, L and H.
_HEADS = ((768, 12), (1024, 16), (1280, 16))
# Its code resizes with scipy's zoom of order 1 when weights are loaded.
_RESAMPLE = Resample(interpolation="bilinear", antialias=False, align_corners=True)
_STEM = StemNames(
    root=f"{_HYBRID}root.conv",
    root_norm=f"{_HYBRID}root.gn",
    unit=f"{_HYBRID}body.block{{stage1}}.unit{{unit1}}.",
    conv="conv{n}",
    norm="gn{n}",
    proj="downsample",
    proj_norm="gn_proj",
    parts=TORCH,
)
_THREE = tuple(f"{_LAYER}attn.{name}.{{wb}}" for name in ("query", "key", "value"))


class JeonsworldViT(RowLayout):
    name = "jeonsworld"
    title = "jeonsworld/ViT-pytorch"
    container = "torch"
    file_name = "pytorch_model.bin"

    def rows(self, spelling: Mapping[str, Any], config: ViTConfig | None) -> Rows:
        return (
            *(() if config is None else _STEM.rows(config.patch.stem)),
            (_EMBED + "patch_embeddings.{wb}", "patch_embed.proj.{wb}"),
            (_EMBED + "cls_token", "prefix.class_token", token),
            (_EMBED + "position_embeddings", ("positions.prefix", "positions.grid"), table),
            [
                (_LAYER + "attention_norm.{wb}", "blocks.{i}.norm1.{wb}"),
                (_THREE, "blocks.{i}.attention.qkv.{wb}", queries_keys_values),
                (_LAYER + "attn.out.{wb}", "blocks.{i}.attention.proj.{wb}"),
                (_LAYER + "ffn_norm.{wb}", "blocks.{i}.norm2.{wb}"),
                (_LAYER + "ffn.fc1.{wb}", "blocks.{i}.mlp.fc1.{wb}"),
                (_LAYER + "ffn.fc2.{wb}", "blocks.{i}.mlp.fc2.{wb}"),
            ],
            ("transformer.encoder.encoder_norm.{wb}", "norm.{wb}"),
            ("head.{wb}", "head.{wb}"),
        )

    def recognise(self, checkpoint: Checkpoint) -> str | None:
        if checkpoint.has(f"{_EMBED}patch_embeddings.weight", f"{_LAYER.format(i=0)}attention_norm.weight"):
            return f"{_EMBED}patch_embeddings and {_LAYER.format(i=0)}attention_norm"
        return None

    def describe(self, checkpoint: Checkpoint, facts: Facts) -> Description:
        seen = Renamed(checkpoint, self.rows({}, None))
        dim, channels, patch = seen.kernel
        stem = _stem(checkpoint)
        if isinstance(stem, ResNetStem):
            channels = checkpoint.shape_of(f"{_HYBRID}root.conv.weight", 4)[1]
        stride = (stem.stride * patch[0], stem.stride * patch[1])
        grid = facts.grid(checkpoint.shape_of(f"{_EMBED}position_embeddings", 3)[1] - 1, stride)
        usual = (by_width(_HEADS, dim), Inferred(f"the width {dim}, as in jeonsworld's configs"))
        config = ViTConfig(
            image=ImageConfig(size=(grid[0] * stride[0], grid[1] * stride[1]), channels=channels),
            patch=PatchConfig(size=patch, stem=stem),
            dim=dim,
            depth=checkpoint.depth(_LAYER.format(i="{}") + "attention_norm.weight"),
            positions=Learned(resample=_RESAMPLE),
            attention=AttentionConfig(num_heads=facts.heads(dim, usual)),
            mlp=seen.plain_mlp(facts.require("act", ("gelu", _CODE))),
            norm=LayerNormConfig(eps=facts.require("eps", (1e-6, _CODE))),
            head=HeadConfig(num_classes=seen.rows_of("head")),
        )
        preprocess = facts.preprocess((_preprocess(config), "jeonsworld's data_utils.py"))
        return Description(config=_fitted(config, preprocess), preprocess=preprocess)


def _fitted(config: ViTConfig, preprocess: Preprocess) -> ViTConfig:
    """Its convolution ignores pixels that do not fill a patch."""
    if not any(side % step for side, step in zip(preprocess.image_size, config.patch_span, strict=True)):
        return config
    return replace(config, patch=replace(config.patch, edge="cut"))


def _stem(checkpoint: Checkpoint) -> Stem:
    if not checkpoint.under(_HYBRID):
        return NoStem()
    units = units_of(checkpoint, re.escape(_HYBRID) + r"body\.block(\d+)\.unit\d+\.conv1\.weight")
    if not units:
        raise CheckpointError(f"{checkpoint.name}: its ResNet has no stages", "download the complete file")
    return ResNetStem(
        units=units,
        width=checkpoint.shape_of(f"{_HYBRID}root.conv.weight", 4)[0],
        weight_eps="variance",
        padding="symmetric",
        proj_norm="channel",
    )


def _preprocess(config: ViTConfig) -> Preprocess:
    """Resize to a square with torchvision's Resize of a PIL image."""
    return evaluation(config, Squash(size=config.image.size), resample="bilinear")
