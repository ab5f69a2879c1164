"""The authors' own files: whose a file is, which network of it is taken, and that what is read is written back."""

import contextlib
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor

from patchword.containers.stored import Entry, Stored, tensor_of
from patchword.errors import CheckpointError, KeyMismatch, PatchwordError, UnknownLayout
from patchword.formats.facts import Options
from patchword.formats.layout import Description, Layout
from patchword.formats.layouts import LAYOUTS
from patchword.formats.layouts.beit import RelativeIndex
from patchword.formats.layouts.dinov3 import MaskedBias
from patchword.formats.read import Opened, open_foreign, read_tensors, resolve
from patchword.formats.restate import without_periods
from patchword.formats.source import Source
from patchword.formats.write import layouts_named, write_as, written_tensors
from patchword.images.geometry import Shorter, Squash
from patchword.images.preprocess import Preprocess
from patchword.model.config import (
    AttentionConfig,
    BlockConfig,
    HeadConfig,
    ImageConfig,
    MLPConfig,
    PatchConfig,
    TokensConfig,
    ViTConfig,
)
from patchword.model.kinds import (
    Combined,
    IndexCoordinates,
    JoinedPool,
    LayerNormConfig,
    Learned,
    MeanPool,
    RelativeBias,
    Resample,
    Rope2d,
)
from patchword.model.shapes import shapes
from patchword.model.vit import ViT
from patchword.weights.card import ModelCard

IMAGENET_MEAN, HALF = (0.485, 0.456, 0.406), (0.5, 0.5, 0.5)
PLAIN = ViTConfig(
    image=ImageConfig(size=(16, 16)),
    patch=PatchConfig(size=(8, 8)),
    dim=24,
    depth=2,
    attention=AttentionConfig(num_heads=3),
    mlp=MLPConfig(hidden=40),
    head=HeadConfig(num_classes=5),
)
HEADLESS = HeadConfig(num_classes=0)
POOLED = HeadConfig(pool=MeanPool(), norm="pooled", num_classes=5)
SCALED = BlockConfig(layer_scale=0.1)
GATED = MLPConfig(hidden=40, gated=True, activation="silu")
SUB_NORMED = replace(GATED, inner_norm=True)
QV = AttentionConfig(num_heads=3, bias="qv")
REGISTERS = TokensConfig(num_registers=2)
EVA02_ROPE = Rope2d(theta=10_000, coordinates=IndexCoordinates(reference=(16, 16)), pairing="neighbours")
JOINED = HeadConfig(pool=JoinedPool(class_layers=1, mean=True), num_classes=5)


def like(**parts: Any) -> ViTConfig:
    return replace(PLAIN, **parts)


