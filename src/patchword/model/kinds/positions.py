"""Settings, tensors and descriptions of all kinds of positions. Does not import torch.

To add a kind, write a dataclass here that inherits from `Added` or `Inner`, add it to `AnyAdded` or
`AnyInner` below, and write its module (see `model/positions/__init__.py`).
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from patchword.errors import SettingsError
from patchword.model.base import Shapes, Size, below, linear_shapes, require_above_zero, require_positive
from patchword.model.kinds.bases import Added, Host, Inner, Kind
from patchword.model.parts import TokensConfig


@dataclass(frozen=True, kw_only=True)
class Resample:
    """How a learned grid is resampled to another size, as in the code that it comes from.

    interpolation: "nearest" takes row floor(i · old / target) (Idefics). offset: scale by (target + offset) / old and
    sample by that factor (DINO and DINOv2: 0.1).
    keep_aspect: resample to a square of the longer side and take its first rows and columns (RADIO).
    """

    interpolation: Literal["bicubic", "bilinear", "nearest"] = "bicubic"
    antialias: bool = True
    align_corners: bool = False
    offset: float = 0.0
    keep_aspect: bool = False

    def __post_init__(self) -> None:
        if self.interpolation == "nearest" and (self.antialias or self.align_corners):
            raise SettingsError(
                "positions: nearest interpolation has neither antialias nor align_corners",
                "set antialias = false",
            )
        if self.antialias and (self.align_corners or self.offset):
            raise SettingsError(
                "positions: antialias cannot be combined with align_corners or offset",
                "set antialias = false",
            )


@dataclass(frozen=True, kw_only=True)
class NoPositions(Added, Inner):
    """No positions: the model ignores the order of the patches."""

    kind: ClassVar[str] = "none"

    def shapes(self, model: Host) -> Shapes:
        return {}

    def words(self) -> str:
        return "This model has no positions: shuffling the patches does not change its output"

    def check(self, model: Host) -> None:
        """Works in any model."""


@dataclass(frozen=True, kw_only=True)
class Learned(Added):
    """A learned table for the stored grid, added to the tokens (Dosovitskiy et al. 2021).

    covers: the tokens that have a row: "all"; "all_but_registers" (DINOv2 inserts registers after
    adding positions); "patches" (DeiT-III and big_vision: the class token has no position).
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
        return "A learned vector for each position is therefore added to its token"

    def check(self, model: Host) -> None:
        if self.covers == "all" and model.tokens.registers_last:
            raise SettingsError(
                "registers after the patches cannot have positions",
                "set positions.covers = 'all_but_registers'",
            )


# When learned tables are resampled: unless rows and columns are theirs, or only if the number of patches is another one.
ResampledBy = Literal["sides", "count"]


@dataclass(frozen=True, kw_only=True)
class LearnedTokens(Added):
    """A learned row for every token, with registers behind the patches too, added to the tokens (YOLOS).

    The patches' rows are resampled bicubically without antialias. resampled_by: "count" leaves them as they are if the
    image has as many patches, even when its sides are exchanged (hustvl/YOLOS); "sides" does not (transformers).
    """

    kind: ClassVar[str] = "learned_tokens"
    resampled_by: ResampledBy = "sides"

    def shapes(self, model: Host) -> Shapes:
        tokens = model.tokens
        counts = {"prefix": tokens.num_prefix, "suffix": tokens.num_extra - tokens.num_prefix}
        beside: Shapes = {name: (count, model.dim) for name, count in counts.items() if count}
        return {"grid": (*model.grid_size, model.dim)} | beside

    def prefix_rows(self, tokens: TokensConfig) -> int:
        return tokens.num_prefix

    def words(self) -> str:
        return "A learned vector for each position is therefore added to its token"


@dataclass(frozen=True, kw_only=True)
class LearnedBetween(Inner):
    """A learned table for every block but the first, added to the tokens that enter it (YOLOS).

    Each has a row for every token. grid: rows and columns of patches. resampled_by: as in `LearnedTokens`.
    """

    kind: ClassVar[str] = "learned_between"
    grid: Size = (14, 14)
    resampled_by: ResampledBy = "sides"

    def __post_init__(self) -> None:
        require_positive("positions.grid", *self.grid)

    def shapes(self, model: Host) -> Shapes:
        rows = self.grid[0] * self.grid[1] + model.tokens.num_extra
        return {"tables": (model.depth - 1, rows, model.dim)}

    def words(self) -> str:
        return "A learned vector for each position is added to its token between the blocks, another one in each place"

    def check(self, model: Host) -> None:
        if model.depth == 1:
            raise SettingsError(
                "positions between blocks need at least two blocks",
                "set depth = 2, or use learned_tokens alone",
            )


@dataclass(frozen=True, kw_only=True)
class SinCos1d(Added):
    """The original Transformer's sines over the row-major patch index; prefix tokens have none."""

    kind: ClassVar[str] = "sincos1d"
    temperature: float = 10_000.0

    def __post_init__(self) -> None:
        require_above_zero("positions.temperature", self.temperature)

    def shapes(self, model: Host) -> Shapes:
        return {}

    def words(self) -> str:
        return "Sines and cosines of its index in reading order are therefore added to each token"

    def check(self, model: Host) -> None:
        if model.dim % 2:
            raise SettingsError(
                f"sincos1d positions need an even dim, not {model.dim}", "set dim to an even number"
            )


