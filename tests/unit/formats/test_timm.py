"""timm's layout: what is written reads back the same, what no file says is asked for, and what contradicts is told."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from patchword.containers.stored import Entry, Stored
from patchword.errors import CheckpointError, UnknownLayout
from patchword.formats.compare import differences, explicit
from patchword.formats.facts import Options
from patchword.formats.layout import Description, Rule
from patchword.formats.layouts.timm import Timm
from patchword.formats.layouts.timm_data import data_config
from patchword.formats.layouts.timm_facts import table
from patchword.formats.layouts.timm_write import target
from patchword.formats.read import Opened, open_foreign, read_tensors, resolve
from patchword.formats.source import Source
from patchword.formats.write import write_as
from patchword.images.geometry import Border, Cover, Shorter, Squash
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
    Combined,
    IndexCoordinates,
    LayerNormConfig,
    Learned,
    MaxPool,
    MeanPool,
    NoPositions,
    RelativeBias,
    RelativeMLP,
    RMSNormConfig,
    Rope2d,
    RopeMixed,
    SinCos1d,
    SinCos2d,
)
from patchword.model.shapes import shapes
from patchword.model.vit import ViT
from patchword.weights.card import ModelCard, Provenance
from support.vit_configs import tiny

NO_CLASS = TokensConfig(class_token=False)
MEAN = HeadConfig(pool=MeanPool(), num_classes=5)
GATED = MLPConfig(hidden=40, gated=True, activation="silu")
QV = AttentionConfig(num_heads=3, bias="qv")
MODELS: dict[str, ViTConfig] = {
    "plain": tiny(),
    "no class token, mean": tiny(tokens=NO_CLASS, head=MEAN),
    "fc_norm": tiny(head=replace(MEAN, norm="pooled")),
    "no head": tiny(head=HeadConfig(num_classes=0)),
    "largest of all tokens": tiny(head=HeadConfig(pool=MaxPool(over="all"), num_classes=5)),
    "registers with positions": tiny(tokens=TokensConfig(num_registers=3), positions=Learned(covers="all")),
    "registers without": tiny(tokens=TokensConfig(num_registers=3), positions=Learned(covers="patches")),
    "CLIP": tiny(
        patch=PatchConfig(size=(8, 6), bias=False),
        block=BlockConfig(entry_norm=True),
        mlp=MLPConfig(hidden=40, activation="quick_gelu"),
        norm=LayerNormConfig(eps=1e-5),
    ),
    "SigLIP": tiny(
        tokens=NO_CLASS,
        mlp=MLPConfig(hidden=37, activation="gelu_tanh"),
        head=HeadConfig(pool=AttentionPool(), num_classes=0),
    ),
    "distilled": tiny(
        tokens=TokensConfig(distillation_token=True), head=HeadConfig(num_classes=5, distilled=True)
    ),
    "scaled, packed SwiGLU": tiny(mlp=GATED, block=BlockConfig(layer_scale=1e-5)),
    "AIMv2": tiny(
        patch=PatchConfig(size=(8, 6), norm_output=True),
        tokens=NO_CLASS,
        attention=AttentionConfig(num_heads=3, bias="none", out_bias=False),
        mlp=replace(GATED, bias=False),
        norm=RMSNormConfig(eps=1e-5),
        head=MEAN,
    ),
    "normed queries": tiny(attention=AttentionConfig(num_heads=3, qk_norm="layer", out_norm=True)),
    "norms after the branches": tiny(block=BlockConfig(order="res_post")),
    "no positions": tiny(positions=NoPositions()),
    "ragged, padded": tiny(image=ImageConfig(size=(13, 20))),
    "ragged, cut": tiny(image=ImageConfig(size=(21, 26)), patch=PatchConfig(size=(8, 6), edge="cut")),
    "EVA-02": tiny(
        attention=QV,
        mlp=replace(GATED, inner_norm=True),
        positions=Combined(
            inner=Rope2d(theta=1e4, pairing="neighbours", coordinates=IndexCoordinates(reference=(16, 16)))
        ),
        head=replace(MEAN, norm="pooled"),
    ),
    "DINOv3": tiny(
        tokens=TokensConfig(num_registers=4),
        attention=AttentionConfig(num_heads=3, bias="none"),
        positions=Rope2d(),
        block=BlockConfig(layer_scale=1e-5),
        norm=LayerNormConfig(eps=1e-5),
        head=MEAN,
    ),
    "rope, mixed": tiny(positions=RopeMixed(), block=BlockConfig(layer_scale=1e-5)),
    "PE": tiny(
        patch=PatchConfig(size=(8, 6), bias=False),
        block=BlockConfig(entry_norm=True),
        positions=Combined(
            inner=Rope2d(
                theta=1e4,
                pairing="neighbours",
                first_axis="column",
                coordinates=IndexCoordinates(offset=1.0, reference=(14, 14)),
            )
        ),
        norm=LayerNormConfig(eps=1e-5),
        head=HeadConfig(pool=AttentionPool(num_heads=6, over="all"), num_classes=5),
    ),
    "BEiT": tiny(attention=QV, positions=RelativeBias(), head=replace(MEAN, norm="pooled")),
    "BEiT, one table": tiny(attention=QV, positions=RelativeBias(shared=True), block=BlockConfig(layer_scale=0.1)),
    "relative table": tiny(tokens=NO_CLASS, positions=RelativeBias(prefix_rows=False), head=MEAN),
    "relative MLP": tiny(tokens=NO_CLASS, positions=RelativeMLP(hidden=12), head=MEAN),
    "relative MLP, shared": tiny(positions=RelativeMLP(hidden=12, shared=True)),
    "grey, odd": tiny(image=ImageConfig(size=(16, 24), channels=1)),
}  # fmt: skip


def source_of(config: ViTConfig, **changes: Any) -> Source:
    vit = ViT(config, torch.Generator().manual_seed(0))
    preprocess = Preprocess.simple(config.image.size, config.image.channels, (0.5,), (0.25,))
    classes = tuple(f"class {i}" for i in range(config.head.num_classes))
    card = ModelCard(config=config, preprocess=preprocess, classes=classes, provenance=Provenance())
    return Source(card=replace(card, **changes), tensors=vit.state_dict())


@pytest.mark.parametrize("name", MODELS)
def test_what_is_written_reads_back_the_same(name: str, tmp_path: Path) -> None:
    source = source_of(MODELS[name])
    written = write_as(source, Timm(), tmp_path / "out")
    assert not written.told and not written.changed
    assert written.reopened.card.classes == source.card.classes
    back = read_tensors(written.reopened)
    assert back.keys() == source.tensors.keys()
    assert all(torch.equal(back[key], tensor) for key, tensor in source.tensors.items())


RESTATED: dict[str, tuple[ViTConfig, set[str]]] = {
    "CLIP's projection": (
        replace(MODELS["CLIP"], head=HeadConfig(projection=9, num_classes=0)),
        {"head.projection", "head.num_classes"},
    ),
    "LiT's projection with a bias": (
        tiny(tokens=NO_CLASS, head=replace(MEAN, num_classes=0, projection=9, projection_bias=True)),
        {"head.projection", "head.num_classes", "head.projection_bias"},
    ),
    "DINOv2's registers": (tiny(tokens=TokensConfig(num_registers=3)), {"positions.covers"}),
    "sines": (tiny(positions=SinCos2d()), {"positions"}),
    "sines of the index": (tiny(positions=SinCos1d(), tokens=NO_CLASS, head=MEAN), {"positions"}),
    "no biases": (
        tiny(
            patch=PatchConfig(size=(8, 6), bias=False),
            norm=LayerNormConfig(bias=False),
            mlp=MLPConfig(hidden=40, bias=False),
            head=HeadConfig(num_classes=5, bias=False),
        ),
        {"patch.bias", "norm.bias", "mlp.bias", "head.bias"},
    ),
}


@pytest.mark.parametrize("name", RESTATED)
@torch.no_grad()
def test_what_timm_says_otherwise_answers_the_same(name: str, tmp_path: Path) -> None:
    config, fields = RESTATED[name]
    source = source_of(config, classes=())
    written = write_as(source, Timm(), tmp_path / "out")
    assert {field for field, _, _ in written.rewritten_for} == fields and not written.changed
    ours, theirs = ViT(config).eval(), ViT(written.reopened.card.config).eval()
    ours.load_state_dict(source.tensors)
    theirs.load_state_dict(read_tensors(written.reopened))
    x = torch.randn(1, 3, *config.image.size, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(ours(x), theirs(x), rtol=1e-6, atol=1e-6)


CANNOT: dict[str, tuple[ViTConfig, str]] = {
    "a projection and classes": (tiny(head=HeadConfig(projection=7)), "projection"),
    "tanh": (tiny(head=HeadConfig(pre_logits=7)), "head.pre_logits"),
    "own width of heads": (
        tiny(attention=AttentionConfig(num_heads=2, head_dim=20)),
        "attention.head_dim = 20",
    ),
    "post norm": (tiny(block=BlockConfig(order="post")), "block.order = 'post'"),
    "registers behind": (
        tiny(tokens=TokensConfig(num_registers=2, registers_last=True)),
        "tokens.registers_last",
    ),
    "eps of 1e-12": (tiny(norm=LayerNormConfig(eps=1e-12)), "norm.eps"),
    "rope and quick GELU": (
        tiny(positions=Rope2d(), mlp=MLPConfig(hidden=40, activation="quick_gelu")),
        "activation",
    ),
}


@pytest.mark.parametrize("name", CANNOT)
def test_what_timm_cannot_hold_is_refused_by_name(name: str, tmp_path: Path) -> None:
    config, word = CANNOT[name]
    with pytest.raises(CheckpointError, match=word):
        write_as(source_of(config), Timm(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_periods_that_timm_would_not_compute_are_refused_and_others_left_to_it(tmp_path: Path) -> None:
    source = source_of(tiny(positions=Rope2d(stored_periods=True)))
    assert write_as(source, Timm(), tmp_path / "computed").rewritten_for
    source.tensors["attention_positions.periods"].mul_(1.001)
    with pytest.raises(CheckpointError, match="stored rotary periods"):
        write_as(source, Timm(), tmp_path / "rounded")


def listed(
    config: ViTConfig, words: dict[str, Any] | None = None, *, name: str = "weights.pth", **beside: Any
) -> Stored:
    """A file of timm's names for this model, of shapes alone."""
    ours = shapes(config)
    card = source_of(config).card
    spelling = target(config, {}).spelling
    description = Description(config=config, preprocess=card.preprocess, spelling=spelling)
    tree: dict[str, Any] = {}
    for part in Timm().rules(description):
        if isinstance(part, Rule):
            theirs = part.op.their_shapes([ours[n] for n in part.ours])
            tree |= {
                n: Entry(dtype="F32", shape=tuple(s), file=Path("x"), offset=0)
                for n, s in zip(part.theirs, theirs, strict=True)
            }
    configs = {"config.json": words} if words is not None else {}
    whole = {"state_dict": tree, **beside} if beside else tree
    return Stored(path=Path(name), container="torch", tree=whole, metadata={}, files=(), configs=configs)


