"""A recorded detector: its file loaded with its hints, and our answers under the recorded names."""

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from patchword.formats.detection.layout import DetectorOptions
from patchword.inference.detector import Detector, load_detector
from patchword.model.detection import Batch, DetectionOutput, postprocess
from patchword.model.detr.model import DETR
from patchword.model.matching import Targets, match
from patchword.model.set_loss import set_loss
from support.parity import Case


def options_of(case: Case) -> DetectorOptions:
    """A case's hints as the options a user would give."""
    return DetectorOptions(
        **{
            name: tuple(value) if isinstance(value, list) else value
            for name, value in case.meta["hints"].items()
        }
    )


def load_case(case: Case) -> Detector:
    return load_detector(case.path, device="cpu", options=options_of(case))


def batch_of(arrays: dict[str, NDArray[Any]]) -> Batch:
    images = torch.from_numpy(arrays["image"])
    mask = arrays.get("pixel_mask")
    return Batch(images, None if mask is None or mask.all() else ~torch.from_numpy(mask).bool())


def targets_of(arrays: dict[str, NDArray[Any]]) -> Targets:
    labels, boxes, image = (
        torch.from_numpy(arrays[f"target_{part}"]) for part in ("labels", "boxes", "image")
    )
    return Targets.of([(labels[image == i], boxes[image == i]) for i in range(len(arrays["image"]))])


def case_of_authors(arrays: dict[str, NDArray[Any]]) -> bool:
    return arrays["memory"].ndim == 4


@torch.no_grad()
def answers(detector: Detector, arrays: dict[str, NDArray[Any]]) -> dict[str, Tensor]:
    """What the original recorded, as ours."""
    model, batch, targets = detector.model, batch_of(arrays), targets_of(arrays)
    output = model(batch)
    found = {"pred_logits": output.pred_logits, "pred_boxes": output.pred_boxes}
    found |= {"aux_logits": output.logits[:-1], "aux_boxes": output.boxes[:-1]}
    found |= set_loss(output, targets).named()
    found |= _matching(output, targets)
    if "target_sizes" in arrays:
        sizes = [(int(h), int(w)) for h, w in arrays["target_sizes"]]
        results = postprocess(output, sizes)
        found |= {
            name: torch.stack([getattr(one, name) for one in results])
            for name in ("scores", "labels", "boxes")
        }
    if isinstance(model, DETR):
        inside = _inside_detr(model, batch)
        if case_of_authors(arrays):  # transformers' memory is a sequence
            inside["memory"] = inside["memory"].transpose(1, 2).reshape(inside["position"].shape)
        return found | inside
    vit = model.backbone
    embedded, layout = vit.embed_tokens(batch.images)
    return found | {
        "embedded": embedded,
        "block_0": vit.blocks[0](embedded, vit.places(layout)[0]),
        "tokens": vit.forward_features(batch.images),
    }


def _matching(output: DetectionOutput, targets: Targets) -> dict[str, Tensor]:
    """Of the last layer, with indices that count from the first object of each image."""
    pairs, found = match(output, targets), {}
    for image, start in enumerate(targets.starts):
        mine = pairs.image[-1] == image
        found[f"match_{image}_src"] = pairs.query[-1][mine]
        found[f"match_{image}_tgt"] = pairs.target[-1][mine] - start
    return found


def _inside_detr(model: DETR, batch: Batch) -> dict[str, Tensor]:
    features, padding = model.features(batch)
    memory, positions = model.encode(features, padding)
    (count, _, rows, columns) = features.shape
    cells = torch.zeros((count, rows, columns), dtype=torch.bool) if padding is None else padding
    return {
        "features": features,
        "feature_mask": ~cells,  # 1 is real, as in `pixel_mask`
        "position": positions.expand(count, -1, -1).transpose(1, 2).reshape(count, -1, rows, columns),
        "memory": memory,
        "decoder": model.decode(memory, positions, padding),
    }
