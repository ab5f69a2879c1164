"""The losses: their formulas, that parts of a batch add up, and what balancing does for small classes."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from patchword.cli.main import run as run_command
from patchword.data.dataset import Split
from patchword.data.targets import Labels
from patchword.errors import SettingsError
from patchword.model.vit import ViT
from patchword.training import losses
from patchword.training.overlay import Overlay
from patchword.training.recipes import recipe_named
from patchword.training.recipes.facts import DataFacts
from patchword.training.tasks.classify import Classifier, Classify
from patchword.training.tasks.settings import ClassifySettings, DistillSettings
from support.scans import write_scans

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 1.0]])
TARGETS = torch.tensor([[0.7, 0.3, 0.0], [0.0, 0.0, 1.0]])


class Linear(torch.nn.Module):
    """A model of a few numbers with what `Classifier` reads of a ViT."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.head = torch.nn.Linear(inputs, classes)
        facts = DataFacts(num_images=9, num_classes=classes, channels=1, size=(8, 8), mean=(0.3,), std=(0.4,))
        self.config = recipe_named("scratch")(facts, Overlay())[0].model

    def forward(self, images: Tensor) -> Tensor:
        return self.head(images)  # type: ignore[no-any-return]


def classifier(inputs: int, classes: int, **settings: Any) -> Classifier:
    return Classifier(Linear(inputs, classes), ClassifySettings(**settings))  # type: ignore[arg-type]


def test_smoothed_targets_sum_to_one() -> None:
    targets = losses.smoothed(losses.one_hot(torch.tensor([0, 2]), 4), 0.2)
    torch.testing.assert_close(targets.sum(1), torch.ones(2))
    torch.testing.assert_close(targets[0], torch.tensor([0.85, 0.05, 0.05, 0.05]))


def test_cross_entropy_is_a_weighted_sum_over_the_images() -> None:
    each = [math.log(sum(map(math.exp, row))) for row in LOGITS.tolist()]
    expected = [each[0] - 0.7 * 2.0, each[1] - 1.0]
    assert losses.cross_entropy(LOGITS, TARGETS).item() == pytest.approx(sum(expected), rel=1e-6)
    weighted = losses.cross_entropy(LOGITS, TARGETS, torch.tensor([3.0, 0.5]))
    assert weighted.item() == pytest.approx(3 * expected[0] + 0.5 * expected[1], rel=1e-6)


def test_the_loss_is_taken_in_float32_whatever_the_logits_are_in() -> None:
    logits = torch.tensor([[3.0, 1.0, -2.0]])
    targets = losses.smoothed(losses.one_hot(torch.tensor([1]), 3), 0.1)
    for loss in (losses.cross_entropy, losses.binary_cross_entropy):
        assert torch.equal(loss(logits.bfloat16(), targets), loss(logits, targets))
    soft = [losses.soft_distillation(z, targets, 2.0) for z in (logits, logits.bfloat16())]
    assert torch.equal(*soft)


def test_binary_cross_entropy_asks_about_each_class_on_its_own() -> None:
    def of(logit: float, target: float) -> float:
        p = 1 / (1 + math.exp(-logit))
        return -(target * math.log(p) + (1 - target) * math.log(1 - p))

    rows = [sum(map(of, z, t)) / 3 for z, t in zip(LOGITS.tolist(), TARGETS.double().tolist(), strict=True)]
    assert losses.binary_cross_entropy(LOGITS, TARGETS).item() == pytest.approx(sum(rows), rel=1e-5)
    weighted = losses.binary_cross_entropy(LOGITS, TARGETS, torch.tensor([2.0, 0.0]))
    assert weighted.item() == pytest.approx(2 * rows[0], rel=1e-5)
    assert torch.equal(losses.above(TARGETS, 0.2), torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))


def test_distillation_follows_the_equations_of_the_paper() -> None:
    teacher = torch.tensor([[0.0, 4.0, 0.0], [1.0, 0.0, 3.0]])
    expected = F.cross_entropy(LOGITS, torch.tensor([1, 2]), reduction="sum")
    assert losses.hard_distillation(LOGITS, teacher).item() == pytest.approx(expected.item(), rel=1e-6)
    p, q = (F.softmax(z.double() / 3, dim=1) for z in (teacher, LOGITS))
    soft = 9 * (p * (p / q).log()).sum()
    assert losses.soft_distillation(LOGITS, teacher, 3.0).item() == pytest.approx(soft.item(), rel=1e-5)
    assert losses.soft_distillation(teacher, teacher, 3.0).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"loss": "binary_cross_entropy", "target_threshold": 0.2},
        {"balance": "loss"},
        {"balance": "loss", "loss": "binary_cross_entropy"},
        {"balance": "logits"},
    ],
)
def test_the_losses_of_micro_batches_add_up_to_that_of_the_batch(settings: dict[str, Any]) -> None:
    module = classifier(5, 3, **settings)
    module.balance(np.array([10, 3, 1]))
    images, classes = torch.randn(8, 5), torch.rand(8, 3).softmax(1)
    (whole,) = module(images, {"classes": classes}).values()
    parts = [module(images[at], {"classes": classes[at]}) for at in (slice(0, 2), slice(2, 6), slice(6, 8))]
    assert sum(loss.item() for part in parts for loss in part.values()) == pytest.approx(
        whole.item(), rel=1e-6
    )


