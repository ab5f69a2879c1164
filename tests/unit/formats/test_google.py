"""Google's .npz files, written by hand here: what is told from names and shapes, in every spelling."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from patchword.containers.stored import Entry, Stored, open_stored, tensor_of
from patchword.containers.write import write_npz
from patchword.errors import CheckpointError, KeyMismatch, UnknownLayout
from patchword.formats.facts import Options
from patchword.formats.layout import Description
from patchword.formats.layouts import LAYOUTS
from patchword.formats.layouts.google import BigVision, GoogleViT
from patchword.formats.layouts.google_names import (
    INPUT_POSITIONS,
    OLD_POSITIONS,
    ROOT_POSITIONS,
    NamingVariant,
)
from patchword.formats.layouts.jeonsworld import JeonsworldViT
from patchword.formats.read import Opened, open_foreign, read_tensors, resolve
from patchword.formats.source import Source
from patchword.formats.write import write_as, written_tensors
from patchword.images.geometry import Patches, Shorter, Squash
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
    AttentionPool,
    ClassPool,
    FirstPool,
    Learned,
    MeanPool,
    NoPositions,
    ResNetStem,
    SinCos2d,
)
from patchword.model.vit import ViT
from patchword.weights.card import ModelCard

KEYS = Path(__file__).parents[2] / "data" / "parity" / "keys"
PLAIN = ViTConfig(
    image=ImageConfig(size=(12, 12)),
    patch=PatchConfig(size=(4, 4)),
    dim=8,
    depth=2,
    attention=AttentionConfig(num_heads=2),
    mlp=MLPConfig(hidden=12, activation="gelu_tanh"),
    head=HeadConfig(num_classes=5),
)
BARE = replace(
    PLAIN,
    tokens=TokensConfig(class_token=False),
    positions=Learned(covers="patches"),
    head=HeadConfig(pool=MeanPool(), num_classes=5),
)
MAP = replace(BARE, head=HeadConfig(pool=AttentionPool(), num_classes=0))
HYBRID = replace(
    PLAIN,
    image=ImageConfig(size=(32, 32)),
    patch=PatchConfig(size=(1, 1), stem=ResNetStem(units=(1, 2), width=32)),
)
LINEN = NamingVariant(prefix="params/", positions=ROOT_POSITIONS, numbered=False)
TOWER = replace(LINEN, prefix="params/img/")

CASES: dict[str, tuple[ViTConfig, NamingVariant]] = {
    "published": (PLAIN, NamingVariant()),
    "pre_logits": (replace(PLAIN, head=HeadConfig(num_classes=5, pre_logits=6)), NamingVariant()),
    "linen": (PLAIN, NamingVariant(numbered=False)),
    "old big_vision": (PLAIN, NamingVariant(prefix="params/", positions=OLD_POSITIONS)),
    "opt/target": (replace(PLAIN, positions=Learned(covers="patches")), replace(LINEN, prefix="opt/target/")),
    "gap": (BARE, NamingVariant(numbered=False)),
    "sines": (replace(BARE, positions=SinCos2d()), replace(LINEN, positions="")),
    "own head width": (replace(PLAIN, attention=AttentionConfig(num_heads=3, head_dim=4)), NamingVariant()),
    "MAP": (MAP, TOWER),
    "MAP of its own heads": (
        replace(MAP, head=HeadConfig(pool=AttentionPool(num_heads=4, hidden=10), num_classes=0)),
        TOWER,
    ),
    "MAP at the top": (MAP, replace(LINEN, prefix="", pool="")),
    "MAP, projected": (
        replace(
            MAP, head=HeadConfig(pool=AttentionPool(), num_classes=0, projection=6, projection_bias=True)
        ),
        TOWER,
    ),
    "LiT": (
        replace(PLAIN, head=HeadConfig(num_classes=0, projection=6, projection_bias=True)),
        NamingVariant(prefix="img/", numbered=False),
    ),
    "scanned": (MAP, replace(TOWER, scanned=True)),
    "NaFlex": (MAP, replace(TOWER, laid_out=True, flat_patches=True)),
    "hybrid": (HYBRID, NamingVariant()),
    "first hybrids": (HYBRID, NamingVariant(flat_norms=False)),
    "hybrid of a root": (
        replace(HYBRID, patch=PatchConfig(size=(4, 4), stem=ResNetStem(units=(), width=32))),
        NamingVariant(),
    ),
}


def tensors_of(config: ViTConfig, seed: int = 0) -> dict[str, Tensor]:
    drawn = torch.Generator().manual_seed(seed)
    state = ViT(config, drawn).state_dict()
    return {name: torch.randn(t.shape, generator=drawn) for name, t in state.items()}


def names_of(config: ViTConfig, spelling: NamingVariant, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under Google's names."""
    preprocess = Preprocess.simple(config.image.size, config.image.channels)
    described = Description(config=config, preprocess=preprocess, spelling={"spelling": spelling})
    return written_tensors(BigVision(), described, tensors)


