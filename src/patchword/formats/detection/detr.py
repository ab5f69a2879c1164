"""DETR as its authors write it. Source: facebookresearch/detr at 29901c51, models/ and main.py."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from patchword.formats.checkpoint import Checkpoint
from patchword.formats.detection.layout import (
    DetectorDescription,
    DetectorLayout,
    capped,
    require_fitting,
)
from patchword.formats.detection.trunk import PLAIN, trunk_config, trunk_rows
from patchword.formats.facts import Facts, Inferred
from patchword.formats.layout import Container
from patchword.formats.rows import Row
from patchword.model.detr.config import DetrConfig
from patchword.weights.detector_card import DetectorCard, DetectorConfig

_TRUNK = "backbone.0.body."
_ENCODER, _DECODER = "transformer.encoder.layers.{i}.", "transformer.decoder.layers.{i}."
_ENCODER_OURS, _DECODER_OURS = "encoder.layers.{i}.", "decoder.layers.{i}."
# Every published model has 8 heads at this width.
_WIDTH, _HEADS = 256, 8

BOX_ROWS: tuple[Row, ...] = tuple(
    (f"bbox_embed.layers.{layer}.{{wb}}", f"box_head.layers.{layer}.{{wb}}") for layer in range(3)
)
_LAYER: tuple[Row, ...] = (
    ("self_attn.in_proj_{wb}", "attention.qkv.{wb}"),
    ("self_attn.out_proj.{wb}", "attention.proj.{wb}"),
    ("linear1.{wb}", "mlp.fc1.{wb}"),
    ("linear2.{wb}", "mlp.fc2.{wb}"),
    ("norm1.{wb}", "norm1.{wb}"),
    ("norm2.{wb}", "norm2.{wb}"),
)
_CROSS: tuple[Row, ...] = (
    ("multihead_attn.in_proj_{wb}", "cross_attention.qkv.{wb}"),
    ("multihead_attn.out_proj.{wb}", "cross_attention.proj.{wb}"),
    ("norm3.{wb}", "norm3.{wb}"),
)
_ROWS: tuple[Row, ...] = (
    ("input_proj.{wb}", "project.{wb}"),
    ("backbone.1.row_embed.weight", "positions.rows"),
    ("backbone.1.col_embed.weight", "positions.columns"),
    *((f"{_ENCODER}{row[0]}", f"{_ENCODER_OURS}{row[1]}") for row in _LAYER),
    ("transformer.encoder.norm.{wb}", "encoder.norm.{wb}"),
    *((f"{_DECODER}{row[0]}", f"{_DECODER_OURS}{row[1]}") for row in (*_LAYER, *_CROSS)),
    ("transformer.decoder.norm.{wb}", "decoder.norm.{wb}"),
    ("query_embed.weight", "queries"),
    ("class_embed.{wb}", "class_head.{wb}"),
    *BOX_ROWS,
)


class OriginalDETR(DetectorLayout):
    name = "detr"
    title = "DETR of its authors"
    container: Container = "torch"
    file_name = "detr.pth"

    def recognise(self, checkpoint: Checkpoint) -> str | None:
        signs = ("query_embed.weight", f"{_TRUNK}conv1.weight", "transformer.decoder.norm.weight")
        return "query_embed next to backbone.0.body" if checkpoint.has(*signs) else None

    def describe(self, checkpoint: Checkpoint, facts: Facts) -> DetectorDescription:
        queries, dim = checkpoint.shape_of("query_embed.weight", 2)
        args = checkpoint.args
        usual = _HEADS if dim == _WIDTH else None
        heads = facts.heads(
            dim,
            (_whole(args.get("nheads")), "args in the file"),
            (usual, Inferred(f"the width {dim}, as in the published models")),
        )
        in_name = re.search(r"dc5", checkpoint.path.name, re.IGNORECASE) is not None
        stated = args.get("dilation")
        dilation = facts.require(
            "dilation",
            (stated if isinstance(stated, bool) else None, "args in the file"),
            (True if in_name else None, "DC5 in the file's name"),
            (False, Inferred("the file's name, which lacks DC5")),
        )
        pattern = ".linear1.weight"
        encoder = checkpoint.depth(f"transformer.encoder.layers.{{}}{pattern}")
        decoder = checkpoint.depth(f"transformer.decoder.layers.{{}}{pattern}")
        inside = checkpoint.shape_of(f"transformer.decoder.layers.0{pattern}", 2)[0]
        hidden = checkpoint.shape_of(f"transformer.encoder.layers.0{pattern}", 2)[0] if encoder else inside
        config = DetrConfig(
            trunk=trunk_config(checkpoint, _TRUNK, PLAIN, dilation=dilation),
            dim=dim,
            num_heads=heads,
            hidden=hidden,
            decoder_hidden=inside if inside != hidden else None,
            encoder_depth=encoder,
            decoder_depth=decoder,
            num_queries=queries,
            num_classes=checkpoint.shape_of("class_embed.weight", 2)[0] - 1,
            dropout=_dropout(args.get("dropout")),
            positions="learned" if checkpoint.has("backbone.1.row_embed.weight") else "sine",
            order="pre"
            if checkpoint.has("transformer.encoder.norm.weight") or args.get("pre_norm") is True
            else "post",
        )
        preprocess = facts.preprocess((capped(800, 1333), "DETR's code"))
        return DetectorDescription(config=config, preprocess=preprocess)

    def rows(self, config: DetectorConfig, spelling: Mapping[str, Any]) -> Iterable[Row]:
        assert isinstance(config, DetrConfig)
        return (*trunk_rows(_TRUNK, PLAIN, config.trunk), *_ROWS)

    def refuse(self, card: DetectorCard) -> None:
        config = card.config
        require_fitting(self.title, (isinstance(config, DetrConfig), "another model than DETR"))
        assert isinstance(config, DetrConfig)
        heads = config.decoder_heads
        require_fitting(
            self.title,
            (heads in (None, config.num_heads), "other attention heads in the decoder than in the encoder"),
            (
                config.decoder_hidden in (None, config.hidden),
                "MLPs of another width in the decoder than in the encoder",
            ),
            (config.decoder_norm == "outputs", "a norm between the decoder's layers"),
            (config.eps == 1e-5 and config.trunk.eps == 1e-5, "another epsilon of its norms than 1e-5"),
        )

    def nest(self, tensors: Mapping[str, Any], card: DetectorCard) -> Mapping[str, Any]:
        config = card.config
        assert isinstance(config, DetrConfig)
        args = {
            "nheads": config.num_heads,
            "hidden_dim": config.dim,
            "dim_feedforward": config.hidden,
            "enc_layers": config.encoder_depth,
            "dec_layers": config.decoder_depth,
            "num_queries": config.num_queries,
            "dropout": config.dropout,
            "dilation": config.trunk.dilation,
            "pre_norm": config.order == "pre",
            "position_embedding": config.positions,
        }
        return {"model": tensors, "args": args}


def _dropout(value: Any) -> float:
    """The script's default is 0.1."""
    return float(value) if isinstance(value, int | float) and 0 <= value < 1 else 0.1


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
