"""Find the formats that can hold a model, by trying a single block of its shape to keep it cheap."""

import tempfile
from dataclasses import replace
from pathlib import Path

from patchword.errors import PatchwordError
from patchword.formats.layouts import LAYOUTS
from patchword.formats.source import Source
from patchword.formats.write import write_as
from patchword.model.kinds import JoinedPool
from patchword.weights.card import ModelCard


def formats_that_hold(card: ModelCard) -> list[str]:
    """Format names for `convert --to`, sorted."""
    import torch

    from patchword.model.vit import ViT

    pool = card.config.head.pool
    depth = pool.class_layers if isinstance(pool, JoinedPool) else 1
    small = replace(card, decoder=None, config=replace(card.config, depth=min(depth, card.config.depth)))
    tensors = ViT(small.config, torch.Generator().manual_seed(0)).state_dict()
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for layout in LAYOUTS:
            try:
                write_as(Source(card=small, tensors=tensors), layout, Path(folder) / layout.name)
            except PatchwordError:
                continue
            found.append(layout.name)
    return sorted(found)
