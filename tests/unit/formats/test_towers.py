"""Image towers inside larger systems, and models of other publishers that are refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from patchword.cli.main import main
from patchword.errors import CheckpointError
from patchword.formats.facts import Options
from patchword.formats.read import open_foreign, read_tensors
from patchword.formats.source import Source
from patchword.formats.systems import SYSTEMS
from patchword.formats.write import write_as
from patchword.images.geometry import Squash
from support.parity import committed

# The recorded case of each type of tower.
CASES = {
    "clip_vision_model": "clip",
    "siglip_vision_model": "siglip",
    "internvl_vision": "internvit",
    "idefics2_vision": "idefics3",
    "idefics3_vision": "idefics3",
    "smolvlm_vision": "idefics3",
    "janus_vision_model": "janus",
    "phi4_multimodal_vision": "phi4_multimodal",
    "git_vision_model": "git",
    "owlvit": "owlvit",
    "owlv2": "owlvit",
    "clipseg": "clip",
}
_PLACES = [(kind, prefix) for kind, system in SYSTEMS.items() for prefix in system.prefixes[:2]]


def small(name: str) -> Path:
    return committed() / f"transformers_small_{name}"


def system(kind: str, prefix: str, folder: Path, **beside: Any) -> Path:
    """A folder of a complete system: the recorded tower below its prefix, and tensors of a language model."""
    case = small(CASES[SYSTEMS[kind].tower])
    folder.mkdir()
    tensors = {f"{prefix}{name}": tensor for name, tensor in load_file(case / "model.safetensors").items()}
    save_file(tensors | {"language_model.lm_head.weight": torch.ones(10, 8)}, folder / "model.safetensors")
    config = json.loads((case / "config.json").read_text())
    whole = {"vision_config": config} if SYSTEMS[kind].config else config
    said = {**whole, "model_type": kind, **beside}
    (folder / "config.json").write_text(json.dumps(said))
    return folder


@pytest.mark.parametrize(("kind", "prefix"), _PLACES)
def test_a_tower_inside_a_system_is_the_tower_alone(kind: str, prefix: str, tmp_path: Path) -> None:
    opened = open_foreign(system(kind, prefix, tmp_path / "whole"))
    alone = open_foreign(small(CASES[SYSTEMS[kind].tower]))
    assert opened.card.config == alone.card.config and opened.layout is alone.layout
    found = read_tensors(opened)
    assert all(torch.equal(found[name], tensor) for name, tensor in read_tensors(alone).items())
    assert any(f"the rest of {kind} (1 tensor)" in note for note in opened.report.notes)


def test_a_type_that_older_files_repeat_in_the_towers_config_is_read(tmp_path: Path) -> None:
    folder = system("smolvlm", "model.vision_model.", tmp_path / "whole")
    said = json.loads((folder / "config.json").read_text())
    said["vision_config"]["model_type"] = "idefics3"
    (folder / "config.json").write_text(json.dumps(said))
    assert open_foreign(folder).layout.name == "transformers-idefics3"


def test_inspect_says_where_the_tower_was_and_what_its_language_model_reads(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = system("llava", "vision_tower.vision_model.", tmp_path / "whole", vision_feature_layer=-2)
    with pytest.raises(SystemExit, match="0"):
        main(["inspect", str(folder)])
    said = " ".join(capfd.readouterr().out.split())
    assert "transformers CLIP" in said and "vision_tower.vision_model: the image tower of llava" in said
    assert "block -2 of the tower (vision_feature_layer)" in said


def test_a_processor_that_does_more_is_simplified_with_a_note(tmp_path: Path) -> None:
    folder = system("internvl", "vision_tower.", tmp_path / "whole")
    said = {"image_processor_type": "GotOcr2ImageProcessor", "image_mean": [0.4] * 3, "image_std": [0.2] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(said))
    opened = open_foreign(folder)
    assert opened.card.preprocess.resize == Squash(size=(16, 16), crop="floor")
    assert opened.card.preprocess.mean == (0.4,) * 3
    assert any("cuts large images into tiles" in note for note in opened.report.notes)


def _with(case: Path, folder: Path, more: dict[str, torch.Tensor]) -> Path:
    folder.mkdir()
    save_file(load_file(case / "model.safetensors") | more, folder / "model.safetensors")
    (folder / "config.json").write_text((case / "config.json").read_text())
    return folder


@pytest.mark.parametrize(
    ("case", "name", "words"),
    [
        ("internvit", "encoder.layer.0.attention.q_norm.weight", "cover all heads at once"),
        ("janus", "encoder.layers.0.self_attn.q_norm.weight", "its own code cannot run"),
    ],
)
def test_norms_of_all_heads_are_refused_by_name(case: str, name: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=words):
        open_foreign(_with(small(case), tmp_path / "normed", {name: torch.ones(12)}))


def test_a_projection_into_the_space_of_texts_is_read_and_not_written_without_them(tmp_path: Path) -> None:
    for case, name in (("aimv2", "visual_projection.weight"), ("owlvit", "visual_projection.weight")):
        projects = _with(small(case), tmp_path / case, {name: torch.rand(6, 12)})
        opened = open_foreign(projects)
        assert opened.card.config.head.projection == 6
        source = Source(card=opened.card, tensors=read_tensors(opened))
        with pytest.raises(CheckpointError, match="a projection without the text tower"):
            write_as(source, opened.layout, tmp_path / f"{case} again")


REFUSED = {
    "V-JEPA 2": {
        "encoder.embeddings.patch_embeddings.proj.weight": (12, 3, 2, 4, 4),
        "encoder.layer.0.attention.query.weight": (12, 12),
    },
    "ViTPose": {
        "backbone.layers.0.ln1.weight": (12,),
        "backbone.patch_embed.projection.weight": (12, 3, 4, 4),
        "head.deconv_layers.0.weight": (12, 12, 4, 4),
    },
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_the_backbone_does_not_support_is_refused_by_name(
    what: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.safetensors"
    save_file({name: torch.zeros(shape) for name, shape in REFUSED[what].items()}, path)
    with pytest.raises(SystemExit, match="2"):
        main(["inspect", str(path)])
    said = capfd.readouterr().err
    assert what in said and "the backbone does not support" in said and len(said.strip().splitlines()) == 2


# mmpretrain ------------------------------------------------------------------------------------


def mmpretrain(name: str) -> Path:
    return committed() / f"mmpretrain_small_{name}" / "model.pth"


def test_mmpretrains_training_file_states_classes_and_pixels() -> None:
    card = open_foreign(mmpretrain("averaged"), Options(num_heads=2)).card
    assert card.classes == ("ash", "beech", "cedar", "elm", "fir")
    assert card.preprocess.mean == card.preprocess.std == (0.5,) * 3
    assert card.config.head.pool.kind == "mean" and card.config.head.norm == "pooled"


@pytest.mark.parametrize("name", ["vit", "deit", "averaged", "dinov2_giant", "sapiens"])
def test_mmpretrains_tensors_are_written_back_bit_equal(name: str, tmp_path: Path) -> None:
    opened = open_foreign(mmpretrain(name), Options(num_heads=2))
    source = Source(
        card=opened.card,
        tensors=read_tensors(opened),
        layout=opened.layout,
        spelling=opened.description.spelling,
    )
    written = write_as(source, opened.layout, tmp_path / "model.pth")
    theirs = torch.load(mmpretrain(name), weights_only=False)
    ours = torch.load(written.path, weights_only=False)["state_dict"]
    theirs = theirs.get("state_dict", theirs)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], tensor) for key, tensor in theirs.items())


def test_a_backbone_without_class_token_is_read_with_a_note_about_padding(tmp_path: Path) -> None:
    file = torch.load(mmpretrain("sapiens"), weights_only=False)
    del file["cls_token"]
    file["pos_embed"] = file["pos_embed"][:, 1:]
    torch.save(file, tmp_path / "model.pth")
    opened = open_foreign(tmp_path / "model.pth", Options(num_heads=2))
    assert any("pad images by 2 pixels" in note for note in opened.report.notes)
