"""Perception Encoder (PE core, lang, spatial). Source: facebookresearch/perception_models `core/vision_encoder/pe.py`, `config.py`."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from patchword.errors import CheckpointError
from patchword.formats.checkpoint import Checkpoint
from patchword.formats.facts import Facts, Inferred
from patchword.formats.layout import Description, Ignored
from patchword.formats.layouts.clip import TEXT, Clip, is_perception, is_pooled, tower_prefix
from patchword.formats.layouts.evaluation import HALF, evaluation
from patchword.formats.ops import Op, Parted, Shape
from patchword.formats.renamed import Renamed
from patchword.formats.rows import RowLayout, Rows, token
from patchword.images.geometry import Squash
from patchword.images.preprocess import Preprocess
from patchword.model.config import BlockConfig, HeadConfig, ImageConfig, PatchConfig, TokensConfig, ViTConfig
from patchword.model.kinds import (
    AttentionPool,
    Combined,
    IndexCoordinates,
    LayerNormConfig,
    Learned,
    MeanPool,
    Positions,
    Resample,
    Rope2d,
)
from patchword.weights.card import ModelCard

_WHO = "PE's configs"
_HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1536: 16}
_POOL_HEADS = 8
_NO_NORM = "PE's code returns the tokens of the last block, without a norm"


def _stacked(ours: Sequence[Shape]) -> Op:
    """Queries, then keys and values, in one tensor."""
    return Parted((sum(shape[0] for shape in ours), *ours[0][1:]))


class PE(RowLayout):
    """A flat state dict: CLIP's names, rotary and learned positions. Core has an attention pool and a text tower,
    lang and spatial LayerScale and no last norm.
    """

    name = "pe"
    title = "Perception Encoder (its authors' file)"
    container = "torch"
    file_name = "model.pt"

    def rows(self, spelling: Mapping[str, Any], config: ViTConfig | None) -> Rows:
        prefix = spelling["prefix"]
        pool = f"{prefix}attn_pool."
        return (
            *Clip.names_of(prefix),
            (f"{pool}probe", "pool.probe", token),
            (f"{pool}attn.in_proj_{{wb}}", ("pool.q.{wb}", "pool.kv.{wb}"), _stacked),
            (f"{pool}attn.out_proj.{{wb}}", "pool.proj.{wb}"),
            (f"{pool}layernorm.{{wb}}", "pool.norm.{wb}"),
            (f"{pool}mlp.c_fc.{{wb}}", "pool.mlp.fc1.{wb}"),
            (f"{pool}mlp.c_proj.{{wb}}", "pool.mlp.fc2.{wb}"),
        )

    def recognise(self, checkpoint: Checkpoint) -> str | None:
        prefix = tower_prefix(checkpoint)
        if prefix is None or not is_perception(checkpoint, prefix):
            return None
        pooled = is_pooled(checkpoint, prefix)
        return f"{prefix}{'attn_pool' if pooled else 'ln_pre without ln_post'}"

    def describe(self, checkpoint: Checkpoint, facts: Facts) -> Description:
        prefix = tower_prefix(checkpoint) or ""
        spelling = {"prefix": prefix}
        seen = Renamed(checkpoint, self.rows(spelling, None))
        dim, channels, patch = seen.kernel
        class_token = seen.has("prefix.class_token")
        count = checkpoint.shape_of(f"{prefix}positional_embedding", 2)[0]
        grid = facts.grid(count - class_token, patch)
        config = ViTConfig(
            image=ImageConfig(size=(grid[0] * patch[0], grid[1] * patch[1]), channels=channels),
            patch=PatchConfig(size=patch, bias=False, edge="cut"),
            dim=dim,
            depth=checkpoint.depth(f"{prefix}transformer.resblocks.{{}}.ln_1.weight"),
            tokens=TokensConfig(class_token=class_token),
            positions=_positions(class_token),
            attention=seen.attention(
                facts.heads(dim, (_HEADS.get(dim), Inferred(f"the width {dim}, as in {_WHO}")))
            ),
            mlp=seen.plain_mlp(facts.require("act", ("gelu", _WHO))),
            block=BlockConfig(entry_norm=True, layer_scale=0.1 if seen.in_block("scale1.weight") else None),
            norm=LayerNormConfig(eps=facts.require("eps", (1e-5, "PE's code"))),
            head=self._head(checkpoint, facts, seen, prefix),
        )
        preprocess = facts.preprocess((_preprocess(config), "PE's image transform"))
        return Description(config=config, preprocess=preprocess, spelling=spelling)

    def _head(self, checkpoint: Checkpoint, facts: Facts, seen: Renamed, prefix: str) -> HeadConfig:
        # As in CLIP, a tower alone may have been cut before the shared space.
        projects = any(map(checkpoint.has, (f"{prefix}proj", "text_projection", "token_embedding.weight")))
        projection = checkpoint.shape_of(f"{prefix}proj", 2)[1] if projects else 0
        if not is_pooled(checkpoint, prefix):
            facts.record("pool", "mean", f"{_NO_NORM}; timm's port takes their mean")
            last: Literal["tokens", "none"] = "tokens" if seen.has("norm.weight") else "none"
            return HeadConfig(pool=MeanPool(), norm=last, projection=projection, num_classes=0)
        hidden = seen.shape("pool.mlp.fc1.weight", 2)[0]
        pool = AttentionPool(num_heads=_POOL_HEADS, hidden=hidden, over="all")
        facts.record("pool", "attention", "attn_pool")
        return HeadConfig(pool=pool, projection=projection, num_classes=0)

    def spelling(self, card: ModelCard) -> Mapping[str, Any]:
        return {"prefix": "visual." if isinstance(card.config.head.pool, AttentionPool) else ""}

    def ignored(self, description: Description) -> Iterable[Ignored]:
        return TEXT if description.spelling["prefix"] else ()

    def sidecar_files(self, card: ModelCard) -> Mapping[str, bytes]:
        if not isinstance(card.config.inner_positions, Rope2d):
            raise CheckpointError(
                f"{self.title} always has rotary positions, which this model has not", "choose another format"
            )
        return {}


def _positions(class_token: bool) -> Positions:
    """Rows and columns count from 1 if the class token is at 0."""
    coordinates = IndexCoordinates(offset=float(class_token))
    rope = Rope2d(theta=1e4, coordinates=coordinates, pairing="neighbours", first_axis="column")
    learned = Learned(
        covers="all_but_registers", resample=Resample(interpolation="bilinear", antialias=False)
    )
    return Combined(added=learned, inner=rope)


def _preprocess(config: ViTConfig) -> Preprocess:
    """Both sides to the model's, bilinear."""
    return evaluation(config, Squash(size=config.image.size), HALF, resample="bilinear")
