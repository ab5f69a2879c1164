"""RandAugment, TrivialAugment and 3-Augment: what every batch gets, whatever its channels and its cut."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_images
from torch import Tensor

from patchword.cli.main import run
from patchword.training.augment import views
from patchword.training.augment.policy import Step, apply_steps, draw_steps
from patchword.training.augment.settings import (
    AugmentSettings,
    GeometrySettings,
    Policy,
    RandAugment,
    ThreeAugment,
    TrivialAugment,
)
from patchword.training.augment.views import Augment
from patchword.training.chance import Draws

POLICIES = [
    RandAugment(operations=3, probability=1.0),
    TrivialAugment(),
    ThreeAugment(),
]


def photos(count: int, channels: int = 3) -> Tensor:
    """[count, channels, 48, 47], uint8: parts of a photograph."""
    china = torch.from_numpy(load_sample_images().images[0].copy()).permute(2, 0, 1)
    cuts = [china[:, 30 + 8 * i : 78 + 8 * i, 9 * i : 47 + 9 * i] for i in range(count)]
    return torch.stack(cuts)[:, [0, 1, 2, 0, 1][:channels]]


def drawn(count: int) -> Draws:
    return Draws(0, 0, np.arange(count))


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("policy", POLICIES)
def test_parts_of_a_batch_give_the_bits_of_the_batch(
    policy: Policy, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, draws = photos(16, channels), drawn(16)
    augment = Augment(AugmentSettings(policy=policy), (40, 44))
    whole, matrix = augment.with_matrix(images, draws)
    assert whole.shape == (16, channels, 40, 44) and whole.min() >= 0 and whole.max() <= 1
    for cuts in ((0, 1, 2, 16), (0, 10, 16)):
        parts = [slice(a, b) for a, b in itertools.pairwise(cuts)]
        assert torch.equal(torch.cat([augment(images[part], draws.part(part)) for part in parts]), whole)
    # As a CPU cuts a large batch for its threads and caches.
    monkeypatch.setattr(views, "CACHE_BYTES", 4 * images[0].numel() * 5)
    monkeypatch.setattr(views, "SMALLEST_BYTES", 1)
    threads = torch.get_num_threads()
    again, matrices = augment.with_matrix(images, draws)
    assert torch.equal(again, whole) and torch.equal(matrices, matrix)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("policy", POLICIES)
def test_every_image_gets_an_operation_of_its_own_and_the_input_is_kept(policy: Policy) -> None:
    one = photos(1).expand(40, -1, -1, -1).float() / 255
    before = one.clone()
    changed = Augment(AugmentSettings(policy=policy), (48, 47))(one, drawn(40))
    assert torch.equal(one, before)
    assert len({tuple(view.mean((1, 2)).tolist()) for view in changed}) > 12


def test_operations_on_colours_are_skipped_without_exactly_three_channels() -> None:
    step = Step(["colour"] * 4, torch.zeros(4))
    for channels in (1, 2, 5):
        images = photos(4, channels).float() / 255
        assert torch.equal(apply_steps(images, [step], 0.0)[0], images)
    grey, _ = apply_steps(photos(4).float() / 255, [step], 0.0)
    torch.testing.assert_close(grey[:, 0], grey[:, 2])


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (8, 8)])
def test_operations_work_on_the_smallest_images(size: tuple[int, int]) -> None:
    flat = torch.full((200, 1, *size), 0.25)
    for policy in POLICIES:
        changed = Augment(AugmentSettings(policy=policy), size)(flat, drawn(200))
        assert changed.isfinite().all()
    blurred, _ = apply_steps(flat, [Step(["blur"] * 200, torch.linspace(0.1, 4, 200))], 0.0)
    torch.testing.assert_close(blurred, flat)


def test_half_of_the_operations_of_randaugment_are_applied() -> None:
    steps = draw_steps(RandAugment(), (32, 32), drawn(2000))
    skipped = [np.mean([name == "identity" for name in step.names]) for step in steps]
    assert np.allclose(skipped, 0.5, atol=0.04)


def test_what_a_shift_uncovers_has_the_fill() -> None:
    images = photos(2).float() / 255
    moved, _ = apply_steps(images, [Step(["translate_x", "translate_y"], torch.full((2,), 0.5))], fill=0.25)
    assert torch.allclose(moved[0, :, :, :22], torch.tensor(0.25))
    assert torch.allclose(moved[1, :, :24], torch.tensor(0.25))
    torch.testing.assert_close(moved[1, :, 24:], images[1, :, :24], atol=1e-4, rtol=0)


def test_the_matrix_follows_the_operations_of_a_policy() -> None:
    ramps = torch.stack(torch.meshgrid(*[torch.linspace(-63 / 64, 63 / 64, 64)] * 2, indexing="xy"))
    geometry = GeometrySettings(crop_scale=(0.5, 1.0), flip=0.5, outside="border")
    steps = [
        Step(["rotate", "shear_x", "identity", "translate_y"], torch.tensor([25.0, 0.2, 0.0, 0.1])),
        Step(["translate_x", "rotate", "shear_y", "invert"], torch.tensor([0.1, -20.0, 0.1, 0.0])),
    ]
    images = ramps.expand(4, -1, -1, -1) / 2 + 0.5
    moved, matrix = apply_steps(images, steps, fill=0.5)
    expected = matrix[:, :, 2].clone()
    expected[3] *= -1
    torch.testing.assert_close(moved[:, :, 31:33, 31:33].mean((2, 3)) * 2 - 1, expected, atol=0.01, rtol=0)
    settings = AugmentSettings(geometry=geometry, policy=RandAugment())
    _, crop = Augment(dataclasses.replace(settings, policy=TrivialAugment()), 32).with_matrix(
        images, drawn(4)
    )
    assert crop.shape == (4, 2, 3)


@pytest.mark.parametrize(
    ("options", "error", "fix"),
    [
        (
            ["augment.policy.kind=randaugmnt"],
            "did you mean 'randaugment'",
            "none, randaugment, trivialaugment",
        ),
        (["augment.policy.kind=randaugment", "augment.policy.magnitude=11"], "magnitude is 11", "0 and 10"),
        (
            ["augment.policy.kind=randaugment", "augment.policy.operations=0"],
            "operations is 0",
            "from 1 to 16",
        ),
        (["augment.policy.kind=threeaugment", "augment.policy.blur=[2, 1]"], "blur is (2", "increasing"),
        (["augment.policy.magnitude=3"], "has no 'magnitude'", "'randaugment'"),
        (["augment.erase_count=0"], "erase_count is 0", "from 1 to 16"),
        (["augment.erase_fill=grey"], "erase_fill is 'grey'", "mean, zero, noise"),
    ],
)
def test_impossible_settings_are_refused_with_a_fix(
    options: list[str], error: str, fix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["train", "digits", *(word for option in options for word in ("-o", option))]) == 2
    first, second = capsys.readouterr().err.strip().splitlines()[-2:]
    assert error in first and fix in second


@pytest.mark.parametrize(("fill", "count"), [("mean", 1), ("zero", 3), ("noise", 2)])
def test_erasing_fills_its_boxes(fill: str, count: int) -> None:
    images = photos(32).float() / 255
    settings = AugmentSettings(erase=0.5, erase_area=(0.2, 0.2), erase_fill=fill, erase_count=count)  # type: ignore[arg-type]
    erased = Augment(settings, (48, 47))(images, drawn(32))
    changed = (erased != images).any(1)
    shares = changed.float().mean((1, 2))
    assert 8 < (shares > 0).sum() < 24
    assert shares.max() < 0.25 and shares[shares > 0].mean() > 0.12
    values = erased.permute(0, 2, 3, 1)[changed]
    if fill == "zero":
        assert (values == 0).all()
    elif fill == "mean":
        row = int(shares.argmax())
        inside = erased[row].permute(1, 2, 0)[changed[row]]
        torch.testing.assert_close(inside, images[row].mean((1, 2)).expand_as(inside))
    else:
        assert abs(values.mean() - 0.5) < 0.02 and abs(values.std() - 12**-0.5) < 0.02
