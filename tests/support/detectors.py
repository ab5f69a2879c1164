"""Small detectors: random ones of every kind, and one that finds coloured rectangles without being trained."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor, nn

from patchword.formats.detection.layout import capped
from patchword.formats.report import LoadReport
from patchword.images.preprocess import Preprocess
from patchword.inference.detector import Detector
from patchword.model.config import (
    AttentionConfig,
    HeadConfig,
    ImageConfig,
    PatchConfig,
    TokensConfig,
    ViTConfig,
)
from patchword.model.detection import DetectionOutput
from patchword.model.detr.config import DetrConfig, TrunkConfig
from patchword.model.detr.model import DETR
from patchword.model.kinds import LearnedTokens
from patchword.model.sizes import sized
from patchword.model.vitdet.config import VitDetConfig
from patchword.model.vitdet.model import VitDet
from patchword.model.yolos import YOLOS
from patchword.model.yolos_config import YolosConfig
from patchword.weights.detector_card import DetectionClass, DetectorCard, DetectorConfig
from patchword.weights.native import write_model

KINDS = ("detr", "yolos", "vitdet")
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
# Unsorted, with gaps.
IDS = {"red": 7, "green": 3, "blue": 90}
CLASSES = tuple(DetectionClass(IDS[name], name) for name in COLOURS)


def config_of(kind: str, classes: int = 3) -> DetectorConfig:
    if kind == "detr":
        trunk = TrunkConfig(units=(1, 1, 1, 1), root=4, middle=(2, 2, 2, 4), outputs=(8, 8, 8, 16))
        return DetrConfig(
            trunk=trunk, dim=16, num_heads=2, hidden=16, encoder_depth=2, decoder_depth=2, num_queries=6,
            num_classes=classes,
        )  # fmt: skip
    if kind == "yolos":
        backbone = ViTConfig(
            image=ImageConfig(size=(32, 48)),
            patch=PatchConfig(size=(16, 16), edge="cut"),
            dim=16,
            depth=2,
            tokens=TokensConfig(num_registers=5, registers_last=True),
            positions=LearnedTokens(resampled_by="sides"),
            attention=AttentionConfig(num_heads=2),
            head=HeadConfig(num_classes=0),
        )
        return YolosConfig(backbone=backbone, num_classes=classes)
    vit = sized("ViT-Ti/16", image_size=(64, 96), num_classes=0)
    vit = replace(vit, dim=32, depth=2, attention=replace(vit.attention, num_heads=2))
    return VitDetConfig(vit=vit, num_classes=classes, num_queries=10, num_layers=2, num_heads=2)


def random_model(config: DetectorConfig, seed: int = 0, spread: float = 0.3) -> Any:
    """With weights that are large enough for answers to differ from image to image."""
    generator = torch.Generator().manual_seed(seed)
    if isinstance(config, DetrConfig):
        model: nn.Module = DETR(config, generator)
    elif isinstance(config, YolosConfig):
        model = YOLOS(config, generator)
    else:
        model = VitDet(config, generator=generator)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                much = 0.05 if isinstance(config, VitDetConfig) else spread
                much = 1.0 if name in ("queries", "backbone.prefix.registers") else much
                weight.add_(torch.randn(weight.shape, generator=generator) * much)
            elif "class_head" in name and weight.numel() == config.num_classes + 1:
                weight[-1] -= 2.0  # "no object"
    return model.eval()


def preprocess_of(kind: str) -> Preprocess:
    if kind == "vitdet":
        return Preprocess.simple((64, 96))
    return capped(48, 96, 16)


def write_detector_file(
    path: Path, kind: str = "detr", classes: tuple[DetectionClass, ...] = CLASSES
) -> Path:
    config = config_of(kind, len(classes))
    card = DetectorCard(config=config, preprocess=preprocess_of(kind), classes=classes)
    write_model(path, random_model(config).state_dict(), card)
    return path


class FindsColours(nn.Module):
    """Each connected area of red, green or blue is an object, found exactly; the score of smaller ones is lower."""

    QUERIES = 12

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, images: Tensor) -> DetectionOutput:
        logits = torch.full((1, len(images), self.QUERIES, len(COLOURS) + 1), -20.0)
        logits[..., -1] = 20.0
        boxes = torch.full((1, len(images), self.QUERIES, 4), 0.5)
        for number, image in enumerate(images):
            height, width = image.shape[1:]
            query = 0
            for label in range(len(COLOURS)):
                others = [c for c in range(3) if c != label]
                areas, _ = ndimage.label((image[label] - image[others].amax(0) > 0.6).numpy())
                for down, across in ndimage.find_objects(areas):
                    x0, x1, y0, y1 = (
                        across.start / width,
                        across.stop / width,
                        down.start / height,
                        down.stop / height,
                    )
                    boxes[0, number, query] = torch.tensor([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0])
                    logits[0, number, query, -1] = 0.0
                    logits[0, number, query, label] = 3.0 + 2 * min(1.0, (x1 - x0) * (y1 - y0))
                    query += 1
        return DetectionOutput(logits, boxes)


def colour_detector(preprocess: Preprocess) -> Detector:
    """preprocess: with any resize rule; pixels are compared from 0 to 1."""
    card = DetectorCard(
        config=replace(cast(DetrConfig, config_of("detr")), num_queries=FindsColours.QUERIES),
        preprocess=replace(preprocess, mean=(0.0,), std=(1.0,)),
        classes=CLASSES,
    )
    report = LoadReport(path=Path("colours.safetensors"), tensors=1, parameters=1)
    return Detector(cast(Any, FindsColours().eval()), card, report)


Rectangle = tuple[str, int, int, int, int]


def painted(size: tuple[int, int], rectangles: list[Rectangle]) -> Image.Image:
    """A grey image of (width, height) with rectangles: colour, left, top, right, bottom."""
    pixels = np.full((size[1], size[0], 3), 120, np.uint8)
    for colour, left, top, right, bottom in rectangles:
        pixels[top:bottom, left:right] = COLOURS[colour]
    return Image.fromarray(pixels)
