"""Distillation: what the teacher sees and teaches, that it stays out of what is saved, and which teachers are refused."""

import hashlib
import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

import patchword as pw
from patchword.cli.main import run as run_command
from patchword.errors import Interrupted, SettingsError, UserError
from patchword.images.prepare import read
from patchword.model.kinds import ClassPool
from patchword.model.vit import ViT
from patchword.training.config import TrainSettings
from patchword.training.meter import Meter
from patchword.training.overlay import Overlay
from patchword.training.recipes import recipe_named
from patchword.training.recipes.facts import DataFacts
from patchword.training.tasks.distill import Student, load_teacher
from patchword.training.tasks.settings import ClassifySettings, DistillSettings
from patchword.weights.native import read_model, write_model
from support.scans import scans_of, write_scans

# So small a run varies by some 20 points with its seed. With this one the teacher is good and the difference large.
TINY = {
    "run.seed": 3,
    "run.batch_size": 16,
    "run.threads": 1,
    "run.precision": "float32",
    "model.depth": 2,
    "model.dim": 32,
    "model.attention.num_heads": 1,
}
QUICK: dict[str, Any] = {"epochs": 8, "image_size": 12, "patch_size": 3, "progress": False}
NAMES = ("d0", "d1", "d2")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on four digits: one more than the student's, in another order, at another size."""
    top = tmp_path_factory.mktemp("teacher")
    write_scans(top / "scans", {"c3": 60, "d0": 60, "d1": 60, "d2": 60}, first=60)
    pw.train(top / "scans", out=top / "run", epochs=20, image_size=16, settings=TINY, progress=False)
    return top / "run"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three digits whose training labels are wrong for half of the images; those of val are right."""
    top = tmp_path_factory.mktemp("data") / "scans"
    for name in NAMES:
        for split in ("train", "val"):
            (top / split / name).mkdir(parents=True)
    for digit, name in enumerate(NAMES):
        for i, scan in enumerate(scans_of(digit, 60)):
            told = NAMES[digit if i % 2 else (digit + 1 + i // 2 % 2) % 3]
            scan.save(top / "val" / name / f"{i}.png" if i < 20 else top / "train" / told / f"{name}-{i}.png")
    return top


@pytest.fixture(scope="module")
def taught(teacher: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("taught") / "run"
    pw.train(data, out=out, teacher=teacher, settings=STUDENT, **QUICK)
    return out


STUDENT = {
    **TINY,
    "run.save_minutes": 0,
    "model.tokens.class_token": True,
    "model.tokens.distillation_token": True,
    "model.head.pool.kind": "class",
    "model.head.distilled": True,
}


def test_a_student_of_a_good_teacher_beats_one_of_wrong_labels(
    taught: Path, teacher: Path, data: Path, tmp_path: Path
) -> None:
    alone = pw.train(data, out=tmp_path / "alone", settings=TINY, **QUICK)
    with_teacher = json.loads((taught / "evaluation.json").read_text())["top1"]
    assert with_teacher > alone.evaluation.top1 + 0.1, (with_teacher, alone.evaluation.top1)


def test_the_teacher_is_recorded_and_saved_nowhere(taught: Path, teacher: Path) -> None:
    facts = json.loads((taught / "data.json").read_text())["teacher"]
    assert facts["name"] == str(teacher) and facts["source"] == "run/last.safetensors"
    assert f'sha256 = "{facts["sha256"]}"' in (taught / "config.toml").read_text()
    assert "taught by" in (taught / "report.html").read_text()
    student = ViT(pw.load(taught).card.config)
    assert set(load_file(taught / "last.safetensors")) == set(student.state_dict())
    state = torch.load(max((taught / "state").glob("*.pt")), weights_only=True)
    expected = {f"vit.{name}" for name in student.state_dict()}
    assert set(state["module"]) == set(state["average"]) == expected


def test_a_distilled_run_stopped_within_an_epoch_ends_in_the_same_bits(
    taught: Path, teacher: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop_after(self: Meter, *values: Any) -> None:
        add(self, *values)
        if self.state.step == 31:
            signal.raise_signal(signal.SIGTERM)

    add = Meter.add
    shutil.copytree(teacher, tmp_path / "teacher")
    with monkeypatch.context() as patched, pytest.raises(Interrupted):
        patched.setattr(Meter, "add", stop_after)
        pw.train(data, out=tmp_path / "run", teacher=tmp_path / "teacher", settings=STUDENT, **QUICK)
    kept = tmp_path / "teacher" / "last.safetensors"
    content = kept.read_bytes()
    card, tensors = read_model(kept)
    write_model(kept, {**tensors, "head.bias": tensors["head.bias"] + 1}, card)
    with pytest.raises(UserError, match="has changed since the run was started"):
        pw.resume(tmp_path / "run", progress=False)
    kept.write_bytes(content)
    pw.resume(tmp_path / "run", progress=False)
    ours, theirs = (load_file(run / "last.safetensors") for run in (tmp_path / "run", taught))
    assert all(ours[key].tobytes() == theirs[key].tobytes() for key in theirs)


def settings_for(teacher: Path, **distill: Any) -> TrainSettings:
    facts = DataFacts(num_images=90, num_classes=3, channels=1, size=(24, 24), mean=(0.3,), std=(0.4,))
    settings, _ = recipe_named("scratch")(facts, Overlay())
    sha256 = hashlib.sha256((teacher / "last.safetensors").read_bytes()).hexdigest()
    task = ClassifySettings(distill=DistillSettings(teacher=str(teacher), sha256=sha256, **distill))
    return replace(settings, task=task)


def test_the_teacher_answers_as_the_model_does_in_the_order_of_the_students_classes(
    teacher: Path, data: Path
) -> None:
    model = pw.load(teacher)
    classes = ("d2", "d0", "d1")
    frozen = load_teacher(settings_for(teacher), classes, torch.device("cpu"))
    path = str(next((data / "val" / "d0").glob("*.png")))
    size = model.preprocess.image_size
    # An image of the teacher's own size is not resized, so both see the same pixels.
    Image.open(path).resize(size).save(path := str(data.parent / "small.png"))
    pixels = torch.from_numpy(np.asarray(Image.open(path), np.float32) / 255).expand(1, 3, *size)
    with torch.inference_mode():
        expected = dict(
            zip(model.classes, model(torch.from_numpy(read(path, model.preprocess))[None])[0], strict=True)
        )
    answer = frozen(pixels)[0]
    assert answer.tolist() == pytest.approx([expected[name].item() for name in classes], abs=1e-4)
    assert not answer.requires_grad and not frozen.vit.training


def _student(distilled: bool, **distill: Any) -> Student:
    settings = settings_for_student(distilled)
    task = ClassifySettings(distill=DistillSettings(teacher="t", **distill))
    return Student(ViT(settings.model, torch.Generator().manual_seed(0)), task)


def settings_for_student(distilled: bool) -> TrainSettings:
    facts = DataFacts(num_images=90, num_classes=3, channels=1, size=(24, 24), mean=(0.3,), std=(0.4,))
    settings, _ = recipe_named("scratch")(facts, Overlay())
    if not distilled:
        return settings
    model = settings.model
    tokens = replace(model.tokens, class_token=True, distillation_token=True)
    return replace(
        settings,
        model=replace(model, tokens=tokens, head=replace(model.head, pool=ClassPool(), distilled=True)),
    )


def test_each_head_of_a_distilled_model_learns_from_its_own_source() -> None:
    student = _student(distilled=True)
    targets = {"classes": torch.eye(3), "teacher": torch.randn(3, 3)}
    losses = student(torch.randn(3, 1, 32, 32), targets)
    heads = (student.vit.head, student.vit.head_distillation)
    gradients = {
        name: torch.autograd.grad(loss, [h.weight for h in heads], retain_graph=True, allow_unused=True)  # type: ignore[union-attr]
        for name, loss in losses.items()
    }
    used = {name: [g is not None and bool(g.any()) for g in pair] for name, pair in gradients.items()}
    assert used == {"cross_entropy": [True, False], "distillation": [False, True]}


@pytest.mark.parametrize("distilled", [True, False])
@pytest.mark.parametrize("method", ["hard", "soft"])
def test_labels_and_answers_are_weighted_by_alpha_and_add_up_over_micro_batches(
    distilled: bool, method: str
) -> None:
    images, classes, answers = torch.randn(6, 1, 32, 32), torch.rand(6, 3).softmax(1), torch.randn(6, 3)
    at = {alpha: _student(distilled, method=method, alpha=alpha).eval() for alpha in (0.25, 1.0)}

    def of(alpha: float, rows: slice) -> dict[str, float]:
        with torch.no_grad():
            found = at[alpha](images[rows], {"classes": classes[rows], "teacher": answers[rows]})
        return {name: loss.item() for name, loss in found.items()}

    whole, all_taught = of(0.25, slice(None)), of(1.0, slice(None))
    assert whole["distillation"] == pytest.approx(0.25 * all_taught["distillation"], rel=1e-5)
    assert all_taught["cross_entropy"] == 0 < whole["cross_entropy"]
    parts = [of(0.25, slice(0, 2)), of(0.25, slice(2, 6))]
    assert {n: sum(p[n] for p in parts) for n in whole} == pytest.approx(whole, rel=1e-5)


def refusal(capsys: pytest.CaptureFixture[str], *args: Any) -> str:
    assert run_command(["train", *map(str, args)]) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said


def test_a_teacher_of_other_classes_is_refused_by_name(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_scans(tmp_path / "scans", {"d0": 9, "d01": 9, "e7": 9, "e8": 9, "e9": 9})
    said = refusal(capsys, tmp_path / "scans", "--teacher", teacher)
    assert (
        "knows 1 of the 5 classes" in said
        and "'d01'" in said
        and "'e7'" in said
        and "'e8' and 1 more" in said
    )
    assert "fix:" in said and "did you mean" in said


def test_a_teacher_that_cannot_teach_is_refused_before_anything_starts(
    teacher: Path,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("patchword.runs.run", None)
    assert "no such weights file" in refusal(capsys, data, "--teacher", "nowhere.safetensors")
    assert "name of the teacher is empty" in refusal(capsys, data, "--teacher", "")
    without = refusal(capsys, data, "-o", "task.distill.alpha=0.9")
    assert "task.distill.alpha has no effect without a teacher" in without
    card, tensors = read_model(teacher / "last.safetensors")
    for name, changed, told in (
        ("nameless", replace(card, classes=()), "classes without names"),
        ("untrained", replace(card, untrained=("head",)), "an untrained head"),
        (
            "deep",
            replace(card, preprocess=card.preprocess.with_range((0, 4095))),
            "--value-range 0,4095",
        ),
    ):
        write_model(tmp_path / f"{name}.safetensors", dict(tensors), changed)
        assert told in refusal(capsys, data, "--teacher", f"{name}.safetensors")
    grey = (
        "model.image.channels=1",
        "preprocess.in_channels=1",
        "preprocess.mean=[0.5]",
        "preprocess.std=[0.5]",
    )
    channels = refusal(capsys, data, "--teacher", teacher, *(word for text in grey for word in ("-o", text)))
    assert "takes 3 channels, but the model 1" in channels and "--to-channels 1" in channels
    assert not list(tmp_path.glob("runs/*"))


def test_a_settings_file_repeats_a_run_with_the_same_teacher_only(
    taught: Path, teacher: Path, data: Path, tmp_path: Path
) -> None:
    config = (taught / "config.toml").read_text().replace('sha256 = "', 'sha256 = "0')
    (tmp_path / "other.toml").write_text(config)
    with pytest.raises(SettingsError, match="is not the one of the settings file"):
        pw.train(data, out=tmp_path / "run", config=tmp_path / "other.toml", progress=False)
    assert not (tmp_path / "run").exists()


def test_images_that_the_teacher_was_trained_on_are_not_scored(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The student learns what the teacher has seen. Of 30 of these images, the teacher held some out itself."""
    write_scans(tmp_path / "scans", {"train/d0": 20, "train/d1": 20})
    write_scans(tmp_path / "scans", {"val/d0": 15, "val/d1": 15}, first=60)
    quick = {**QUICK, "epochs": 1, "progress": True}
    run = pw.train(tmp_path / "scans", out=tmp_path / "run", teacher=teacher, settings=TINY, **quick)
    assert "initial weights or its teacher" in capsys.readouterr().err
    scored = json.loads((run.folder / "evaluation.json").read_text())["images"]
    assert 0 < scored < 15
