"""DINOv2, DINOv2 with registers and DINOv3 in transformers' format. Source: transformers 5.23, `models/dinov*`."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from patchword.checkpoints.card import ModelCard
from patchword.checkpoints.checkpoint import Checkpoint
from patchword.checkpoints.facts import Facts
from patchword.checkpoints.layout import Description, Ignored, Rule, rule
from patchword.checkpoints.layouts.blocks import both, patches, token
from patchword.checkpoints.layouts.transformers_blocks import (
    Names,
    Zeros,
    block_rules,
    mask_token,
    position_rule,
)
from patchword.checkpoints.layouts.transformers_config import CONFIG, labels, require, sizes, written
from patchword.checkpoints.layouts.transformers_preprocess import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    usual_preprocess,
)
from patchword.checkpoints.layouts.transformers_tower import Family, Tower, TransformersLayout
from patchword.errors import CheckpointError
from patchword.images.preprocess import Preprocess
from patchword.model.config import HeadConfig, TokensConfig, ViTConfig
from patchword.model.kinds import CentreCoordinates, ClassPool, JoinedPool, Learned, Resample, Rope2d

_PUBLISHED = Names(
    layer="encoder.layer.{}.",
    q="attention.attention.query",
    k="attention.attention.key",
    v="attention.attention.value",
    out="attention.output.dense",
    norm1="norm1",
    norm2="norm2",
    first=("mlp.fc1",),
    second="mlp.fc2",
    scales=("layer_scale1.lambda1", "layer_scale2.lambda1"),
)
_SWIGLU = replace(_PUBLISHED, first=("mlp.weights_in",), second="mlp.weights_out")
_FIVE = replace(
    _PUBLISHED,
    q="attention.q_proj",
    k="attention.k_proj",
    v="attention.v_proj",
    out="attention.o_proj",
)
_FIVE_SWIGLU = replace(_FIVE, first=("mlp.gate_proj", "mlp.up_proj"), second="mlp.down_proj")
_THREE = replace(_FIVE, layer="layer.{}.", first=("mlp.up_proj",), second="mlp.down_proj")
_THREE_GATED = replace(_THREE, first=("mlp.gate_proj", "mlp.up_proj"))
_KERNEL = "embeddings.patch_embeddings.projection"
_POSITIONS = "embeddings.position_embeddings"
_REGISTERS = "embeddings.register_tokens"
_MASK = "embeddings.mask_token"


class TransformersDINOv2(TransformersLayout):
    """`Dinov2Model` and `Dinov2ForImageClassification` (class token and mean of the patches)."""

    name = "transformers-dinov2"
    title = "transformers DINOv2"
    types = ("dinov2",)
    family = Family(eps=1e-6, processor="Bit")
    spellings = (_PUBLISHED, _SWIGLU, _FIVE, _FIVE_SWIGLU)
    antialias = False
    bare, head_class, head_prefix = "Dinov2Model", "Dinov2ForImageClassification", "dinov2."

    def evidence_without_config(self, checkpoint: Checkpoint, prefix: str) -> str | None:
        names = self.names(checkpoint, prefix)
        registers = checkpoint.has(f"{prefix}{_REGISTERS}")
        if names is None or registers != self._has_registers:
            return None
        return "register_tokens" if registers else f"{names.norm1} with the published names"

    @property
    def _has_registers(self) -> bool:
        return self.types == ("dinov2_with_registers",)

    def names(self, checkpoint: Checkpoint, prefix: str) -> Names | None:
        found = super().names(checkpoint, prefix)
        # ViT's blocks share the names for queries and, in 5.x, for the MLP; the norms distinguish them.
        if found is None or not checkpoint.has(f"{found.block(prefix, 0)}{found.norm1}.weight"):
            return None
        return found

    def describe(self, checkpoint: Checkpoint, facts: Facts) -> Description:
        tower = self.tower(checkpoint, facts)
        patch, channels = tower.patch(_KERNEL)
        grid = tower.grid(tower.shape(_POSITIONS, 3)[1] - 1, patch.size)
        registers = _registers(tower)
        tower.declared.agrees("num_register_tokens", registers, _REGISTERS)
        classes = tower.classifier()
        gated = tower.names.second != _PUBLISHED.second
        config = tower.config(
            image=tower.image(grid, patch.size),
            channels=channels,
            patch=patch,
            tokens=TokensConfig(num_registers=registers),
            positions=Learned(resample=Resample(antialias=self.antialias)),
            head=HeadConfig(pool=tower.pool(JoinedPool() if classes else ClassPool()), num_classes=classes),
            act="silu" if gated else None,
        )
        return tower.description(config, _bit(config))

    def spelling(self, card: ModelCard) -> Mapping[str, Any]:
        prefix = self.head_prefix if card.config.head.num_classes else ""
        return {"prefix": prefix, "names": _SWIGLU if card.config.mlp.gated else _PUBLISHED}

    def rules(self, description: Description) -> Iterable[Rule | Ignored]:
        config, prefix = description.config, description.spelling["prefix"]
        yield from patches(config, f"{prefix}{_KERNEL}")
        yield token(f"{prefix}embeddings.cls_token", "prefix.class_token", config)
        if config.tokens.num_registers:
            yield token(f"{prefix}{_REGISTERS}", "prefix.registers", config, config.tokens.num_registers)
        elif self._has_registers:
            yield rule(f"{prefix}{_REGISTERS}", (), Zeros(((1, 0, config.dim),)))
        yield position_rule(f"{prefix}{_POSITIONS}", config)
        yield from block_rules(description)
        yield from both(f"{prefix}layernorm", "norm")
        if config.head.num_classes:
            yield from both("classifier", "head")
        # The class expects one, although only pre-training uses it.
        yield rule(f"{prefix}{_MASK}", (), Zeros(((1, config.dim),)))
        yield mask_token(prefix)

    # Writing ---------------------------------------------------------------------------------

    def config_json(self, card: ModelCard) -> Mapping[str, Any]:
        config = card.config
        values = {
            **sizes(card),
            **labels(card),
            "model_type": self.types[0],
            "architectures": [self.head_class if config.head.num_classes else self.bare],
            "qkv_bias": config.attention.bias == "qkv",
            "layerscale_value": config.block.layer_scale,
            "mlp_ratio": mlp_ratio(config),
            "use_swiglu_ffn": config.mlp.gated,
            "drop_path_rate": config.block.drop_path,
        }
        del values["intermediate_size"]
        if config.mlp.gated:
            values["hidden_act"] = "gelu"  # not read: SwiGLU has silu
        if self._has_registers:
            values["num_register_tokens"] = config.tokens.num_registers
        return values

    def check(self, config: ViTConfig) -> None:
        super().check(config)
        head, positions = config.head, config.positions
        pool = JoinedPool() if head.num_classes else ClassPool()
        require(
            self.title,
            (isinstance(positions, Learned), f"positions of kind {positions.kind!r}"),
            (
                not isinstance(positions, Learned) or positions.covers != "all",
                "positions for registers",
            ),
            (
                config.grid_size[0] == config.grid_size[1],
                "a non-square position grid (transformers 5.23 assumes a square)",
            ),
            (config.tokens.class_token and not config.tokens.distillation_token, "these prefix tokens"),
            (not config.tokens.num_registers or self._has_registers, "registers"),
            (config.block.layer_scale is not None, "blocks without LayerScale"),
            (not config.block.entry_norm, "a norm before the blocks"),
            (config.attention.bias in ("qkv", "none"), "biases on queries and values only"),
            (config.attention.out_bias and config.mlp.bias and config.patch.bias, "linear layers without biases"),
            (not config.mlp.gated or config.mlp.activation == "silu", "gated MLPs other than SwiGLU"),
            (head.norm == "tokens" and not head.projection and not head.pre_logits, "this head"),
            (head.pool == pool, f"pooling by {head.pool.kind!r} {'before' if head.num_classes else 'without'} a head"),
        )  # fmt: skip
        mlp_ratio(config)


class TransformersDINOv2Registers(TransformersDINOv2):
    """`Dinov2WithRegistersModel` and `Dinov2WithRegistersForImageClassification`; positions resized with antialias."""

    name = "transformers-dinov2-registers"
    title = "transformers DINOv2 with registers"
    types = ("dinov2_with_registers",)
    antialias = True
    bare, head_class, head_prefix = (
        "Dinov2WithRegistersModel",
        "Dinov2WithRegistersForImageClassification",
        "dinov2_with_registers.",
    )


def mlp_ratio(config: ViTConfig) -> int:
    """The integer mlp_ratio for this hidden width; transformers 5 accepts no fraction.

    Raises: CheckpointError if there is none.
    """
    ratios: tuple[int, ...] = (4, *range(1, 65))
    for ratio in ratios:
        width = config.dim * ratio
        if config.mlp.gated:
            width = (int(width * 2 / 3) + 7) // 8 * 8
        if width == config.mlp_dim:
            return ratio
    raise CheckpointError(
        f"transformers DINOv2 does not support a {'gated ' if config.mlp.gated else ''}MLP of width {config.mlp_dim} in a model of "
        f"width {config.dim} (its mlp_ratio is an integer)",
        "choose another format",
    )


def _bit(config: ViTConfig) -> Preprocess:
    """Resize the shorter side to 256 and crop the central 224, whatever the size of the stored positions."""
    found = usual_preprocess("Bit", config.image.channels, (224, 224), shorter=256)
    three = config.image.channels == 3
    return replace(found, mean=IMAGENET_MEAN, std=IMAGENET_STD) if three else found


class TransformersDINOv3(TransformersLayout):
    """`DINOv3ViTModel`: registers, computed rope, and the class token as output. It has no class with a head."""

    name = "transformers-dinov3"
    title = "transformers DINOv3"
    types = ("dinov3_vit",)
    family = Family(eps=1e-5, dim=384, heads=6, processor="DINOv3ViT")
    anchor = "embeddings.patch_embeddings.weight"
    bias = "any"
    spellings = (
        _THREE_GATED,
        replace(_THREE_GATED, layer="model.layer.{}."),
        _THREE,
        replace(_THREE, layer="model.layer.{}."),
    )

    def evidence_without_config(self, checkpoint: Checkpoint, prefix: str) -> str | None:
        return "layers with q_proj and LayerScale"

    def describe(self, checkpoint: Checkpoint, facts: Facts) -> Description:
        tower = self.tower(checkpoint, facts)
        patch, channels = tower.patch("embeddings.patch_embeddings")
        stated = tower.declared.size("image_size")
        image = facts.require("image_size", (stated, CONFIG), ((224, 224), "the default of its class"))
        registers = _registers(tower)
        tower.declared.agrees("num_register_tokens", registers, _REGISTERS)
        theta = facts.require("rope_theta", (_theta(tower), CONFIG), (100.0, "the default of its class"))
        gated = len(tower.names.first) == 2
        config = tower.config(
            image=image,
            channels=channels,
            patch=patch,
            tokens=TokensConfig(num_registers=registers),
            positions=Rope2d(theta=theta, coordinates=CentreCoordinates(), pairing="half"),
            head=HeadConfig(pool=tower.pool(ClassPool()), num_classes=0),
            act="silu" if gated and tower.declared.activation() is None else None,
        )
        # Each of the three biases has its own switch; a disabled one equals a bias of zeros.
        odd = tower.biases not in ("", "qv", "qkv")
        kept = {"biases": tower.biases} if odd else {}
        return tower.description(config, usual_preprocess("DINOv3ViT", channels, image), **kept)

    def spelling(self, card: ModelCard) -> Mapping[str, Any]:
        return {"prefix": "", "names": _THREE_GATED if card.config.mlp.gated else _THREE}

    def rules(self, description: Description) -> Iterable[Rule | Ignored]:
        config, prefix = description.config, description.spelling["prefix"]
        yield from patches(config, f"{prefix}embeddings.patch_embeddings")
        yield token(f"{prefix}embeddings.cls_token", "prefix.class_token", config)
        if config.tokens.num_registers:
            yield token(f"{prefix}{_REGISTERS}", "prefix.registers", config, config.tokens.num_registers)
        else:
            yield rule(f"{prefix}{_REGISTERS}", (), Zeros(((1, 0, config.dim),)))
        if isinstance(config.positions, Rope2d) and config.positions.stored_periods:
            yield rule((), "attention_positions.periods", Zeros(()))
        yield from block_rules(description)
        yield from both(f"{prefix}norm", "norm")
        yield rule(f"{prefix}{_MASK}", (), Zeros(((1, 1, config.dim),)))
        yield mask_token(prefix)

    # Writing ---------------------------------------------------------------------------------

    def beside(self, card: ModelCard, spelling: Mapping[str, Any]) -> Mapping[str, bytes]:
        found = self.sidecar_files(card)
        if not (biases := spelling.get("biases")):
            return found
        switches = {"query_bias": "q" in biases, "key_bias": "k" in biases, "value_bias": "v" in biases}
        return {**found, CONFIG: written({**self.config_json(card), **switches})}

    def config_json(self, card: ModelCard) -> Mapping[str, Any]:
        config, rope = card.config, card.config.positions
        assert isinstance(rope, Rope2d), "checked before"
        bias = config.attention.bias
        return {
            "model_type": "dinov3_vit",
            "architectures": ["DINOv3ViTModel"],
            **sizes(card),
            "num_register_tokens": config.tokens.num_registers,
            "rope_theta": rope.theta,
            "layerscale_value": config.block.layer_scale,
            "drop_path_rate": config.block.drop_path,
            "use_gated_mlp": config.mlp.gated,
            "query_bias": bias != "none",
            "value_bias": bias != "none",
            "key_bias": bias == "qkv",
            "proj_bias": config.attention.out_bias,
            "mlp_bias": config.mlp.bias,
        }

    def check(self, config: ViTConfig) -> None:
        super().check(config)
        head, rope = config.head, config.positions
        # Stored periods are omitted if the user accepts it: the class computes its own.
        plain = isinstance(rope, Rope2d) and replace(rope, stored_periods=False) == Rope2d(theta=rope.theta)
        require(
            self.title,
            (not head.num_classes, "a classifier"),
            (isinstance(rope, Rope2d), f"positions of kind {rope.kind!r}"),
            (plain, "rope other than with patch centres, in halves, rows first"),
            (config.tokens.class_token and not config.tokens.distillation_token, "these prefix tokens"),
            (config.block.layer_scale is not None, "blocks without LayerScale"),
            (not config.block.entry_norm, "a norm before the blocks"),
            (config.patch.bias, "a patch embedding without bias"),
            (head.norm == "tokens" and not head.projection and not head.pre_logits, "this head"),
            (head.pool == ClassPool(), f"pooling by {head.pool.kind!r}"),
        )


def _registers(tower: Tower) -> int:
    """The number of registers. Zero is stored as [1, 0, D] (DINOv3's default) or as no tensor."""
    name = f"{tower.prefix}{_REGISTERS}"
    if not tower.has(_REGISTERS) or tower.checkpoint.shape(name)[1:2] == (0,):
        return 0
    return tower.shape(_REGISTERS, 3)[1]


def _theta(tower: Tower) -> float | None:
    """The rope theta, at the top level of config.json or in the `rope_parameters` of newer versions."""
    inside = tower.declared.part("rope_parameters")
    place = tower.declared if tower.declared.number("rope_theta") is not None else inside
    theta = place.number("rope_theta")
    if theta is not None and theta <= 0:
        raise place.wrong("rope_theta", "above 0")
    return theta
