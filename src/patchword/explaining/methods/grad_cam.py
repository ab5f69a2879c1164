"""Grad-CAM on the tokens that an attention reads.

Source: Selvaraju et al. 2017 (arXiv 1610.02391), equations 1 and 2.
"""

from torch import Tensor

from patchword.explaining.methods.base import Job, Maps, Method, chosen, targets
from patchword.explaining.methods.record import with_gradients


def grad_cam(job: Job) -> list[Maps]:
    """(Σ_c a_c F_ic)⁺ with a_c the mean over patches of dy/dF_ic, F [N, D] the input of a block's attention.

    With a class token, patches after the last attention do not reach the answer: their gradient is zero. So F is read
    before it, after the block's first norm.
    """
    found = []
    for layer, features, grads in features_and_gradients(job):
        weights = grads.mean((1, 2), keepdim=True)
        found.append(Maps(label=f"grad-cam, block {layer}", values=(weights * features).sum(3).clamp(min=0)))
    return found


def features_and_gradients(job: Job) -> list[tuple[int, Tensor, Tensor]]:
    """For each layer: its number, and features and gradients of the patches, both [B, h, w, D]."""
    vit = job.vit
    layers = chosen(job.settings.layers, vit.config.depth, "layer", vit.config.depth - 1)
    record, grads = with_gradients(
        vit, job.images, targets(job), lambda record: [record.seen[layer].tokens for layer in layers]
    )
    return [
        (
            layer,
            vit.split(record.seen[layer].tokens, record.layout)["patches"],
            vit.split(grad, record.layout)["patches"],
        )
        for layer, grad in zip(layers, grads, strict=True)
    ]


METHOD = Method(
    name="grad-cam",
    title="features weighted by their mean gradient",
    class_aware=True,
    run=grad_cam,
    passes=lambda config, settings: 3,
    uses=frozenset({"layers"}),
)
