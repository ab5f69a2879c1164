"""Windowed attention of the detector: equal to masked attention over the whole image, for every kind of positions."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from patchword.errors import SettingsError
from patchword.model.config import (
    AttentionConfig,
    HeadConfig,
    ImageConfig,
    PatchConfig,
    TokensConfig,
    ViTConfig,
)
from patchword.model.kinds import BatchNormConfig, Learned, MeanPool, RelativeBias, Rope2d, RopeMixed
from patchword.model.kinds import positions as k
from patchword.model.vit import DropPath, ViT
from patchword.model.vitdet.config import VitDetConfig
from patchword.model.vitdet.model import VitDet
from patchword.model.vitdet.windows import encode, global_blocks

POSITIONS = [Rope2d(), Learned(), RelativeBias(), RopeMixed()]


def config(positions: k.AnyAdded | k.AnyInner, tokens: TokensConfig) -> ViTConfig:
    return ViTConfig(
        image=ImageConfig(size=(48, 64)),
        patch=PatchConfig(size=(8, 8)),
        dim=32,
        depth=4,
        tokens=tokens,
        positions=positions,
        attention=AttentionConfig(num_heads=2),
        head=HeadConfig(pool=MeanPool(), num_classes=0),
    )


def masked(vit: ViT, images: Tensor, side: int, num_global: int) -> Tensor:
    """The same with one sequence of all patches and a copy of the other tokens for each window, and a mask between windows."""
    x, layout = vit.embed_tokens(images)
    height, width = layout.grid
    across = -(-width // side)
    window = torch.tensor([r // side * across + c // side for r in range(height) for c in range(width)])
    others, patches, first = layout.num_prefix + layout.num_suffix, layout.num_patches, layout.num_prefix
    count = int(window.max()) + 1
    other = torch.cat((torch.arange(first), torch.arange(first + patches, layout.num_tokens)))
    rows = torch.cat((other.repeat(count), torch.arange(patches) + first))
    of = torch.cat((torch.arange(count).repeat_interleave(others), window))
    hidden = torch.zeros(len(of), len(of)).masked_fill(of[:, None] != of, -torch.inf)

    def join(x: Tensor) -> Tensor:
        kept = x[:, : count * others].view(len(x), count, others, -1).mean(1)
        return torch.cat((kept[:, :first], x[:, count * others :], kept[:, first:]), 1)

    for index, (block, place) in enumerate(zip(vit.blocks, vit.places(layout), strict=True)):
        if index in global_blocks(len(vit.blocks), num_global):
            x = block(join(x) if x.shape[1] == len(of) and others else x, place)
        else:
            x = x[:, rows] if x.shape[1] != len(of) or not others else x
            place = place.select(rows[None])
            bias = hidden if place.bias is None else place.bias + hidden
            x = block(x, place._replace(bias=bias.reshape(1, -1, len(of), len(of))))
    return vit.norm(x)


@pytest.mark.parametrize("side", [2, 4, 5])
@pytest.mark.parametrize("positions", POSITIONS, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("extra", ["none", "class and registers", "registers last"])
@torch.no_grad()
def test_windows_equal_masked_attention(positions: k.AnyAdded | k.AnyInner, side: int, extra: str) -> None:
    last = extra == "registers last"
    tokens = (
        TokensConfig(class_token=False)
        if extra == "none"
        else TokensConfig(num_registers=2, registers_last=last)
    )
    vit = ViT(config(positions, tokens), torch.Generator().manual_seed(0)).eval()
    for name, weight in vit.named_parameters():
        if "position" in name:  # far from zero, so that a wrong position shows
            weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    images = torch.randn(2, 3, 48, 64, generator=torch.Generator().manual_seed(2))
    found = encode(vit, images, side, 2)
    torch.testing.assert_close(found, masked(vit, images, side, 2), atol=2e-5, rtol=2e-5)
    assert not torch.allclose(found, vit.forward_features(images), atol=1e-2)


@torch.no_grad()
def test_an_image_of_one_window_and_all_blocks_global_is_the_plain_backbone() -> None:
    vit = ViT(config(Rope2d(), TokensConfig()), torch.Generator().manual_seed(0)).eval()
    images = torch.randn(1, 3, 48, 64, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(encode(vit, images, 8, 2), vit.forward_features(images))
    torch.testing.assert_close(encode(vit, images, 2, 4), vit.forward_features(images))


def test_all_windows_of_an_image_skip_a_branch_together() -> None:
    drop = DropPath(0.5)
    drop.chance = torch.tensor([0.9, 0.1])
    torch.testing.assert_close(drop(torch.ones(6, 1, 1)).flatten(), torch.tensor([2.0, 2, 2, 0, 0, 0]))


def test_the_global_blocks_are_spread_evenly() -> None:
    assert (
        global_blocks(12, 4) == {2, 5, 8, 11}
        and global_blocks(5, 1) == {4}
        and global_blocks(4, 4) == {0, 1, 2, 3}
    )


def test_a_detector_with_windows_trains_and_answers() -> None:
    given = VitDetConfig(
        vit=config(Rope2d(), TokensConfig()), num_classes=2, num_heads=4, window=3, num_global=2
    )
    model = VitDet(given, generator=torch.Generator().manual_seed(0))
    found = model(torch.randn(2, 3, 48, 64, generator=torch.Generator().manual_seed(2)))
    found.logits.sum().backward()
    assert model.vit.patch_embed.proj.weight.grad.abs().sum() > 0
    plain = VitDet(replace(given, window=0), generator=torch.Generator().manual_seed(0))
    assert plain.state_dict().keys() == model.state_dict().keys()


def test_windows_that_cannot_be_are_refused() -> None:
    backbone = config(Rope2d(), TokensConfig())
    with pytest.raises(SettingsError, match="5 global blocks of 4"):
        VitDetConfig(vit=backbone, num_classes=2, window=2, num_global=5)
    with pytest.raises(SettingsError, match="average over tokens"):
        VitDetConfig(vit=replace(backbone, norm=BatchNormConfig()), num_classes=2, window=2)
