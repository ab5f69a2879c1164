"""Schedule, averages, parameter groups and recipes by what they promise."""

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from patchword import settings as tree
from patchword.data.open import open_data
from patchword.errors import SettingsError
from patchword.images.geometry import Cover
from patchword.images.preprocess import Preprocess
from patchword.model.sizes import sized
from patchword.model.vit import ViT
from patchword.training.chance import Draws
from patchword.training.config import TrainSettings
from patchword.training.ema import AveragedWeights
from patchword.training.expected import expectation
from patchword.training.muon import orthogonal
from patchword.training.optim import make_optimiser
from patchword.training.optim_settings import OptimSettings
from patchword.training.overlay import Overlay, make_overlay
from patchword.training.ranks import Ranks
from patchword.training.recipes import FROM_WEIGHTS, RECIPES, WITH_BOXES, WITHOUT_LABELS, recipe_named
from patchword.training.recipes.facts import DataFacts, ObjectFacts
from patchword.training.schedule import ScheduleSettings, lr_factor
from patchword.training.task import Batch
from patchword.training.tasks.classify import Classifier, Classify
from patchword.training.tasks.detect_settings import DetectSettings
from patchword.training.tasks.settings import MAESettings
from patchword.weights.card import ModelCard
from support.scans import write_scans
from support.yolos import with_yolos

facts = st.builds(
    DataFacts,
    num_images=st.integers(2, 10**6),
    num_classes=st.integers(2, 100),
    channels=st.sampled_from([1, 3]),
    size=st.tuples(st.integers(8, 512), st.integers(8, 512)),
    mean=st.just((0.4,)),
    std=st.just((0.2,)),
    mirrors=st.booleans(),
)


def _digits() -> DataFacts:
    return DataFacts(num_images=1437, num_classes=10, channels=1, size=(8, 8), mean=(0.3,), std=(0.4,))


def _given(**values: Any) -> Overlay:
    """What a user decided, by the names of the options."""
    paths = {"image_size": "model.image.size", "patch_size": "model.patch.size", "epochs": "schedule.epochs"}
    return make_overlay(options=[(paths.get(name, name), name, value) for name, value in values.items()])


@given(facts)
def test_from_scratch_attention_has_tokens_and_heads_have_channels(data: DataFacts) -> None:
    settings, choices = recipe_named("scratch")(data, Overlay())
    model = settings.model
    rows, columns = model.grid_size
    assert rows * columns >= 16 and model.head_dim >= 32 and choices
    assert max(model.patch.size) * 4 <= min(settings.view_size) + 3


@given(facts)
def test_a_training_view_is_whole_patches_of_a_smaller_image_unless_a_size_is_asked_for(
    data: DataFacts,
) -> None:
    settings, _ = recipe_named("scratch")(data, Overlay())
    view, image, patch = settings.view_size, settings.model.image.size, settings.model.patch.size
    if min(view) <= 16:
        assert view == image and settings.preprocess.resize == Cover(size=image)
    else:
        assert all(v < i < 1.6 * v for v, i in zip(view, image, strict=True))
        assert all(v % p == i % p == 0 for v, i, p in zip(view, image, patch, strict=True))
    asked, _ = recipe_named("scratch")(data, _given(image_size=(56, 48)))
    assert asked.view_size == asked.model.image.size == (56, 48)


def test_a_step_sees_views_and_the_evaluation_whole_images(tmp_path: Path) -> None:
    write_scans(tmp_path, {"train/0": 3, "train/1": 3, "val/0": 2, "val/1": 2})
    dataset = open_data(tmp_path)
    facts = dataclasses.replace(_digits(), size=(40, 40), num_classes=2)
    settings, _ = recipe_named("scratch")(facts, Overlay())
    assert (settings.view_size, settings.model.image.size) == ((40, 40), (48, 48))
    model = ViT(settings.model)
    task = Classify(settings, Classifier(model), dataset.training, dataset.evaluation, dataset.classes, 1)
    pixels = torch.zeros(2, 1, 60, 60, dtype=torch.uint8)
    batch = Batch(
        images=pixels, targets=torch.tensor([0, 1]), names=("a", "b"), draws=Draws(0, 0, np.arange(2))
    )
    assert task.views(batch).images.shape == (2, 1, 40, 40)
    assert [b.images.shape for b in task.evaluation(Ranks())] == [(4, 1, 48, 48)]


@given(facts)
def test_every_recipe_gives_settings_that_a_file_can_hold(data: DataFacts) -> None:
    weights = ModelCard(config=sized("ti/16"), preprocess=Preprocess.simple(224))
    for name, recipe in RECIPES.items():
        given_weights = weights if name in FROM_WEIGHTS else None
        task = MAESettings() if name in WITHOUT_LABELS else data.task
        objects = None
        if name in WITH_BOXES:
            task, objects = DetectSettings(), ObjectFacts(count=9, most=4, small=0.1, median=0.2, large=0.5)
        known = dataclasses.replace(data, weights=given_weights, task=task, objects=objects)
        settings, _ = recipe(with_yolos(known) if name == "yolos" else known, Overlay())
        assert settings.run.recipe == name
        assert 1 <= settings.run.batch_size <= max(data.num_images, 2)
        assert tree.from_plain(TrainSettings, tree.to_plain(settings)) == settings


