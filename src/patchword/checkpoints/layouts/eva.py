"""EVA (EVA-01) and EVA-02. Source: baaivision/EVA `EVA-01/eva/modeling_finetune.py`, `EVA-02/asuka/`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from patchword.checkpoints.card import ModelCard
from patchword.checkpoints.checkpoint import Checkpoint
from patchword.checkpoints.facts import Facts
from patchword.checkpoints.layout import Description, Ignored, Rule, rule
from patchword.checkpoints.layouts.beit import dropped, head_of, is_named_eva
from patchword.checkpoints.layouts.original import (
    CLIP,
    USUAL_HEADS,
    Constants,
    Original,
    back,
    block_spelling,
    blocks,
    evaluated,
    first_block,
    front,
    is_common,
    patch_of,
    positions,
    preprocess,
    trunk,
)
from patchword.checkpoints.ops import Shape
from patchword.errors import CheckpointError
from patchword.model.config import ViTConfig
from patchword.model.kinds import Combined, IndexCoordinates, Learned, Resample, Rope2d, Size

if TYPE_CHECKING:
    from torch import Tensor

THETA = 10_000.0
# The pre-training grid (224 pixels, patches of 14). Fine-tuned files scale their coordinates to it.
REFERENCE = (16, 16)


@dataclass(frozen=True)
class RopeTable:
    """[N, d] cosines or sines of each patch's angles, each repeated twice. patchword computes them and does not store them."""

    part: Literal["cos", "sin"]
    grid: Size
    width: int
    rope: Rope2d
    views: bool = field(default=True, init=False)

    def their_shapes(self, ours: Sequence[Shape]) -> list[Shape]:
        return [(self.grid[0] * self.grid[1], self.width)]

    def read(self, theirs: Sequence["Tensor"], ours: Sequence[Shape]) -> list["Tensor"]:
        """Raises: CheckpointError if the table does not match the formula (another theta or reference grid)."""
        found = theirs[0]
        if not found.is_meta and float((found[-1].float() - self.write(())[0][-1]).abs().max()) > 0.02:
            raise CheckpointError(
                f"this table does not match EVA-02's for {self.grid[0]} x {self.grid[1]} patches",
                "open an issue if the model was trained with another theta or grid",
            )
        return []

    def write(self, ours: Sequence["Tensor"]) -> list["Tensor"]:
        import torch

        steps = torch.arange(0, self.width // 2, 2)[: self.width // 4].float() / (self.width // 2)
        frequencies = 1.0 / (self.rope.theta**steps)
        axes = [torch.outer(self._places(axis), frequencies).repeat_interleave(2, -1) for axis in (0, 1)]
        rows, columns = self.grid
        down = axes[0][:, None].expand(rows, columns, -1)
        across = axes[1][None].expand(rows, columns, -1)
        angles = torch.cat((down, across), -1).reshape(-1, self.width)
        return [angles.cos() if self.part == "cos" else angles.sin()]

    def _places(self, axis: int) -> "Tensor":
        import torch

        places = torch.arange(self.grid[axis]).float()
        coordinates = self.rope.coordinates
        reference = coordinates.reference if isinstance(coordinates, IndexCoordinates) else None
        return places if reference is None else places / self.grid[axis] * reference[axis]


class EVA(Original):
    """`{"module": …}` or `{"model": …}`: BEiT's names with absolute positions; EVA-02 adds rope tables."""

    name = "eva"
    title = "EVA (its authors' file)"
    rotary = True
    doubt = "published EVA models differ in mean and std (CLIP's; ImageNet's at 560 pixels): --mean, --std"
    published_names = ("eva_", "eva02_")
    constants = Constants(who="EVA's code", heads=USUAL_HEADS | {1408: 16})

    def recognise(self, checkpoint: Checkpoint) -> str | None:
        first = first_block(checkpoint)
        if not is_common(checkpoint) or not checkpoint.has("cls_token", "pos_embed"):
            return None
        if checkpoint.has("rope.freqs_cos"):
            return "rope.freqs_cos: EVA-02"
        tables = any(name.endswith("relative_position_bias_table") for name in checkpoint.tensors)
        if tables or not checkpoint.has(f"{first}attn.q_bias", f"{first}mlp.fc1.weight"):
            return None
        if is_named_eva(checkpoint):
            return f"the file name {checkpoint.path.name}"
        if not checkpoint.has(f"{first}gamma_1"):
            return "q_bias and pos_embed without relative tables: EVA-01"
        return None

    def describe(self, checkpoint: Checkpoint, facts: Facts) -> Description:
        dim, _, patch = patch_of(checkpoint)
        added = Learned(resample=Resample(antialias=False))
        rope = _rope(checkpoint)
        config = trunk(
            checkpoint,
            facts,
            self.constants,
            grid=facts.grid(checkpoint.shape_of("pos_embed", 3)[1] - 1, patch),
            num_heads=_heads(checkpoint, dim),
            positions=added if rope is None else Combined(added=added, inner=rope),
            head=head_of(checkpoint, facts, self.constants.who),
        )
        usual = preprocess(config, min(config.image.size), CLIP)
        copies = any(name.endswith("attn.rope.freqs_cos") for name in checkpoint.tensors)
        return Description(
            config=config,
            preprocess=facts.preprocess(
                evaluated(usual, "EVA's evaluation commands: no crop margin, CLIP's mean and std")
            ),
            spelling=block_spelling(checkpoint) | {"copies": copies},
        )

    def spelling(self, card: ModelCard) -> Mapping[str, Any]:
        """Whether the model uses sub-LN, which goes with separate projections and gates, as in base and large."""
        apart = card.config.mlp.inner_norm
        return {
            "scale": ("gamma_1", "gamma_2"),
            "gate": "w1" if apart else "w12",
            "split": apart,
            "copies": True,
        }

    def rules(self, description: Description) -> Iterable[Rule | Ignored]:
        config, spelling = description.config, description.spelling
        yield from front(config)
        yield positions(config)
        yield from _tables(config, "rope.")
        yield from blocks(config, spelling)
        if spelling.get("copies"):
            for index in range(config.depth):
                yield from _tables(config, f"blocks.{index}.attn.rope.")
        yield from back(config)
        yield from dropped()

    def nest(self, tensors: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"module": tensors}


def _heads(checkpoint: Checkpoint, dim: int) -> tuple[int, str] | None:
    """Number of heads from a rope table, which is as wide as one head."""
    if not checkpoint.has("rope.freqs_cos"):
        return None
    width = checkpoint.shape_of("rope.freqs_cos", 2)[1]
    return dim // width, "the width of rope.freqs_cos"


def _rope(checkpoint: Checkpoint) -> Rope2d | None:
    """Fine-tuned files scale coordinates to the pre-training grid; pre-training files count patches."""
    if not checkpoint.has("rope.freqs_cos"):
        return None
    pretraining = checkpoint.has("mask_token") or checkpoint.has("lm_head.weight")
    coordinates = IndexCoordinates(reference=None if pretraining else REFERENCE)
    return Rope2d(theta=THETA, coordinates=coordinates, pairing="neighbours")


def _tables(config: ViTConfig, prefix: str) -> Iterable[Rule]:
    rope = config.inner_positions
    if isinstance(rope, Rope2d):
        for part in ("cos", "sin"):
            table = RopeTable("cos" if part == "cos" else "sin", config.grid_size, config.head_dim, rope)
            yield rule(f"{prefix}freqs_{part}", (), table)
