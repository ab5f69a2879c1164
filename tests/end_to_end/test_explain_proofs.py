"""Proofs of `explain` on trained models: which methods find the patch that decides."""

import pytest
import torch

from patchword.explaining.faithfulness import CENTRE, RANDOM, curves_of, joined
from patchword.explaining.methods.patches import to_patches
from patchword.explaining.methods.record import attention_gradient, with_gradients
from patchword.explaining.methods.table import METHODS, maps_by_name
from patchword.explaining.sanity import rank_correlation, shuffled
from patchword.explaining.settings import MethodSettings, ScoreSettings
from support.planted import patterned, trained

pytestmark = pytest.mark.proof
SCORED = [name for name, method in METHODS.items() if method.scored]
AWARE = [name for name in SCORED if METHODS[name].class_aware]
COUNT = 80


@pytest.fixture(scope="module", params=[1, 2, 3])
def vit(request: pytest.FixtureRequest) -> object:
    return trained(request.param)


def test_the_planted_patch_is_found(vit):
    images, classes, places = patterned(COUNT, 7)
    with torch.no_grad():
        assert (vit(images).argmax(1) == classes[:, 0]).float().mean() >= 0.97
    hits = {}
    for name in SCORED:
        [maps] = maps_by_name(name, vit, images, classes[:, 0])
        hits[name] = float((maps.values.flatten(1).argmax(1) == places[:, 0]).float().mean())
    noise = torch.rand(COUNT, 64, generator=torch.Generator().manual_seed(0)).argmax(1)
    hits[RANDOM] = float((noise == places[:, 0]).float().mean())
    print(hits)
    assert hits["integrated-gradients"] >= 0.95 and hits["occlusion"] >= 0.90
    assert hits["rollout"] >= 0.75 and hits["integrated-relevance"] >= 0.75 and hits[RANDOM] <= 0.05
    # Printed, not promised: relevance finds it in 40 to 73 %. Where the model is sure, more attention to the patch changes nothing,
    # so its gradient is no longer positive; the test below shows it. Grad-CAM: 0 to 22 %.
    assert hits["relevance"] >= 0.3


def test_relevance_misses_where_the_model_is_sure(vit):
    """Attention of the class token to the planted patch is far above that to others, but its gradient is negative as often as not."""
    images, classes, places = patterned(COUNT, 7)
    record, (grad,) = with_gradients(vit, images, classes[:, 0], lambda found: [found.seen[0].heads])
    planted = vit.num_prefix + places[:, 0]
    weights = record.seen[0].weights()[:, :, 0].mean(1).gather(1, planted[:, None])
    change = (attention_gradient(record.seen[0], grad) * record.seen[0].weights()).sum(1)[:, 0]
    assert weights.mean() > 5 / 65
    assert (change.gather(1, planted[:, None]) <= 0).float().mean() > 0.25


def test_of_two_planted_patches_the_asked_one_ranks_higher(vit):
    images, classes, places = patterned(COUNT, 8, two=True)
    won = {}
    for name in SCORED:
        right = []
        for which in (0, 1):
            [maps] = maps_by_name(name, vit, images, classes[:, which])
            at = maps.values.flatten(1).gather(1, places)
            right.append((at[:, which] > at[:, 1 - which]).float())
        won[name] = float(torch.cat(right).mean())
    print(won)
    assert won["integrated-gradients"] >= 0.98 and won["occlusion"] >= 0.98 and won["relevance"] >= 0.80
    assert all(won[name] == 0.5 for name in SCORED if name not in AWARE)


def test_integrated_gradients_sum_to_the_change_of_the_logit(vit):
    images, classes, _ = patterned(20, 11)
    for fill in ("mean", "blur"):
        [maps] = maps_by_name("integrated-gradients", vit, images, classes[:, 0], MethodSettings(fill=fill))
        difference = maps.facts["difference"]
        assert ((maps.facts["sum"] - difference).abs() <= 0.01 * difference.abs()).all()


def test_deletion_is_below_a_random_order_and_above_it_for_the_negated_map(vit):
    images, classes, _ = patterned(40, 9)
    parts = []
    for index, image in enumerate(images):
        maps = {}
        for name in ("integrated-gradients", "occlusion"):
            [found] = maps_by_name(name, vit, image[None], classes[index])
            maps |= {name: found.values[0], f"not {name}": -found.values[0]}
        with torch.no_grad():
            parts.append(
                curves_of(vit, image[None], maps, classes[index, 0], ScoreSettings(steps=16), index=index)
            )
    found = joined(parts)
    for name in ("integrated-gradients", "occlusion"):
        for fill in ("mean", "blur"):
            lower = found[RANDOM].deletion[fill] - found[name].deletion[fill]
            assert lower.mean() - 2.03 * lower.std(ddof=1) / len(lower) ** 0.5 > 0
            assert found[f"not {name}"].deletion[fill].mean() > found[RANDOM].deletion[fill].mean()
        assert found[RANDOM].gain + 0.2 < found[name].gain > found[CENTRE].gain


def test_class_maps_depend_on_the_weights(vit):
    images, classes, _ = patterned(20, 10)
    other = shuffled(vit)
    for name in AWARE:
        [own], [random] = (maps_by_name(name, each, images, classes[:, 0]) for each in (vit, other))
        correlation = rank_correlation(own.values, random.values)
        print(name, float(correlation.abs().mean()), float(correlation.mean()))
        assert correlation.mean().abs() <= 0.2
        # Any two maps of the features of one smooth image are alike or opposite: sizes reach 0.36 for Grad-CAM, 0.23 for relevance.
        assert correlation.abs().mean() <= (0.2 if name in ("integrated-gradients", "occlusion") else 0.5)
    edges = to_patches(images.diff(dim=2, append=images[:, :, -1:]).abs().sum(1), vit.config)
    assert (
        float(rank_correlation(edges, edges).mean()) == 1
    )  # a map that no weight enters is the same for any model
