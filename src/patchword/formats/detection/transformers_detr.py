"""DETR in transformers, with its trunk as timm or as transformers spells it. Source: transformers 5.23, models/detr."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from patchword.errors import CheckpointError
from patchword.formats.checkpoint import Checkpoint
from patchword.formats.detection.layout import DetectorDescription, DetectorLayout, require_fitting
from patchword.formats.detection.transformers import (
    BOX_ROWS,
    files_of,
    names_of,
    preprocess_of,
    usual_preprocess,
)
from patchword.formats.detection.trunk import PLAIN, TRANSFORMERS, TrunkNames, trunk_config, trunk_rows
from patchword.formats.facts import Facts
from patchword.formats.layouts.transformers_config import CONFIG, JsonConfig, config_of
from patchword.formats.rows import Row, queries_keys_values
from patchword.model.detr.config import DetrConfig, TrunkConfig
from patchword.weights.detector_card import DetectorCard, DetectorConfig

_TRUNK = "model.backbone.conv_encoder.model."
_SPELLINGS: dict[str, TrunkNames] = {"timm": PLAIN, "transformers": TRANSFORMERS}
# Where learned positions lie in 5.x and before.
_TABLES = ("model.position_embedding.", "model.backbone.position_embedding.")
# Trunks of timm with these units.
_NAMED = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}
_DEFAULT = "the default of its class"


def _attention(theirs: str, ours: str) -> tuple[Row, ...]:
    apart = tuple(f"{theirs}.{name}_proj.{{wb}}" for name in "qkv")
    return (
        (apart, f"{ours}.qkv.{{wb}}", queries_keys_values),
        (f"{theirs}.out_proj.{{wb}}", f"{ours}.proj.{{wb}}"),
    )


def _layer(kind: str, last_norm: str) -> tuple[Row, ...]:
    theirs, ours = f"model.{kind}.layers.{{i}}.", f"{kind}.layers.{{i}}."
    return (
        *_attention(f"{theirs}self_attn", f"{ours}attention"),
        (f"{theirs}self_attn_layer_norm.{{wb}}", f"{ours}norm1.{{wb}}"),
        (f"{theirs}fc1.{{wb}}", f"{ours}mlp.fc1.{{wb}}"),
        (f"{theirs}fc2.{{wb}}", f"{ours}mlp.fc2.{{wb}}"),
        (f"{theirs}final_layer_norm.{{wb}}", f"{ours}{last_norm}.{{wb}}"),
    )


_ROWS: tuple[Row, ...] = (
    ("model.input_projection.{wb}", "project.{wb}"),
    *_layer("encoder", "norm2"),
    *_layer("decoder", "norm3"),
    *_attention("model.decoder.layers.{i}.encoder_attn", "decoder.layers.{i}.cross_attention"),
    ("model.decoder.layers.{i}.encoder_attn_layer_norm.{wb}", "decoder.layers.{i}.norm2.{wb}"),
    ("model.decoder.layernorm.{wb}", "decoder.norm.{wb}"),
    ("model.query_position_embeddings.weight", "queries"),
    ("class_labels_classifier.{wb}", "class_head.{wb}"),
    *BOX_ROWS,
)


class TransformersDETR(DetectorLayout):
    name = "transformers-detr"
    title = "DETR of transformers"

    def recognise(self, checkpoint: Checkpoint) -> str | None:
        signs = ("model.query_position_embeddings.weight", "class_labels_classifier.weight")
        return "query_position_embeddings next to class_labels_classifier" if checkpoint.has(*signs) else None

    def describe(self, checkpoint: Checkpoint, facts: Facts) -> DetectorDescription:
        declared = config_of(checkpoint)
        queries, dim = checkpoint.shape_of("model.query_position_embeddings.weight", 2)
        spelled = "timm" if checkpoint.has(f"{_TRUNK}conv1.weight") else "transformers"
        _check(declared, spelled)
        at = next((place for place in _TABLES if checkpoint.has(f"{place}row_embeddings.weight")), "")
        usual = 8 if declared.values else None
        heads = facts.heads(dim, (declared.whole("encoder_attention_heads"), CONFIG), (usual, _DEFAULT))
        asked = declared.whole("decoder_attention_heads") or usual
        dilation = self._dilation(declared, facts, spelled)
        depths = [checkpoint.depth(f"model.{part}.layers.{{}}.fc1.weight") for part in ("encoder", "decoder")]
        inside = checkpoint.shape_of("model.decoder.layers.0.fc1.weight", 2)[0]
        hidden = checkpoint.shape_of("model.encoder.layers.0.fc1.weight", 2)[0] if depths[0] else inside
        config = DetrConfig(
            trunk=trunk_config(checkpoint, _TRUNK, _SPELLINGS[spelled], dilation=dilation),
            dim=dim,
            num_heads=heads,
            decoder_heads=asked if asked != heads else None,
            hidden=hidden,
            decoder_hidden=inside if inside != hidden else None,
            encoder_depth=depths[0],
            decoder_depth=depths[1],
            num_queries=queries,
            num_classes=checkpoint.shape_of("class_labels_classifier.weight", 2)[0] - 1,
            positions="learned" if at else "sine",
            # Its code then overwrites the tokens with their norm.
            decoder_norm="between" if declared.flag("auxiliary_loss") else "outputs",
            dropout=0.1 if declared.number("dropout") is None else declared.number("dropout") or 0.0,
        )
        channels = config.trunk.channels
        preprocess = facts.preprocess(
            (preprocess_of(checkpoint, "Detr", channels), "preprocessor_config.json"),
            (usual_preprocess(checkpoint, "Detr", channels), _DEFAULT),
        )
        return DetectorDescription(
            config=config,
            preprocess=preprocess,
            names=names_of(declared, config.num_classes),
            spelling={"trunk": spelled, "tables": at},
        )

    def _dilation(self, declared: JsonConfig, facts: Facts, spelled: str) -> bool:
        """DC5 exists with timm's trunks only; transformers' own ignores the entry."""
        stated = declared.flag("dilation")
        if spelled == "transformers":
            stated = False if stated is not None else None
        usual = False if declared.values else None
        return facts.require("dilation", (stated, CONFIG), (usual, _DEFAULT))

    def rows(self, config: DetectorConfig, spelling: Mapping[str, Any]) -> Iterable[Row]:
        assert isinstance(config, DetrConfig)
        at = spelling["tables"]
        tables: tuple[Row, ...] = (
            (f"{at}row_embeddings.weight", "positions.rows"),
            (f"{at}column_embeddings.weight", "positions.columns"),
        )
        return (*trunk_rows(_TRUNK, _SPELLINGS[spelling["trunk"]], config.trunk), *tables, *_ROWS)

    def spelling(self, card: DetectorCard) -> Mapping[str, Any]:
        assert isinstance(card.config, DetrConfig)
        return {"trunk": "timm" if _is_named(card.config.trunk) else "transformers", "tables": _TABLES[0]}

    def refuse(self, card: DetectorCard) -> None:
        config = card.config
        require_fitting(self.title, (isinstance(config, DetrConfig), "another model than DETR"))
        assert isinstance(config, DetrConfig)
        trunk = config.trunk
        require_fitting(
            self.title,
            (
                _is_named(trunk) or not trunk.dilation,
                "a dilated trunk other than ResNet-50 and ResNet-101: its own ResNet has no dilation",
            ),
            (
                all(
                    outputs == 4 * middle for outputs, middle in zip(trunk.outputs, trunk.middle, strict=True)
                ),
                "a trunk whose units are not narrowed to a quarter",
            ),
            (config.order == "post", "norms before the branches"),
            (config.eps == 1e-5 and config.trunk.eps == 1e-5, "another epsilon of its norms than 1e-5"),
        )

    def beside(self, card: DetectorCard, spelling: Mapping[str, Any]) -> Mapping[str, bytes]:
        config = card.config
        assert isinstance(config, DetrConfig)
        trunk = config.trunk
        values: dict[str, Any] = {
            "activation_function": "relu",
            "auxiliary_loss": config.decoder_norm == "between",
            "d_model": config.dim,
            "dilation": trunk.dilation,
            "dropout": config.dropout,
            "encoder_layers": config.encoder_depth,
            "encoder_attention_heads": config.num_heads,
            "encoder_ffn_dim": config.hidden,
            "decoder_layers": config.decoder_depth,
            "decoder_attention_heads": config.decoder_heads or config.num_heads,
            "decoder_ffn_dim": config.decoder_hidden or config.hidden,
            "is_encoder_decoder": True,
            "num_channels": trunk.channels,
            "num_queries": config.num_queries,
            "position_embedding_type": config.positions,
            "use_pretrained_backbone": False,
            **_trunk_entries(config, spelling["trunk"]),
        }
        return files_of(card, "detr", "DetrForObjectDetection", values)


def _is_named(trunk: TrunkConfig) -> bool:
    """Whether timm has a model with this trunk, so that its name says everything."""
    return any(replace(trunk, dilation=False) == TrunkConfig(units=units) for units in _NAMED.values())


def _trunk_entries(config: DetrConfig, spelled: str) -> dict[str, Any]:
    trunk = config.trunk
    if spelled == "timm":
        name = next((name for name, units in _NAMED.items() if units == trunk.units), "resnet50")
        return {"use_timm_backbone": True, "backbone": name, "backbone_config": None}
    resnet = {
        "model_type": "resnet",
        "depths": list(trunk.units),
        "embedding_size": trunk.root,
        "hidden_sizes": list(trunk.outputs),
        "layer_type": "bottleneck",
        "out_features": ["stage4"],
    }
    return {"use_timm_backbone": False, "backbone": None, "backbone_config": resnet}


def _check(declared: JsonConfig, spelled: str) -> None:
    """Raises: CheckpointError for entries that change the model in ways that are not supported."""
    trunk = declared.part("backbone_config")
    for where, key, supported in (
        (declared, "activation_function", "relu"),
        (declared, "position_embedding_type", ("sine", "learned")),
        (trunk, "layer_type", "bottleneck"),
        (trunk, "hidden_act", "relu"),
        (trunk, "downsample_in_first_stage", False),
        (trunk, "downsample_in_bottleneck", False),
    ):
        value = where.values.get(key)
        allowed = supported if isinstance(supported, tuple) else (supported,)
        if value is not None and value not in allowed:
            raise CheckpointError(
                f"{declared.name}: {where.where} has {key} = {value!r}, which patchword does not support",
                f"use a model with {allowed[0]!r}",
            )
