"""Common parts of the authors' own PyTorch files: the block from early timm, and the parts around it.

Sources: facebookresearch/deit, mae, dino, dinov2, dinov3, ijepa; microsoft/unilm beit; baaivision/EVA.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from patchword.checkpoints.card import ModelCard
from patchword.checkpoints.checkpoint import Checkpoint
from patchword.checkpoints.facts import Facts, Inferred
from patchword.checkpoints.layout import Layout, Rule, rule
from patchword.checkpoints.layouts.blocks import attention, both, norm, patches, token
from patchword.checkpoints.layouts.timm import evidence as timms
from patchword.checkpoints.ops import Joined, Parted, Same
from patchword.errors import CheckpointError
from patchword.images.geometry import Shorter
from patchword.images.preprocess import Preprocess, Reading
from patchword.images.preprocess import Resample as PixelResample
from patchword.model.config import (
    AttentionConfig,
    BlockConfig,
    HeadConfig,
    ImageConfig,
    MLPConfig,
    PatchConfig,
    ViTConfig,
)
from patchword.model.kinds import (
    ClassPool,
    FirstPool,
    JoinedPool,
    LayerNormConfig,
    MeanPool,
    NoPositions,
    Pool,
    Positions,
    Rope2d,
    Size,
)
from patchword.model.shapes import shapes

if TYPE_CHECKING:
    from torch import Tensor

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
# Width → heads of the published sizes: 64 channels per head up to L, 80 in H.
USUAL_HEADS = {192: 3, 384: 6, 512: 8, 768: 12, 1024: 16, 1280: 16}
_POOLS: Mapping[str, Pool] = {"class": ClassPool(), "first": FirstPool(), "mean": MeanPool()}


@dataclass(frozen=True, kw_only=True)
class Constants:
    """Values that a family's code defines but its files do not. who: name of that source in the report."""

    who: str
    heads: Mapping[int, int] = field(default_factory=lambda: USUAL_HEADS)
    eps: float = 1e-6
    layer_scale: float = 1e-5  # LayerScale's initial value; no file stores it


class Original(Layout):
    """A state dict in torch's format, as the authors' training code saves it."""

    container = "torch"
    file_name = "model.pth"
    # Its code rotates queries and keys, which leaves no tensor in the file.
    rotary = False

    def rewritten_for(
        self, card: ModelCard, tensors: "Mapping[str, Tensor]"
    ) -> "tuple[ModelCard, Mapping[str, Tensor]]":
        """Add zero biases to patches and head, since the authors' classes always have them."""
        config = replace(card.config, patch=replace(card.config.patch, bias=True))
        if not isinstance(config.head.pool, JoinedPool):  # the head is then a separate file
            config = replace(config, head=replace(config.head, bias=True))
        zeros = {
            f"{name}.bias": tensors[f"{name}.weight"].new_zeros(len(tensors[f"{name}.weight"]))
            for name in ("patch_embed.proj", "head", "head_distillation")
            if f"{name}.weight" in tensors and f"{name}.bias" in shapes(config)
        }
        return replace(card, config=config), {**zeros, **tensors}

    def sidecar_files(self, card: ModelCard) -> Mapping[str, bytes]:
        inner = card.config.inner_positions
        if isinstance(inner, Rope2d) and not self.rotary:
            raise CheckpointError(f"{self.title} does not support rotary positions", "choose another format")
        return {}


# Which blocks ----------------------------------------------------------------------------


def block_names(checkpoint: Checkpoint) -> tuple[str, ...]:
    """The prefix of each block, in order: "blocks.3.", or "blocks.1.3." if training stored them in chunks.

    The second number of a chunked name already counts over all blocks (DINOv2).
    Raises: CheckpointError if a block is missing.
    """
    chunked = re.compile(r"blocks\.(\d+)\.(\d+)\.norm1\.weight")
    found = {
        int(m[2]): f"blocks.{m[1]}.{m[2]}." for name in checkpoint.tensors if (m := chunked.fullmatch(name))
    }
    if found:
        lost = next((index for index in range(len(found)) if index not in found), None)
        if lost is not None:
            raise CheckpointError(
                f"{checkpoint.name}: it has {len(found)} blocks up to number {max(found)}, but block {lost} is missing",
                "download the complete file",
            )
        return tuple(found[index] for index in range(len(found)))
    return tuple(f"blocks.{index}." for index in range(checkpoint.depth("blocks.{}.norm1.weight")))


def first_block(checkpoint: Checkpoint) -> str:
    """The prefix of the first block; "" if there are none."""
    return next(
        (
            n.removesuffix("norm1.weight")
            for n in checkpoint.tensors
            if re.fullmatch(r"blocks\.(0\.)?0\.norm1\.weight", n)
        ),
        "",
    )


def is_common(checkpoint: Checkpoint) -> bool:
    """Whether the file is a ViT with the common block, from any author except timm."""
    first = first_block(checkpoint)
    return bool(first) and checkpoint.has("patch_embed.proj.weight") and timms(checkpoint) is None


