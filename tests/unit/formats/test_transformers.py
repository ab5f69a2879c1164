"""transformers' folders: what they say is taken, what they contradict is refused, what is read is written back."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from patchword.containers.stored import Entry, Stored, open_stored, tensor_of
from patchword.errors import CheckpointError, UnknownLayout
from patchword.formats.checkpoint import unwrap
from patchword.formats.facts import Options
from patchword.formats.layout import Ignored
from patchword.formats.layouts.transformers_config import JsonConfig
from patchword.formats.layouts.transformers_preprocess import read_preprocess, write_preprocess
from patchword.formats.read import Opened, open_foreign, read_tensors, resolve
from patchword.formats.recognise import recognise
from patchword.formats.source import Source
from patchword.formats.write import Written, layouts_named, write_as, write_as_first, written_tensors
from patchword.images.geometry import Border, Capped, Keep, Patches, Shorter, Squash
from patchword.images.preprocess import Preprocess, Resample
from patchword.inference.load import load
from patchword.model.config import AttentionConfig, ImageConfig, MLPConfig, PatchConfig, TokensConfig
from patchword.model.kinds import ClassPool, JoinedPool, MeanPool, Rope2d, SinCos2d
from patchword.model.vit import ViT
from patchword.weights.card import ModelCard
from support.parity import committed, options_of
from support.vit_configs import tiny

CASES = committed()
SMALL = sorted(CASES.glob("transformers_small_*"))
each = pytest.mark.parametrize(
    "folder", SMALL, ids=lambda folder: folder.name.removeprefix("transformers_small_")
)


def small(name: str) -> Path:
    return CASES / f"transformers_small_{name}"


def changed(tmp_path: Path, name: str, file: str = "config.json", **values: Any) -> Path:
    """A copy of a case whose JSON file says something else; None takes a value away."""
    folder = tmp_path / "changed"
    shutil.copytree(small(name), folder)
    said = json.loads((folder / file).read_text()) | values
    (folder / file).write_text(json.dumps({k: v for k, v in said.items() if v is not None}))
    return folder


def without_config(folder: Path) -> Opened:
    return resolve(replace(open_stored(folder), configs={}), Options())


@each
def test_writing_what_was_read_gives_every_tensor_back(folder: Path) -> None:
    opened = open_foreign(folder, Options())
    written = written_tensors(opened.layout, opened.description, read_tensors(opened))
    drops = [part for part in opened.layout.rules(opened.description) if isinstance(part, Ignored)]
    for name, entry in opened.checkpoint.tensors.items():
        if not any(drop.names(name) for drop in drops):
            assert torch.equal(written[name], tensor_of(entry)), name


@each
def test_a_folder_that_is_written_reads_back_the_same(folder: Path, tmp_path: Path) -> None:
    opened = open_foreign(folder, Options())
    source = Source(card=opened.card, tensors=read_tensors(opened))
    again = write_as(source, opened.layout, tmp_path / "out").reopened
    assert again.card.config == opened.card.config
    assert again.card.preprocess == opened.card.preprocess
    assert again.card.classes == opened.card.classes
    tensors = read_tensors(again)
    assert all(torch.equal(tensors[name], tensor) for name, tensor in source.tensors.items())


# Layouts whose tensors are those of a more common one, which is taken without a config.json.
TWINS = {
    "transformers-blip-2": "transformers-blip",
    "transformers-git": "transformers-clip",
    "transformers-idefics3": "transformers-siglip",
    "transformers-phi4-multimodal": "transformers-siglip",
}


@each
def test_a_file_without_config_is_told_by_its_names(folder: Path) -> None:
    opened = open_foreign(folder, Options())
    heads = opened.card.config.attention.num_heads
    bare = resolve(replace(open_stored(folder), configs={}), Options(num_heads=heads))
    twin = "transformers-dinov2-registers" if folder.name.endswith("tipsv2_swiglu") else ""
    assert bare.layout.name == (twin or TWINS.get(opened.layout.name, opened.layout.name))
    assert bare.report.filled == 1
    assert bare.card.config.dim == opened.card.config.dim


def test_heads_that_nothing_tells_must_be_given() -> None:
    with pytest.raises(CheckpointError, match="--num-heads"):
        without_config(small("vit"))


def test_a_config_that_tells_the_width_alone_means_the_class_defaults(tmp_path: Path) -> None:
    folder = changed(tmp_path, "vit", num_attention_heads=None, layer_norm_eps=None, hidden_act=None)
    config = open_foreign(folder, Options()).card.config
    assert (config.attention.num_heads, config.norm.eps, config.mlp.activation) == (12, 1e-12, "gelu")


@pytest.mark.parametrize(
    ("name", "eps", "act"),
    [
        ("vit", 1e-12, "gelu"),
        ("msn", 1e-6, "gelu"),
        ("beit", 1e-12, "gelu"),
        ("dinov2", 1e-6, "gelu"),
        ("dinov2_swiglu", 1e-6, "silu"),
        ("dinov3", 1e-5, "gelu"),
    ],
)
def test_each_class_has_defaults_of_its_own(name: str, eps: float, act: str, tmp_path: Path) -> None:
    folder = changed(tmp_path, name, layer_norm_eps=None, hidden_act=None)
    config = open_foreign(folder, Options()).card.config
    assert (config.norm.eps, config.mlp.activation) == (eps, act)


@pytest.mark.parametrize(
    ("name", "eps", "act"),
    [("clip_classifier", 1e-5, "quick_gelu"), ("siglip_classifier", 1e-6, "gelu_tanh")],
)
def test_a_tower_that_its_config_does_not_describe_has_the_defaults(
    name: str, eps: float, act: str, tmp_path: Path
) -> None:
    said = json.loads((small(name) / "config.json").read_text())["vision_config"]
    kept = {key: value for key, value in said.items() if key not in ("layer_norm_eps", "hidden_act")}
    config = open_foreign(changed(tmp_path, name, vision_config=kept), Options()).card.config
    assert (config.norm.eps, config.mlp.activation) == (eps, act)


def test_an_option_wins_over_the_config() -> None:
    options = Options(num_heads=4, eps=1e-3, act="relu", pool="mean", mean=(0.1,), std=(0.2,))
    card = open_foreign(small("vit"), options).card
    assert card.config.attention.num_heads == 4
    assert (card.config.norm.eps, card.config.mlp.activation) == (1e-3, "relu")
    assert card.config.head.pool == MeanPool()
    assert (card.preprocess.mean, card.preprocess.std) == ((0.1,), (0.2,))


WRONG: tuple[tuple[dict[str, Any], str], ...] = (
    ({"hidden_size": 16}, "hidden_size is 16.*12"),
    ({"num_hidden_layers": 3}, "num_hidden_layers is 3.*2"),
    ({"intermediate_size": 24}, "intermediate_size is 24.*20"),
    ({"patch_size": 8}, "patch_size.*8"),
    ({"image_size": 32}, "image_size.*64|32"),
    ({"num_attention_heads": 5}, "5 heads"),
    ({"num_attention_heads": "three"}, "num_attention_heads = 'three'"),
    ({"layer_norm_eps": 0}, "layer_norm_eps = 0"),
    ({"layer_norm_eps": "small"}, "layer_norm_eps = 'small'"),
    ({"image_size": [16, 16, 16]}, "image_size = "),
    ({"image_size": "big"}, "image_size = 'big'"),
    ({"hidden_act": "snake"}, "hidden_act = 'snake'"),
    ({"hidden_act": 3}, "hidden_act = 3"),
    ({"id2label": {"0": "a", "1": "b"}}, "has 2 classes, but the head has 5"),
    ({"id2label": ["a"]}, "id2label"),
)


@pytest.mark.parametrize(("values", "telling"), WRONG, ids=lambda value: str(value)[:40])
def test_a_wrong_config_is_refused_and_named(values: dict[str, Any], telling: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=telling):
        open_foreign(changed(tmp_path, "vit", **values), Options())


def test_a_pooler_with_another_activation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="pooler_act"):
        open_foreign(changed(tmp_path, "vit_pooler", pooler_act="relu"), Options())


def test_a_table_of_another_window_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="49 rows, which match no square"):
        open_foreign(changed(tmp_path, "beit", image_size=32), Options())


def test_a_model_type_that_is_not_read_is_no_layout_of_ours(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"'dpt'.*does not read"):
        open_foreign(changed(tmp_path, "vit", model_type="dpt"), Options())


def test_placeholders_are_no_names_and_doubles_get_their_number(tmp_path: Path) -> None:
    labels = {str(i): f"LABEL_{i}" for i in range(5)}
    assert open_foreign(changed(tmp_path / "a", "vit", id2label=labels), Options()).card.classes == ()
    names = {"0": "crane", "1": "heron", "2": "crane", "3": "gull", "4": "tern"}
    classes = open_foreign(changed(tmp_path / "b", "vit", id2label=names), Options()).card.classes
    assert classes == ("crane (0)", "heron", "crane (2)", "gull", "tern")


def test_each_family_answers_from_what_its_class_reads() -> None:
    heads = {folder.name[19:]: open_foreign(folder, Options()).card.config.head for folder in SMALL}
    assert heads["vit"].pool == ClassPool() and heads["vit"].num_classes == 5
    assert heads["vit_pooler"].pre_logits == 10
    assert heads["deit_teacher"].distilled
    assert heads["beit"].norm == "pooled" and heads["beit"].pool == MeanPool()
    assert heads["beit_class_token"].norm == "tokens"
    assert heads["dinov2"].pool == heads["dinov2_registers"].pool == JoinedPool()
    assert heads["clip"].projection == 10 and heads["clip"].norm == "pooled"
    assert heads["clip_classifier"].norm == "none" and heads["clip_classifier"].pool == MeanPool()
    assert heads["siglip"].pool.kind == "attention"
    assert heads["siglip_classifier"].pool == MeanPool()


def test_what_is_left_out_is_told_with_its_reason() -> None:
    reasons = {
        folder.name[19:]: " ".join(d.reason for d in open_foreign(folder, Options()).report.dropped)
        for folder in SMALL
    }
    assert "masked-image" in reasons["beit_mim"]
    assert "pre-training" in reasons["dinov2"]
    assert "before the norm" in reasons["clip_classifier"]
    assert "attention pool" in reasons["siglip_classifier"]


@pytest.mark.parametrize(("dim", "heads"), [(192, 3), (384, 6), (768, 12), (1024, 16), (1280, 16)])
def test_names_of_the_published_sizes_need_no_config(dim: int, heads: int) -> None:
    widths = {12: dim, 20: 4 * dim}
    entries = {
        name: Entry(
            dtype="F32", shape=tuple(widths.get(n, n) for n in entry.shape), file=Path("listed"), offset=0
        )
        for name, entry in open_stored(small("vit")).tree.items()
        if not name.startswith("classifier")
    }
    stored = Stored(path=Path("listed"), container="torch", tree=entries, files=(), configs={})
    opened = resolve(stored, Options())
    assert opened.card.config.attention.num_heads == heads
    assert any("1e-6" in note for note in opened.report.notes)


# What a type cannot hold -------------------------------------------------------------------


def refused(name: str, to: str, tmp_path: Path, **changes: Any) -> str:
    opened = open_foreign(small(name), Options())
    card = replace(opened.card, config=replace(opened.card.config, **changes))
    tensors = {} if changes else read_tensors(opened)
    with pytest.raises(CheckpointError) as error:
        write_as(Source(card=card, tensors=tensors), layouts_named(to)[0], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    return str(error.value)


@pytest.mark.parametrize(
    ("name", "to", "telling"),
    [
        ("dinov2_registers", "transformers-dinov2", "registers"),
        ("dinov2", "transformers-vit", "LayerScale"),
        ("vit", "transformers-dinov2", "LayerScale"),
        ("vit", "transformers-mae", "classifier"),
        ("vit", "transformers-clip", "patch embedding with bias"),
        ("beit", "transformers-vit", "LayerScale"),
        ("dinov3", "transformers-vit", "LayerScale"),
        ("vit", "transformers-dinov3", "classifier"),
        ("siglip", "transformers-vit", "pooling"),
        ("clip", "transformers-siglip", "a norm before the blocks"),
        ("deit_teacher", "transformers-vit", "distillation"),
        ("vit", "transformers-deit", "without a distillation token"),
        ("ijepa", "transformers-vit", "head.pool = mean"),
    ],
)
def test_what_a_type_cannot_hold_is_refused_by_name(name: str, to: str, telling: str, tmp_path: Path) -> None:
    import re

    assert re.search(telling, refused(name, to, tmp_path))


@pytest.mark.parametrize(
    "name", ["dinov2", "dinov2_registers", "beit_class_token", "clip", "siglip", "siglip2_naflex"]
)
def test_an_oblong_grid_is_refused_where_the_class_cannot_run_it(name: str, tmp_path: Path) -> None:
    to = open_foreign(small(name), Options()).layout.name
    assert "non-square" in refused(name, to, tmp_path, image=ImageConfig(size=(8, 16)))


def test_unusual_prefixes_are_refused_by_name(tmp_path: Path) -> None:
    tokens = refused("vit", "transformers-vit", tmp_path, tokens=TokensConfig(num_registers=2))
    assert "registers" in tokens


@pytest.mark.parametrize(
    ("name", "to"),
    [
        ("siglip", "transformers-siglip2-naflex"),
        ("msn", "transformers-vit"),
        ("vit", "transformers-msn"),
        ("mae", "transformers-msn"),
    ],
)
def test_a_type_that_holds_the_same_model_takes_it(name: str, to: str, tmp_path: Path) -> None:
    opened = open_foreign(small(name), Options())
    source = Source(card=opened.card, tensors=read_tensors(opened))
    written = write_as(source, layouts_named(to)[0], tmp_path / "out")
    assert written.reopened.layout.name == to and not written.changed


def converted(case: str, to: str, tmp_path: Path, **how: Any) -> Written:
    meta = json.loads((CASES / case / "meta.json").read_text())
    opened = open_foreign(CASES / case / meta["load"], options_of(meta["hints"], CASES / case))
    source = Source(card=opened.card, tensors=read_tensors(opened))
    return write_as(source, layouts_named(to)[0], tmp_path / "out", **how)


def test_a_norm_over_all_tokens_serves_the_class_token_alone(tmp_path: Path) -> None:
    written = converted("open_clip_small_clip", "transformers-clip", tmp_path)
    assert written.reopened.card.config.head.norm == "pooled" and not written.changed


def test_a_class_token_without_a_position_gets_zeros(tmp_path: Path) -> None:
    written = converted("timm_small_vit", "transformers-vit", tmp_path)
    assert [field for field, _, _ in written.rewritten_for] == ["positions.covers"]
    assert not read_tensors(written.reopened)["positions.prefix"].any()


@pytest.mark.parametrize("bias", ["qkv", "none"])
def test_computed_positions_and_other_biases_are_said_in_their_words(bias: Any, tmp_path: Path) -> None:
    attention = AttentionConfig(num_heads=2, bias=bias, out_bias=False)
    config = tiny(
        image=ImageConfig(size=(16, 16)),
        patch=PatchConfig(size=(4, 4)),
        positions=SinCos2d(),
        attention=attention,
        mlp=MLPConfig(hidden=24, bias=False),
    )
    model = ViT(config, torch.Generator().manual_seed(0)).eval()
    for number, parameter in enumerate(model.parameters()):
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
    card = ModelCard(config=config, preprocess=Preprocess.simple(config.image.size))
    for to in ("transformers-vit", "transformers-msn", "transformers-beit"):
        if bias == "none" and to == "transformers-beit":
            continue
        out = tmp_path / to
        write_as(Source(card=card, tensors=model.state_dict()), layouts_named(to)[0], out)
        image = torch.randn(1, 3, *config.image.size)
        ours = load(out, device="cpu").vit
        with torch.no_grad():
            assert torch.allclose(ours(image), model(image), atol=1e-5)


def test_stored_periods_are_left_out_when_that_is_accepted(tmp_path: Path) -> None:
    opened = open_foreign(small("dinov3"), Options())
    assert isinstance(opened.card.config.positions, Rope2d)
    stored = replace(opened.card.config, positions=replace(opened.card.config.positions, stored_periods=True))
    card = replace(opened.card, config=stored)
    tensors = read_tensors(opened) | {"attention_positions.periods": torch.full((1,), 1.5)}
    source = Source(card=card, tensors=tensors)
    with pytest.raises(CheckpointError, match="stored_periods"):
        write_as(source, opened.layout, tmp_path / "refused")
    written = write_as(source, opened.layout, tmp_path / "out", accept=("positions.stored_periods",))
    assert [field for field, _, _ in written.changed] == ["positions.stored_periods"]


def test_pixels_that_readers_prepare_otherwise_are_told(tmp_path: Path) -> None:
    opened = open_foreign(small("vit"), Options())
    sampled = replace(opened.card.preprocess, resample=Resample(antialias=False), mean=(0.5,))
    card = replace(opened.card, preprocess=sampled)
    written = write_as(Source(card=card, tensors=read_tensors(opened)), opened.layout, tmp_path / "out")
    assert [field for field, _, _ in written.prepared] == ["resample"]


# preprocessor_config.json ------------------------------------------------------------------


def said(values: Mapping[str, Any], usual: str = "ViT", channels: int = 3) -> Preprocess:
    found = read_preprocess(
        JsonConfig("test", values, "preprocessor_config.json"), usual, channels, (224, 224)
    )
    assert found is not None
    return found


def test_a_number_is_a_square_or_the_shorter_side_by_processor() -> None:
    assert said({"feature_extractor_type": "ViTFeatureExtractor", "size": 384}).resize == Squash(
        size=(384, 384), crop="floor"
    )
    clip = said({"feature_extractor_type": "CLIPFeatureExtractor", "size": 336, "crop_size": 336})
    assert clip.resize == Shorter(size=336, crop="floor") and clip.image_size == (336, 336)


def test_each_processor_has_defaults_of_its_own() -> None:
    vit = said({"image_processor_type": "ViTImageProcessor"})
    assert (vit.resample.interpolation, vit.mean) == ("bilinear", (0.5, 0.5, 0.5))
    bit = said({"image_processor_type": "BitImageProcessorFast", "size": {"shortest_edge": 256}})
    assert (bit.resample.interpolation, bit.image_size, bit.resize) == (
        "bicubic",
        (224, 224),
        Shorter(size=256, crop="floor"),
    )
    dino = said({"image_processor_type": "DINOv3ViTImageProcessor", "size": {"height": 256, "width": 256}})
    assert dino.resample.rounding == "none" and dino.mean == (0.485, 0.456, 0.406)
    naflex = said({"image_processor_type": "Siglip2ImageProcessor", "max_num_patches": 512})
    assert naflex.resize == Patches(patch=(16, 16), max_patches=512) and not naflex.fixed_size


def test_a_processor_for_images_and_text_has_that_of_images_inside(tmp_path: Path) -> None:
    folder = changed(tmp_path, "clip")
    inside = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 20}, "crop_size": 16}
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": inside}))
    preprocess = open_foreign(folder, Options()).card.preprocess
    assert (preprocess.resize, preprocess.image_size) == (Shorter(size=20, crop="floor"), (16, 16))


def test_flags_switch_steps_off() -> None:
    plain = said({"size": 64, "do_normalize": False})
    assert (plain.mean, plain.std) == ((0.0,), (1.0,))
    assert said({"do_resize": False}).resize == Keep()
    uncut = said({"size": 64, "do_center_crop": False}, "CLIP")
    assert isinstance(uncut.resize, Capped)
    assert said({"size": 64, "do_center_crop": False}, "DeiT").resize == Squash(size=(64, 64), crop="floor")


def test_another_rescaling_goes_into_mean_and_std() -> None:
    halves = said({"rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3, "image_std": [1.0] * 3})
    assert halves.mean == pytest.approx((0.5,) * 3) and halves.std == pytest.approx((0.5,) * 3)
    raw = said({"do_rescale": False, "image_mean": [127.5] * 3, "image_std": [255.0] * 3})
    assert raw.mean == pytest.approx((0.5,) * 3) and raw.std == pytest.approx((1.0,) * 3)


@pytest.mark.parametrize(
    "values",
    [
        {"image_processor_type": "OtherImageProcessor"},
        {"resample": 5},
        {"resample": "bicubic"},
        {"image_mean": [0.5, 0.5]},
        {"image_mean": "grey"},
        {"size": "large"},
        {"size": {"height": 4}},
        {"size": {"shortest_edge": 0}},
        {"rescale_factor": -1},
        {"do_resize": "no"},
        {"image_processor_type": 3},
        {"do_resize": False, "image_processor_type": "CLIPImageProcessor"},
    ],
    ids=str,
)
def test_a_wrong_preprocessor_config_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError):
        said(values)


def test_a_rule_that_no_processor_has_is_refused() -> None:
    for rule in (Border(size=(64, 64)), Capped(shorter=64, longest=100)):
        with pytest.raises(CheckpointError, match=rule.kind):
            write_preprocess(Preprocess(image_size=(64, 64), resize=rule))


@pytest.mark.parametrize("name", ["clip", "clip_classifier"])
@pytest.mark.parametrize("kind", ["chinese_clip", "altclip", "metaclip_2"])
def test_kin_of_clip_with_its_image_tower_are_read_as_clip(kind: str, name: str, tmp_path: Path) -> None:
    whole = "classifier" in name
    found = open_foreign(
        changed(tmp_path, name, model_type=f"{kind}{'' if whole else '_vision_model'}"), Options()
    )
    assert found.layout.name == "transformers-clip"
    assert found.card.config == open_foreign(small(name), Options()).card.config


def test_without_a_config_a_file_is_taken_for_a_published_one_and_doubts_are_told() -> None:
    def bare(name: str) -> Opened:
        return resolve(replace(open_stored(small(name)), configs={}), Options(num_heads=3))

    assert bare("ijepa").card.config.norm.eps == 1e-6
    assert any("LAION" in note for note in bare("clip").report.notes)
    with_config = open_foreign(small("clip"), Options())
    assert not any("LAION" in note for note in with_config.report.notes)


@pytest.mark.parametrize("word", ["model.", "net.", "module.model."])
def test_names_below_a_word_that_no_class_writes_are_of_no_layout_as_they_are(word: str) -> None:
    """Else the classifier would lie outside of the model."""
    found = unwrap(open_stored(small("vit")))
    with pytest.raises(UnknownLayout):
        recognise(replace(found, tensors={f"{word}{name}": entry for name, entry in found.tensors.items()}))


def test_a_folder_of_a_trainer_with_one_checkpoint_is_read(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    shutil.copy(small("vit") / "config.json", tmp_path)
    torch.save({"state_dict": load_file(small("vit") / "model.safetensors")}, tmp_path / "last.ckpt")
    assert load(tmp_path, device="cpu").report.filled == 1


def test_relative_positions_twice_are_refused_by_name(tmp_path: Path) -> None:
    from safetensors.torch import load, save_file

    folder = changed(tmp_path, "beit")
    tensors = load((folder / "model.safetensors").read_bytes())  # not mapped: it is written over
    of_block = next(name for name in tensors if name.endswith("relative_position_bias_table"))
    tensors["beit.encoder.relative_position_bias.relative_position_bias_table"] = tensors[of_block].clone()
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="both shared and per-block"):
        open_foreign(folder, Options())


def test_a_family_that_cannot_hold_a_model_gives_the_reason_of_each_of_its_formats(tmp_path: Path) -> None:
    opened = open_foreign(small("dinov2"), Options())
    config = replace(opened.card.config, head=replace(opened.card.config.head, pool=MeanPool()))
    source = Source(card=replace(opened.card, config=config), tensors={})
    layouts = layouts_named("transformers")
    with pytest.raises(CheckpointError) as error:
        write_as_first(source, layouts, tmp_path / "out")
    assert all(layout.name in str(error.value) for layout in layouts)
    assert error.value.message.count("not support LayerScale") == 1


def test_a_vit_without_a_pooler_goes_to_the_class_that_has_none_unless_named(tmp_path: Path) -> None:
    opened = open_foreign(small("msn"), Options())
    config = replace(opened.card.config, head=replace(opened.card.config.head, num_classes=0))
    tensors = {n: t for n, t in read_tensors(opened).items() if not n.startswith("head.")}
    source = Source(card=replace(opened.card, config=config, classes=()), tensors=tensors)
    first = write_as_first(source, layouts_named("transformers"), tmp_path / "first")
    assert first.reopened.layout.name == "transformers-msn"
    named = write_as_first(source, layouts_named("transformers-vit"), tmp_path / "named")
    assert named.reopened.layout.name == "transformers-vit"
    assert not named.reopened.card.config.head.pre_logits


@pytest.mark.parametrize("there", ["q", "v", "k", "qk"])
def test_biases_that_dinov3_leaves_out_are_zeros_and_stay_out_when_written(
    there: str, tmp_path: Path
) -> None:
    from safetensors.torch import load, load_file, save_file

    switches: dict[str, Any] = {f"{name}_bias": name[0] in there for name in ("query", "key", "value")}
    folder = changed(tmp_path, "dinov3", **switches)
    tensors = load((folder / "model.safetensors").read_bytes())  # not mapped: it is written over
    for name in [n for n in tensors if n.endswith(tuple(f"{part}_proj.bias" for part in "qv"))]:
        bias = tensors.pop(name)
        place = name.removesuffix("q_proj.bias").removesuffix("v_proj.bias")
        tensors |= {f"{place}{part}_proj.bias": bias.clone() for part in there}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})

    opened = open_foreign(folder, Options())
    found = read_tensors(opened)
    kept = dict(zip("qv", ("q_bias", "v_bias"), strict=True))
    for part in set("qv") - set(there) if "k" not in there else ():
        assert not found[f"blocks.0.attention.{kept[part]}"].any()
    write_as(Source(card=opened.card, tensors=found, layout=opened.layout, spelling=opened.description.spelling),
             opened.layout, tmp_path / "out")  # fmt: skip
    back = load_file(tmp_path / "out" / "model.safetensors")
    assert {n: t for n, t in back.items() if "bias" in n}.keys() == {n for n in tensors if "bias" in n}
    assert all(torch.equal(back[name], tensors[name]) for name in tensors if "mask_token" not in name)
    said = json.loads((tmp_path / "out" / "config.json").read_text())
    assert {n[0] for n in ("query", "key", "value") if said[f"{n}_bias"]} == set(there)
