"""Training DETR: views in the aspect of their images, the published losses, what is tuned, and which weights are kept."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from patchword.data.check import check_data
from patchword.data.dataset import Dataset
from patchword.data.open import open_data
from patchword.data.request import OpenRequest
from patchword.errors import SettingsError
from patchword.formats.detection.trunk import PLAIN, trunk_rows
from patchword.formats.facts import Options
from patchword.formats.rows import rules_of
from patchword.images.prepare import read, read_pixels
from patchword.inference.detector import load_detector
from patchword.model.detection import pad_batch
from patchword.model.detr.config import DetrConfig
from patchword.model.detr.cost import cost, step_bytes
from patchword.model.detr.model import DETR
from patchword.model.set_loss import set_loss
from patchword.training.chance import Draws
from patchword.training.choose import choose
from patchword.training.config import TrainSettings
from patchword.training.detr_start import DetrStart
from patchword.training.groups import parameter_groups
from patchword.training.overlay import Overlay
from patchword.training.recipes.facts import DataFacts, data_facts
from patchword.training.setup import new_model, new_state
from patchword.training.task import Batch
from patchword.training.tasks.detect import Detect
from patchword.training.tasks.detect_tally import DetectTally
from patchword.training.tasks.detect_targets import objects_of, padded
from patchword.training.tasks.detect_views import boxes_of
from patchword.training.tasks.detectors import TrainedDetr
from patchword.training.tasks.make import make_task
from patchword.training.tune import Head, Trunk
from patchword.training.weights import fill_rest, read_start
from support.cells import CELLS, NAMES
from support.detr import CLASSES, write_tiny

SIZES = {"model.image.size": (48, 48), "run.batch_size": 4, "run.threads": 1}


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return open_data(CELLS, OpenRequest(boxes=True))


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> DetrStart:
    found = read_start(str(write_tiny(tmp_path_factory.mktemp("detr") / "tiny.safetensors")))
    assert isinstance(found, DetrStart)
    return found


@pytest.fixture(scope="module")
def facts(dataset: Dataset, start: DetrStart) -> DataFacts:
    return start.added_to(data_facts(check_data(dataset, workers=1)))


def overlay(**given: Any) -> Overlay:
    return Overlay({path: (value, "option -o") for path, value in (SIZES | given).items()})


@pytest.fixture(scope="module")
def settings(dataset: Dataset, facts: DataFacts) -> TrainSettings:
    return choose(dataset, facts, overlay()).settings


@pytest.fixture
def task(dataset: Dataset, settings: TrainSettings) -> Detect:
    found = make_task(settings, new_model(settings), dataset, dataset.evaluation, 1)
    assert isinstance(found, Detect) and isinstance(found.module, TrainedDetr)
    return found


def stored(task: Detect, dataset: Dataset, rows: list[int], epoch: int = 0) -> Batch:
    split = dataset.training
    pixels = [
        torch.from_numpy(read_pixels(split.source(row), task.shown.stored).transpose(2, 0, 1).copy())
        for row in rows
    ]
    images, targets = task.collate(pixels, rows)
    names = tuple(split.names[row] for row in rows)
    draws = Draws(0, epoch, np.asarray(rows, np.int64))
    return Batch(images=images, targets=targets, names=names, draws=draws)


# Views -------------------------------------------------------------------------------------


def test_a_complete_view_is_what_evaluation_sees(task: Detect, dataset: Dataset) -> None:
    views = task.shown.plain_views(stored(task, dataset, [0]))
    seen = torch.from_numpy(read(dataset.training.source(0), task.settings.preprocess))
    assert views.images[0].shape == seen.shape and seen.shape[1] == 48 < seen.shape[2]
    assert (views.images[0] - seen).abs().mean() < 0.25
    tally = task.tally()
    assert isinstance(tally, DetectTally)
    expected = tally.shares(boxes_of(dataset.training).image(0), torch.device("cpu"))
    assert (views.targets[0]["boxes"] - expected["boxes"]).abs().max() < 1 / 48


def test_views_have_sizes_of_their_own_and_boxes_are_shares_of_them(task: Detect, dataset: Dataset) -> None:
    sizes = set()
    for epoch in range(4):
        batch = stored(task, dataset, [0, 1, 2, 3], epoch)
        views = task.views(batch)
        again = task.views(batch)
        assert torch.equal(views.images, again.images), "the same draws give the same views"
        for image, one in zip(views.images, views.targets, strict=True):
            height, width = one["size"].tolist()
            sizes.add((height, width))
            assert min(height, width) in task.settings.task.augment.shorter  # type: ignore[union-attr]
            # Outside of a view is 0, which is the mean colour.
            assert not image[:, height:].any() and not image[:, :, width:].any()
            low, high = (one["boxes"][:, :2] + sign * one["boxes"][:, 2:] / 2 for sign in (-1, 1))
            assert (low >= -1e-6).all() and (high <= 1 + 1e-6).all()
    assert len(sizes) > 4


def test_a_padded_batch_computes_what_pad_batch_would(task: Detect, dataset: Dataset) -> None:
    views = task.views(stored(task, dataset, [0, 1, 2, 3]))
    sizes = [one["size"].tolist() for one in views.targets]
    alone = [image[:, :h, :w] for image, (h, w) in zip(views.images, sizes, strict=True)]
    ours, theirs = padded(views.images, views.targets), pad_batch(alone)
    assert theirs.padding is not None and ours.padding is not None
    assert torch.equal(ours.padding, theirs.padding)
    assert torch.allclose(ours.images, theirs.images, atol=1e-6)


# Losses ------------------------------------------------------------------------------------


def test_losses_are_the_published_ones_and_those_of_micro_batches_add_up(
    task: Detect, dataset: Dataset
) -> None:
    batch = task.views(stored(task, dataset, [0, 1, 2, 3]))
    module = task.module.eval()
    counts = task.counts(batch)
    whole = module(batch.images, batch.targets)
    found = DETR.forward(module, padded(batch.images, batch.targets))
    published = set_loss(found, objects_of(batch.targets)).total
    assert torch.allclose(sum(whole[name] / counts[name] for name in whole), published, rtol=1e-4)
    parts = [batch.part(slice(first, first + 2)) for first in (0, 2)]
    for name in whole:
        summed = sum(module(part.images, part.targets)[name] for part in parts)
        assert torch.allclose(whole[name], torch.as_tensor(summed), rtol=1e-4)


@pytest.mark.parametrize(
    ("steps", "left"), [(40, 0.85), pytest.param(200, 0.5, marks=pytest.mark.slow)], ids=["begins", "learns"]
)
def test_two_images_are_learned(task: Detect, dataset: Dataset, steps: int, left: float) -> None:
    """The loss of the same views falls."""
    module = task.module
    batch = task.shown.plain_views(stored(task, dataset, [0, 1]))
    # Six queries, so the three largest objects of each image.
    targets = [_largest(one, 3) for one in batch.targets]
    optimiser = torch.optim.AdamW(module.parameters(), lr=1e-2, weight_decay=0.0)
    losses = []
    for _ in range(steps):
        loss = module.eval()(batch.images, targets)
        total = loss["boxes"] / 6 + loss["classes"] / module.counts([3, 3])["classes"]
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        losses.append(float(total.detach()))
    assert losses[-1] < left * losses[0], losses[-1]


def _largest(one: dict[str, torch.Tensor], count: int) -> dict[str, torch.Tensor]:
    rows = one["boxes"][:, 2:].prod(1).argsort(descending=True)[:count]
    return one | {"labels": one["labels"][rows], "boxes": one["boxes"][rows]}


# What is chosen and tuned --------------------------------------------------------------------


def test_the_recipe_is_that_of_the_paper(dataset: Dataset, facts: DataFacts) -> None:
    given = Overlay({"run.batch_size": (4, "option")})
    chosen = choose(dataset, facts, given).settings
    assert (chosen.optim.method, chosen.optim.lr, chosen.optim.weight_decay) == ("adamw", 1e-4, 1e-4)
    assert chosen.optim.clip_grad == 0.1 and chosen.tune == Trunk(rate=0.1, frozen=2)
    published = choose(dataset, replace(facts, detr=None), Overlay({"model": ("detr-r50", "option --model")}))
    augment, rule = published.settings.task.augment, published.settings.preprocess.resize  # type: ignore[union-attr]
    assert (augment.shorter[0], augment.shorter[-1], len(augment.shorter), augment.longest) == (
        480,
        800,
        11,
        1333,
    )
    assert (rule.shorter, rule.longest) == (800, 1333)  # type: ignore[union-attr]
    assert published.settings.model is None and published.settings.run.recipe == "detr"
    assert published.settings.detr is not None
    assert published.settings.detr.config(91) == DetrConfig()
    assert published.settings.tune == Trunk(rate=1.0, frozen=0), "a random trunk has nothing to keep"


def test_the_trunk_has_its_own_rate_and_its_first_parts_are_frozen(settings: TrainSettings) -> None:
    module = new_model(settings)
    groups = {
        (group.name, group.trainable): group for group in parameter_groups(module, settings.optim, Trunk())
    }
    assert {key: group.lr_scale for key, group in groups.items()} == {
        ("trunk, frozen", False): 0.1,
        ("trunk", True): 0.1,
        ("transformer, queries, heads", True): 1.0,
    }
    assert all(group.weight_decay == settings.optim.weight_decay for group in groups.values())
    assert isinstance(module, TrainedDetr)
    frozen = [name for name, weight in module.named_parameters() if not weight.requires_grad]
    assert frozen and all(name.startswith(("trunk.root", "trunk.stages.0.")) for name in frozen)
    parameter_groups(module, settings.optim, Head())
    assert not any(weight.requires_grad for weight in module.trunk.parameters())


@pytest.mark.slow
def test_the_cost_of_the_published_model() -> None:
    """41.5 M parameters and 86 G multiply-adds (table 1), on images of 800 x 1066."""
    found = cost(DetrConfig(), (800, 1066))
    assert round(found.parameters / 1e6, 1) == 41.5 and 75e9 < found.flops / 2 < 90e9
    whole, less = (step_bytes(DetrConfig(), (320, 320), frozen=frozen) for frozen in (0, 2))
    assert 0 < less < whole


# Weights -----------------------------------------------------------------------------------


def test_rows_of_classes_with_the_same_name_are_kept(settings: TrainSettings, start: DetrStart) -> None:
    state, _ = new_state(new_model(settings), settings)
    before = {name: tensor.clone() for name, tensor in state.module.state_dict().items()}
    said = fill_rest((state.module,), start, NAMES)
    after = state.module.state_dict()
    assert "2 of 3 classes kept" in said and "new: Platelets" in said
    old = [one.name for one in CLASSES]
    for part in ("class_head.weight", "class_head.bias"):
        for new, name in enumerate(NAMES):
            kept = start.tensors[part][old.index(name)] if name in old else before[part][new]
            assert torch.equal(after[part][new], kept), name
        assert torch.equal(after[part][-1], start.tensors[part][-1]), "no object"
    rest = [name for name in after if not name.startswith("class_head.")]
    assert all(torch.equal(after[name], start.tensors[name]) for name in rest)


def test_a_file_of_the_authors_starts_like_our_own_once_its_classes_are_named(
    settings: TrainSettings, start: DetrStart, tmp_path: Path
) -> None:
    own = write_tiny(tmp_path / "tiny.safetensors")
    load_detector(own).write(tmp_path / "detr.pth", "detr")
    names = tuple(one.name for one in CLASSES)
    options = Options(num_heads=2)
    nameless = read_start(str(tmp_path / "detr.pth"), options)
    assert isinstance(nameless, DetrStart)
    module = new_model(settings)
    said = fill_rest((module,), nameless, NAMES)
    assert said.startswith("class head: 0 of 3 classes kept") and "--class-names" in said
    named = read_start(str(tmp_path / "detr.pth"), replace(options, classes=names))
    assert fill_rest((module,), named, NAMES).startswith("class head: 2 of 3 classes kept")
    expected = new_model(settings)
    fill_rest((expected,), start, NAMES)
    rest = expected.state_dict()
    assert all(torch.equal(tensor, rest[name]) for name, tensor in module.state_dict().items())


def test_a_resnet_is_the_start_of_a_trunk(
    dataset: Dataset, facts: DataFacts, start: DetrStart, tmp_path: Path
) -> None:
    known = start.holds.config.trunk  # type: ignore[union-attr]
    shapes = {name: tuple(tensor.shape) for name, tensor in start.tensors.items()}
    rules = rules_of(trunk_rows("", PLAIN, known), shapes, 0)
    tensors = {rule.theirs[0]: start.tensors[rule.ours[0]].clone() for rule in rules}
    save_file(
        tensors | {"fc.weight": torch.zeros(5, 16), "fc.bias": torch.zeros(5)},
        tmp_path / "resnet.safetensors",
    )
    found = read_start(str(tmp_path / "resnet.safetensors"))
    assert isinstance(found, DetrStart) and found.holds == known
    small = {"task.detector.dim": 16, "task.detector.hidden": 16, "task.detector.num_heads": 2}
    depths = {"task.detector.encoder_depth": 1, "task.detector.decoder_depth": 1}
    chosen = choose(dataset, found.added_to(replace(facts, detr=None)), overlay(**small, **depths)).settings
    module = new_model(chosen)
    assert "start anew" in fill_rest((module,), found, NAMES)
    ours = {name: tensor for name, tensor in module.state_dict().items() if name.startswith("trunk.")}
    assert ours and all(torch.equal(tensor, start.tensors[name]) for name, tensor in ours.items())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"model": "detr-r50"}, "cannot be combined with the weights of DETR"),
        ({"run.recipe": "detect"}, "the weights are those of DETR"),
        ({"model.patch.size": (8, 8)}, "DETR is built on a ResNet"),
        ({"tune": {"kind": "lora"}}, "DETR has none"),
        ({"task.augment.shorter": "[]", "task.augment.crop": 0.0}, "DETR sees images in their own aspect"),
    ],
)
def test_what_contradicts_the_weights_is_refused(
    dataset: Dataset, facts: DataFacts, given: dict[str, Any], said: str
) -> None:
    with pytest.raises(SettingsError, match=said) as error:
        choose(dataset, facts, overlay(**given))
    assert error.value.fix


def test_an_unknown_name_is_refused_with_the_nearest(dataset: Dataset, facts: DataFacts) -> None:
    with pytest.raises(SettingsError, match="did you mean 'detr-r50'"):
        choose(dataset, replace(facts, detr=None), overlay(model="detr-r5"))