SMALL = {"embed_dim": 24, "depth": 2, "num_heads": 3, "img_size": [16, 24], "patch_size": [8, 6]}


def read(stored: Stored, **options: Any) -> Opened:
    return resolve(stored, Options(**options))


def test_an_architecture_stands_for_what_no_tensor_says() -> None:
    clip = MODELS["CLIP"]
    exact = read(listed(clip, {"architecture": "vit_base_patch16_clip_224", "model_args": SMALL}))
    quick = read(listed(clip, {"architecture": "vit_base_patch16_clip_quickgelu_224", "model_args": SMALL}))
    assert exact.card.config.mlp.activation == "gelu"
    assert quick.card.config.mlp.activation == "quick_gelu"
    assert exact.card.config.norm == quick.card.config.norm == LayerNormConfig(eps=1e-5)


def test_clip_without_a_name_is_asked_for_its_activation() -> None:
    with pytest.raises(CheckpointError) as told:
        read(listed(MODELS["CLIP"]), num_heads=3, image_size=(16, 24))
    assert "--act" in told.value.fix
    read(listed(MODELS["CLIP"]), num_heads=3, image_size=(16, 24), act="quick_gelu")


def test_eva_without_a_name_is_asked_for_words_beside_it() -> None:
    with pytest.raises(CheckpointError, match="rotary"):
        read(listed(MODELS["DINOv3"]), num_heads=3, image_size=(16, 24))


