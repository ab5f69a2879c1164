"""Matching and the losses of a set."""

import itertools
import math

import numpy as np
import pytest
import torch

from patchword.errors import SettingsError
from patchword.model.boxes import giou, to_corners
from patchword.model.detection import DetectionOutput, postprocess
from patchword.model.matching import Targets, match, matching_costs
from patchword.model.set_loss import set_loss
from patchword.model.set_loss_config import SetLossConfig

CLASSES = 4


def output(layers: int, images: int, queries: int, seed: int = 0) -> DetectionOutput:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn((layers, images, queries, CLASSES + 1), generator=generator)
    boxes = torch.rand((layers, images, queries, 4), generator=generator) * 0.5 + 0.2
    return DetectionOutput(logits.requires_grad_(), boxes.requires_grad_())


def targets(*counts: int, seed: int = 1) -> Targets:
    generator = torch.Generator().manual_seed(seed)
    return Targets.of(
        [
            (
                torch.randint(CLASSES, (count,), generator=generator),
                torch.rand((count, 4), generator=generator) * 0.5 + 0.2,
            )
            for count in counts
        ]
    )


def cost_of(predicted: DetectionOutput, wanted: Targets, image: int, query: int, target: int) -> float:
    """The paper's cost of one pair in the only layer, box by box."""
    share = predicted.logits[0, image, query].softmax(0)[wanted.labels[target]]
    mine, theirs = predicted.boxes[0, image, query], wanted.boxes[target]
    apart = (mine - theirs).abs().sum()
    return float((5 * apart - share - 2 * giou(to_corners(mine), to_corners(theirs))).detach())


def test_the_matching_is_the_cheapest_of_all() -> None:
    predicted, wanted = output(1, 2, 4), targets(3, 2)
    pairs = match(predicted, wanted)
    for image, (count, start) in enumerate(zip(wanted.counts, wanted.starts, strict=True)):
        mine = pairs.image[0] == image
        chosen = list(zip(pairs.query[0][mine].tolist(), pairs.target[0][mine].tolist(), strict=True))
        assert sorted(target for _, target in chosen) == list(range(start, start + count))
        total = sum(cost_of(predicted, wanted, image, query, target) for query, target in chosen)
        every = [
            sum(cost_of(predicted, wanted, image, query, start + i) for i, query in enumerate(order))
            for order in itertools.permutations(range(4), count)
        ]
        assert total == pytest.approx(min(every), abs=1e-5)


def test_costs_are_those_of_each_pair() -> None:
    predicted, wanted = output(1, 2, 3), targets(1, 2)
    costs = matching_costs(predicted, wanted, SetLossConfig())
    assert costs.shape == (1, 2, 3, 2)
    assert costs[0, 1, 2, 1] == pytest.approx(cost_of(predicted, wanted, 1, 2, 2), abs=1e-5)


def test_every_layer_is_matched_and_compared_by_itself() -> None:
    predicted, wanted = output(3, 2, 5), targets(2, 3)
    whole = set_loss(predicted, wanted)
    for layer in range(3):
        alone = set_loss(
            DetectionOutput(predicted.logits[layer : layer + 1], predicted.boxes[layer : layer + 1]), wanted
        )
        for name in ("ce", "l1", "giou", "cardinality"):
            torch.testing.assert_close(getattr(whole, name)[layer], getattr(alone, name)[0])
    parts = whole.ce + 5 * whole.l1 + 2 * whole.giou
    torch.testing.assert_close(whole.total, parts.sum())
    names = whole.named()
    assert {"loss_ce", "loss_ce_0", "loss_bbox_1", "class_error"} <= names.keys()
    assert "loss_ce_2" not in names


@pytest.mark.parametrize("queries", [1, 2, 100, 600])
@pytest.mark.parametrize("counts", [(0, 0), (3, 0), (1, 7)])
def test_losses_and_gradients_are_finite(queries: int, counts: tuple[int, ...]) -> None:
    predicted, wanted = output(2, 2, queries), targets(*counts)
    losses = set_loss(predicted, wanted)
    losses.total.backward()
    assert all(value.isfinite().all() for value in losses)
    for tensor in predicted:
        assert tensor.grad is not None and tensor.grad.isfinite().all()
    if not sum(counts):
        assert losses.l1.abs().sum() == losses.giou.abs().sum() == 0 and losses.class_error == 100
        assert predicted.boxes.grad is not None and not predicted.boxes.grad.any()