def has_flat_mask(checkpoint: Checkpoint) -> bool:
    """Whether the mask token is [1, D], as in DINOv2 and DINOv3; in MAE and BEiT it has three axes."""
    return checkpoint.has("mask_token") and len(checkpoint.shape("mask_token")) == 2


# Describing ------------------------------------------------------------------------------


def patch_of(checkpoint: Checkpoint) -> tuple[int, int, Size]:
    """Width, channels and patch size."""
    dim, channels, *sides = checkpoint.shape_of("patch_embed.proj.weight", 4)
    return dim, channels, (sides[0], sides[1])


def trunk(
    checkpoint: Checkpoint,
    facts: Facts,
    constants: Constants,
    *,
    grid: Size,
    head: HeadConfig,
    positions: Positions | None = None,
    num_heads: tuple[int, str] | None = None,
    **parts: Any,
) -> ViTConfig:
    """The config of a file with the common block, mostly read from its shapes.

    num_heads: from the file itself, if it states them. parts: other fields of ViTConfig.
    """
    dim, channels, patch = patch_of(checkpoint)
    names = block_names(checkpoint)
    first = names[0]
    scaled = any(checkpoint.has(f"{first}{name}") for name in ("gamma_1", "ls1.gamma"))
    return ViTConfig(
        image=ImageConfig(size=(grid[0] * patch[0], grid[1] * patch[1]), channels=channels),
        patch=PatchConfig(size=patch),
        dim=dim,
        depth=len(names),
        positions=NoPositions() if positions is None else positions,
        attention=AttentionConfig(
            num_heads=facts.heads(
                dim,
                num_heads or (None, ""),
                (constants.heads.get(dim), Inferred(f"the width {dim}, as in {constants.who}")),
            ),
            bias=_attention_bias(checkpoint, first),
            out_bias=checkpoint.has(f"{first}attn.proj.bias"),
            out_norm=checkpoint.has(f"{first}attn.inner_attn_ln.weight"),
        ),
        mlp=_mlp(checkpoint, first, facts, constants),
        block=BlockConfig(layer_scale=constants.layer_scale if scaled else None),
        norm=LayerNormConfig(
            eps=facts.require("eps", (constants.eps, constants.who)),
            bias=checkpoint.has(f"{first}norm1.bias"),
        ),
        head=head,
        **parts,
    )


def _attention_bias(checkpoint: Checkpoint, first: str) -> Any:
    if checkpoint.has(f"{first}attn.q_bias") or checkpoint.has(f"{first}attn.qkv.bias_mask"):
        return "qv"
    return "qkv" if checkpoint.has(f"{first}attn.qkv.bias") else "none"


def _mlp(checkpoint: Checkpoint, first: str, facts: Facts, constants: Constants) -> MLPConfig:
    """Read the MLP: fc1 and fc2, or a gate (w12 packed, or separate w1 and w2) followed by w3."""
    for name in ("w12", "w1"):
        if checkpoint.has(f"{first}mlp.{name}.weight"):
            return MLPConfig(
                hidden=checkpoint.shape_of(f"{first}mlp.w3.weight", 2)[1],
                activation=facts.require("act", ("silu", constants.who)),
                gated=True,
                bias=checkpoint.has(f"{first}mlp.{name}.bias"),
                inner_norm=checkpoint.has(f"{first}mlp.ffn_ln.weight"),
            )
    return MLPConfig(
        hidden=checkpoint.shape_of(f"{first}mlp.fc1.weight", 2)[0],
        activation=facts.require("act", ("gelu", constants.who)),
        bias=checkpoint.has(f"{first}mlp.fc1.bias"),
        inner_norm=checkpoint.has(f"{first}mlp.ffn_ln.weight"),
    )


def pool_of(facts: Facts, usual: str, source: str) -> Pool:
    return _POOLS[facts.require("pool", (usual, source))]


def classifier(
    checkpoint: Checkpoint, pool: Pool, norm: Literal["tokens", "pooled"] = "tokens"
) -> HeadConfig:
    """The config of `head`, if there is one."""
    return HeadConfig(pool=pool, norm=norm, num_classes=classes_of(checkpoint))


def classes_of(checkpoint: Checkpoint, name: str = "head.weight") -> int:
    """Number of outputs of the head, 0 without one."""
    return checkpoint.shape_of(name, 2)[0] if checkpoint.has(name) else 0


def preprocess(
    config: ViTConfig,
    shorter: int,
    numbers: tuple[tuple[float, ...], tuple[float, ...]] = IMAGENET,
    size: Size | None = None,
) -> Preprocess:
    """Resize the shorter side (bicubic), then crop the centre: torchvision's transforms, which all of them use."""
    mean, std = numbers if config.image.channels == 3 else ((0.5,), (0.5,))
    return Preprocess(
        image_size=size or config.image.size,
        resize=Shorter(size=shorter),
        in_channels=config.image.channels,
        resample=PixelResample(interpolation="bicubic"),
        mean=mean,
        std=std,
        reading=Reading(apply_exif=False),
    )


