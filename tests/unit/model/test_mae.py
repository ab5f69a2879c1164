"""The masked autoencoder: what it computes for visible patches is what the encoder computes, whatever its positions."""

from typing import Any

import pytest
import torch

from patchword.errors import SettingsError
from patchword.model.config import (
    AttentionConfig,
    HeadConfig,
    ImageConfig,
    PatchConfig,
    TokensConfig,
    ViTConfig,
)
from patchword.model.decoder import DecoderConfig, num_visible
from patchword.model.kinds import (
    Learned,
    NoPositions,
    RelativeBias,
    ResNetStem,
    Rope2d,
    RopeMixed,
    SinCos2d,
)
from patchword.model.mae import MAE, Masking, patchify, rows_of, unpatchify
from patchword.model.vit import ViT

SMALL = DecoderConfig(dim=24, depth=2, num_heads=3)


def encoder(**parts: Any) -> ViTConfig:
    given = {"tokens": TokensConfig(num_registers=2), "patch": PatchConfig(size=(8, 8)), **parts}
    return ViTConfig(
        image=ImageConfig(size=(32, 40)),
        dim=32,
        depth=2,
        attention=AttentionConfig(num_heads=4),
        head=HeadConfig(num_classes=0),
        **given,
    )


def autoencoder(**parts: Any) -> MAE:
    generator = torch.Generator().manual_seed(0)
    return MAE(ViT(encoder(**parts), generator), SMALL, generator).eval()


def images() -> torch.Tensor:
    return torch.randn(2, 3, 32, 40, generator=torch.Generator().manual_seed(1))


def noise() -> torch.Tensor:
    return torch.rand(2, 20, generator=torch.Generator().manual_seed(2))


@torch.no_grad()
@pytest.mark.parametrize(
    "positions",
    [Learned(), SinCos2d(), RelativeBias(), Rope2d(), RopeMixed(), NoPositions()],
    ids=lambda p: p.kind,
)
@pytest.mark.parametrize("last", [False, True], ids=["registers in front", "registers behind"])
def test_patches_keep_their_positions_in_any_order(positions: Any, last: bool) -> None:
    tokens = TokensConfig(num_registers=2, registers_last=last)
    mae = autoencoder(positions=positions, tokens=tokens)
    before = mae.vit.num_prefix
    whole = mae.vit.forward_features(images())[:, before : before + 20]
    order = noise().argsort(1)
    latent = mae.encode(images(), Masking(order, 20))
    assert latent.shape == (2, before + 20, 32)
    torch.testing.assert_close(latent[:, before:], rows_of(whole, order), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_hidden_pixels_do_not_reach_the_encoder() -> None:
    mae, masking = autoencoder(), autoencoder().masking(noise())
    pixels = patchify(images(), (8, 8))
    spoiled = pixels.scatter(1, masking.hidden[..., None].expand(-1, -1, pixels.shape[-1]), 99.0)
    other = unpatchify(spoiled, (8, 8), (4, 5))
    assert not torch.equal(other, images())
    torch.testing.assert_close(mae.encode(images(), masking), mae.encode(other, masking), atol=0, rtol=0)


@torch.no_grad()
def test_the_loss_is_that_of_the_complete_prediction_at_hidden_patches() -> None:
    mae = autoencoder()
    masking = mae.masking(noise())
    wrong = (mae.predict(images(), masking) - mae.targets(mae.patches(images()))).square().mean(-1)
    expected = (wrong * masking.mask).sum(1) / masking.mask.sum(1)
    torch.testing.assert_close(mae.errors(images(), noise()), expected, atol=1e-5, rtol=1e-5)


def test_cutting_into_patches_is_undone() -> None:
    assert torch.equal(unpatchify(patchify(images(), (8, 4)), (8, 4), (4, 10)), images())


def test_a_frozen_encoder_gets_no_gradients() -> None:
    mae = autoencoder()
    mae.encoder_frozen = True
    mae(images(), noise())["pixels"].backward()
    assert all(p.grad is None for p in mae.vit.parameters())
    assert mae.decoder.mask_token.grad is not None


def test_a_hybrid_is_refused_because_its_convolutions_see_hidden_patches() -> None:
    config = encoder(patch=PatchConfig(size=(1, 1), stem=ResNetStem()), positions=SinCos2d())
    with pytest.raises(SettingsError, match="hybrid"):
        MAE(ViT(config), SMALL)


@pytest.mark.parametrize(("patches", "ratio"), [(20, 0.99), (20, 0.01), (1, 0.5)])
def test_something_must_be_visible_and_something_hidden(patches: int, ratio: float) -> None:
    if (patches, ratio) == (20, 0.01):
        assert num_visible(patches, ratio) == 19  # rounded down, as in the source
        return
    with pytest.raises(SettingsError, match="leaves no patch"):
        num_visible(patches, ratio)


def test_images_that_are_no_whole_patches_are_refused() -> None:
    with pytest.raises(SettingsError, match="cannot be cut"):
        autoencoder().errors(torch.randn(2, 3, 33, 40), noise())
