"""The parts of a ViTConfig that come in kinds: positions, norms, pools. No torch in here."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from patchword.errors import SettingsError

Size = tuple[int, int]


def require_positive(name: str, *values: int) -> None:
    if any(value < 1 for value in values):
        shown = values[0] if len(values) == 1 else values
        raise SettingsError(f"{name} is {shown}", f"give {name} a value of at least 1")


def require_share(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise SettingsError(f"{name} is {value}", "give a value from 0 up to, not including, 1")


# Stems ---------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class NoStem:
    """Patches are cut out of the image itself."""

    kind: ClassVar[str] = "none"
    stride: ClassVar[int] = 1

    def features(self, channels: int) -> int:
        """Channels of what the patches are cut from."""
        return channels

    def size_after(self, size: Size) -> Size:
        return size


@dataclass(frozen=True, kw_only=True)
class ResNetStem:
    """Patches are cut out of a ResNet's features (the hybrids of Dosovitskiy et al. 2021).

    A convolution of 7 x 7 and a max pool halve the image each; units: bottlenecks a stage,
    every stage but the first halves again; () is the root alone (R+ViT-Ti/16). width: of the root.
    weight_eps: standardised weights are divided by "deviation" + small (Google) or by the root of
    "variance" + small (jeonsworld, timm). norm_eps: of the group norms. padding: TensorFlow's "same", or torch's "symmetric" with the max
    pool unpadded. proj_norm: on the shortcut in "groups" of channels or each "channel" for itself.
    """

    kind: ClassVar[str] = "resnet"
    GROUPS: ClassVar[int] = 32

    units: tuple[int, ...] = (3, 4, 9)
    width: int = 64
    weight_eps: Literal["deviation", "variance"] = "deviation"
    small: float = 1e-5
    norm_eps: float = 1e-6
    padding: Literal["same", "symmetric"] = "same"
    proj_norm: Literal["groups", "channel"] = "groups"

    def __post_init__(self) -> None:
        require_positive("patch.stem.width", self.width)
        if self.units:
            require_positive("patch.stem.units", *self.units)
        if self.width % self.GROUPS:
            raise SettingsError(
                f"patch.stem.width {self.width} cannot be parted into {self.GROUPS} groups for group norm",
                f"set patch.stem.width = {-(-self.width // self.GROUPS) * self.GROUPS}",
            )

    @property
    def stride(self) -> int:
        """Pixels of the image, along a side, that one feature stands for."""
        return int(4 * 2 ** max(len(self.units) - 1, 0))

    def features(self, channels: int) -> int:
        """Channels of what the patches are cut from."""
        return int(self.width * 4 * 2 ** (len(self.units) - 1)) if self.units else self.width

    def pads(self, side: int, kernel: int, stride: int) -> Size:
        """Rows (or columns) before and behind for a convolution over a side of so many."""
        if self.padding == "symmetric":
            return kernel // 2, kernel // 2
        missing = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        return missing // 2, missing - missing // 2

    def sizes(self, size: Size) -> list[Size]:
        """Height and width after the root, and after each stage (after the pool where there is none)."""
        halved = _halved(size)
        same = self.padding == "same"
        pooled = _halved(halved) if same else ((halved[0] - 1) // 2, (halved[1] - 1) // 2)
        found = [halved, pooled]
        for _ in self.units[1:]:
            found.append(_halved(found[-1]))
        return found

    def size_after(self, size: Size) -> Size:
        return self.sizes(size)[-1]


def _halved(size: Size) -> Size:
    return -(-size[0] // 2), -(-size[1] // 2)


Stem = NoStem | ResNetStem


# Positions -----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Resample:
    """How a learned grid is brought to another size; a property of where it comes from.

    offset: DINO and DINOv2 scale by (target + 0.1) / old and sample by that factor.
    keep_aspect: to a square of the longer side, of which the first rows and columns are taken (RADIO).
    """

    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    antialias: bool = True
    align_corners: bool = False
    offset: float = 0.0
    keep_aspect: bool = False

    def __post_init__(self) -> None:
        if self.antialias and (self.align_corners or self.offset):
            raise SettingsError(
                "positions: antialias goes with neither align_corners nor offset", "set antialias = false"
            )


@dataclass(frozen=True, kw_only=True)
class NoPositions:
    """The model cannot tell a permutation of the patches."""

    kind: ClassVar[str] = "none"


@dataclass(frozen=True, kw_only=True)
class Learned:
    """A table of the stored grid, added to the tokens (Dosovitskiy et al. 2021).

    covers: which tokens have a row: "all"; "all_but_registers" (DINOv2 puts registers in
    after positions are added); "patches" (DeiT-III, big_vision: class token in front without).
    """

    kind: ClassVar[str] = "learned"
    covers: Literal["all", "all_but_registers", "patches"] = "all_but_registers"
    resample: Resample = Resample()


@dataclass(frozen=True, kw_only=True)
class SinCos1d:
    """The original Transformer's sines over the row-major index of the patch; prefix without."""

    kind: ClassVar[str] = "sincos1d"
    temperature: float = 10_000.0


