"""Which differences of two configs are differences of their answers."""

from dataclasses import replace

import pytest

from patchword.formats.compare import differences, explicit
from patchword.model.config import ViTConfig
from patchword.model.sizes import sized

PLAIN = sized("ViT-Ti/16", num_classes=5)


def _scaled(start: float | None) -> ViTConfig:
    return replace(PLAIN, block=replace(PLAIN.block, layer_scale=start))


@pytest.mark.parametrize(("ours", "theirs"), [(None, 1e-5), (1.0, None)])
def test_a_layer_scale_that_only_one_has_is_a_difference(ours: float | None, theirs: float | None) -> None:
    found = differences(explicit(_scaled(ours)), explicit(_scaled(theirs)))
    assert found == [("block.layer_scale", ours, theirs)]


def test_the_value_that_layer_scale_began_with_is_none() -> None:
    assert differences(explicit(_scaled(1e-5)), explicit(_scaled(0.1))) == []