WIDE = like(image=ImageConfig(size=(24, 40)))
DINOV2 = like(block=SCALED, head=HEADLESS)
DINOV3 = like(
    tokens=REGISTERS,
    positions=Rope2d(stored_periods=True),
    norm=LayerNormConfig(eps=1e-5),
    image=ImageConfig(size=(112, 112)),
    block=SCALED,
    attention=QV,
    head=HEADLESS,
)
BEIT = like(positions=RelativeBias(), attention=QV, block=SCALED, head=POOLED)
EVA02 = like(
    positions=Combined(inner=EVA02_ROPE),
    attention=AttentionConfig(num_heads=2, bias="qv"),
    mlp=GATED,
    head=POOLED,
)
# name → layout, config
MODELS: dict[str, tuple[str, ViTConfig]] = {
    "DeiT": ("deit", PLAIN),
    "DeiT, distilled": (
        "deit",
        like(tokens=TokensConfig(distillation_token=True), head=replace(PLAIN.head, distilled=True)),
    ),
    "DeiT without biases": (
        "deit",
        like(
            attention=AttentionConfig(num_heads=3, bias="none", out_bias=False),
            patch=PatchConfig(size=(8, 4)),
            norm=LayerNormConfig(bias=False),
            image=ImageConfig(size=(16, 16), channels=5),
            mlp=MLPConfig(hidden=40, bias=False),
        ),
    ),
    "DeiT-III": ("deit3", like(positions=Learned(covers="patches"), block=SCALED)),
    "MAE": ("mae", like(head=HEADLESS)),
    "MAE, fine-tuned": ("mae", like(head=POOLED)),
    "DINO": ("dino", like(head=HEADLESS)),
    "DINO, four class tokens": (
        "dino",
        like(depth=4, head=HeadConfig(pool=JoinedPool(class_layers=4, mean=False), num_classes=5)),
    ),
    "DINO, interleaved": (
        "dino",
        like(head=HeadConfig(pool=JoinedPool(interleaved=True), num_classes=5)),
    ),
    "DINOv2": ("dinov2", DINOV2),
    "DINOv2, gated, registers": ("dinov2", replace(DINOV2, mlp=GATED, tokens=REGISTERS)),
    "DINOv2, linear head": ("dinov2", replace(DINOV2, head=JOINED)),
    "DINOv3": ("dinov3", DINOV3),
    "DINOv3, gated, no bias, linear head": (
        "dinov3",
        replace(DINOV3, mlp=GATED, attention=AttentionConfig(num_heads=3, bias="none"), head=JOINED),
    ),
    "I-JEPA": (
        "ijepa",
        like(tokens=TokensConfig(class_token=False), head=HeadConfig(pool=MeanPool(), num_classes=0)),
    ),
    "BEiT": ("beit", BEIT),
    "BEiT, no square": ("beit", replace(BEIT, image=ImageConfig(size=(24, 40)))),
    "BEiT, one table, class token": (
        "beit2",
        replace(BEIT, positions=RelativeBias(shared=True), head=PLAIN.head),
    ),
    "BEiT, also absolute": ("beit", replace(BEIT, positions=Combined(inner=RelativeBias()))),
    "EVA": ("eva", like(attention=QV, head=POOLED)),
    "EVA-02, small": ("eva", EVA02),
    "EVA-02, base": ("eva", replace(EVA02, mlp=SUB_NORMED)),
}  # fmt: skip


def layout_named(name: str) -> Layout:
    (layout,) = layouts_named(name)
    return layout


def card_of(config: ViTConfig) -> ModelCard:
    return ModelCard(
        config=config,
        preprocess=Preprocess.simple(config.image.size, config.image.channels),
        classes=tuple(f"class {index}" for index in range(config.head.num_classes)),
    )


def drawn(config: ViTConfig) -> dict[str, Tensor]:
    """Every tensor of the model, random, so that no two are equal by chance."""
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes(config).items()}


def source_of(config: ViTConfig) -> Source:
    return Source(card=card_of(config), tensors=drawn(config))


def theirs(name: str, config: ViTConfig, **spelling: Any) -> dict[str, Tensor]:
    """The state dict of that layout, unwrapped, with random values."""
    layout = layout_named(name)
    card = card_of(config)
    spelled = {**layout.spelling(card), **spelling}
    described = Description(config=config, preprocess=card.preprocess, spelling=spelled)
    return written_tensors(layout, described, drawn(config))


def listed(tree: Mapping[str, Any], name: str = "weights.pth") -> Stored:
    """A file with these names and shapes, whose values nobody has."""

    def entry(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: entry(inner) for key, inner in value.items()}
        if isinstance(value, Tensor):
            return Entry(dtype="F32", shape=tuple(value.shape), file=Path(name), offset=0)
        return value

    return Stored(path=Path(name), container="torch", tree=entry(tree), files=(), configs={}, metadata={})


def saved(tree: Mapping[str, Any], path: Path, **options: Any) -> Opened:
    torch.save(tree, path)
    return open_foreign(path, Options(**options))


# Both ways -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_what_is_written_reads_back_the_same(name: str, tmp_path: Path) -> None:
    layout, config = MODELS[name]
    source = source_of(config)
    written = write_as(source, layout_named(layout), tmp_path / f"{layout}_model.pth")
    assert written.reopened.layout.name == layout
    assert written.changed == ()
    again = read_tensors(written.reopened)
    assert set(again) == set(source.tensors)
    assert all(again[key].equal(tensor) for key, tensor in source.tensors.items())


@pytest.mark.parametrize("name", MODELS)
def test_a_file_is_written_back_bit_for_bit(name: str, tmp_path: Path) -> None:
    layout, config = MODELS[name]
    first = write_as(source_of(config), layout_named(layout), tmp_path / f"{layout}_model.pth").reopened
    opened = open_foreign(first.checkpoint.path, Options(**_heads(config), **_head(tmp_path)))
    back = written_tensors(opened.layout, opened.description, read_tensors(opened))
    for key, entry in opened.checkpoint.tensors.items():
        stored = tensor_of(entry)
        assert back[key].dtype == stored.dtype
        assert back[key].equal(stored), key


