"""EVA-CLIP's image towers, with or without the text tower. Source: baaivision/EVA `EVA-CLIP/rei/eva_clip`, its model_configs."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from patchword.formats.checkpoint import Checkpoint
from patchword.formats.facts import Facts
from patchword.formats.layout import Description, Ignored
from patchword.formats.layouts.clip import TEXT
from patchword.formats.layouts.eva import EVA, REFERENCE, THETA
from patchword.formats.layouts.original import AuthorsFile, Constants
from patchword.formats.layouts.towers import below, blocks_below, inside
from patchword.formats.rows import Rows
from patchword.images.preprocess import Preprocess
from patchword.model.config import HeadConfig, ViTConfig
from patchword.model.kinds import ClassPool, Combined, IndexCoordinates, Learned, Positions, Rope2d
from patchword.weights.card import ModelCard

_TOWER = "visual."
_BEFORE_BLOCKS = ("cls_token", "pos_embed", "patch_embed.proj.weight")
# bigE alone has its norms after attention and MLP, which no tensor shows.
_POST_NORM = re.compile(r"eva02[-_]clip[-_](big)?e[-_]", re.IGNORECASE)
_POST_NORM_NAME, _POST_NORM_WIDTH = "EVA02-CLIP-bigE-14", 1792


class EVAClip(EVA):
    """A flat state dict, or `{"name": …, "state_dict": …}` of its training: EVA's names below `visual.`."""

    name = "eva-clip"
    title = "EVA-CLIP (its authors' file)"
    doubt = ""
    published_names = ("eva01_clip_", "eva02_clip_")
    constants = Constants(who="EVA-CLIP's configs", heads={768: 12, 1024: 16, 1408: 16, 1792: 16})
    wrapper = "state_dict"

    def rows(self, spelling: Mapping[str, Any], config: ViTConfig | None) -> Rows:
        rows = [item for item in super().rows(spelling, config) if item[:1] != ("head.{wb}",)]
        return below(spelling.get("tower", ""), (*rows, ("head.{wb}", "projection.{wb}")))

    def recognise(self, checkpoint: Checkpoint) -> str | None:
        if not checkpoint.has(f"{_TOWER}blocks.0.norm1.weight"):
            return None
        begins = [checkpoint.has(f"{_TOWER}{name}") for name in _BEFORE_BLOCKS]
        if all(begins):
            return "visual.cls_token and visual.blocks"
        # Next to its text tower, a file that lacks one of them is incomplete; alone, it may be another model's.
        torn = sum(begins) == len(begins) - 1 and checkpoint.has("logit_scale", "text.token_embedding.weight")
        return "visual.blocks and text" if torn else None

    def describe(self, checkpoint: Checkpoint, facts: Facts) -> Description:
        found = super().describe(inside(checkpoint, _TOWER), facts)
        config = found.config
        # Only tensors of the blocks are named one by one.
        copies = checkpoint.has(f"{_TOWER}blocks.0.attn.rope.freqs_cos")
        spelling = {
            **found.spelling,
            "tower": _TOWER,
            "copies": copies,
            "blocks": blocks_below(_TOWER, config.depth),
        }
        if post := self._post_norm(checkpoint, config.dim):
            facts.record("block.order", "res_post", post)
            config = replace(config, block=replace(config.block, order="res_post"))
        return replace(found, config=config, spelling=spelling)

    def _post_norm(self, checkpoint: Checkpoint, dim: int) -> str:
        for stated in (checkpoint.path.name, str(checkpoint.beside.get("name", ""))):
            if _POST_NORM.match(stated):
                return f"the name {stated}"
        return f"the width {dim}, as in {_POST_NORM_NAME}" if dim == _POST_NORM_WIDTH else ""

    def positions(self, file: AuthorsFile) -> Positions:
        added = Learned(resample=self.resample)
        if not file.checkpoint.has("rope.freqs_cos"):
            return added
        coordinates = IndexCoordinates(reference=REFERENCE)
        return Combined(added=added, inner=Rope2d(theta=THETA, coordinates=coordinates, pairing="neighbours"))

    def head(self, file: AuthorsFile) -> HeadConfig:
        """The linear layer into the space of images and texts."""
        has = file.checkpoint.has("head.weight")
        width = file.checkpoint.shape_of("head.weight", 2)[0] if has else 0
        return HeadConfig(pool=ClassPool(), projection=width, projection_bias=has, num_classes=0)

    def evaluated(self, file: AuthorsFile, config: ViTConfig) -> tuple[Preprocess, str, tuple[str, ...]]:
        return self.preprocess(config, min(config.image.size)), "EVA-CLIP's image transform", ()

    def spelling(self, card: ModelCard) -> Mapping[str, Any]:
        return {
            **super().spelling(card),
            "tower": _TOWER,
            "blocks": blocks_below(_TOWER, card.config.depth),
        }

    def ignored(self, description: Description) -> Iterable[Ignored]:
        return TEXT

    def written_beside(self, card: ModelCard) -> Mapping[str, Any]:
        """The name of the config, by which a reader knows where the norms are."""
        return {"name": _POST_NORM_NAME if card.config.block.order == "res_post" else "EVA-CLIP"}
