"""Whichever product is taken, the answers and gradients are those of torch's own linear layer."""

import pytest
import torch
import torch.nn.functional as F

from patchword.model import linear as module
from patchword.model.linear import Linear, linear, linear_gelu

has_onednn = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


@pytest.fixture(
    params=[False, True] if has_onednn else [False], ids=["torch's", "oneDNN's"][: 1 + has_onednn]
)
def product(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Both ways on every machine that has them, whichever is the faster there."""
    monkeypatch.setattr(module, "onednn_is_faster", lambda: request.param)
    return bool(request.param)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(3, 40, 12), (40, 12), (2, 3, 20, 12), (1, 12), (0, 12)])
def test_answers_are_those_of_torch(product: bool, shape: tuple[int, ...], bias: bool) -> None:
    layer, x = Linear(12, 20, bias=bias), torch.randn(shape)
    expected = F.linear(x, layer.weight, layer.bias)
    assert torch.allclose(layer(x), expected, atol=1e-6)
    with torch.no_grad():
        assert torch.allclose(layer(x), expected, atol=1e-6)
        for form in ("none", "tanh"):
            activated = linear_gelu(x, layer.weight, layer.bias, form)
            assert torch.allclose(activated, F.gelu(expected, approximate=form), atol=1e-5)


def test_gradients_are_those_of_torch_once_and_twice(product: bool) -> None:
    tensors = torch.randn(2, 20, 12), torch.randn(6, 12), torch.randn(6)

    def gradients(function: object) -> list[torch.Tensor]:
        x, w, b = (t.clone().requires_grad_() for t in tensors)
        assert callable(function)
        once = torch.autograd.grad(function(x, w, b).pow(3).mean(), (x, w, b), create_graph=True)
        twice = torch.autograd.grad(sum(g.square().sum() for g in once), (x, w, b))
        return [*once, *twice]

    for ours, theirs in zip(gradients(linear), gradients(F.linear), strict=True):
        # Of the largest: where large terms cancel, a small number has the error of the terms.
        assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


def test_a_frozen_layer_costs_no_gradient(product: bool) -> None:
    layer = Linear(12, 6).requires_grad_(False)
    x = torch.randn(2, 20, 12, requires_grad=True)
    layer(x).sum().backward()
    assert layer.weight.grad is None and x.grad is not None


def test_autocast_and_half_weights_are_left_to_torch(product: bool) -> None:
    layer, x = Linear(12, 6), torch.randn(2, 20, 12)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    assert layer.double()(x.double()).dtype == torch.float64


def test_functional_transforms_and_export_work(product: bool) -> None:
    layer, x = Linear(12, 6), torch.randn(4, 20, 12)
    each = torch.func.vmap(layer)(x)
    assert torch.allclose(each, layer(x), atol=1e-6)
    exported = torch.export.export(layer, (x,)).module()
    assert torch.allclose(exported(x), layer(x), atol=1e-6)