def test_class_weights_average_to_one_over_the_images() -> None:
    counts = torch.tensor([50, 1, 0, 10])
    for strength in (0.5, 1.0):
        weights = losses.class_weights(counts, strength)
        assert (weights * counts).sum().item() / 61 == pytest.approx(1.0, rel=1e-6)
        assert (weights[1] / weights[0]).item() == pytest.approx(50**strength, rel=1e-5)
        assert weights[2] == 0
    torch.testing.assert_close(losses.class_weights(counts, 1.0)[:2], torch.tensor([61 / 3 / 50, 61 / 3]))
    prior = losses.log_prior(counts, 2.0)
    assert prior.isfinite().all() and (prior[0] - prior[1]).item() == pytest.approx(
        2 * math.log(50), rel=1e-6
    )


def test_a_weighted_image_counts_as_often_whatever_the_smoothing() -> None:
    """Two classes of 50 and 1 images: the weighted loss is that of each class's mean, not a vote for the small class."""
    module = classifier(2, 2, balance="loss", label_smoothing=0.1)
    module.balance(np.array([50, 1]))
    labels = losses.one_hot(torch.tensor([0] * 50 + [1]), 2)
    images = torch.randn(51, 2)
    each = F.cross_entropy(module.vit(images), losses.smoothed(labels, 0.1), reduction="none")
    expected = 51 * (each[:50].mean() + each[50]) / 2
    assert module.label_loss(module.vit(images), labels).item() == pytest.approx(expected.item(), rel=1e-5)


def _balanced_accuracy(balance: str) -> float:
    """Of a linear model trained on two overlapping clouds of 1,000 and 20 points."""
    torch.manual_seed(0)
    centre = torch.tensor([1.0, 0.0, 0.0])

    def cloud(count: int, side: float) -> Tensor:
        return torch.randn(count, 3) + side * centre

    images = torch.cat([cloud(1000, -1), cloud(20, 1)])
    classes = losses.one_hot(torch.tensor([0] * 1000 + [1] * 20), 2)
    module = classifier(3, 2, balance=balance, label_smoothing=0.0)
    module.balance(np.array([1000, 20]))
    optimiser = torch.optim.LBFGS(module.parameters(), max_iter=50)

    def step() -> Tensor:
        optimiser.zero_grad()
        (loss,) = module(images, {"classes": classes}).values()
        (loss / len(images)).backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(step)  # type: ignore[arg-type, no-untyped-call]
    recalls = [
        (module.vit(cloud(1000, side)).argmax(1) == label).float().mean().item()
        for side, label in ((-1, 0), (1, 1))
    ]
    return sum(recalls) / 2


def test_with_fifty_times_fewer_images_balancing_raises_the_balanced_accuracy() -> None:
    plain, weighted, adjusted = (_balanced_accuracy(b) for b in ("none", "loss", "logits"))
    assert plain < 0.65 and weighted > plain + 0.15 and adjusted > plain + 0.15, (plain, weighted, adjusted)


def test_small_classes_are_drawn_as_often_as_large_ones() -> None:
    facts = DataFacts(num_images=6, num_classes=2, channels=1, size=(8, 8), mean=(0.3,), std=(0.4,))
    settings, _ = recipe_named("scratch")(facts, Overlay())
    split = Split(
        name="train",
        names=tuple("abcdef"),
        targets=Labels(np.array([0, 0, 1, 0, 0, 0])),
        reader=lambda row: b"",
        rows=np.arange(6),
    )
    for balance, expected in (("none", None), ("sample", [0.6, 0.6, 3.0, 0.6, 0.6, 0.6])):
        chosen = dataclasses.replace(settings, task=ClassifySettings(balance=balance))  # type: ignore[arg-type]
        module = Classifier(ViT(settings.model), chosen.task)
        weights = Classify(chosen, module, split, split, ("a", "b"), 1).sample_weights()
        assert weights is None if expected is None else weights == pytest.approx(expected)


def test_a_run_with_balance_sample_sees_both_classes_equally_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_scans(tmp_path / "scans", {"train/d0": 60, "train/d1": 3})
    write_scans(tmp_path / "scans", {"val/d0": 2, "val/d1": 2}, first=70)
    seen: list[int] = []

    def recorded(self: Classify, pixels: Any, rows: Any) -> Any:
        seen.extend(self.labels[torch.tensor(rows)].tolist())
        return collate(self, pixels, rows)

    collate = Classify.collate
    monkeypatch.setattr(Classify, "collate", recorded)
    tiny = ("model.depth=1", "model.dim=32", "model.attention.num_heads=1", "run.precision=float32")
    args = [
        "--epochs",
        "4",
        "--image-size",
        "12",
        "--patch-size",
        "3",
        "--batch-size",
        "20",
        "--threads",
        "1",
    ]
    args += [word for text in tiny for word in ("-o", text)]
    command = ["train", str(tmp_path / "scans"), "--balance", "sample", "--out", str(tmp_path / "run"), *args]
    assert run_command(command) == 0
    assert len(seen) == 4 * 60 and 0.4 < sum(seen) / len(seen) < 0.6
    assert 'balance = "sample"  # option --balance' in (tmp_path / "run" / "config.toml").read_text()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"target_threshold": 0.2}, "binary_cross_entropy"),
        ({"loss": "binary_cross_entropy", "target_threshold": 0.01}, "0.05"),
        ({"loss": "binary_cross_entropy", "balance": "logits"}, "logits"),
        ({"balance_strength": 0.5}, "balance"),
        ({"balance": "loss", "balance_strength": 0.0}, "balance_strength"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
    ],
)
def test_a_setting_that_would_do_nothing_or_harm_is_refused(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingsError) as caught:
        ClassifySettings(**settings)
    assert named in caught.value.message + caught.value.fix and "task." in caught.value.message


@pytest.mark.parametrize("settings", [{"alpha": 0.0}, {"alpha": 1.5}, {"temperature": 0.0}])
def test_numbers_that_distil_nothing_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match=r"task\.distill"):
        DistillSettings(**settings)  # type: ignore[arg-type]
