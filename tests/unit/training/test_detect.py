"""Training detectors: what a view shows, what the recipe chooses, what the score means, and what is said before it is too late."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from patchword.data.check import check_data
from patchword.data.dataset import Dataset
from patchword.data.open import open_data
from patchword.data.request import OpenRequest
from patchword.errors import SettingsError
from patchword.images.prepare import read, read_pixels
from patchword.model.sizes import backbone_of, sized
from patchword.model.vitdet import memory
from patchword.model.vitdet.answer import answers
from patchword.model.vitdet.config import VitDetConfig
from patchword.model.vitdet.found import Found
from patchword.model.vitdet.model import VitDet
from patchword.training.chance import Draws
from patchword.training.choose import choose
from patchword.training.config import TrainSettings
from patchword.training.overlay import Overlay
from patchword.training.preview import draw_box_views
from patchword.training.recipes.facts import DataFacts, ObjectFacts, data_facts
from patchword.training.sanity import Sanity, explained
from patchword.training.setup import new_model
from patchword.training.task import Batch
from patchword.training.tasks.detect import Detect
from patchword.training.tasks.detect_settings import DetectSettings
from patchword.training.tasks.detect_tally import DetectTally
from patchword.training.tasks.detect_views import boxes_of
from patchword.training.tasks.make import make_module, make_task
from patchword.training.tasks.settings import ClassifySettings
from patchword.training.tune import Head
from support.cells import CELLS, IDS, NAMES, TINY


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return open_data(CELLS, OpenRequest(boxes=True))


@pytest.fixture(scope="module")
def facts(dataset: Dataset) -> DataFacts:
    return data_facts(check_data(dataset, workers=1))


def overlay(**given: Any) -> Overlay:
    return Overlay({path: (value, "option -o") for path, value in (TINY | given).items()})


@pytest.fixture(scope="module")
def settings(dataset: Dataset, facts: DataFacts) -> TrainSettings:
    return choose(dataset, facts, overlay()).settings


@pytest.fixture(scope="module")
def task(dataset: Dataset, settings: TrainSettings) -> Detect:
    module = make_module(settings, new_model(settings))
    found = make_task(settings, module, dataset, dataset.evaluation, 1)
    assert isinstance(found, Detect)
    return found


def stored(task: Detect, dataset: Dataset, rows: list[int]) -> Batch:
    split = dataset.training
    pixels = [
        torch.from_numpy(read_pixels(split.source(row), task.shown.stored).transpose(2, 0, 1).copy())
        for row in rows
    ]
    images, targets = task.collate(pixels, rows)
    names = tuple(split.names[row] for row in rows)
    return Batch(images=images, targets=targets, names=names, draws=Draws(0, 0, np.asarray(rows, np.int64)))


# Views -------------------------------------------------------------------------------------


@pytest.mark.parametrize("frame", [(48, 64), (64, 64), (96, 48)])
def test_complete_views_have_the_boxes_and_pixels_that_evaluation_sees(
    dataset: Dataset, facts: DataFacts, frame: tuple[int, int]
) -> None:
    """Whatever the frame, training and evaluation place an image in it alike."""
    chosen = choose(dataset, facts, overlay(**{"model.image.size": frame})).settings
    task = make_task(chosen, make_module(chosen, new_model(chosen)), dataset, dataset.training, 1)
    assert isinstance(task, Detect)
    views = task.shown.plain_views(stored(task, dataset, [0, 1]))
    seen = torch.stack(
        [torch.from_numpy(read(dataset.training.source(row), chosen.preprocess)) for row in (0, 1)]
    )
    tally = task.tally()
    assert isinstance(tally, DetectTally)
    for row in (0, 1):
        expected = tally.shares(boxes_of(dataset.training).image(row), torch.device("cpu"))
        assert torch.equal(views.targets[row]["labels"], expected["labels"])
        assert (views.targets[row]["boxes"] - expected["boxes"]).abs().max() < 1 / min(frame)
    assert (views.images - seen).abs().mean() < 0.25


def test_training_views_differ_by_epoch_and_keep_their_objects_inside(task: Detect, dataset: Dataset) -> None:
    batch = stored(task, dataset, [0, 1, 2])
    first = task.views(batch)
    again = task.views(replace(batch, draws=Draws(0, 1, batch.draws.samples)))
    assert torch.equal(first.images, task.views(batch).images), "the same draws give the same view"
    assert not torch.equal(first.images, again.images)
    for one in (*first.targets, *again.targets):
        assert len(one["labels"]) == len(one["boxes"]) > 0
        low, high = (
            one["boxes"][:, :2] - one["boxes"][:, 2:] / 2,
            one["boxes"][:, :2] + one["boxes"][:, 2:] / 2,
        )
        assert (low >= -1e-6).all() and (high <= 1 + 1e-6).all()
    assert task.counts(first)["boxes"] == sum(len(one["labels"]) for one in first.targets)


def test_losses_of_micro_batches_add_up_to_those_of_the_batch(task: Detect, dataset: Dataset) -> None:
    batch = task.shown.plain_views(stored(task, dataset, [0, 1, 2, 3]))
    module = task.module.eval()
    whole = module(batch.images, batch.targets)["boxes"]
    parts = [batch.part(slice(first, first + 2)) for first in (0, 2)]
    summed = sum(module(part.images, part.targets)["boxes"] for part in parts)
    assert torch.allclose(whole, torch.as_tensor(summed), rtol=1e-4)


def test_an_image_without_objects_teaches_that_there_are_none(task: Detect, dataset: Dataset) -> None:
    batch = task.shown.plain_views(stored(task, dataset, [0]))
    none = batch.targets[0] | {"labels": torch.zeros(0, dtype=torch.int64), "boxes": torch.zeros(0, 4)}
    loss = task.module(batch.images, [none])["boxes"]
    assert loss.isfinite() and loss > 0


def test_the_preview_shows_two_different_views_of_each_image_with_boxes_where_the_objects_are(
    dataset: Dataset, settings: TrainSettings
) -> None:
    """Cells are darker than what is around them, in the view as in the image."""
    views = draw_box_views(dataset, settings, 4)
    assert [view.name for view in views[::2]] == [view.name for view in views[1::2]]
    assert not np.array_equal(views[0].pixels, views[1].pixels)
    for view in views:
        green = view.pixels[..., 1].astype(float)
        inside = np.zeros(green.shape, bool)
        for left, top, right, bottom in view.boxes.corners.round().astype(int):
            inside[top:bottom, left:right] = True
        assert green[inside].mean() < green[~inside].mean()


# The card ----------------------------------------------------------------------------------


def test_the_card_has_the_numbers_and_names_of_the_data(task: Detect) -> None:
    card = task.card({})
    assert {(one.id, one.name) for one in card.classes} == set(zip(IDS, NAMES, strict=True))
    assert [one.name for one in card.classes] == list(task.classes)


# The recipe --------------------------------------------------------------------------------

OBJECTS = ObjectFacts(count=500, most=20, small=0.1, median=0.15, large=0.3)


def chosen_for(dataset: Dataset, facts: DataFacts, objects: ObjectFacts, **given: Any) -> TrainSettings:
    entries = Overlay({path: (value, "option") for path, value in given.items()})
    large = replace(facts, objects=objects, size=(480, 640))
    return choose(dataset, large, entries).settings


def test_small_objects_get_larger_images_and_finer_maps(dataset: Dataset, facts: DataFacts) -> None:
    usual = chosen_for(dataset, facts, OBJECTS)
    small = chosen_for(dataset, facts, replace(OBJECTS, small=0.02, median=0.03, large=0.045))
    large = chosen_for(dataset, facts, replace(OBJECTS, small=0.3, median=0.5, large=0.9))
    assert usual.model.image.size == (240, 320)
    assert max(small.model.image.size) > max(usual.model.image.size)
    found = [s.task.detector.scales for s in (small, usual, large) if isinstance(s.task, DetectSettings)]
    assert 2.0 in found[0] and 0.5 not in found[0] and 2.0 not in found[2] and 0.5 in found[2]


def test_full_images_get_more_queries_than_objects(dataset: Dataset, facts: DataFacts) -> None:
    for most in (1, 90, 300):
        task = chosen_for(dataset, facts, replace(OBJECTS, most=most)).task
        assert isinstance(task, DetectSettings) and task.detector.num_queries >= 1.5 * most


def test_every_choice_has_a_reason_and_the_budget_is_named(dataset: Dataset, facts: DataFacts) -> None:
    choices = choose(dataset, facts, Overlay({})).choices
    assert all(choice.what and choice.why for choice in choices)
    text = "; ".join(choice.what for choice in choices)
    for expected in ("backbone", "images of", "maps of", "queries", "patches (median)", "steps of"):
        assert expected in text


def test_names_of_detectors_are_sizes_with_an_ending(dataset: Dataset, facts: DataFacts) -> None:
    assert backbone_of("vit-ti16-det") == backbone_of("ViT-Ti/16-det") == "ViT-Ti/16"
    assert backbone_of("so400m14-det") == "ViT-So400m/14" and backbone_of("ViT-B/16") is None
    named = chosen_for(dataset, facts, OBJECTS, model="vit-s16-det")
    assert named.model.dim == 384 and named.model.head.num_classes == 0
    with pytest.raises(SettingsError, match="unknown model size"):
        chosen_for(dataset, facts, OBJECTS, model="vit-xx16-det")
    with pytest.raises(SettingsError, match="detector"):
        sized("ViT-Ti/16-det")


def test_recipes_and_settings_for_classes_are_refused_with_boxes(dataset: Dataset, facts: DataFacts) -> None:
    with pytest.raises(SettingsError, match="has boxes"):
        chosen_for(dataset, facts, OBJECTS, **{"run.recipe": "scratch"})
    with pytest.raises(SettingsError, match=r"augment is for images with classes"):
        chosen_for(dataset, facts, OBJECTS, **{"augment.erase": 0.5})
    with pytest.raises(SettingsError, match="cut off objects"):
        chosen_for(dataset, facts, OBJECTS, **{"preprocess.resize": {"kind": "cover", "size": [240, 320]}})
    plain = replace(facts, objects=None, task=ClassifySettings())
    with pytest.raises(SettingsError, match="has no boxes"):
        choose(dataset, plain, Overlay({"run.recipe": ("detect", "option")}))


def test_the_memory_beside_the_backbone_is_estimated() -> None:
    for scales in ((2.0, 1.0, 0.5), (1.0,)):
        vit = replace(sized("Ti/16", num_classes=0), depth=1)
        config = VitDetConfig(vit=vit, num_classes=3, scales=scales, num_layers=2)
        model = VitDet(config)
        real = sum(p.numel() for name, p in model.named_parameters() if not name.startswith("vit."))
        assert memory.weights(config) == pytest.approx(real, rel=0.05)
        wider = replace(config, num_queries=300)
        assert memory.step_bytes(wider, (448, 448)) > memory.step_bytes(config, (224, 224)) > 0


# Scores ------------------------------------------------------------------------------------


class Answering(nn.Module):
    """Answers with given boxes, and a certain score."""

    def __init__(self, boxes: Tensor, labels: Tensor, score: float = 0.99) -> None:
        super().__init__()
        self.boxes, self.labels, self.score = boxes, labels, score

    def predict(self, images: Tensor) -> Found:
        count = len(images)
        logits = torch.full((1, count, len(self.labels), len(NAMES)), -9.0)
        logits[0, :, torch.arange(len(self.labels)), self.labels] = torch.logit(torch.tensor(self.score))
        boxes = self.boxes.expand(1, count, -1, -1)
        return Found(
            logits, boxes, logits[0], boxes[0], boxes[0, 0], torch.full(logits.shape[1:3], self.score)
        )

    def losses(self, found: Found, targets: Any) -> dict[str, Tensor]:
        return {"boxes": torch.zeros(())}

    def counts(self, objects: Any) -> dict[str, float]:
        return {"boxes": float(sum(objects))}

    def answers(self, found: Found, most: int) -> Any:
        return answers(found, most)


def evaluated(task: Detect, dataset: Dataset, rows: list[int], module: nn.Module) -> DetectTally:
    tally = task.tally()
    assert isinstance(tally, DetectTally)
    boxes, draws = boxes_of(dataset.training), Draws(0, 0, np.asarray(rows, np.int64))
    names = tuple(dataset.training.names[row] for row in rows)
    images = torch.zeros(len(rows), 3, 48, 64)
    tally.add(module, Batch(images=images, targets=boxes.rows(rows), names=names, draws=draws))
    return tally


def right_answer(task: Detect, dataset: Dataset, row: int, score: float = 0.99) -> Answering:
    tally = task.tally()
    assert isinstance(tally, DetectTally)
    true = tally.shares(boxes_of(dataset.training).image(row), torch.device("cpu"))
    return Answering(true["boxes"], true["labels"], score)


def test_the_right_answer_scores_one_and_its_parts_can_come_from_several_processes(
    task: Detect, dataset: Dataset
) -> None:
    parts = [evaluated(task, dataset, [row], right_answer(task, dataset, row)) for row in (0, 1, 2)]
    scores = parts[0].merged([part.state() for part in parts])
    assert scores.values["val_ap"] == pytest.approx(1.0) and not scores.constant
    assert scores.best == "val_ap" and scores.beats(0.5) and not scores.beats(1.0)


def test_a_group_of_objects_need_not_be_found(task: Detect, dataset: Dataset) -> None:
    """The right answer without one object scores 1 if that is a group, and less if it is an object."""
    whole = boxes_of(dataset.training).image(0)
    right = right_answer(task, dataset, 0)
    part = Answering(right.boxes[1:], right.labels[1:])
    found = []
    for crowd in (True, False):
        tally = task.tally()
        assert isinstance(tally, DetectTally)
        marked = replace(whole, crowd=np.array([crowd] + [False] * (len(whole) - 1)))
        batch = Batch(
            images=torch.zeros(1, 3, 48, 64),
            targets=[marked],
            names=("a",),
            draws=Draws(0, 0, np.zeros(1, np.int64)),
        )
        tally.add(part, batch)
        found.append(tally.merged([tally.state()]).values["val_ap"])
    assert found[0] == pytest.approx(1.0) and found[1] < 0.999


def test_answers_that_do_not_look_at_the_image_are_noticed(task: Detect, dataset: Dataset) -> None:
    tally = evaluated(task, dataset, [0, 1, 2], right_answer(task, dataset, 0))
    scores = tally.merged([tally.state()])
    assert scores.constant and "same boxes" in scores.what
    low = [evaluated(task, dataset, [row], right_answer(task, dataset, row, score=0.02)) for row in (0, 1)]
    for part in low:  # nothing is right either
        for one in part.images:
            one.found.boxes[:] = 0
    scores = low[0].merged([part.state() for part in low])
    assert scores.constant and "no object is found" in scores.what and "0.02" in scores.what


# Sanity ------------------------------------------------------------------------------------


def facts_of(**changes: Any) -> Sanity:
    usual = {
        "images": ("a",) * 8, "steps": 80, "seconds": 9.0, "ap50": 0.2, "any_class": 0.3,
        "losses": (5.0,) * 40 + (3.0,) * 40, "rate": 1e-3, "patches": 3.0, "frozen": "",
    }  # fmt: skip
    return Sanity(**(usual | changes))


@pytest.mark.parametrize(
    ("changes", "cause", "fix"),
    [
        ({"losses": (5.0,) * 40 + (9.0,) * 40}, "rate 0.001 is too high", "--lr 0.0001"),
        ({"losses": (5.0, float("nan"))}, "rate 0.001 is too high", "--lr 0.0001"),
        ({"any_class": 0.95}, "classes contradict", "patchword check"),
        ({"frozen": "head"}, "backbone is frozen", "--tune full"),
        ({"patches": 0.4}, "0.40 patches", "--image-size"),
        ({"losses": tuple(np.linspace(9, 1, 80))}, "steps are too few", "--lr 0.003"),
        ({}, "do not follow from the pictures", "--draw"),
    ],
)
def test_a_detector_that_does_not_learn_is_explained(
    settings: TrainSettings, changes: dict[str, Any], cause: str, fix: str
) -> None:
    error = explained(facts_of(**changes), settings)
    assert cause in error.message and fix in error.fix and "AP50 20.0 %" in error.message
    assert error.exit_code == 4


def test_a_frozen_backbone_still_trains_the_rest(
    dataset: Dataset, facts: DataFacts, settings: TrainSettings
) -> None:
    from patchword.training.setup import new_state

    frozen = replace(settings, tune=Head())
    state, _ = new_state(new_model(frozen), frozen)
    learns = {name.split(".")[0] for name, p in state.module.named_parameters() if p.requires_grad}
    assert "vit" not in learns and {"maps", "layers", "classes"} <= learns
