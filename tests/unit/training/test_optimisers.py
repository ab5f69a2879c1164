"""Optimisers and schedules by what they promise."""

import copy
import math

import pytest
import torch
from torch import Tensor

from patchword.errors import SettingsError
from patchword.model.vit import ViT
from patchword.training.optim import make_optimiser
from patchword.training.optim_settings import Method, OptimSettings, effective_lr
from patchword.training.optimiser import Optimiser
from patchword.training.schedule import ScheduleSettings, cooldown_start, extended, lr_factor
from support.rich import RICH

METHODS: tuple[Method, ...] = ("adamw", "sgd", "lamb", "lars", "muon")


def _made(method: Method, nesterov: bool = False) -> tuple[ViT, Optimiser]:
    vit = ViT(RICH, torch.Generator().manual_seed(0))
    settings = OptimSettings(method=method, lr=0.01, weight_decay=0.1, nesterov=nesterov)
    return vit, make_optimiser(vit, settings)


def _give_gradients(vit: ViT, seed: int) -> None:
    drawn = torch.Generator().manual_seed(seed)
    for parameter in vit.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=drawn)


def _bits(vit: ViT, optimiser: Optimiser) -> list[Tensor]:
    state = [t.clone() for s in optimiser.state_dict()["state"].values() for t in s.values()]
    return [p.detach().clone() for p in vit.parameters()] + state


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("first", [True, False])
def test_a_step_that_is_not_finite_changes_nothing(method: Method, first: bool) -> None:
    vit, optimiser = _made(method)
    if not first:
        _give_gradients(vit, 1)
        optimiser.step(found_inf=torch.zeros(()))
    before = _bits(vit, optimiser)
    _give_gradients(vit, 2)
    for parameter in vit.parameters():
        assert parameter.grad is not None
        parameter.grad.view(-1)[0] = math.nan
    optimiser.step(found_inf=torch.ones(()))
    after = _bits(vit, optimiser)
    assert all(torch.equal(a, b) for a, b in zip(before, after[: len(before)], strict=True))
    assert not any(t.any() for t in after[len(before) :]), "state made by a skipped step is zero"
    _give_gradients(vit, 3)
    optimiser.step(found_inf=torch.zeros(()))
    assert all(p.isfinite().all() for p in vit.parameters())
    assert not torch.equal(vit.head.weight, before[list(dict(vit.named_parameters())).index("head.weight")])


