"""Names and shapes in Google's .npz files, and the rule for each tensor in every spelling.

Kernels are stored as (in, out). Attention kernels have a head axis: (D, H, d), and (H, d, D) for the output.
Source: google-research/vision_transformer at c6de1e5, google-research/big_vision at 0127fb6.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from patchword.formats.layout import Ignored
from patchword.formats.layouts.stems import StemNames
from patchword.formats.ops import Joined, Op, Permuted, Reshaped, Scanned, Shape
from patchword.formats.rows import MakeOp, Row, Rows, inputs_first, table, token, unchanged
from patchword.model.config import ViTConfig
from patchword.model.kinds import AttentionPool, Resample, Size

if TYPE_CHECKING:
    from torch import Tensor

# Names of the position table; a file with none of them uses fixed sines.
INPUT_POSITIONS = "Transformer/posembed_input/pos_embedding"
OLD_POSITIONS = "Transformer/pos_embedding"
ROOT_POSITIONS = "pos_embedding"
PLACES = (INPUT_POSITIONS, OLD_POSITIONS, ROOT_POSITIONS)
# The order matters: an optimiser's copy of the tensors must not be confused with them.
PREFIXES = ("params/img/", "params/", "opt/target/img/", "opt/target/", "img/", "")

_PARTS: Mapping[str, str] = {"/scale": "weight", "/bias": "bias"}


@dataclass(frozen=True)
class NamingVariant:
    """How a file spells its tensors.

    prefix: of every name. positions: name of the position table. laid_out: the table has row and column axes
    (NaFlex). numbered: modules inside a block are numbered (before flax's linen). scanned: one tensor holds all
    blocks. flat_patches: a matrix instead of a convolution (NaFlex). pool: prefix of the attention pool's
    names. flat_norms: the stem's norms are [C], not [1, 1, 1, C]. stored_patch: the file's patch size, if the
    model has another.
    """

    prefix: str = ""
    positions: str = INPUT_POSITIONS
    laid_out: bool = False
    numbered: bool = True
    scanned: bool = False
    flat_patches: bool = False
    pool: str = "MAPHead_0/"
    flat_norms: bool = True
    stored_patch: Size | None = None

    @property
    def slot(self) -> bool:
        """Whether the class token has a row in the table, known from the table's name."""
        return self.positions in (INPUT_POSITIONS, OLD_POSITIONS)

    @property
    def attention(self) -> str:
        return "MultiHeadDotProductAttention_1" if self.numbered else "MultiHeadDotProductAttention_0"

    @property
    def norm2(self) -> str:
        return "LayerNorm_2" if self.numbered else "LayerNorm_1"

    @property
    def mlp(self) -> str:
        return "MlpBlock_3" if self.numbered else "MlpBlock_0"

    @property
    def two_towers(self) -> bool:
        return self.prefix.endswith("img/")

    def block(self, index: int | str) -> str:
        """The prefix of a block's names."""
        return f"{self.prefix}Transformer/encoderblock{'' if self.scanned else f'_{index}'}/"


def rows(config: ViTConfig, spelling: NamingVariant) -> Rows:
    prefix = spelling.prefix
    yield from _stem_names(spelling).rows(config.patch.stem)
    yield from _patches(spelling)
    yield f"{prefix}cls", "prefix.class_token", token
    if spelling.positions:
        rows_too = spelling.slot and not spelling.laid_out
        whole = ("positions.prefix", "positions.grid") if rows_too else "positions.grid"
        yield f"{prefix}{spelling.positions}", whole, unchanged if spelling.laid_out else table
    block = list(_block(config, spelling))
    if spelling.scanned:
        yield from (_scanned(row, config.depth) for row in block)
    else:
        yield block
    yield from _norm(f"{prefix}Transformer/encoder_norm", "norm")
    yield from _attention_pool(config, f"{prefix}{spelling.pool}")
    yield from _dense(f"{prefix}pre_logits", "pre_logits")
    yield from _dense(f"{prefix}head", "projection" if config.head.projection else "head")


def drops(spelling: NamingVariant) -> Iterable[Ignored]:
    """Tensors outside the image model, known from its prefix."""
    prefix = spelling.prefix
    yield Ignored("chrono/.*", "the training clock")
    yield Ignored("opt/(?!target/).*", "the optimiser's state")
    if spelling.two_towers:
        outer = prefix.removesuffix("img/")
        yield Ignored(f"{outer}txt/.*", "the text tower")
        yield Ignored(f"{outer}llm/.*", "the language model")
        yield Ignored(f"{outer}t", "the temperature of the contrastive loss")
        yield Ignored(f"{outer}b", "the bias of the contrastive loss")


# Patches and tokens ----------------------------------------------------------------------


@dataclass(frozen=True)
class ResampledKernel:
    """Resample the file's kernel from patches `old` to the model's patch size (FlexiViT). Written as resampled."""

    old: Size
    flat: bool
    views: bool = field(default=False, init=False)

    def _as(self, shape: Shape, patch: Size) -> Permuted:
        dim, channels = shape[0], shape[1]
        return patch_kernel(dim, channels, patch, flat=self.flat)

    def their_shapes(self, ours: Sequence[Shape]) -> list[Shape]:
        return self._as(ours[0], self.old).their_shapes(ours)

    def read(self, theirs: Sequence["Tensor"], ours: Sequence[Shape]) -> list["Tensor"]:
        from patchword.model.resample import resample_kernel

        stored = (*ours[0][:2], *self.old)
        # Rounding the new kernel to two bytes again would lose the precision of the sums.
        kernel = self._as(ours[0], self.old).read([theirs[0].float()], [stored])[0]
        if kernel.device.type == "meta":
            return [kernel.new_empty(ours[0])]
        return [resample_kernel(kernel, (ours[0][2], ours[0][3]), FLEXIVIT)]

    def write(self, ours: Sequence["Tensor"]) -> list["Tensor"]:
        shape = tuple(ours[0].shape)
        return self._as(shape, (shape[2], shape[3])).write(ours)


# The resize whose pseudo-inverse FlexiViT uses.
FLEXIVIT = Resample(interpolation="bilinear", antialias=False)


def patch_kernel(dim: int, channels: int, patch: Size, *, flat: bool) -> Permuted:
    """(rows, columns, in, out), or the first three as one axis → [out, in, rows, columns]."""
    stored = (patch[0] * patch[1] * channels, dim) if flat else None
    return Permuted((*patch, channels, dim), (3, 2, 0, 1), stored)


def _patches(spelling: NamingVariant) -> Iterator[Row]:
    def kernel(ours: Sequence[Shape]) -> Op:
        dim, channels, *sides = ours[0]
        if spelling.stored_patch is not None:
            return ResampledKernel(spelling.stored_patch, spelling.flat_patches)
        return patch_kernel(dim, channels, (sides[0], sides[1]), flat=spelling.flat_patches)

    yield f"{spelling.prefix}embedding/kernel", "patch_embed.proj.weight", kernel
    yield f"{spelling.prefix}embedding/bias", "patch_embed.proj.bias"


# Blocks, norms, heads --------------------------------------------------------------------


def _norm(theirs: str, ours: str) -> Iterator[Row]:
    yield f"{theirs}/scale", f"{ours}.weight"
    yield f"{theirs}/bias", f"{ours}.bias"


def _dense(theirs: str, ours: str) -> Iterator[Row]:
    yield f"{theirs}/kernel", f"{ours}.weight", inputs_first
    yield f"{theirs}/bias", f"{ours}.bias"


def _projected(theirs: str, names: Sequence[str], ours: str, heads: int) -> Iterator[Row]:
    """Queries, keys and values stacked: each (D, H, d), rows ordered by head."""
    count = len(names)

    def kernel(ours: Sequence[Shape]) -> Op:
        rows, dim = ours[0][0] // count, ours[0][1]
        return Joined(count, Permuted((dim, rows), (1, 0), stored=(dim, heads, rows // heads)))

    def bias(ours: Sequence[Shape]) -> Op:
        return Joined(count, Reshaped((heads, ours[0][0] // count // heads)))

    yield tuple(f"{theirs}/{n}/kernel" for n in names), f"{ours}.weight", kernel
    yield tuple(f"{theirs}/{n}/bias" for n in names), f"{ours}.bias", bias


def _out(theirs: str, ours: str, heads: int) -> Iterator[Row]:
    def kernel(ours: Sequence[Shape]) -> Op:
        dim, inner = ours[0]
        return Permuted((inner, dim), (1, 0), stored=(heads, inner // heads, dim))

    yield f"{theirs}/out/kernel", f"{ours}.weight", kernel
    yield f"{theirs}/out/bias", f"{ours}.bias"


def _block(config: ViTConfig, spelling: NamingVariant) -> Iterator[Row]:
    theirs, ours, heads = spelling.block("{i}"), "blocks.{i}.", config.attention.num_heads
    attention = f"{theirs}{spelling.attention}"
    yield from _norm(f"{theirs}LayerNorm_0", f"{ours}norm1")
    yield from _projected(attention, ("query", "key", "value"), f"{ours}attention.qkv", heads)
    yield from _out(attention, f"{ours}attention.proj", heads)
    yield from _norm(f"{theirs}{spelling.norm2}", f"{ours}norm2")
    for dense, layer in (("Dense_0", "fc1"), ("Dense_1", "fc2")):
        yield from _dense(f"{theirs}{spelling.mlp}/{dense}", f"{ours}mlp.{layer}")


def _scanned(row: Row, depth: int) -> Row:
    """One tensor of the file holds those of all blocks."""
    theirs, ours, *op = row
    every = tuple(str(ours).format(i=layer) for layer in range(depth))

    def each(ours: Sequence[Shape]) -> Op:
        return Scanned(depth, (op[0] if op else unchanged)(ours[: len(ours) // depth]))

    return theirs, every, each


def _attention_pool(config: ViTConfig, prefix: str) -> Iterator[Row]:
    pool = config.head.pool
    heads = (pool.num_heads if isinstance(pool, AttentionPool) else None) or config.attention.num_heads
    inside = f"{prefix}MultiHeadDotProductAttention_0"
    yield f"{prefix}probe", "pool.probe", token
    yield from _projected(inside, ("query",), "pool.q", heads)
    yield from _projected(inside, ("key", "value"), "pool.kv", heads)
    yield from _out(inside, "pool.proj", heads)
    yield from _norm(f"{prefix}LayerNorm_0", "pool.norm")
    for dense, layer in (("Dense_0", "fc1"), ("Dense_1", "fc2")):
        yield from _dense(f"{prefix}MlpBlock_0/{dense}", f"pool.mlp.{layer}")


# The hybrids' ResNet ---------------------------------------------------------------------


def _convolution(ours: Sequence[Shape]) -> Op:
    outputs, inputs, height, width = ours[0]
    return Permuted((height, width, inputs, outputs), (3, 2, 0, 1))


def _laid_out(ours: Sequence[Shape]) -> Op:
    return Reshaped((1, 1, 1, *ours[0]))


def _stem_names(spelling: NamingVariant) -> StemNames:
    affine: MakeOp = unchanged if spelling.flat_norms else _laid_out
    return StemNames(
        root=f"{spelling.prefix}conv_root",
        root_norm=f"{spelling.prefix}gn_root",
        unit=f"{spelling.prefix}block{{stage1}}/unit{{unit1}}/",
        conv="conv{n}",
        norm="gn{n}",
        proj="conv_proj",
        proj_norm="gn_proj",
        weight="/kernel",
        parts=_PARTS,
        kernel=_convolution,
        affine=affine,
    )