def test_perception_encoder_without_a_name_is_not_taken_for_clip() -> None:
    with pytest.raises(CheckpointError, match="rotary"):
        read(listed(MODELS["PE"]), num_heads=3, image_size=(16, 24), act="gelu")


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (tiny(block=BlockConfig(layer_scale=0.1)), "LayerScale"),
        (tiny(tokens=NO_CLASS, head=MEAN), "without a class token"),
        (tiny(mlp=GATED), "packed"),
        (tiny(attention=AttentionConfig(num_heads=3, qk_norm="layer")), "q_norm"),
        (tiny(image=ImageConfig(size=(16, 12)), positions=Learned(covers="patches")), "without a row"),
    ],
    ids=["scaled, with a head", "no class token", "gated", "normed queries", "bare class token"],
)
def test_timms_own_combinations_are_read_without_any_name(config: ViTConfig, told: str) -> None:
    opened = read(listed(config), num_heads=3, image_size=config.image.size)
    assert opened.layout.name == "timm"
    assert told in opened.report.evidence
    assert any("architecture is unknown" in note for note in opened.report.notes)
    assert not differences(explicit(config), explicit(opened.card.config))


def test_a_size_that_is_given_goes_before_a_square_of_positions() -> None:
    """Of 4 x 6 patches and one register 25 places are stored, which might be those of 5 x 5 patches."""
    size, tokens = (32, 36), TokensConfig(class_token=False, num_registers=1)
    config = tiny(image=ImageConfig(size=size), tokens=tokens, positions=Learned(covers="all"), head=MEAN)
    opened = read(listed(config), num_heads=3, image_size=size)
    assert opened.card.config.grid_size == (4, 6)
    assert opened.card.config.positions == config.positions


