"""Prithvi-EO for one date: multi-temporal ViTs whose patches span one frame. Source: IBM/terratorch
`models/backbones/prithvi_mae.py`, `prithvi_vit.py`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from patchword.formats.checkpoint import Checkpoint
from patchword.formats.facts import Facts
from patchword.formats.layout import Description, Ignored
from patchword.formats.layouts.original import USUAL_HEADS, AuthorsFile, Constants, Original
from patchword.formats.layouts.original_signs import prithvi_tower
from patchword.formats.layouts.towers import below, blocks_below, inside
from patchword.formats.ops import Op, Reshaped, Shape
from patchword.formats.renamed import Renamed
from patchword.formats.restate import Tensors, sines_as_table, zeros_for_positions
from patchword.formats.rows import Rows
from patchword.images.geometry import Squash
from patchword.images.preprocess import Preprocess, Reading
from patchword.model.config import AttentionConfig, HeadConfig, ImageConfig, PatchConfig, ViTConfig
from patchword.model.kinds import LayerNormConfig, Learned, Resample
from patchword.weights.card import ModelCard

if TYPE_CHECKING:
    from torch import Tensor

_WHO = "Prithvi's code"
# Mean and std of reflectances times 10,000, of blue, green, red, narrow NIR, SWIR 1 and SWIR 2.
_V1 = (775.0, 1081.0, 1229.0, 2497.0, 2204.0, 1611.0), (1282.0, 1270.0, 1399.0, 1368.0, 1292.0, 1155.0)
_V2 = (1087.0, 1342.0, 1433.0, 2734.0, 1958.0, 1363.0), (2248.0, 2179.0, 2178.0, 1850.0, 1242.0, 1049.0)
_FULL = 65_535.0


@dataclass(frozen=True)
class _FirstDate:
    """[1, 1 + dates * rows * columns, D] sines of column, row and date in the file; the first date's in the model.

    The other dates are computed when they are written. frames: their number.
    """

    frames: int
    views: bool = field(default=False, init=False)

    def their_shapes(self, ours: Sequence[Shape]) -> list[Shape]:
        rows, columns, dim = ours[-1]
        return [(1, 1 + self.frames * rows * columns, dim)]

    def read(self, theirs: "Sequence[Tensor]", ours: Sequence[Shape]) -> "list[Tensor]":
        rows, columns, dim = ours[-1]
        table = theirs[0][0]
        return [table[:1].clone(), table[1 : 1 + rows * columns].reshape(rows, columns, dim).clone()]

    def write(self, ours: "Sequence[Tensor]") -> "list[Tensor]":
        import torch

        if len(ours) != 2:
            raise RuntimeError("a class token and its position are part of the table")
        prefix, grid = ours
        dates = [grid.flatten(0, 1)]
        for date in range(1, self.frames):
            dates.append(dates[0].clone())
            width = grid.shape[-1] // 16 * 4
            dates[-1][:, -width:] = _sines(width, date)
        return [torch.cat([prefix, *dates])[None]]


def _sines(width: int, position: int) -> "Tensor":
    import torch

    steps = torch.arange(width // 2, dtype=torch.float64) / (width / 2)
    angles = position / 10_000**steps
    return torch.cat((angles.sin(), angles.cos())).float()


def _one_frame(ours: Sequence[Shape]) -> Op:
    """A kernel over one date, [D, C, 1, h, w]."""
    dim, channels, *sides = ours[0]
    return Reshaped((dim, channels, 1, *sides))


def _with_out_bias(config: ViTConfig, tensors: Tensors) -> tuple[ViTConfig, Tensors]:
    """Its code's attention always has an output bias."""
    return replace(config, attention=replace(config.attention, out_bias=True)), tensors


