"""What transformers' DETR and YOLOS share: class names, preprocessing and config.json."""

from collections.abc import Mapping
from typing import Any

from patchword.errors import CheckpointError
from patchword.formats.checkpoint import Checkpoint
from patchword.formats.layouts.transformers_config import CONFIG, JsonConfig, written
from patchword.formats.layouts.transformers_preprocess import (
    FILE,
    read_preprocess,
    write_detection_preprocess,
)
from patchword.formats.rows import Row
from patchword.images.preprocess import Preprocess
from patchword.weights.detector_card import DetectorCard

BOX_ROWS: tuple[Row, ...] = tuple(
    (f"bbox_predictor.layers.{layer}.{{wb}}", f"box_head.layers.{layer}.{{wb}}") for layer in range(3)
)
# The losses of both, for their readers.
_LOSSES = {
    "class_cost": 1,
    "bbox_cost": 5,
    "giou_cost": 2,
    "bbox_loss_coefficient": 5,
    "giou_loss_coefficient": 2,
    "eos_coefficient": 0.1,
}


def names_of(declared: JsonConfig, count: int) -> tuple[str, ...]:
    """The names of `id2label` as they are; () if there are none but LABEL_0, LABEL_1…

    An id that it leaves out has the name "N/A", as in the published files.
    Raises: CheckpointError if it has an id that the head lacks.
    """
    labels = declared.part("id2label").values
    if not labels or all(str(name).startswith("LABEL_") for name in labels.values()):
        return ()
    unknown = [key for key in labels if not (str(key).isdecimal() and int(key) < count)]
    if unknown:
        raise CheckpointError(
            f"{declared.name}: {declared.where} names class {unknown[0]}, but the head has classes 0 to {count - 1}",
            "use config.json and weights from the same model",
        )
    given = {int(key): str(name) for key, name in labels.items()}
    return tuple(given.get(index, "N/A") for index in range(count))


def preprocess_of(checkpoint: Checkpoint, usual: str, channels: int) -> Preprocess | None:
    """The preprocessing of preprocessor_config.json, None without one. usual: the default processor."""
    declared = JsonConfig(checkpoint.name, checkpoint.configs.get(FILE, {}), FILE)
    return read_preprocess(declared, usual, channels, (800, 1333))


def usual_preprocess(checkpoint: Checkpoint, usual: str, channels: int) -> Preprocess | None:
    """What a processor does without a file."""
    values = {"image_processor_type": f"{usual}ImageProcessor"}
    return read_preprocess(JsonConfig(checkpoint.name, values, FILE), usual, channels, (800, 1333))


def files_of(
    card: DetectorCard, model_type: str, architecture: str, values: Mapping[str, Any]
) -> dict[str, bytes]:
    """config.json and preprocessor_config.json. values: the keys of the model's own class."""
    named = {index: one.name or f"LABEL_{index}" for index, one in enumerate(card.classes)}
    config = {
        "architectures": [architecture],
        "model_type": model_type,
        "id2label": {str(index): name for index, name in named.items()},
        "label2id": {name: index for index, name in named.items()},
        **_LOSSES,
        **values,
    }
    return {CONFIG: written(config), FILE: write_detection_preprocess(card.preprocess)}
