"""Predictions: the same at any batch size, in order, a bad picture touching only its own row."""

import copy
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from patchword.errors import CheckpointError, ImageError, PartialFailure, SettingsError
from patchword.images.prepare import read
from patchword.inference.engine import Output, Plan, SameAnswers, _by_shape, make_plan
from patchword.inference.load import load
from patchword.inference.model import Model
from patchword.inference.predict import Predictions
from patchword.inference.sources import from_stream
from patchword.weights.native import read_model, write_model

from .conftest import NAMES, write_tiny


def shares(found: list[object]) -> np.ndarray:
    return np.stack([f.probabilities for f in found])  # type: ignore[attr-defined]


def test_answers_do_not_depend_on_the_batch(model: Model, pictures: list[Path]) -> None:
    one = shares(model.predict(pictures, batch_size=1))
    assert np.ptp(one, axis=0).max() > 0.1  # the model tells these pictures apart
    for size in (3, 8, 64):
        assert np.abs(shares(model.predict(pictures, batch_size=size)) - one).max() < 1e-5
    alone = np.stack([model.predict(p).probabilities for p in pictures])
    assert np.abs(alone - one).max() < 1e-5


def test_an_answer_is_the_models_own_on_the_tensor(model: Model, pictures: list[Path]) -> None:
    tensor = torch.from_numpy(read(pictures[0], model.preprocess))[None]
    with torch.no_grad():
        expected = model(tensor).softmax(-1)[0].numpy()
    prediction = model.predict(pictures[0])
    assert np.abs(prediction.probabilities - expected).max() < 1e-6
    assert prediction.top(1) == [(NAMES[expected.argmax()], pytest.approx(expected.max()))]


def test_every_kind_of_source_gives_the_same_answer(model: Model, pictures: list[Path]) -> None:
    path = pictures[0]
    image = Image.open(path)
    kinds = [str(path), path.read_bytes(), io.BytesIO(path.read_bytes()), image, np.asarray(image)]
    kinds += [torch.tensor(np.asarray(image)), torch.tensor(np.asarray(image)).permute(2, 0, 1)]
    expected = model.predict(path).probabilities
    for source in kinds:
        prediction = model.predict(source)
        assert np.array_equal(prediction.probabilities, expected)
        shown = prediction.plot().axes[0].images[0].get_array()
        assert np.array_equal(shown, np.asarray(image))
    assert np.abs(shares(model.predict(kinds[3:]))[-1] - expected).max() < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_model_of_another_dtype_answers_too(model: Model, pictures: list[Path], dtype: torch.dtype) -> None:
    expected = model.predict(pictures[0]).probabilities
    found = copy.deepcopy(model).to(dtype).predict(pictures[0]).probabilities
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() < 0.05
    assert not np.array_equal(found, expected) or dtype == torch.float64


@pytest.mark.parametrize("number", [0, -1, 2.5, "8"])
def test_a_batch_or_limit_below_one_is_refused(model: Model, pictures: list[Path], number: Any) -> None:
    for ask in (model.predict, model.embed):
        with pytest.raises(SettingsError, match=f"batch_size is {number!r}"):
            ask(pictures, batch_size=number)
        with pytest.raises(SettingsError, match=f"max_pixels is {number!r}"):
            ask(pictures[0], max_pixels=number)


def test_lists_iterators_and_folders_give_lists_in_order(model: Model, pictures: list[Path]) -> None:
    names = [str(p) for p in pictures]
    assert [p.name for p in model.predict(pictures)] == names
    assert [p.name for p in model.predict(iter(pictures))] == names
    assert [p.name for p in model.predict(pictures[0].parent)] == names
    assert model.predict([]) == []


