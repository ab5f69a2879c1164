"""Compute the name and shape of every tensor in a ViT's state dict from its config, without torch.

This lets `inspect` report missing tensors in milliseconds, without building a model. The tests
compare it with the state dict of the built module for every kind of part.
"""

from patchword.model.base import Shape, Shapes, below
from patchword.model.base import linear_shapes as _linear
from patchword.model.config import ViTConfig
from patchword.model.decoder import DecoderConfig
from patchword.model.kinds import Norm, ResNetStem
from patchword.model.kinds.bases import mlp_shapes

__all__ = ["DECODER", "Shape", "Shapes", "decoder_shapes", "shapes"]

# The prefix of a decoder's tensors next to those of its encoder.
DECODER = "decoder."


def shapes(config: ViTConfig) -> Shapes:
    """Map each name in the state dict to its shape, including stored buffers."""
    found: Shapes = {}
    found |= _patches(config)
    found |= _prefix(config)
    found |= _positions(config)
    if config.block.entry_norm:
        found |= _norm("entry_norm", config.norm, config.dim)
    block = _block(config)
    for index in range(config.depth):
        found |= below(f"blocks.{index}", block)
    return found | _head(config)


def decoder_shapes(decoder: DecoderConfig, encoder: ViTConfig) -> Shapes:
    """Map each name in a decoder's state dict to its shape, with the prefix `decoder.`."""
    trunk = shapes(decoder.trunk(encoder))
    inside = {n: s for n, s in trunk.items() if n.startswith(("positions.", "blocks.", "norm."))}
    found = _linear("embed", encoder.dim, decoder.dim) | {"mask_token": (decoder.dim,)}
    return below("decoder", found | inside | _linear("pred", decoder.dim, encoder.patch_pixels))


def _norm(name: str, norm: Norm, width: int) -> Shapes:
    return below(name, norm.shapes(width))


def _patches(config: ViTConfig) -> Shapes:
    size, stem = config.patch.size, config.patch.stem
    found: Shapes = _stem(stem, config.image.channels) if isinstance(stem, ResNetStem) else {}
    found["patch_embed.proj.weight"] = (config.dim, stem.features(config.image.channels), *size)
    if config.patch.bias:
        found["patch_embed.proj.bias"] = (config.dim,)
    if config.patch.norm_pixels:
        found |= _norm("patch_embed.norm_pixels", config.norm, config.patch_pixels)
    if config.patch.norm_output:
        found |= _norm("patch_embed.norm_output", config.norm, config.dim)
    return found


def _stem(stem: ResNetStem, channels: int) -> Shapes:
    found: Shapes = {"patch_embed.stem.root.weight": (stem.width, channels, 7, 7)}
    found |= _affine("patch_embed.stem.root_norm", stem.width)
    inputs = stem.width
    for stage, units in enumerate(stem.units):
        middle = stem.width * 2**stage
        for unit in range(units):
            name, outputs = f"patch_embed.stem.stages.{stage}.{unit}", 4 * middle
            for part, (wide, narrow, kernel) in {
                "1": (middle, inputs, 1),
                "2": (middle, middle, 3),
                "3": (outputs, middle, 1),
            }.items():
                found[f"{name}.conv{part}.weight"] = (wide, narrow, kernel, kernel)
                found |= _affine(f"{name}.norm{part}", wide)
            if not unit:
                found[f"{name}.proj.weight"] = (outputs, inputs, 1, 1)
                found |= _affine(f"{name}.proj_norm", outputs)
            inputs = outputs
    return found


def _affine(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _prefix(config: ViTConfig) -> Shapes:
    tokens, found = config.tokens, Shapes()
    if tokens.class_token:
        found["prefix.class_token"] = (config.dim,)
    if tokens.distillation_token:
        found["prefix.distillation_token"] = (config.dim,)
    if tokens.num_registers:
        found["prefix.registers"] = (tokens.num_registers, config.dim)
    return found


def _positions(config: ViTConfig) -> Shapes:
    return below("positions", config.added_positions.shapes(config)) | below(
        "attention_positions", config.inner_positions.shapes(config)
    )


def _block(config: ViTConfig) -> Shapes:
    part, inner = config.attention, config.attention_dim
    found = _norm("norm1", config.norm, config.dim) | _norm("norm2", config.norm, config.dim)
    if part.bias == "qv":
        found |= {"attention.q_bias": (inner,), "attention.v_bias": (inner,)}
    found |= _linear("attention.qkv", config.dim, 3 * inner, part.bias == "qkv")
    if part.qk_norm != "none":
        for name in ("q_norm", "k_norm"):
            found[f"attention.{name}.weight"] = (config.head_dim,)
            if part.qk_norm == "layer":
                found[f"attention.{name}.bias"] = (config.head_dim,)
    if part.out_norm:
        found |= _norm("attention.out_norm", config.norm, inner)
    found |= _linear("attention.proj", inner, config.dim, part.out_bias)
    found |= below("mlp", mlp_shapes(config, config.mlp_dim, gated=config.mlp.gated))
    if config.block.layer_scale is not None:
        found |= {"scale1.weight": (config.dim,), "scale2.weight": (config.dim,)}
    return found


def _head(config: ViTConfig) -> Shapes:
    head, dim, found = config.head, config.dim, Shapes()
    if head.norm == "tokens":
        found |= _norm("norm", config.norm, dim)
    found |= below("pool", head.pool.shapes(config))
    if head.norm == "pooled":
        found |= _norm("pooled_norm", config.norm, config.pooled_dim)
    if head.pre_logits:
        found |= _linear("pre_logits", config.pooled_dim, head.pre_logits)
    width = config.embed_dim
    if head.projection:
        found |= _linear("projection", width, head.projection, head.projection_bias)
    width = head.projection or width
    if head.num_classes:
        found |= _linear("head", width, head.num_classes, head.bias)
    if head.distilled and head.num_classes:
        found |= _linear("head_distillation", width, head.num_classes, head.bias)
    return found
