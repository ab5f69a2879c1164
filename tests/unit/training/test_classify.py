"""The task of classification: what a model is trained on is what it is scored on."""

from dataclasses import replace

import numpy as np

from patchword.data.feed import Feed
from patchword.data.open import open_data
from patchword.data.store import open_store
from patchword.images.prepare import read
from patchword.model.vit import ViT
from patchword.training.augment.settings import AugmentSettings
from patchword.training.chance import Draws
from patchword.training.overlay import Overlay
from patchword.training.recipes import recipe_named
from patchword.training.recipes.common import rate_for
from patchword.training.recipes.facts import DataFacts
from patchword.training.task import Batch
from patchword.training.tasks.classify import Classifier, Classify

DIGIT_NAMES = tuple("0123456789")
DIGITS = DataFacts(num_images=1437, num_classes=10, channels=1, size=(8, 8), mean=(0.3,), std=(0.4,))


def test_without_augmentation_a_training_image_is_the_image_that_is_scored() -> None:
    settings, _ = recipe_named("scratch")(DIGITS, Overlay())
    settings = replace(settings, augment=AugmentSettings())
    split = open_data("digits").evaluation.subset(range(8))
    store = open_store(split, settings.preprocess, "none")
    task = Classify(settings, Classifier(ViT(settings.model)), split, split, DIGIT_NAMES, workers=1)
    (fed,) = Feed(split, store, task.collate, batch_size=8, seed=0, workers=1).epoch(0)
    batch = Batch(images=fed.images, targets=fed.targets, names=fed.names, draws=Draws(0, 0, fed.samples))
    images = task.views(batch).images
    for image, name in zip(images, batch.names, strict=True):
        scored = read(split.source(split.names.index(name)), settings.preprocess)
        np.testing.assert_allclose(image.numpy(), scored, atol=1e-5)


def test_wider_models_take_smaller_steps() -> None:
    rates = [rate_for(dim) for dim in (64, 128, 192, 384, 768)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > rates[1] > rates[2]
