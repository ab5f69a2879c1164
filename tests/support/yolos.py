"""A YOLOS so small that a run takes seconds, with positions as the format needs them, and what a recipe knows of such weights."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

from patchword.images.preprocess import Preprocess
from patchword.inference.detector import load_detector
from patchword.model.config import HeadConfig, TokensConfig
from patchword.model.kinds import LearnedTokens
from patchword.model.sizes import sized
from patchword.model.yolos_config import YolosConfig
from patchword.training.recipes.facts import DataFacts
from patchword.weights.card import ModelCard
from patchword.weights.detector_card import DetectorCard
from patchword.weights.native import write_model
from support.detectors import config_of, preprocess_of, random_model
from support.detr import CLASSES

Form = Literal["patchword", "yolos", "transformers-yolos"]


def write_tiny(folder: Path, form: Form = "patchword") -> Path:
    """Weights with the classes of `support.detr`. Returns their path."""
    config = config_of("yolos", len(CLASSES))
    assert isinstance(config, YolosConfig)
    rule = LearnedTokens(resampled_by="count" if form == "yolos" else "sides")
    config = replace(config, backbone=replace(config.backbone, positions=rule))
    card = DetectorCard(config=config, preprocess=preprocess_of("yolos"), classes=CLASSES)
    folder.mkdir(parents=True, exist_ok=True)
    own = folder / "tiny.safetensors"
    write_model(own, random_model(config).state_dict(), card)
    if form == "patchword":
        return own
    there = folder / ("yolos.pth" if form == "yolos" else "transformers")
    load_detector(own).write(there, form)
    return there


def with_yolos(facts: DataFacts) -> DataFacts:
    """Facts of a training from a YOLOS as large as ViT-Ti."""
    tokens = TokensConfig(num_registers=100, registers_last=True)
    backbone = replace(
        sized("ti/16"), tokens=tokens, positions=LearnedTokens(), head=HeadConfig(num_classes=0)
    )
    card = ModelCard(config=backbone, preprocess=Preprocess.simple(224))
    return replace(facts, weights=card, detector=YolosConfig(backbone=backbone, num_classes=91))
