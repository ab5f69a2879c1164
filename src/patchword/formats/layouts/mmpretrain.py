"""OpenMMLab's mmpretrain (formerly mmcls): its VisionTransformer and DeiT, and Sapiens' pre-trained backbones.

A training file, `{"meta": …, "state_dict": …}`, with `backbone.` and `head.`, or a flat backbone. Source: mmpretrain 1.2
`models/backbones/{vision_transformer,deit}.py`, `models/heads`; facebookresearch/sapiens `pretrain`.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from patchword.errors import CheckpointError
from patchword.formats.checkpoint import Checkpoint, square
from patchword.formats.facts import Facts, Inferred
from patchword.formats.layout import Description, Ignored, Rule
from patchword.formats.layouts.evaluation import IMAGENET
from patchword.formats.renamed import Renamed
from patchword.formats.restate import (
    Tensors,
    first_as_class,
    keys,
    sines_as_table,
    with_zero_biases,
    zeros_for_positions,
)
from patchword.formats.rows import Row, RowLayout, Rows, table, token
from patchword.images.geometry import Shorter
from patchword.images.preprocess import Preprocess
from patchword.images.preprocess import Resample as PixelResample
from patchword.model.config import (
    Activation,
    BlockConfig,
    HeadConfig,
    ImageConfig,
    PatchConfig,
    TokensConfig,
    ViTConfig,
)
from patchword.model.kinds import ClassPool, FirstPool, LayerNormConfig, Learned, MeanPool, Pool, Resample
from patchword.weights.card import ModelCard

_CODE = "mmpretrain's code"
# Width → heads of its sizes, DINOv2's and Sapiens'; its "small" is 768 wide with 8 blocks.
_HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 16, 1536: 24, 1920: 32}
_SMALL = (768, 8)
_FIRST: Mapping[bool, Row] = {
    False: ("{b}ffn.layers.0.0.{wb}", "blocks.{i}.mlp.fc1.{wb}"),
    True: ("{b}ffn.w12.{wb}", "blocks.{i}.mlp.fc1.{wb}"),
}
_POOLS: Mapping[str, Pool] = {"class": ClassPool(), "first": FirstPool(), "mean": MeanPool()}
# Parts of its BEiT, whose other names are the same.
_BEIT = ("attn.relative_position_bias_table", "attn.q_bias")


def _with_biases(config: ViTConfig, tensors: Tensors) -> tuple[ViTConfig, Tensors]:
    """Biases after the patches, after attention, in the MLP and in the head, which its classes have."""
    patch = replace(config.patch, bias=config.patch.bias or not config.block.entry_norm)
    attention, mlp = replace(config.attention, out_bias=True), replace(config.mlp, bias=True)
    head = replace(config.head, bias=True)
    return replace(config, patch=patch, attention=attention, mlp=mlp, head=head), tensors


class MMPretrain(RowLayout):
    """spelling: "prefix" of the backbone, "gated" for SwiGLU, and the name of the "head"."""

    name = "mmpretrain"
    title = "OpenMMLab mmpretrain"
    container = "torch"
    file_name = "model.pth"
    steps = (
        _with_biases,
        first_as_class,
        sines_as_table,
        zeros_for_positions,
        keys("qkv"),
        with_zero_biases,
    )

    def rows(self, spelling: Mapping[str, Any], config: ViTConfig | None) -> Rows:
        prefix, gated = spelling["prefix"], spelling["gated"]
        return (
            (f"{prefix}patch_embed.projection.{{wb}}", "patch_embed.proj.{wb}"),
            (f"{prefix}cls_token", "prefix.class_token", token),
            (f"{prefix}dist_token", "prefix.distillation_token", token),
            (f"{prefix}pos_embed", ("positions.prefix", "positions.grid"), table),
            (f"{prefix}pre_norm.{{wb}}", "entry_norm.{wb}"),
            [
                ("{b}ln1.{wb}", "blocks.{i}.norm1.{wb}"),
                ("{b}attn.qkv.{wb}", "blocks.{i}.attention.qkv.{wb}"),
                ("{b}attn.proj.{wb}", "blocks.{i}.attention.proj.{wb}"),
                ("{b}attn.gamma1.weight", "blocks.{i}.scale1.weight"),
                ("{b}ln2.{wb}", "blocks.{i}.norm2.{wb}"),
                _FIRST[gated],
                ("{b}ffn.w3.{wb}" if gated else "{b}ffn.layers.1.{wb}", "blocks.{i}.mlp.fc2.{wb}"),
                ("{b}ffn.gamma2.weight", "blocks.{i}.scale2.weight"),
            ],
            (f"{prefix}ln1.{{wb}}", "norm.{wb}"),
            (f"{prefix}ln2.{{wb}}", "pooled_norm.{wb}"),
            ("head.layers.pre_logits.{wb}", "pre_logits.{wb}"),
            (f"{spelling['head']}.{{wb}}", "head.{wb}"),
            ("head.layers.head_dist.{wb}", "head_distillation.{wb}"),
        )

    def recognise(self, checkpoint: Checkpoint) -> str | None:
        prefix = _prefix(checkpoint)
        if prefix is None or any(checkpoint.has(f"{prefix}layers.0.{name}") for name in _BEIT):
            return None
        return f"{prefix}patch_embed.projection and {prefix}layers.0.ln1"

    def describe(self, checkpoint: Checkpoint, facts: Facts) -> Description:
        spelling = self._spelled(checkpoint)
        prefix = spelling["prefix"]
        seen = Renamed(checkpoint, self.rows(spelling, None), f"{prefix}layers.0.")
        dim, channels, patch = seen.kernel
        depth = checkpoint.depth(f"{prefix}layers.{{}}.ln1.weight")
        tokens = _tokens(seen, facts)
        rows, columns = facts.grid(seen.shape("positions.grid", 3)[1] - tokens.num_prefix, patch)
        size = (rows * patch[0], columns * patch[1])
        heads = 8 if (dim, depth) == _SMALL else _HEADS.get(dim)
        entry = seen.has("entry_norm.weight")
        # Its convolution has a bias, except before such a norm, where only a setting adds one.
        patch_bias = not entry or seen.has("patch_embed.proj.bias")
        gated = spelling["gated"]
        # Of models with a norm before the blocks, OpenAI's have quick GELU and others GELU.
        act: Activation | None = None if entry else "silu" if gated else "gelu"
        config = ViTConfig(
            image=ImageConfig(size=size, channels=channels),
            patch=PatchConfig(size=patch, bias=patch_bias, edge="pad"),
            dim=dim,
            depth=depth,
            tokens=tokens,
            positions=Learned(resample=Resample(antialias=False)),
            attention=seen.attention(facts.heads(dim, (heads, Inferred(f"the width {dim}, as in {_CODE}")))),
            mlp=seen.mlp(facts.require("act", (act, _CODE)), gated=gated),
            block=BlockConfig(layer_scale=1e-5 if seen.in_block("scale1.weight") else None, entry_norm=entry),
            norm=LayerNormConfig(eps=facts.require("eps", (1e-6, _CODE))),
            head=_head(checkpoint, facts, seen, tokens),
        )
        preprocess, source = _preprocess(checkpoint, config)
        return Description(
            config=config,
            preprocess=facts.preprocess((preprocess, source)),
            classes=_classes(checkpoint, config.head.num_classes),
            spelling=spelling,
            notes=() if tokens.class_token else (_PADDED,),
        )

    def _spelled(self, checkpoint: Checkpoint) -> dict[str, Any]:
        prefix = _prefix(checkpoint) or ""
        depth = checkpoint.depth(f"{prefix}layers.{{}}.ln1.weight")
        return {
            "prefix": prefix,
            "blocks": tuple(f"{prefix}layers.{index}." for index in range(depth)),
            "gated": checkpoint.has(f"{prefix}layers.0.ffn.w12.weight"),
            "head": "head.fc" if checkpoint.has("head.fc.weight") else "head.layers.head",
        }

    def ignored(self, description: Description) -> Iterable[Rule | Ignored]:
        prefix = description.spelling["prefix"].replace(".", "[.]")
        yield Ignored(prefix + "mask_token", "stands in for hidden patches, in pre-training only")
        yield Ignored(
            r"(neck|target_generator|data_preprocessor|decode_head|auxiliary_head)[.].*",
            "parts of pre-training, or another task's head",
        )

    # Writing -----------------------------------------------------------------------------------

    def spelling(self, card: ModelCard) -> Mapping[str, Any]:
        config = card.config
        pooled = config.head.norm == "pooled" and not config.head.pre_logits
        return {
            "prefix": "backbone.",
            "blocks": tuple(f"backbone.layers.{index}." for index in range(config.depth)),
            "gated": config.mlp.gated,
            "head": "head.fc" if pooled else "head.layers.head",
        }

    def nest(self, tensors: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"state_dict": tensors}

    def written_beside(self, card: ModelCard) -> Mapping[str, Any]:
        return {"meta": {"dataset_meta": {"classes": list(card.classes)}} if card.classes else {}}

    def sidecar_files(self, card: ModelCard) -> Mapping[str, bytes]:
        config = card.config
        odd = config.mlp.gated and config.mlp_dim % 8 != 0
        without = not config.tokens.class_token and config.tokens.distillation_token
        for wrong, what in (
            (odd, "a gated MLP whose width is not a multiple of 8"),
            (without, "a distillation token without a class token"),
            (config.head.num_classes and config.head.norm == "none", "a classifier without a norm before it"),
        ):
            if wrong:
                raise CheckpointError(f"{self.title} does not support {what}", "choose another format")
        return {}


_PADDED = (
    "it has no class token, as backbones of ViTPose and of Sapiens' tasks, which pad images by 2 pixels before they are cut "
    "into patches; patchword does not, so that the outputs of such a backbone differ"
)


def _prefix(checkpoint: Checkpoint) -> str | None:
    names = ("patch_embed.projection.weight", "layers.0.ln1.weight", "layers.0.attn.qkv.weight", "pos_embed")
    for prefix in ("backbone.", ""):
        if checkpoint.has(*(f"{prefix}{name}" for name in names)):
            return prefix
    return None


def _tokens(seen: Renamed, facts: Facts) -> TokensConfig:
    """The tokens before the patches. Positions of a square and one row more have a class token, so that a lost one is missed."""
    distilled = seen.has("prefix.distillation_token")
    count = seen.shape("positions.grid", 3)[1] - distilled
    one_more = facts.options.image_size is None and square(count) is None and square(count - 1) is not None
    return TokensConfig(
        class_token=seen.has("prefix.class_token") or one_more,
        distillation_token=distilled,
    )


def _head(checkpoint: Checkpoint, facts: Facts, seen: Renamed, tokens: TokensConfig) -> HeadConfig:
    by_tokens, by_pooled = seen.has("norm.weight"), seen.has("pooled_norm.weight")
    if by_tokens and by_pooled:
        raise CheckpointError(
            f"{checkpoint.name}: an mmpretrain backbone with norms before and after pooling (final_norm with "
            "out_type 'avg_featmap'), which the backbone does not support",
            "pass --drop '*ln2*' to leave out the second, if the first is the one that is needed",
        )
    usual = "class" if tokens.class_token and not by_pooled else "mean"
    return HeadConfig(
        pool=_POOLS[facts.require("pool", (usual, _CODE))],
        norm="pooled" if by_pooled else "tokens" if by_tokens else "none",
        pre_logits=seen.rows_of("pre_logits"),
        num_classes=seen.rows_of("head"),
        distilled=seen.has("head_distillation.weight"),
    )


def _meta(checkpoint: Checkpoint) -> Mapping[str, Any]:
    meta = checkpoint.beside.get("meta", {})
    return meta if isinstance(meta, Mapping) else {}


def _classes(checkpoint: Checkpoint, count: int) -> tuple[str, ...]:
    """Of mmengine's files (`dataset_meta`) and of older ones, if there are as many as outputs."""
    meta = _meta(checkpoint)
    inside = meta.get("dataset_meta", {})
    found = (inside.get("classes") if isinstance(inside, Mapping) else None) or meta.get("CLASSES")
    names = tuple(map(str, found)) if isinstance(found, list | tuple) else ()
    return names if len(names) == count and len(set(names)) == count else ()


