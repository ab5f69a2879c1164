"""BEiT and BEiT v2. Source: microsoft/unilm `beit/modeling_finetune.py`, `beit2/modeling_finetune.py`."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from patchword.containers.stored import tensor_of
from patchword.errors import CheckpointError, MissingFact
from patchword.formats.checkpoint import Checkpoint
from patchword.formats.facts import OPTION, Facts
from patchword.formats.layout import Description, Ignored
from patchword.formats.layouts.evaluation import HALF, IMAGENET
from patchword.formats.layouts.original import (
    NORMS,
    PATCHES_AND_TOKEN,
    POSITIONS,
    AuthorsFile,
    Constants,
    Original,
    block_rows,
    first_block,
    is_common,
    with_margin,
)
from patchword.formats.ops import Op, Shape
from patchword.formats.rows import Row, Rows
from patchword.images.preprocess import Preprocess
from patchword.model.config import HeadConfig, TokensConfig, ViTConfig
from patchword.model.kinds import Combined, Learned, NoPositions, Positions, RelativeBias, Resample, Size
from patchword.weights.card import ModelCard

if TYPE_CHECKING:
    from torch import Tensor

TABLE, INDEX = "relative_position_bias_table", "relative_position_index"
_SHARED = "rel_pos_bias."


@dataclass(frozen=True)
class RelativeIndex:
    """[N + 1, N + 1] integers: the table row for each pair of tokens. patchword computes them and does not store them."""

    grid: Size
    views: bool = field(default=True, init=False)

    def their_shapes(self, ours: Sequence[Shape]) -> list[Shape]:
        side = self.grid[0] * self.grid[1] + 1
        return [(side, side)]

    def read(self, theirs: Sequence["Tensor"], ours: Sequence[Shape]) -> list["Tensor"]:
        """Raises: CheckpointError if the stored index does not match the grid."""
        found = theirs[0]
        if not found.is_meta and not found[1].equal(self.write(())[0][1].to(found.dtype)):
            raise MissingFact(
                f"{INDEX} does not match a grid of {self.grid[0]} x {self.grid[1]} patches",
                "pass --image-size HEIGHTxWIDTH with the size the model was trained for",
                "image_size",
            )
        return []

    def write(self, ours: Sequence["Tensor"]) -> list["Tensor"]:
        import torch

        from patchword.model.positions.relative_bias import relative_index

        rows, columns = self.grid
        differences = (2 * rows - 1) * (2 * columns - 1)
        index = torch.zeros(self.their_shapes(())[0], dtype=torch.int64)
        index[1:, 1:] = relative_index(self.grid, torch.device("cpu"))
        index[0, :], index[:, 0], index[0, 0] = differences, differences + 1, differences + 2
        return [index]


class BEiT(Original):
    """`{"model": …}`: biases on queries and values, and relative position tables, one per block or one shared."""

    name = "beit"
    title = "BEiT (its authors' file)"
    twins = ("beit2",)
    constants = Constants(who="BEiT's code", layer_scale=0.1)
    mean_std = HALF

    def rows(self, spelling: Mapping[str, Any], config: ViTConfig | None) -> Rows:
        return (
            *PATCHES_AND_TOKEN,
            POSITIONS,
            block_rows(spelling),
            _table_rows(spelling, config),
            *NORMS,
            ("head.{wb}", "head.{wb}"),
        )

    def recognise(self, checkpoint: Checkpoint) -> str | None:
        if not is_beit(checkpoint):
            return None
        version, why = _version(checkpoint)
        return why if version == self.name else None

    def grid(self, file: AuthorsFile, tokens: TokensConfig) -> tuple[Size, tuple[int, str] | None]:
        return _grid(file)

    def positions(self, file: AuthorsFile) -> Positions:
        """Tables of the shape that the file has, resampled as in the code of each version."""
        place = file.seen.has("attention_positions.tables.0")
        shared = place and not file.checkpoint.has(_table(file.checkpoint, shared=False))
        inner = RelativeBias(shared=shared, rule="cubic") if place else None
        if not file.checkpoint.has("pos_embed"):
            return inner or NoPositions()
        added = Learned(resample=self.resample)
        return added if inner is None else Combined(added=added, inner=inner)

    def head(self, file: AuthorsFile) -> HeadConfig:
        return file.classifier_after_norm()

    def evaluated(self, file: AuthorsFile, config: ViTConfig) -> tuple[Preprocess, str, tuple[str, ...]]:
        usual, source, _ = super().evaluated(file, config)
        guess = (
            "assumed to be BEiT v1: v1 and v2 have the same tensors, but differ in mean and std "
            "(0.5 for v1, ImageNet's for v2)",
        )
        return usual, source, guess if _version(file.checkpoint)[1] == _GUESS else ()

    def shorter(self, size: Size) -> int:
        return with_margin(size) if min(size) < 384 else min(size)

    def spelled(self, file: AuthorsFile) -> Mapping[str, Any]:
        return {**file.spelling, "index": bool(_indices(file.checkpoint))}

    def spelling(self, card: ModelCard) -> Mapping[str, Any]:
        return {**super().spelling(card), "scale": ("gamma_1", "gamma_2"), "index": True}

    def ignored(self, description: Description) -> Iterable[Ignored]:
        return OF_PRETRAINING


class BEiT2(BEiT):
    """Like BEiT; its pre-training files also contain a shallow head (`cls_pt_layers`)."""

    name = "beit2"
    title = "BEiT v2 (its authors' file)"
    twins = ("beit",)
    constants = Constants(who="BEiT v2's code")
    mean_std = IMAGENET
    resample = Resample(antialias=False, offset=0.1)


def is_beit(checkpoint: Checkpoint) -> bool:
    """Whether the file has relative position tables, or positions, LayerScale and biases on queries and values."""
    if not is_common(checkpoint, "cls_token", "{b}attn.qkv.weight", lacking=("rope.freqs_cos",)):
        return False
    if any(checkpoint.has(_table(checkpoint, shared=shared)) for shared in (True, False)):
        return True
    first = first_block(checkpoint)
    scaled = checkpoint.has(f"{first}attn.q_bias", f"{first}gamma_1", f"{first}mlp.fc1.weight")
    return scaled and not is_named_eva(checkpoint)


def _table(checkpoint: Checkpoint, *, shared: bool) -> str:
    return f"{_SHARED if shared else f'{first_block(checkpoint)}attn.'}{TABLE}"


def is_named_eva(checkpoint: Checkpoint) -> bool:
    """Whether the file name starts with "eva": BEiT and EVA with absolute positions share their tensor names."""
    return checkpoint.path.name.lower().startswith("eva")


_GUESS = "BEiT's tensors"


def _version(checkpoint: Checkpoint) -> tuple[str, str]:
    if checkpoint.under("cls_pt_layers."):
        return "beit2", "cls_pt_layers"
    name = checkpoint.path.name.lower()
    if name.startswith(("beitv2", "beit2")):
        return "beit2", f"the file name {checkpoint.path.name}"
    if name.startswith("beit"):
        return "beit", f"the file name {checkpoint.path.name}"
    return "beit", _GUESS


# Tensors that only pre-training uses.
OF_PRETRAINING = (
    Ignored("mask_token", "stands in for hidden patches, in pre-training only"),
    Ignored(r"lm_head\..*", "the pre-training head, which predicts visual tokens"),
    Ignored(r"cls_pt_(layers|lm_head|norm)\..*", "a shallow head that only pre-training uses"),
)

# Tables ----------------------------------------------------------------------------------


def _indices(checkpoint: Checkpoint) -> list[str]:
    return [name for name in checkpoint.tensors if name.endswith(INDEX)]


def _grid(file: AuthorsFile) -> tuple[Size, tuple[int, str] | None]:
    """The grid, and the number of heads with its source if there are tables."""
    checkpoint, facts = file.checkpoint, file.facts
    if not file.seen.has("attention_positions.tables.0"):
        return facts.grid(file.rows - 1, file.patch), None
    length, heads = file.seen.shape("attention_positions.tables.0", 2)
    if length < 4:
        raise CheckpointError(
            f"{checkpoint.name}: {file.seen.name('attention_positions.tables.0')} has {length} rows, but the smallest grid needs 4",
            "download the file again",
        )
    if checkpoint.has("pos_embed"):
        count = file.rows - 1
    elif _indices(checkpoint):
        count = checkpoint.shape_of(_indices(checkpoint)[0], 2)[0] - 1
    else:
        count = _count(length, file.patch, facts)
    sides = _sides(checkpoint, count, length)
    if sides is not None:
        facts.record("grid", sides, INDEX)
        return sides, (heads, TABLE)
    return facts.grid(count, file.patch), (heads, TABLE)


def _count(length: int, patch: Size, facts: Facts) -> int:
    """Number of patches for a table of (2h - 1)(2w - 1) + 3 rows: of a square grid, or of the user's image size."""
    side = math.isqrt(length - 3)
    if side * side == length - 3 and side % 2:
        return ((side + 1) // 2) ** 2
    unknown: tuple[Size | None, str] = (None, OPTION)
    size = facts.require("image_size", unknown)
    return (-(-size[0] // patch[0])) * (-(-size[1] // patch[1]))


def _sides(checkpoint: Checkpoint, count: int, length: int) -> Size | None:
    """Rows and columns of a non-square grid: the table's length gives both, the index their order."""
    twice = (4 * count + 1 - (length - 3)) // 2  # (2h - 1)(2w - 1) = 4hw - 2(h + w) + 1
    root = math.isqrt(max(twice * twice - 4 * count, 0))
    high, low = (twice + root) // 2, (twice - root) // 2
    if high == low or high * low != count or not _indices(checkpoint):
        return None
    entry = checkpoint.tensors[_indices(checkpoint)[0]]
    row = tensor_of(entry)[1, 1:].tolist()
    # Relative to the first patch, the index decreases by one from column to column.
    columns = next((at for at in range(1, len(row)) if row[at] != row[at - 1] - 1), len(row))
    return (count // columns, columns) if columns in (high, low) else None


def _table_rows(spelling: Mapping[str, Any], config: ViTConfig | None) -> list[Row]:
    """Of each block, or of all. config: None while a file is read, which has one kind or the other."""
    inner = None if config is None else config.inner_positions
    shared: Row = (f"{_SHARED}{TABLE}", "attention_positions.tables.0")
    own: Row = (f"blocks.{{i}}.attn.{TABLE}", "attention_positions.tables.{i}")
    if config is None or not isinstance(inner, RelativeBias):
        return [own, shared] if config is None else []
    place = _SHARED if inner.shared else "blocks.{i}.attn."
    grid = config.grid_size

    def index(ours: Sequence[Shape]) -> Op:
        return RelativeIndex(grid)

    indices: list[Row] = [(f"{place}{INDEX}", (), index)] if spelling.get("index") else []
    return [shared if inner.shared else own, *indices]