def _heads(config: ViTConfig) -> dict[str, Any]:
    return {"num_heads": config.attention.num_heads, "image_size": config.image.size}


def _head(folder: Path) -> dict[str, Any]:
    found = list(folder.glob("*_linear_head.pth"))
    return {"head": found[0]} if found else {}


def test_biases_that_the_authors_classes_have_are_written_as_zeros_and_missed_when_lost(
    tmp_path: Path,
) -> None:
    bare = like(patch=PatchConfig(size=(8, 4), bias=False), head=replace(PLAIN.head, bias=False))
    written = write_as(source_of(bare), layout_named("deit"), tmp_path / "deit_x.pth").reopened
    for name in ("patch_embed.proj.bias", "head.bias"):
        assert not tensor_of(written.checkpoint.tensors[name]).any()
        left = {n: tensor_of(entry) for n, entry in written.checkpoint.tensors.items() if n != name}
        with pytest.raises(KeyMismatch, match=f"lacks {name}"):
            saved(left, tmp_path / "deit_y.pth", image_size=(16, 16), num_heads=3)


@pytest.mark.parametrize(
    ("name", "layout", "config", "lost"),
    [
        ("dinov2_vits14_reg4_pretrain.pth", "dinov2", replace(DINOV2, tokens=REGISTERS), "register_tokens"),
        ("dinov3_vits16_pretrain_lvd1689m-x.pth", "dinov3", DINOV3, "storage_tokens"),
    ],
)
def test_registers_that_the_published_name_says_are_missed(
    name: str, layout: str, config: ViTConfig, lost: str
) -> None:
    tree = {n: t for n, t in theirs(layout, config).items() if n != lost}
    with pytest.raises(KeyMismatch, match=lost):
        resolve(listed(tree, name), Options(num_heads=3))


def test_half_precision_stays_half() -> None:
    half = {key: tensor.half() for key, tensor in drawn(PLAIN).items()}
    described = Description(config=PLAIN, preprocess=card_of(PLAIN).preprocess)
    assert all(
        t.dtype == torch.float16 for t in written_tensors(layout_named("deit"), described, half).values()
    )


@pytest.mark.parametrize(
    ("to", "config", "said"),
    [
        ("deit", like(attention=replace(PLAIN.attention, qk_norm="layer")), "normalised queries"),
        ("deit", like(tokens=REGISTERS), "registers"),
        ("deit", like(norm=LayerNormConfig(eps=1e-5)), "norm.eps"),
        ("dinov2", MODELS["DeiT, distilled"][1], "distillation"),
        ("torchvision", MODELS["DeiT, distilled"][1], "distillation token"),
        ("torchvision", WIDE, "24 x 40 images with 8 x 8 patches"),
        ("dinov2", DINOV3, "not support rotary positions"),
        ("deit", like(positions=Rope2d()), "not support rotary positions"),
        ("mae", like(mlp=replace(PLAIN.mlp, activation="gelu_tanh"), head=HEADLESS), "activation"),
        ("dino", PLAIN, "linear head"),
        ("dinov2", like(block=SCALED), "linear head"),
        ("ijepa", like(head=HEADLESS), "would be read as DINO"),
        ("beit", PLAIN, "would be read as"),
    ],
    ids=["query norms", "registers", "eps", "distilled", "two prefix tokens", "oblong", "periods", "rotary", "activation", "head", "head of one token", "class token", "no tables"],
)  # fmt: skip
def test_what_a_format_cannot_hold_is_refused_by_name(
    to: str, config: ViTConfig, said: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=said):
        write_as(source_of(config), layout_named(to), tmp_path / f"{to}_model.pth")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("theta", [100.0, 50.0])
