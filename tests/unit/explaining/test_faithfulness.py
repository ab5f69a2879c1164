"""Deletion, insertion, and the check by shuffled weights."""

import pytest
import torch
from scipy.stats import spearmanr

from patchword.explaining.faithfulness import BASELINES, CENTRE, RANDOM, curves_of, joined
from patchword.explaining.methods.patches import filled, to_patches, to_pixels
from patchword.explaining.sanity import rank_correlation, shuffled
from patchword.explaining.settings import ScoreSettings, score_settings
from patchword.model.config import HeadConfig
from patchword.model.vit import ViT
from support.planted import coloured, hand_set
from support.vit_configs import REGISTERS, tiny


def marked(place: int) -> torch.Tensor:
    values = torch.zeros(64)
    values[place] = 1
    return values.view(8, 8)


def test_deletion_and_insertion_are_the_areas_of_probabilities_counted_by_hand() -> None:
    vit, image = hand_set(), coloured([3])
    with torch.no_grad():
        full, empty = (float(vit(each).softmax(1)[0, 0]) for each in (image, torch.zeros_like(image)))
        found = curves_of(
            vit,
            image,
            {"map": marked(3), "worst": -marked(3)},
            torch.tensor(0),
            ScoreSettings(steps=4, fills=("mean",)),
        )
    # The patch goes first, or comes first: after one of four steps nothing else changes.
    deletion, insertion = found["map"].deletion["mean"][0], found["map"].insertion["mean"][0]
    assert deletion == pytest.approx((full / 2 + 3 * empty + empty / 2) / 4, abs=0.02)
    assert insertion == pytest.approx((empty / 2 + 3 * full + full / 2) / 4, abs=0.02)
    assert found["worst"].deletion["mean"][0] > found["worst"].insertion["mean"][0]
    assert found["worst"].gain < found["map"].gain >= found[RANDOM].gain >= found["worst"].gain
    assert found.keys() == {"map", "worst", *BASELINES}


def test_the_baselines_are_a_random_order_that_repeats_and_the_centre() -> None:
    vit = hand_set()

    def curves(place: int, **how: int) -> dict[str, float]:
        with torch.no_grad():
            settings = ScoreSettings(seed=how.get("seed", 0), steps=4, fills=("mean",))
            found = curves_of(
                vit, coloured([place]), {}, torch.tensor(0), settings, index=how.get("index", 0)
            )
        return {name: each.gain for name, each in found.items()}

    assert curves(27)[CENTRE] > 0 > curves(0)[CENTRE]
    assert curves(20) == curves(20)
    assert len({curves(20, index=index)[RANDOM] for index in range(4)} | {curves(20, seed=9)[RANDOM]}) > 1


def test_a_model_without_classes_is_scored_by_the_similarity_of_its_embedding() -> None:
    vit = ViT(tiny(head=HeadConfig(num_classes=0)), torch.Generator().manual_seed(0)).eval()
    image = torch.randn(1, 3, 16, 24, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = curves_of(vit, image, {"map": torch.rand(2, 4)}, None, ScoreSettings())
    assert 0 < found["map"].deletion["blur"][0] <= 1
    assert joined([found, found])["map"].images == 2


def test_patches_and_pixels_agree_where_the_image_is_padded() -> None:
    config = tiny()
    size = torch.Size((1, 3, 13, 20))
    cells = torch.arange(8.0).view(1, 2, 4)
    assert to_pixels(cells, size, config).shape == (1, 13, 20)
    covered = to_patches(torch.ones(1, 13, 20), config)
    assert covered[0].tolist() == [[48, 48, 48, 16], [30, 30, 30, 10]]
    assert torch.equal(to_patches(to_pixels(cells, size, config), config), cells * covered)


def test_the_blur_keeps_a_flat_image_and_levels_noise() -> None:
    flat = torch.full((1, 3, 16, 24), 0.7)
    torch.testing.assert_close(filled(flat, "blur", tiny()), flat)
    noise = torch.randn(1, 3, 160, 240)
    assert filled(noise, "blur", tiny()).std() < 0.2 and filled(noise, "mean", tiny()).abs().max() == 0


def test_every_parameter_is_shuffled_and_keeps_its_values() -> None:
    vit = ViT(tiny(tokens=REGISTERS), torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    other = shuffled(vit)
    for (name, own), new in zip(vit.named_parameters(), other.parameters(), strict=True):
        assert not torch.equal(own, new), name
        assert torch.equal(own.flatten().sort().values, new.flatten().sort().values), name
    assert torch.equal(next(shuffled(vit).parameters()), next(other.parameters()))


def test_the_rank_correlation_is_spearmans_also_with_ties() -> None:
    draws = torch.Generator().manual_seed(0)
    first, second = (torch.randint(0, 5, (3, 4, 5), generator=draws) for _ in range(2))
    expected = [spearmanr(a.flatten(), b.flatten()).statistic for a, b in zip(first, second, strict=True)]
    assert rank_correlation(first, second).tolist() == pytest.approx(expected)
    assert rank_correlation(torch.ones(1, 2, 2), torch.rand(1, 2, 2)).tolist() == [0]


def test_of_many_images_fewer_are_measured() -> None:
    assert score_settings(100).images == 4 and score_settings(101).images == 2
    assert score_settings(101).fills == ("mean",) and score_settings(101, 7, ("blur",)).images == 7
