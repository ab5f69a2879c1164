"""Run a model and keep what its attention computed, with or without gradients."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from patchword.model.attention import Attended
from patchword.model.positions.layout import TokenLayout
from patchword.model.vit import ViT


class Record(NamedTuple):
    """seen: what the attention of each block computed; under the depth, that of an attention pool.

    answer: what the model returned, bit-equal to a plain call under the same conditions.
    """

    answer: Tensor
    layout: TokenLayout
    seen: dict[int, Attended]


def recorded(vit: ViT, images: Tensor) -> Record:
    """Run images [B, C, H, W] with the fused kernel and keep queries, keys and values."""
    seen: dict[int, Attended] = {}
    answer = vit(images, seen.__setitem__)
    return Record(answer, vit.layout(images), seen)


def with_gradients(
    vit: ViT, images: Tensor, classes: Tensor, of: Callable[[Record], Sequence[Tensor]]
) -> tuple[Record, list[Tensor]]:
    """The record, and the gradient of each image's class logit with respect to the tensors `of` it.

    Images do not influence each other, so the gradient of the sum holds each image's own.
    """
    with differentiable():
        # Copies: tensors that were made in inference mode cannot be recorded.
        found = recorded(vit, images.clone().requires_grad_())
        wanted = of(found)
        score = found.answer.gather(1, classes.clone()[:, None]).sum()
        grads = torch.autograd.grad(score, list(wanted), allow_unused=True, materialize_grads=True)
    seen = {index: _detached(attended) for index, attended in found.seen.items()}
    return Record(found.answer.detach(), found.layout, seen), list(grads)


def gradient_of(vit: ViT, images: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """The class logit of each image [B], and its gradient with respect to the image [B, C, H, W]."""
    with differentiable():
        x = images.clone().requires_grad_()
        logits = vit(x).gather(1, classes.clone()[:, None])[:, 0]
        (grad,) = torch.autograd.grad(logits.sum(), [x])
    return logits.detach(), grad


@contextmanager
def differentiable() -> Iterator[None]:
    """Record gradients, even inside torch's inference mode."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def _detached(attended: Attended) -> Attended:
    return Attended(*(part if part is None else part.detach() for part in attended))  # type: ignore[arg-type]


def attention_gradient(attended: Attended, grad: Tensor) -> Tensor:
    """dy/dA [B, H, n, N] from dy/dO `grad` [B, n, H d]: O = A V, so dy/dA = dy/dO Vᵀ.

    So the fused kernel, which stores no A, can stay on.
    """
    dtype = torch.promote_types(grad.dtype, torch.float32)
    heads = attended.values.shape[1]
    per_head = grad.view(*grad.shape[:2], heads, -1).transpose(1, 2)
    found: Tensor = per_head.to(dtype) @ attended.values.transpose(-2, -1).to(dtype)
    return found