def evaluated(usual: Preprocess, source: str) -> tuple[Preprocess, str]:
    """A candidate for `Facts.preprocess` whose source states if mean and std are unknown."""
    if usual.in_channels == 3:
        return usual, source
    return usual, f"{source}; mean and std for {usual.in_channels} channels are unknown, so 0.5 is used"


def with_margin(size: Size, ratio: float = 0.875) -> int:
    """The shorter side before the crop, truncated as in the original code."""
    return int(min(size) / ratio)


def block_spelling(checkpoint: Checkpoint) -> dict[str, Any]:
    """The spelling of the block in this file: names of blocks, gate, LayerScale and projections."""
    names = block_names(checkpoint)
    first = names[0]
    return {
        "blocks": names,
        "gate": "w12" if checkpoint.has(f"{first}mlp.w12.weight") else "w1",
        "scale": ("gamma_1", "gamma_2") if checkpoint.has(f"{first}gamma_1") else ("ls1.gamma", "ls2.gamma"),
        "split": checkpoint.has(f"{first}attn.q_proj.weight"),
    }


# Rules -----------------------------------------------------------------------------------


def front(config: ViTConfig) -> Iterable[Rule]:
    """Rules for patches, class token and positions."""
    yield from patches(config)
    if config.tokens.class_token:
        yield token("cls_token", "prefix.class_token", config)


def positions(config: ViTConfig, name: str = "pos_embed") -> Rule:
    """[1, prefix + patches, D] in the file: prefix rows, then the grid."""
    rows = config.grid_size[0] * config.grid_size[1] + config.num_prefix_positions
    ours = ("positions.prefix", "positions.grid") if config.num_prefix_positions else ("positions.grid",)
    return rule(name, ours, Parted((1, rows, config.dim)))


def blocks(config: ViTConfig, spelling: Mapping[str, Any]) -> Iterable[Rule]:
    """Rules for all blocks. spelling: from `block_spelling`; anything it omits is as in DeiT."""
    names = spelling.get("blocks") or [f"blocks.{index}." for index in range(config.depth)]
    for index, theirs in enumerate(names):
        yield from block(theirs, f"blocks.{index}.", config, spelling)


def block(theirs: str, ours: str, config: ViTConfig, spelling: Mapping[str, Any]) -> Iterable[Rule]:
    yield from norm(f"{theirs}norm1", f"{ours}norm1", config)
    if spelling.get("split"):
        yield from _split_attention(theirs, ours, config)
    else:
        yield from attention(theirs, ours, config)
    yield from norm(f"{theirs}norm2", f"{ours}norm2", config)
    yield from _mlp_rules(theirs, ours, config, spelling.get("gate", "w12"))
    if config.block.layer_scale is not None:
        for name, scale in zip(
            spelling.get("scale", ("ls1.gamma", "ls2.gamma")), ("scale1", "scale2"), strict=True
        ):
            yield rule(f"{theirs}{name}", f"{ours}{scale}.weight")


def _split_attention(theirs: str, ours: str, config: ViTConfig) -> Iterable[Rule]:
    """Attention of EVA-02's base and large: three projections, separate query and value biases."""
    parts = tuple(f"{theirs}attn.{name}_proj.weight" for name in "qkv")
    yield rule(parts, f"{ours}attention.qkv.weight", Joined(3, Same()))
    if config.attention.bias == "qv":
        yield rule(f"{theirs}attn.q_bias", f"{ours}attention.q_bias")
        yield rule(f"{theirs}attn.v_bias", f"{ours}attention.v_bias")
    if config.attention.out_norm:
        yield from norm(f"{theirs}attn.inner_attn_ln", f"{ours}attention.out_norm", config)
    yield from both(f"{theirs}attn.proj", f"{ours}attention.proj", config.attention.out_bias)


def _mlp_rules(theirs: str, ours: str, config: ViTConfig, gate: str) -> Iterable[Rule]:
    bias = config.mlp.bias
    if not config.mlp.gated:
        yield from both(f"{theirs}mlp.fc1", f"{ours}mlp.fc1", bias)
    elif gate == "w12":
        yield from both(f"{theirs}mlp.w12", f"{ours}mlp.fc1", bias)
    else:
        for part in ("weight", "bias") if bias else ("weight",):
            apart = (f"{theirs}mlp.w1.{part}", f"{theirs}mlp.w2.{part}")
            yield rule(apart, f"{ours}mlp.fc1.{part}", Joined(2, Same()))
    if config.mlp.inner_norm:
        yield from norm(f"{theirs}mlp.ffn_ln", f"{ours}mlp.norm", config)
    yield from both(f"{theirs}mlp.{'w3' if config.mlp.gated else 'fc2'}", f"{ours}mlp.fc2", bias)


def back(config: ViTConfig) -> Iterable[Rule]:
    """Rules for `norm` over tokens or `fc_norm` over the pooled vector, and for `head`."""
    if config.head.norm == "tokens":
        yield from norm("norm", "norm", config)
    elif config.head.norm == "pooled":
        yield from norm("fc_norm", "pooled_norm", config)
    if config.head.num_classes:
        yield from both("head", "head", config.head.bias)