@dataclass(frozen=True, kw_only=True)
class SinCos2d(Added):
    """Fixed sines of column, then row, added to the patches; D divisible by 4.

    With q = D/4 frequencies per axis, w_i = temperature^(-i/(q-1)) if `last_included`
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
        return "Sines and cosines of its row and column are therefore added to each token"

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
    without them the bias is zero there (timm's relpos). shared: one table for all blocks.
    rule: how the table is resampled to another grid. "cubic" (BEiT) and "linear" (timm) splines
    space the differences in a geometric progression, so that near ones stay near. "bicubic" (with
    aligned corners) and "bilinear" (half-pixel centres, transformers) space them evenly.
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
        return "Attention therefore adds a learned value for each offset in rows and columns"


@dataclass(frozen=True, kw_only=True)
class RelativeMLP(Inner):
    """A small MLP over the signed logarithms of row and column differences, added to the scores.

    hidden: width of the hidden layer, followed by ReLU. The bias of prefix tokens is zero. shared: one
    MLP for all blocks. Source: timm's `RelPosMlp` in its own mode, after Swin v2 (Liu et al. 2022, arXiv 2111.09883).
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
        return "Attention therefore adds a learned value for each offset in rows and columns"


@dataclass(frozen=True, kw_only=True)
class CentreCoordinates:
    """Patch centres, scaled to -1 to 1 along each axis, times 2 pi (DINOv3)."""

    kind: ClassVar[str] = "centre"


@dataclass(frozen=True, kw_only=True)
class IndexCoordinates:
    """Patch index: (i + offset) · reference / length of the axis, or i + offset.

    reference: the pre-training grid, to which any other grid is scaled (EVA-02: 16 x 16).
    """

    kind: ClassVar[str] = "index"
    offset: float = 0.0
    reference: Size | None = None


@dataclass(frozen=True, kw_only=True)
class Rope2d(Inner):
    """Rotates the queries and keys of the patches by row and column; d/4 frequencies per axis.

    Frequencies are theta^(-k/(d/4)). pairing: "half" rotates channel i with i + d/2 (DINOv3),
    "neighbours" 2i with 2i + 1 (EVA-02, PE, RoPE-ViT). stored_periods: the periods are a tensor
    in the weights file (DINOv3's are rounded to bfloat16 and cannot be recomputed). class_angles: the class token is
    rotated too, by learned angles (MLCD).
    """

    kind: ClassVar[str] = "rope2d"
    buffers: ClassVar[frozenset[str]] = frozenset({"periods"})

    theta: float = 100.0
    coordinates: CentreCoordinates | IndexCoordinates = CentreCoordinates()
    pairing: Literal["half", "neighbours"] = "half"
    first_axis: Literal["row", "column"] = "row"
    stored_periods: bool = False
    class_angles: bool = False

    def __post_init__(self) -> None:
        require_above_zero("positions.theta", self.theta)

    def shapes(self, model: Host) -> Shapes:
        periods: Shapes = {"periods": (model.head_dim // 4,)} if self.stored_periods else {}
        angles: Shapes = {"class_angles": (model.head_dim // 2,)} if self.class_angles else {}
        return periods | angles

    def words(self) -> str:
        return "Attention therefore rotates queries and keys by an angle for their row and column"

    def check(self, model: Host) -> None:
        _check_pairs(self.kind, model)
        if self.class_angles and not model.tokens.class_token:
            raise SettingsError(
                "positions.class_angles is set, but there is no class token",
                "set tokens.class_token = true, or positions.class_angles = false",
            )


@dataclass(frozen=True, kw_only=True)
class RopeMixed(Inner):
    """RoPE-ViT's mixed form: each block and head learns its own frequencies for both axes.

    Channels are paired with their neighbours; coordinates are plain indices. Source: Heo et al. 2024 (arXiv 2403.13298).
    """

    kind: ClassVar[str] = "rope2d_mixed"
    theta: float = 10.0

    def __post_init__(self) -> None:
        require_above_zero("positions.theta", self.theta)

    def shapes(self, model: Host) -> Shapes:
        return {"frequencies": (2, model.depth, model.attention.num_heads, model.head_dim // 2)}

    def words(self) -> str:
        return "Attention therefore rotates queries and keys by an angle for their row and column"

    def check(self, model: Host) -> None:
        _check_pairs(self.kind, model)


def _check_pairs(kind: str, model: Host) -> None:
    if model.head_dim % 4:
        raise SettingsError(
            f"{kind} positions need a head_dim divisible by 4, not {model.head_dim}",
            "choose attention.num_heads so that dim / num_heads is divisible by 4, or set attention.head_dim",
        )


AnyAdded = Learned | LearnedTokens | SinCos1d | SinCos2d
AnyInner = LearnedBetween | RelativeBias | RelativeMLP | Rope2d | RopeMixed


@dataclass(frozen=True, kw_only=True)
class Combined(Kind):
    """One kind added to the tokens and one inside the blocks (EVA-02, PE, YOLOS)."""

    kind: ClassVar[str] = "combined"
    added: AnyAdded = Learned()
    inner: AnyInner = Rope2d()

    def words(self) -> str:
        return f"{self.added.words()}. {self.inner.words()}"


Positions = NoPositions | AnyAdded | AnyInner | Combined
