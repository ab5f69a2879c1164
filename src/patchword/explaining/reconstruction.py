"""Reconstructions of a masked autoencoder as images, with the loss next to trivial baselines."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from patchword.data.loader import Named
from patchword.errors import CheckpointError, DataError, ImageError
from patchword.explaining.subject import levels
from patchword.images.limits import MAX_PIXELS
from patchword.images.prepare import read
from patchword.images.preprocess import Preprocess
from patchword.images.stored import Pixels
from patchword.inference.failures import Failures
from patchword.model.baselines import baseline_errors
from patchword.model.mae import MAE, unpatchify
from patchword.model.reconstruct import reconstruct

# sRGB level of a hidden patch.
GREY = 128


@dataclass(frozen=True, kw_only=True)
class Reconstructed:
    """One image: its reconstructions as [H, W, C] uint8, and its loss.

    name: of the image. hidden: [rows, columns] of the patch grid, true where the model saw nothing.
    original: what the model was given, in its size. masked: the same, hidden patches grey.
    full: every patch as predicted from the visible ones. pasted: `full` in hidden patches, the original elsewhere.
    borrowed, borrowed_pasted: the same with the true mean and deviation of every patch; None if the model predicts pixels.
    losses: "model", and the baselines of `model.baselines` → mean squared error over the hidden patches, as in training.
    """

    name: str
    hidden: NDArray[np.bool_]
    original: Pixels
    masked: Pixels
    full: Pixels
    pasted: Pixels
    borrowed: Pixels | None
    borrowed_pasted: Pixels | None
    losses: dict[str, float]

    def numbers(self) -> dict[str, Any]:
        """Plain values for JSON."""
        counts = {"patches": self.hidden.size, "hidden": int(self.hidden.sum())}
        return {"file": self.name, **counts, "losses": self.losses}


def reconstruct_each(
    mae: MAE,
    preprocess: Preprocess,
    sources: Iterable[Named],
    *,
    mask_ratio: float | None = None,
    seed: int = 0,
    max_pixels: int = MAX_PIXELS,
    failures: Failures | None = None,
) -> Iterator[Reconstructed]:
    """Reconstruct each readable image, in order.

    failures: takes those that cannot be read; without it, the first of them is raised.
    mask_ratio: share of hidden patches; None for that of training. seed: with the file name of an image, it decides which
    patches are hidden, so the same image always gets the same mask.
    Raises: SettingsError if no patch would be visible, or none hidden; ImageError, DataError; CheckpointError
    for NaN or infinite values.
    """
    for source in sources:
        try:
            pixels = read(source.fetch(), preprocess, name=source.name, max_pixels=max_pixels)
        except (ImageError, DataError) as error:
            if failures is None:
                raise
            failures.add(source.name, error)
            continue
        yield _reconstructed(mae, preprocess, torch.from_numpy(pixels)[None], source.name, mask_ratio, seed)


def noise_of(name: str, seed: int, num_patches: int) -> Tensor:
    """Uniform noise [1, N] from the seed and the file name, without its folder: a moved image keeps its mask."""
    file = name.replace("\\", "/").rsplit("/", 1)[-1]
    digest = hashlib.sha256(f"{seed}:{file}".encode("utf-8", "surrogateescape")).digest()
    # A generator of torch takes 64 bits; the highest is the sign.
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    return torch.rand(1, num_patches, generator=generator)


def _reconstructed(
    mae: MAE, preprocess: Preprocess, image: Tensor, name: str, mask_ratio: float | None, seed: int
) -> Reconstructed:
    weight = mae.decoder.pred.weight
    image = image.to(weight.device, weight.dtype)
    mae.require_whole_patches(image)
    layout, size = mae.vit.layout(image), mae.vit.config.patch.size
    masking = mae.masking(noise_of(name, seed, layout.num_patches).to(image.device), mask_ratio)
    found = reconstruct(mae, image, masking)
    if not torch.isfinite(found.patches).all():
        raise CheckpointError(
            f"the model's reconstruction of {name} is NaN or infinite: its weights are broken",
            "use weights saved before training diverged",
        )
    patches = mae.patches(image.float())
    hidden = masking.mask[..., None] > 0

    def shown(values: Tensor) -> Pixels:
        return levels(unpatchify(values, size, layout.grid)[0], preprocess)

    def pasted(values: Tensor) -> Pixels:
        return shown(torch.where(hidden, values, patches))

    cells = hidden.reshape(layout.grid).cpu().numpy()
    original = levels(image[0].float(), preprocess)
    masked = original.copy()
    masked[cells.repeat(size[0], axis=0).repeat(size[1], axis=1)] = GREY
    errors = baseline_errors(image, masking, size, mae.config.norm_targets)
    return Reconstructed(
        name=name,
        hidden=cells,
        original=original,
        masked=masked,
        full=shown(found.patches),
        pasted=pasted(found.patches),
        borrowed=None if found.borrowed is None else shown(found.borrowed),
        borrowed_pasted=None if found.borrowed is None else pasted(found.borrowed),
        losses={"model": float(found.errors[0])} | {key: float(value[0]) for key, value in errors.items()},
    )


def mean_losses(losses: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean over images of `Reconstructed.losses`; empty without images."""
    return {name: sum(row[name] for row in losses) / len(losses) for name in losses[0]} if losses else {}
