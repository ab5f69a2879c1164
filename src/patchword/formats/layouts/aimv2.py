"""Apple's AIMv2: ml-aim's file, or the first folders on the hub. Source: apple/ml-aim `aim-v2/aim/v2/torch`, `aim-v1/aim/v1/torch`."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from patchword.formats.checkpoint import Checkpoint
from patchword.formats.facts import Facts, Inferred
from patchword.formats.layout import Description
from patchword.formats.layouts.clip import preprocess_of
from patchword.formats.layouts.restate import restated, with_zero_biases
from patchword.formats.renamed import Renamed
from patchword.formats.rows import RowLayout, Rows, gate_and_value, table
from patchword.model.config import HeadConfig, ImageConfig, PatchConfig, TokensConfig, ViTConfig
from patchword.model.kinds import Learned, MeanPool, Positions, RMSNormConfig, SinCos2d, Size
from patchword.weights.card import ModelCard

if TYPE_CHECKING:
    from torch import Tensor

_WHO = "AIMv2's code"
# Heads of 128 channels.
_HEADS = {768: 6, 1024: 8, 1536: 12, 2048: 16, 3072: 24}
_BLOCK = "trunk.blocks.{i}."


class AIMv2(RowLayout):
    """`preprocessor.…` and `trunk.…`: RMS norms, a gated MLP, no class token; at native resolution, fixed sines."""

    name = "aimv2"
    title = "AIMv2 (Apple's file)"
    file_name = "model.safetensors"

    def rows(self, spelling: Mapping[str, Any], config: ViTConfig | None) -> Rows:
        return (
            ("preprocessor.pos_embed", "positions.grid", table),
            ("preprocessor.patchifier.proj.{wb}", "patch_embed.proj.{wb}"),
            ("preprocessor.patchifier.norm.weight", "patch_embed.norm_output.weight"),
            [
                (f"{_BLOCK}attn.qkv.{{wb}}", "blocks.{i}.attention.qkv.{wb}"),
                (f"{_BLOCK}attn.proj.{{wb}}", "blocks.{i}.attention.proj.{wb}"),
                (f"{_BLOCK}norm_1.weight", "blocks.{i}.norm1.weight"),
                (
                    (f"{_BLOCK}mlp.fc1.{{wb}}", f"{_BLOCK}mlp.fc3.{{wb}}"),
                    "blocks.{i}.mlp.fc1.{wb}",
                    gate_and_value,
                ),
                (f"{_BLOCK}mlp.fc2.{{wb}}", "blocks.{i}.mlp.fc2.{wb}"),
                (f"{_BLOCK}norm_2.weight", "blocks.{i}.norm2.weight"),
            ],
            ("trunk.post_trunk_norm.weight", "norm.weight"),
        )

    def recognise(self, checkpoint: Checkpoint) -> str | None:
        needed = (
            "preprocessor.patchifier.norm.weight",
            "trunk.post_trunk_norm.weight",
            "trunk.blocks.0.mlp.fc3.weight",
        )
        return "preprocessor.patchifier and trunk.blocks" if checkpoint.has(*needed) else None

    def describe(self, checkpoint: Checkpoint, facts: Facts) -> Description:
        seen = Renamed(checkpoint, self.rows({}, None))
        dim, channels, patch = seen.kernel
        declared = checkpoint.config_json
        usual = (_HEADS.get(dim), Inferred(f"the width {dim}, as in {_WHO}"))
        grid, positions = self._positions(seen, facts, patch)
        config = ViTConfig(
            image=ImageConfig(size=(grid[0] * patch[0], grid[1] * patch[1]), channels=channels),
            patch=PatchConfig(size=patch, norm_output=True, edge="cut"),
            dim=dim,
            depth=checkpoint.depth("trunk.blocks.{}.norm_1.weight"),
            tokens=TokensConfig(class_token=False),
            positions=positions,
            attention=seen.attention(
                facts.heads(dim, (declared.get("num_attention_heads"), "config.json"), usual)
            ),
            mlp=seen.mlp(facts.require("act", ("silu", _WHO)), gated=True),
            norm=RMSNormConfig(
                eps=facts.require("eps", (declared.get("rms_norm_eps"), "config.json"), (1e-5, _WHO))
            ),
            head=HeadConfig(pool=MeanPool(), num_classes=0),
        )
        facts.record("pool", "mean", f"{_WHO} returns tokens; timm's port takes their mean")
        preprocess = facts.preprocess((preprocess_of(config), "the image processor of AIMv2 on the hub"))
        return Description(config=config, preprocess=preprocess)

    def _positions(self, seen: Renamed, facts: Facts, patch: Size) -> tuple[Size, Positions]:
        if seen.has("positions.grid"):
            return facts.grid(seen.shape("positions.grid", 3)[1], patch), Learned()
        size = facts.require("image_size", ((16 * patch[0], 16 * patch[1]), _WHO))
        return (size[0] // patch[0], size[1] // patch[1]), SinCos2d(last_included=False)

    def rewritten_for(
        self, card: ModelCard, tensors: "Mapping[str, Tensor]"
    ) -> "tuple[ModelCard, Mapping[str, Tensor]]":
        """Add the bias of the patches, which Apple's class always has."""
        config = replace(card.config, patch=replace(card.config.patch, bias=True))
        return restated(replace(card, config=config), tensors, with_zero_biases)
