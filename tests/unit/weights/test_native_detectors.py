"""Our own file of a detector: what was saved is what is loaded, and a model's file is not taken for a detector's."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from patchword.errors import CheckpointError
from patchword.formats.detection.layout import DetectorOptions, capped
from patchword.inference.detector import load_detector
from patchword.model.detr.config import DetrConfig, TrunkConfig
from patchword.model.sizes import sized
from patchword.model.vitdet.config import VitDetConfig
from patchword.model.vitdet.model import VitDet
from patchword.weights.card import Provenance
from patchword.weights.detector_card import (
    DetectionClass,
    DetectorCard,
    detector_card_from_json,
    detector_card_to_json,
)
from patchword.weights.native import read_card, read_detector_card, write_model

CLASSES = (DetectionClass(1, "RBC"), DetectionClass(17, "Wéiß"))


def card() -> DetectorCard:
    vit = replace(sized("ViT-Ti/16", image_size=(32, 48), num_classes=0), depth=1)
    return DetectorCard(
        config=VitDetConfig(vit=vit, num_classes=2, num_layers=1, num_queries=5),
        preprocess=capped(32, 48),
        classes=CLASSES,
        provenance=Provenance(metrics={"ap": 0.5}, trained_on="00000001"),
    )


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    model = VitDet(card().config, generator=torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    write_model(tmp_path / "model.safetensors", model.state_dict(), card())
    return tmp_path / "model.safetensors"


def test_a_saved_detector_opens_by_its_path_with_its_own_classes(saved: Path) -> None:
    found = load_detector(saved, device="cpu")
    model = VitDet(card().config, generator=torch.Generator().manual_seed(0)).eval()  # type: ignore[arg-type]
    images = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        ours, theirs = found.model(images), model(images)
    assert torch.equal(ours.logits, theirs.logits) and torch.equal(ours.boxes, theirs.boxes)
    assert found.card == card() and found.classes == CLASSES
    found.save(saved.with_name("again.safetensors"))
    assert load_detector(saved.with_name("again.safetensors")).card == found.card


@pytest.mark.parametrize(
    "config",
    [
        card().config,
        DetrConfig(num_classes=2, trunk=TrunkConfig(units=(3, 4, 23, 3), dilation=True), dropout=0.0),
    ],
)
def test_every_kind_of_config_returns_from_the_card(config: VitDetConfig | DetrConfig) -> None:
    whole = replace(card(), config=config)
    assert detector_card_from_json(detector_card_to_json(whole), "x") == whole


def test_names_may_be_replaced_and_keep_their_numbers(saved: Path) -> None:
    found = load_detector(saved, options=DetectorOptions(classes=("a", "b")))
    assert found.classes == (DetectionClass(1, "a"), DetectionClass(17, "b"))
    with pytest.raises(CheckpointError, match="num-heads does not apply"):
        load_detector(saved, options=DetectorOptions(num_heads=3))


def test_a_detectors_card_is_no_models_and_contradictions_are_refused(saved: Path) -> None:
    with pytest.raises(CheckpointError, match="is a detector"):
        read_card(saved)
    assert read_detector_card(saved) == card()
    plain = json.loads(detector_card_to_json(card()))
    for change, message in (
        ({"classes": [[1, "a"], [1, "b"]]}, "the number 1"),
        ({"classes": [[1, "a"]]}, "2 classes, but 1"),
        ({"classes": ["a", "b"]}, "pairs"),
        ({"version": 99}, "update|version 99"),
        ({"detector": {"kind": "detr2"}}, "detr2"),
        ({"surprise": 1}, "unknown parts"),
    ):
        with pytest.raises(CheckpointError, match=message):
            detector_card_from_json(json.dumps({**plain, **change}), "x")
