"""How much of a hidden patch is predicted, by a masked autoencoder and by fills that need no model.

Source: He et al. 2022 (arXiv 2111.06377).
"""

import torch
from torch import Tensor

from patchword.model.baselines import baseline_patches
from patchword.model.mae import MAE, rows_of


@torch.no_grad()
def explained(mae: MAE, images: Tensor, seed: int = 0) -> dict[str, float]:
    """R² over the hidden patches of images [B, C, H, W], about their mean colour: "model", "nearest" and "bilinear".

    1 is perfect, 0 is what a single colour for all of them reaches. The model must predict pixels (`norm_targets` false).
    """
    count = mae.vit.layout(images).num_patches
    noise = torch.rand(len(images), count, generator=torch.Generator().manual_seed(seed))
    masking = mae.masking(noise)
    truth = rows_of(mae.patches(images), masking.hidden).double()
    guesses = {"model": rows_of(mae.predict(images, masking), masking.hidden)}
    guesses |= baseline_patches(images, masking, mae.vit.config.patch.size)
    total = (truth - truth.mean()).square().sum()
    return {
        name: 1 - float((truth - guess.double()).square().sum() / total) for name, guess in guesses.items()
    }
