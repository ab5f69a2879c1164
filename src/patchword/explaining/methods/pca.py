"""Principal components of patch features as colours.

Source: Oquab et al. 2023 (arXiv 2304.07193), figure 1.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from patchword.explaining.methods.base import Job, Maps, Method, chosen
from patchword.explaining.methods.outliers import outlying
from patchword.explaining.settings import MethodSettings
from patchword.model.vit import ViT

# A component fills the range of a colour from -2 to 2 standard deviations.
_REACH = 2.0


class Basis(NamedTuple):
    """Of one layer: the mean [D] of the patches of all images, components [D, 3], their deviations [3] and shares of the variance [3]."""

    mean: Tensor
    components: Tensor
    deviations: Tensor
    shares: Tensor


def fit(vit: ViT, batches: Iterable[Tensor], settings: MethodSettings) -> dict[int, Basis]:
    """The first three components of the patches of all images together, for each layer.

    Patches with outlying norms are left out, because they would take the first component. Signs are arbitrary; the
    largest loading of each component is made positive, so the same images always get the same colours.
    """
    layers = chosen(settings.layers, vit.config.depth, "layer", vit.config.depth - 1)
    sums: dict[int, list[Tensor]] = {}
    for images in batches:
        for layer, (raw, normed) in _features(vit, images, layers).items():
            kept = normed[~outlying(raw.norm(dim=-1))].double()
            parts = [torch.tensor(float(len(kept)), device=kept.device), kept.sum(0), kept.T @ kept]
            sums[layer] = [a + b for a, b in zip(sums[layer], parts, strict=True)] if layer in sums else parts
    return {layer: _basis(*parts) for layer, parts in sums.items()}


def _basis(count: Tensor, total: Tensor, products: Tensor) -> Basis:
    mean = total / count
    variances, vectors = torch.linalg.eigh(products / count - mean[:, None] * mean)
    variances, vectors = variances.flip(0).clamp(min=0), vectors.flip(1)
    first = vectors[:, :3]
    largest = first.gather(0, first.abs().argmax(0, keepdim=True))
    everything = variances.sum().clamp(min=torch.finfo(variances.dtype).tiny)
    return Basis(mean, first * largest.sign(), variances[:3].sqrt(), variances[:3] / everything)


def pca(job: Job) -> list[Maps]:
    """Colours [B, h, w, 3] from 0 to 1: the first three components, of the images that `fit` saw, or of the batch.

    The features are patch tokens after the block and the final norm. facts: each component's share of the variance.
    """
    vit = job.vit
    basis = job.fitted or fit(vit, [job.images], job.settings)
    found = []
    for layer, (_, features) in _features(vit, job.images, list(basis)).items():
        own = basis[layer]
        components = (features.double() - own.mean) @ own.components
        width = (2 * _REACH * own.deviations).clamp(min=torch.finfo(components.dtype).tiny)
        colours = (components / width + 0.5).clamp(0, 1)
        shares = {f"variance_{i + 1}": share.expand(len(colours)) for i, share in enumerate(own.shares)}
        if colours.shape[3] < 3:  # features of fewer than three channels
            colours = torch.nn.functional.pad(colours, (0, 3 - colours.shape[3]), value=0.5)
        found.append(Maps(label=f"pca, block {layer}", values=colours.float(), facts=shares))
    return found


def _features(vit: ViT, images: Tensor, layers: list[int]) -> dict[int, tuple[Tensor, Tensor]]:
    """{layer: patches [B, h, w, D] as they leave the block, and after the final norm}"""
    layout = vit.layout(images)
    found = vit.encode(images, layers, normed=False)
    return {
        layer: (vit.split(raw, layout)["patches"], vit.split(vit.norm(raw), layout)["patches"])
        for layer, raw in found.items()
    }


METHOD = Method(
    name="pca",
    title="main components of patch features as colours",
    class_aware=False,
    scored=False,
    run=pca,
    passes=lambda config, settings: 2,
    uses=frozenset({"layers"}),
    fit=fit,
)