def test_blocks_without_positions_may_be_of_those_that_rotate() -> None:
    with pytest.raises(CheckpointError, match="rotary"):
        read(listed(tiny(positions=NoPositions())), num_heads=3, image_size=(16, 24))


def without(stored: Stored, name: str) -> Stored:
    return replace(stored, tree={n: entry for n, entry in stored.tree.items() if n != name})


VIT = {"architecture": "vit_base_patch16_224", "model_args": SMALL}


@pytest.mark.parametrize(
    ("model", "words", "lost"),
    [
        ("plain", VIT, "pos_embed"),
        ("plain", VIT, "cls_token"),
        ("plain", VIT, "patch_embed.proj.bias"),
        ("plain", VIT, "head.bias"),
        ("plain", None, "pos_embed"),
        ("plain", None, "patch_embed.proj.bias"),
    ],
)
def test_what_the_architecture_has_for_certain_is_missed(model: str, words: Any, lost: str) -> None:
    stored = listed(MODELS[model], words, name="x.pth")
    if words is None:  # told to be timm's by its LayerScale beside a head
        stored = listed(tiny(block=BlockConfig(layer_scale=0.1)))
    with pytest.raises(CheckpointError, match=lost):
        read(without(stored, lost), num_heads=3, image_size=(16, 24))


def test_a_model_whose_arguments_leave_positions_and_class_token_out_is_whole() -> None:
    args = {**SMALL, "pos_embed": "none", "class_token": False, "global_pool": "avg", "fc_norm": False}
    bare = tiny(positions=NoPositions(), tokens=NO_CLASS, head=MEAN)
    opened = read(listed(bare, {"architecture": "vit_base_patch16_224", "model_args": args}))
    assert opened.card.config.positions == NoPositions() and not opened.card.config.tokens.class_token


@pytest.mark.parametrize("name", ["vit_of_tomorrow", "qwen3_vit_88m", "deepseek_vit_base"])
def test_an_architecture_that_is_not_known_exactly_is_refused_by_name(name: str) -> None:
    with pytest.raises(UnknownLayout, match=name):
        read(listed(MODELS["plain"], {"architecture": name, "model_args": SMALL}))


def test_a_pool_that_would_leave_tensors_out_is_refused() -> None:
    with pytest.raises(CheckpointError, match="attention pool"):
        read(listed(MODELS["SigLIP"]), num_heads=3, image_size=(16, 24), pool="mean")


def test_another_patch_is_for_adapt() -> None:
    words = {"architecture": "vit_base_patch16_224", "model_args": SMALL}
    with pytest.raises(CheckpointError, match="patches are 8 x 6"):
        read(listed(MODELS["plain"], words), patch_size=(4, 4))


def test_class_names_are_the_descriptions_where_those_are_of_one_class_each() -> None:
    names = [f"n{i}" for i in range(5)]
    for words, expected in (
        ({"n0": "cat", "n1": "dog"}, ("cat", "dog", "n2", "n3", "n4")),
        ({"n0": "crane", "n1": "crane"}, tuple(names)),
    ):
        config = {"architecture": "vit_base_patch16_224", "model_args": SMALL, "label_names": names}
        assert read(listed(MODELS["plain"], {**config, "label_descriptions": words})).card.classes == expected


