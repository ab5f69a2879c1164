"""Whether a map depends on the weights: its rank correlation with that of a model whose weights are shuffled.

Source: Adebayo et al. 2018 (arXiv 1810.03292), section 3, the independent kind.
"""

import copy

import torch
from torch import Tensor

from patchword.model.vit import ViT


def shuffled(vit: ViT, seed: int = 0) -> ViT:
    """A copy in which the values of every parameter are shuffled: class token, positions, norms and LayerScale too.

    Shuffling keeps the scale of each parameter, so the copy is random but does not blow up.
    """
    other = copy.deepcopy(vit)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in other.parameters():
            order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
            parameter.copy_(parameter.flatten()[order].view_as(parameter))
    return other.eval()


def rank_correlation(first: Tensor, second: Tensor) -> Tensor:
    """Spearman's correlation of two maps [B, h, w], for each image: [B]. 0 if one of them is constant.

    Equal values share the mean of their ranks.
    """
    a, b = (_ranks(values.flatten(1).double()) for values in (first, second))
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    size = (a.square().sum(1) * b.square().sum(1)).sqrt()
    return torch.where(size > 0, (a * b).sum(1) / size.clamp(min=1e-30), torch.zeros_like(size))


def _ranks(values: Tensor) -> Tensor:
    below = (values[:, None, :] < values[:, :, None]).sum(2)
    equal = (values[:, None, :] == values[:, :, None]).sum(2)
    return below.double() + (equal - 1).double() / 2
