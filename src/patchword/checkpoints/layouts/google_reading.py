"""What the tensors of a Google file say of its model: nearly everything, by names and shapes."""

import math
import re
from dataclasses import replace
from typing import Literal

from patchword.checkpoints.checkpoint import Checkpoint
from patchword.checkpoints.facts import OPTION, Facts
from patchword.checkpoints.layouts.google_rules import (
    FLEXIVIT,
    INPUT_POSITIONS,
    PLACES,
    PREFIXES,
    ROOT_POSITIONS,
    NamingVariant,
)
from patchword.errors import CheckpointError, KeyMismatch, MissingFact
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
    AttentionPool,
    ClassPool,
    FirstPool,
    LayerNormConfig,
    Learned,
    MeanPool,
    NoStem,
    Pool,
    Positions,
    Resample,
    ResNetStem,
    SinCos2d,
    Size,
    Stem,
)

BOTH = "Google's two repositories"
FLAX = f"{BOTH}: flax's default"
# Positions brought to another grid when a file is loaded: scipy's zoom of order 1.
ON_LOAD = Resample(interpolation="bilinear", antialias=False, align_corners=True)
# FlexiViT and NaFlex do it for every image: jax.image.resize, linear.
AT_RUN_TIME = Resample(interpolation="bilinear", antialias=True)


def spelling_of(checkpoint: Checkpoint) -> NamingVariant | None:
    """How this file says it; None where it is no Google file."""
    for prefix in PREFIXES:
        if checkpoint.has(f"{prefix}embedding/kernel") and checkpoint.under(f"{prefix}Transformer/encoder"):
            return _spelling(checkpoint, prefix)
    return None


def _spelling(checkpoint: Checkpoint, prefix: str) -> NamingVariant:
    def has(name: str) -> bool:
        return checkpoint.has(f"{prefix}{name}")

    place = next((place for place in PLACES if has(place)), "")
    table = checkpoint.shape(f"{prefix}{place}") if place else ()
    scanned = has("Transformer/encoderblock/LayerNorm_0/scale")
    first = f"Transformer/encoderblock{'' if scanned else '_0'}/"
    norm = checkpoint.shape(f"{prefix}gn_root/scale") if has("gn_root/scale") else ()
    return NamingVariant(
        prefix=prefix,
        positions=place,
        laid_out=len(table) == 3 and table[0] != 1,
        numbered=has(f"{first}LayerNorm_2/scale"),
        scanned=scanned,
        flat_patches=len(checkpoint.shape(f"{prefix}embedding/kernel")) == 2,
        pool="" if has("probe") else "MAPHead_0/",
        flat_norms=len(norm) != 4,
    )