@pytest.mark.parametrize(
    ("name", "shape", "said"),
    [
        ("rel_pos_bias.relative_position_bias_table", (24, 3), "shared relative position table"),
        ("patch_embed.norm.weight", (24,), "norm after the patches"),
    ],
)
def test_a_part_that_no_published_model_has_is_refused_by_name(
    name: str, shape: tuple[int, ...], said: str
) -> None:
    stored = listed(MODELS["BEiT"], {"architecture": "beit_base_patch16_224", "model_args": SMALL})
    entry = Entry(dtype="F32", shape=shape, file=Path("x"), offset=0)
    with pytest.raises(CheckpointError, match=said):
        read(replace(stored, tree={**stored.tree, name: entry}))


def test_names_of_outputs_may_be_given_by_number() -> None:
    config = {"architecture": "vit_base_patch16_224", "model_args": SMALL}
    named = {"0": "cat", "2": "dog", "4": "owl"}
    opened = read(listed(MODELS["plain"], {**config, "label_names": named}))
    assert opened.card.classes == ("cat", "1", "dog", "3", "owl")
    with pytest.raises(CheckpointError, match="5 outputs"):
        read(listed(MODELS["plain"], {**config, "label_names": {"9": "cat"}}))


@pytest.mark.parametrize("beside", [{}, {"arch": "vit_base_patch32_224_clip_laion2b"}], ids=["file", "arch"])
def test_a_name_of_an_older_timm_stands_for_what_it_was_renamed_to(beside: dict[str, Any]) -> None:
    name = "weights.pth" if beside else "vit_base_patch32_224_clip_laion2b.pth"
    opened = read(listed(MODELS["CLIP"], name=name, **beside), num_heads=3, image_size=(16, 24))
    assert opened.card.config.mlp.activation == "gelu" and opened.card.config.norm.eps == 1e-5
    assert opened.card.preprocess.mean == (0.48145466, 0.4578275, 0.40821073)


def test_a_model_that_answers_with_tokens_is_read_where_it_has_no_head() -> None:
    words = {"architecture": "vit_base_patch16_224", "model_args": {**SMALL, "global_pool": ""}}
    opened = read(listed(MODELS["no head"], words))
    assert opened.card.config.head == MODELS["no head"].head
    with pytest.raises(CheckpointError, match="pooling"):
        read(listed(MODELS["plain"], words))


def test_a_patch_that_is_a_row_of_numbers_is_a_square_of_three_channels() -> None:
    naflex = {
        "embeds.proj.weight": (24, 192), "embeds.proj.bias": (24,), "embeds.pos_embed": (1, 2, 3, 24),
        "norm.weight": (24,), "norm.bias": (24,),
    }  # fmt: skip
    stored = listed(tiny(depth=1))
    whole = {n: e for n, e in stored.tree.items() if n.startswith("blocks.")}
    entries = {n: Entry(dtype="F32", shape=s, file=Path("x"), offset=0) for n, s in naflex.items()}
    opened = read(replace(stored, tree={**whole, **entries}), num_heads=3)
    assert opened.card.config.patch.size == (8, 8) and opened.card.config.image.channels == 3


