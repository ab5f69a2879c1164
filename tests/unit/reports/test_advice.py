"""Each rule speaks on numbers that support it, quotes them, and is silent otherwise."""

from dataclasses import replace
from typing import Any

import pytest

from patchword.reports import advice
from patchword.reports.advice import Facts


def _score(top1: float, half: float = 0.02) -> dict[str, Any]:
    return {"top1": top1, "top1_interval": [top1 - half, top1 + half]}


RISING = tuple(0.3 + 0.04 * i for i in range(10))
CLASSES = (
    {"name": "common", "trained": 900, "images": 100, "recall": 0.95},
    {"name": "rare", "trained": 40, "images": 20, "recall": 0.4},
)
SURE = {"name": "a.jpg", "true": "rose", "predicted": "tulip", "probability": 0.99, "true_probability": 0.001}


def test_a_training_score_far_above_the_held_out_one_asks_for_weights_or_fewer_parameters() -> None:
    facts = Facts(training=_score(0.99), held_out=_score(0.75))
    found = advice.overfitting(facts)
    assert found is not None and "--weights" in found.what
    assert "99.0 % on training images and 75.0 %" in found.evidence
    tuned = advice.overfitting(replace(facts, weights=True))
    assert tuned is not None and "--tune head" in tuned.what
    assert advice.overfitting(replace(facts, held_out=_score(0.95))) is None
    assert advice.overfitting(replace(facts, held_out=_score(0.75, half=0.25))) is None
    assert advice.overfitting(replace(facts, training=None)) is None


def test_low_scores_that_still_rise_ask_for_more_epochs() -> None:
    facts = Facts(training=_score(0.7), held_out=_score(0.66), curve=RISING)
    found = advice.more_epochs(facts)
    assert found is not None and found.what == "Train longer: --epochs 20."
    assert "from 58.0 % to 66.0 % in the last 2 epochs" in found.evidence
    assert advice.more_epochs(replace(facts, curve=(*RISING[:7], 0.66, 0.66, 0.66))) is None
    assert advice.more_epochs(replace(facts, training=_score(0.99))) is None
    assert advice.more_epochs(replace(facts, curve=RISING[-4:])) is None


def test_rare_classes_with_low_recall_ask_for_balance() -> None:
    found = advice.rare_classes(Facts(classes=CLASSES))
    assert found is not None and "--balance loss" in found.what
    assert "40.0 % on 'rare' with 40 training images, and 95.0 %" in found.evidence
    assert advice.rare_classes(Facts(classes=CLASSES, balanced=True)) is None
    good = {**CLASSES[1], "recall": 0.9}
    assert advice.rare_classes(Facts(classes=(CLASSES[0], good))) is None
    few = {**CLASSES[1], "images": 4}
    assert advice.rare_classes(Facts(classes=(CLASSES[0], few))) is None


def test_confident_contradictions_ask_to_check_labels() -> None:
    facts = Facts(held_out=_score(0.9), mistakes=(SURE,) * 3)
    found = advice.label_errors(facts)
    assert found is not None and "3 held-out images" in found.evidence and "'rose'" in found.evidence
    assert advice.label_errors(replace(facts, mistakes=(SURE,) * 2)) is None
    assert advice.label_errors(replace(facts, mistakes=({**SURE, "true_probability": 0.04},) * 9)) is None
    # A weak model is sure of much that is wrong.
    assert advice.label_errors(replace(facts, held_out=_score(0.5))) is None


@pytest.mark.parametrize(
    ("wait", "cached", "speaks"), [(0.3, False, True), (0.3, True, False), (0.05, False, False)]
)
def test_waiting_for_images_asks_for_the_cache(wait: float, cached: bool, speaks: bool) -> None:
    found = advice.waiting(Facts(data_wait=wait, cached=cached))
    assert (found is not None) == speaks
    assert found is None or ("--cache disk" in found.what and "30.0 %" in found.evidence)


def test_small_views_of_large_files_ask_for_a_larger_size() -> None:
    facts = Facts(training=_score(0.8), held_out=_score(0.7), size=(64, 64), source_size=(300, 400))
    found = advice.larger_images(facts)
    assert found is not None and "--image-size 128" in found.what
    assert advice.larger_images(replace(facts, source_size=(100, 100))) is None
    assert advice.larger_images(replace(facts, held_out=_score(0.97))) is None


def test_a_run_without_numbers_gets_no_advice() -> None:
    assert advice.advice(Facts()) == []
