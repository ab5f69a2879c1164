"""YOLOS as its authors write it. Source: hustvl/YOLOS at 5717fc29, models/ and main.py."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from patchword.errors import MissingFact
from patchword.formats.checkpoint import Checkpoint
from patchword.formats.detection.detr import BOX_ROWS
from patchword.formats.detection.layout import (
    DetectorDescription,
    DetectorLayout,
    capped,
    require_fitting,
)
from patchword.formats.detection.yolos_backbone import (
    between_positions,
    detection_backbone,
    mid_table,
    refuse_backbone,
)
from patchword.formats.facts import Facts, Inferred, Size, by_width
from patchword.formats.layout import Container
from patchword.formats.ops import Op, Reshaped, Shape
from patchword.formats.rows import Row, table, token
from patchword.model.yolos_config import YolosConfig
from patchword.weights.detector_card import DetectorCard, DetectorConfig

_THEIRS, _OURS = "backbone.blocks.{i}.", "backbone.blocks.{i}."
# Width → attention heads of the published models: tiny, small dWr, small, base.
_HEADS = ((192, 3), (330, 6), (384, 6), (768, 12))
# Number of patches → the image size that the positions of published models were made for.
_SIZES: Mapping[int, Size] = {4150: (800, 1333), 1728: (512, 864), 4200: (800, 1344)}
# Published models of this width are evaluated at 512 x 853, the others at 800 x 1333.
_TINY = 192
_MULTIPLE = 16


def behind(ours: Sequence[Shape]) -> Op:
    """[1, Q, D] in the file, [Q, D] in the model."""
    return Reshaped((1, *ours[0]))


_ROWS: tuple[Row, ...] = (
    ("backbone.cls_token", "backbone.prefix.class_token", token),
    ("backbone.det_token", "backbone.prefix.registers", behind),
    (
        "backbone.pos_embed",
        ("backbone.positions.prefix", "backbone.positions.grid", "backbone.positions.suffix"),
        table,
    ),
    ("backbone.mid_pos_embed", "backbone.attention_positions.tables", mid_table),
    ("backbone.patch_embed.proj.{wb}", "backbone.patch_embed.proj.{wb}"),
    (_THEIRS + "norm1.{wb}", _OURS + "norm1.{wb}"),
    (_THEIRS + "attn.qkv.{wb}", _OURS + "attention.qkv.{wb}"),
    (_THEIRS + "attn.proj.{wb}", _OURS + "attention.proj.{wb}"),
    (_THEIRS + "norm2.{wb}", _OURS + "norm2.{wb}"),
    (_THEIRS + "mlp.fc1.{wb}", _OURS + "mlp.fc1.{wb}"),
    (_THEIRS + "mlp.fc2.{wb}", _OURS + "mlp.fc2.{wb}"),
    ("backbone.norm.{wb}", "backbone.norm.{wb}"),
    *((f"class_embed.layers.{layer}.{{wb}}", f"class_head.layers.{layer}.{{wb}}") for layer in range(3)),
    *BOX_ROWS,
)


class OriginalYOLOS(DetectorLayout):
    name = "yolos"
    title = "YOLOS of its authors"
    container: Container = "torch"
    file_name = "yolos.pth"

    def recognise(self, checkpoint: Checkpoint) -> str | None:
        signs = ("backbone.det_token", "class_embed.layers.0.weight")
        return "backbone.det_token" if checkpoint.has(*signs) else None

    def describe(self, checkpoint: Checkpoint, facts: Facts) -> DetectorDescription:
        release = facts.release.model if facts.release is not None else None
        _, queries, dim = checkpoint.shape_of("backbone.det_token", 3)
        patch = checkpoint.shape_of("backbone.patch_embed.proj.weight", 4)
        sides = (patch[2], patch[3])
        heads = facts.heads(
            dim, (by_width(_HEADS, dim), Inferred(f"the width {dim}, as in the published models"))
        )
        count = checkpoint.shape_of("backbone.pos_embed", 3)[1] - 1 - queries
        published = _SIZES.get(count), Inferred(f"{count} patches, as in the published models")
        grid = facts.grid(
            count,
            sides,
            (_size(checkpoint.args.get("init_pe_size")), "args in the file"),
            (None if release is None else release.image_size, "published.toml"),
            published,
        )
        depth = checkpoint.depth("backbone.blocks.{}.norm1.weight")
        middle = None
        if checkpoint.has("backbone.mid_pos_embed"):
            rows = checkpoint.shape_of("backbone.mid_pos_embed", 4)[2]
            stated = (_size(checkpoint.args.get("mid_pe_size")), "args in the file")
            middle = _mid_grid(facts, rows - 1 - queries, sides, grid, stated)
        backbone = detection_backbone(
            facts,
            patch=patch,
            grid=grid,
            depth=depth,
            num_heads=heads,
            hidden=checkpoint.shape_of("backbone.blocks.0.mlp.fc1.weight", 2)[0],
            queries=queries,
            eps=facts.require("eps", (1e-6, "YOLOS' code")),
            positions=between_positions(middle, "count"),
        )
        classes = checkpoint.shape_of("class_embed.layers.2.weight", 2)[0] - 1
        shorter = 512 if dim == _TINY else 800
        preprocess = facts.preprocess((capped(shorter, shorter * 1333 // 800, _MULTIPLE), "YOLOS' code"))
        return DetectorDescription(
            config=YolosConfig(backbone=backbone, num_classes=classes), preprocess=preprocess
        )

    def rows(self, config: DetectorConfig, spelling: Mapping[str, Any]) -> Iterable[Row]:
        return _ROWS

    def refuse(self, card: DetectorCard) -> None:
        config = card.config
        require_fitting(self.title, (isinstance(config, YolosConfig), "another model than YOLOS"))
        assert isinstance(config, YolosConfig)
        refuse_backbone(self.title, config.backbone, resampled_by="count")
        require_fitting(
            self.title, (config.backbone.norm.eps == 1e-6, "another epsilon of its norms than 1e-6")
        )

    def nest(self, tensors: Mapping[str, Any], card: DetectorCard) -> Mapping[str, Any]:
        config = card.config
        assert isinstance(config, YolosConfig)
        inner = config.backbone.inner_positions
        patch = config.backbone.patch.size
        middle = getattr(inner, "grid", None)
        args = {
            "init_pe_size": list(config.backbone.image.size),
            "mid_pe_size": None if middle is None else [middle[0] * patch[0], middle[1] * patch[1]],
            "det_token_num": config.num_queries,
        }
        return {"model": tensors, "args": args}


def _size(value: Any) -> Size | None:
    fits = isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(v, int) for v in value)
    return (value[0], value[1]) if fits else None


def _mid_grid(facts: Facts, count: int, patch: Size, grid: Size, stated: tuple[Size | None, str]) -> Size:
    """Rows and columns of the positions between the blocks.

    Raises: MissingFact if no size fits the number of rows.
    """
    same = (grid[0] * patch[0], grid[1] * patch[1]) if grid[0] * grid[1] == count else None
    asked = getattr(facts.options, "mid_image_size", None)
    for size, source in (
        (asked, "option"),
        stated,
        (same, "the positions in front of the blocks, which are as many"),
        (_SIZES.get(count), Inferred(f"{count} patches, as in the published models")),
    ):
        if size is not None and (size[0] // patch[0]) * (size[1] // patch[1]) == count:
            facts.record("mid_image_size", size, source)
            return size[0] // patch[0], size[1] // patch[1]
    given = "" if asked is None else f"; {asked[0]} x {asked[1]} has another number of patches"
    raise MissingFact(
        f"{facts.name}: its positions between the blocks are for {count} patches, and no file states their shape{given}",
        "pass --mid-image-size (in Python mid_image_size=…), the size that they were made for",
        "mid_image_size",
    )
