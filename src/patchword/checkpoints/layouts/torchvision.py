"""torchvision's VisionTransformer. Source: torchvision 0.29, `models/vision_transformer.py`."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from patchword.checkpoints.card import ModelCard
from patchword.checkpoints.checkpoint import Checkpoint
from patchword.checkpoints.facts import Facts, Inferred
from patchword.checkpoints.layout import Description, Ignored, Layout, Rule, rule
from patchword.checkpoints.layouts.blocks import both, norm, patches, token
from patchword.checkpoints.ops import Parted
from patchword.errors import CheckpointError
from patchword.images.geometry import Shorter
from patchword.images.preprocess import Interpolation, Preprocess, Reading
from patchword.images.preprocess import Resample as PixelResample
from patchword.model.config import AttentionConfig, HeadConfig, ImageConfig, MLPConfig, PatchConfig, ViTConfig
from patchword.model.kinds import Learned, Resample

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Heads by width for the published sizes: B, L and H.
_HEADS = {768: 12, 1024: 16, 1280: 16}
_CLASS = "torchvision's VisionTransformer"
_BLOCK = "encoder.layers.encoder_layer_"
_HEAD = "heads.head"


class TorchvisionViT(Layout):
    """A plain state dict, or one from the reference training script under `model`."""

    name = "torchvision"
    title = "torchvision VisionTransformer"
    container = "torch"

    def recognise(self, checkpoint: Checkpoint) -> str | None:
        if checkpoint.has("conv_proj.weight", "encoder.pos_embedding"):
            return "conv_proj and encoder.pos_embedding"
        return None

    def describe(self, checkpoint: Checkpoint, facts: Facts) -> Description:
        dim, channels, *sides = checkpoint.shape_of("conv_proj.weight", 4)
        patch = (sides[0], sides[1])
        rows = checkpoint.shape_of("encoder.pos_embedding", 3)[1]
        grid = facts.grid(rows - 1, patch)
        old = checkpoint.has(f"{_BLOCK}0.mlp.linear_1.weight")
        first = "linear_1" if old else "0"
        config = ViTConfig(
            image=ImageConfig(size=(grid[0] * patch[0], grid[1] * patch[1]), channels=channels),
            patch=PatchConfig(size=patch),
            dim=dim,
            depth=checkpoint.depth(_BLOCK + "{}.ln_1.weight"),
            positions=Learned(resample=Resample(antialias=False, align_corners=True)),
            attention=AttentionConfig(
                num_heads=facts.heads(
                    dim, (_HEADS.get(dim), Inferred(f"the width {dim}, as in torchvision's sizes"))
                )
            ),
            mlp=MLPConfig(
                hidden=checkpoint.shape(f"{_BLOCK}0.mlp.{first}.weight")[0],
                activation=facts.require("act", ("gelu", _CLASS)),
            ),
            head=_head(checkpoint),
        )
        config = replace(config, norm=replace(config.norm, eps=facts.require("eps", (1e-6, _CLASS))))
        preprocess = facts.preprocess((_preprocess(config), "torchvision's evaluation of ViT weights"))
        return Description(
            config=config,
            preprocess=preprocess,
            spelling={
                "mlp": ("linear_1", "linear_2") if old else ("0", "3"),
                "head": _head_name(checkpoint),
            },
        )

    def spelling(self, card: ModelCard) -> Mapping[str, Any]:
        return {"mlp": ("0", "3"), "head": _HEAD}

    def sidecar_files(self, card: ModelCard) -> Mapping[str, bytes]:
        """Return None. Its class takes one number each for image and patch size, and the patches must fill the image."""
        (height, width), (rows, columns) = card.config.image.size, card.config.patch.size
        if height != width or rows != columns or height % rows:
            raise CheckpointError(
                f"{self.title} does not support {height} x {width} images with {rows} x {columns} patches: both must be square and fit exactly",
                "choose another format, or make the model square first with `patchword adapt --to-image-size`",
            )
        return {}

    def rules(self, description: Description) -> Iterable[Rule | Ignored]:
        config = description.config
        rows = config.grid_size[0] * config.grid_size[1] + 1
        yield from patches(config, "conv_proj")
        yield token("class_token", "prefix.class_token", config)
        yield rule(
            "encoder.pos_embedding", ("positions.prefix", "positions.grid"), Parted((1, rows, config.dim))
        )
        for index in range(config.depth):
            yield from _block(index, config, description.spelling["mlp"])
        yield from norm("encoder.ln", "norm", config)
        if config.head.pre_logits:
            yield from both("heads.pre_logits", "pre_logits")
        if config.head.num_classes:
            yield from both(description.spelling["head"], "head")


def _head(checkpoint: Checkpoint) -> HeadConfig:
    """The head config. Without `heads`, the file is a backbone, as saved by torchvision's feature extractors."""
    width = checkpoint.shape("heads.pre_logits.weight")[0] if checkpoint.has("heads.pre_logits.weight") else 0
    name = _head_name(checkpoint)
    classes = checkpoint.shape(f"{name}.weight")[0] if checkpoint.has(f"{name}.weight") else 0
    return HeadConfig(pre_logits=width, num_classes=classes)


def _head_name(checkpoint: Checkpoint) -> str:
    """The name of the head: `heads.head`, or a linear layer that replaces it (`heads` or part of a Sequential)."""
    linear = [n.removesuffix(".weight") for n in checkpoint.under("heads.") if n.endswith(".weight")]
    return linear[0] if len(linear) == 1 and re.fullmatch(r"heads(\.\d+)?", linear[0]) else _HEAD


def _preprocess(config: ViTConfig) -> Preprocess:
    """The transforms of the released weights; L/16 of 2021 and SWAG weights resize differently."""
    size = config.image.size
    side = min(size)
    # SWAG models are evaluated at their training size; the reference script uses a margin (256 for 224).
    swag = side >= 384 or config.patch.size == (14, 14)
    shorter = (
        side
        if swag
        else {(1024, (16, 16)): side * 242 // 224}.get((config.dim, config.patch.size), side * 256 // 224)
    )
    interpolation: Interpolation = "bicubic" if swag else "bilinear"
    return Preprocess(
        image_size=size,
        resize=Shorter(size=shorter),
        in_channels=config.image.channels,
        resample=PixelResample(interpolation=interpolation),
        mean=MEAN if config.image.channels == 3 else (0.5,),
        std=STD if config.image.channels == 3 else (0.5,),
        reading=Reading(apply_exif=False),
    )


def _block(index: int, config: ViTConfig, mlp: tuple[str, str]) -> Iterable[Rule]:
    theirs, ours = f"{_BLOCK}{index}.", f"blocks.{index}."
    yield from norm(f"{theirs}ln_1", f"{ours}norm1", config)
    # torch's MultiheadAttention has an underscore where other layers have a dot.
    yield rule(f"{theirs}self_attention.in_proj_weight", f"{ours}attention.qkv.weight")
    yield rule(f"{theirs}self_attention.in_proj_bias", f"{ours}attention.qkv.bias")
    yield from both(f"{theirs}self_attention.out_proj", f"{ours}attention.proj")
    yield from norm(f"{theirs}ln_2", f"{ours}norm2", config)
    yield from both(f"{theirs}mlp.{mlp[0]}", f"{ours}mlp.fc1")
    yield from both(f"{theirs}mlp.{mlp[1]}", f"{ours}mlp.fc2")
