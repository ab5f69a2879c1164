"""Against the installed timm: it takes what we write, strictly, and answers the same; we read all that it builds."""

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import transformers
from safetensors.torch import load_file, save_file
from timm.layers import resample_abs_pos_embed
from torch import Tensor

import patchword as pw
from patchword.containers.stored import Entry, Stored
from patchword.errors import CheckpointError
from patchword.formats.compare import differences, explicit
from patchword.formats.facts import Options
from patchword.formats.layouts.timm import Timm
from patchword.formats.layouts.timm_facts import table
from patchword.formats.layouts.timm_write import target
from patchword.formats.read import resolve
from patchword.formats.source import Source
from patchword.formats.write import write_as
from patchword.images.preprocess import Preprocess
from patchword.model.config import ViTConfig
from patchword.model.kinds import Resample
from patchword.model.resample import resample_grid
from patchword.model.vit import ViT
from patchword.weights.card import ModelCard, Provenance
from peers import timm_architectures
from peers.timm_models import MODELS, OURS

pytestmark = pytest.mark.peers
TOLERANCE = 1e-5


def randomised(model: torch.nn.Module) -> None:
    """Every parameter drawn, so that none is at a value that hides a mistake (zero biases, LayerScale 1e-5)."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            spread = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + 0.2 * spread if parameter.ndim == 1 else 0.15 * spread)


def relative(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max())


def images(config: ViTConfig) -> Tensor:
    shape = (2, config.image.channels, *config.image.size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def test_the_table_is_what_this_timm_says() -> None:
    ours = table()
    assert ours["source"] == f"timm {timm.__version__}", "make the table again for this timm"
    assert ours["architectures"] == timm_architectures.architectures()
    assert ours["renamed"] == timm_architectures.renamed()
    assert ours["others"] == timm_architectures.others(ours["architectures"])


@pytest.mark.parametrize("name", OURS)
@torch.no_grad()
def test_timm_takes_what_we_write(name: str, tmp_path: Path) -> None:
    config = OURS[name]
    vit = ViT(config).eval()
    randomised(vit)
    classes = tuple(f"class {i}" for i in range(config.head.num_classes))
    preprocess = Preprocess.simple(config.image.size, config.image.channels, (0.5,), (0.25,))
    card = ModelCard(config=config, preprocess=preprocess, classes=classes, provenance=Provenance())
    folder = tmp_path / "out"
    write_as(Source(card=card, tensors=vit.state_dict()), Timm(), folder)

    words = json.loads((folder / "config.json").read_text())
    strict = timm.create_model(words["architecture"], **words["model_args"])
    strict.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
    hub = timm.create_model(f"local-dir:{folder}", pretrained=True)
    x = images(config)
    for model in (strict, hub):
        assert relative(vit(x), model.eval()(x)) < TOLERANCE
        assert relative(vit.forward_features(x), model.forward_features(x)) < TOLERANCE
    data = timm.data.resolve_model_data_config(hub)
    assert data["input_size"] == (config.image.channels, *config.image.size)
    assert tuple(hub.pretrained_cfg.get("label_names") or ()) == classes


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_we_answer_as_the_model_that_timm_saved(name: str, tmp_path: Path) -> None:
    architecture, args = MODELS[name]
    model = timm.create_model(architecture, **args).eval()
    randomised(model)
    words = {"architecture": architecture, "model_args": args, "global_pool": model.global_pool}
    (tmp_path / "config.json").write_text(json.dumps(words))
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    ours = pw.load(tmp_path, device="cpu")
    size = tuple(args.get("img_size", (32, 48)))
    x = torch.randn((2, args.get("in_chans", 3), *size), generator=torch.Generator().manual_seed(1))
    assert relative(ours.vit(x), model(x)) < TOLERANCE
    tokens = model.forward_features(x)
    assert relative(ours.vit.forward_features(x), tokens) < TOLERANCE


@pytest.mark.parametrize(
    "architecture",
    [
        "deit3_small_patch16_224",
        "vit_small_patch14_dinov2",
        "vit_giant_patch14_reg4_dinov2",
        "vit_medium_patch16_gap_240",
        "vit_base_patch16_siglip_gap_224",
        "vit_little_patch16_reg1_gap_256",
    ],
)
@torch.no_grad()
def test_a_state_dict_under_a_name_of_its_own_answers_as_its_model(architecture: str, tmp_path: Path) -> None:
    model = timm.create_model(architecture, **MODELS["vit"][1]).eval()
    randomised(model)
    torch.save(model.state_dict(), tmp_path / "my_best.pth")
    ours = pw.load(tmp_path / "my_best.pth", num_heads=3, image_size=(32, 48), device="cpu")
    x = torch.randn((2, 3, 32, 48), generator=torch.Generator().manual_seed(1))
    assert relative(ours.vit(x), model(x)) < TOLERANCE
    assert relative(ours.vit.forward_features(x), model.forward_features(x)) < TOLERANCE


SAID_BY_SIZE = {"embed_dim", "depth", "num_heads", "img_size", "patch_size", "mlp_ratio", "init_values"}


def kinds_of_architecture() -> list[str]:
    """One name for each way of building; the names that differ in sizes alone are left out."""
    found: dict[str, str] = {}
    for name, entry in table()["architectures"].items():
        rest = {key: value for key, value in entry["args"].items() if key not in SAID_BY_SIZE}
        found.setdefault(json.dumps([entry["class"], rest]), name)
    return sorted(found.values())


REFUSED = ("sapiens2", "_xp_", "pwee", "dwee", "dlittle", "18x2", "parfac", "_mci_", "_resnet")


def listed(name: str, tensors: dict[str, tuple[int, ...]], words: dict[str, Any]) -> Stored:
    entries = {n: Entry(dtype="F32", shape=s, file=Path("listed"), offset=0) for n, s in tensors.items()}
    configs = {"config.json": words} if words else {}
    return Stored(path=Path(name), container="torch", tree=entries, metadata={}, files=(), configs=configs)


def shapes_of(architecture: str, **args: Any) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {n: tuple(t.shape) for n, t in timm.create_model(architecture, **args).state_dict().items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", kinds_of_architecture())
def test_every_architecture_is_read_by_its_name_and_written_back(name: str) -> None:
    """Full size, on the meta device: with config.json, and with the file's name alone."""
    tensors = shapes_of(name)
    if any(word in name for word in REFUSED):
        with pytest.raises(CheckpointError, match="which the backbone does not support"):
            resolve(listed(name, tensors, {"architecture": name}), Options())
        return
    by_name = resolve(listed(f"{name}.pth", tensors, {}), Options())
    opened = resolve(listed("x.pth", tensors, {"architecture": name}), Options())
    assert opened.report.filled == by_name.report.filled == 1
    assert opened.card.config == by_name.card.config
    for spelling in (opened.description.spelling, {}):
        found = target(opened.card.config, spelling)
        args = {
            key: value for key, value in found.args.items() if key != "img_size" or found.kind != "NaFlexVit"
        }
        written = shapes_of(found.architecture, **args)
        if spelling:
            assert written == tensors
        again = resolve(
            listed("x.pth", written, {"architecture": found.architecture, "model_args": args}), Options()
        )
        assert not differences(explicit(opened.card.config), explicit(again.card.config))
        assert again.report.filled == 1


