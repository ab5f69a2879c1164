"""Integrated gradients: the gradient on the way from a baseline to the image, times the way.

Source: Sundararajan et al. 2017 (arXiv 1703.01365), equation 3, by the midpoint rule.
"""

import torch

from patchword.errors import SettingsError
from patchword.explain.methods.base import Job, Maps, Method, targets
from patchword.explain.methods.patches import filled, images_at_once, to_patches
from patchword.explain.methods.record import gradient_of


def integrated_gradients(job: Job) -> list[Maps]:
    """(x − x') ⊙ mean of dy/dx on the line from x' to x, summed over the pixels and channels of each patch.

    x' is the fill: the mean colour, or the blurred image. The map sums to y(x) − y(x'); facts: "sum" over all pixels
    and that "difference", for the class logit y.
    """
    vit, images, classes = job.vit, job.images, targets(job)
    if job.settings.fill == "drop":
        raise SettingsError(
            "integrated gradients cannot start from left-out tokens", "use fill mean or blur, or occlusion"
        )
    steps = job.settings.steps
    start = filled(images, job.settings.fill, vit.config)
    way = images - start
    at_once = images_at_once(vit, images, gradients=True)
    total = torch.zeros_like(images, dtype=torch.promote_types(images.dtype, torch.float32))
    for index in range(len(images)):
        for first in range(0, steps, at_once):
            shares = (torch.arange(first, min(first + at_once, steps), device=images.device) + 0.5) / steps
            points = start[index] + shares.to(images.dtype)[:, None, None, None] * way[index]
            _, grads = gradient_of(vit, points, classes[index].expand(len(points)))
            total[index] += grads.sum(0)
    found = way * total / steps
    ends = vit(torch.cat((images, start))).gather(1, classes.repeat(2)[:, None])[:, 0]
    facts = {"sum": found.sum((1, 2, 3)), "difference": ends[: len(images)] - ends[len(images) :]}
    values = to_patches(found.sum(1), vit.config)
    return [Maps(label="integrated-gradients", values=values, signed=True, facts=facts)]


METHOD = Method(
    name="integrated-gradients",
    title="gradient from a baseline to the image",
    class_aware=True,
    run=integrated_gradients,
    passes=lambda config, settings: 3 * settings.steps,
    uses=frozenset({"steps", "fill"}),
)
