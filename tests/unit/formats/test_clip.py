"""Whose a CLIP tower is, and what open_clip's config says of it that no tensor does."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from patchword.containers.stored import Entry, Stored
from patchword.errors import CheckpointError
from patchword.formats.facts import Options
from patchword.formats.layout import Description, Rule
from patchword.formats.layouts.clip import CONFIG, OpenClip
from patchword.formats.read import Opened, resolve
from patchword.images.preprocess import Preprocess
from patchword.model.config import BlockConfig, HeadConfig, ImageConfig, PatchConfig, ViTConfig
from patchword.model.kinds import LayerNormConfig
from patchword.model.shapes import shapes
from patchword.weights.card import ModelCard
from support.vit_configs import tiny

TOWER = tiny(
    image=ImageConfig(size=(16, 16)),
    patch=PatchConfig(size=(8, 8), bias=False),
    block=BlockConfig(entry_norm=True),
    norm=LayerNormConfig(eps=1e-5),
    head=HeadConfig(projection=7, num_classes=0),
)


def tensors(config: ViTConfig = TOWER) -> dict[str, Entry]:
    preprocess = Preprocess.simple(config.image.size)
    layout = OpenClip()
    card = ModelCard(config=config, preprocess=preprocess)
    described = Description(config=config, preprocess=preprocess, spelling=layout.spelling(card))
    ours = shapes(config)
    return {
        name: Entry(dtype="F32", shape=tuple(shape), file=Path("x"), offset=0)
        for part in layout.rules(described)
        if isinstance(part, Rule)
        for name, shape in zip(part.theirs, part.op.their_shapes([ours[n] for n in part.ours]), strict=True)
    }


def read(
    tree: Mapping[str, Any], name: str = "x.pt", vision: Mapping[str, Any] | None = None, **options: Any
) -> Opened:
    configs = {} if vision is None else {CONFIG: {"model_cfg": {"vision_cfg": {"head_width": 8, **vision}}}}
    stored = Stored(path=Path(name), container="torch", tree=tree, metadata={}, files=(), configs=configs)
    return resolve(stored, Options(**options))


def test_sizes_that_openais_archive_keeps_tell_it_in_any_wrapper() -> None:
    whole = {**tensors(), "input_resolution": Entry(dtype="I64", shape=(), file=Path("x"), offset=0)}
    assert read({"state_dict": whole}, num_heads=3).layout.name == "openai-clip"


def test_open_clips_file_name_tells_it_without_its_config() -> None:
    with pytest.raises(CheckpointError, match="activation"):
        read(tensors(), "open_clip_pytorch_model.bin", num_heads=3)
    opened = read(tensors(), "open_clip_pytorch_model.bin", num_heads=3, act="gelu")
    assert opened.layout.name == "open_clip" and opened.card.config.head.norm == "tokens"


def test_a_bare_file_with_plain_gelu_norms_its_tokens_as_open_clip_does() -> None:
    norms = {
        act: read(tensors(), num_heads=3, act=act).card.config.head.norm
        for act in (None, "gelu", "quick_gelu")
    }
    assert norms == {None: "pooled", "gelu": "tokens", "quick_gelu": "tokens"}


@pytest.mark.parametrize(
    ("vision", "activation", "eps"),
    [
        ({}, "gelu", 1e-5),
        ({"act_kwargs": {"approximate": "tanh"}}, "gelu_tanh", 1e-5),
        ({"norm_kwargs": {"eps": 1e-6}}, "gelu", 1e-6),
        ({"act_kwargs": None, "norm_kwargs": None}, "gelu", 1e-5),
    ],
)
def test_arguments_of_its_layers_are_taken(vision: dict[str, Any], activation: str, eps: float) -> None:
    found = read(tensors(), vision=vision).card.config
    assert (found.mlp.activation, found.norm.eps) == (activation, eps)
    written = OpenClip().sidecar_files(ModelCard(config=found, preprocess=Preprocess.simple((16, 16))))
    assert (b"tanh" in written[CONFIG]) is (activation == "gelu_tanh")
    assert (b"1e-06" in written[CONFIG]) is (eps == 1e-6)
