"""timm's tensor names for all of its ViT classes; the config and the spelling decide which are present."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from patchword.checkpoints.layout import Ignored, Rule, rule
from patchword.checkpoints.layouts.blocks import both, norm, token
from patchword.checkpoints.layouts.timm_stem import resnet_rules
from patchword.checkpoints.ops import Joined, Op, Parted, Reshaped, Same, Shape
from patchword.model.config import ViTConfig
from patchword.model.kinds import AttentionPool, Learned, RelativeBias, RelativeMLP, RopeMixed

if TYPE_CHECKING:
    from torch import Tensor

NamingVariant = Mapping[str, Any]
INDEX = Ignored(
    r"(.*\.)?relative_position_index|.*\.rel_coords_log", "an index that patchword computes from the grid"
)


@dataclass(frozen=True)
class FlatPatches:
    """Turn a matrix over the pixels of a patch (row, column, channel; NaFlex) into the kernel [D, C, rows, columns]."""

    rows: int
    columns: int
    channels: int
    views: bool = field(default=False, init=False)

    def their_shapes(self, ours: Sequence[Shape]) -> list[Shape]:
        return [(ours[0][0], self.rows * self.columns * self.channels)]

    def read(self, theirs: "Sequence[Tensor]", ours: Sequence[Shape]) -> "list[Tensor]":
        cut = theirs[0].reshape(-1, self.rows, self.columns, self.channels)
        return [cut.permute(0, 3, 1, 2).contiguous()]

    def write(self, ours: "Sequence[Tensor]") -> "list[Tensor]":
        return [ours[0].permute(0, 2, 3, 1).flatten(1).contiguous()]


def rules(config: ViTConfig, spelling: NamingVariant) -> Iterable[Rule | Ignored]:
    """All rules. spelling: as described in `spelling_of`."""
    stem = "embeds." if spelling["naflex"] else ""
    yield from _patches(config, spelling)
    yield from _tokens(config, stem)
    yield from _positions(config, spelling, stem)
    if config.block.entry_norm:
        yield from norm("norm_pre", "entry_norm", config)
    for index in range(config.depth):
        yield from _block(index, config, spelling)
    yield from _head(config)
    yield INDEX


def _patches(config: ViTConfig, spelling: NamingVariant) -> Iterable[Rule]:
    yield from resnet_rules(config.patch.stem)
    stem = "embeds" if spelling["naflex"] else "patch_embed"
    op: Op = Same()
    if spelling["patches"] == "channels last":
        op = FlatPatches(*config.patch.size, config.image.channels)
    elif spelling["patches"] == "channels first":
        rows, columns = config.patch.size
        op = Reshaped((config.dim, config.image.channels * rows * columns))
    yield rule(f"{stem}.proj.weight", "patch_embed.proj.weight", op)
    if config.patch.bias:
        yield rule(f"{stem}.proj.bias", "patch_embed.proj.bias")
    if config.patch.norm_output:
        yield from norm(f"{stem}.norm", "patch_embed.norm_output", config)


def _tokens(config: ViTConfig, stem: str) -> Iterable[Rule]:
    tokens = config.tokens
    if tokens.class_token:
        yield token(f"{stem}cls_token", "prefix.class_token", config)
    if tokens.distillation_token:
        yield token("dist_token", "prefix.distillation_token", config)
    if tokens.num_registers:
        yield token(f"{stem}reg_token", "prefix.registers", config, tokens.num_registers)


def _positions(config: ViTConfig, spelling: NamingVariant, stem: str) -> Iterable[Rule]:
    if isinstance(config.added_positions, Learned):
        (rows, columns), prefix = config.grid_size, config.num_prefix_positions
        if spelling["naflex"]:
            yield rule(f"{stem}pos_embed", "positions.grid", Reshaped((1, rows, columns, config.dim)))
        elif prefix:
            shape = (1, rows * columns + prefix, config.dim)
            yield rule("pos_embed", ("positions.prefix", "positions.grid"), Parted(shape))
        else:
            yield rule("pos_embed", "positions.grid", Reshaped((1, rows * columns, config.dim)))
    inner, place = config.inner_positions, spelling["relative"]
    if isinstance(inner, RopeMixed):
        yield rule("rope.freqs", "attention_positions.frequencies")
    if not isinstance(inner, RelativeBias | RelativeMLP):
        return
    for index in range(1 if inner.shared else config.depth):
        theirs = place if inner.shared else f"blocks.{index}.attn.{place}"
        if isinstance(inner, RelativeBias):
            table = f"{theirs}relative_position_bias_table"
            yield rule(table, f"attention_positions.tables.{index}")
        else:
            for layer in ("fc1", "fc2"):
                yield from both(f"{theirs}mlp.{layer}", f"attention_positions.mlps.{index}.{layer}")


def _block(index: int, config: ViTConfig, spelling: NamingVariant) -> Iterable[Rule]:
    block = f"blocks.{index}."
    yield from norm(f"{block}norm1", f"{block}norm1", config)
    yield from _queries_keys_values(block, config, spelling)
    if config.attention.qk_norm != "none":
        for name in ("q_norm", "k_norm"):
            bias = config.attention.qk_norm == "layer"
            yield from both(f"{block}attn.{name}", f"{block}attention.{name}", bias)
    if config.attention.out_norm:
        yield from norm(f"{block}attn.norm", f"{block}attention.out_norm", config)
    yield from both(f"{block}attn.proj", f"{block}attention.proj", config.attention.out_bias)
    if config.block.layer_scale is not None:
        for number in (1, 2):
            gamma = f"gamma_{number}" if spelling["scale"] == "gamma" else f"ls{number}.gamma"
            yield rule(f"{block}{gamma}", f"{block}scale{number}.weight")
    yield from norm(f"{block}norm2", f"{block}norm2", config)
    yield from _mlp(block, config, spelling)


def _queries_keys_values(block: str, config: ViTConfig, spelling: NamingVariant) -> Iterable[Rule]:
    """Rules for one matrix or three; query and value biases are separate if keys have none."""
    bias, ours = config.attention.bias, f"{block}attention."
    if not spelling["split"]:
        yield rule(f"{block}attn.qkv.weight", f"{ours}qkv.weight")
        if bias == "qkv":
            yield rule(f"{block}attn.qkv.bias", f"{ours}qkv.bias")
        elif bias == "qv":
            yield rule(f"{block}attn.q_bias", f"{ours}q_bias")
            yield rule(f"{block}attn.v_bias", f"{ours}v_bias")
        return
    three = tuple(f"{block}attn.{part}_proj" for part in "qkv")
    yield rule(tuple(f"{name}.weight" for name in three), f"{ours}qkv.weight", Joined(3))
    if bias == "qkv":
        yield rule(tuple(f"{name}.bias" for name in three), f"{ours}qkv.bias", Joined(3))
    elif bias == "qv":
        yield rule(f"{block}attn.q_proj.bias", f"{ours}q_bias")
        yield rule(f"{block}attn.v_proj.bias", f"{ours}v_bias")


def _mlp(block: str, config: ViTConfig, spelling: NamingVariant) -> Iterable[Rule]:
    theirs = ours = f"{block}mlp."
    if config.mlp.gated and spelling["gate"] == "apart":
        for part in ("weight", "bias") if config.mlp.bias else ("weight",):
            yield rule((f"{theirs}fc1_g.{part}", f"{theirs}fc1_x.{part}"), f"{ours}fc1.{part}", Joined(2))
    else:
        yield from both(f"{theirs}fc1", f"{ours}fc1", config.mlp.bias)
    if config.mlp.inner_norm:
        yield from norm(f"{theirs}norm", f"{ours}norm", config)
    yield from both(f"{theirs}fc2", f"{ours}fc2", config.mlp.bias)


def _head(config: ViTConfig) -> Iterable[Rule]:
    head = config.head
    if isinstance(head.pool, AttentionPool):
        yield token("attn_pool.latent", "pool.probe", config)
        for name in ("q", "kv", "proj", "mlp.fc1", "mlp.fc2"):
            yield from both(f"attn_pool.{name}", f"pool.{name}")
        yield from norm("attn_pool.norm", "pool.norm", config)
    if head.norm == "tokens":
        yield from norm("norm", "norm", config)
    elif head.norm == "pooled":
        yield from norm("fc_norm", "pooled_norm", config)
    if head.num_classes:
        yield from both("head", "head", head.bias)
    if head.distilled and head.num_classes:
        yield from both("head_dist", "head_distillation", head.bias)