def test_periods_that_other_formats_compute_are_stored_in_dinov3s_file_and_left_out_again(
    theta: float, tmp_path: Path
) -> None:
    source = source_of(replace(DINOV3, positions=Rope2d(theta=theta)))
    written = write_as(source, layout_named("dinov3"), tmp_path / "x.pth")
    assert [field for field, _, _ in written.rewritten_for if "theta" not in field] == [
        "positions.stored_periods"
    ]
    card, tensors = written.reopened.card, read_tensors(written.reopened)
    image = torch.randn(1, 3, 112, 112, generator=torch.Generator().manual_seed(1))
    ours, theirs = ViT(source.card.config), ViT(card.config)
    ours.load_state_dict(source.tensors)
    theirs.load_state_dict(tensors)
    with torch.no_grad():
        assert torch.equal(ours(image), theirs(image))
    config, rest = without_periods(card.config, tensors)
    # Only those that the code of the others computes from its own theta.
    assert (config == replace(card.config, positions=Rope2d())) == (theta == 100)
    assert (rest.keys() == source.tensors.keys()) == (theta == 100)


def test_what_would_not_be_read_back_is_told_as_the_limit_of_the_format(tmp_path: Path) -> None:
    """No name of a file that is not there, and no advice about it."""
    patches = like(
        block=SCALED, tokens=TokensConfig(class_token=False), head=replace(HEADLESS, pool=MeanPool())
    )
    with pytest.raises(CheckpointError) as error:
        write_as(source_of(patches), layout_named("dinov2"), tmp_path / "x.pth")
    assert error.value.message.startswith("DINOv2") and "cannot hold this model" in error.value.message
    assert str(tmp_path) not in str(error.value) and "choose another format" in error.value.fix


# Whose a file is -------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_each_file_is_of_one_layout_alone(name: str, tmp_path: Path) -> None:
    layout, config = MODELS[name]
    if isinstance(config.head.pool, JoinedPool):
        config = replace(config, head=HEADLESS)
    opened = saved(theirs(layout, config), tmp_path / f"{layout}_x.pth", **_heads(config))
    assert opened.layout.name == layout
    others = [other.name for other in LAYOUTS if other.recognise(opened.checkpoint) is not None]
    assert others == [layout]


def test_dinov2_is_told_without_layer_scale_too() -> None:
    """Its code leaves LayerScale out where it is not asked for; mask token and registers stay."""
    tensors = theirs("dinov2", replace(DINOV2, tokens=REGISTERS, block=BlockConfig()))
    for kept in ({}, {"register_tokens": tensors["register_tokens"]}):
        left = {n: t for n, t in tensors.items() if n != "register_tokens"} | kept
        opened = resolve(listed(left, "x.pth"), Options(num_heads=3))
        assert opened.layout.name == "dinov2" and opened.card.config.block.layer_scale is None


def test_a_teacher_that_was_saved_alone_loses_its_training_head() -> None:
    teacher = {f"backbone.{n}": t for n, t in theirs("dino", like(head=HEADLESS)).items()}
    heads = {"head.mlp.0.weight": torch.ones(4, 24), "head.last_layer.weight_v": torch.ones(4, 4)}
    opened = resolve(listed(teacher | heads), Options(num_heads=3))
    assert opened.layout.name == "dino"
    assert any("heads of self-supervised training (2" in note for note in opened.report.notes)


@pytest.mark.parametrize(
    ("tree", "name", "family", "guess"),
    [
        ("flat", "dino_vitbase16_pretrain.pth", "dino", False),
        ("model", "mae_pretrain_vit_base.pth", "mae", False),
        ("model", "deit_base_patch16_224-b5f2ef4d.pth", "deit", False),
        ("model", "checkpoint-99.pth", "mae", True),
        ("flat", "backbone.pth", "dino", True),
    ],
)
def test_the_same_tensors_are_told_apart_by_what_is_beside(
    tree: str, name: str, family: str, guess: bool
) -> None:
    tensors = theirs("dino", like(head=HEADLESS))
    opened = resolve(listed({"model": tensors} if tree == "model" else tensors, name), Options(num_heads=3))
    assert opened.layout.name == family
    assert any("assumed to be" in note for note in opened.report.notes) is guess


def test_the_zero_row_of_maes_sines_tells_it_in_any_wrapper(tmp_path: Path) -> None:
    tensors = theirs("dino", like(head=HEADLESS))
    tensors["pos_embed"][:, 0] = 0
    opened = saved(tensors, tmp_path / "backbone.pth", num_heads=3)
    assert opened.layout.name == "mae"
    assert not any("assumed to be" in note for note in opened.report.notes)


