"""From a masked autoencoder's prediction to pixels, with and without the help of the truth.

Shapes: B images, N patches, V values per patch.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from patchword.model.baselines import fill, nearest_visible
from patchword.model.mae import MAE, TARGET_EPS, Masking, rows_of
from patchword.model.positions.layout import Grid


class Reconstruction(NamedTuple):
    """All patches as predicted, [B, N, V], in the units of the model's input.

    patches: from the visible patches alone. borrowed: with the true mean and deviation of each patch; None if the model
    predicts pixels. errors: of each image over its hidden patches, [B], in the units of the loss of `MAE`.
    """

    patches: Tensor
    borrowed: Tensor | None
    errors: Tensor


@torch.no_grad()
def reconstruct(mae: MAE, images: Tensor, masking: Masking) -> Reconstruction:
    """Predict every patch of images [B, C, H, W].

    Under normalised targets the model does not say how bright a patch is, nor how much contrast it has: it predicts
    (pixel - mean) / deviation. The source's demo takes both from the true patch (`borrowed`). `patches` takes them from
    the visible patches: interpolated for a hidden patch, its own for a visible one.
    """
    predicted = mae.predict(images, masking).float()
    patches = mae.patches(images.float())
    errors = (predicted - mae.targets(patches)).square().mean(dim=-1)
    errors = errors.gather(1, masking.hidden).mean(dim=1)
    if not mae.config.norm_targets:
        return Reconstruction(predicted, None, errors)
    variance, mean = torch.var_mean(patches, dim=-1)
    true = torch.stack((mean, (variance + TARGET_EPS).sqrt()), dim=1)
    seen = seen_statistics(true, masking, mae.vit.layout(images).grid)
    return Reconstruction(_applied(predicted, seen), _applied(predicted, true), errors)


def seen_statistics(values: Tensor, masking: Masking, grid: Grid) -> Tensor:
    """Values of each patch [B, n, N] where it is visible; interpolated from those where it is hidden (`baselines.fill`)."""
    rows, columns = grid
    known = masking.mask == 0
    filled, reached = fill(values.reshape(len(values), -1, rows, columns), known.reshape(-1, rows, columns))
    nearest = values.mT.scatter(
        1,
        masking.hidden[..., None].expand(-1, -1, values.shape[1]),
        rows_of(values.mT, nearest_visible(masking, grid)),
    ).mT
    return torch.where(reached.reshape(len(values), 1, -1), filled.flatten(2), nearest)


def _applied(predicted: Tensor, statistics: Tensor) -> Tensor:
    mean, deviation = statistics.unbind(dim=1)
    return predicted * deviation[..., None] + mean[..., None]
