"""Google's .npz files: vision_transformer's (ViT, AugReg, LiT, hybrids) and big_vision's (SigLIP, NaFlex, FlexiViT…).

The name of the position table distinguishes them: `Transformer/posembed_input/` is vision_transformer's. Shapes
give nearly everything, including the heads. What no file states (eps 1e-6, tanh GELU, pixels in -1..1) is the
same in both repositories.
Source: google-research/vision_transformer at c6de1e5, google-research/big_vision at 0127fb6.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from patchword.errors import CheckpointError
from patchword.formats.checkpoint import Checkpoint
from patchword.formats.facts import Facts
from patchword.formats.layout import Description, Ignored, Layout, Rule
from patchword.formats.layouts.evaluation import evaluation
from patchword.formats.layouts.google_names import (
    INPUT_POSITIONS,
    OLD_POSITIONS,
    ROOT_POSITIONS,
    NamingVariant,
    drops,
    rows,
)
from patchword.formats.layouts.google_reading import Reading, spelling_of
from patchword.formats.rows import rules_of
from patchword.images.geometry import Cover, Patches, ResizeRule, Shorter, Squash
from patchword.images.preprocess import Preprocess, Resample
from patchword.model.config import ViTConfig
from patchword.model.kinds import AttentionPool, Learned
from patchword.model.shapes import shapes
from patchword.weights.card import ModelCard


class GoogleViT(Layout):
    """vision_transformer's spelling, and the code that both repositories share."""

    name = "google"
    title = "Google vision_transformer"
    container = "npz"
    file_name = "model.npz"

    def recognise(self, checkpoint: Checkpoint) -> str | None:
        spelling = spelling_of(checkpoint)
        if spelling is None or not self._is_mine(spelling):
            return None
        where = spelling.positions or "no positions"
        return f"{spelling.prefix}embedding/kernel and {where}"

    def _is_mine(self, spelling: NamingVariant) -> bool:
        return spelling.positions == INPUT_POSITIONS

    def describe(self, checkpoint: Checkpoint, facts: Facts) -> Description:
        spelling = spelling_of(checkpoint)
        assert spelling is not None
        reading = Reading(checkpoint, facts, spelling)
        config = reading.config()
        preprocess = facts.preprocess(preprocess_of(config, spelling))
        return Description(
            config=reading.fitted(config, preprocess.image_size),
            preprocess=preprocess,
            spelling={"spelling": reading.spelling},
            notes=tuple(reading.notes),
        )

    def rules(self, description: Description) -> Iterable[Rule | Ignored]:
        config, spelling = description.config, description.spelling["spelling"]
        yield from rules_of(rows(config, spelling), shapes(config), config.depth)
        yield from drops(spelling)

    def spelling(self, card: ModelCard) -> Mapping[str, Any]:
        # Published files number modules as flax did before linen, which every reader supports; LiT's are newer.
        two_towers = bool(card.config.head.projection)
        return {"spelling": NamingVariant(prefix="img/" if two_towers else "", numbered=not two_towers)}

    def sidecar_files(self, card: ModelCard) -> Mapping[str, bytes]:
        """Return none. Raises: CheckpointError for what our reader reads and the repository's code cannot build."""
        if (lacks := self._lacks(card)) is not None:
            raise CheckpointError(
                f"{self.title} does not support {lacks}", "choose another format, or keep the patchword file"
            )
        return {}

    def _lacks(self, card: ModelCard) -> str | None:
        pool = card.config.head.pool
        return "attention pools: write it as big_vision" if isinstance(pool, AttentionPool) else None


class BigVision(GoogleViT):
    """big_vision's spelling: positions for patches only, or fixed sines; attention pools; two towers."""

    name = "big_vision"
    title = "Google big_vision"

    def _is_mine(self, spelling: NamingVariant) -> bool:
        return spelling.positions != INPUT_POSITIONS

    def spelling(self, card: ModelCard) -> Mapping[str, Any]:
        config = card.config
        learned = isinstance(config.positions, Learned)
        naflex = isinstance(card.preprocess.resize, Patches)
        bare_pool = isinstance(config.head.pool, AttentionPool) and not config.head.num_classes
        prefix = "params/img/" if config.head.projection or bare_pool else "params/"
        place = ROOT_POSITIONS if learned else ""
        if config.num_prefix_positions:  # only files from before 2022 have a row for the class token
            place = OLD_POSITIONS
        plain = NamingVariant(prefix=prefix, positions=place, numbered=False)
        return {"spelling": replace(plain, laid_out=naflex and learned, flat_patches=naflex)}

    def _lacks(self, card: ModelCard) -> str | None:
        config = card.config
        if config.patch.stem.kind != "none":
            return "a ResNet before the patches: write it as google"
        both = isinstance(config.head.pool, AttentionPool) and config.tokens.class_token
        return "an attention pool with a class token" if both else None


_MAX_PATCHES = 256  # in the published NaFlex models


def preprocess_of(config: ViTConfig, spelling: NamingVariant) -> tuple[Preprocess, str]:
    """The preprocessing and its source, by family, since no file states it: pixels in -1..1 and TensorFlow's resizes.

    Sources: vision_transformer `vit_jax/input_pipeline.py`; big_vision `configs/vit_i1k.py`, `configs/transfer.py`, the
    SigLIP notebooks and `pp/proj/image_text/ops_naflex.py`.
    """
    size = config.image.size
    resize: ResizeRule
    if spelling.flat_patches:
        resize = Patches(patch=config.patch.size, max_patches=_MAX_PATCHES)
        how, source = (
            Resample(interpolation="bilinear", antialias=True, rounding="none"),
            "big_vision's NaFlex",
        )
    elif spelling.two_towers:
        resize = Squash(size=size)
        how = Resample(interpolation="bilinear", antialias=False, rounding="truncate")
        source = "big_vision's two towers (SigLIP, LiT)"
    elif spelling.positions == INPUT_POSITIONS:
        resize = Squash(size=size)
        how = Resample(interpolation="bilinear", antialias=False, rounding="none")
        source = "vision_transformer's input pipeline"
    else:
        resize = _shorter(size) if size[0] == size[1] else Cover(size=size)
        how = Resample(interpolation="area", antialias=False, rounding="truncate")
        source = "big_vision's ImageNet configs"
    # TensorFlow's decoder ignores EXIF orientation too.
    return evaluation(config, resize, resample=how), source


def _shorter(size: tuple[int, int]) -> Shorter:
    """Resize to 256 for a 224 crop and 448 for 384, as published; other sizes use the closer ratio."""
    side = size[0]
    margin = side * 7 // 6 if side >= 384 else side * 8 // 7
    return Shorter(size=margin, longer="half-even", crop="floor")