@pytest.mark.parametrize(
    ("words", "family"), [({"norm_pix_loss": True}, "mae"), ({"distillation_type": "none"}, "deit")]
)
def test_the_training_scripts_words_tell_the_family(
    words: dict[str, Any], family: str, tmp_path: Path
) -> None:
    tree = {"model": theirs("deit", PLAIN), "args": Namespace(**words), "epoch": 3}
    assert saved(tree, tmp_path / "checkpoint.pth", num_heads=3).layout.name == family


def test_positions_are_resampled_as_the_family_does() -> None:
    tensors = theirs("dino", like(head=HEADLESS))
    dino = resolve(listed(tensors, "dino_x.pth"), Options(num_heads=3)).card.config
    mae = resolve(listed({"model": tensors}, "mae_x.pth"), Options(num_heads=3)).card.config
    assert isinstance(dino.positions, Learned) and isinstance(mae.positions, Learned)
    assert dino.positions.resample == Resample(antialias=False, offset=0.1)
    assert mae.positions.resample == Resample(antialias=False)


@pytest.mark.parametrize(
    ("layout", "config", "dim", "heads"),
    [
        ("deit", like(), 192, 3),
        ("mae", like(head=HEADLESS), 1280, 16),
        ("ijepa", MODELS["I-JEPA"][1], 1408, 16),
        ("dinov2", DINOV2, 1536, 24),
        ("dinov3", DINOV3, 1280, 20),
        ("dinov3", DINOV3, 4096, 32),
        ("eva", MODELS["EVA"][1], 1408, 16),
    ],
)
def test_published_widths_have_their_published_heads(
    layout: str, config: ViTConfig, dim: int, heads: int
) -> None:
    wide = replace(config, dim=dim, depth=1, attention=replace(config.attention, num_heads=heads))
    with torch.device("meta"):
        tensors = {name: torch.empty(shape) for name, shape in shapes(wide).items()}
    described = Description(
        config=wide,
        preprocess=card_of(wide).preprocess,
        spelling=layout_named(layout).spelling(card_of(wide)),
    )
    their = written_tensors(layout_named(layout), described, tensors)
    opened = resolve(listed(their, f"{layout}_x.pth"), Options())
    assert opened.card.config.attention.num_heads == heads


def test_an_unpublished_width_is_asked_for_its_heads() -> None:
    with pytest.raises(CheckpointError) as told:
        resolve(listed(theirs("deit", PLAIN), "deit_x.pth"), Options())
    assert "--num-heads" in told.value.fix


# Which network of a file -----------------------------------------------------------------


def test_the_teacher_is_taken_and_the_student_left(tmp_path: Path) -> None:
    tensors = theirs("dino", like(head=HEADLESS))
    other = {f"module.backbone.{name}": torch.zeros_like(tensor) for name, tensor in tensors.items()}
    teacher = {f"backbone.{name}": tensor for name, tensor in tensors.items()}
    tree = {
        "student": other,
        "teacher": {**teacher, "head.mlp.0.weight": torch.ones(3)},
        "args": Namespace(out_dim=8),
    }
    opened = saved(tree, tmp_path / "checkpoint.pth", num_heads=3)
    assert opened.layout.name == "dino"
    assert read_tensors(opened)["prefix.class_token"].equal(tensors["cls_token"].flatten())
    notes = " ".join(opened.report.notes)
    assert "teacher" in notes
    assert "student" in notes


def test_a_whole_training_file_of_dinov2_gives_its_teacher() -> None:
    tensors = theirs("dinov2", DINOV2)
    both = {f"{who}.backbone.{name}": t for who in ("student", "teacher") for name, t in tensors.items()}
    opened = resolve(
        listed({"model": both | {"teacher.dino_head.mlp.0.weight": torch.ones(3)}, "iteration": 7}),
        Options(num_heads=3),
    )
    assert opened.layout.name == "dinov2"
    assert "student" in " ".join(opened.report.notes)


def test_a_student_alone_is_taken(tmp_path: Path) -> None:
    tensors = theirs("dino", like(head=HEADLESS))
    tree = {"student": {f"module.backbone.{name}": tensor for name, tensor in tensors.items()}}
    opened = saved(tree, tmp_path / "dino_x.pth", num_heads=3)
    assert "student" in " ".join(opened.report.notes)


