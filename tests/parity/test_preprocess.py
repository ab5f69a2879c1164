"""Every recorded preprocessing of the originals: the same picture must become the same pixels.

A small case of each kind is committed; PATCHWORD_CASES names a folder that holds all of them.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from patchword.images.geometry import Border, Capped, Patches, ResizeRule, Shorter, Squash
from patchword.images.prepare import read
from patchword.images.preprocess import Preprocess, Reading, Resample
from patchword.settings import from_plain, to_plain

COMMITTED = Path(__file__).parents[1] / "data" / "parity" / "preprocess"
FOLDERS = [COMMITTED] + [Path(named) for named in [os.environ.get("PATCHWORD_CASES")] if named]
CASES = sorted(
    case for folder in FOLDERS for case in folder.glob("*preprocess*") if (case / "io.npz").exists()
)


def _shorter(size: int, config: dict[str, Any], **how: Any) -> Shorter:
    return Shorter(size=size, crop="floor" if "processor" in config else "round", **how)


def rule_of(config: dict[str, Any]) -> ResizeRule:
    size = config.get("size", {})
    shorter, longest = config.get("shorter"), config.get("longest")
    if "longest_edge" in size:
        multiple = 16 if "Yolos" in config["processor"] else 1
        return Capped(
            shorter=size["shortest_edge"], longest=size["longest_edge"], longer="exact", multiple=multiple
        )
    if longest:
        return Capped(shorter=shorter, longest=longest, multiple=config.get("multiple", 1))
    if "patch" in config:
        most = config.get("max_patches") or config["max_num_patches"]
        return Patches(patch=(config["patch"], config["patch"]), max_patches=most)
    if "area" in config["resize"]:
        return Shorter(size=int(config["resize"].split()[-1]), longer="half-even", crop="floor")
    if config.get("crop_mode") == "border":
        return Border(size=tuple(config["scale_size"]))
    if config.get("crop_mode") == "center":
        return _shorter(min(config["scale_size"]), config)
    if "shortest_edge" in size:
        return _shorter(size["shortest_edge"], config)
    if shorter or "resize_size" in config:
        return _shorter(shorter or config["resize_size"], config)
    if "height" in size:
        return Squash(size=(size["height"], size["width"]), crop="floor")
    return Squash(size=tuple(config["output"]))


def preprocess_of(config: dict[str, Any], origin: str) -> Preprocess:
    name = config["resize"].split()[0].rstrip(",")
    stays_float = "rounding" in config and config["rounding"] is None
    stays_float = stays_float or config.get("processor") == "DINOv3ViTImageProcessor"
    rounding = "truncate" if config.get("rounding") == "truncate" else "none" if stays_float else "uint8"
    if config.get("squash"):  # the README of DINOv3: torchvision on an 8-bit tensor
        rounding = "torch-uint8"
    return Preprocess(
        image_size=tuple(config["output"]),
        resize=rule_of(config),
        resample=Resample(interpolation=name, antialias=config["antialias"], rounding=rounding),
        mean=tuple(config.get("mean", (0.5,))),
        std=tuple(config.get("std", (0.5,))),
        reading=Reading(apply_exif=origin == "transformers"),
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_pixels_equal_the_originals(case: Path) -> None:
    meta = json.loads((case / "meta.json").read_text())
    config = meta["config"]
    preprocess = preprocess_of(config, meta["origin"])
    preprocess = from_plain(Preprocess, json.loads(json.dumps(to_plain(preprocess))))
    pixels = read(case / config["file"], preprocess)
    with np.load(case / "io.npz") as answers:
        expected = answers["pixels"].astype(np.float32)
    assert pixels.shape == expected.shape
    assert np.abs(pixels - expected).max() <= meta["tolerance"] * np.abs(expected).max()


def test_every_kind_of_rule_is_among_the_committed_cases() -> None:
    kinds = set()
    for case in COMMITTED.iterdir():
        kinds.add(rule_of(json.loads((case / "meta.json").read_text())["config"]).kind)
    assert kinds == {"squash", "shorter", "border", "capped", "patches"}
