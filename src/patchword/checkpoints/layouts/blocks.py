"""Tensor names that timm, DeiT, MAE, DINO, I-JEPA and BEiT share."""

from collections.abc import Iterable

from patchword.checkpoints.layout import Rule, rule
from patchword.checkpoints.ops import Reshaped
from patchword.model.config import ViTConfig


def both(theirs: str, ours: str, bias: bool = True) -> list[Rule]:
    """Rules for the weight and, if there is one, the bias."""
    parts = ("weight", "bias") if bias else ("weight",)
    return [rule(f"{theirs}.{part}", f"{ours}.{part}") for part in parts]


def norm(theirs: str, ours: str, config: ViTConfig) -> list[Rule]:
    """Rules for a norm of the model's kind; RMSNorm and LayerNorm without bias have only a weight."""
    return both(theirs, ours, getattr(config.norm, "bias", config.norm.kind != "rms"))


def patches(config: ViTConfig, theirs: str = "patch_embed.proj") -> list[Rule]:
    """Rules for the patch convolution. Each layout adds rules for norms around it."""
    return both(theirs, "patch_embed.proj", config.patch.bias)


def token(theirs: str, ours: str, config: ViTConfig, count: int = 1) -> Rule:
    """[1, count, D] of the file → [D] (or [count, D] of registers)."""
    return rule(theirs, ours, Reshaped((1, count, config.dim)))


def attention(their_block: str, our_block: str, config: ViTConfig) -> Iterable[Rule]:
    """`attn.qkv` (all queries, then keys, then values, each ordered by head) and `attn.proj`."""
    bias = config.attention.bias
    yield rule(f"{their_block}attn.qkv.weight", f"{our_block}attention.qkv.weight")
    if bias == "qkv":
        yield rule(f"{their_block}attn.qkv.bias", f"{our_block}attention.qkv.bias")
    elif bias == "qv":
        yield rule(f"{their_block}attn.q_bias", f"{our_block}attention.q_bias")
        yield rule(f"{their_block}attn.v_bias", f"{our_block}attention.v_bias")
    yield from both(f"{their_block}attn.proj", f"{our_block}attention.proj", config.attention.out_bias)


def layer_scale(index: int, names: tuple[str, str], config: ViTConfig) -> Iterable[Rule]:
    """`blocks.{index}.NAME` for both branches: ("gamma_1", "gamma_2") or ("ls1.gamma", "ls2.gamma")."""
    if config.block.layer_scale is not None:
        for theirs, ours in zip(names, ("scale1", "scale2"), strict=True):
            yield rule(f"blocks.{index}.{theirs}", f"blocks.{index}.{ours}.weight")
