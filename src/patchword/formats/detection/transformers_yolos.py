"""YOLOS in transformers. Source: transformers 5.23, models/yolos."""

from collections.abc import Iterable, Mapping
from typing import Any, cast

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
from patchword.formats.detection.yolos import behind
from patchword.formats.detection.yolos_backbone import (
    between_positions,
    detection_backbone,
    mid_table,
    refuse_backbone,
)
from patchword.formats.facts import Facts
from patchword.formats.layouts.transformers_config import (
    ACTIVATIONS,
    CONFIG,
    activation_word,
    config_of,
    side,
)
from patchword.formats.rows import Row, queries_keys_values, table, token
from patchword.model.config import Activation
from patchword.model.kinds import LearnedBetween
from patchword.model.yolos_config import YolosConfig
from patchword.weights.detector_card import DetectorCard, DetectorConfig

_EMBED = "vit.embeddings."
_MID = "vit.encoder.mid_position_embeddings"
_THEIRS, _OURS = "vit.encoder.layer.{i}.", "backbone.blocks.{i}."
_DEFAULT = "the default of its class"
_DEFAULT_HEADS, _DEFAULT_EPS = 12, 1e-12

_ROWS: tuple[Row, ...] = (
    (f"{_EMBED}cls_token", "backbone.prefix.class_token", token),
    (f"{_EMBED}detection_tokens", "backbone.prefix.registers", behind),
    (
        f"{_EMBED}position_embeddings",
        ("backbone.positions.prefix", "backbone.positions.grid", "backbone.positions.suffix"),
        table,
    ),
    (_MID, "backbone.attention_positions.tables", mid_table),
    (f"{_EMBED}patch_embeddings.projection.{{wb}}", "backbone.patch_embed.proj.{wb}"),
    (_THEIRS + "layernorm_before.{wb}", _OURS + "norm1.{wb}"),
    (
        tuple(f"{_THEIRS}attention.attention.{name}.{{wb}}" for name in ("query", "key", "value")),
        _OURS + "attention.qkv.{wb}",
        queries_keys_values,
    ),
    (_THEIRS + "attention.output.dense.{wb}", _OURS + "attention.proj.{wb}"),
    (_THEIRS + "layernorm_after.{wb}", _OURS + "norm2.{wb}"),
    (_THEIRS + "intermediate.dense.{wb}", _OURS + "mlp.fc1.{wb}"),
    (_THEIRS + "output.dense.{wb}", _OURS + "mlp.fc2.{wb}"),
    ("vit.layernorm.{wb}", "backbone.norm.{wb}"),
    *(
        (f"class_labels_classifier.layers.{layer}.{{wb}}", f"class_head.layers.{layer}.{{wb}}")
        for layer in range(3)
    ),
    *BOX_ROWS,
)


class TransformersYOLOS(DetectorLayout):
    name = "transformers-yolos"
    title = "YOLOS of transformers"

    def recognise(self, checkpoint: Checkpoint) -> str | None:
        signs = (f"{_EMBED}detection_tokens", "class_labels_classifier.layers.0.weight")
        return f"{_EMBED}detection_tokens" if checkpoint.has(*signs) else None

    def describe(self, checkpoint: Checkpoint, facts: Facts) -> DetectorDescription:
        declared = config_of(checkpoint)
        _, queries, dim = checkpoint.shape_of(f"{_EMBED}detection_tokens", 3)
        patch = checkpoint.shape_of(f"{_EMBED}patch_embeddings.projection.weight", 4)
        sides = (patch[2], patch[3])
        heads = facts.heads(
            dim,
            (declared.whole("num_attention_heads"), CONFIG),
            (_DEFAULT_HEADS if declared.values else None, _DEFAULT),
        )
        count = checkpoint.shape_of(f"{_EMBED}position_embeddings", 3)[1] - 1 - queries
        grid = facts.grid(
            count,
            sides,
            (declared.size("image_size"), CONFIG),
            ((512, 864) if declared.values else None, _DEFAULT),
        )
        middle = None
        if checkpoint.has(_MID):
            if checkpoint.shape_of(_MID, 4)[2] - 1 - queries != count:
                raise CheckpointError(
                    f"{checkpoint.name}: {_MID} is for another number of patches than position_embeddings",
                    "use the complete files of one model",
                )
            middle = grid
        word = declared.activation() or ("gelu" if declared.values else None)
        eps = declared.number("layer_norm_eps") or (_DEFAULT_EPS if declared.values else None)
        backbone = detection_backbone(
            facts,
            patch=patch,
            grid=grid,
            depth=checkpoint.depth(f"{_THEIRS.replace('{i}', '{}')}layernorm_before.weight"),
            num_heads=heads,
            hidden=checkpoint.shape_of("vit.encoder.layer.0.intermediate.dense.weight", 2)[0],
            queries=queries,
            eps=facts.require("eps", (eps, CONFIG), (_DEFAULT_EPS, "transformers' class")),
            positions=between_positions(middle, "sides"),
            activation=cast(
                Activation, facts.require("act", (word, CONFIG), ("gelu", "transformers' class"))
            ),
            qkv_bias=checkpoint.has("vit.encoder.layer.0.attention.attention.query.bias"),
        )
        classes = checkpoint.shape_of("class_labels_classifier.layers.2.weight", 2)[0] - 1
        preprocess = facts.preprocess(
            (preprocess_of(checkpoint, "Yolos", patch[1]), "preprocessor_config.json"),
            (usual_preprocess(checkpoint, "Yolos", patch[1]), _DEFAULT),
        )
        return DetectorDescription(
            config=YolosConfig(backbone=backbone, num_classes=classes),
            preprocess=preprocess,
            names=names_of(declared, classes),
        )

    def rows(self, config: DetectorConfig, spelling: Mapping[str, Any]) -> Iterable[Row]:
        return _ROWS

    def refuse(self, card: DetectorCard) -> None:
        config = card.config
        require_fitting(self.title, (isinstance(config, YolosConfig), "another model than YOLOS"))
        assert isinstance(config, YolosConfig)
        backbone, inner = config.backbone, config.backbone.inner_positions
        refuse_backbone(self.title, backbone, resampled_by="sides")
        require_fitting(
            self.title,
            (
                not isinstance(inner, LearnedBetween) or inner.grid == backbone.grid_size,
                "positions between the blocks for another grid",
            ),
            (backbone.patch.size[0] == backbone.patch.size[1], "patches that are not square"),
            (backbone.mlp.activation in ACTIVATIONS.values(), f"the activation {backbone.mlp.activation}"),
        )

    def beside(self, card: DetectorCard, spelling: Mapping[str, Any]) -> Mapping[str, bytes]:
        config = card.config
        assert isinstance(config, YolosConfig)
        vit = config.backbone
        values: dict[str, Any] = {
            "hidden_size": vit.dim,
            "num_hidden_layers": vit.depth,
            "num_attention_heads": vit.attention.num_heads,
            "intermediate_size": vit.mlp_dim,
            "hidden_act": activation_word(vit.mlp.activation),
            "layer_norm_eps": vit.norm.eps,
            "image_size": list(vit.image.size),
            "patch_size": side(vit.patch.size),
            "num_channels": vit.image.channels,
            "qkv_bias": vit.attention.bias == "qkv",
            "num_detection_tokens": config.num_queries,
            "use_mid_position_embeddings": isinstance(vit.inner_positions, LearnedBetween),
        }
        return files_of(card, "yolos", "YolosForObjectDetection", values)
