"""Whatever stands in a config of transformers: it is taken, or refused as the file's fault; nothing else happens."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchword.containers.stored import open_stored
from patchword.errors import CheckpointError
from patchword.formats.facts import Options
from patchword.formats.read import resolve
from support.parity import committed

CASES = sorted(committed().glob("transformers_small_*"))
PROCESSING = {
    "image_processor_type": "ViTImageProcessor",
    "size": {"height": 16, "width": 16},
    "crop_size": 16,
    "do_resize": True,
    "do_center_crop": True,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "resample": 2,
}
numbers = st.integers(-2, 40) | st.integers() | st.floats()
plain = st.none() | st.booleans() | numbers | st.sampled_from(["", "gelu", "CLIPImageProcessor", "vit"])
words = st.sampled_from(["height", "width", "shortest_edge", "longest_edge", "0", "rope_theta"])
values = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner), max_leaves=5
)


@pytest.mark.parametrize("folder", CASES, ids=lambda folder: folder.name)
@given(st.data())
@settings(max_examples=25)
def test_any_value_is_taken_or_refused(folder: Path, data: st.DataObject) -> None:
    stored = open_stored(folder)
    config: dict[str, Any] = dict(stored.configs["config.json"])
    if isinstance(config.get("vision_config"), dict):
        config["vision_config"] = dict(config["vision_config"])
    processing: dict[str, Any] = dict(PROCESSING)
    for _ in range(data.draw(st.integers(1, 2))):
        # The first draw may have left an empty vision_config, which has nothing to change.
        places = [config, processing, config.get("vision_config")]
        place = data.draw(st.sampled_from([p for p in places if isinstance(p, dict) and p]))
        place[data.draw(st.sampled_from(sorted(place)))] = data.draw(values)
    configs = {"config.json": config, "preprocessor_config.json": processing}
    with suppress(CheckpointError):
        assert resolve(replace(stored, configs=configs), Options()).report.filled == 1