def test_a_bad_picture_costs_its_own_row_only(model: Model, pictures: list[Path], tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(pictures[1].read_bytes()[:100])
    given = [*pictures[:3], bad, *pictures[3:9]]
    found = model.predict(given)
    assert [bool(p.error) for p in found] == [i == 3 for i in range(10)]
    assert found[3].name == str(bad) and found[3].to_dict() == {"file": str(bad), "error": found[3].error}
    good = model.predict([p for p in given if p != bad])
    assert np.abs(shares([p for p in found if not p.error]) - shares(good)).max() < 1e-5
    with pytest.raises(ImageError, match=r"bad\.jpg"):
        found[3].top(1)
    with pytest.raises(ImageError, match=r"bad\.jpg"):
        model.predict(bad)


def test_the_stream_counts_and_names_its_failures(model: Model, pictures: list[Path], tmp_path: Path) -> None:
    missing = [tmp_path / f"{i}.png" for i in range(5)]
    stream = Predictions(model, [*pictures, *missing])
    assert len(list(stream)) == 25 and stream.count == 25 and stream.failed == 5
    with pytest.raises(PartialFailure, match=r"5 of 25 images .* and 2 more"):
        stream.check()


def test_a_stream_takes_no_more_sources_than_it_needs(model: Model, pictures: list[Path]) -> None:
    taken = 0

    def endless() -> Iterator[Path]:
        nonlocal taken
        while True:
            taken += 1
            yield pictures[taken % len(pictures)]

    stream = model.predict_each(endless(), batch_size=2)
    for _ in range(4):
        next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert taken <= 100


def test_calibrated_predictions_divide_the_logits_by_the_temperature_in_the_file(
    tmp_path: Path, model_file: Path, pictures: list[Path]
) -> None:
    card, tensors = read_model(model_file)
    write_model(tmp_path / "m.safetensors", tensors, replace(card, temperature=2.0))
    model = load(tmp_path / "m.safetensors", device="cpu")
    plain, softer = model.predict(pictures), model.predict(pictures, calibrated=True)
    assert [p.label for p in plain] == [p.label for p in softer]
    for before, after in zip(plain, softer, strict=True):
        assert before.probabilities is not None and after.probabilities is not None
        wanted = np.sqrt(before.probabilities) / np.sqrt(before.probabilities).sum()
        assert np.abs(after.probabilities - wanted).max() < 1e-5
    assert model.predict(pictures[0], calibrated=True).top(1)[0][1] == pytest.approx(
        softer[0].top(1)[0][1], 1e-4
    )


def test_a_file_without_a_temperature_refuses_to_calibrate(model: Model, pictures: list[Path]) -> None:
    with pytest.raises(CheckpointError, match="this file has no temperature"):
        model.predict(pictures, calibrated=True)
    with pytest.raises(CheckpointError, match="this file has no temperature"):
        Predictions(model, pictures, calibrated=True)


def test_a_model_saved_from_memory_has_no_temperature(
    tmp_path: Path, model_file: Path, pictures: list[Path]
) -> None:
    card, tensors = read_model(model_file)
    write_model(tmp_path / "m.safetensors", tensors, replace(card, temperature=2.0))
    load(tmp_path / "m.safetensors", device="cpu").save(tmp_path / "again.safetensors")
    assert load(tmp_path / "again.safetensors").card.temperature is None


def test_a_model_in_training_mode_answers_as_in_evaluation(tmp_path: Path, pictures: list[Path]) -> None:
    """With dropped paths and tokens, so that a forward pass in training mode would answer otherwise."""
    model = load(write_tiny(tmp_path / "m.safetensors", drop=0.5), device="cpu")
    expected, vectors = shares(model.predict(pictures)), model.embed(pictures)
    model.train()
    with torch.no_grad():
        batch = torch.from_numpy(read(pictures[0], model.preprocess))[None]
        noisy = model.vit(batch).softmax(-1)[0].numpy()
    assert np.abs(noisy - expected[0]).max() > 0.01, "dropout acts in training mode"
    assert np.array_equal(shares(model.predict(pictures)), expected)
    assert np.array_equal(model.embed(pictures), vectors)
    assert np.array_equal(shares(list(model.predict_each(pictures))), expected)
    assert model.training, "the mode of the training loop is left as it was"


def test_a_prediction_speaks_for_people_and_programs(model: Model, pictures: list[Path]) -> None:
    prediction = model.predict(pictures[0])
    top = prediction.top(3)
    assert len(top) == 3 and sorted(top, key=lambda t: -t[1]) == top and prediction.label == top[0][0]
    assert len(prediction.top(99)) == len(NAMES)
    first = prediction.to_dict(2)["predictions"][0]
    assert first == {"class": top[0][0], "index": NAMES.index(top[0][0]), "probability": top[0][1]}
    assert sum(share for _, share in prediction.top(99)) == pytest.approx(1)
    assert top[0][0] in repr(prediction)


def test_a_plot_shows_picture_and_bars(model: Model, pictures: list[Path], tmp_path: Path) -> None:
    figure = next(iter(model.predict(iter(pictures[:1])))).plot(k=3)
    figure.savefig(tmp_path / "p.png")
    labels = [text.get_text() for text in figure.axes[1].get_yticklabels()]
    assert labels == [name for name, _ in model.predict(pictures[0]).top(3)]
    (lost,) = model.predict(iter([np.asarray(Image.open(pictures[0]))]))
    with pytest.raises(ImageError, match="are not kept"):
        lost.plot()


def test_an_untrained_head_never_answers(tmp_path: Path, pictures: list[Path]) -> None:
    model = load(write_tiny(tmp_path / "m.safetensors", untrained=("head",)), device="cpu")
    for ask in (lambda: model.predict(pictures[0]), lambda: model(torch.zeros(1, 3, 32, 32))):
        with pytest.raises(CheckpointError, match="its head is untrained"):
            ask()
    assert model.embed(pictures[0]).shape == (24,)


def test_a_model_without_a_head_embeds_but_names_nothing(tmp_path: Path, pictures: list[Path]) -> None:
    model = load(write_tiny(tmp_path / "m.safetensors", num_classes=0), device="cpu")
    with pytest.raises(CheckpointError, match="has no classification head"):
        model.predict(pictures[0])
    assert model.embed(pictures[:2]).shape == (2, 24)


def test_embeddings_are_the_named_parts(model: Model, pictures: list[Path]) -> None:
    tensor = torch.from_numpy(read(pictures[0], model.preprocess))[None]
    with torch.no_grad():
        tokens = model.vit.forward_features(tensor)[0].numpy()
    assert np.allclose(model.embed(pictures[0], part="tokens"), tokens, atol=1e-6)
    assert np.allclose(model.embed(pictures[0], part="class"), tokens[0], atol=1e-6)
    assert np.allclose(model.embed(pictures[0], part="mean"), tokens[1:].mean(0), atol=1e-6)
    assert np.allclose(model.embed(pictures[0]), tokens[0], atol=1e-6)  # this model pools its class token
    with pytest.raises(SettingsError, match="did you mean 'mean'"):
        model.embed(pictures[0], part="meen")  # type: ignore[arg-type]


def test_broken_weights_are_said_to_be_broken(model: Model, pictures: list[Path]) -> None:
    with torch.no_grad():
        model.vit.norm.weight.mul_(float("nan"))
    with pytest.raises(CheckpointError, match="is NaN or infinite"):
        model.predict(pictures)


def test_a_model_that_sees_nothing_is_noticed(model: Model, pictures: list[Path]) -> None:
    stream = Predictions(model, pictures)
    list(stream)
    assert stream.notice == ""
    with torch.no_grad():
        model.vit.head.weight.zero_()
    stream = Predictions(model, pictures)
    list(stream)
    assert "all 20 images give the same output" in stream.notice


def test_one_picture_given_many_times_is_no_fault_of_the_model() -> None:
    same = SameAnswers()
    for i in range(9):
        same.add(Output(index=i, name="a", values=np.ones(3), brightness=0.4))
    assert same.notice == ""


def test_the_plan_follows_the_number_of_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("patchword.machine.granted_threads", lambda: 4)
    cpu = torch.device("cpu")
    assert make_plan(1, cpu) == Plan(workers=1, threads=4, batch_size=1)
    assert make_plan(6, cpu) == Plan(workers=4, threads=1, batch_size=2)
    assert make_plan(None, cpu) == make_plan(10_000, cpu) == Plan(workers=4, threads=1, batch_size=8)
    assert make_plan(100, cpu, 32).batch_size == 32
    assert make_plan(None, torch.device("meta")).alone


def test_pictures_of_several_sizes_go_together_by_size() -> None:
    fed = {0: np.ones((3, 4, 4)), 1: np.ones((3, 4, 8)), 2: np.ones((3, 4, 4))}
    assert _by_shape(fed) == [[0, 2], [1]]


@pytest.mark.parametrize("content", [b"a.png\nb c.png\r\n\n", b"a.png\0b c.png\0", b"a.png\nb c.png"])
def test_standard_input_may_list_paths(content: bytes) -> None:
    found = from_stream(io.BufferedReader(io.BytesIO(content)))  # type: ignore[arg-type]
    assert list(found) == ["a.png", "b c.png"]


def test_standard_input_may_be_one_image(pictures: list[Path]) -> None:
    content = pictures[0].read_bytes()
    assert from_stream(io.BufferedReader(io.BytesIO(content))) == content  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "content",
    [
        b"\0\0\0\x18ftypheic\0\0\0\0mif1heic\n\n",
        b"%PDF-1.7\n%\xe2\xe3\n1 0 obj\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'>\n</svg>\n",
        b"\n<!DOCTYPE html>\n<html>\n",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    ],
)
def test_what_is_no_picture_on_standard_input_is_one_answer_not_a_list_of_names(content: bytes) -> None:
    assert from_stream(io.BufferedReader(io.BytesIO(content))) == content  # type: ignore[arg-type]
