"""The encoder of every recorded MAE: on the patches that stay, it must answer as the original did."""

import pytest
import torch
from torch import Tensor

from patchword.model.vit import ViT
from support.parity import Case, cases_in, difference, folders

CASES = cases_in(folders(), {"mae"})
# The originals' default, of which all are recorded.
HIDDEN_SHARE = 0.75
COMPARED = ("embedded", "block_0", "latent", "mask", "ids_restore")


@torch.no_grad()
def encode(vit: ViT, image: Tensor, noise: Tensor) -> dict[str, Tensor]:
    """The encoder on the visible patches: those of the smallest noise, in its order, class token first."""
    tokens, layout = vit.embed_tokens(image)
    prefix = vit.num_prefix
    order = noise.argsort(dim=1)
    restore = order.argsort(dim=1)
    kept = order[:, : int(layout.num_patches * (1 - HIDDEN_SHARE))]
    patches = tokens[:, prefix:].gather(1, kept[..., None].expand(-1, -1, tokens.shape[2]))
    x = torch.cat((tokens[:, :prefix], patches), dim=1)
    found = {"embedded": x, "ids_restore": restore, "mask": (restore >= kept.shape[1]).float()}
    for index, (block, place) in enumerate(zip(vit.blocks, vit.places(layout), strict=True)):
        x = block(x, place)
        if index == 0:
            found["block_0"] = x
    return found | {"latent": vit.norm(x)}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_encoder_answers_as_its_original_did(case: Case) -> None:
    arrays = case.arrays()
    model = case.load()
    ours = encode(model.vit, torch.from_numpy(arrays["image"]), torch.from_numpy(arrays["noise"]))
    far = {
        name: difference(ours[name], arrays[name])
        for name in COMPARED
        if difference(ours[name], arrays[name]) > case.meta["tolerance"]
    }
    assert not far, f"relative differences: {far}; {model.report}"
