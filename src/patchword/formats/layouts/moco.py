"""MoCo v3's ViTs: DeiT's names, with other heads and preprocessing. Source: facebookresearch/moco-v3 `vits.py`, `main_lincls.py`."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from patchword.formats.layouts.original import AuthorsFile, Constants
from patchword.formats.layouts.plain import Plain
from patchword.formats.restate import sines_as_table, zeros_for_positions
from patchword.images.preprocess import Preprocess
from patchword.model.config import ViTConfig
from patchword.weights.card import ModelCard

_ARCH = {384: "vit_small", 768: "vit_base", 1024: "vit_large", 1280: "vit_huge"}


class MoCo(Plain):
    """The encoder of a pre-training file, or of a linear probe, `{"arch": …, "state_dict": {"module.…": …}}`.

    Positions are fixed sines, stored as a table. The momentum encoder is not read: the authors' probe does not use it.
    """

    name = "moco"
    title = "MoCo v3 (its authors' file)"
    family = "moco"
    # ViT-S has twice DeiT's heads.
    constants = Constants(who="MoCo v3's code", heads={384: 12, 768: 12, 1024: 16, 1280: 16})
    wrapper = "state_dict"
    steps = (*Plain.steps, sines_as_table, zeros_for_positions)

    def evaluated(self, file: AuthorsFile, config: ViTConfig) -> tuple[Preprocess, str, tuple[str, ...]]:
        usual, source, notes = super().evaluated(file, config)
        return replace(usual, resample=replace(usual.resample, interpolation="bilinear")), source, notes

    def nest(self, tensors: Mapping[str, Any]) -> Mapping[str, Any]:
        return super().nest({f"module.{name}": tensor for name, tensor in tensors.items()})

    def written_beside(self, card: ModelCard) -> Mapping[str, Any]:
        """`arch` is what identifies such a file; its scripts do not read it."""
        return {"arch": _ARCH.get(card.config.dim, "vit")}
