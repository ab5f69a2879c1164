"""Integrated gradients: the gradient on the way from a baseline to the image, times the way.

Source: Sundararajan et al. 2017 (arXiv 1703.01365), equation 3; by Gauss-Legendre quadrature, which needs
fewer steps than equal ones because logits change fastest near the baseline.
"""

import numpy as np
import torch

from patchword.errors import SettingsError
from patchword.explaining.methods.base import Job, Maps, Method, targets
from patchword.explaining.methods.patches import filled, images_at_once, to_patches
from patchword.explaining.methods.record import gradient_of


def integrated_gradients(job: Job) -> list[Maps]:
    """(x − x') ⊙ ∫ dy(x' + t (x − x'))/dx dt over t from 0 to 1, summed over the pixels and channels of each patch.

    x' is the fill: the mean colour, or the blurred image. The map sums to y(x) − y(x'); facts: "sum" over all pixels
    and that "difference", for the class logit y.
    """
    vit, images, classes = job.vit, job.images, targets(job)
    places, shares = quadrature(job.settings.steps, images)
    start = start_of(job)
    way = images - start
    at_once = images_at_once(vit, images, gradients=True)
    total = torch.zeros_like(images, dtype=torch.promote_types(images.dtype, torch.float32))
    for index in range(len(images)):
        for at, share in zip(torch.split(places, at_once), torch.split(shares, at_once), strict=True):
            points = start[index] + at[:, None, None, None] * way[index]
            _, grads = gradient_of(vit, points, classes[index].expand(len(points)))
            total[index] += (share[:, None, None, None] * grads).sum(0)
    found = way * total
    ends = vit(torch.cat((images, start))).gather(1, classes.repeat(2)[:, None])[:, 0]
    facts = {"sum": found.sum((1, 2, 3)), "difference": ends[: len(images)] - ends[len(images) :]}
    values = to_patches(found.sum(1), vit.config)
    return [Maps(label="integrated-gradients", values=values, signed=True, facts=facts)]


def start_of(job: Job) -> torch.Tensor:
    """The baselines [B, C, H, W]. Raises: SettingsError for a fill that does not give an image."""
    if job.settings.fill == "drop":
        raise SettingsError(
            "integrated methods cannot start from left-out tokens", "use fill mean or blur, or occlusion"
        )
    return filled(job.images, job.settings.fill, job.vit.config)


def quadrature(steps: int, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Places between 0 and 1, and the weight of each; the weights sum to 1."""
    places, weights = np.polynomial.legendre.leggauss(steps)
    return like.new_tensor((places + 1) / 2), like.new_tensor(weights / 2)


METHOD = Method(
    name="integrated-gradients",
    title="gradient from a baseline to the image",
    class_aware=True,
    run=integrated_gradients,
    passes=lambda config, settings: 3 * settings.steps,
    uses=frozenset({"steps", "fill"}),
)
