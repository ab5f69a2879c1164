"""Names and shapes in Google's .npz files, and the rule for each tensor in every spelling.

Kernels are stored as (in, out). Attention kernels have a head axis: (D, H, d), and (H, d, D) for the output.
Source: google-research/vision_transformer at c6de1e5, google-research/big_vision at 0127fb6.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from patchword.checkpoints.layout import Ignored, Rule, rule
from patchword.checkpoints.ops import Joined, Op, Parted, Permuted, Reshaped, Same, Scanned, Shape, transposed
from patchword.model.config import ViTConfig
from patchword.model.kinds import AttentionPool, Resample, ResNetStem, Size

if TYPE_CHECKING:
    from torch import Tensor

# Names of the position table; a file with none of them uses fixed sines.
INPUT_POSITIONS = "Transformer/posembed_input/pos_embedding"
OLD_POSITIONS = "Transformer/pos_embedding"
ROOT_POSITIONS = "pos_embedding"
PLACES = (INPUT_POSITIONS, OLD_POSITIONS, ROOT_POSITIONS)
# The order matters: an optimiser's copy of the tensors must not be confused with them.
PREFIXES = ("params/img/", "params/", "opt/target/img/", "opt/target/", "img/", "")

# One tensor of a block (or several that become one): their names, ours, and the operation.
Part = tuple[tuple[str, ...], str, Op]


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


def rules(config: ViTConfig, spelling: NamingVariant) -> Iterable[Rule | Ignored]:
    prefix = spelling.prefix
    yield from _stem(config, spelling)
    yield from _patches(config, spelling)
    yield from _tokens(config, spelling)
    parts = list(_block(config, spelling))
    for index in range(1 if spelling.scanned else config.depth):
        for theirs, ours, op in parts:
            named = tuple(f"{spelling.block(index)}{name}" for name in theirs)
            if spelling.scanned:
                every = tuple(f"blocks.{layer}.{ours}" for layer in range(config.depth))
                yield Rule(named, every, Scanned(config.depth, op))
            else:
                yield rule(named, f"blocks.{index}.{ours}", op)
    for theirs, ours, op in _ends(config, spelling):
        yield rule(tuple(f"{prefix}{name}" for name in theirs), ours, op)
    yield from drops(spelling)


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
        from patchword.model.kernel import resample_kernel

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


def _patches(config: ViTConfig, spelling: NamingVariant) -> Iterable[Rule]:
    channels, patch = config.patch.stem.features(config.image.channels), config.patch.size
    op: Op = patch_kernel(config.dim, channels, patch, flat=spelling.flat_patches)
    if spelling.stored_patch is not None:
        op = ResampledKernel(spelling.stored_patch, spelling.flat_patches)
    yield rule(f"{spelling.prefix}embedding/kernel", "patch_embed.proj.weight", op)
    yield rule(f"{spelling.prefix}embedding/bias", "patch_embed.proj.bias")


def _tokens(config: ViTConfig, spelling: NamingVariant) -> Iterable[Rule]:
    dim, (rows, columns) = config.dim, config.grid_size
    if config.tokens.class_token:
        yield rule(f"{spelling.prefix}cls", "prefix.class_token", Reshaped((1, 1, dim)))
    if not spelling.positions:
        return
    name = f"{spelling.prefix}{spelling.positions}"
    if spelling.laid_out:
        yield rule(name, "positions.grid")
    elif spelling.slot and config.tokens.class_token:
        yield rule(name, ("positions.prefix", "positions.grid"), Parted((1, rows * columns + 1, dim)))
    else:
        yield rule(name, "positions.grid", Reshaped((1, rows * columns, dim)))


# Blocks, norms, heads --------------------------------------------------------------------


def _norm(theirs: str, ours: str) -> Iterable[Part]:
    yield (f"{theirs}/scale",), f"{ours}.weight", Same()
    yield (f"{theirs}/bias",), f"{ours}.bias", Same()


def _dense(theirs: str, ours: str, inputs: int, outputs: int) -> Iterable[Part]:
    yield (f"{theirs}/kernel",), f"{ours}.weight", transposed(inputs, outputs)
    yield (f"{theirs}/bias",), f"{ours}.bias", Same()


def _projected(
    theirs: str, names: Sequence[str], ours: str, dim: int, heads: int, width: int
) -> Iterable[Part]:
    """Queries, keys and values stacked: each (D, H, d), rows ordered by head."""
    kernel = Permuted((dim, heads * width), (1, 0), stored=(dim, heads, width))
    bias = Reshaped((heads, width))
    count = len(names)
    yield tuple(f"{theirs}/{n}/kernel" for n in names), f"{ours}.weight", Joined(count, kernel)
    yield tuple(f"{theirs}/{n}/bias" for n in names), f"{ours}.bias", Joined(count, bias)


def _out(theirs: str, ours: str, dim: int, heads: int, width: int) -> Iterable[Part]:
    kernel = Permuted((heads * width, dim), (1, 0), stored=(heads, width, dim))
    yield (f"{theirs}/out/kernel",), f"{ours}.weight", kernel
    yield (f"{theirs}/out/bias",), f"{ours}.bias", Same()


def _mlp(theirs: str, ours: str, dim: int, hidden: int) -> Iterable[Part]:
    yield from _dense(f"{theirs}/Dense_0", f"{ours}.fc1", dim, hidden)
    yield from _dense(f"{theirs}/Dense_1", f"{ours}.fc2", hidden, dim)


def _block(config: ViTConfig, spelling: NamingVariant) -> Iterable[Part]:
    dim, heads, width = config.dim, config.attention.num_heads, config.head_dim
    yield from _norm("LayerNorm_0", "norm1")
    yield from _projected(spelling.attention, ("query", "key", "value"), "attention.qkv", dim, heads, width)
    yield from _out(spelling.attention, "attention.proj", dim, heads, width)
    yield from _norm(spelling.norm2, "norm2")
    yield from _mlp(spelling.mlp, "mlp", dim, config.mlp_dim)


def _ends(config: ViTConfig, spelling: NamingVariant) -> Iterable[Part]:
    """Rules for the final norm, the attention pool and the heads."""
    head, dim = config.head, config.dim
    yield from _norm("Transformer/encoder_norm", "norm")
    if isinstance(head.pool, AttentionPool):
        yield from _attention_pool(head.pool, config, spelling.pool)
    if head.pre_logits:
        yield from _dense("pre_logits", "pre_logits", dim, head.pre_logits)
    if head.projection:
        yield from _dense("head", "projection", config.embed_dim, head.projection)
    elif head.num_classes:
        yield from _dense("head", "head", config.embed_dim, head.num_classes)


def _attention_pool(pool: AttentionPool, config: ViTConfig, prefix: str) -> Iterable[Part]:
    dim, heads = config.dim, pool.num_heads or config.attention.num_heads
    inside = f"{prefix}MultiHeadDotProductAttention_0"
    yield (f"{prefix}probe",), "pool.probe", Reshaped((1, 1, dim))
    yield from _projected(inside, ("query",), "pool.q", dim, heads, dim // heads)
    yield from _projected(inside, ("key", "value"), "pool.kv", dim, heads, dim // heads)
    yield from _out(inside, "pool.proj", dim, heads, dim // heads)
    yield from _norm(f"{prefix}LayerNorm_0", "pool.norm")
    yield from _mlp(f"{prefix}MlpBlock_0", "pool.mlp", dim, pool.hidden or config.mlp_dim)


# The hybrids' ResNet ---------------------------------------------------------------------


def _stem(config: ViTConfig, spelling: NamingVariant) -> Iterable[Rule]:
    stem = config.patch.stem
    if not isinstance(stem, ResNetStem):
        return
    ours = "patch_embed.stem."
    channels, width = config.image.channels, stem.width
    yield rule(f"{spelling.prefix}conv_root/kernel", f"{ours}root.weight", _conv(7, channels, width))
    yield from _group_norm("gn_root", f"{ours}root_norm", width, spelling)
    inputs = width
    for stage, units in enumerate(stem.units):
        for unit in range(units):
            theirs = f"block{stage + 1}/unit{unit + 1}/"
            middle = width * 2**stage
            sizes = {"1": (1, inputs, middle), "2": (3, middle, middle), "3": (1, middle, 4 * middle)}
            names = {number: (f"conv{number}", f"norm{number}") for number in sizes}
            if not unit:
                sizes["_proj"], names["_proj"] = (1, inputs, 4 * middle), ("proj", "proj_norm")
            for number, (side, wide, narrow) in sizes.items():
                conv, norm = (f"{ours}stages.{stage}.{unit}.{name}" for name in names[number])
                kernel = _conv(side, wide, narrow)
                yield rule(f"{spelling.prefix}{theirs}conv{number}/kernel", f"{conv}.weight", kernel)
                yield from _group_norm(f"{theirs}gn{number}", norm, narrow, spelling)
            inputs = 4 * middle


def _conv(side: int, inputs: int, outputs: int) -> Permuted:
    return Permuted((side, side, inputs, outputs), (3, 2, 0, 1))


def _group_norm(theirs: str, ours: str, width: int, spelling: NamingVariant) -> Iterable[Rule]:
    op: Op = Same() if spelling.flat_norms else Reshaped((1, 1, 1, width))
    yield rule(f"{spelling.prefix}{theirs}/scale", f"{ours}.weight", op)
    yield rule(f"{spelling.prefix}{theirs}/bias", f"{ours}.bias", op)
