"""Training YOLOS: the recipe of the paper, the published losses, what is tuned, and which weights are kept, in every format."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from patchword.data.check import check_data
from patchword.data.dataset import Dataset
from patchword.data.open import open_data
from patchword.data.request import OpenRequest
from patchword.errors import SettingsError
from patchword.formats.facts import Options
from patchword.inference.detector import load_detector
from patchword.model.matching import Targets
from patchword.model.set_loss import set_loss
from patchword.training.choose import choose
from patchword.training.config import TrainSettings
from patchword.training.groups import parameter_groups
from patchword.training.overlay import Overlay
from patchword.training.recipes.facts import DataFacts, data_facts
from patchword.training.setup import new_model, new_state
from patchword.training.tasks.detectors import TrainedYolos
from patchword.training.tasks.make import make_module
from patchword.training.tune import Head, LayerDecay
from patchword.training.weights import Start, fill, fill_rest, read_start
from support.cells import CELLS, NAMES
from support.detr import CLASSES
from support.yolos import Form, with_yolos, write_tiny

SIZES = {"model.image.size": (32, 48), "run.batch_size": 4, "run.threads": 1}


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return open_data(CELLS, OpenRequest(boxes=True))


@pytest.fixture(scope="module")
def plain(dataset: Dataset) -> DataFacts:
    return data_facts(check_data(dataset, workers=1))


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Start:
    found = read_start(str(write_tiny(tmp_path_factory.mktemp("yolos"))))
    assert isinstance(found, Start)
    return found


@pytest.fixture(scope="module")
def facts(plain: DataFacts, start: Start) -> DataFacts:
    return start.added_to(plain)


def overlay(**given: Any) -> Overlay:
    return Overlay({path: (value, "option -o") for path, value in (SIZES | given).items()})


@pytest.fixture(scope="module")
def settings(dataset: Dataset, facts: DataFacts) -> TrainSettings:
    return choose(dataset, facts, overlay()).settings


@pytest.fixture
def module(settings: TrainSettings) -> TrainedYolos:
    found = make_module(settings, new_model(settings))
    assert isinstance(found, TrainedYolos)
    return found


def test_the_recipe_is_that_of_the_paper(dataset: Dataset, plain: DataFacts) -> None:
    chosen = choose(dataset, with_yolos(plain), Overlay({}))
    settings = chosen.settings
    assert settings.run.recipe == "yolos" and settings.task.detector.kind == "yolos"  # type: ignore[union-attr]
    optim = settings.optim
    assert (optim.method, optim.lr, optim.weight_decay, optim.clip_grad) == ("adamw", 5e-5, 1e-4, 0.1)
    assert settings.tune.kind == "full"
    # The images have 160 x 120 pixels; published models have seen none below 480.
    assert settings.vit.image.size == settings.preprocess.image_size == (384, 512)
    assert settings.preprocess.resize.kind == "border"
    assert settings.vit.tokens.num_registers == 100
    wide = with_yolos(plain)
    assert wide.weights is not None
    card = replace(wide.weights, config=replace(wide.weights.config, dim=384))
    assert choose(dataset, replace(wide, weights=card), Overlay({})).settings.optim.lr == 2.5e-5
    full = replace(plain.objects, most=101)  # type: ignore[type-var]
    warned = choose(dataset, with_yolos(replace(plain, objects=full)), Overlay({})).choices
    assert any(choice.what == "warning: 100 queries" for choice in warned)


def test_losses_are_the_published_ones_of_the_only_layer(module: TrainedYolos) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn((2, 3, 32, 48), generator=generator)
    boxes = torch.rand((3, 4), generator=generator) * 0.4 + 0.2
    labels = torch.tensor([0, 2, 1])
    targets = [
        {
            "labels": labels[part],
            "boxes": boxes[part],
            "seed": torch.tensor(0),
            "size": torch.tensor([32, 48]),
        }
        for part in (slice(0, 2), slice(2, 3))
    ]
    module.eval()
    whole, counts = module(images, targets), module.counts([2, 1])
    found = module.predict(images)
    assert len(found.logits) == 1, "no auxiliary losses"
    published = set_loss(found, Targets(labels, boxes, (2, 1))).total
    assert torch.allclose(sum(whole[name] / counts[name] for name in whole), published, rtol=1e-5)
    scores = module.answers(found, 100)[0].scores
    assert len(scores) == 5 and (scores.diff() <= 0).all()


def test_two_images_are_learned_by_backbone_and_heads(module: TrainedYolos) -> None:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn((2, 3, 32, 48), generator=generator)
    targets = [
        {"labels": torch.tensor([i]), "boxes": torch.tensor([[0.3 + 0.4 * i, 0.4, 0.2, 0.3]])}
        for i in range(2)
    ]
    before = {name: weight.clone() for name, weight in module.named_parameters()}
    optimiser = torch.optim.AdamW(module.parameters(), lr=5e-3)
    counts, losses = module.counts([1, 1]), []
    for _ in range(30):
        found = module(images, targets)
        total = torch.stack([found[name] / counts[name] for name in found]).sum()
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        losses.append(float(total.detach()))
    assert losses[-1] < 0.4 * losses[0], losses[::10]
    assert not any(torch.equal(weight, before[name]) for name, weight in module.named_parameters())


def test_the_backbone_is_tuned_like_any_vit(settings: TrainSettings, module: TrainedYolos) -> None:
    groups = parameter_groups(module, settings.optim, LayerDecay(decay=0.5))
    scales = {group.name: group.lr_scale for group in groups}
    assert scales["patches, tokens, positions"] == 0.125 and scales["class_head"] == scales["box_head"] == 1.0
    decayed = {id(p) for group in groups if group.weight_decay for p in group.parameters}
    kept = [name for name, p in module.named_parameters() if p.ndim > 1 and id(p) not in decayed]
    assert kept and all(".prefix." in name or ".positions." in name for name in kept)
    parameter_groups(module, settings.optim, Head())
    assert {name.split(".")[0] for name, p in module.named_parameters() if p.requires_grad} == {
        "class_head",
        "box_head",
    }


@pytest.mark.parametrize("form", ["patchword", "yolos"])
def test_all_but_the_rows_of_new_classes_is_kept_from_every_format(
    form: Form, dataset: Dataset, plain: DataFacts, tmp_path: Path
) -> None:
    names = tuple(one.name for one in CLASSES)
    options = Options(num_heads=2, classes=names) if form == "yolos" else Options()
    start = read_start(str(write_tiny(tmp_path, form)), options)
    assert isinstance(start, Start)
    settings = choose(dataset, start.added_to(plain), overlay()).settings
    model = new_model(settings)
    fill(model, start, settings, ())
    state, _ = new_state(model, settings)
    before = {name: tensor.clone() for name, tensor in state.module.state_dict().items()}
    said = fill_rest((state.module,), start, NAMES)
    assert said == "class head: 2 of 3 classes kept from the weights (RBC, WBC); new: Platelets"
    own = load_detector(write_tiny(tmp_path / "own")).model.state_dict()
    after, head = state.module.state_dict(), "class_head.layers.2."
    for part in ("weight", "bias"):
        rows = after[head + part]
        for new, name in enumerate(NAMES):
            kept = own[head + part][names.index(name)] if name in names else before[head + part][new]
            assert torch.equal(rows[new], kept), name
        assert torch.equal(rows[-1], own[head + part][-1]), "no object"
    rest = [name for name in after if not name.startswith(head)]
    assert all(torch.equal(after[name], own[name]) for name in rest)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"model": "vit-s16-det"}, "cannot be combined with weights"),
        ({"run.recipe": "detect"}, "the weights are those of YOLOS"),
        ({"run.recipe": "detr"}, "a detector on a ViT (yolos)"),
        ({"tune": {"kind": "trunk"}}, "is for DETR"),
        ({"model.tokens.registers_last": False}, "detection tokens behind its patches"),
        ({"task.augment.shorter": "[32, 48]"}, "this detector takes one size"),
    ],
)
def test_settings_of_another_model_are_refused(
    given: dict[str, Any], said: str, dataset: Dataset, facts: DataFacts
) -> None:
    with pytest.raises(SettingsError) as raised:
        choose(dataset, facts, overlay(**given))
    assert said in raised.value.message and raised.value.fix


def test_without_its_weights_yolos_is_refused(dataset: Dataset, plain: DataFacts) -> None:
    with pytest.raises(SettingsError, match="starts from YOLOS") as raised:
        choose(dataset, plain, overlay(**{"run.recipe": "yolos"}))
    assert "--recipe detect" in raised.value.fix