def test_what_is_asked_for_is_taken() -> None:
    settings, _ = recipe_named("scratch")(_digits(), _given(image_size=(30, 30), patch_size=(4, 4), epochs=3))
    assert settings.model.image.size == settings.preprocess.image_size == (30, 30)
    assert settings.model.patch.size == (4, 4) and settings.schedule.epochs == 3
    named, _ = recipe_named("scratch")(_digits(), _given(model="ViT-Ti/16"))
    assert (named.model.dim, named.model.depth, named.model.head.num_classes) == (192, 12, 10)
    with pytest.raises(SettingsError, match="'scratch'"):
        recipe_named("scrach")


@given(st.integers(1, 50), st.integers(1, 40), st.floats(0, 60))
def test_the_rate_rises_then_falls_and_stays_within_its_bounds(
    epochs: int, steps: int, warmup: float
) -> None:
    settings = ScheduleSettings(epochs=epochs, warmup_epochs=warmup, final_lr=0.01)
    shares = [lr_factor(s, steps, settings) for s in range(epochs * steps)]
    peak = shares.index(max(shares))
    assert all(0 < share <= 1 for share in shares)
    assert shares[:peak] == sorted(shares[:peak]) and shares[peak:] == sorted(shares[peak:], reverse=True)


def test_the_learning_rate_ends_at_its_share_and_reaches_its_peak_in_any_run() -> None:
    settings = ScheduleSettings(epochs=4, warmup_epochs=1.0, final_lr=0.25)
    assert lr_factor(4 * 50, 50, settings) == pytest.approx(0.25)
    too_long = ScheduleSettings(epochs=2, warmup_epochs=9.0)
    assert max(lr_factor(step, 50, too_long) for step in range(100)) == pytest.approx(1.0)


def test_averaged_weights_carry_the_buffers_as_they_are() -> None:
    model = torch.nn.BatchNorm1d(2)
    average = AveragedWeights(model, 0.999)
    model(torch.randn(8, 2) + 5)
    average.update(1)
    assert all(torch.equal(a, b) for a, b in zip(average.model.buffers(), model.buffers(), strict=True))


def _model(*, gated: bool = False) -> ViT:
    config = recipe_named("scratch")(_digits(), Overlay())[0].model
    return ViT(dataclasses.replace(config, mlp=dataclasses.replace(config.mlp, gated=gated)))


def test_a_step_is_that_of_torchs_adamw_also_after_a_restart() -> None:
    torch.manual_seed(0)
    settings = OptimSettings(lr=0.01, weight_decay=0.1)
    ours, theirs = _model(), _model()
    theirs.load_state_dict(ours.state_dict())
    mine = make_optimiser(ours, settings)
    groups = make_optimiser(theirs, settings).param_groups
    reference = torch.optim.AdamW(groups, lr=0.01, betas=(settings.beta1, settings.beta2), fused=True)
    for step in range(4):
        if step == 2:
            kept = mine.state_dict()
            mine = make_optimiser(ours, settings)
            mine.load_state_dict(kept)
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        mine.step()
        reference.step()
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    mine.load_state_dict(reference.state_dict())  # runs from before this optimiser go on
    assert mine.state_dict().keys() == reference.state_dict().keys()