def test_the_target_encoder_is_taken_and_the_context_encoder_left(tmp_path: Path) -> None:
    tensors = theirs("ijepa", MODELS["I-JEPA"][1])
    tree = {
        "encoder": {f"module.{name}": torch.zeros_like(tensor) for name, tensor in tensors.items()},
        "predictor": {"module.mask_token": torch.zeros(1, 1, 8)},
        "target_encoder": {f"module.{name}": tensor for name, tensor in tensors.items()},
    }
    opened = saved(tree, tmp_path / "jepa.pth.tar", num_heads=3)
    assert read_tensors(opened)["positions.grid"].flatten().equal(tensors["pos_embed"].flatten())
    assert "encoder (" in " ".join(opened.report.notes)
    assert isinstance(opened.card.config.head.pool, MeanPool)


def test_blocks_in_chunks_count_through_the_whole_stack(tmp_path: Path) -> None:
    tensors = theirs("dinov2", DINOV2)

    def chunked(name: str) -> str:
        first, _, rest = name.partition(".")
        return f"blocks.{rest.split('.')[0]}.{rest}" if first == "blocks" else name

    tree = {"teacher": {f"backbone.{chunked(name)}": tensor for name, tensor in tensors.items()}}
    opened = saved(tree, tmp_path / "teacher_checkpoint.pth", num_heads=3)
    ours = read_tensors(opened)
    assert ours["blocks.1.scale2.weight"].equal(tensors["blocks.1.ls2.gamma"])
    assert "blocks.1.1.ls2.gamma" in written_tensors(opened.layout, opened.description, ours)


# Linear heads ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "times", "pool"),
    [
        ("dino", 4, JoinedPool(class_layers=4, mean=False)),
        ("dino", 2, JoinedPool(interleaved=True)),
        ("dinov2", 2, JoinedPool()),
        ("dinov2", 5, JoinedPool(class_layers=4)),
        ("dinov3", 2, JoinedPool()),
    ],
)
def test_a_linear_heads_width_tells_what_it_reads(
    layout: str, times: int, pool: JoinedPool, tmp_path: Path
) -> None:
    config = replace({"dino": like(head=HEADLESS), "dinov2": DINOV2, "dinov3": DINOV3}[layout], depth=4)
    head = {"weight": torch.rand(7, times * 24), "bias": torch.rand(7)}
    torch.save({"state_dict": {f"module.linear.{key}": t for key, t in head.items()}}, tmp_path / "head.pth")
    opened = saved(
        theirs(layout, config), tmp_path / f"{layout}_x.pth", num_heads=3, head=tmp_path / "head.pth"
    )
    assert opened.card.config.head.pool == pool
    assert read_tensors(opened)["head.weight"].equal(head["weight"])


def test_a_head_of_another_backbone_is_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.rand(7, 50), "bias": torch.rand(7)}, tmp_path / "head.pth")
    with pytest.raises(CheckpointError, match="50 inputs"):
        saved(theirs("dinov2", DINOV2), tmp_path / "x.pth", num_heads=3, head=tmp_path / "head.pth")


def test_a_head_file_that_is_none_is_refused(tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.rand(7, 5, 1, 1)}, tmp_path / "head.pth")
    with pytest.raises(CheckpointError, match="linear head"):
        saved(theirs("dinov2", DINOV2), tmp_path / "x.pth", num_heads=3, head=tmp_path / "head.pth")


def test_a_classifier_of_the_hub_holds_backbone_and_head() -> None:
    tensors = {f"backbone.{name}": tensor for name, tensor in theirs("dinov2", DINOV2).items()}
    head = {"linear_head.weight": torch.rand(7, 48), "linear_head.bias": torch.rand(7)}
    opened = resolve(listed(tensors | head), Options(num_heads=3))
    assert opened.card.config.head == HeadConfig(pool=JoinedPool(), num_classes=7)


# What is checked -------------------------------------------------------------------------


def test_the_key_bias_is_masked_out() -> None:
    bias = torch.arange(9.0)
    mask = torch.tensor([1.0, 1, 1, 0, 0, 0, 1, 1, 1])
    queries, values = MaskedBias().read([bias, mask], [(3,), (3,)])
    assert queries.tolist() == [0, 1, 2]
    assert values.tolist() == [6, 7, 8]
    with pytest.raises(CheckpointError, match="bias_mask"):
        MaskedBias().read([bias, torch.ones(9)], [(3,), (3,)])


