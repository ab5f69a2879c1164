"""Against transformers itself: what it writes answers the same here, and what is written here answers the same there."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from torch import nn

from patchword.formats.facts import Options
from patchword.formats.layouts.transformers_config import JsonConfig
from patchword.formats.layouts.transformers_preprocess import read_preprocess, write_preprocess
from patchword.formats.read import open_foreign, read_tensors
from patchword.formats.source import Source
from patchword.formats.write import layouts_named, write_as
from patchword.images.geometry import Keep, ResizeRule, Shorter, Squash
from patchword.images.prepare import read
from patchword.images.preprocess import Preprocess, Resample
from patchword.inference.convert import convert
from patchword.inference.load import load
from patchword.inference.load_mae import load_mae
from support.parity import answers, difference
from support.transformers_models import SAMPLES, TEXT, VISION, Sample, class_named, picture
from support.transformers_models import answers as their_answers

pytestmark = pytest.mark.peers
TOLERANCE = 2e-5
LAYOUTS = {
    "vit": "transformers-vit",
    "deit": "transformers-deit",
    "vit_msn": "transformers-msn",
    "ijepa": "transformers-ijepa",
    "beit": "transformers-beit",
    "data2vec-vision": "transformers-data2vec",
    "dinov2": "transformers-dinov2",
    "dinov2_with_registers": "transformers-dinov2-registers",
    "dinov3_vit": "transformers-dinov3",
    "clip": "transformers-clip",
    "clip_vision_model": "transformers-clip",
    "siglip": "transformers-siglip",
    "siglip_vision_model": "transformers-siglip",
    "siglip2": "transformers-siglip2-naflex",
    "siglip2_vision_model": "transformers-siglip2-naflex",
    "aimv2_vision_model": "transformers-aimv2",
    "blip_vision_model": "transformers-blip",
    "blip_2_vision_model": "transformers-blip-2",
    "internvl_vision": "transformers-internvit",
    "pixio": "transformers-pixio",
    "tipsv2_vision_model": "transformers-tipsv2",
    "mlcd_vision_model": "transformers-mlcd",
    "owlvit_vision_model": "transformers-owlvit",
    "git_vision_model": "transformers-git",
    "idefics3_vision": "transformers-idefics3",
    "phi4_multimodal_vision": "transformers-phi4-multimodal",
    "janus_vision_model": "transformers-janus",
}
# Towers that only a complete model's class finds by itself.
UNREGISTERED = {
    "blip_vision_model",
    "blip_2_vision_model",
    "owlvit_vision_model",
    "git_vision_model",
    "phi4_multimodal_vision",
    "janus_vision_model",
}


def compare(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, float]:
    """Names that both have and that are farther apart than rounding."""
    common = [name for name in theirs if name in ours]
    assert {"embedded", "block_0", "tokens"} <= set(common)
    return {name: far for name in common if (far := difference(ours[name], theirs[name].numpy())) > TOLERANCE}


def save(sample: Sample, folder: Path, *, published: bool) -> nn.Module:
    model = sample.build()
    assert isinstance(model, transformers.PreTrainedModel)
    model.save_pretrained(folder, save_original_format=published)
    return model


@pytest.mark.parametrize("published", [True, False], ids=["published", "five"])
@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_what_transformers_writes_answers_the_same_here(
    sample: Sample, published: bool, tmp_path: Path
) -> None:
    theirs = save(sample, tmp_path, published=published)
    ours = load(tmp_path, device="cpu")
    image = picture(sample)
    assert not compare(answers(ours, image), their_answers(theirs, image)), ours.report
    assert ours.report.filled == 1


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_what_is_written_here_answers_the_same_in_transformers(sample: Sample, tmp_path: Path) -> None:
    theirs = save(sample, tmp_path / "theirs", published=True)
    opened = open_foreign(tmp_path / "theirs", Options())
    layout = layouts_named(LAYOUTS[theirs.config.model_type])[0]
    assert layout.name == opened.layout.name
    write_as(Source(card=opened.card, tensors=read_tensors(opened)), layout, tmp_path / "ours")

    said = json.loads((tmp_path / "ours" / "config.json").read_text())
    image = picture(sample)
    expected = answers(load(tmp_path / "theirs", device="cpu"), image)
    auto = transformers.AutoModelForImageClassification if sample.classifies else transformers.AutoModel
    named = class_named(said["architectures"][0])
    for read_by in (named,) if said["model_type"] in UNREGISTERED else (named, auto):
        back, info = read_by.from_pretrained(tmp_path / "ours", output_loading_info=True)
        if read_by is auto and type(back).__name__ != said["architectures"][0]:
            continue  # AutoModel has no class with a projection
        assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
        back.set_attn_implementation("eager")
        assert not compare(expected, their_answers(back.eval(), image))
        if sample.classifies:
            assert back.config.id2label == {i: n for i, n in enumerate(opened.card.classes)}


@pytest.mark.parametrize("kind", ["ViT", "DeiT"])
def test_a_model_without_a_pooler_is_written_so_that_none_is_drawn(kind: str, tmp_path: Path) -> None:
    bare = getattr(transformers, f"{kind}Model")
    theirs = bare(getattr(transformers, f"{kind}Config")(**VISION), add_pooling_layer=False).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    opened = open_foreign(tmp_path / "theirs", Options())
    write_as(Source(card=opened.card, tensors=read_tensors(opened)), opened.layout, tmp_path / "ours")
    image = picture(SAMPLES[1])
    with torch.no_grad():
        expected = theirs(image).last_hidden_state
        for read_by, said in (
            (transformers.AutoModelForImageClassification, {}),
            (bare, {"add_pooling_layer": False}),
        ):
            back, info = read_by.from_pretrained(tmp_path / "ours", output_loading_info=True, **said)
            assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
            back.eval()
            found = (
                back(image).last_hidden_state
                if said
                else back(image, output_hidden_states=True).logits[:, None]
            )
            assert difference(found, expected[:, : found.shape[1]].numpy()) < TOLERANCE


def test_the_answer_of_a_distilled_deit_is_the_mean_of_both_heads(tmp_path: Path) -> None:
    sample = next(sample for sample in SAMPLES if sample.name == "deit_teacher")
    theirs = save(sample, tmp_path, published=True)
    ours, image = load(tmp_path, device="cpu"), picture(sample)
    with torch.no_grad():
        expected = theirs(pixel_values=image).logits
        assert difference(ours.vit(image), expected.numpy()) < TOLERANCE


def test_the_encoder_of_mae_is_written_and_answers_the_same_with_nothing_hidden(tmp_path: Path) -> None:
    transformers.ViTMAEModel(transformers.ViTMAEConfig(**VISION)).save_pretrained(tmp_path / "theirs")
    opened = open_foreign(tmp_path / "theirs", Options())
    write_as(Source(card=opened.card, tensors=read_tensors(opened)), opened.layout, tmp_path / "ours")
    back, info = transformers.ViTMAEModel.from_pretrained(
        tmp_path / "ours", output_loading_info=True, mask_ratio=0.0
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    image, noise = picture(SAMPLES[1]), torch.arange(16.0)[None]
    with torch.no_grad():
        theirs = back.eval()(image, noise=noise).last_hidden_state
        ours = load(tmp_path / "ours", device="cpu").vit.forward_features(image)
    assert difference(ours, theirs.numpy()) < TOLERANCE


@pytest.mark.parametrize(("normalised", "published"), [(True, True), (False, False)])
def test_encoder_and_decoder_of_mae_are_written_and_have_the_same_loss(
    normalised: bool, published: bool, tmp_path: Path
) -> None:
    decoder = {"decoder_hidden_size": 8, "decoder_num_attention_heads": 2, "decoder_num_hidden_layers": 2}
    config = transformers.ViTMAEConfig(**{**VISION, **decoder}, norm_pix_loss=normalised, mask_ratio=0.5)
    theirs = transformers.ViTMAEForPreTraining(config)
    theirs.save_pretrained(tmp_path / "theirs", save_original_format=published)
    # Through patchword's own file, and with the check that transformers reads the result.
    convert(tmp_path / "theirs", "patchword", tmp_path / "own.safetensors")
    done = convert(tmp_path / "own.safetensors", "transformers", tmp_path / "ours")
    assert done.reader is not None and done.reader.difference < TOLERANCE
    back, info = transformers.ViTMAEForPreTraining.from_pretrained(
        tmp_path / "ours", output_loading_info=True
    )
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    image, noise = picture(SAMPLES[1]), torch.rand(1, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        answer = back.eval()(image, noise=noise)
        assert difference(answer.loss, theirs.eval()(image, noise=noise).loss.numpy()) < TOLERANCE
        for path in (tmp_path / "ours", tmp_path / "theirs", tmp_path / "own.safetensors"):
            ours = load_mae(path, device="cpu").mae
            assert difference(ours.errors(image, noise).mean(), answer.loss.numpy()) < TOLERANCE
            assert difference(ours.predict(image, ours.masking(noise)), answer.logits.numpy()) < TOLERANCE


def test_a_whole_model_gives_its_image_tower(tmp_path: Path) -> None:
    for kind in ("CLIP", "Siglip", "MetaClip2", "ChineseCLIP"):
        settings = {"vision_config": VISION, "text_config": TEXT}
        config = getattr(transformers, f"{kind}Config")(**settings)
        model = getattr(transformers, f"{kind}Model")(config).eval()
        model.save_pretrained(tmp_path / kind)
        ours = load(tmp_path / kind, device="cpu")
        image = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(3))
        with torch.no_grad():
            tower = model.vision_model(image)
            assert difference(ours.vit.embed(image), tower.pooler_output.numpy()) < TOLERANCE
        assert any("text tower" in dropped.reason for dropped in ours.report.dropped)


def test_a_wrapped_size_is_reached_by_the_same_resampling(tmp_path: Path) -> None:
    names = "vit dinov2 dinov2_registers deit siglip clip beit beit_class_token aimv2_native blip internvit pixio tipsv2 mlcd"
    for name in (*names.split(), "owlvit", "git", "idefics3", "phi4_multimodal", "janus"):
        sample = next(sample for sample in SAMPLES if sample.name == name)
        theirs = save(sample, tmp_path / name, published=True)
        ours = load(tmp_path / name, device="cpu")
        for size in ((20, 32), (17, 22)):  # the second fills no whole patches: the rest is left out
            wide = Sample(name=name, model=sample.model, config=sample.config, image=size)
            far = compare(answers(ours, picture(wide)), their_answers(theirs, picture(wide)))
            assert not far, (name, size, far)


# Pixels ----------------------------------------------------------------------------------


def photo() -> Image.Image:
    rows, columns = np.mgrid[0:71, 0:113]
    waves = [np.sin(rows / a) * np.cos(columns / b) for a, b in ((7, 11), (5, 19), (13, 3))]
    noise = np.random.default_rng(0).normal(0, 20, (71, 113, 3))
    pixels = 127 + 90 * np.stack(waves, axis=2) + noise
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


RULES: tuple[tuple[str, ResizeRule, tuple[int, int]], ...] = (
    ("squashed", Squash(size=(48, 48), crop="floor"), (48, 48)),
    ("oblong", Squash(size=(32, 56), crop="floor"), (32, 56)),
    ("squashed_and_cut", Squash(size=(54, 54), crop="floor"), (48, 48)),
    ("shorter", Shorter(size=55, crop="floor"), (48, 48)),
    ("kept", Keep(), (71, 113)),
)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("rounding", ["uint8", "none"])
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule[0])
def test_the_processor_that_is_written_gives_the_same_pixels(
    rule: tuple[str, ResizeRule, tuple[int, int]], rounding: Any, interpolation: Any, tmp_path: Path
) -> None:
    ours = Preprocess(
        image_size=rule[2],
        resize=rule[1],
        resample=Resample(interpolation=interpolation, rounding=rounding),
        mean=(0.4, 0.5, 0.6),
        std=(0.2, 0.3, 0.25),
    )
    written = write_preprocess(ours)
    (tmp_path / "preprocessor_config.json").write_bytes(written)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    theirs = processor(photo(), return_tensors="np")["pixel_values"][0]
    assert levels(read(photo(), ours), theirs, ours) <= 1 + 1e-3
    told = JsonConfig("test", json.loads(written))
    again = read_preprocess(told, "ViT", 3, ours.image_size)
    assert again is not None and again.resize == ours.resize and again.image_size == ours.image_size


PROCESSORS = (
    ("ViTImageProcessor", {"size": {"height": 48, "width": 40}}),
    ("DeiTImageProcessor", {"size": {"height": 55, "width": 55}, "crop_size": {"height": 48, "width": 48}}),
    ("BeitImageProcessor", {"size": {"height": 48, "width": 48}}),
    ("CLIPImageProcessor", {"size": {"shortest_edge": 48}, "crop_size": {"height": 48, "width": 48}}),
    ("BitImageProcessor", {"size": {"shortest_edge": 55}, "crop_size": {"height": 48, "width": 48}}),
    ("SiglipImageProcessor", {"size": {"height": 48, "width": 48}}),
    ("DINOv3ViTImageProcessor", {"size": {"height": 48, "width": 48}}),
    ("ViTImageProcessor", {"size": {"height": 48, "width": 48}, "do_normalize": False}),
    (
        "ViTImageProcessor",
        {
            "size": {"height": 55, "width": 55},
            "do_center_crop": True,
            "crop_size": {"height": 48, "width": 48},
        },
    ),
    ("DeiTImageProcessor", {}),
    ("ChineseCLIPImageProcessor", {"size": {"shortest_edge": 48}, "crop_size": {"height": 48, "width": 48}}),
    ("ConvNextImageProcessor", {"size": {"shortest_edge": 48}, "crop_pct": 0.875}),
    ("ConvNextImageProcessor", {"resample": 2}),
    ("CLIPImageProcessor", {"size": {"shortest_edge": 48}, "do_center_crop": False, "resample": 2}),
    ("ViTImageProcessor", {"size": {"height": 48, "width": 48}, "rescale_factor": 1 / 127.5}),
)


@pytest.mark.parametrize(("name", "settings"), PROCESSORS, ids=lambda value: str(value)[:40])
def test_the_processor_that_is_read_gives_the_same_pixels(
    name: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    processor = getattr(transformers, name)(**settings)
    processor.save_pretrained(tmp_path)
    theirs = processor(photo(), return_tensors="np")["pixel_values"][0]
    saved = json.loads((tmp_path / "preprocessor_config.json").read_text())
    for said in (
        saved,
        {"image_processor_type": name, **settings},
    ):  # the second leaves the defaults to the class
        ours = read_preprocess(JsonConfig("test", said), "ViT", 3, (48, 48))
        assert ours is not None
        assert levels(read(photo(), ours), theirs, ours) <= 1 + 1e-3


def levels(mine: Any, theirs: Any, preprocess: Preprocess) -> float:
    """The largest difference in grey levels."""
    assert mine.shape == theirs.shape
    std = np.asarray(preprocess.std * 3 if len(preprocess.std) == 1 else preprocess.std)
    return float((np.abs(mine - theirs) * std[:, None, None]).max() * 255)
