"""Apple's AIMv2: ml-aim's file, or the first folders on the hub. Source: apple/ml-aim `aim-v2/aim/v2/torch`, `aim-v1/aim/v1/torch`."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from patchword.formats.checkpoint import Checkpoint
from patchword.formats.facts import Facts, Inferred
from patchword.formats.layout import Description, Ignored
from patchword.formats.layouts.clip import TEXT, preprocess_of
from patchword.formats.renamed import Renamed
from patchword.formats.restate import Tensors, with_zero_biases
from patchword.formats.rows import RowLayout, Rows, gate_and_value, table, token
from patchword.model.config import HeadConfig, ImageConfig, PatchConfig, TokensConfig, ViTConfig
from patchword.model.kinds import AttentionPool, Learned, MeanPool, Positions, RMSNormConfig, SinCos2d, Size
from patchword.weights.card import ModelCard

_WHO = "AIMv2's code"
# Heads of 128 channels.
_HEADS = {768: 6, 1024: 8, 1536: 12, 2048: 16, 3072: 24}


def _with_patch_bias(config: ViTConfig, tensors: Tensors) -> tuple[ViTConfig, Tensors]:
    """Apple's class always has it."""
    return replace(config, patch=replace(config.patch, bias=True)), tensors


class AIMv2(RowLayout):
    """`preprocessor.…` and `trunk.…`: RMS norms, a gated MLP, no class token; at native resolution, fixed sines.

    LiT has it below `image_encoder.`, with an attention pool and a projection.
    """

    name = "aimv2"
    title = "AIMv2 (Apple's file)"
    steps = (_with_patch_bias, with_zero_biases)
    file_name = "model.safetensors"

    def rows(self, spelling: Mapping[str, Any], config: ViTConfig | None) -> Rows:
        prefix = spelling["prefix"]
        before, block = f"{prefix}preprocessor.", f"{prefix}trunk.blocks.{{i}}."
        gate = (f"{block}mlp.fc1.{{wb}}", f"{block}mlp.fc3.{{wb}}")
        keys_and_values = tuple(f"{prefix}head.{part}.{{wb}}" for part in "kv")
        return (
            (f"{before}pos_embed", "positions.grid", table),
            (f"{before}patchifier.proj.{{wb}}", "patch_embed.proj.{wb}"),
            (f"{before}patchifier.norm.weight", "patch_embed.norm_output.weight"),
            [
                (f"{block}attn.qkv.{{wb}}", "blocks.{i}.attention.qkv.{wb}"),
                (f"{block}attn.proj.{{wb}}", "blocks.{i}.attention.proj.{wb}"),
                (f"{block}norm_1.weight", "blocks.{i}.norm1.weight"),
                (gate, "blocks.{i}.mlp.fc1.{wb}", gate_and_value),
                (f"{block}mlp.fc2.{{wb}}", "blocks.{i}.mlp.fc2.{wb}"),
                (f"{block}norm_2.weight", "blocks.{i}.norm2.weight"),
            ],
            (f"{prefix}trunk.post_trunk_norm.weight", "norm.weight"),
            (f"{prefix}head.cls_token", "pool.probe", token),
            (keys_and_values, "pool.kv.{wb}", gate_and_value),
            (f"{prefix}head.linear.{{wb}}", "pool.proj.{wb}"),
            ("image_projector.weight", "projection.weight"),
        )

    def recognise(self, checkpoint: Checkpoint) -> str | None:
        prefix = _prefix(checkpoint)
        return None if prefix is None else f"{prefix}preprocessor.patchifier and trunk.blocks"

    def describe(self, checkpoint: Checkpoint, facts: Facts) -> Description:
        prefix = _prefix(checkpoint) or ""
        seen = Renamed(checkpoint, self.rows({"prefix": prefix}, None))
        dim, channels, patch = seen.kernel
        declared = checkpoint.config_json
        usual = (_HEADS.get(dim), Inferred(f"the width {dim}, as in {_WHO}"))
        grid, positions = self._positions(seen, facts, patch)
        config = ViTConfig(
            image=ImageConfig(size=(grid[0] * patch[0], grid[1] * patch[1]), channels=channels),
            patch=PatchConfig(size=patch, norm_output=True, edge="cut"),
            dim=dim,
            depth=checkpoint.depth(f"{prefix}trunk.blocks.{{}}.norm_1.weight"),
            tokens=TokensConfig(class_token=False),
            positions=positions,
            attention=seen.attention(
                facts.heads(dim, (declared.get("num_attention_heads"), "config.json"), usual)
            ),
            mlp=seen.mlp(facts.require("act", ("silu", _WHO)), gated=True),
            norm=RMSNormConfig(
                eps=facts.require("eps", (declared.get("rms_norm_eps"), "config.json"), (1e-5, _WHO))
            ),
            head=self._head(seen, facts, prefix),
        )
        preprocess = facts.preprocess((preprocess_of(config), "the image processor of AIMv2 on the hub"))
        return Description(config=config, preprocess=preprocess, spelling={"prefix": prefix})

    def _head(self, seen: Renamed, facts: Facts, prefix: str) -> HeadConfig:
        # LiT always projects; an encoder by itself never does.
        width = seen.shape("projection.weight", 2)[0] if prefix else seen.rows_of("projection")
        if any(map(seen.has, ("pool.probe", "pool.kv.weight", "pool.proj.weight"))):
            facts.record("pool", "attention", "head, as in LiT")
            return HeadConfig(pool=AttentionPool(plain=True), projection=width, num_classes=0)
        facts.record("pool", "mean", f"{_WHO} returns tokens; timm's port takes their mean")
        return HeadConfig(pool=MeanPool(), projection=width, num_classes=0)

    def _positions(self, seen: Renamed, facts: Facts, patch: Size) -> tuple[Size, Positions]:
        if seen.has("positions.grid"):
            return facts.grid(seen.shape("positions.grid", 3)[1], patch), Learned()
        size = facts.require("image_size", ((16 * patch[0], 16 * patch[1]), _WHO))
        return (size[0] // patch[0], size[1] // patch[1]), SinCos2d(last_included=False)

    def spelling(self, card: ModelCard) -> Mapping[str, Any]:
        return {"prefix": "image_encoder." if card.config.head.projection else ""}

    def ignored(self, description: Description) -> Iterable[Ignored]:
        yield Ignored(r"text_(encoder|projector)\..*", TEXT[0].reason)
        yield Ignored(r"log_logit_scale", TEXT[1].reason)


def _prefix(checkpoint: Checkpoint) -> str | None:
    """Of the image encoder, in LiT next to a text encoder."""
    for prefix in ("", "image_encoder."):
        patches = checkpoint.under(f"{prefix}preprocessor.patchifier.")
        if patches and checkpoint.has(f"{prefix}trunk.blocks.0.mlp.fc3.weight"):
            return prefix
    return None
