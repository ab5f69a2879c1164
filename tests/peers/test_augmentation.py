"""Against torchvision: each operation of a policy gives the same image for the same magnitude.

Images are photographs with values in 0..1. The tolerance is 1e-3 where luma is involved (torchvision's weights are 0.2989,
0.587 and 0.114, ours those of the standard), one level of 256 for equalisation, else 1e-5.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import timm.data.auto_augment as published
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode, functional

from patchword.training.augment.policy import Step, apply_steps, draw_steps
from patchword.training.augment.settings import RandAugment, ThreeAugment, TrivialAugment
from patchword.training.chance import Draws

pytestmark = pytest.mark.peers
SIZE = (48, 64)
BILINEAR: dict[str, Any] = {"interpolation": InterpolationMode.BILINEAR}
NO_AFFINE: dict[str, Any] = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0], **BILINEAR}


def photos() -> Tensor:
    """[6, 3, 48, 64] in 0..1: parts of two photographs, some of them dark."""
    cuts = []
    for photo in load_sample_images().images:
        whole = torch.from_numpy(photo.copy()).permute(2, 0, 1)[None].float() / 255
        small = torch.nn.functional.interpolate(whole, scale_factor=0.3, mode="bilinear", antialias=True)
        cuts += [small[..., y : y + 48, x : x + 64] for y, x in ((0, 0), (40, 70), (70, 20))]
    images = torch.cat(cuts)
    images[2] *= 0.4
    return images


def degrees(tangent: float) -> float:
    return math.degrees(math.atan(tangent))


def shear(image: Tensor, x: float, y: float) -> Tensor:
    kwargs = {**NO_AFFINE, "shear": [degrees(x), degrees(y)], "center": [0, 0]}
    return functional.affine(image, **kwargs)


def shift(image: Tensor, x: float, y: float) -> Tensor:
    return functional.affine(image, **{**NO_AFFINE, "translate": [x * SIZE[1], y * SIZE[0]]})


PEERS: dict[str, tuple[list[float], float, Callable[[Tensor, float], Tensor]]] = {
    "brightness": ([0.01, 0.4, 1.9], 1e-5, functional.adjust_brightness),
    "colour": ([0.0, 0.4, 1.99], 1e-3, functional.adjust_saturation),
    "contrast": ([0.01, 0.6, 1.99], 1e-3, functional.adjust_contrast),
    "invert": ([0.0], 1e-5, lambda image, _: functional.invert(image)),
    "sharpness": ([0.01, 0.5, 1.99], 1e-5, functional.adjust_sharpness),
    "posterise": ([2.0, 3.0, 4.0, 7.0], 1e-5, lambda image, bits: functional.posterize(image, int(bits))),
    "solarise": ([0.0, 0.4, 1.0], 1e-5, functional.solarize),
    "autocontrast": ([0.0], 1e-5, lambda image, _: functional.autocontrast(image)),
    "equalise": ([0.0], 1.01 / 255, lambda image, _: functional.equalize(image)),
    "blur": (
        [0.1, 0.7, 2.0],
        1e-5,
        lambda image, sigma: functional.gaussian_blur(image, [2 * math.ceil(3 * sigma) + 1] * 2, [sigma]),
    ),
    "shear_x": ([-0.3, 0.2], 1e-4, lambda image, value: shear(image, value, 0)),
    "shear_y": ([-0.3, 0.2], 1e-4, lambda image, value: shear(image, 0, value)),
    "translate_x": ([-0.25, 0.5], 1e-4, lambda image, value: shift(image, value, 0)),
    "translate_y": ([-0.25, 0.5], 1e-4, lambda image, value: shift(image, 0, value)),
    "rotate": ([-30.0, 75.0], 1e-4, lambda image, value: functional.rotate(image, value, **BILINEAR)),
}


@pytest.mark.parametrize("name", PEERS)
def test_an_operation_gives_the_image_of_torchvision(name: str) -> None:
    images = photos()
    amounts, tolerance, peer = PEERS[name]
    for amount in amounts:
        ours, _ = apply_steps(images, [Step([name] * 6, torch.full((6,), amount))], fill=0.0)
        theirs = torch.stack([peer(image, amount) for image in images])
        torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=0)


def test_the_policies_have_the_operations_and_amounts_of_the_publications() -> None:
    draws = Draws(0, 0, np.arange(4000))
    steps = draw_steps(RandAugment(noise=0.0, probability=1.0), SIZE, draws.stream("a"))
    assert len(steps) == 2
    (trivial,) = draw_steps(TrivialAugment(), SIZE, draws)
    (three,) = draw_steps(ThreeAugment(), SIZE, draws)
    assert set(three.names) == {"colour", "solarise", "blur"}
    spans = {name: span(steps[0], name) for name in set(steps[0].names)}
    assert len(spans) == len(published._RAND_INCREASING_TRANSFORMS)
    hparams = {"translate_pct": 0.45}
    for name, theirs, scale in (
        ("rotate", "Rotate", 1),
        ("posterise", "PosterizeIncreasing", 1),
        ("solarise", "SolarizeIncreasing", 255),
        ("solarise_add", "SolarizeAdd", 255),
        ("colour", "ColorIncreasing", 1),
        ("sharpness", "SharpnessIncreasing", 1),
        ("shear_x", "ShearX", 1),
        ("translate_y", "TranslateYRel", 1),
    ):
        asked = {published.LEVEL_TO_ARG[theirs](9, hparams)[0] for _ in range(40)}
        np.testing.assert_allclose(spans[name], (min(asked) / scale, max(asked) / scale), rtol=1e-5)
    wide = {"rotate": 135, "shear_y": 0.99, "translate_x": 0.5, "translate_y": 32 / 48}
    for name, most in wide.items():
        np.testing.assert_allclose(span(trivial, name), (-most, most), rtol=1e-6)
    assert span(trivial, "posterise") == (2, 8) and span(trivial, "solarise") == (0, 1)
    assert len(set(trivial.names)) == 14


def span(step: Step, name: str) -> tuple[float, float]:
    values = [float(v) for v, n in zip(step.amount, step.names, strict=True) if n == name]
    return min(values), max(values)


def test_adding_before_solarising_gives_the_image_of_timm() -> None:
    bytes_ = (photos() * 255).round().to(torch.uint8)
    ours, _ = apply_steps(bytes_.float() / 255, [Step(["solarise_add"] * 6, torch.full((6,), 99 / 255))], 0.0)
    for image, mine in zip(bytes_, ours, strict=True):
        theirs = published.solarize_add(Image.fromarray(image.permute(1, 2, 0).numpy()), 99)
        np.testing.assert_allclose(mine.permute(1, 2, 0) * 255, np.asarray(theirs), atol=1e-3)
