"""`--tune auto`: what is chosen follows from the data, the time and the memory, and the others have a price."""

from dataclasses import replace

import pytest
import torch

from patchword.data.open import open_data
from patchword.images.preprocess import Preprocess
from patchword.model.sizes import sized
from patchword.training.autotune import Tuning, choose_tune, seconds_of
from patchword.training.choose import choose_here
from patchword.training.overlay import Overlay, make_overlay
from patchword.training.recipes import recipe_named
from patchword.training.recipes.facts import DataFacts
from patchword.training.speed import seconds_per_image
from patchword.training.tune import Full, Head, Last, LayerDecay, LoRA
from patchword.weights.card import ModelCard

CARD = ModelCard(config=sized("ti/16", image_size=32), preprocess=Preprocess.simple(32))
FACTS = DataFacts(
    num_images=1000, num_classes=10, channels=3, size=(64, 64), mean=(0.5,) * 3, std=(0.5,) * 3, weights=CARD
)
SETTINGS, _ = recipe_named("finetune")(FACTS, Overlay())
PLENTY = 2**40


def _chosen(
    each: float = 1e-3, left: int = PLENTY, num_images: int = 1000, keeps_training: str = ""
) -> Tuning:
    facts = replace(FACTS, num_images=num_images)
    return choose_tune(facts, SETTINGS, "cpu", each, left, keeps_training=keeps_training)


def test_everything_is_tuned_at_falling_rates_if_time_and_images_allow() -> None:
    assert isinstance(_chosen().tune, LayerDecay)


def test_the_head_alone_is_tuned_if_the_rest_would_take_more_than_an_hour() -> None:
    long = 3600 / seconds_of(LayerDecay(), SETTINGS, 1000, 1.0)
    assert isinstance(_chosen(0.99 * long).tune, LayerDecay)
    found = _chosen(1.01 * long)
    assert found.tune == Head() and "longer than an hour" in found.text


def test_the_head_alone_is_tuned_with_fewer_than_ten_images_per_class() -> None:
    assert _chosen(num_images=99).tune == Head() and isinstance(_chosen(num_images=100).tune, LayerDecay)


def test_asking_for_epochs_asks_for_training() -> None:
    found = _chosen(num_images=20, keeps_training="schedule")
    assert isinstance(found.tune, LayerDecay) and "schedule" in found.text


def test_adapters_are_tuned_if_memory_is_short() -> None:
    assert isinstance(_chosen(left=2**20).tune, LoRA)


def test_each_choice_has_a_price_and_frozen_parts_are_cheaper() -> None:
    found = _chosen()
    assert list(found.seconds) == ["head", "lora", "llrd", "full"]
    seconds = list(found.seconds.values())
    assert seconds == sorted(seconds) and seconds[0] == pytest.approx(1.0)
    assert "head 0:01, lora" in found.text
    last = [seconds_of(Last(blocks=n), SETTINGS, 1000, 1e-3) for n in (1, 6, 12)]
    assert last == sorted(last) and last[-1] == seconds_of(Full(), SETTINGS, 1000, 1e-3)


def test_the_measured_time_is_that_of_the_model_within_a_factor_of_four() -> None:
    import time

    from patchword.model.vit import ViT

    settings = replace(SETTINGS, run=replace(SETTINGS.run, threads=1))
    estimate = seconds_per_image(settings, torch.device("cpu"))
    model = ViT(settings.model).eval()
    images = torch.zeros(32, 3, 32, 32)
    with torch.inference_mode():
        model(images)
        times = []
        for _ in range(3):
            start = time.perf_counter()
            model(images)
            times.append((time.perf_counter() - start) / 32)
    assert min(times) / 4 < estimate < 4 * min(times)


def test_the_choice_is_a_setting_with_its_source_unless_the_user_chose() -> None:
    digits = open_data("digits")
    facts = replace(FACTS, num_images=60, channels=1, mean=(0.5,), std=(0.5,))
    chosen = choose_here(digits, facts, make_overlay(overrides=("run.threads=1",)))
    assert chosen.settings.tune == Head() and chosen.sources["tune"] == "chosen for this machine"
    assert any("--tune head" in c.what and "lora" in c.why for c in chosen.choices)
    asked = choose_here(digits, facts, make_overlay(overrides=("tune.kind=full",)))
    assert asked.settings.tune == Full() and asked.sources["tune.kind"] == "option -o"