@pytest.mark.parametrize("size", [(32, 48), (64, 40), (16, 120)])
@pytest.mark.parametrize(
    "name", ["BEiT", "BEiT, one table, positions", "relpos, tables", "EVA-02", "rope mixed", "vit"]
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # timm's own interpolation of tables
@torch.no_grad()
def test_another_size_is_answered_as_timm_answers_it(
    name: str, size: tuple[int, int], tmp_path: Path
) -> None:
    architecture, args = MODELS[name]
    model = timm.create_model(architecture, **args).eval()
    randomised(model)
    words = {"architecture": architecture, "model_args": args}
    (tmp_path / "config.json").write_text(json.dumps(words))
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    ours = pw.load(tmp_path, device="cpu")
    model.set_input_size(img_size=size)
    x = torch.randn((2, 3, *size), generator=torch.Generator().manual_seed(1))
    assert relative(ours.vit(x), model(x)) < TOLERANCE


@pytest.mark.parametrize("grid", [(1, 1), (2, 7), (5, 5), (14, 14), (16, 24), (40, 40), (3, 31)])
@pytest.mark.parametrize("old", [(4, 4), (14, 14), (16, 16), (7, 11)])
def test_positions_are_resampled_as_timm_does(grid: tuple[int, int], old: tuple[int, int]) -> None:

    positions = torch.randn((*old, 8), generator=torch.Generator().manual_seed(2))
    theirs = resample_abs_pos_embed(
        positions.flatten(0, 1)[None], new_size=list(grid), old_size=list(old), num_prefix_tokens=0
    )
    ours = resample_grid(positions, grid, Resample()).flatten(0, 1)[None]
    assert relative(ours, theirs) < TOLERANCE


@torch.no_grad()
def test_transformers_wrapper_of_a_timm_model_is_read(tmp_path: Path) -> None:
    """`timm_model.` before every name, and a config.json of transformers."""
    architecture, args = MODELS["CLIP"]
    sizes = {key: value for key, value in args.items() if key != "num_classes"}
    config = transformers.TimmWrapperConfig(architecture=architecture, model_args=sizes, num_labels=7)
    model = transformers.TimmWrapperForImageClassification(config).eval()
    randomised(model)
    model.save_pretrained(tmp_path)
    ours = pw.load(tmp_path, device="cpu")
    x = torch.randn((2, 3, 32, 48), generator=torch.Generator().manual_seed(1))
    assert relative(ours.vit(x), model(x).logits) < TOLERANCE


def test_a_file_of_another_timm_class_is_none_of_ours(tmp_path: Path) -> None:
    model = timm.create_model("test_efficientnet")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "test_efficientnet"}))
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError):
        pw.load(tmp_path, device="cpu")
