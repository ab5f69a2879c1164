"""Every recorded preprocessing of transformers, from its own preprocessor_config.json: the same picture, the same pixels."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from patchword.formats.layouts.transformers_config import JsonConfig
from patchword.formats.layouts.transformers_preprocess import read_preprocess
from patchword.images.prepare import read

COMMITTED = Path(__file__).parents[1] / "data" / "parity" / "preprocess"
FOLDERS = [COMMITTED] + [Path(named) for named in [os.environ.get("PATCHWORD_CASES")] if named]
FILE = "preprocessor_config.json"
CASES = {
    case.name: case
    for folder in reversed(FOLDERS)
    for case in sorted(folder.glob("transformers_preprocess_*"))
    if (case / FILE).exists()
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_what_the_file_says_gives_the_recorded_pixels(case: Path) -> None:
    meta = json.loads((case / "meta.json").read_text())
    told = JsonConfig(case.name, json.loads((case / FILE).read_text()), FILE)
    preprocess = read_preprocess(told, "ViT", 3, (64, 64))
    assert preprocess is not None
    with np.load(case / "io.npz") as answers:
        expected = answers["pixels"].astype(np.float32)
    pixels = read(case / meta["config"]["file"], preprocess)
    assert pixels.shape == expected.shape
    assert np.abs(pixels - expected).max() <= meta["tolerance"] * np.abs(expected).max()