def test_an_index_of_another_grid_is_refused() -> None:
    with pytest.raises(CheckpointError, match="2 x 6"):
        RelativeIndex((2, 6)).read(RelativeIndex((3, 4)).write(()), [])


@pytest.mark.parametrize("size", [(24, 40), (40, 24), (8, 48)])
def test_the_index_tells_the_sides_of_a_grid_that_is_no_square(size: tuple[int, int], tmp_path: Path) -> None:
    config = replace(BEIT, image=ImageConfig(size=size))
    opened = saved({"model": theirs("beit", config)}, tmp_path / "beit_x.pth")
    assert opened.card.config.image.size == size
    larger = open_foreign(tmp_path / "beit_x.pth", Options(image_size=(80, 80)))
    assert larger.card.config.image.size == size
    assert larger.card.preprocess.image_size == (80, 80)


def test_without_an_index_a_grid_that_is_no_square_is_asked_for(tmp_path: Path) -> None:
    tensors = theirs("beit", replace(BEIT, image=ImageConfig(size=(24, 40))), index=False)
    with pytest.raises(CheckpointError) as told:
        resolve(listed({"model": tensors}, "beit_x.pth"), Options())
    assert "--image-size" in told.value.fix
    opened = resolve(listed({"model": tensors}, "beit_x.pth"), Options(image_size=(24, 40)))
    assert opened.card.config.grid_size == (3, 5)


def test_a_rope_table_of_another_theta_is_refused(tmp_path: Path) -> None:
    tensors = theirs("eva", EVA02)
    tensors["rope.freqs_cos"] = torch.zeros_like(tensors["rope.freqs_cos"])
    opened = saved({"module": tensors}, tmp_path / "eva02_x.pt")
    with pytest.raises(CheckpointError, match="freqs_cos"):
        read_tensors(opened)


def test_pre_training_files_of_eva02_count_patches() -> None:
    config = replace(EVA02, head=HEADLESS)
    tensors = theirs("eva", config) | {
        "mask_token": torch.ones(1, 1, 24),
        "lm_head.weight": torch.ones(9, 24),
    }
    opened = resolve(listed({"module": tensors}, "eva02_x.pt"), Options())
    inner = opened.card.config.inner_positions
    assert isinstance(inner, Rope2d) and inner.coordinates == IndexCoordinates()


def test_what_pre_training_leaves_is_dropped_with_reasons() -> None:
    extras = {
        "mask_token": torch.ones(1, 1, 24),
        "lm_head.weight": torch.ones(9, 24),
        "cls_pt_layers.0.norm1.weight": torch.ones(24),
    }
    tensors = theirs("beit2", replace(BEIT, positions=RelativeBias(shared=True), head=HEADLESS))
    opened = resolve(listed({"model": tensors | extras}), Options())
    assert opened.layout.name == "beit2"
    assert {name for dropped in opened.plan.dropped for name in dropped.names} == set(extras)
    assert all(dropped.reason for dropped in opened.plan.dropped)


def test_the_report_accounts_for_every_tensor_of_the_file() -> None:
    tensors = theirs("beit2", replace(BEIT, positions=RelativeBias(shared=True)), index=True)
    report = resolve(listed({"model": tensors}), Options()).report
    assert report.tensors == len(tensors) - 1
    assert "checked but not needed: rel_pos_bias.relative_position_index" in report.notes


def test_a_norm_of_class_tokens_alone_is_refused_by_name() -> None:
    tensors = theirs("dinov3", DINOV3) | {"cls_norm.weight": torch.ones(24), "cls_norm.bias": torch.ones(24)}
    with pytest.raises(UnknownLayout, match="cls_norm"):
        resolve(listed(tensors), Options(num_heads=3))


def test_a_tensor_that_no_rule_names_is_told() -> None:
    with pytest.raises(UnknownLayout, match=r"blocks\.0\.adapter\.weight"):
        resolve(
            listed(theirs("deit", PLAIN) | {"blocks.0.adapter.weight": torch.ones(3)}), Options(num_heads=3)
        )


