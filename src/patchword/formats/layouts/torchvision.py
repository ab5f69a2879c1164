"""torchvision's VisionTransformer. Source: torchvision 0.29, `models/vision_transformer.py`."""

import re
from collections.abc import Mapping
from typing import Any

from patchword.errors import CheckpointError
from patchword.formats.checkpoint import Checkpoint
from patchword.formats.facts import Facts, Inferred
from patchword.formats.layout import Description
from patchword.formats.layouts.evaluation import IMAGENET, evaluation
from patchword.formats.renamed import Renamed
from patchword.formats.rows import RowLayout, Rows, table, token
from patchword.images.geometry import Shorter
from patchword.images.preprocess import Interpolation, Preprocess
from patchword.model.config import AttentionConfig, HeadConfig, ImageConfig, PatchConfig, ViTConfig
from patchword.model.kinds import LayerNormConfig, Learned, Resample
from patchword.weights.card import ModelCard

# Heads by width for the published sizes: B, L and H.
_HEADS = {768: 12, 1024: 16, 1280: 16}
_CLASS = "torchvision's VisionTransformer"
_BLOCK = "encoder.layers.encoder_layer_{i}."
_HEAD = "heads.head"


class TorchvisionViT(RowLayout):
    """A plain state dict, or one from the reference training script under `model`."""

    name = "torchvision"
    title = "torchvision VisionTransformer"
    container = "torch"

    def rows(self, spelling: Mapping[str, Any], config: ViTConfig | None) -> Rows:
        first, second = spelling["mlp"]
        return (
            ("conv_proj.{wb}", "patch_embed.proj.{wb}"),
            ("class_token", "prefix.class_token", token),
            ("encoder.pos_embedding", ("positions.prefix", "positions.grid"), table),
            [
                (_BLOCK + "ln_1.{wb}", "blocks.{i}.norm1.{wb}"),
                # torch's MultiheadAttention has an underscore where other layers have a dot.
                (_BLOCK + "self_attention.in_proj_{wb}", "blocks.{i}.attention.qkv.{wb}"),
                (_BLOCK + "self_attention.out_proj.{wb}", "blocks.{i}.attention.proj.{wb}"),
                (_BLOCK + "ln_2.{wb}", "blocks.{i}.norm2.{wb}"),
                (f"{_BLOCK}mlp.{first}.{{wb}}", "blocks.{i}.mlp.fc1.{wb}"),
                (f"{_BLOCK}mlp.{second}.{{wb}}", "blocks.{i}.mlp.fc2.{wb}"),
            ],
            ("encoder.ln.{wb}", "norm.{wb}"),
            ("heads.pre_logits.{wb}", "pre_logits.{wb}"),
            (f"{spelling['head']}.{{wb}}", "head.{wb}"),
        )

    def recognise(self, checkpoint: Checkpoint) -> str | None:
        fits = checkpoint.has("conv_proj.weight", "encoder.pos_embedding")
        return "conv_proj and encoder.pos_embedding" if fits else None

    def describe(self, checkpoint: Checkpoint, facts: Facts) -> Description:
        old = checkpoint.has(f"{_BLOCK.format(i=0)}mlp.linear_1.weight")
        spelling = {"mlp": ("linear_1", "linear_2") if old else ("0", "3"), "head": _head_name(checkpoint)}
        seen = Renamed(checkpoint, self.rows(spelling, None))
        dim, channels, patch = seen.kernel
        grid = facts.grid(checkpoint.shape_of("encoder.pos_embedding", 3)[1] - 1, patch)
        usual = (_HEADS.get(dim), Inferred(f"the width {dim}, as in torchvision's sizes"))
        config = ViTConfig(
            image=ImageConfig(size=(grid[0] * patch[0], grid[1] * patch[1]), channels=channels),
            patch=PatchConfig(size=patch),
            dim=dim,
            depth=checkpoint.depth(_BLOCK.format(i="{}") + "ln_1.weight"),
            positions=Learned(resample=Resample(antialias=False, align_corners=True)),
            attention=AttentionConfig(num_heads=facts.heads(dim, usual)),
            mlp=seen.plain_mlp(facts.require("act", ("gelu", _CLASS))),
            # Without `heads`, the file is a backbone, as saved by torchvision's feature extractors.
            head=HeadConfig(pre_logits=seen.rows_of("pre_logits"), num_classes=seen.rows_of("head")),
            norm=LayerNormConfig(eps=facts.require("eps", (1e-6, _CLASS))),
        )
        preprocess = facts.preprocess((_preprocess(config), "torchvision's evaluation of ViT weights"))
        return Description(config=config, preprocess=preprocess, spelling=spelling)

    def spelling(self, card: ModelCard) -> Mapping[str, Any]:
        return {"mlp": ("0", "3"), "head": _HEAD}

    def sidecar_files(self, card: ModelCard) -> Mapping[str, bytes]:
        """Return none. Its class takes one number each for image and patch size, and the patches must fill the image."""
        (height, width), (rows, columns) = card.config.image.size, card.config.patch.size
        if height != width or rows != columns or height % rows:
            raise CheckpointError(
                f"{self.title} does not support {height} x {width} images with {rows} x {columns} patches: both must be square and fit exactly",
                "choose another format, or make the model square first with `patchword adapt --to-image-size`",
            )
        return {}


def _head_name(checkpoint: Checkpoint) -> str:
    """The name of the head: `heads.head`, or a linear layer that replaces it (`heads` or part of a Sequential)."""
    linear = [n.removesuffix(".weight") for n in checkpoint.under("heads.") if n.endswith(".weight")]
    return linear[0] if len(linear) == 1 and re.fullmatch(r"heads(\.\d+)?", linear[0]) else _HEAD


def _preprocess(config: ViTConfig) -> Preprocess:
    """The transforms of the released weights; L/16 of 2021 and SWAG weights resize differently."""
    side = min(config.image.size)
    # SWAG models are evaluated at their training size; the reference script uses a margin (256 for 224).
    swag = side >= 384 or config.patch.size == (14, 14)
    large = (config.dim, config.patch.size) == (1024, (16, 16))
    interpolation: Interpolation = "bicubic" if swag else "bilinear"
    shorter = side if swag else side * (242 if large else 256) // 224
    return evaluation(config, Shorter(size=shorter), IMAGENET, resample=interpolation)
