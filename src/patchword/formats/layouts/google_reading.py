"""Read the config from a Google file. Tensor names and shapes give nearly everything."""

import math
import re
from dataclasses import replace
from typing import Literal

from patchword.errors import CheckpointError, KeyMismatch, MissingFact
from patchword.formats.checkpoint import Checkpoint
from patchword.formats.facts import OPTION, Facts
from patchword.formats.layouts.google_names import (
    FLEXIVIT,
    INPUT_POSITIONS,
    PLACES,
    PREFIXES,
    ROOT_POSITIONS,
    NamingVariant,
)
from patchword.formats.layouts.stems import units_of
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

BOTH = "both of Google's repositories"
FLAX = f"{BOTH} (flax's default)"
# Positions are resized when a file is loaded, with scipy's zoom of order 1.
ON_LOAD = Resample(interpolation="bilinear", antialias=False, align_corners=True)
# FlexiViT and NaFlex resize them for every image, with linear jax.image.resize.
AT_RUN_TIME = Resample(interpolation="bilinear", antialias=True)


def spelling_of(checkpoint: Checkpoint) -> NamingVariant | None:
    """The file's spelling; None if it is not a Google file."""
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
    """One file. notes: what the user should know about how it was read."""

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
            # Their convolutions do not pad: pixels that do not fill a patch are ignored.
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
        """The config for images of `size`, if it fills the stored grid."""
        if config.grid_of(size) != config.grid_size:
            return config
        return replace(config, image=replace(config.image, size=size))

    # Parts ---------------------------------------------------------------------------

    def _has(self, name: str) -> bool:
        return self.checkpoint.has(f"{self.spelling.prefix}{name}")

    def _shape(self, name: str, axes: int) -> tuple[int, ...]:
        return self.checkpoint.shape_of(f"{self.spelling.prefix}{name}", axes)

    def _block_shape(self, name: str, axes: int) -> tuple[int, ...]:
        """Shape of a tensor of the first block, without the leading layer axis."""
        scanned = self.spelling.scanned
        return self.checkpoint.shape_of(f"{self.spelling.block(0)}{name}", axes + scanned)[scanned:]

    def _stem(self) -> Stem:
        if not self._has("conv_root/kernel"):
            return NoStem()
        prefix = re.escape(self.spelling.prefix)
        units = units_of(self.checkpoint, prefix + r"block(\d+)/unit\d+/conv1/kernel")
        return ResNetStem(units=units, width=self._shape("conv_root/kernel", 4)[3])

    def _kernel(self) -> tuple[int, int, Size]:
        """Width, image channels and the stored patch size."""
        if not self.spelling.flat_patches:
            height, width, channels, dim = self._shape("embedding/kernel", 4)
            if isinstance(self.stem, ResNetStem):
                channels = self._shape("conv_root/kernel", 4)[2]
            return dim, channels, (height, width)
        return self._flat_kernel()

    def _flat_kernel(self) -> tuple[int, int, Size]:
        """Read a patch stored as one row of values: square with three channels, unless the user specifies otherwise."""
        numbers, dim = self._shape("embedding/kernel", 2)
        side = math.isqrt(numbers // 3)
        if side * side * 3 == numbers:
            return dim, 3, (side, side)
        asked = self.facts.options.patch_size
        if asked is None or numbers % (asked[0] * asked[1]):
            raise MissingFact(
                f"{self.facts.name}: a patch of {numbers} values is not a square of three channels"
                + ("" if asked is None else f", nor of {asked[0]} x {asked[1]} pixels"),
                "pass --patch-size HEIGHTxWIDTH with the patch size used in training",
                "patch_size",
            )
        return dim, numbers // (asked[0] * asked[1]), asked

    def _patch(self) -> Size:
        """The stored patch size, or the requested one, to which the kernel is then resampled as in FlexiViT."""
        asked = self.facts.options.patch_size
        if asked is None:
            return self.stored_patch
        self.facts.record("patch_size", asked, OPTION)
        if asked == self.stored_patch:
            return asked
        if isinstance(self.stem, ResNetStem):
            raise CheckpointError(
                f"{self.facts.name}: its patch size is fixed, because a ResNet precedes the patches",
                "remove --patch-size",
            )
        height, width = self.stored_patch
        self.notes.append(
            f"patches resampled from {height} x {width} to {asked[0]} x {asked[1]} (as in FlexiViT)"
        )
        return asked

    def _heads(self) -> tuple[int, int]:
        _, heads, width = self._block_shape(f"{self.spelling.attention}/query/kernel", 3)
        chosen = self.facts.require("num_heads", (heads, "the shape of the query kernels"))
        if chosen != heads:
            raise CheckpointError(
                f"{self.facts.name}: its query kernels have {heads} heads, but --num-heads is {chosen}",
                f"remove --num-heads, or pass {heads}",
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
        """big_vision's models may use fixed sines as positions. vision_transformer's and NaFlex models have a table."""
        if self.spelling.numbered or self.spelling.flat_patches:
            lost = f"{self.spelling.prefix}{INPUT_POSITIONS if self.spelling.numbered else ROOT_POSITIONS}"
            raise KeyMismatch(
                f"{self.facts.name}: {lost} is missing, which every model with these tensor names has",
                "download the complete file",
            )

    def _check_no_row_too_many(self, rows: int) -> None:
        """Refuse a table with one row more than patches: the extra row belongs to a class token that is missing."""
        asked, stride = self.facts.options.image_size, self._stride(self.stored_patch)
        if asked is not None and rows == (asked[0] // stride[0]) * (asked[1] // stride[1]) + 1:
            raise KeyMismatch(
                f"{self.facts.name}: it has {rows} positions, but images of {asked[0]} x {asked[1]} have {rows - 1} patches: "
                f"{self.spelling.prefix}cls is missing",
                "download the complete file, or remove --image-size if the model has no class token",
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
            # A tower's head outputs vectors to compare with texts, not classes.
            projection=answers if projected else 0,
            projection_bias=bool(answers) and projected,
            num_classes=0 if projected else answers,
        )

    def _pool(self, class_token: bool, heads: int) -> Pool:
        if self._has(f"{self.spelling.pool}probe"):
            if self.facts.options.pool is not None:
                raise CheckpointError(
                    f"{self.facts.name}: it has an attention pool, so --pool {self.facts.options.pool} does not apply",
                    "remove --pool",
                )
            return self._attention_pool(heads)
        chosen: Literal["class", "first", "mean", "attention"]
        if class_token:
            chosen = self.facts.require("pool", ("class", "the class token in the file"))
        else:
            chosen = self.facts.require(
                "pool", ("mean", f"{BOTH}, for models without a class token or an attention pool")
            )
            if self.facts.options.pool is None:
                self.notes.append(
                    "the image tower has no pooling of its own; the mean of the patches is used as its embedding"
                    if self.checkpoint.under("params/llm/")
                    else "the mean of the patches is used; big_vision's pool '0' has the same tensor names (--pool first)"
                )
        pools: dict[str, Pool] = {"class": ClassPool(), "first": FirstPool(), "mean": MeanPool()}
        if chosen not in pools or (chosen == "class" and not class_token):
            raise CheckpointError(
                f"{self.facts.name}: --pool {chosen} does not apply, because the model has no such token",
                "pass --pool mean or first",
            )
        return pools[chosen]

    def _attention_pool(self, heads: int) -> AttentionPool:
        inside = f"{self.spelling.pool}MultiHeadDotProductAttention_0/query/kernel"
        _, own_heads, width = self._shape(inside, 3)
        if own_heads * width != self.dim:
            raise CheckpointError(
                f"{self.facts.name}: the heads of its attention pool have {own_heads} x {width} channels, but the model's width is {self.dim}",
                "use its authors' code; patchword's attention pool divides the model's width by its heads",
            )
        hidden = self._shape(f"{self.spelling.pool}MlpBlock_0/Dense_0/kernel", 2)[1]
        own_hidden = hidden != self._block_shape(f"{self.spelling.mlp}/Dense_0/kernel", 2)[1]
        return AttentionPool(
            num_heads=own_heads if own_heads != heads else None, hidden=hidden if own_hidden else None
        )