@pytest.mark.parametrize("method", METHODS)
def test_a_restored_optimiser_goes_on_in_the_same_bits(method: Method) -> None:
    whole, first = _made(method)
    for seed in range(2):
        _give_gradients(whole, seed)
        first.step()
    again, second = _made(method)
    again.load_state_dict(whole.state_dict())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for vit, optimiser in ((whole, first), (again, second)):
        _give_gradients(vit, 2)
        optimiser.step(found_inf=torch.zeros(()))
    pairs = zip(_bits(whole, first), _bits(again, second), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_is_torchs(nesterov: bool) -> None:
    vit, mine = _made("sgd", nesterov)
    theirs = copy.deepcopy(vit)
    names = {id(p): name for name, p in vit.named_parameters()}
    other = dict(theirs.named_parameters())
    groups = [
        {"params": [other[names[id(p)]] for p in g["params"]], "weight_decay": g["weight_decay"]}
        for g in mine.param_groups
    ]
    reference = torch.optim.SGD(groups, lr=0.01, momentum=0.9, nesterov=nesterov, fused=True)
    for seed in range(3):
        _give_gradients(vit, seed)
        _give_gradients(theirs, seed)
        mine.step(found_inf=torch.zeros(()))
        reference.step()
    assert all(torch.equal(a, b) for a, b in zip(vit.parameters(), theirs.parameters(), strict=True))


def test_lamb_is_its_papers_algorithm() -> None:
    vit, optimiser = _made("lamb")
    decayed = {id(p) for g in optimiser.param_groups if g["weight_decay"] for p in g["params"]}
    expected = [p.detach().double() for p in vit.parameters()]
    means = [torch.zeros_like(p) for p in expected]
    squares = [torch.zeros_like(p) for p in expected]
    for step in range(1, 4):
        _give_gradients(vit, step)
        for i, parameter in enumerate(vit.parameters()):
            assert parameter.grad is not None
            gradient = parameter.grad.double()
            means[i] = 0.9 * means[i] + 0.1 * gradient
            squares[i] = 0.999 * squares[i] + 0.001 * gradient**2
            update = means[i] / (1 - 0.9**step) / ((squares[i] / (1 - 0.999**step)).sqrt() + 1e-6)
            trust = 1.0
            if id(parameter) in decayed:
                update = update + 0.1 * expected[i]
                trust = float(expected[i].norm() / update.norm())
            expected[i] = expected[i] - 0.01 * trust * update
        optimiser.step(found_inf=torch.zeros(()))
    for parameter, value in zip(vit.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.detach().double(), value, rtol=1e-4, atol=1e-6)


def test_lars_is_its_papers_algorithm() -> None:
    vit, optimiser = _made("lars")
    decay = {id(p): g["weight_decay"] for g in optimiser.param_groups for p in g["params"]}
    expected = [p.detach().double() for p in vit.parameters()]
    buffers = [torch.zeros_like(p) for p in expected]
    for step in range(1, 4):
        _give_gradients(vit, step)
        for i, parameter in enumerate(vit.parameters()):
            assert parameter.grad is not None
            update = parameter.grad.double()
            if parameter.ndim > 1:
                update = update + decay[id(parameter)] * expected[i]
                if expected[i].norm() > 0:
                    update = update * 0.001 * expected[i].norm() / update.norm()
            buffers[i] = 0.9 * buffers[i] + update
            expected[i] = expected[i] - 0.01 * buffers[i]
        optimiser.step(found_inf=torch.zeros(()))
    for parameter, value in zip(vit.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.detach().double(), value, rtol=1e-4, atol=1e-6)


def test_a_rate_for_256_images_becomes_that_of_the_batch() -> None:
    for rule, factor in (("none", 1.0), ("linear", 4.0), ("sqrt", 2.0)):
        settings = OptimSettings(lr=1e-3, lr_rule=rule)  # type: ignore[arg-type]
        rate, why = effective_lr(settings, 1024)
        assert rate == pytest.approx(1e-3 * factor) and f"{rate:g}" in why and why.endswith(".")
    with pytest.raises(SettingsError, match="nesterov"):
        OptimSettings(method="sgd", momentum=0, nesterov=True)


@pytest.mark.parametrize("kind", ["cosine", "linear", "constant"])
@pytest.mark.parametrize("cooldown", ["1-sqrt", "linear"])
def test_each_schedule_reaches_its_peak_and_ends_at_its_share(kind: str, cooldown: str) -> None:
    settings = ScheduleSettings(
        shape=kind,  # type: ignore[arg-type]
        epochs=10,
        warmup_epochs=1,
        final_lr=0.1,
        cooldown_shape=cooldown,  # type: ignore[arg-type]
    )
    shares = [lr_factor(step, 7, settings) for step in range(71)]
    assert max(shares) == pytest.approx(1.0) and shares[-1] == pytest.approx(0.1)
    assert shares[7:] == sorted(shares[7:], reverse=True)
    flat = sum(share == pytest.approx(1.0) for share in shares)
    assert flat == (50 if kind == "constant" else 1)


def test_a_constant_run_made_longer_has_the_same_rates_until_its_old_cooldown() -> None:
    for warmup in (1.0, 9.0):
        settings = ScheduleSettings(shape="constant", epochs=10, warmup_epochs=warmup)
        longer = extended(settings, 25)
        start = math.floor(cooldown_start(13, settings))
        assert 100 < start < 110
        assert all(lr_factor(s, 13, longer) == lr_factor(s, 13, settings) for s in range(start + 1))
        assert lr_factor(120, 13, longer) == 1.0 > lr_factor(120, 13, settings)
        assert lr_factor(25 * 13, 13, longer) == pytest.approx(settings.final_lr)


def test_what_cannot_be_extended_says_so() -> None:
    for settings, epochs in (
        (ScheduleSettings(), 200),
        (ScheduleSettings(shape="linear"), 200),
        (ScheduleSettings(shape="constant", epochs=20), 20),
    ):
        with pytest.raises(SettingsError) as refused:
            extended(settings, epochs)
        assert len(str(refused.value).splitlines()) == 2
