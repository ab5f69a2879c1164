"""lucidrains/vit-pytorch: ViT and SimpleViT, in the three released spellings.

Source: the repository at 69d24fe (1.23.6) and its releases 0.20.0, 1.2.0, 1.6.9.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from patchword.errors import CheckpointError
from patchword.formats.checkpoint import Checkpoint
from patchword.formats.facts import Facts, Inferred
from patchword.formats.layout import Description, Ignored
from patchword.formats.ops import Constant, Op, Permuted, Reshaped, Shape, Unit
from patchword.formats.rows import Row, RowLayout, Rows, channels_last, rows_alone, table
from patchword.images.preprocess import Preprocess
from patchword.model.config import (
    AttentionConfig,
    HeadConfig,
    ImageConfig,
    MLPConfig,
    PatchConfig,
    TokensConfig,
    ViTConfig,
)
from patchword.model.kinds import (
    ClassPool,
    FirstPool,
    LayerNormConfig,
    Learned,
    MeanPool,
    Pool,
    Positions,
    Resample,
    SinCos2d,
)
from patchword.weights.card import ModelCard

_CLASS = "vit-pytorch's class"
_HEAD_DIM = 64  # dim_head's default, whatever the width
_POOLS: dict[str, Pool] = {"class": ClassPool(), "first": FirstPool()}


@dataclass(frozen=True)
class NamingVariant:
    """simple: SimpleViT. fn: norms are stored next to their modules, which are under `.fn` (before 1.5).

    row_tokens: tokens and positions without a batch axis (current releases). head: name of the head's linear layer.
    second: index of the MLP's second linear layer.
    """

    simple: bool = False
    fn: bool = False
    row_tokens: bool = True
    head: str = "mlp_head"
    second: int = 4

    @property
    def below(self) -> str:
        return ".fn" if self.fn else ""


class LucidrainsViT(RowLayout):
    name = "lucidrains"
    title = "vit-pytorch (lucidrains)"
    container = "torch"

    def recognise(self, checkpoint: Checkpoint) -> str | None:
        if checkpoint.has("to_patch_embedding.1.weight") and checkpoint.under("transformer.layers.0.0."):
            return "to_patch_embedding and transformer.layers.0.0"
        return None

    def describe(self, checkpoint: Checkpoint, facts: Facts) -> Description:
        spelling = _spelling(checkpoint)
        norms = len(checkpoint.shape("to_patch_embedding.1.weight")) == 1
        dim, pixels = checkpoint.shape_of(f"to_patch_embedding.{2 if norms else 1}.weight", 2)
        patch = _patch(facts, pixels)
        attention, first = f"0{spelling.below}.to_qkv", f"1{spelling.below}.net.{0 if spelling.fn else 1}"
        rows = checkpoint.shape(f"transformer.layers.0.{attention}.weight")[0] // 3
        usual = Inferred(f"dim_head {_HEAD_DIM}, the default of {_CLASS}")
        default = (rows // _HEAD_DIM if rows % _HEAD_DIM == 0 else None, usual)
        heads = facts.require("num_heads", default)
        if rows % heads:
            raise CheckpointError(
                f"{checkpoint.name}: {rows} channels of attention cannot be divided into {heads} heads",
                f"pass a divisor of {rows} as --num-heads",
            )
        tokens, positions, grid = _tokens(checkpoint, facts, patch, spelling)
        image = grid[0] * patch[0], grid[1] * patch[1]
        config = ViTConfig(
            image=ImageConfig(size=image, channels=pixels // (patch[0] * patch[1])),
            patch=PatchConfig(size=patch, norm_pixels=norms, norm_output=norms),
            dim=dim,
            depth=checkpoint.depth(f"transformer.layers.{{}}.{attention}.weight"),
            tokens=tokens,
            positions=positions,
            attention=AttentionConfig(
                num_heads=heads, head_dim=rows // heads, bias="none", out_bias=not spelling.simple
            ),
            mlp=MLPConfig(
                hidden=checkpoint.shape(f"transformer.layers.0.{first}.weight")[0],
                activation=facts.require("act", ("gelu", _CLASS)),
            ),
            norm=LayerNormConfig(eps=facts.require("eps", (1e-5, f"{_CLASS} (torch's default)"))),
            head=_head(checkpoint, facts, tokens, spelling),
        )
        channels = config.image.channels
        guess = Preprocess.simple(image, channels)
        doubt = (
            ()
            if facts.options.mean and facts.options.std
            else ("vit-pytorch defines no mean and std; 0.5 is a guess (--mean, --std)",)
        )
        return Description(
            config=config,
            preprocess=facts.preprocess((guess, "a guess, because vit-pytorch defines none")),
            spelling={"spelling": spelling},
            notes=(*doubt, *_pool_doubt(facts, tokens, spelling)),
        )

    def spelling(self, card: ModelCard) -> Mapping[str, Any]:
        simple = isinstance(card.config.positions, SinCos2d)
        if not card.config.patch.norm_pixels:
            # Only the first release had no norms around the patches.
            return {"spelling": NamingVariant(fn=True, row_tokens=False, head="mlp_head.1", second=3)}
        if simple:
            return {"spelling": NamingVariant(simple=True, head="linear_head", second=3)}
        return {"spelling": NamingVariant()}

    def rows(self, spelling: Mapping[str, Any], config: ViTConfig | None) -> Rows:
        variant: NamingVariant = spelling["spelling"]
        assert config is not None, "its files are described by their own names"
        kernel = f"to_patch_embedding.{2 if config.patch.norm_pixels else 1}."
        height, width = config.patch.size
        pixels = _pixels(height, width, config.image.channels)
        if config.patch.norm_pixels:
            yield "to_patch_embedding.1.{wb}", "patch_embed.norm_pixels.{wb}", pixels
            yield "to_patch_embedding.3.{wb}", "patch_embed.norm_output.{wb}"
        yield kernel + "weight", "patch_embed.proj.weight", channels_last
        yield kernel + "bias", "patch_embed.proj.bias"
        yield "register_tokens", "prefix.registers"
        if not variant.simple:
            yield from _token_rows(config, variant)
        yield _block(config, variant)
        yield "transformer.norm.{wb}", "norm.{wb}"
        yield f"{variant.head.removesuffix('.1')}.0.{{wb}}", "pooled_norm.{wb}"
        yield f"{variant.head}.{{wb}}", "head.{wb}"

    def ignored(self, description: Description) -> Iterable[Ignored]:
        if not description.config.head.num_classes:
            head = re.escape(description.spelling["spelling"].head)
            yield Ignored(head + r"\.(weight|bias)", "an empty head with 0 classes")


def _spelling(checkpoint: Checkpoint) -> NamingVariant:
    fn = bool(checkpoint.under("transformer.layers.0.0.fn."))
    simple = bool(checkpoint.under("linear_head.")) or not checkpoint.has("pos_embedding")
    stem = "linear_head" if simple else "mlp_head"
    head = f"{stem}.1" if checkpoint.has(f"{stem}.1.weight") else stem
    second = 3 if fn or simple else 4
    rows = len(checkpoint.shape("pos_embedding")) == 2 if checkpoint.has("pos_embedding") else True
    return NamingVariant(simple=simple, fn=fn, row_tokens=rows, head=head, second=second)


def _patch(facts: Facts, pixels: int) -> tuple[int, int]:
    """Read a patch stored as one row of values: square with three channels, unless the user specifies otherwise."""
    side = math.isqrt(pixels // 3)
    square = (side, side) if side * side * 3 == pixels else None
    patch = facts.require("patch_size", (square, "a square patch of three channels"))
    if pixels % (patch[0] * patch[1]):
        raise CheckpointError(
            f"{facts.name}: a patch of {pixels} values is not {patch[0]} x {patch[1]} pixels",
            "pass --patch-size HEIGHTxWIDTH with the patch size used in training",
        )
    return patch


def _tokens(
    checkpoint: Checkpoint, facts: Facts, patch: tuple[int, int], spelling: NamingVariant
) -> tuple[TokensConfig, Positions, tuple[int, int]]:
    if not checkpoint.has("pos_embedding"):
        image: tuple[int, int] = facts.require("image_size")
        registers = checkpoint.shape("register_tokens")[0] if checkpoint.has("register_tokens") else 0
        tokens = TokensConfig(class_token=False, num_registers=registers, registers_last=bool(registers))
        return tokens, SinCos2d(), (-(-image[0] // patch[0]), -(-image[1] // patch[1]))
    first = checkpoint.shape("cls_token")[0 if spelling.row_tokens else 1]
    rows = checkpoint.shape("pos_embedding")[-2]
    grid = facts.grid(rows - first, patch)
    resample = Resample(interpolation="bicubic", antialias=True)
    return TokensConfig(class_token=bool(first)), Learned(resample=resample), grid


def _head(checkpoint: Checkpoint, facts: Facts, tokens: TokensConfig, spelling: NamingVariant) -> HeadConfig:
    pool: Pool = MeanPool()
    if tokens.class_token:
        chosen = facts.require("pool", ("class", Inferred(f"pool 'cls', the default of {_CLASS}")))
        # In releases whose tokens have a batch axis, the mean includes the class token.
        over: Literal["patches", "all"] = "patches" if spelling.row_tokens else "all"
        pool = MeanPool(over=over) if chosen == "mean" else _POOLS[chosen]
    norm: Literal["tokens", "pooled", "none"] = "none"
    if checkpoint.has("transformer.norm.weight"):
        norm = "tokens"
    elif checkpoint.has(f"{spelling.head.removesuffix('.1')}.0.weight"):
        norm = "pooled"
    headed = any(checkpoint.has(f"{spelling.head}.{part}") for part in ("weight", "bias"))
    classes = checkpoint.shape(f"{spelling.head}.weight")[0] if headed else 0
    return HeadConfig(pool=pool, norm=norm, num_classes=classes)


def _pool_doubt(facts: Facts, tokens: TokensConfig, spelling: NamingVariant) -> tuple[str, ...]:
    if not tokens.class_token or spelling.row_tokens or facts.options.pool:
        return ()
    return (
        "this release stores a class token with either pooling; 'cls' is assumed (otherwise --pool mean)",
    )


def _pixels(height: int, width: int, channels: int) -> Any:
    """The pixels of a patch in the order row, column, channel."""

    def op(ours: Sequence[Shape]) -> Op:
        return Permuted((height, width, channels), (2, 0, 1), stored=ours[0])

    return op


def _token_rows(config: ViTConfig, variant: NamingVariant) -> Iterable[Row]:
    dim, batch = config.dim, () if variant.row_tokens else (1,)

    def token(ours: Sequence[Shape]) -> Op:
        return Reshaped((*batch, 1, dim))

    def empty(ours: Sequence[Shape]) -> Op:
        return Constant(((0, dim),))

    tables = ("positions.prefix", "positions.grid")
    if config.tokens.class_token:
        yield "cls_token", "prefix.class_token", token
    else:
        yield "cls_token", (), empty
    yield "pos_embedding", tables, rows_alone if variant.row_tokens else table


def _identity(ours: Sequence[Shape]) -> Op:
    return Unit()


def _block(config: ViTConfig, variant: NamingVariant) -> list[Row]:
    layer, ours = "transformer.layers.{i}", "blocks.{i}."
    attention, mlp = (f"{layer}.{part}{variant.below}." for part in (0, 1))
    out: list[Row] = [
        (f"{attention}{'to_out' if variant.simple else 'to_out.0'}.{{wb}}", f"{ours}attention.proj.{{wb}}")
    ]
    if config.attention.num_heads == 1 and config.attention_dim == config.dim and not variant.simple:
        out = [((), (f"{ours}attention.proj.weight", f"{ours}attention.proj.bias"), _identity)]
    return [
        (f"{layer}.0.norm.{{wb}}", f"{ours}norm1.{{wb}}"),
        (f"{attention}to_qkv.weight", f"{ours}attention.qkv.weight"),
        *out,
        (f"{layer}.1.{'norm' if variant.fn else 'net.0'}.{{wb}}", f"{ours}norm2.{{wb}}"),
        (f"{mlp}net.{0 if variant.fn else 1}.{{wb}}", f"{ours}mlp.fc1.{{wb}}"),
        (f"{mlp}net.{variant.second}.{{wb}}", f"{ours}mlp.fc2.{{wb}}"),
    ]
