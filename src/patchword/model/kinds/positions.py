"""Where tokens are: every kind of positions as settings, with its tensors and its words. No torch in here.

A new kind is a dataclass here that inherits from `Added` or `Inner`, its name in `AnyAdded` or
`AnyInner` below, and a module (see `model/positions/__init__.py`).
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from patchword.errors import SettingsError
from patchword.model.base import Shapes, Size, below, linear_shapes, require_above_zero, require_positive
from patchword.model.kinds.bases import Added, Host, Inner, Kind
from patchword.model.parts import TokensConfig


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
class NoPositions(Added, Inner):
    """The model cannot tell a permutation of the patches."""

    kind: ClassVar[str] = "none"

    def shapes(self, model: Host) -> Shapes:
        return {}

    def words(self) -> str:
        return "This model is given no positions: shuffle the patches and it answers the same"

    def check(self, model: Host) -> None:
        """It works in any model."""


@dataclass(frozen=True, kw_only=True)
class Learned(Added):
    """A table of the stored grid, added to the tokens (Dosovitskiy et al. 2021).

    covers: which tokens have a row: "all"; "all_but_registers" (DINOv2 puts registers in
    after positions are added); "patches" (DeiT-III, big_vision: class token in front without).
    """

    kind: ClassVar[str] = "learned"
    covers: Literal["all", "all_but_registers", "patches"] = "all_but_registers"
    resample: Resample = Resample()

    def shapes(self, model: Host) -> Shapes:
        rows = self.prefix_rows(model.tokens)
        prefix: Shapes = {"prefix": (rows, model.dim)} if rows else {}
        return {"grid": (*model.grid_size, model.dim)} | prefix

    def prefix_rows(self, tokens: TokensConfig) -> int:
        if self.covers == "patches":
            return 0
        return tokens.num_prefix if self.covers == "all" else tokens.class_token + tokens.distillation_token

    def words(self) -> str:
        return "So a learned vector of its place is added to each token"

    def check(self, model: Host) -> None:
        if self.covers == "all" and model.tokens.registers_last:
            raise SettingsError(
                "registers behind the patches have no positions", "set positions.covers = 'all_but_registers'"
            )


@dataclass(frozen=True, kw_only=True)
class SinCos1d(Added):
    """The original Transformer's sines over the row-major index of the patch; prefix without."""

    kind: ClassVar[str] = "sincos1d"
    temperature: float = 10_000.0

    def __post_init__(self) -> None:
        require_above_zero("positions.temperature", self.temperature)

    def shapes(self, model: Host) -> Shapes:
        return {}

    def words(self) -> str:
        return "So sines and cosines of its number in reading order are added to each token"

    def check(self, model: Host) -> None:
        if model.dim % 2:
            raise SettingsError(f"sincos1d positions need an even dim, not {model.dim}", "make dim even")


@dataclass(frozen=True, kw_only=True)
class SinCos2d(Added):
    """Fixed sines of column, then row, added to the patches; D divisible by 4.

    With q = D/4 frequencies for an axis, w_i = temperature^(-i/(q-1)) when `last_included`
    (big_vision, lucidrains), ^(-i/q) otherwise (MAE).
    """

    kind: ClassVar[str] = "sincos2d"
    temperature: float = 10_000.0
    last_included: bool = True

    def __post_init__(self) -> None:
        require_above_zero("positions.temperature", self.temperature)

    def shapes(self, model: Host) -> Shapes:
        return {}

    def words(self) -> str:
        return "So sines and cosines of its row and column are added to each token"

    def check(self, model: Host) -> None:
        if model.dim % 4:
            raise SettingsError(
                f"sincos2d positions need a dim divisible by 4, not {model.dim}",
                f"set dim = {-(-model.dim // 4) * 4}",
            )


@dataclass(frozen=True, kw_only=True)
class RelativeBias(Inner):
    """BEiT's table of row and column differences, added to the scaled scores of each head.

    prefix_rows: three more rows for prefix → patch, patch → prefix, prefix → prefix (BEiT);
    without them those scores get zero (timm's relpos). shared: one table for all blocks.
    rule: how the table goes to another grid. Differences are thought to lie in geometric
    progression, so that near ones stay near: "cubic" splines between them (BEiT) or "linear" (timm);
    "bicubic" keeps them even, with the corners kept; "bilinear" too, by half-pixel centres (transformers).
    """

    kind: ClassVar[str] = "relative_bias"
    reaches_prefix: ClassVar[bool] = False
    shared: bool = False
    prefix_rows: bool = True
    rule: Literal["bicubic", "bilinear", "cubic", "linear"] = "bicubic"

    def shapes(self, model: Host) -> Shapes:
        rows, columns = model.grid_size
        length = (2 * rows - 1) * (2 * columns - 1) + 3 * self.prefix_rows
        count = 1 if self.shared else model.depth
        return {f"tables.{index}": (length, model.attention.num_heads) for index in range(count)}

    def words(self) -> str:
        return "So attention adds a learned number for each distance in rows and columns"