def test_a_training_file_names_its_architecture() -> None:
    args = {"gp": "avg", "interpolation": "random"}
    stored = listed(MODELS["plain"], arch="vit_small_patch16_224", epoch=3, args=args)
    opened = read(stored, num_heads=3, image_size=(16, 24))
    assert opened.layout.name == "timm"
    assert isinstance(opened.card.config.head.pool, MeanPool)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"architecture": "vit_base_patch16_224"}, "embed_dim is 768"),
        ({"architecture": "vit_base_patch16_224", "model_args": {**SMALL, "depth": 7}}, "depth is 7"),
        ({"architecture": 7}, "architecture"),
        ({"architecture": "vit_base_patch16_224", "model_args": [1]}, "model_args"),
        ({"architecture": "vit_base_patch16_224", "model_args": {**SMALL, "num_heads": "3"}}, "num_heads"),
        ({"architecture": "vit_base_patch16_224", "model_args": {**SMALL, "img_size": "big"}}, "img_size"),
        ({"architecture": "vit_base_patch16_224", "model_args": {**SMALL, "global_pool": "prr"}}, "prr"),
        ({"architecture": "vit_base_patch16_224", "model_args": {**SMALL, "act_layer": "prelu"}}, "prelu"),
        ({"architecture": "vit_base_patch16_224", "model_args": {**SMALL, "norm_layer": "simplenorm"}}, "simplenorm"),
        ({"architecture": "vit_base_patch16_224", "model_args": {**SMALL, "init_values": "small"}}, "init_values"),
        ({"architecture": "vit_base_patch16_224", "model_args": SMALL, "pretrained_cfg": {"input_size": 5}}, "input_size"),
        ({"architecture": "vit_base_patch16_224", "model_args": SMALL, "pretrained_cfg": {"interpolation": "best"}}, "best"),
        ({"architecture": "vit_base_patch16_224", "model_args": SMALL, "pretrained_cfg": {"mean": "x"}}, "mean"),
        ({"architecture": "vit_base_patch16_224", "model_args": SMALL, "pretrained_cfg": {"crop_pct": 0}}, "crop_pct"),
        ({"architecture": "vit_base_patch16_224", "model_args": SMALL, "label_names": ["one"]}, "1 labels"),
        ({"architecture": "vit_base_patch16_224", "model_args": SMALL, "label_names": 7.5}, "7.5 labels"),
    ],
)  # fmt: skip
def test_words_that_are_wrong_are_told(words: dict[str, Any], said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        read(listed(MODELS["plain"], words))


def test_heads_that_the_tensors_show_contradict_the_config() -> None:
    words = {"architecture": "vit_base_patch16_224", "model_args": {**SMALL, "num_heads": 4}}
    with pytest.raises(CheckpointError, match="num_heads is 4"):
        read(listed(MODELS["normed queries"], words))


def test_what_the_backbone_has_not_is_refused_by_name() -> None:
    stored = listed(MODELS["plain"])
    tree = {**stored.tree, "blocks.0.attn.lambda_q1": next(iter(stored.tree.values()))}
    with pytest.raises(UnknownLayout, match="differential attention"):
        read(replace(stored, tree=tree), num_heads=3, image_size=(16, 24))


@pytest.mark.parametrize(
    ("mode", "size", "crop", "rule"),
    [
        ("center", (224, 224), 0.9, Shorter(size=248)),
        ("center", (224, 160), 0.5, Cover(size=(448, 320))),
        ("squash", (224, 224), 1.0, Squash(size=(224, 224))),
        ("border", (224, 224), 0.875, Border(size=(256, 256))),
    ],
)
def test_the_data_config_goes_both_ways(mode: str, size: tuple[int, int], crop: float, rule: Any) -> None:
    data = {"input_size": [3, *size], "crop_pct": crop, "crop_mode": mode, "interpolation": "bilinear"}
    model_args = {**SMALL, "patch_size": 8}
    del model_args["img_size"]
    words = {"architecture": "vit_base_patch16_224", "model_args": model_args, "pretrained_cfg": data}
    square = replace(MODELS["plain"], image=ImageConfig(size=size), patch=PatchConfig(size=(8, 8)))
    stored = listed(square, words)
    prepared = read(stored).card.preprocess
    assert prepared.resize == rule and prepared.image_size == size
    assert not prepared.reading.apply_exif
    back = data_config(prepared)
    assert {key: back[key] for key in data} == data


def test_a_written_config_names_only_what_json_holds() -> None:
    for config in MODELS.values():
        found = target(config, {})
        assert found.architecture in table()["architectures"]
        assert json.loads(json.dumps(dict(found.args))) == dict(found.args)


def test_a_file_is_written_back_as_it_was_spelled(tmp_path: Path) -> None:
    """Three projections stay three, and the architecture keeps its name."""
    config = MODELS["EVA-02"]
    spelling = target(
        config, {"kind": "Eva", "split": True, "architecture": "eva02_base_patch14_448"}
    ).spelling
    source = replace(source_of(config), layout=Timm(), spelling=spelling)
    written = write_as(source, Timm(), tmp_path / "out")
    opened = open_foreign(tmp_path / "out")
    assert "blocks.0.attn.q_proj.weight" in opened.checkpoint.tensors
    assert opened.checkpoint.config_json["architecture"] == "eva02_base_patch14_448"
    assert not differences(explicit(config), explicit(written.reopened.card.config))
