"""How large the gradient of each block is before training.

Source: Xiong et al. 2020 (arXiv 2002.04745): with post-norm it is large near the output at the start, hence the warm-up.
"""

from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from patchword.model.config import ViTConfig
from patchword.model.vit import ViT


def gradient_norms(
    config: ViTConfig,
    order: Literal["pre", "post", "res_post"],
    depth: int,
    images: Tensor,
    labels: Tensor,
    seed: int = 0,
) -> list[float]:
    """The Euclidean norm of the loss's gradient with respect to the weights of each block, first block first.

    config: of a classifier; `order` and `depth` replace its own. images [B, C, H, W]; labels [B]. Weights are random, by
    the seed. Raises: SettingsError if such a model cannot be built.
    """
    config = replace(config, depth=depth, block=replace(config.block, order=order))
    vit = ViT(config, torch.Generator().manual_seed(seed))
    weights = [list(block.parameters()) for block in vit.blocks]
    loss = F.cross_entropy(vit(images), labels)
    gradients = iter(torch.autograd.grad(loss, [weight for block in weights for weight in block]))
    return [sum(float(next(gradients).square().sum()) for _ in block) ** 0.5 for block in weights]