@dataclass(frozen=True, kw_only=True)
class RelativeMLP(Inner):
    """A small MLP over the signed logarithms of row and column differences, added to the scores.

    hidden: its width; ReLU between. Scores of prefix tokens get zero. shared: one for all blocks.
    Source: timm's `RelPosMlp` in its own mode, after Swin v2 (Liu et al. 2022, arXiv 2111.09883).
    """

    kind: ClassVar[str] = "relative_mlp"
    reaches_prefix: ClassVar[bool] = False
    hidden: int = 128
    shared: bool = False

    def __post_init__(self) -> None:
        require_positive("positions.hidden", self.hidden)

    def shapes(self, model: Host) -> Shapes:
        heads = model.attention.num_heads
        one = linear_shapes("fc1", 2, self.hidden) | linear_shapes("fc2", self.hidden, heads)
        found: Shapes = {}
        for index in range(1 if self.shared else model.depth):
            found |= below(f"mlps.{index}", one)
        return found

    def words(self) -> str:
        return "So attention adds a learned number for each distance in rows and columns"


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
class Rope2d(Inner):
    """Queries and keys of the patches turned by row and column; d/4 frequencies an axis.

    Frequencies are theta^(-k/(d/4)). pairing: "half" turns channel i with i + d/2 (DINOv3),
    "neighbours" 2i with 2i + 1 (EVA-02, PE, RoPE-ViT). stored_periods: the periods are a
    tensor of the weights file (DINOv3's are rounded to bfloat16 and can't be recomputed).
    """

    kind: ClassVar[str] = "rope2d"
    buffers: ClassVar[frozenset[str]] = frozenset({"periods"})

    theta: float = 100.0
    coordinates: CentreCoordinates | IndexCoordinates = CentreCoordinates()
    pairing: Literal["half", "neighbours"] = "half"
    first_axis: Literal["row", "column"] = "row"
    stored_periods: bool = False

    def __post_init__(self) -> None:
        require_above_zero("positions.theta", self.theta)

    def shapes(self, model: Host) -> Shapes:
        return {"periods": (model.head_dim // 4,)} if self.stored_periods else {}

    def words(self) -> str:
        return "So attention turns queries and keys by an angle for their row and column"

    def check(self, model: Host) -> None:
        _check_pairs(self.kind, model)


@dataclass(frozen=True, kw_only=True)
class RopeMixed(Inner):
    """RoPE-ViT's mixed form: each block and head learns its own frequencies for both axes.

    Pairs are neighbours, coordinates plain indices. Source: Heo et al. 2024 (arXiv 2403.13298).
    """

    kind: ClassVar[str] = "rope2d_mixed"
    theta: float = 10.0

    def __post_init__(self) -> None:
        require_above_zero("positions.theta", self.theta)

    def shapes(self, model: Host) -> Shapes:
        return {"frequencies": (2, model.depth, model.attention.num_heads, model.head_dim // 2)}

    def words(self) -> str:
        return "So attention turns queries and keys by an angle for their row and column"

    def check(self, model: Host) -> None:
        _check_pairs(self.kind, model)


def _check_pairs(kind: str, model: Host) -> None:
    if model.head_dim % 4:
        raise SettingsError(
            f"{kind} positions need a head_dim divisible by 4, not {model.head_dim}",
            "choose attention.num_heads so that dim / num_heads is, or give attention.head_dim",
        )


AnyAdded = Learned | SinCos1d | SinCos2d
AnyInner = RelativeBias | RelativeMLP | Rope2d | RopeMixed


@dataclass(frozen=True, kw_only=True)
class Combined(Kind):
    """One kind added to the tokens and one inside attention (EVA-02, PE)."""

    kind: ClassVar[str] = "combined"
    added: AnyAdded = Learned()
    inner: AnyInner = Rope2d()

    def words(self) -> str:
        return f"{self.added.words()}. {self.inner.words()}"


Positions = NoPositions | AnyAdded | AnyInner | Combined
