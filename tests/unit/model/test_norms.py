"""Each norm averages over exactly the axes that its docstring names."""

import pytest
import torch
from torch import Tensor

from patchword.model.kinds import (
    BatchNormConfig,
    GroupNormConfig,
    InstanceNormConfig,
    LayerNormConfig,
    Norm,
    RMSNormConfig,
)
from patchword.model.norms import make_norm

B, N, D, GROUPS = 5, 7, 12, 3
X = torch.randn(B, N, D, generator=torch.Generator().manual_seed(0)) * 3 + torch.arange(D)
# The axes of [batch, tokens, groups, channels of a group] that share one mean.
AXES: dict[str, tuple[Norm, tuple[int, ...]]] = {
    "layer": (LayerNormConfig(), (2, 3)),
    "batch": (BatchNormConfig(), (0, 1)),
    "group": (GroupNormConfig(num_groups=GROUPS), (1, 3)),
    "instance": (InstanceNormConfig(), (1,)),
}
kinds = pytest.mark.parametrize(("config", "axes"), AXES.values(), ids=list(AXES))


def grouped(x: Tensor) -> Tensor:
    return x.unflatten(-1, (GROUPS, D // GROUPS))


@kinds
def test_mean_is_0_and_variance_1_over_exactly_its_axes(config: Norm, axes: tuple[int, ...]) -> None:
    normed = grouped(make_norm(config, D)(X))
    assert normed.mean(axes).abs().max() < 1e-5
    assert (normed.var(axes, unbiased=False) - 1).abs().max() < 1e-3
    for axis in axes:
        fewer = tuple(a for a in axes if a != axis)
        if fewer:  # over a part of its axes the mean is not nought: nothing smaller is normed
            assert normed.mean(fewer).abs().max() > 1e-2


@kinds
def test_a_norm_is_the_formula_over_its_axes(config: Norm, axes: tuple[int, ...]) -> None:
    x = grouped(X)
    mean, variance = x.mean(axes, keepdim=True), x.var(axes, unbiased=False, keepdim=True)
    by_hand = ((x - mean) / (variance + config.eps).sqrt()).flatten(2)
    assert torch.allclose(make_norm(config, D)(X), by_hand, atol=1e-5)


def test_rms_norm_divides_by_the_root_mean_square_of_one_token() -> None:
    by_hand = X / (X.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    assert torch.allclose(make_norm(RMSNormConfig(), D)(X), by_hand, atol=1e-6)


@kinds
def test_changing_a_value_changes_what_shares_its_mean_and_nothing_else(
    config: Norm, axes: tuple[int, ...]
) -> None:
    norm = make_norm(config, D)
    changed = X.clone()
    changed[1, 2, 5] += 1  # image 1, token 2, group 1, channel 1 of the group
    moved = (grouped(norm(changed)) - grouped(norm(X))).abs() > 1e-7
    place = (1, 2, 1, 1)
    expected = torch.zeros_like(moved)
    expected[tuple(slice(None) if axis in axes else place[axis] for axis in range(4))] = True
    assert torch.equal(moved, expected)


def test_batch_norm_answers_with_running_statistics_in_eval() -> None:
    norm = make_norm(BatchNormConfig(momentum=1.0), D)
    norm(X)
    norm.eval()
    alone = norm(X[:1])
    assert torch.allclose(alone, norm(X)[:1], atol=1e-6)
    assert norm.running_mean is not None
    assert torch.allclose(torch.as_tensor(norm.running_mean), X.mean((0, 1)), atol=1e-5)


@pytest.mark.parametrize(
    "config", [LayerNormConfig(), RMSNormConfig(), BatchNormConfig(), GroupNormConfig(num_groups=3)]
)
def test_pooled_vectors_are_normed_as_a_single_token(config: Norm) -> None:
    norm = make_norm(config, D).eval()
    assert torch.allclose(norm(X[:, 0]), norm(X[:, :1])[:, 0], atol=1e-5)


@pytest.mark.parametrize("config", [GroupNormConfig(num_groups=D), InstanceNormConfig()])
def test_one_token_of_one_image_is_normed_as_among_others(config: Norm) -> None:
    """A single number shares its mean with nobody: nought, in a batch of any size."""
    norm = make_norm(config, D)
    for x in (X[:, :1], X[:1, :1]):
        assert norm(x).shape == x.shape and norm(x).abs().max() < 1e-3