@dataclass(frozen=True, kw_only=True)
class SinCos2d:
    """Fixed sines of column, then row, added to the patches; D divisible by 4.

    With q = D/4 frequencies for an axis, w_i = temperature^(-i/(q-1)) when `last_included`
    (big_vision, lucidrains), ^(-i/q) otherwise (MAE).
    """

    kind: ClassVar[str] = "sincos2d"
    temperature: float = 10_000.0
    last_included: bool = True


@dataclass(frozen=True, kw_only=True)
class RelativeBias:
    """BEiT's table of row and column differences, added to the scaled scores of each head.

    prefix_rows: three more rows for prefix → patch, patch → prefix, prefix → prefix (BEiT);
    without them those scores get zero (timm's relpos). shared: one table for all blocks.
    rule: how the table goes to another grid. Differences are thought to lie in geometric
    progression, so that near ones stay near: "cubic" splines between them (BEiT) or "linear" (timm);
    "bicubic" keeps them even, with the corners kept; "bilinear" too, by half-pixel centres (transformers).
    """

    kind: ClassVar[str] = "relative_bias"
    shared: bool = False
    prefix_rows: bool = True
    rule: Literal["bicubic", "bilinear", "cubic", "linear"] = "bicubic"


@dataclass(frozen=True, kw_only=True)
class RelativeMLP:
    """A small MLP over the signed logarithms of row and column differences, added to the scores.

    hidden: its width; ReLU between. Scores of prefix tokens get zero. shared: one for all blocks.
    Source: timm's `RelPosMlp` in its own mode, after Swin v2 (Liu et al. 2022, arXiv 2111.09883).
    """

    kind: ClassVar[str] = "relative_mlp"
    hidden: int = 128
    shared: bool = False

    def __post_init__(self) -> None:
        require_positive("positions.hidden", self.hidden)


@dataclass(frozen=True, kw_only=True)
class CentreCoordinates:
    """Patch centres, -1 to 1 on each axis by its own length, times 2 pi (DINOv3)."""

    kind: ClassVar[str] = "centre"


@dataclass(frozen=True, kw_only=True)
class IndexCoordinates:
    """Patch index: (i + offset) · reference / length of the axis, or i + offset.

    reference: the grid of pre-training to which any other is scaled (EVA-02: 16 x 16).
    """

    kind: ClassVar[str] = "index"
    offset: float = 0.0
    reference: Size | None = None


@dataclass(frozen=True, kw_only=True)
class Rope2d:
    """Queries and keys of the patches turned by row and column; d/4 frequencies an axis.

    Frequencies are theta^(-k/(d/4)). pairing: "half" turns channel i with i + d/2 (DINOv3),
    "neighbours" 2i with 2i + 1 (EVA-02, PE, RoPE-ViT). stored_periods: the periods are a
    tensor of the weights file (DINOv3's are rounded to bfloat16 and can't be recomputed).
    """

    kind: ClassVar[str] = "rope2d"
    theta: float = 100.0
    coordinates: CentreCoordinates | IndexCoordinates = CentreCoordinates()
    pairing: Literal["half", "neighbours"] = "half"
    first_axis: Literal["row", "column"] = "row"
    stored_periods: bool = False