# Preprocessing ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "config", "name", "rule", "mean"),
    [
        ("deit", like(image=ImageConfig(size=(224, 224))), "deit_x.pth", Shorter(size=256), IMAGENET_MEAN),
        ("deit", like(image=ImageConfig(size=(384, 384))), "deit_x.pth", Shorter(size=438), IMAGENET_MEAN),
        ("mae", like(image=ImageConfig(size=(448, 448))), "mae_x.pth", Shorter(size=448), IMAGENET_MEAN),
        ("dinov2", replace(DINOV2, image=ImageConfig(size=(518, 518)), patch=PatchConfig(size=(14, 14))),
         "dinov2_x.pth", Shorter(size=256), IMAGENET_MEAN),
        ("dinov3", DINOV3, "dinov3_vits16_lvd1689m.pth", Squash(size=(256, 256)), IMAGENET_MEAN),
        ("dinov3", DINOV3, "dinov3_vitl16_sat493m.pth", Squash(size=(256, 256)), (0.430, 0.411, 0.296)),
        ("beit", replace(BEIT, image=ImageConfig(size=(224, 224))), "beit_x.pth", Shorter(size=256), HALF),
        ("beit2", replace(BEIT, image=ImageConfig(size=(384, 384))), "beitv2_x.pth", Shorter(size=384), IMAGENET_MEAN),
    ],
)  # fmt: skip
def test_images_are_prepared_as_the_authors_evaluate(
    layout: str, config: ViTConfig, name: str, rule: Any, mean: tuple[float, ...]
) -> None:
    config = replace(config, depth=1)
    opened = resolve(listed(theirs(layout, config), name), Options(num_heads=3))
    assert opened.card.preprocess.resize == rule
    assert opened.card.preprocess.mean == mean


def test_an_asked_size_is_the_one_images_get() -> None:
    tensors = theirs("deit", like(image=ImageConfig(size=(224, 224)), depth=1))
    opened = resolve(listed(tensors, "deit_x.pth"), Options(num_heads=3, image_size=(448, 448)))
    assert opened.card.preprocess.image_size == (448, 448)
    assert opened.card.preprocess.resize == Shorter(size=512)
    assert opened.card.config.image.size == (224, 224)


def test_the_distilled_answer_is_the_mean_of_both_heads(tmp_path: Path) -> None:
    layout, config = MODELS["DeiT, distilled"]
    vit = ViT(config, torch.Generator().manual_seed(0))
    source = Source(card=card_of(config), tensors=vit.state_dict())
    written = write_as(source, layout_named(layout), tmp_path / "deit_x.pth")
    again = ViT(written.reopened.card.config)
    again.load_state_dict(read_tensors(written.reopened))
    image = torch.rand(2, 3, 16, 16)
    heads = again.logits_by_head(image)
    assert torch.allclose(again(image), (heads["class"] + heads["distillation"]) / 2)
    assert again(image).equal(vit(image))


# Broken files ----------------------------------------------------------------------------


def _broken(tree: dict[str, Any], other: Mapping[str, Any], draw: Random) -> dict[str, Any]:
    """A name lost, moved or of another file; a shape of other sides or another number of axes."""
    name, stranger = draw.choice(list(tree)), draw.choice(list(other))
    entry = tree[name]
    sides = [tuple(draw.choice([0, 1, 3, 24]) for _ in range(draw.randint(0, 4))), (*entry.shape, 2)]
    match draw.randint(0, 3):
        case 0:
            del tree[name]
        case 1:
            tree[name] = replace(entry, shape=draw.choice(sides))
        case 2:
            tree[name.replace("0", str(draw.randint(0, 5)))] = entry
        case _:
            tree[stranger] = other[stranger]
    return tree


@pytest.mark.parametrize("seed", range(8))
def test_a_broken_file_is_told_and_never_a_crash(seed: int) -> None:
    draw = Random(seed)
    models = [model for model in MODELS.values() if not isinstance(model[1].head.pool, JoinedPool)]
    trees = [dict(listed(theirs(layout, config)).tree) for layout, config in models]
    for _ in range(40):
        tree = dict(draw.choice(trees))
        for _ in range(draw.randint(1, 3)):
            tree = _broken(tree, draw.choice(trees), draw)
        stored = replace(listed({}), tree=tree)
        # Any answer will do, and any error that is ours.
        with contextlib.suppress(PatchwordError):
            resolve(stored, Options(num_heads=3))