def _preprocess(checkpoint: Checkpoint, config: ViTConfig) -> tuple[Preprocess, str]:
    """Its evaluation: the shorter side resized (Pillow, bicubic), the centre cropped, and the mean and standard deviation of the
    file's own training config, if it has one."""
    size, channels = config.image.size, config.image.channels
    text = _meta(checkpoint).get("cfg") or _meta(checkpoint).get("config")
    stated = [_numbers(str(text or ""), key) for key in ("mean", "std")]
    three = channels == 3
    usual = IMAGENET if three else ((0.5,), (0.5,))
    known = all(len(numbers) == channels for numbers in stated)
    mean, std = (tuple(n / 255 for n in numbers) for numbers in stated) if known else usual
    found = Preprocess(
        image_size=size,
        resize=Shorter(size=min(size) * 256 // 224 if min(size) <= 224 else min(size)),
        in_channels=channels,
        resample=PixelResample(interpolation="bicubic"),
        mean=mean,
        std=std,
    )
    why = "the training config in the file" if known else Inferred("the usual evaluation on ImageNet")
    return found, why


def _numbers(text: str, key: str) -> tuple[float, ...]:
    """The only list of numbers under this key in a config as text; empty if there is none or several."""
    found = set(re.findall(rf"\b{key}\s*=\s*\[([-\d.,\s]+)\]", text))
    if len(found) != 1:
        return ()
    return tuple(float(part) for part in found.pop().split(",") if part.strip())
