"""Gradient times activation, patch by patch: Grad-CAM without its mean over patches."""

from patchword.explaining.methods.base import Job, Maps, Method
from patchword.explaining.methods.grad_cam import features_and_gradients


def gradient_activation(job: Job) -> list[Maps]:
    """(Σ_c F_ic · dy/dF_ic)⁺, F the input of a block's attention: how much the logit rests on each patch there."""
    return [
        Maps(label=f"gradient-activation, block {layer}", values=(features * grads).sum(3).clamp(min=0))
        for layer, features, grads in features_and_gradients(job)
    ]


METHOD = Method(
    name="gradient-activation",
    title="features times their own gradient",
    class_aware=True,
    run=gradient_activation,
    passes=lambda config, settings: 3,
    uses=frozenset({"layers"}),
)
