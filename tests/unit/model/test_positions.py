"""Positions against their formulas, and at sizes other than their own."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from patchword.model.attention import attend
from patchword.model.config import ImageConfig
from patchword.model.kinds import Learned, RelativeBias, Resample, Rope2d, SinCos1d, SinCos2d
from patchword.model.positions import added_positions
from patchword.model.positions.layout import AttentionPositions, TokenLayout
from patchword.model.positions.relative_bias import RelativeBiasPositions, relative_index
from patchword.model.positions.rope2d import Rope2dPositions
from patchword.model.positions.sincos import sincos_1d, sincos_2d
from patchword.model.resample import resample_differences, resample_grid
from support.vit_configs import POSITIONS, tiny

CPU = torch.device("cpu")


def test_sincos1d_is_the_transformers_formula() -> None:
    table = sincos_1d((2, 3), 8, 10_000.0)
    for position in range(6):
        for i in range(4):
            angle = position / 10_000 ** (2 * i / 8)
            assert table[position, 2 * i] == pytest.approx(math.sin(angle), abs=1e-6)
            assert table[position, 2 * i + 1] == pytest.approx(math.cos(angle), abs=1e-6)


@pytest.mark.parametrize(("last_included", "steps"), [(True, 1), (False, 2)])
def test_sincos2d_is_sin_and_cos_of_column_then_row(last_included: bool, steps: int) -> None:
    table = sincos_2d((2, 3), 8, 10_000.0, last_included).view(2, 3, 8)
    low = 10_000 ** (-1 / steps)
    x, y = 2, 1
    by_hand = [f(c * w) for c in (x, y) for f in (math.sin, math.cos) for w in (1, low)]
    assert table[y, x].tolist() == pytest.approx(by_hand, abs=1e-6)


@pytest.mark.parametrize("kind", [SinCos1d(), SinCos2d()])
def test_fixed_positions_first_used_for_prediction_can_be_trained_with(kind: SinCos1d | SinCos2d) -> None:
    positions = added_positions(tiny(positions=kind))
    assert positions is not None
    with torch.inference_mode():
        positions((5, 7))
    (torch.ones(24, requires_grad=True) * positions((5, 7))).sum().backward()


def test_a_grid_of_the_stored_size_is_taken_as_it_is() -> None:
    table = torch.randn(3, 5, 4)
    assert resample_grid(table, (3, 5), Resample()) is table


@pytest.mark.parametrize("rule", [Resample(), Resample(antialias=False), Resample(interpolation="bilinear")])
def test_resampling_follows_torchs_rule_on_any_rectangle(rule: Resample) -> None:
    table = torch.randn(4, 4, 6)
    expected = F.interpolate(
        table.permute(2, 0, 1)[None], size=(3, 7), mode=rule.interpolation, antialias=rule.antialias
    )[0].permute(1, 2, 0)
    assert torch.allclose(resample_grid(table, (3, 7), rule), expected, atol=1e-6)


def test_corners_stay_where_they_are_when_they_are_aligned() -> None:
    table = torch.randn(4, 5, 6)
    new = resample_grid(table, (9, 3), Resample(antialias=False, align_corners=True))
    assert torch.allclose(new[[0, -1]][:, [0, -1]], table[[0, -1]][:, [0, -1]], atol=1e-5)


def test_dinos_offset_samples_elsewhere_but_gives_the_asked_grid() -> None:
    table = torch.randn(7, 7, 3)
    plain, offset = (resample_grid(table, (10, 5), Resample(antialias=False, offset=o)) for o in (0.0, 0.1))
    assert offset.shape == (10, 5, 3) and not torch.allclose(plain, offset, atol=1e-3)


def test_a_relative_bias_depends_on_the_difference_alone() -> None:
    index = relative_index((3, 4), CPU)
    seen: dict[tuple[int, int], int] = {}
    for query in range(12):
        for key in range(12):
            difference = query // 4 - key // 4, query % 4 - key % 4
            assert seen.setdefault(difference, int(index[query, key])) == index[query, key]
            assert index[query, key] == (difference[0] + 2) * 7 + difference[1] + 3
    assert len(set(seen.values())) == 5 * 7


def test_the_last_three_rows_of_a_relative_table_are_for_the_prefix() -> None:
    config = tiny(positions=RelativeBias())
    positions = RelativeBiasPositions(RelativeBias(), config)
    table = torch.arange(positions.tables[0].numel(), dtype=torch.float32).view_as(positions.tables[0])
    positions.tables[0].data.copy_(table)
    bias = positions(TokenLayout((2, 4), 1, 0, CPU), 2)[0].bias
    assert bias is not None and bias.shape == (3, 9, 9)
    assert (bias[:, 0, 1:] == table[-3][:, None]).all()
    assert (bias[:, 1:, 0] == table[-2][:, None]).all()
    assert (bias[:, 0, 0] == table[-1]).all()


def test_differences_resampled_keep_the_middle_and_the_farthest() -> None:
    table = torch.randn(5 * 7, 2)
    new = resample_differences(table, (3, 4), (5, 6), "bicubic").view(9, 11, 2)
    old = table.view(5, 7, 2)
    assert torch.allclose(new[4, 5], old[2, 3], atol=1e-5)
    assert torch.allclose(new[0, -1], old[0, -1], atol=1e-5)


@pytest.mark.parametrize("name", ["rope2d", "rope2d, EVA", "rope2d_mixed", "rope2d, stored"])
def test_a_rotation_keeps_lengths_and_leaves_the_prefix_alone(name: str) -> None:
    from patchword.model.vit import ViT

    model = ViT(POSITIONS[name])
    layout = TokenLayout((3, 5), 2, 1, CPU)
    place = model.places(layout)[1]
    x = torch.randn(2, 3, 18, 8)
    turned = place.turn(x)
    assert torch.allclose(turned.norm(dim=-1), x.norm(dim=-1), atol=1e-5)
    assert torch.equal(turned[:, :, :2], x[:, :, :2]) and torch.equal(turned[:, :, -1], x[:, :, -1])
    assert not torch.allclose(turned[:, :, 3:-1], x[:, :, 3:-1], atol=1e-2)
    assert torch.allclose(place.turn(x[:, :, :4]), turned[:, :, :4])


def test_rotated_scores_depend_on_the_difference_of_places_alone() -> None:
    config = tiny(positions=POSITIONS["rope2d, EVA"].positions, image=ImageConfig(size=(32, 30)))
    part = config.positions
    assert isinstance(part, Rope2d)
    place = Rope2dPositions(part, config)(TokenLayout((4, 5), 0, 0, CPU), 1)[0]
    q, k = (place.turn(torch.randn(1, 1, 1, 8).expand(1, 1, 20, 8)) for _ in range(2))
    scores = (q @ k.transpose(-2, -1)).view(4, 5, 4, 5)
    assert torch.allclose(scores[1:, :, 1:], scores[:-1, :, :-1], atol=1e-4)
    assert torch.allclose(scores[:, 1:, :, 1:], scores[:, :-1, :, :-1], atol=1e-4)


def test_dinov3s_coordinates_are_patch_centres_from_minus_one_to_one() -> None:
    """Row i of h lies at 2 (i + 1/2) / h - 1, and turns by that times 2 pi over the period."""
    config = tiny(positions=Rope2d(theta=100.0))
    cos = Rope2dPositions(Rope2d(theta=100.0), config)(TokenLayout((3, 5), 0, 0, CPU), 1)[0].cos
    assert cos is not None
    for row, column in itertools.product(range(3), range(5)):
        places = (2 * (row + 0.5) / 3 - 1, 2 * (column + 0.5) / 5 - 1)
        by_hand = [math.cos(2 * math.pi * place / period) for place in places for period in (1, 10)]
        assert cos[row * 5 + column].tolist() == pytest.approx(by_hand * 2, abs=1e-5)


@pytest.mark.parametrize("shape", [(3, 6, 6), (2, 3, 6, 6)], ids=["one for all images", "one for each image"])
def test_a_bias_for_the_first_queries_is_their_rows(shape: tuple[int, ...]) -> None:
    bias = torch.randn(shape)
    q, k, v = torch.randn(3, 2, 3, 6, 8)
    whole = attend(q, k, v, AttentionPositions(bias=bias).bias_for(6), 0.0)
    first = attend(q[:, :, :2], k, v, AttentionPositions(bias=bias).bias_for(2), 0.0)
    assert torch.allclose(first, whole[:, :, :2], atol=1e-5)


def test_registers_have_positions_only_where_all_tokens_do() -> None:
    from patchword.model.config import TokensConfig

    tokens = TokensConfig(num_registers=2)
    rows = {
        covers: tiny(tokens=tokens, positions=Learned(covers=covers)).num_prefix_positions
        for covers in ("all", "all_but_registers", "patches")
    }
    assert rows == {"all": 3, "all_but_registers": 1, "patches": 0}
