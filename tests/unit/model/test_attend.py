"""Attention written out for training in bfloat16 is the attention of the fused kernel."""

import pytest
import torch
import torch.nn.functional as F

from patchword.model.attention import attend


def _queries_keys_values() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 3, 9, 16, generator=generator) for _ in range(3)]


@pytest.mark.parametrize("with_bias", [False, True])
def test_answers_and_gradients_agree_to_the_rounding_of_bfloat16(with_bias: bool) -> None:
    bias = torch.linspace(-2, 2, 81).view(1, 1, 9, 9) if with_bias else None
    exact = [x.clone().requires_grad_() for x in _queries_keys_values()]
    rounded = [x.bfloat16().requires_grad_() for x in _queries_keys_values()]
    expected = F.scaled_dot_product_attention(*exact, attn_mask=bias)
    found = attend(*rounded, None if bias is None else bias.bfloat16(), 0.0)
    assert found.dtype == torch.bfloat16 and found.grad_fn is not None
    torch.testing.assert_close(found.float(), expected, atol=0.03, rtol=0.03)
    expected.square().sum().backward()
    found.float().square().sum().backward()
    for one, other in zip(exact, rounded, strict=True):
        assert one.grad is not None and other.grad is not None
        torch.testing.assert_close(other.grad.float(), one.grad, atol=0.15, rtol=0.1)


def test_dropout_leaves_weights_out() -> None:
    q, k, v = (x.bfloat16().requires_grad_() for x in _queries_keys_values())
    torch.manual_seed(0)
    dropped = attend(q, k, torch.ones_like(v), None, 0.5)
    assert not torch.allclose(dropped, torch.ones_like(dropped), atol=0.1)
