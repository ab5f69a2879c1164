"""DINOv2, DINOv2 with registers and DINOv3 in transformers' format. Source: transformers 5.23, `models/dinov*`."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from patchword.errors import CheckpointError
from patchword.formats.checkpoint import Checkpoint
from patchword.formats.layout import Description, Ignored, Rule, rule
from patchword.formats.layouts.transformers_blocks import Names
from patchword.formats.layouts.transformers_config import CONFIG
from patchword.formats.layouts.transformers_layout import TransformersLayout, is_square
from patchword.formats.layouts.transformers_preprocess import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    usual_preprocess,
)
from patchword.formats.layouts.transformers_tower import Family, Tower
from patchword.formats.ops import Constant
from patchword.formats.rows import Row, token
from patchword.images.preprocess import Preprocess
from patchword.model.config import HeadConfig, TokensConfig, ViTConfig
from patchword.model.kinds import CentreCoordinates, ClassPool, JoinedPool, Positions, Resample, Rope2d
from patchword.weights.card import ModelCard

Size = tuple[int, int]
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
FIVE = replace(
    _PUBLISHED,
    q="attention.q_proj",
    k="attention.k_proj",
    v="attention.v_proj",
    out="attention.o_proj",
)
FIVE_SWIGLU = replace(FIVE, first=("mlp.gate_proj", "mlp.up_proj"), second="mlp.down_proj")
_THREE = replace(FIVE, layer="layer.{}.", first=("mlp.up_proj",), second="mlp.down_proj")
_THREE_GATED = replace(_THREE, first=("mlp.gate_proj", "mlp.up_proj"))
_REGISTERS = "embeddings.register_tokens"


class _DINO(TransformersLayout):
    """Registers, and a token for hidden patches, which the classes expect although only pre-training uses it.

    mask_axes: of that token. registers_name, mask_name: of the two. empty_registers: whether the class has a table for registers even if there are none.
    """

    mask_axes: tuple[int, ...] = (1,)
    registers_name, mask_name = _REGISTERS, "embeddings.mask_token"
    empty_registers = True
    always_biased = False

    def tokens(self, tower: Tower) -> TokensConfig:
        """Zero registers are stored as [1, 0, D] (DINOv3's default) or as no tensor."""
        name, count = f"{tower.prefix}{self.registers_name}", 0
        if tower.has(self.registers_name) and tower.checkpoint.shape(name)[1:2] != (0,):
            count = tower.shape(self.registers_name, 3)[1]
        tower.declared.agrees("num_register_tokens", count, self.registers_name)
        return TokensConfig(num_registers=count)

    def more_rows(self, prefix: str) -> Iterable[Row]:
        return ((f"{prefix}{self.registers_name}", "prefix.registers", token),)

    def ignored(self, description: Description, prefix: str) -> Iterable[Rule | Ignored]:
        config = description.config
        if self.empty_registers and not config.tokens.num_registers:
            yield rule(f"{prefix}{self.registers_name}", (), Constant(((1, 0, config.dim),)))
        mask = f"{prefix}{self.mask_name}"
        yield rule(mask, (), Constant(((*self.mask_axes, config.dim),)))
        yield from super().ignored(description, prefix)


class TransformersDINOv2(_DINO):
    """`Dinov2Model` and `Dinov2ForImageClassification` (class token and mean of the patches)."""

    name = "transformers-dinov2"
    title = "transformers DINOv2"
    types: tuple[str, ...] = ("dinov2",)
    family = Family(eps=1e-6, processor="Bit")
    spellings: tuple[Names, ...] = (_PUBLISHED, _SWIGLU, FIVE, FIVE_SWIGLU)
    bare: str = "Dinov2Model"
    head_class: str | None = "Dinov2ForImageClassification"
    head_prefix = "dinov2."
    empty_registers = False

    def evidence_without_config(self, checkpoint: Checkpoint, prefix: str) -> str | None:
        names = self.names(checkpoint, prefix)
        registers = checkpoint.has(f"{prefix}{self.registers_name}")
        if names is None or registers != self.empty_registers:
            return None
        return "register_tokens" if registers else f"{names.norm1} with the published names"

    def names(self, checkpoint: Checkpoint, prefix: str) -> Names | None:
        found = super().names(checkpoint, prefix)
        # ViT's blocks share the names for queries and, in 5.x, for the MLP; the norms distinguish them.
        if found is None or not checkpoint.has(f"{found.block(prefix, 0)}{found.norm1}.weight"):
            return None
        return found

    def head(self, tower: Tower) -> HeadConfig:
        classes = tower.classifier()
        return HeadConfig(pool=tower.pool(JoinedPool() if classes else ClassPool()), num_classes=classes)

    def act(self, tower: Tower) -> str | None:
        return "silu" if tower.gated else None

    def usual(self, config: ViTConfig) -> Preprocess:
        """Resize the shorter side to 256 and crop the central 224, whatever the size of the stored positions."""
        found = usual_preprocess("Bit", config.image.channels, (224, 224), shorter=256)
        three = config.image.channels == 3
        return replace(found, mean=IMAGENET_MEAN, std=IMAGENET_STD) if three else found

    def spelling(self, card: ModelCard) -> Mapping[str, Any]:
        names = _SWIGLU if card.config.mlp.gated else _PUBLISHED
        return {**super().spelling(card), "names": names}

    # Writing ---------------------------------------------------------------------------------

    def config_json(self, card: ModelCard) -> Mapping[str, Any]:
        values = dict(super().config_json(card))
        del values["intermediate_size"]
        return values

    def words(self, card: ModelCard) -> Mapping[str, Any]:
        config = card.config
        values: dict[str, Any] = {
            "qkv_bias": config.attention.bias == "qkv",
            "layerscale_value": config.block.layer_scale,
            "mlp_ratio": self.ratio_of(config),
            "use_swiglu_ffn": config.mlp.gated,
            "drop_path_rate": config.block.drop_path,
        }
        if config.mlp.gated:
            values["hidden_act"] = "gelu"  # not read: SwiGLU has silu
        if self.empty_registers:
            values["num_register_tokens"] = config.tokens.num_registers
        return values

    def ratio_of(self, config: ViTConfig) -> float:
        return mlp_ratio(config, self.title)

    def lacks(self, config: ViTConfig) -> Iterable[tuple[bool, str]]:
        square = is_square(config.grid_size)
        yield not square, "a non-square position grid (transformers 5.23 assumes a square)"
        yield config.tokens.num_registers > 0 and not self.empty_registers, "registers"
        yield config.block.layer_scale is None, "blocks without LayerScale"


class TransformersDINOv2Registers(TransformersDINOv2):
    """`Dinov2WithRegistersModel` and `Dinov2WithRegistersForImageClassification`; positions resized with antialias."""

    name = "transformers-dinov2-registers"
    title = "transformers DINOv2 with registers"
    types: tuple[str, ...] = ("dinov2_with_registers",)
    resample = Resample()
    empty_registers = True
    bare: str = "Dinov2WithRegistersModel"
    head_class: str | None = "Dinov2WithRegistersForImageClassification"
    head_prefix = "dinov2_with_registers."


def mlp_ratio(config: ViTConfig, title: str) -> int:
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
        f"{title} does not support a {'gated ' if config.mlp.gated else ''}MLP of width {config.mlp_dim} in a model of "
        f"width {config.dim} (its mlp_ratio is an integer)",
        "choose another format",
    )