def test_a_perfect_answer_costs_nothing() -> None:
    wanted = targets(2, 1)
    logits = torch.full((1, 2, 3, CLASSES + 1), -20.0)
    boxes = torch.full((1, 2, 3, 4), 0.5)
    taken = {0: (0, 1), 1: (2,)}
    for image, objects in taken.items():
        for place, target in enumerate(objects):
            logits[0, image, place, wanted.labels[target]] = 20.0
            boxes[0, image, place] = wanted.boxes[target]
        logits[0, image, len(objects) :, CLASSES] = 20.0
    losses = set_loss(DetectionOutput(logits, boxes), wanted)
    assert losses.total < 1e-5 and losses.class_error == 0 and losses.cardinality == 0


def test_box_losses_are_shared_among_the_objects_of_all_processes() -> None:
    predicted, wanted = output(1, 2, 5), targets(2, 3)
    alone, shared = set_loss(predicted, wanted), set_loss(predicted, wanted, num_boxes=10)
    torch.testing.assert_close(alone.l1, shared.l1 * 2)
    torch.testing.assert_close(alone.giou, shared.giou * 2)
    torch.testing.assert_close(alone.ce, shared.ce)


def test_no_object_weighs_less() -> None:
    predicted, wanted = output(1, 1, 8), targets(1)
    shares = predicted.logits[0, 0].log_softmax(-1)
    pairs = match(predicted, wanted)
    query, label = int(pairs.query[0, 0]), int(wanted.labels[0])
    others = [q for q in range(8) if q != query]
    expected = -(shares[query, label] + 0.1 * shares[others, CLASSES].sum()) / (1 + 0.1 * 7)
    torch.testing.assert_close(set_loss(predicted, wanted).ce[0], expected)


def test_a_diverged_model_has_a_loss_that_says_so() -> None:
    predicted = DetectionOutput(
        torch.full((1, 1, 3, CLASSES + 1), math.nan), torch.full((1, 1, 3, 4), math.nan)
    )
    assert set_loss(predicted, targets(2)).total.isnan()


@pytest.mark.parametrize("box", [(0.5, 0.5, 0.0, 0.1), (0.5, 0.5, 0.1, -0.1), (math.nan, 0.5, 0.1, 0.1)])
def test_a_box_without_area_is_refused(box: tuple[float, ...]) -> None:
    with pytest.raises(SettingsError, match="box 1 of image 0"):
        Targets.of([(torch.tensor([0, 1]), torch.tensor([(0.5, 0.5, 0.1, 0.1), box]))])


@pytest.mark.parametrize("label", [-1, CLASSES])
def test_a_label_that_is_no_class_is_refused(label: int) -> None:
    wanted = Targets.of([(torch.tensor([label]), torch.tensor([(0.5, 0.5, 0.1, 0.1)]))])
    with pytest.raises(SettingsError, match=f"label {label}, but the detector has classes 0 to 3"):
        set_loss(output(1, 1, 2), wanted)


def test_targets_of_another_number_of_images_are_refused() -> None:
    with pytest.raises(SettingsError, match="targets of 1 images for a batch of 2"):
        set_loss(output(1, 2, 2), targets(1))


def test_predictions_become_pixels_of_the_original_image() -> None:
    logits = torch.zeros(2, 1, 2, 3)
    logits[1, 0, 0] = torch.tensor([0.0, 2.0, 9.0])  # "no object" is likelier, but is no answer
    boxes = torch.tensor([0.5, 0.25, 0.2, 0.1]).expand(2, 1, 2, 4)
    (found,) = postprocess(DetectionOutput(logits, boxes), [(200, 100)])
    assert found.labels[0] == 1
    assert found.scores[0] == pytest.approx(math.exp(2) / (1 + math.exp(2) + math.exp(9)))
    np.testing.assert_allclose(found.boxes[0], [40, 40, 60, 60], rtol=1e-6)
    with pytest.raises(SettingsError, match="1 sizes for 2 images"):
        postprocess(output(1, 2, 2), [(1, 1)])


def test_settings_that_match_or_teach_nothing_are_refused() -> None:
    with pytest.raises(SettingsError, match="every matching cost is 0"):
        SetLossConfig(cost_class=0, cost_l1=0, cost_giou=0)
    with pytest.raises(SettingsError, match=r"loss\.no_object is 0"):
        SetLossConfig(no_object=0)
    with pytest.raises(SettingsError, match=r"loss\.weight_l1"):
        SetLossConfig(weight_l1=-1)
