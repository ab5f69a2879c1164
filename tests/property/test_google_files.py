"""Google's files of any shape and spelling: what is described is what was meant, what is wrong is told."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchword.containers.stored import Entry, Stored
from patchword.errors import PatchwordError
from patchword.formats.facts import Options
from patchword.formats.layout import Description, Rule
from patchword.formats.layouts.google import BigVision
from patchword.formats.layouts.google_names import (
    INPUT_POSITIONS,
    OLD_POSITIONS,
    PREFIXES,
    ROOT_POSITIONS,
    NamingVariant,
)
from patchword.formats.read import resolve
from patchword.images.preprocess import Preprocess
from patchword.model.config import (
    AttentionConfig,
    HeadConfig,
    ImageConfig,
    MLPConfig,
    PatchConfig,
    TokensConfig,
    ViTConfig,
)
from patchword.model.kinds import (
    AttentionPool,
    ClassPool,
    Learned,
    MeanPool,
    NoStem,
    Positions,
    ResNetStem,
    SinCos2d,
)
from patchword.model.shapes import shapes

sides = st.integers(1, 20)
counts = st.integers(1, 12)
spellings = st.builds(
    NamingVariant,
    prefix=st.sampled_from(PREFIXES),
    positions=st.sampled_from([INPUT_POSITIONS, OLD_POSITIONS, ROOT_POSITIONS, ""]),
    numbered=st.booleans(),
    scanned=st.booleans(),
    pool=st.sampled_from(["", "MAPHead_0/"]),
    flat_norms=st.booleans(),
)
stems = st.just(NoStem()) | st.builds(
    ResNetStem, units=st.lists(st.integers(1, 2), max_size=3).map(tuple), width=st.sampled_from([32, 64])
)


@st.composite
def models(draw: st.DrawFn) -> tuple[ViTConfig, NamingVariant]:
    spelling = draw(spellings)
    stem, patch, grid = draw(stems), (draw(sides), draw(sides)), (draw(sides), draw(sides))
    heads, width, classes = draw(st.integers(1, 4)), 4 * draw(counts), draw(st.integers(0, 5))
    pool = draw(st.sampled_from([ClassPool(), MeanPool(), AttentionPool(), AttentionPool(hidden=3)]))
    class_token = isinstance(pool, ClassPool)
    positions: Positions = SinCos2d()
    if not spelling.positions:  # sines came with big_vision, after the numbers
        spelling = replace(spelling, numbered=False)
    else:
        positions = Learned(covers="all_but_registers" if spelling.slot and class_token else "patches")
    towers = spelling.two_towers
    config = ViTConfig(
        image=ImageConfig(
            size=(grid[0] * patch[0] * stem.stride, grid[1] * patch[1] * stem.stride), channels=draw(counts)
        ),
        patch=PatchConfig(size=patch, stem=stem, edge="cut"),
        dim=heads * width,
        depth=draw(counts),
        tokens=TokensConfig(class_token=class_token),
        positions=positions,
        attention=AttentionConfig(num_heads=heads),
        mlp=MLPConfig(hidden=draw(counts) + 10, activation="gelu_tanh"),
        head=HeadConfig(
            pool=pool,
            pre_logits=draw(st.integers(0, 3)),
            num_classes=0 if towers else classes,
            projection=classes if towers else 0,
            projection_bias=bool(towers and classes),
        ),
    )
    return config, spelling


def stored_of(config: ViTConfig, spelling: NamingVariant) -> Stored:
    """The names and shapes of a file of this model."""
    preprocess = Preprocess.simple(config.image.size, config.image.channels)
    described = Description(config=config, preprocess=preprocess, spelling={"spelling": spelling})
    ours, tree = shapes(config), {}
    for rule in BigVision().rules(described):
        if isinstance(rule, Rule):
            wanted = rule.op.their_shapes([ours[name] for name in rule.ours])
            tree |= dict(zip(rule.theirs, wanted, strict=True))
    entries = {n: Entry(dtype="F32", shape=tuple(s), file=Path("x"), offset=0) for n, s in tree.items()}
    return Stored(path=Path("model.npz"), container="npz", tree=entries)


@given(models())
def test_names_and_shapes_say_the_whole_model(model: tuple[ViTConfig, NamingVariant]) -> None:
    config, spelling = model
    opened = resolve(stored_of(config, spelling), Options(image_size=config.image.size))
    found = opened.card.config
    # How a table or kernel goes to another size is the layout's to say.
    alike = replace(
        found, positions=config.positions, patch=replace(found.patch, resample=config.patch.resample)
    )
    assert alike == config
    assert type(found.positions) is type(config.positions)
    assert found.num_prefix_positions == config.num_prefix_positions
    assert opened.report.filled == 1


WRONG = st.lists(st.sampled_from([0, 1, 2, 3, 5, 32]), max_size=6).map(tuple)


@given(models(), st.data())
def test_a_tensor_of_any_other_shape_is_told_and_never_a_crash(
    model: tuple[ViTConfig, NamingVariant], data: st.DataObject
) -> None:
    stored = stored_of(*model)
    name = data.draw(st.sampled_from(sorted(stored.tree)))
    shape = data.draw(WRONG.filter(lambda shape: shape != stored.tree[name].shape))
    tree = {**stored.tree, name: replace(stored.tree[name], shape=shape)}
    options = Options(image_size=data.draw(st.sampled_from([model[0].image.size, None])))
    try:
        opened = resolve(replace(stored, tree=tree), options)
    except PatchwordError:
        return
    # Some facts stand in one tensor alone: then it is another model, and a whole one.
    assert opened.report.filled == 1


@given(models(), st.data())
def test_a_tensor_less_is_told(model: tuple[ViTConfig, NamingVariant], data: st.DataObject) -> None:
    stored = stored_of(*model)
    name = data.draw(st.sampled_from(sorted(n for n in stored.tree if "Transformer/encoder" in n)))
    tree = {n: entry for n, entry in stored.tree.items() if n != name}
    with pytest.raises(PatchwordError):
        resolve(replace(stored, tree=tree), Options(image_size=model[0].image.size))
