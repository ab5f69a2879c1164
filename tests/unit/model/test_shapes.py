"""Names and shapes told without torch are those of the built module, for every kind of part."""

from typing import Any

import pytest
import torch

from patchword.model.config import HeadConfig, TokensConfig, ViTConfig
from patchword.model.decoder import DecoderConfig
from patchword.model.kinds import MeanPool
from patchword.model.mae import MAE
from patchword.model.shapes import decoder_shapes, shapes
from patchword.model.vit import ViT
from support.vit_configs import ALL, NO_CLASS, REGISTERS, tiny


@pytest.mark.parametrize("config", ALL.values(), ids=ALL.keys())
def test_shapes_are_those_of_the_module(config: ViTConfig) -> None:
    with torch.device("meta"):
        built = ViT(config).state_dict()
    assert shapes(config) == {name: tuple(tensor.shape) for name, tensor in built.items()}


@pytest.mark.parametrize("positions", ["sincos2d", "learned"])
@pytest.mark.parametrize("tokens", [TokensConfig(), NO_CLASS, REGISTERS], ids=["class", "none", "registers"])
def test_shapes_of_a_decoder_are_those_of_the_module(positions: Any, tokens: TokensConfig) -> None:
    config = tiny(tokens=tokens, head=HeadConfig(pool=MeanPool(), num_classes=0))
    decoder = DecoderConfig(dim=16, depth=2, num_heads=2, positions=positions)
    with torch.device("meta"):
        built = MAE(ViT(config), decoder).decoder.state_dict()
    found = decoder_shapes(decoder, config)
    assert found == {f"decoder.{name}": tuple(tensor.shape) for name, tensor in built.items()}
