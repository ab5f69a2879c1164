"""Names and shapes told without torch are those of the built module, for every kind of part."""

import pytest
import torch

from patchword.model.config import ViTConfig
from patchword.model.shapes import shapes
from patchword.model.vit import ViT
from support.vit_configs import ALL


@pytest.mark.parametrize("config", ALL.values(), ids=ALL.keys())
def test_shapes_are_those_of_the_module(config: ViTConfig) -> None:
    with torch.device("meta"):
        built = ViT(config).state_dict()
    assert shapes(config) == {name: tuple(tensor.shape) for name, tensor in built.items()}