@dataclass(frozen=True, kw_only=True)
class RopeMixed:
    """RoPE-ViT's mixed form: each block and head learns its own frequencies for both axes.

    Pairs are neighbours, coordinates plain indices. Source: Heo et al. 2024 (arXiv 2403.13298).
    """

    kind: ClassVar[str] = "rope2d_mixed"
    theta: float = 10.0


Inner = RelativeBias | RelativeMLP | Rope2d | RopeMixed


@dataclass(frozen=True, kw_only=True)
class Combined:
    """One kind added to the tokens and one inside attention (EVA-02, PE)."""

    kind: ClassVar[str] = "combined"
    added: Learned | SinCos1d | SinCos2d = Learned()
    inner: Inner = Rope2d()


Positions = NoPositions | Learned | SinCos1d | SinCos2d | Inner | Combined


# Norms ---------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class LayerNormConfig:
    """Mean and variance over the channels of one token."""

    kind: ClassVar[str] = "layer"
    eps: float = 1e-6
    bias: bool = True


@dataclass(frozen=True, kw_only=True)
class RMSNormConfig:
    """Mean square over the channels of one token; no mean taken off, no bias."""

    kind: ClassVar[str] = "rms"
    eps: float = 1e-6


@dataclass(frozen=True, kw_only=True)
class BatchNormConfig:
    """Mean and variance of one channel over batch and tokens; running ones in eval."""

    kind: ClassVar[str] = "batch"
    eps: float = 1e-5
    momentum: float = 0.1


@dataclass(frozen=True, kw_only=True)
class GroupNormConfig:
    """Mean and variance of one image's group of channels, over the group and all tokens."""

    kind: ClassVar[str] = "group"
    eps: float = 1e-5
    num_groups: int = 32


@dataclass(frozen=True, kw_only=True)
class InstanceNormConfig:
    """Mean and variance of one image's channel over its tokens."""

    kind: ClassVar[str] = "instance"
    eps: float = 1e-5


Norm = LayerNormConfig | RMSNormConfig | BatchNormConfig | GroupNormConfig | InstanceNormConfig


# Pools ---------------------------------------------------------------------------------

Over = Literal["patches", "all"]


@dataclass(frozen=True, kw_only=True)
class ClassPool:
    """The class token."""

    kind: ClassVar[str] = "class"


@dataclass(frozen=True, kw_only=True)
class FirstPool:
    """The first token, whichever it is (big_vision's pool "0")."""

    kind: ClassVar[str] = "first"


@dataclass(frozen=True, kw_only=True)
class MeanPool:
    """The mean of the patches, or of all tokens."""

    kind: ClassVar[str] = "mean"
    over: Over = "patches"


@dataclass(frozen=True, kw_only=True)
class MaxPool:
    """The largest value of each channel."""

    kind: ClassVar[str] = "max"
    over: Over = "patches"


@dataclass(frozen=True, kw_only=True)
class AttentionPool:
    """A learned query attends to the tokens, then x + mlp(norm x) (MAP, Zhai et al. 2022).

    num_heads, hidden: None is as in the blocks (PE: 8 heads whatever the blocks have).
    """

    kind: ClassVar[str] = "attention"
    num_heads: int | None = None
    hidden: int | None = None
    over: Over = "patches"


@dataclass(frozen=True, kw_only=True)
class JoinedPool:
    """Class tokens of the last blocks, each through the final norm, beside the mean of patches.

    DINOv2's linear heads are (1, mean) and (4, mean), DINO's (4, no mean) and (1, mean,
    interleaved: class 0, mean 0, class 1, …).
    """

    kind: ClassVar[str] = "joined"
    class_layers: int = 1
    mean: bool = True
    interleaved: bool = False

    def __post_init__(self) -> None:
        require_positive("head.pool.class_layers", self.class_layers)
        if self.interleaved and not (self.mean and self.class_layers == 1):
            raise SettingsError(
                "head.pool.interleaved needs one class token and the mean", "set interleaved = false"
            )


Pool = ClassPool | FirstPool | MeanPool | MaxPool | AttentionPool | JoinedPool
