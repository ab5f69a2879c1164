"""Evaluation: the same answers as prediction, each image once, nothing replaced."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from patchword import metrics
from patchword.data.open import open_data
from patchword.data.request import OpenRequest
from patchword.data.splits import file_list_sha256
from patchword.errors import CheckpointError, DataError
from patchword.inference.evaluate import EvaluationRequest, evaluate, open_for, training_score
from patchword.inference.load import load
from patchword.inference.model import Model

from .conftest import NAMES, write_tiny

WHOLE = OpenRequest(split=False)


@pytest.fixture
def labelled(tmp_path: Path, pictures: list[Path]) -> Path:
    """Twenty pictures in class folders; what they show has nothing to do with the names."""
    for i, path in enumerate(pictures):
        place = tmp_path / "data" / NAMES[i % 4]
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    return tmp_path / "data"


def test_images_that_are_not_scored_are_told_or_refused(model: Model, labelled: Path, tmp_path: Path) -> None:
    shutil.copytree(labelled / NAMES[0], labelled / "unheard of")
    found = evaluate(model, open_for(model, labelled), EvaluationRequest(ignore_unknown_classes=True))
    assert found.images == 20 and "5 images of classes unknown to the model" in found.notes[0]
    for split in ("train", "val"):
        shutil.copytree(labelled, tmp_path / "split" / split)
    shutil.rmtree(tmp_path / "split" / "train" / "unheard of")
    with pytest.raises(DataError, match="val has the class 'unheard of'"):
        open_for(model, tmp_path / "split")
    shutil.rmtree(tmp_path / "split" / "val" / "unheard of")
    shutil.copy(next((labelled / NAMES[0]).iterdir()), tmp_path / "split" / "val" / "loose.png")
    with pytest.raises(DataError, match="outside any class folder"):
        open_for(model, tmp_path / "split")


def test_evaluating_scores_the_answers_that_predicting_gives(model: Model, labelled: Path) -> None:
    found = evaluate(model, open_data(labelled, WHOLE))
    predictions = model.predict(labelled)
    true = [NAMES.index(Path(p.name).parent.name) for p in predictions]
    right = [p.label == NAMES[t] for p, t in zip(predictions, true, strict=True)]
    assert found.images == found.scored == 20 and found.top1 == np.mean(right)
    in_five = [NAMES[t] in dict(p.top(5)) for p, t in zip(predictions, true, strict=True)]
    assert found.top5 == np.mean(in_five)
    losses = [-np.log(dict(p.top(99))[NAMES[t]]) for p, t in zip(predictions, true, strict=True)]
    assert found.loss == pytest.approx(np.mean(losses), abs=1e-5)
    assert found.top1_interval == metrics.wilson_interval(sum(right), 20)
    sure = {p.name: p.top(1)[0][1] for p in predictions}
    assert [sure[str(labelled / m.name)] for m in found.mistakes] == [
        pytest.approx(m.probability, abs=1e-6) for m in found.mistakes
    ]
    assert [m.probability for m in found.mistakes] == sorted(
        (m.probability for m in found.mistakes), reverse=True
    )


@pytest.mark.parametrize("batch_size", [1, 5, 8, 64])
def test_every_image_is_scored_once_at_any_batch_size(model: Model, labelled: Path, batch_size: int) -> None:
    dataset = open_data(labelled, WHOLE)
    expected = evaluate(model, dataset).to_dict()
    found = evaluate(model, dataset, EvaluationRequest(batch_size=batch_size)).to_dict()
    assert found["confusion"] == expected["confusion"] and np.sum(found["confusion"]) == 20
    assert found["loss"] == pytest.approx(expected["loss"], abs=1e-6)


def test_unreadable_images_are_listed_and_not_scored(model: Model, labelled: Path) -> None:
    (labelled / "rose" / "99.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut off")
    found = evaluate(model, open_data(labelled, WHOLE))
    assert (found.images, found.scored) == (21, 20)
    (bad,) = found.unreadable
    assert bad["name"].endswith("99.jpg") and bad["reason"] and bad["name"] not in bad["reason"]


def test_what_evaluation_json_holds_is_plain_and_whole(model: Model, labelled: Path) -> None:
    plain = json.loads(json.dumps(evaluate(model, open_data(labelled, WHOLE)).to_dict()))
    wanted = (
        "data split weights images scored unreadable top1 top1_interval top5 loss classes confusion mistakes "
        "majority notice calibration pairs"
    )
    assert set(plain) == set(wanted.split())
    assert plain["majority"] == {"name": NAMES[0], "top1": 0.25}
    assert [c["name"] for c in plain["classes"]] == list(NAMES)
    assert plain["classes"][5] == {"name": "weed", "images": 0, "recall": None} | {
        key: plain["classes"][5][key] for key in ("precision", "f1")
    }
    first = plain["mistakes"][0]
    assert first["thumbnail"].startswith("data:image/jpeg;base64,") and first["true"] != first["predicted"]
    assert first["probability"] > first["true_probability"]


def test_classes_are_matched_by_name_and_strangers_named(model: Model, labelled: Path) -> None:
    (labelled / "rose").rename(labelled / "roses")
    dataset = open_data(labelled, WHOLE)
    with pytest.raises(DataError, match=r"'roses' \(did you mean 'rose'\?\)"):
        evaluate(model, dataset)
    found = evaluate(model, dataset, EvaluationRequest(ignore_unknown_classes=True))
    assert found.scored == 15


def test_a_split_that_is_not_there_is_named(model: Model, labelled: Path) -> None:
    with pytest.raises(DataError, match="no split 'vall'"):
        evaluate(model, open_data(labelled), EvaluationRequest(split="vall"))


def test_images_that_training_held_out_are_found_again(model: Model, labelled: Path) -> None:
    training = open_data(labelled, OpenRequest(split_seed=5))
    origin = replace(model.provenance, data_hash=file_list_sha256(training), facts={"split_seed": 5})
    model.card = replace(model.card, provenance=origin)
    assert open_for(model, labelled).evaluation.names == training.evaluation.names
    model.card = replace(model.card, provenance=replace(origin, data_hash="of other data"))
    assert len(open_for(model, labelled).evaluation) == 20


def test_an_untrained_head_is_not_scored(tmp_path: Path, labelled: Path) -> None:
    model = load(write_tiny(tmp_path / "m.safetensors", untrained=("head",)), device="cpu")
    with pytest.raises(CheckpointError, match="is untrained"):
        evaluate(model, open_data(labelled, WHOLE))


def test_a_model_that_names_all_the_same_is_noticed(model: Model, labelled: Path) -> None:
    assert "called" not in evaluate(model, open_data(labelled, WHOLE)).notice
    with torch.no_grad():
        model.vit.head.bias[2] = 1000
    assert "all 20 images are classified as 'rose'" in evaluate(model, open_data(labelled, WHOLE)).notice


def test_nothing_readable_is_an_error(model: Model, labelled: Path) -> None:
    for path in labelled.rglob("*.*"):
        path.write_bytes(b"\xff\xd8\xff broken")
    with pytest.raises(DataError, match="cannot read any of the 20 images"):
        evaluate(model, open_data(labelled, WHOLE))


def test_the_pairs_confused_most_are_listed_with_both_directions_and_their_mistakes(
    model: Model, labelled: Path
) -> None:
    found = evaluate(model, open_data(labelled, WHOLE))
    assert found.pairs and found.calibration is not None and found.calibration.images == 20
    counts = np.array(found.confusion)
    both = counts + counts.T - 2 * np.diag(counts.diagonal())
    first = found.pairs[0]
    assert first.first_as_second + first.second_as_first == both.max()
    for pair in found.pairs:
        i, j = NAMES.index(pair.first), NAMES.index(pair.second)
        assert (pair.first_as_second, pair.second_as_first) == (counts[i, j], counts[j, i])
        assert len(pair.mistakes) == min(counts[i, j] + counts[j, i], 4)
        assert all({m.true, m.predicted} == {pair.first, pair.second} for m in pair.mistakes)


def test_the_training_score_is_that_of_the_training_images_or_of_the_same_sample(
    model: Model, labelled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = open_data(labelled)
    whole = evaluate(model, data, EvaluationRequest(split="train"))
    assert training_score(model, data).top1 == whole.top1
    monkeypatch.setattr("patchword.inference.evaluate.MOST_TRAINING", 5)
    found = training_score(model, data)
    assert (found.scored, found.of) == (5, whole.scored) and found == training_score(model, data)