class Prithvi(Original):
    """The encoder, `encoder.…`; other dates, the time and the place are left out, as its code does without them."""

    name = "prithvi"
    title = "Prithvi-EO (its authors' file, for one date)"
    # Its file has a table, with a row for the class token.
    steps = (_with_out_bias, *Original.steps, sines_as_table, zeros_for_positions)
    constants = Constants(who=_WHO, heads=USUAL_HEADS | {256: 4}, eps=1e-5)
    wrapper = ""

    def rows(self, spelling: Mapping[str, Any], config: ViTConfig | None) -> Rows:
        frames = spelling.get("frames", 1)
        special = {
            "patch_embed.proj.{wb}": (
                ("patch_embed.proj.weight", "patch_embed.proj.weight", _one_frame),
                ("patch_embed.proj.bias", "patch_embed.proj.bias"),
            ),
            "pos_embed": (
                ("pos_embed", ("positions.prefix", "positions.grid"), lambda ours: _FirstDate(frames)),
            ),
        }
        found: list[Any] = []
        for item in super().rows(spelling, config):
            found.extend([item] if isinstance(item, list) else special.get(str(item[0]), (item,)))
        return below(spelling.get("tower", ""), found)

    def recognise(self, checkpoint: Checkpoint) -> str | None:
        tower = prithvi_tower(checkpoint)
        return None if tower is None else f"{tower}patch_embed.proj over one date"

    def describe(self, checkpoint: Checkpoint, facts: Facts) -> Description:
        tower = prithvi_tower(checkpoint) or ""
        file = AuthorsFile(inside(checkpoint, tower), facts, self)
        declared = checkpoint.config_json.get("pretrained_cfg", checkpoint.config_json)
        spelling: dict[str, Any] = {
            **file.spelling,
            "tower": tower,
            "blocks": blocks_below(tower, len(file.spelling["blocks"])),
        }
        seen = Renamed(checkpoint, list(self.rows(spelling, None)), spelling["blocks"][0])
        dim, channels, _, *sides = seen.shape("patch_embed.proj.weight", 5)
        patch = (sides[0], sides[1])
        count = seen.shape("positions.grid", 3)[1] - 1
        size = facts.require(
            "image_size", (_size(declared.get("img_size")), "config.json"), ((224, 224), _WHO)
        )
        grid = (size[0] // patch[0], size[1] // patch[1])
        frames = count // max(grid[0] * grid[1], 1)
        if not frames or frames * grid[0] * grid[1] != count:
            grid, frames = facts.grid(count, patch), 1
        spelling["frames"] = frames
        usual = (self.constants.heads.get(dim), f"the width {dim}, as in {_WHO}")
        config = ViTConfig(
            image=ImageConfig(size=(grid[0] * patch[0], grid[1] * patch[1]), channels=channels),
            patch=PatchConfig(size=patch, edge="cut"),
            dim=dim,
            depth=len(spelling["blocks"]),
            positions=Learned(resample=Resample(antialias=False, align_corners=True)),
            attention=AttentionConfig(
                num_heads=facts.heads(dim, (declared.get("num_heads"), "config.json"), usual)
            ),
            mlp=seen.plain_mlp(facts.require("act", ("gelu", _WHO))),
            norm=LayerNormConfig(eps=facts.require("eps", (self.constants.eps, _WHO))),
            head=HeadConfig(pool=file.pool("class", f"{_WHO} returns tokens"), num_classes=0),
        )
        preprocess = facts.preprocess(
            (_preprocess(config, checkpoint), f"{_WHO}: band statistics, for 16-bit files")
        )
        note = "read for one date, without time and place"
        return Description(config=config, preprocess=preprocess, spelling=spelling, notes=(note,))

    def spelling(self, card: ModelCard) -> Mapping[str, Any]:
        return {"tower": "encoder.", "blocks": blocks_below("encoder.", card.config.depth), "frames": 1}

    def ignored(self, description: Description) -> Iterable[Ignored]:
        yield Ignored(
            r"(.*\.)?(temporal|location)_embed_enc\.scale", "the weight of time and place, which are left out"
        )
        yield Ignored(r"(decoder\.|decoder_).*|mask_token", "the decoder")


def _size(value: Any) -> tuple[int, int] | None:
    return (value, value) if isinstance(value, int) else None


def _preprocess(config: ViTConfig, checkpoint: Checkpoint) -> Preprocess:
    mean, std = _V1 if "v1" in checkpoint.path.name.lower() or "1.0" in checkpoint.path.name else _V2
    known = config.image.channels == len(mean)
    return Preprocess(
        image_size=config.image.size,
        resize=Squash(size=config.image.size),
        in_channels=config.image.channels,
        mean=tuple(value / _FULL for value in mean) if known else (0.5,),
        std=tuple(value / _FULL for value in std) if known else (0.5,),
        reading=Reading(apply_exif=False),
    )
