"""Files are recognised, matched and refused by names and shapes: strictly, and with the name of what is wrong."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from patchword.containers.write import write_torch
from patchword.errors import AmbiguousLayout, CheckpointError, KeyMismatch, ShapeMismatch, UnknownLayout
from patchword.formats.facts import Options
from patchword.formats.layout import Description
from patchword.formats.layouts.torchvision import TorchvisionViT
from patchword.formats.read import open_foreign, read_tensors
from patchword.formats.write import written_tensors
from patchword.images.preprocess import Preprocess
from patchword.inference.load import load
from patchword.model.config import ImageConfig, PatchConfig, ViTConfig
from patchword.model.kinds import Learned, Resample
from patchword.model.vit import ViT
from patchword.weights.card import ModelCard
from support.vit_configs import tiny

TOLD = Options(num_heads=3)
Spoil = Callable[[dict[str, Tensor]], None]


def config(grid: tuple[int, int] = (4, 4)) -> ViTConfig:
    size = (grid[0] * 8, grid[1] * 8)
    rule = Resample(antialias=False, align_corners=True)
    return tiny(
        image=ImageConfig(size=size), patch=PatchConfig(size=(8, 8)), positions=Learned(resample=rule)
    )


def torchvision_file(
    folder: Path, spoil: Spoil = lambda tensors: None, grid: tuple[int, int] = (4, 4)
) -> Path:
    card = ModelCard(config=config(grid), preprocess=Preprocess.simple(config(grid).image.size))
    layout = TorchvisionViT()
    vit = ViT(card.config, torch.Generator().manual_seed(0))
    described = Description(config=card.config, preprocess=card.preprocess, spelling=layout.spelling(card))
    tensors = written_tensors(layout, described, vit.state_dict())
    spoil(tensors)
    path = folder / "model.pth"
    write_torch(path, tensors)
    return path


def without(name: str) -> Spoil:
    def spoil(tensors: dict[str, Tensor]) -> None:
        del tensors[name]

    return spoil


def holding(name: str, tensor: Tensor) -> Spoil:
    def spoil(tensors: dict[str, Tensor]) -> None:
        tensors[name] = tensor

    return spoil


def test_the_whole_file_is_matched_and_each_fact_has_a_source(tmp_path: Path) -> None:
    opened = open_foreign(torchvision_file(tmp_path), TOLD)
    assert opened.report.filled == 1 and not opened.report.dropped and not opened.report.new
    assert opened.report.tensors == len(opened.checkpoint.tensors)
    sources = {fact.name: fact.source for fact in opened.report.facts}
    assert sources["num_heads"] == "option" and "torchvision" in sources["eps"]
    assert all(sources.values())


@pytest.mark.parametrize("name", ["heads", "heads.0", "heads.1"])
def test_a_head_that_was_put_in_place_of_torchvisions_is_read(name: str, tmp_path: Path) -> None:
    """`vit.heads = nn.Linear(...)`, or one in a Sequential, as most fine-tuning in tutorials does it."""

    def renamed(tensors: dict[str, Tensor]) -> None:
        for part in ("weight", "bias"):
            tensors[f"{name}.{part}"] = tensors.pop(f"heads.head.{part}")

    (tmp_path / "own").mkdir()
    theirs = read_tensors(open_foreign(torchvision_file(tmp_path / "own", renamed), TOLD))
    usual = read_tensors(open_foreign(torchvision_file(tmp_path), TOLD))
    assert theirs.keys() == usual.keys()
    assert torch.equal(theirs["head.weight"], usual["head.weight"])


OPTIMISER = {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": []}


@pytest.mark.parametrize(
    ("wrap", "where"),
    [
        (lambda t: {"state_dict": {f"model.{n}": x for n, x in t.items()}}, "state_dict.model"),
        (lambda t: {f"model.backbone.{n}": x for n, x in t.items()}, "model.backbone"),
        (lambda t: {"net": t, "acc": 91.5, "optimizer": OPTIMISER}, "net"),
        (lambda t: {"student": {f"module.backbone.{n}": x for n, x in t.items()}}, "student.backbone"),
    ],
    ids=["Lightning", "two words", "a wrapper of one's own", "a student"],
)
def test_tensors_below_one_word_are_read_as_without_it(
    wrap: Callable[[dict[str, Tensor]], dict[str, object]], where: str, tmp_path: Path
) -> None:
    plain = torchvision_file(tmp_path)
    torch.save(wrap(torch.load(plain)), tmp_path / "wrapped.ckpt")
    opened = open_foreign(tmp_path / "wrapped.ckpt", TOLD)
    assert opened.checkpoint.wrapper.startswith(where) and opened.report.filled == 1
    usual, found = read_tensors(open_foreign(plain, TOLD)), read_tensors(opened)
    assert usual.keys() == found.keys() and all(torch.equal(usual[n], found[n]) for n in usual)


def test_a_word_before_a_part_of_the_tensors_is_no_wrapper(tmp_path: Path) -> None:
    plain = torch.load(torchvision_file(tmp_path))
    whole = {f"backbone.{n}": x for n, x in plain.items()} | {"decode.weight": torch.ones(3, 3)}
    torch.save(whole, tmp_path / "segmenter.pth")
    with pytest.raises(UnknownLayout, match=r"no rule for decode\.weight"):
        open_foreign(tmp_path / "segmenter.pth", TOLD)


@pytest.mark.parametrize("key", ["model_ema", "state_dict_ema"])
def test_averaged_weights_go_before_those_of_a_state_dict(tmp_path: Path, key: str) -> None:
    plain = torch.load(torchvision_file(tmp_path))
    averaged = {f"module.{n}": x for n, x in plain.items()}
    last = {n: torch.zeros_like(x) for n, x in plain.items()}
    torch.save({"state_dict": last, key: averaged}, tmp_path / "last.pth.tar")
    found = read_tensors(open_foreign(tmp_path / "last.pth.tar", TOLD))
    assert torch.equal(found["head.weight"], plain["heads.head.weight"])


def test_the_model_goes_before_its_average_and_a_state_dict_before_a_module(tmp_path: Path) -> None:
    """As torchvision's and DeiT's scripts evaluate; `module` may be anything that was saved beside."""
    plain = torch.load(torchvision_file(tmp_path))
    last = {n: torch.zeros_like(x) for n, x in plain.items()}
    for tree in (
        {"model": plain, "model_ema": last},
        {"module": {"weight": torch.ones(2)}, "state_dict": plain},
    ):
        torch.save(tree, tmp_path / "file.pth")
        found = read_tensors(open_foreign(tmp_path / "file.pth", TOLD))
        assert torch.equal(found["head.weight"], plain["heads.head.weight"])


def test_a_head_of_two_layers_is_named(tmp_path: Path) -> None:
    def deeper(tensors: dict[str, Tensor]) -> None:
        tensors["heads.0.weight"] = tensors.pop("heads.head.weight")
        tensors["heads.2.weight"] = torch.ones(3, 5)

    with pytest.raises(UnknownLayout, match=r"heads\.0\.weight"):
        open_foreign(torchvision_file(tmp_path, deeper), TOLD)


def test_tensors_that_need_no_change_stay_mapped(tmp_path: Path) -> None:
    path = torchvision_file(tmp_path)
    tensors = read_tensors(open_foreign(path, TOLD))
    tensors["blocks.0.mlp.fc1.weight"].zero_()
    again = read_tensors(open_foreign(path, TOLD))
    assert again["blocks.0.mlp.fc1.weight"].abs().sum() > 0  # what is written into one never reaches the file


@pytest.mark.parametrize(
    ("spoil", "kind", "words"),
    [
        (holding("encoder.surplus", torch.ones(3)), UnknownLayout, "no rule for encoder.surplus [3]"),
        (without("encoder.ln.weight"), KeyMismatch, "lacks encoder.ln.weight"),
        (without("encoder.layers.encoder_layer_1.mlp.3.bias"), KeyMismatch, "encoder_layer_1.mlp.3.bias"),
        (holding("encoder.ln.bias", torch.ones(25)), ShapeMismatch, "encoder.ln.bias has shape [25]"),
        (without("encoder.layers.encoder_layer_0.ln_1.weight"), CheckpointError, "but number 0 is missing"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, spoil: Spoil, kind: type[Exception], words: str) -> None:
    path = torchvision_file(tmp_path, spoil)
    with pytest.raises(kind) as refused:
        open_foreign(path, TOLD)
    assert isinstance(refused.value, CheckpointError)
    assert words in refused.value.message and str(path) in refused.value.message and refused.value.fix


def test_a_part_may_be_left_out_only_when_asked_for_and_is_then_told(tmp_path: Path) -> None:
    path = torchvision_file(tmp_path, without("encoder.layers.encoder_layer_1.mlp.3.bias"))
    with pytest.raises(KeyMismatch, match="--allow-partial"):
        load(path, options=TOLD)
    model = load(path, options=replace(TOLD, allow_partial=True), device="cpu")
    assert model.report.new == ("blocks.1.mlp.fc2.bias",) and 0.99 < model.report.filled < 1
    for answers in (model.predict, model.embed):  # nothing answers through what was drawn at random
        with pytest.raises(CheckpointError, match=r"fc2\.bias was not in the file"):
            answers(np.zeros((48, 48, 3), np.uint8))
    model.mark_trained()
    assert model.embed(np.zeros((48, 48, 3), np.uint8)).size


def test_a_tensor_beside_the_word_before_all_others_is_named(tmp_path: Path) -> None:
    def spoil(tensors: dict[str, Tensor]) -> None:
        inner = {f"net.{name}": tensor for name, tensor in tensors.items()}
        tensors.clear()
        tensors |= inner | {"surplus": torch.ones(3)}

    with pytest.raises(UnknownLayout, match=r"no rule for surplus \[3\].*\n.*--below net"):
        open_foreign(torchvision_file(tmp_path, spoil), TOLD)


def test_two_layouts_that_fit_are_both_named(tmp_path: Path) -> None:
    def both(tensors: dict[str, Tensor]) -> None:
        tensors["to_patch_embedding.1.weight"] = torch.ones(4, 192)
        tensors["transformer.layers.0.0.fn.to_qkv.weight"] = torch.ones(12, 4)

    with pytest.raises(AmbiguousLayout) as refused:
        open_foreign(torchvision_file(tmp_path, both), TOLD)
    assert "torchvision" in refused.value.message and "lucidrains" in refused.value.message


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (Options(), "no file states the number of attention heads"),
        (Options(num_heads=5), "width 24 is not divisible by 5 heads (option)"),
        (replace(TOLD, patch_size=(4, 4)), "--patch-size does not apply"),
        (replace(TOLD, pool="mean"), "--pool does not apply"),
    ],
)
def test_facts_that_are_missing_wrong_or_of_no_use_are_named(
    tmp_path: Path, options: Options, words: str
) -> None:
    with pytest.raises(CheckpointError) as refused:
        open_foreign(torchvision_file(tmp_path), options)
    assert words in refused.value.message and refused.value.fix


def test_the_sides_of_a_grid_that_is_no_square_must_be_told(tmp_path: Path) -> None:
    path = torchvision_file(tmp_path, grid=(3, 5))
    with pytest.raises(
        CheckpointError, match=r"15 patches cannot form a square.*\n.*--image-size HEIGHTxWIDTH"
    ):
        open_foreign(path, TOLD)
    opened = open_foreign(path, replace(TOLD, image_size=(24, 40)))
    assert opened.card.config.grid_size == (3, 5)


def test_what_lies_beside_the_weights_is_listed(tmp_path: Path) -> None:
    plain = torchvision_file(tmp_path)
    inner = torch.load(plain, weights_only=True)
    wrapped = tmp_path / "checkpoint.pth"
    torch.save({"model": inner, "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}, "epoch": 7}, wrapped)
    report = open_foreign(wrapped, TOLD).report
    assert "taken from model" in report.notes and any("optimizer" in note for note in report.notes)


def test_the_users_mean_and_std_are_taken(tmp_path: Path) -> None:
    path = torchvision_file(tmp_path)
    card = open_foreign(path, replace(TOLD, mean=(0.1, 0.2, 0.3), std=(0.5,))).card
    assert card.preprocess.mean == (0.1, 0.2, 0.3) and card.preprocess.std == (0.5,)
