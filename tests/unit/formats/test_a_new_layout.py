"""A layout is its rows and what no tensor states: this one is complete, and is read, written and refused like any other."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from patchword.errors import CheckpointError
from patchword.formats.checkpoint import Checkpoint
from patchword.formats.facts import Facts, Options
from patchword.formats.layout import Description
from patchword.formats.layouts import LAYOUTS
from patchword.formats.ops import Op, Shape, transposed
from patchword.formats.read import open_foreign, read_tensors
from patchword.formats.recognise import recognise
from patchword.formats.renamed import Renamed
from patchword.formats.rows import RowLayout, Rows, table, token
from patchword.formats.write import write_as
from patchword.images.preprocess import Preprocess
from patchword.model.config import HeadConfig, ImageConfig, PatchConfig, ViTConfig
from support.formats import source_of


def _matrix(ours: Sequence[Shape]) -> Op:
    return transposed(ours[0][1], ours[0][0])


class Acme(RowLayout):
    """Names under `acme.`; queries, keys and values are stored as (in, out)."""

    name, title = "acme", "Acme's ViT"

    def rows(self, spelling: Mapping[str, Any], config: ViTConfig | None) -> Rows:
        return (
            ("acme.patches.{wb}", "patch_embed.proj.{wb}"),
            ("acme.token", "prefix.class_token", token),
            ("acme.positions", ("positions.prefix", "positions.grid"), table),
            ("acme.{i}.first.{wb}", "blocks.{i}.norm1.{wb}"),
            ("acme.{i}.qkv.weight", "blocks.{i}.attention.qkv.weight", _matrix),
            ("acme.{i}.qkv.bias", "blocks.{i}.attention.qkv.bias"),
            ("acme.{i}.out.{wb}", "blocks.{i}.attention.proj.{wb}"),
            ("acme.{i}.second.{wb}", "blocks.{i}.norm2.{wb}"),
            ("acme.{i}.up.{wb}", "blocks.{i}.mlp.fc1.{wb}"),
            ("acme.{i}.down.{wb}", "blocks.{i}.mlp.fc2.{wb}"),
            ("acme.norm.{wb}", "norm.{wb}"),
            ("acme.head.{wb}", "head.{wb}"),
        )

    def recognise(self, checkpoint: Checkpoint) -> str | None:
        return "acme.patches" if checkpoint.has("acme.patches.weight") else None

    def describe(self, checkpoint: Checkpoint, facts: Facts) -> Description:
        seen = Renamed(checkpoint, self.rows({}, None))
        dim, channels, patch = seen.kernel
        rows, columns = facts.grid(seen.shape("positions.grid", 3)[1] - 1, patch)
        size = (rows * patch[0], columns * patch[1])
        config = ViTConfig(
            image=ImageConfig(size=size, channels=channels),
            patch=PatchConfig(size=patch),
            dim=dim,
            depth=checkpoint.depth("acme.{}.first.weight"),
            attention=seen.attention(facts.heads(dim)),
            mlp=seen.mlp(facts.require("act", ("gelu", "Acme's code"))),
            head=HeadConfig(num_classes=seen.rows_of("head")),
        )
        preprocess = facts.preprocess((Preprocess.simple(size, channels), "Acme's code"))
        return Description(config=config, preprocess=preprocess)


@pytest.fixture
def acme(monkeypatch: pytest.MonkeyPatch) -> RowLayout:
    layout = Acme()
    monkeypatch.setattr(recognise, "__defaults__", ((*LAYOUTS, layout),))
    return layout


def test_it_is_written_and_read_back_bit_equal(acme: RowLayout, tmp_path: Path) -> None:
    source = source_of("square, layer")
    written = write_as(source, acme, tmp_path / "model.safetensors")
    assert written.told == {"num_heads": 3} and not written.changed
    opened = open_foreign(written.path, Options(num_heads=3))
    assert opened.layout is acme
    theirs = read_tensors(opened)
    assert theirs.keys() == source.tensors.keys()
    assert all(torch.equal(theirs[name], tensor) for name, tensor in source.tensors.items())


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("square, mean of all", "registers"),
        ("square, layer scale", "no place for LayerScale"),
        ("square, relu", "mlp.activation = 'relu'|tanh layer"),
        ("square, post norm", "LayerScale|block.order"),
        ("square, rope2d", "positions = rope2d"),
        ("square, mean", "head.pool"),
        ("square, rms", "norm"),
        ("DINOv3", "registers"),
        ("CLIP tower", "a norm before the blocks"),
        ("SigLIP", "attention pooling"),
    ],
)
def test_what_it_cannot_hold_is_refused_without_a_list(
    acme: RowLayout, name: str, words: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=words):
        write_as(source_of(name), acme, tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())