def test_a_training_step_imports_no_compiler() -> None:
    code = (
        "import sys, torch\n"
        "from patchword.training.optim import OptimSettings, make_optimiser\n"
        "model = torch.nn.Linear(2, 2)\n"
        "optimiser = make_optimiser(model, OptimSettings())\n"
        "model(torch.ones(1, 2)).sum().backward()\n"
        "optimiser.step(), optimiser.zero_grad(), optimiser.load_state_dict(optimiser.state_dict())\n"
        "sys.exit('torch._dynamo' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_groups_hold_every_parameter_once_and_decay_matrices_alone() -> None:
    model = _model()
    decayed, kept = (group["params"] for group in make_optimiser(model, OptimSettings()).param_groups)
    assert {id(p) for p in (*decayed, *kept)} == {id(p) for p in model.parameters()}
    assert len(decayed) + len(kept) == len(list(model.parameters()))
    assert all(p.ndim >= 2 for p in decayed) and all(p.ndim == 1 for p in kept)


def test_averaged_weights_follow_slowly_and_leave_the_model_alone() -> None:
    model = torch.nn.Linear(2, 2, bias=False)
    torch.nn.init.zeros_(model.weight)
    average = AveragedWeights(model, 0.5)
    torch.nn.init.ones_(model.weight)
    average.update(1)  # decay 2/11: not yet the 0.5 asked for
    torch.testing.assert_close(average.model.weight.detach(), torch.full((2, 2), 9 / 11))
    average.update(1000)
    torch.testing.assert_close(average.model.weight.detach(), torch.full((2, 2), 9 / 11 / 2 + 0.5))
    assert bool((model.weight == 1).all()) and not average.model.weight.requires_grad


def test_settings_that_contradict_each_other_are_refused() -> None:
    settings, _ = recipe_named("scratch")(_digits(), Overlay())
    with pytest.raises(SettingsError, match="image_size"):
        tree.replace_at(settings, "model.image.size", "[16, 16]")
    with pytest.raises(SettingsError, match="channels"):
        dataclasses.replace(
            settings,
            preprocess=dataclasses.replace(settings.preprocess, in_channels=3, mean=(0.5,), std=(0.5,)),
        )


@pytest.mark.parametrize(
    ("data", "weights", "taken"), [(1, 3, 3), (3, 1, 3), (1, 1, 1), (3, 3, 3), (3, 5, 5), (1, 4, 4)]
)
def test_channels_are_kept_where_the_weights_can_see_the_data(data: int, weights: int, taken: int) -> None:
    facts = dataclasses.replace(_digits(), channels=data, mean=(0.3,) * data, std=(0.2,) * data)
    config = sized("ti/16", in_channels=weights)
    card = ModelCard(
        config=config, preprocess=Preprocess.simple(224, weights, (0.5,) * weights, (0.5,) * weights)
    )
    settings, _ = recipe_named("finetune")(dataclasses.replace(facts, weights=card), Overlay())
    assert settings.model.image.channels == settings.preprocess.in_channels == taken
    assert len(settings.preprocess.mean) in (1, taken)


def test_muons_step_is_torchs_for_each_map_also_after_a_restart() -> None:
    torch.manual_seed(0)
    settings = OptimSettings(method="muon", lr=0.01, weight_decay=0.1)
    model = _model()
    mine = make_optimiser(model, settings)
    qkv, fc1 = model.blocks[0].attention.qkv.weight, model.blocks[0].mlp.fc1.weight
    maps = [part.detach().clone().requires_grad_() for part in (*qkv.chunk(3), fc1)]
    reference = torch.optim.Muon(maps, lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    before = torch.cat([part.detach() for part in maps])
    for step in range(4):
        if step == 2:
            kept = mine.state_dict()
            mine = make_optimiser(model, settings)
            mine.load_state_dict(kept)
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        for part, gradient in zip(maps, (*qkv.grad.chunk(3), fc1.grad), strict=True):
            part.grad = gradient.clone()
        mine.step()
        reference.step()
    moved, theirs = torch.cat([*qkv.chunk(3), fc1]) - before, torch.cat(maps) - before
    # Torch rounds to bfloat16 on its way.
    assert (moved - theirs).norm() < 0.02 * theirs.norm()


@pytest.mark.parametrize("shape", [(1, 64, 64), (3, 128, 32), (2, 32, 256)])
def test_orthogonal_keeps_the_directions_and_evens_out_their_lengths(shape: tuple[int, ...]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, _, vt = torch.linalg.svd(matrices, full_matrices=False)
    along = u.mT @ orthogonal(matrices) @ vt.mT
    lengths = along.diagonal(dim1=-2, dim2=-1)
    assert 0.65 < lengths.median() < 1.25 and lengths.max() < 1.3
    assert (along - torch.diag_embed(lengths)).abs().max() < 1e-3
    assert not orthogonal(torch.zeros(shape)).any()


def test_muon_moves_the_matrices_of_the_blocks_and_adamw_the_rest() -> None:
    for gated in (False, True):
        model = _model(gated=gated)
        groups = make_optimiser(model, OptimSettings(method="muon")).param_groups
        names = {p: name for name, p in model.named_parameters()}
        assert sorted(names[p] for group in groups for p in group["params"]) == sorted(names.values())
        maps = {
            names[p]: group["matrices"] for group in groups if "matrices" in group for p in group["params"]
        }
        assert set(maps) == {
            n for n, p in model.named_parameters() if n.startswith("blocks.") and p.ndim == 2
        }
        assert maps["blocks.0.attention.qkv.weight"] == 3 and maps["blocks.0.attention.proj.weight"] == 1
        assert maps["blocks.0.mlp.fc1.weight"] == (2 if gated else 1) and maps["blocks.0.mlp.fc2.weight"] == 1


def test_few_images_from_scratch_come_with_what_to_expect() -> None:
    settings, _ = recipe_named("scratch")(_digits(), Overlay())
    assert "30 training images per class" in expectation(settings, 300)
    assert "--weights" in expectation(settings, 300) and expectation(settings, 1437) == ""
    begun = dataclasses.replace(settings, run=dataclasses.replace(settings.run, weights="run"))
    assert expectation(begun, 300) == ""
