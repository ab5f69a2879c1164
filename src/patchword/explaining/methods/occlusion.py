"""Occlusion: how much the class logit falls without a patch.

Source: Zeiler & Fergus 2014 (arXiv 1311.2901), section 2.1, with a patch as the window.
"""

import torch
from torch import Tensor

from patchword.explaining.methods.base import Job, Maps, Method, targets
from patchword.explaining.methods.patches import filled, images_at_once, to_pixels, without_patches
from patchword.explaining.settings import Fill
from patchword.model.vit import ViT


def occlusion(job: Job) -> list[Maps]:
    """y(x) − y(x without patch i) for each patch. fill: what it shows instead, or "drop" to leave its token out.

    Leaving out invents no pixels, and a ViT can do without a token.
    """
    vit, classes = job.vit, targets(job)
    whole = vit(job.images).gather(1, classes[:, None])
    found = []
    for index in range(len(job.images)):
        image, target = job.images[index : index + 1], classes[index]
        found.append(_without_each(vit, image, target, job.settings.fill))
    values = (whole - torch.stack(found)).unflatten(1, vit.layout(job.images).grid)
    return [Maps(label="occlusion", values=values, signed=True)]


def _without_each(vit: ViT, image: Tensor, target: Tensor, fill: Fill) -> Tensor:
    """The class logit without patch i, [patches]; image [1, C, H, W]."""
    grid = vit.layout(image).grid
    patches = grid[0] * grid[1]
    everything = torch.arange(patches, device=image.device)
    replaced = None if fill == "drop" else filled(image, fill, vit.config)
    logits = []
    for left in torch.split(everything, images_at_once(vit, image)):
        many = image.expand(len(left), -1, -1, -1)
        if replaced is None:
            kept = torch.stack([torch.cat((everything[:i], everything[i + 1 :])) for i in left.tolist()])
            answer = without_patches(vit, many, kept)
        else:
            hidden = torch.nn.functional.one_hot(left, patches).view(-1, 1, *grid).to(image.dtype)
            mask = to_pixels(hidden, image.shape, vit.config)
            answer = vit(many + mask * (replaced - image))
        logits.append(answer[:, target])
    return torch.cat(logits)


METHOD = Method(
    name="occlusion",
    title="fall of the logit without a patch",
    class_aware=True,
    run=occlusion,
    passes=lambda config, settings: config.grid_size[0] * config.grid_size[1],
    uses=frozenset({"fill"}),
)