class Reading:
    """One file. notes: what a user should know of how it was read."""

    def __init__(self, checkpoint: Checkpoint, facts: Facts, spelling: NamingVariant) -> None:
        self.checkpoint = checkpoint
        self.facts = facts
        self.spelling = spelling
        self.notes: list[str] = []
        self.stem = self._stem()
        self.dim, self.channels, self.stored_patch = self._kernel()
        self.patch = self._patch()
        if self.patch != self.stored_patch:
            self.spelling = replace(spelling, stored_patch=self.stored_patch)

    def config(self) -> ViTConfig:
        class_token = self._has("cls")
        heads, width = self._heads()
        positions, grid = self._positions()
        return ViTConfig(
            image=ImageConfig(size=self._pixels(grid, self.patch), channels=self.channels),
            # Their convolutions pad nothing: what fills no patch is left out.
            patch=PatchConfig(size=self.patch, stem=self.stem, resample=FLEXIVIT, edge="cut"),
            dim=self.dim,
            depth=self._depth(),
            tokens=TokensConfig(class_token=class_token),
            positions=positions,
            attention=AttentionConfig(num_heads=heads, head_dim=None if heads * width == self.dim else width),
            mlp=MLPConfig(
                hidden=self._block_shape(f"{self.spelling.mlp}/Dense_0/kernel", 2)[1],
                activation=self.facts.require("act", ("gelu_tanh", FLAX)),
            ),
            norm=LayerNormConfig(eps=self.facts.require("eps", (1e-6, FLAX))),
            head=self._head(class_token, heads),
        )

    def fitted(self, config: ViTConfig, size: Size) -> ViTConfig:
        """The config for images of `size` where that fills the stored grid."""
        if config.grid_of(size) != config.grid_size:
            return config
        return replace(config, image=replace(config.image, size=size))

    # Parts ---------------------------------------------------------------------------

    def _has(self, name: str) -> bool:
        return self.checkpoint.has(f"{self.spelling.prefix}{name}")

    def _shape(self, name: str, axes: int) -> tuple[int, ...]:
        return self.checkpoint.shape_of(f"{self.spelling.prefix}{name}", axes)

    def _block_shape(self, name: str, axes: int) -> tuple[int, ...]:
        """Of the first block; the leading axis of layers off."""
        scanned = self.spelling.scanned
        return self.checkpoint.shape_of(f"{self.spelling.block(0)}{name}", axes + scanned)[scanned:]

    def _stem(self) -> Stem:
        if not self._has("conv_root/kernel"):
            return NoStem()
        unit = re.compile(re.escape(self.spelling.prefix) + r"block(\d+)/unit(\d+)/conv1/kernel")
        found = [(int(m[1]), int(m[2])) for name in self.checkpoint.tensors if (m := unit.fullmatch(name))]
        stages = range(1, max((stage for stage, _ in found), default=0) + 1)
        units = tuple(sum(1 for stage, _ in found if stage == wanted) for wanted in stages)
        if not all(units):
            raise CheckpointError(
                f"{self.facts.name}: a stage of its ResNet is missing", "get the whole file"
            )
        return ResNetStem(units=units, width=self._shape("conv_root/kernel", 4)[3])

    def _kernel(self) -> tuple[int, int, Size]:
        """Width, channels of the image and the stored patch."""
        if not self.spelling.flat_patches:
            height, width, channels, dim = self._shape("embedding/kernel", 4)
            if isinstance(self.stem, ResNetStem):
                channels = self._shape("conv_root/kernel", 4)[2]
            return dim, channels, (height, width)
        return self._flat_kernel()

    def _flat_kernel(self) -> tuple[int, int, Size]:
        """A patch is one row of numbers: a square of three colours unless the user says otherwise."""
        numbers, dim = self._shape("embedding/kernel", 2)
        side = math.isqrt(numbers // 3)
        if side * side * 3 == numbers:
            return dim, 3, (side, side)
        asked = self.facts.options.patch_size
        if asked is None or numbers % (asked[0] * asked[1]):
            raise MissingFact(
                f"{self.facts.name}: {numbers} numbers a patch are no square of three channels"
                + ("" if asked is None else f", nor patches of {asked[0]} x {asked[1]}"),
                "give --patch-size HEIGHTxWIDTH as it was trained",
                "patch_size",
            )
        return dim, numbers // (asked[0] * asked[1]), asked

    def _patch(self) -> Size:
        """The stored patch, or the one that is asked for: the kernel is resampled then, as FlexiViT does."""
        asked = self.facts.options.patch_size
        if asked is None:
            return self.stored_patch
        self.facts.record("patch_size", asked, OPTION)
        if asked == self.stored_patch:
            return asked
        if isinstance(self.stem, ResNetStem):
            raise CheckpointError(
                f"{self.facts.name}: a ResNet stands before its patches, which can have no other size",
                "leave --patch-size out",
            )
        height, width = self.stored_patch
        self.notes.append(
            f"patches of {height} x {width} resampled to {asked[0]} x {asked[1]} (FlexiViT's way)"
        )
        return asked

    def _heads(self) -> tuple[int, int]:
        _, heads, width = self._block_shape(f"{self.spelling.attention}/query/kernel", 3)
        told = self.facts.require("num_heads", (heads, "the shape of its query kernels"))
        if told != heads:
            raise CheckpointError(
                f"{self.facts.name}: its query kernels have {heads} heads, and {told} were told",
                f"leave --num-heads out, or give {heads}",
            )
        return heads, width

    def _depth(self) -> int:
        if self.spelling.scanned:
            name = f"{self.spelling.block(0)}LayerNorm_0/scale"
            return self.checkpoint.shape_of(name, 2)[0]
        depth = self.checkpoint.depth(self.spelling.block("{}") + "LayerNorm_0/scale")
        if not depth:
            self._block_shape("LayerNorm_0/scale", 1)
        return depth

    def _stride(self, patch: Size) -> Size:
        return self.stem.stride * patch[0], self.stem.stride * patch[1]

    def _pixels(self, grid: Size, patch: Size) -> Size:
        stride = self._stride(patch)
        return grid[0] * stride[0], grid[1] * stride[1]

    def _positions(self) -> tuple[Positions, Size]:
        place = self.spelling.positions
        if not place:
            self._check_sines()
            size: Size = self.facts.require("image_size")
            stride = self._stride(self.patch)
            return SinCos2d(), (size[0] // stride[0], size[1] // stride[1])
        rows, columns, _ = self._shape(place, 3)
        flexible = self.patch != self.stored_patch or self.spelling.flat_patches or self._flexivit()
        resample = AT_RUN_TIME if flexible else ON_LOAD
        covers: Literal["patches", "all_but_registers"] = "patches"
        if self.spelling.laid_out:
            return Learned(covers=covers, resample=resample), (rows, columns)
        if self.spelling.slot and self._has("cls"):
            covers, columns = "all_but_registers", columns - 1
        elif not self._has("cls"):
            self._check_no_row_too_many(columns)
        grid = self.facts.grid(columns, self._stride(self.stored_patch))
        return Learned(covers=covers, resample=resample), grid

    def _check_sines(self) -> None:
        """big_vision's models may have sines for positions; those before it, and NaFlex, have a table."""
        if self.spelling.numbered or self.spelling.flat_patches:
            lost = f"{self.spelling.prefix}{INPUT_POSITIONS if self.spelling.numbered else ROOT_POSITIONS}"
            raise KeyMismatch(
                f"{self.facts.name}: it lacks {lost}, which every model of these names has",
                "get the whole file",
            )

    def _check_no_row_too_many(self, rows: int) -> None:
        """One row more than the size that was told has patches is a class token's, which is lost."""
        asked, stride = self.facts.options.image_size, self._stride(self.stored_patch)
        if asked is not None and rows == (asked[0] // stride[0]) * (asked[1] // stride[1]) + 1:
            raise KeyMismatch(
                f"{self.facts.name}: {rows} positions, and images of {asked[0]} x {asked[1]} have {rows - 1} patches: "
                f"it lacks {self.spelling.prefix}cls",
                "get the whole file; or, if it never had a class token, leave --image-size out",
            )

    def _flexivit(self) -> bool:
        release = self.facts.release
        return release is not None and release.family == "FlexiViT"

    def _head(self, class_token: bool, heads: int) -> HeadConfig:
        width = self._shape("pre_logits/kernel", 2)[1] if self._has("pre_logits/kernel") else 0
        answers = self._shape("head/kernel", 2)[1] if self._has("head/kernel") else 0
        projected = self.spelling.two_towers
        return HeadConfig(
            pool=self._pool(class_token, heads),
            pre_logits=width,
            # A tower's head makes vectors to be compared with texts, no classes.
            projection=answers if projected else 0,
            projection_bias=bool(answers) and projected,
            num_classes=0 if projected else answers,
        )

    def _pool(self, class_token: bool, heads: int) -> Pool:
        if self._has(f"{self.spelling.pool}probe"):
            if self.facts.options.pool is not None:
                raise CheckpointError(
                    f"{self.facts.name}: it has an attention pool, not {self.facts.options.pool!r} (option)",
                    "leave --pool out",
                )
            return self._attention_pool(heads)
        told: Literal["class", "first", "mean", "attention"]
        if class_token:
            told = self.facts.require("pool", ("class", "its class token"))
        else:
            told = self.facts.require("pool", ("mean", f"{BOTH}: without a class token or an attention pool"))
            if self.facts.options.pool is None:
                self.notes.append(
                    "the image tower has no pool of its own: the mean of the patches is its embedding"
                    if self.checkpoint.under("params/llm/")
                    else "the mean of the patches is taken; big_vision's pool '0' has the same names (--pool first)"
                )
        pools: dict[str, Pool] = {"class": ClassPool(), "first": FirstPool(), "mean": MeanPool()}
        if told not in pools or (told == "class" and not class_token):
            raise CheckpointError(
                f"{self.facts.name}: pooling {told!r} was asked for, and it has no such token",
                "give --pool mean or first",
            )
        return pools[told]

    def _attention_pool(self, heads: int) -> AttentionPool:
        inside = f"{self.spelling.pool}MultiHeadDotProductAttention_0/query/kernel"
        _, own_heads, width = self._shape(inside, 3)
        if own_heads * width != self.dim:
            raise CheckpointError(
                f"{self.facts.name}: its attention pool's heads have {own_heads} x {width} channels, not {self.dim}",
                "use its authors' code: patchword's pool shares the model's width among its heads",
            )
        hidden = self._shape(f"{self.spelling.pool}MlpBlock_0/Dense_0/kernel", 2)[1]
        own_hidden = hidden != self._block_shape(f"{self.spelling.mlp}/Dense_0/kernel", 2)[1]
        return AttentionPool(
            num_heads=own_heads if own_heads != heads else None, hidden=hidden if own_hidden else None
        )
