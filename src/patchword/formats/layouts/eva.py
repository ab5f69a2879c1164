"""EVA (EVA-01) and EVA-02. Source: baaivision/EVA `EVA-01/eva/modeling_finetune.py`, `EVA-02/asuka/`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from patchword.errors import CheckpointError
from patchword.formats.checkpoint import Checkpoint
from patchword.formats.layout import Description, Ignored
from patchword.formats.layouts.beit import OF_PRETRAINING, is_named_eva
from patchword.formats.layouts.evaluation import CLIP
from patchword.formats.layouts.original import (
    NORMS,
    PATCHES_AND_TOKEN,
    POSITIONS,
    USUAL_HEADS,
    AuthorsFile,
    Constants,
    Original,
    block_rows,
    first_block,
    is_common,
)
from patchword.formats.ops import Op, Shape
from patchword.formats.rows import Row, Rows
from patchword.images.preprocess import Preprocess
from patchword.model.config import HeadConfig, TokensConfig, ViTConfig
from patchword.model.kinds import Combined, IndexCoordinates, Learned, Positions, Rope2d, Size
from patchword.weights.card import ModelCard

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
    mean_std = CLIP
    wrapper = "module"

    def rows(self, spelling: Mapping[str, Any], config: ViTConfig | None) -> Rows:
        copies = list(_tables(config, "blocks.{i}.attn.rope.")) if spelling.get("copies") else []
        return (
            *PATCHES_AND_TOKEN,
            POSITIONS,
            *_tables(config, "rope."),
            block_rows(spelling),
            copies,
            *NORMS,
            ("head.{wb}", "head.{wb}"),
        )

    def recognise(self, checkpoint: Checkpoint) -> str | None:
        if not is_common(checkpoint, "cls_token", "pos_embed"):
            return None
        if checkpoint.has("rope.freqs_cos"):
            return "rope.freqs_cos: EVA-02"
        tables = any(name.endswith("relative_position_bias_table") for name in checkpoint.tensors)
        first = first_block(checkpoint)
        if tables or not checkpoint.has(f"{first}attn.q_bias", f"{first}mlp.fc1.weight"):
            return None
        if is_named_eva(checkpoint):
            return f"the file name {checkpoint.path.name}"
        scaled = checkpoint.has(f"{first}gamma_1")
        return None if scaled else "q_bias and pos_embed without relative tables: EVA-01"

    def grid(self, file: AuthorsFile, tokens: TokensConfig) -> tuple[Size, tuple[int, str] | None]:
        """A rope table is as wide as one head."""
        heads: tuple[int, str] | None = None
        grid = file.facts.grid(file.rows - 1, file.patch)
        if file.checkpoint.has("rope.freqs_cos"):
            width = file.checkpoint.shape_of("rope.freqs_cos", 2)[1]
            heads = (file.dim // width, "the width of rope.freqs_cos")
        return grid, heads

    def positions(self, file: AuthorsFile) -> Positions:
        """Fine-tuned files scale coordinates to the pre-training grid; pre-training files count patches."""
        added = Learned(resample=self.resample)
        if not file.checkpoint.has("rope.freqs_cos"):
            return added
        pretraining = file.checkpoint.has("mask_token") or file.checkpoint.has("lm_head.weight")
        coordinates = IndexCoordinates(reference=None if pretraining else REFERENCE)
        return Combined(added=added, inner=Rope2d(theta=THETA, coordinates=coordinates, pairing="neighbours"))

    def head(self, file: AuthorsFile) -> HeadConfig:
        return file.classifier_after_norm()

    def evaluated(self, file: AuthorsFile, config: ViTConfig) -> tuple[Preprocess, str, tuple[str, ...]]:
        usual = self.preprocess(config, min(config.image.size))
        return usual, "EVA's evaluation commands: no crop margin, CLIP's mean and std", ()

    def spelled(self, file: AuthorsFile) -> Mapping[str, Any]:
        copies = any(name.endswith("attn.rope.freqs_cos") for name in file.checkpoint.tensors)
        return {**file.spelling, "copies": copies}

    def spelling(self, card: ModelCard) -> Mapping[str, Any]:
        """Whether the model uses sub-LN, which goes with separate projections and gates, as in base and large."""
        mlp = card.config.mlp
        gate = ("w1" if mlp.inner_norm else "w12") if mlp.gated else ""
        return {"scale": ("gamma_1", "gamma_2"), "gate": gate, "split": mlp.inner_norm, "copies": True}

    def ignored(self, description: Description) -> Iterable[Ignored]:
        return OF_PRETRAINING


def _tables(config: ViTConfig | None, prefix: str) -> Iterable[Row]:
    if config is None or not isinstance(rope := config.inner_positions, Rope2d):
        return
    grid, width, parts = config.grid_size, config.head_dim, ("cos", "sin")
    for part in parts:

        def op(ours: Sequence[Shape], part: str = part) -> Op:
            return RopeTable("cos" if part == "cos" else "sin", grid, width, rope)

        yield (f"{prefix}freqs_{part}", (), op)
