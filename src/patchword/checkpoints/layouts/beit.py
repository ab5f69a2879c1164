"""BEiT and BEiT v2. Source: microsoft/unilm `beit/modeling_finetune.py`, `beit2/modeling_finetune.py`."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from patchword.checkpoints.card import ModelCard
from patchword.checkpoints.checkpoint import Checkpoint
from patchword.checkpoints.facts import OPTION, Facts
from patchword.checkpoints.layout import Description, Ignored, Rule, rule
from patchword.checkpoints.layouts.original import (
    HALF,
    IMAGENET,
    Constants,
    Original,
    back,
    block_spelling,
    blocks,
    classifier,
    evaluated,
    first_block,
    front,
    is_common,
    patch_of,
    pool_of,
    positions,
    preprocess,
    trunk,
    with_margin,
)
from patchword.checkpoints.ops import Shape
from patchword.checkpoints.stored import tensor_of
from patchword.errors import CheckpointError, MissingFact
from patchword.images.preprocess import Preprocess
from patchword.model.config import HeadConfig, ViTConfig
from patchword.model.kinds import Combined, Learned, NoPositions, Positions, RelativeBias, Resample, Size

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
    numbers = HALF

    def recognise(self, checkpoint: Checkpoint) -> str | None:
        if not is_beit(checkpoint):
            return None
        version, why = _version(checkpoint)
        return why if version == self.name else None

    def describe(self, checkpoint: Checkpoint, facts: Facts) -> Description:
        place, grid, heads = _tables(checkpoint, facts)
        config = trunk(
            checkpoint,
            facts,
            self.constants,
            grid=grid,
            num_heads=(heads, TABLE) if heads else None,
            positions=_positions(checkpoint, place, self.name),
            head=head_of(checkpoint, facts, self.constants.who),
        )
        guess = (
            "assumed to be BEiT v1: v1 and v2 have the same tensors, but differ in mean and std "
            "(0.5 for v1, ImageNet's for v2)",
        )
        return Description(
            config=config,
            preprocess=facts.preprocess(
                evaluated(self.preprocess(config), f"the evaluation in {self.constants.who}")
            ),
            spelling=block_spelling(checkpoint) | {"index": bool(_indices(checkpoint))},
            notes=guess if _version(checkpoint)[1] == _GUESS else (),
        )

    def preprocess(self, config: ViTConfig) -> Preprocess:
        size = config.image.size
        return preprocess(config, with_margin(size) if min(size) < 384 else min(size), self.numbers)

    def spelling(self, card: ModelCard) -> Mapping[str, Any]:
        return {"scale": ("gamma_1", "gamma_2"), "index": True}

    def rules(self, description: Description) -> Iterable[Rule | Ignored]:
        config, spelling = description.config, description.spelling
        yield from front(config)
        if isinstance(config.added_positions, Learned):
            yield positions(config)
        yield from blocks(config, spelling)
        yield from _table_rules(config, spelling)
        yield from back(config)
        yield from dropped()

    def nest(self, tensors: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"model": tensors}


class BEiT2(BEiT):
    """Like BEiT; its pre-training files also contain a shallow head (`cls_pt_layers`)."""

    name = "beit2"
    title = "BEiT v2 (its authors' file)"
    twins = ("beit",)
    constants = Constants(who="BEiT v2's code")
    numbers = IMAGENET


def is_beit(checkpoint: Checkpoint) -> bool:
    """Whether the file has relative position tables, or positions, LayerScale and biases on queries and values."""
    first = first_block(checkpoint)
    if not is_common(checkpoint) or not checkpoint.has("cls_token", f"{first}attn.qkv.weight"):
        return False
    if checkpoint.has("rope.freqs_cos"):
        return False
    tables = checkpoint.has(f"{first}attn.{TABLE}") or checkpoint.has(f"{_SHARED}{TABLE}")
    scaled = checkpoint.has(f"{first}attn.q_bias", f"{first}gamma_1", f"{first}mlp.fc1.weight")
    return tables or (scaled and not is_named_eva(checkpoint))


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


def head_of(checkpoint: Checkpoint, facts: Facts, who: str) -> HeadConfig:
    """Mean pooling followed by `fc_norm`, or the normalised class token."""
    pooled = checkpoint.has("fc_norm.weight") and not checkpoint.has("norm.weight")
    pool = pool_of(facts, "mean" if pooled else "class", "fc_norm" if pooled else who)
    return classifier(checkpoint, pool, "pooled" if pooled else "tokens")


def dropped() -> Iterable[Ignored]:
    """Tensors that only pre-training uses."""
    yield Ignored("mask_token", "stands in for hidden patches, in pre-training only")
    yield Ignored(r"lm_head\..*", "the pre-training head, which predicts visual tokens")
    yield Ignored(r"cls_pt_(layers|lm_head|norm)\..*", "a shallow head that only pre-training uses")


# Tables ----------------------------------------------------------------------------------


def _indices(checkpoint: Checkpoint) -> list[str]:
    return [name for name in checkpoint.tensors if name.endswith(INDEX)]


def _tables(checkpoint: Checkpoint, facts: Facts) -> tuple[str, Size, int | None]:
    """The place of the tables ("blocks", "shared" or ""), the grid, and the number of heads."""
    patch = patch_of(checkpoint)[2]
    first = first_block(checkpoint)
    place = "blocks" if checkpoint.has(f"{first}attn.{TABLE}") else "shared"
    table = f"{first}attn.{TABLE}" if place == "blocks" else f"{_SHARED}{TABLE}"
    if not checkpoint.has(table):
        return "", facts.grid(checkpoint.shape_of("pos_embed", 3)[1] - 1, patch), None
    length, heads = checkpoint.shape_of(table, 2)
    if length < 4:
        raise CheckpointError(
            f"{checkpoint.name}: {table} has {length} rows, but the smallest grid needs 4",
            "download the file again",
        )
    if checkpoint.has("pos_embed"):
        count = checkpoint.shape_of("pos_embed", 3)[1] - 1
    elif _indices(checkpoint):
        count = checkpoint.shape_of(_indices(checkpoint)[0], 2)[0] - 1
    else:
        count = _count(length, patch, facts)
    sides = _sides(checkpoint, count, length)
    if sides is not None:
        facts.record("grid", sides, INDEX)
        return place, sides, heads
    return place, facts.grid(count, patch), heads


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


def _positions(checkpoint: Checkpoint, place: str, version: str) -> Positions:
    inner = RelativeBias(shared=place == "shared", rule="cubic") if place else None
    if not checkpoint.has("pos_embed"):
        return inner or NoPositions()
    offset = 0.1 if version == "beit2" else 0.0
    added = Learned(resample=Resample(antialias=False, offset=offset))
    return added if inner is None else Combined(added=added, inner=inner)


def _table_rules(config: ViTConfig, spelling: Mapping[str, Any]) -> Iterable[Rule]:
    inner = config.inner_positions
    if not isinstance(inner, RelativeBias):
        return
    places = [f"blocks.{index}.attn." for index in range(config.depth)]
    if inner.shared:
        places = [_SHARED]
    for index, place in enumerate(places):
        yield rule(f"{place}{TABLE}", f"attention_positions.tables.{index}")
        if spelling.get("index"):
            yield rule(f"{place}{INDEX}", (), RelativeIndex(config.grid_size))