class TransformersDINOv3(_DINO):
    """`DINOv3ViTModel`: registers, computed rope, and the class token as output. It has no class with a head."""

    name = "transformers-dinov3"
    title = "transformers DINOv3"
    types = ("dinov3_vit",)
    family = Family(eps=1e-5, dim=384, heads=6, processor="DINOv3ViT")
    bare, head_prefix = "DINOv3ViTModel", ""
    kernel, norm_name = "embeddings.patch_embeddings", "norm"
    mask_axes = (1, 1)
    bias = "any"
    spellings = (
        _THREE_GATED,
        replace(_THREE_GATED, layer="model.layer.{}."),
        _THREE,
        replace(_THREE, layer="model.layer.{}."),
    )

    def evidence_without_config(self, checkpoint: Checkpoint, prefix: str) -> str | None:
        return "layers with q_proj and LayerScale"

    def image(self, tower: Tower, patch: Size, tokens: TokensConfig) -> Size:
        stated, default = tower.declared.size("image_size"), "the default of its class"
        return tower.facts.require("image_size", (stated, CONFIG), ((224, 224), default))

    def positions(self, tower: Tower) -> Positions:
        default = (100.0, "the default of its class")
        theta = tower.facts.require("rope_theta", (_theta(tower), CONFIG), default)
        return Rope2d(theta=theta, coordinates=CentreCoordinates(), pairing="half")

    def act(self, tower: Tower) -> str | None:
        gated = len(tower.names.first) == 2
        return "silu" if gated and tower.declared.activation() is None else None

    def spelled(self, tower: Tower) -> Mapping[str, Any]:
        # Each of the three biases has its own switch; a disabled one equals a bias of zeros.
        odd = tower.biases not in ("", "qv", "qkv")
        return {"biases": tower.biases} if odd else {}

    def spelling(self, card: ModelCard) -> Mapping[str, Any]:
        return {"prefix": "", "names": _THREE_GATED if card.config.mlp.gated else _THREE}

    def ignored(self, description: Description, prefix: str) -> Iterable[Rule | Ignored]:
        if isinstance(rope := description.config.positions, Rope2d) and rope.stored_periods:
            yield rule((), "attention_positions.periods", Constant(()))
        yield from super().ignored(description, prefix)

    # Writing ---------------------------------------------------------------------------------

    def words(self, card: ModelCard) -> Mapping[str, Any]:
        config, rope = card.config, card.config.positions
        bias = config.attention.bias
        return {
            "num_register_tokens": config.tokens.num_registers,
            "rope_theta": rope.theta if isinstance(rope, Rope2d) else None,
            "layerscale_value": config.block.layer_scale,
            "drop_path_rate": config.block.drop_path,
            "use_gated_mlp": config.mlp.gated,
            "query_bias": bias != "none",
            "value_bias": bias != "none",
            "key_bias": bias == "qkv",
            "proj_bias": config.attention.out_bias,
            "mlp_bias": config.mlp.bias,
        }

    def spelled_words(self, card: ModelCard, spelling: Mapping[str, Any]) -> Mapping[str, Any]:
        biases = spelling.get("biases", "")
        names = {"query_bias": "q", "key_bias": "k", "value_bias": "v"}
        return {name: letter in biases for name, letter in names.items()} if biases else {}

    def lacks(self, config: ViTConfig) -> Iterable[tuple[bool, str]]:
        yield config.block.layer_scale is None, "blocks without LayerScale"
        yield not config.patch.bias, "a patch embedding without bias"


def _theta(tower: Tower) -> float | None:
    """The rope theta, at the top level of config.json or in the `rope_parameters` of newer versions."""
    inside = tower.declared.part("rope_parameters")
    place = tower.declared if tower.declared.number("rope_theta") is not None else inside
    theta = place.number("rope_theta")
    if theta is not None and theta <= 0:
        raise place.wrong("rope_theta", "above 0")
    return theta
