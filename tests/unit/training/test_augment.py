"""Tests of the batched augmentation."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from patchword.errors import SettingsError
from patchword.training.augment.geometry import draw_geometry, warp
from patchword.training.augment.mix import mix
from patchword.training.augment.settings import AugmentSettings, ColourSettings, GeometrySettings, MixSettings
from patchword.training.augment.views import Augment
from patchword.training.chance import Draws

STRONG = AugmentSettings(
    geometry=GeometrySettings(
        crop_scale=(0.3, 1.0),
        crop_ratio=(0.75, 4 / 3),
        flip=0.5,
        degrees=15,
        translate=0.1,
        shear=10,
        zoom=0.1,
    ),
    colour=ColourSettings(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.05, grey=0.1),
    erase=0.5,
)


def drawn(count: int, seed: int = 0) -> Draws:
    return Draws(seed, 0, np.arange(count))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def photos(count: int = 8, channels: int = 3, height: int = 40, width: int = 40) -> Tensor:
    return torch.randint(0, 256, (count, channels, height, width), generator=seeded(7), dtype=torch.uint8)


def test_identity_is_the_image_or_its_plain_resize() -> None:
    images = photos()
    plain = images.float() / 255
    assert torch.equal(Augment(AugmentSettings(), 40)(images, drawn(len(images))), plain)
    small = F.interpolate(plain, (20, 24), mode="bilinear", antialias=True)
    assert torch.equal(Augment(AugmentSettings(), (20, 24))(images, drawn(len(images))), small)
    assert torch.equal(Augment(AugmentSettings(), 40)(plain, drawn(len(plain))), plain)


def test_the_sampler_at_unit_settings_returns_the_image() -> None:
    # zoom so small that it moves nothing, but large enough to take the sampling path
    settings = AugmentSettings(geometry=GeometrySettings(zoom=1e-9))
    plain = photos().float() / 255
    torch.testing.assert_close(Augment(settings, 40)(plain, drawn(len(plain))), plain, atol=1e-4, rtol=0)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_channels_range_and_shape(channels: int) -> None:
    views = Augment(STRONG, (24, 32))(photos(channels=channels, height=50, width=70), drawn(8))
    assert views.shape == (8, channels, 24, 32)
    assert views.dtype == torch.float32
    assert views.min() >= 0.0 and views.max() <= 1.0


def test_the_draws_decide_everything() -> None:
    augment, images = Augment(STRONG, 32), photos()
    first = augment(images, drawn(8, seed=3))
    torch.manual_seed(99)
    assert torch.equal(first, augment(images, drawn(8, seed=3)))
    assert not torch.equal(first, augment(images, drawn(8, seed=4)))


@pytest.mark.parametrize("channels", [1, 3])
def test_parts_of_a_batch_give_the_bits_of_the_batch(channels: int) -> None:
    images, draws = photos(11, channels, 50, 70), drawn(11)
    targets, mixing = torch.eye(11), MixSettings(mixup=0.8, cutmix=1.0)
    augment = Augment(replace(STRONG, erase_fill="noise", erase_count=2), (24, 32))
    views = augment(images, draws)
    mixed, shares = mix(views, targets, mixing, draws)
    for cuts in ((0, 2, 6, 11), (0, 10, 11), (0, 4, 11)):
        parts = [slice(a, b) for a, b in itertools.pairwise(cuts)]
        some = [augment(images[part], draws.part(part)) for part in parts]
        assert torch.equal(torch.cat(some), views)
        pairs = [mix(v, targets[part], mixing, draws.part(part)) for v, part in zip(some, parts, strict=True)]
        assert torch.equal(torch.cat([images for images, _ in pairs]), mixed)
        assert torch.equal(torch.cat([shares for _, shares in pairs]), shares)


def test_the_matrix_says_where_a_view_is_in_its_image() -> None:
    ramps = torch.stack(torch.meshgrid(*[torch.linspace(-63 / 64, 63 / 64, 64)] * 2, indexing="xy"))
    settings = AugmentSettings(geometry=replace(STRONG.geometry, outside="border"))
    views, matrix = Augment(settings, 33).with_matrix(ramps.expand(8, -1, -1, -1) / 2 + 0.5, drawn(8))
    middle = views[:, :, 16, 16] * 2 - 1
    torch.testing.assert_close(middle, matrix[:, :, 2].clamp(-63 / 64, 63 / 64), atol=2e-3, rtol=0)


def test_every_image_has_its_own_parameters() -> None:
    views = Augment(STRONG, 32)(photos(count=1).expand(6, -1, -1, -1), drawn(6))
    for other in views[1:]:
        assert not torch.allclose(views[0], other, atol=1e-2)


def test_flip() -> None:
    plain = photos().float() / 255
    always = Augment(AugmentSettings(geometry=GeometrySettings(flip=1.0)), 40)(plain, drawn(len(plain)))
    torch.testing.assert_close(always, plain.flip(3), atol=1e-4, rtol=0)
    half = Augment(AugmentSettings(geometry=GeometrySettings(flip=0.5)), 40)(plain, drawn(len(plain)))
    kept = [torch.allclose(a, b, atol=1e-3) for a, b in zip(half, plain, strict=True)]
    assert any(kept) and not all(kept)


def test_crop_enlarges_a_part() -> None:
    ramp = torch.linspace(0, 1, 64).expand(16, 1, 64, 64)
    settings = AugmentSettings(geometry=GeometrySettings(crop_scale=(0.25, 0.25)))
    views = Augment(settings, 32)(ramp, drawn(len(ramp)))
    spans = views[:, 0, 0, -1] - views[:, 0, 0, 0]
    torch.testing.assert_close(spans, torch.full((16,), 31 / 63), atol=0.02, rtol=0)
    assert views[:, 0, 0, 0].std() > 0.02


def test_padding_changes_no_view_that_stays_inside() -> None:
    inside = GeometrySettings(crop_scale=(0.3, 1.0), crop_ratio=(0.75, 4 / 3), flip=0.5)
    images, matrix = photos(32).float() / 255, draw_geometry((40, 40), inside, drawn(32))
    border, mirrored = (warp(images, matrix, (36, 36), outside) for outside in ("border", "reflection"))
    assert inside.stays_inside
    torch.testing.assert_close(border, mirrored, atol=1e-4, rtol=0)


def test_images_move_by_up_to_the_share_that_is_asked_for() -> None:
    ramp = torch.linspace(0, 1, 65).expand(400, 1, 65, 65)
    settings = GeometrySettings(translate=0.25, outside="zeros")
    middle = Augment(AugmentSettings(geometry=settings), 65)(ramp, drawn(len(ramp)))[:, 0, 32, 32] - 0.5
    assert 0.24 < middle.max() <= 0.255 and -0.255 <= middle.min() < -0.24


def test_quarter_turn_on_an_image_that_is_not_square() -> None:
    settings = GeometrySettings(degrees=180)
    matrices = draw_geometry((30, 60), settings, drawn(500))
    pixels = matrices[:, :, :2] * torch.tensor([30.0, 15.0])[None, :, None] / torch.tensor([30.0, 15.0])
    gram = pixels.transpose(1, 2) @ pixels
    torch.testing.assert_close(gram, torch.eye(2).expand(500, 2, 2), atol=1e-4, rtol=0)


def test_a_strong_shrink_does_not_alias() -> None:
    stripes = (torch.arange(128) % 2).float().expand(4, 3, 128, 128)
    settings = AugmentSettings(geometry=GeometrySettings(crop_scale=(0.9, 1.0), flip=0.5, degrees=3))
    views = Augment(settings, 32)(stripes, drawn(len(stripes)))
    assert (views[:, :, 2:-2, 2:-2] - 0.5).abs().max() < 0.02


def test_grey_and_hue_need_rgb() -> None:
    grey = AugmentSettings(colour=ColourSettings(grey=1.0))
    views = Augment(grey, 40)(photos(), drawn(8))
    torch.testing.assert_close(views[:, 0], views[:, 2])
    five = photos(channels=5)
    assert torch.equal(Augment(grey, 40)(five, drawn(len(five))), five.float() / 255)
    turned = Augment(AugmentSettings(colour=ColourSettings(hue=0.5)), 40)(photos(), drawn(8))
    assert not torch.allclose(turned, photos().float() / 255, atol=0.05)


def test_brightness_scales_within_its_range() -> None:
    flat = torch.full((64, 2, 8, 8), 0.5)
    views = Augment(AugmentSettings(colour=ColourSettings(brightness=0.4)), 8)(flat, drawn(len(flat)))
    levels = views.mean((1, 2, 3))
    assert 0.3 <= levels.min() < 0.35 and 0.65 < levels.max() <= 0.7


def test_erase_covers_the_drawn_share() -> None:
    images = torch.rand(64, 3, 40, 40, generator=seeded())
    views = Augment(AugmentSettings(erase=1.0, erase_area=(0.25, 0.25)), 40)(images, drawn(len(images), 1))
    covered = (views != images).any(1).float().mean((1, 2))
    assert covered.min() > 0.15 and covered.max() < 0.3


@pytest.mark.parametrize(
    "settings",
    [MixSettings(mixup=0.4), MixSettings(cutmix=1.0), MixSettings(mixup=0.8, cutmix=1.0, probability=0.5)],
)
def test_mixing(settings: MixSettings) -> None:
    images = torch.arange(32.0).view(32, 1, 1, 1).expand(32, 2, 16, 16) / 31
    targets = torch.eye(32)
    mixed, shares = mix(images, targets, settings, drawn(32))
    torch.testing.assert_close(shares.sum(1), torch.ones(32))
    assert mixed.min() >= 0.0 and mixed.max() <= 1.0
    # The mean of a mixed image is that of its labels: what is seen and what is claimed agree.
    expected = shares @ images[:, 0, 0, 0]
    torch.testing.assert_close(mixed.mean((1, 2, 3)), expected, atol=1e-5, rtol=0)
    untouched = (shares.max(1).values == 1).float().mean()
    assert (untouched > 0.2) == (settings.probability < 1)
    again = mix(images, targets, settings, drawn(32))
    assert torch.equal(mixed, again[0]) and torch.equal(shares, again[1])


def test_partners_are_neighbours_and_mixup_keeps_most_of_each_image() -> None:
    images, targets = torch.rand(31, 3, 8, 8), torch.eye(31)
    mixed, shares = mix(images, targets, MixSettings(mixup=1.0), drawn(31))
    for row in range(30):
        assert shares[row, row] >= 0.5
        torch.testing.assert_close(shares[row, row] + shares[row, row ^ 1], torch.tensor(1.0))
    assert torch.equal(mixed[30], images[30]) and shares[30, 30] == 1


def test_mixing_off_returns_the_inputs() -> None:
    images, targets = torch.rand(4, 3, 8, 8), torch.eye(4)
    assert mix(images, targets, MixSettings(), drawn(4)) == (images, targets)


def test_impossible_settings_are_refused() -> None:
    for bad in ({"crop_scale": (0.0, 1.0)}, {"crop_scale": (0.9, 0.2)}, {"flip": 1.5}, {"zoom": 1.0}):
        with pytest.raises(SettingsError):
            GeometrySettings(**bad)
    with pytest.raises(SettingsError):
        MixSettings(mixup=-1)
    with pytest.raises(TypeError):
        Augment(AugmentSettings(), 8)(torch.zeros(1, 3, 8, 8, dtype=torch.int64), drawn(1))