def written(folder: Path, config: ViTConfig, spelling: NamingVariant, **more: Tensor) -> Path:
    path = folder / "model.npz"
    write_npz(path, names_of(config, spelling, tensors_of(config)) | more)
    return path


def opened_of(path: Path, **options: Any) -> Opened:
    return open_foreign(path, Options(**options))


def needed(config: ViTConfig) -> dict[str, Any]:
    return {} if isinstance(config.positions, Learned) else {"image_size": config.image.size}


def same(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(
        ours[name].dtype == theirs[name].dtype and torch.equal(ours[name], theirs[name]) for name in ours
    )


@pytest.mark.parametrize(("config", "spelling"), CASES.values(), ids=CASES.keys())
def test_every_spelling_gives_the_model_and_the_file_back(
    tmp_path: Path, config: ViTConfig, spelling: NamingVariant
) -> None:
    path = written(tmp_path, config, spelling)
    opened = opened_of(path, **needed(config))
    assert opened.report.filled == 1 and not opened.report.new
    found = opened.card.config
    # How a table or kernel goes to another size, and what becomes of an edge there, is the layout's to say.
    patch = replace(found.patch, resample=config.patch.resample, edge=config.patch.edge)
    alike = replace(found, positions=config.positions, patch=patch)
    assert alike == config
    assert type(opened.card.config.positions) is type(config.positions)
    read = read_tensors(opened)
    assert same(read, tensors_of(config))
    back = written_tensors(opened.layout, opened.description, read)
    assert same(back, {name: tensor_of(entry) for name, entry in open_stored(path).tree.items()})


@pytest.mark.parametrize("size", [(13, 19), (15, 18)], ids=["pixels left over", "columns left over"])
def test_what_fills_no_patch_is_left_out(size: tuple[int, int], tmp_path: Path) -> None:
    """Their convolution pads nothing: such an image answers as its whole patches do."""
    config = replace(PLAIN, image=ImageConfig(size=(12, 16)))
    opened = opened_of(written(tmp_path, config, NamingVariant()), image_size=size)
    found = opened.card.config
    assert found.grid_size == (3, 4) and found.image.size == size
    vit = ViT(found)
    image = torch.randn(1, config.image.channels, *size)
    assert torch.equal(vit(image), vit(image[:, :, :12, :16]))


def test_blocks_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    config = replace(PLAIN, depth=12)
    read = read_tensors(opened_of(written(tmp_path, config, NamingVariant())))
    assert same(read, tensors_of(config))


def test_scanned_and_separate_blocks_are_the_same_model(tmp_path: Path) -> None:
    found = []
    for scanned in (False, True):
        path = tmp_path / f"{scanned}.npz"
        write_npz(path, names_of(MAP, replace(TOWER, scanned=scanned), tensors_of(MAP)))
        found.append(read_tensors(opened_of(path)))
    assert same(*found)


def test_a_grid_of_two_by_five_has_no_slot_though_nine_would_be_a_square(tmp_path: Path) -> None:
    config = replace(PLAIN, image=ImageConfig(size=(8, 20)), positions=Learned(covers="patches"))
    opened = opened_of(written(tmp_path, config, LINEN), image_size=(8, 20))
    assert opened.card.config.grid_size == (2, 5)
    assert opened.card.config.num_prefix_positions == 0


def test_fifteen_patches_and_a_slot_are_no_square_of_sixteen(tmp_path: Path) -> None:
    config = replace(PLAIN, image=ImageConfig(size=(12, 20)))
    opened = opened_of(written(tmp_path, config, NamingVariant()), image_size=(12, 20))
    assert opened.card.config.grid_size == (3, 5)
    assert opened.card.config.num_prefix_positions == 1


@pytest.mark.parametrize("lost", ["cls", "Transformer/posembed_input/pos_embedding"])
def test_a_lost_class_token_is_no_square_grid_and_a_lost_table_no_sines(tmp_path: Path, lost: str) -> None:
    config = replace(PLAIN, image=ImageConfig(size=(12, 20)))  # 3 x 5 and a slot: 16, a square
    names = names_of(config, NamingVariant(), tensors_of(config))
    del names[lost]
    path = tmp_path / "torn.npz"
    write_npz(path, names)
    with pytest.raises(KeyMismatch, match=f"{lost} is missing"):
        opened_of(path, image_size=(12, 20))


def test_without_the_image_size_a_grid_that_is_no_square_is_asked_for(tmp_path: Path) -> None:
    config = replace(PLAIN, image=ImageConfig(size=(12, 20)))
    with pytest.raises(CheckpointError, match="15 patches cannot form a square") as error:
        opened_of(written(tmp_path, config, NamingVariant()))
    assert "--image-size" in error.value.fix


@pytest.mark.parametrize("prefix", ["params/", "opt/target/", "params/img/"])
def test_the_optimisers_copies_are_not_mistaken_for_the_weights(tmp_path: Path, prefix: str) -> None:
    spelling = replace(LINEN, prefix=prefix)
    names = names_of(MAP, spelling, tensors_of(MAP))
    copies = {name.replace(prefix, "opt/0/0/"): torch.zeros_like(t) for name, t in names.items()}
    clock = {"chrono/accum_pause_time": torch.zeros((), dtype=torch.float64)}
    path = tmp_path / "state.npz"
    write_npz(path, copies | names | clock)
    opened = opened_of(path)
    assert same(read_tensors(opened), tensors_of(MAP))
    assert {d.reason for d in opened.plan.dropped} == {"the optimiser's state", "the training clock"}


def test_a_text_tower_is_dropped_with_its_reason_and_anything_else_is_an_error(tmp_path: Path) -> None:
    text = {
        "params/txt/Encoder_0/encoderblock_0/LayerNorm_0/scale": torch.ones(3),
        "params/t": torch.ones(1),
        "params/b": torch.ones(1),
    }
    opened = opened_of(written(tmp_path, MAP, TOWER, **text))
    assert sum(len(d.names) for d in opened.plan.dropped) == 3
    with pytest.raises(UnknownLayout, match="params/img/extra"):
        opened_of(written(tmp_path, MAP, TOWER, **{"params/img/extra": torch.ones(2)}))


def test_the_language_model_beside_is_dropped_and_the_missing_pool_told(tmp_path: Path) -> None:
    config = replace(BARE, head=HeadConfig(pool=MeanPool(), num_classes=0))
    language = {"params/llm/embedder/input_embedding": torch.ones(3, 2)}
    opened = opened_of(written(tmp_path, config, replace(TOWER, scanned=True), **language))
    assert opened.plan.dropped[0].reason == "the language model"
    assert any("no pooling of its own" in note for note in opened.report.notes)


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    names = names_of(PLAIN, NamingVariant(), tensors_of(PLAIN))
    del names["Transformer/encoderblock_1/MultiHeadDotProductAttention_1/key/kernel"]
    path = tmp_path / "torn.npz"
    write_npz(path, names)
    with pytest.raises(KeyMismatch, match="encoderblock_1/MultiHeadDotProductAttention_1/key/kernel"):
        opened_of(path)


def test_the_pool_is_an_option_only_where_names_do_not_tell(tmp_path: Path) -> None:
    bare = written(tmp_path, BARE, LINEN)
    assert isinstance(opened_of(bare).card.config.head.pool, MeanPool)
    assert isinstance(opened_of(bare, pool="first").card.config.head.pool, FirstPool)
    with pytest.raises(CheckpointError, match="no such token"):
        opened_of(bare, pool="class")
    with_class = written(tmp_path, PLAIN, NamingVariant())
    assert isinstance(opened_of(with_class).card.config.head.pool, ClassPool)
    with pytest.raises(CheckpointError, match="attention pool"):
        opened_of(written(tmp_path, MAP, TOWER), pool="mean")


def test_heads_are_in_the_shapes_and_an_option_may_not_contradict_them(tmp_path: Path) -> None:
    path = written(tmp_path, PLAIN, NamingVariant())
    assert opened_of(path, num_heads=2).card.config.attention.num_heads == 2
    with pytest.raises(CheckpointError, match="2 heads, but --num-heads is 4"):
        opened_of(path, num_heads=4)


def test_another_patch_resamples_the_kernel_and_keeps_the_stored_positions(tmp_path: Path) -> None:
    path = written(tmp_path, PLAIN, NamingVariant())
    opened = opened_of(path, patch_size=(8, 8), image_size=(40, 40))
    config, read = opened.card.config, read_tensors(opened)
    assert config.patch.size == (8, 8) and config.grid_size == (3, 3)
    assert opened.card.preprocess.image_size == (40, 40)
    assert torch.equal(read["positions.grid"], tensors_of(PLAIN)["positions.grid"])
    # A patch enlarged twice gives the token it gave before.
    patch = torch.randn(1, 3, 4, 4, dtype=torch.float64)
    large = torch.nn.functional.interpolate(patch, size=(8, 8), mode="bilinear", align_corners=False)
    old = (patch * tensors_of(PLAIN)["patch_embed.proj.weight"].double()).sum((1, 2, 3))
    new = (large * read["patch_embed.proj.weight"].double()).sum((1, 2, 3))
    assert torch.allclose(old, new, atol=1e-5)


def test_a_kernel_of_bfloat16_is_resampled_in_float32(tmp_path: Path) -> None:
    found = []
    for name, dtype in (("half", torch.bfloat16), ("whole", torch.float32)):
        tensors = {n: t.bfloat16().to(dtype) for n, t in tensors_of(PLAIN).items()}
        write_npz(tmp_path / f"{name}.npz", names_of(PLAIN, NamingVariant(), tensors))
        found.append(read_tensors(opened_of(tmp_path / f"{name}.npz", patch_size=(6, 6))))
    assert torch.equal(*(read["patch_embed.proj.weight"] for read in found))


def test_bfloat16_is_two_bytes_there_and_comes_back_as_them(tmp_path: Path) -> None:
    tensors = {name: t.bfloat16() for name, t in tensors_of(PLAIN).items()}
    path, again = tmp_path / "half.npz", tmp_path / "again.npz"
    write_npz(path, names_of(PLAIN, NamingVariant(), tensors))
    opened = opened_of(path)
    read = read_tensors(opened)
    assert all(t.dtype == torch.bfloat16 for t in read.values()) and same(read, tensors)
    write_npz(again, written_tensors(opened.layout, opened.description, read))
    with np.load(path) as before, np.load(again) as after:
        assert {k: before[k].tobytes() for k in before} == {k: after[k].tobytes() for k in after}
        assert before["cls"].dtype == np.dtype("V2")


def test_each_family_is_fed_its_own_way(tmp_path: Path) -> None:
    def resize(config: ViTConfig, spelling: NamingVariant) -> tuple[type, str, bool]:
        chosen = opened_of(written(tmp_path, config, spelling), **needed(config)).card.preprocess
        return type(chosen.resize), chosen.resample.rounding, chosen.resample.antialias

    assert resize(PLAIN, NamingVariant()) == (Squash, "none", False)
    assert resize(MAP, TOWER) == (Squash, "truncate", False)
    assert resize(BARE, LINEN) == (Shorter, "truncate", False)
    assert resize(MAP, replace(TOWER, laid_out=True, flat_patches=True)) == (Patches, "none", True)


def listed(name: str, file: str = "") -> Stored:
    """A published file by the names and shapes of its tensors."""
    tensors = json.loads((KEYS / f"{name}.json").read_text(encoding="utf-8"))["tensors"]
    tree = {n: Entry(dtype="F32", shape=tuple(s), file=Path("x"), offset=0) for n, s in tensors.items()}
    return Stored(path=Path(name), container="npz", tree=tree, files=(Path(file),) if file else ())


# Writing ---------------------------------------------------------------------------------


def source_of(config: ViTConfig) -> Source:
    card = ModelCard(config=config, preprocess=Preprocess.simple(config.image.size, config.image.channels))
    return Source(card=card, tensors=tensors_of(config))


def test_a_model_from_elsewhere_is_written_in_the_published_spelling(tmp_path: Path) -> None:
    path = write_as(source_of(PLAIN), GoogleViT(), tmp_path / "b.npz").path
    names = set(open_stored(path).tree)
    assert {INPUT_POSITIONS, "cls", "Transformer/encoderblock_1/MlpBlock_3/Dense_1/kernel"} <= names


@pytest.mark.parametrize("name", ["published", "linen", "gap", "hybrid", "LiT", "pre_logits"])
def test_google_holds_its_own_models(tmp_path: Path, name: str) -> None:
    written_file = write_as(source_of(CASES[name][0]), GoogleViT(), tmp_path / "b.npz")
    assert not written_file.changed


@pytest.mark.parametrize("name", ["opt/target", "old big_vision", "gap", "sines", "MAP", "MAP, projected"])
def test_big_vision_holds_its_own_models(tmp_path: Path, name: str) -> None:
    written_file = write_as(source_of(CASES[name][0]), BigVision(), tmp_path / "b.npz")
    assert not written_file.changed


def test_siglips_tower_goes_to_other_formats(tmp_path: Path) -> None:
    """A table without a row for prefix tokens is the same under every name."""
    opened = opened_of(written(tmp_path, MAP, TOWER))
    source = Source(card=opened.card, tensors=read_tensors(opened))
    for layout in LAYOUTS:
        if layout.name in ("timm", "transformers-siglip"):
            assert not write_as(source, layout, tmp_path / layout.name).changed


def test_what_is_published_is_written_under_the_published_names() -> None:
    opened = resolve(listed("google_vit_r_ti16_augreg"), Options())
    assert opened.layout.spelling(opened.card) == opened.description.spelling


def test_a_published_file_knows_its_classes() -> None:
    published = (
        "Ti_16-i21k-300ep-lr_0.001-aug_none-wd_0.03-do_0.0-sd_0.0--imagenet2012-steps_20k-lr_0.03-res_384"
    )
    card = resolve(listed("google_vit_ti16_augreg_i1k_384", f"{published}.npz"), Options()).card
    assert len(card.classes) == 1000 and card.classes[0].startswith("tench")
    assert not resolve(listed("google_vit_ti16_augreg_i1k_384", "mine.npz"), Options()).card.classes


REFUSED: dict[str, ViTConfig] = {
    "registers": replace(PLAIN, tokens=TokensConfig(num_registers=2)),
    "LayerScale": replace(PLAIN, block=BlockConfig(layer_scale=1e-5)),
    "norm before the blocks": replace(PLAIN, block=BlockConfig(entry_norm=True)),
    "positions = (none|NoPositions)": replace(PLAIN, positions=NoPositions()),
    "mlp.gated": replace(PLAIN, mlp=MLPConfig(hidden=12, gated=True, activation="silu")),
    "normalised queries and keys": replace(PLAIN, attention=AttentionConfig(num_heads=2, qk_norm="layer")),
    "projection": replace(PLAIN, head=HeadConfig(num_classes=0, projection=4)),
    "head.bias": replace(PLAIN, head=HeadConfig(num_classes=5, bias=False)),
}


@pytest.mark.parametrize(
    "layout", [GoogleViT(), BigVision(), JeonsworldViT()], ids=lambda layout: layout.name
)
@pytest.mark.parametrize("part", REFUSED)
def test_what_the_format_cannot_hold_is_refused_by_name(tmp_path: Path, layout: Any, part: str) -> None:
    with pytest.raises(CheckpointError, match=part):
        write_as(source_of(REFUSED[part]), layout, tmp_path / "out")
    assert not list(tmp_path.iterdir())


# jeonsworld ------------------------------------------------------------------------------

TORCH_STEM = ResNetStem(
    units=(1, 2, 1), width=32, weight_eps="variance", padding="symmetric", proj_norm="channel"
)


@pytest.mark.parametrize("stem", [None, TORCH_STEM], ids=["plain", "hybrid"])
def test_jeonsworlds_files_come_back(tmp_path: Path, stem: ResNetStem | None) -> None:
    config = replace(PLAIN, depth=11, mlp=MLPConfig(hidden=12, activation="gelu"))
    if stem is not None:
        config = replace(config, image=ImageConfig(size=(48, 48)), patch=PatchConfig(size=(1, 1), stem=stem))
    made = write_as(source_of(config), JeonsworldViT(), tmp_path / "model.bin")
    assert made.told == {"num_heads": 2} and not made.changed
    assert same(read_tensors(made.reopened), tensors_of(config))


def test_a_stem_of_the_other_port_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"patch\.stem"):
        write_as(source_of(HYBRID), JeonsworldViT(), tmp_path / "model.bin")
    other = replace(HYBRID, patch=PatchConfig(size=(1, 1), stem=TORCH_STEM))
    with pytest.raises(CheckpointError, match=r"patch\.stem"):
        write_as(source_of(other), GoogleViT(), tmp_path / "model.npz")
