"""Record what pycocotools and tidecv say about made-up detections: `python -m support.coco_scores`, with both installed.

The answers lie in tests/data/coco-scores.json.
"""

import contextlib
import io
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from patchword.metrics.detection import Detections, Truths, detections, truths
from support.boxes import scene

RECORDED = Path(__file__).parents[1] / "data" / "coco-scores.json"
SCENES: dict[str, dict[str, Any]] = {
    "crowds and ignored boxes": {"seed": 1, "size": 900},
    "equal scores": {"seed": 2, "ties": True, "guesses": 14},
    "small boxes, two classes unused": {"seed": 3, "classes": 3, "size": 100},
    "no regions": {"seed": 4, "regions": 0.0},
}
TIDE_NAMES = {
    "Cls": "class",
    "Loc": "place",
    "Both": "both",
    "Dupe": "duplicate",
    "Bkg": "background",
    "Miss": "missed",
}


def coco_stats(there: Truths, found: Detections, images: int, classes: int, limits: list[int]) -> Any:
    """pycocotools' evaluation after `accumulate`: precision [T, 101, C, 4, L], recall [T, C, 4, L]."""

    class Honours(COCOeval):
        """Its own preparation overwrites `ignore` by `iscrowd`."""

        def _prepare(self) -> None:
            super()._prepare()
            for group in self._gts.values():
                for box in group:
                    box["ignore"] = bool(box["ignored"] or box["iscrowd"])

    plain = COCO()
    plain.dataset = {
        "images": [{"id": i, "width": 640, "height": 640} for i in range(images)],
        "categories": [{"id": k, "name": str(k)} for k in range(classes)],
        "annotations": [
            {
                "id": n + 1, "image_id": int(there.images[n]), "category_id": int(there.classes[n]),
                "bbox": _corner_and_size(there.boxes[n]), "area": float(there.areas[n]),
                "iscrowd": int(there.crowd[n]), "ignored": bool(there.ignored[n]),
            }
            for n in range(len(there))
        ],
    }  # fmt: skip
    results = [
        {
            "image_id": int(found.images[n]), "category_id": int(found.classes[n]),
            "bbox": _corner_and_size(found.boxes[n]), "score": float(found.scores[n]),
        }
        for n in range(len(found))
    ]  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        plain.createIndex()
        if results:
            answer = plain.loadRes(results)
        else:
            answer = COCO()
            answer.dataset = plain.dataset | {"annotations": []}
            answer.createIndex()
        evaluation = Honours(plain, answer, "bbox")
        evaluation.params.maxDets = limits
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval


def _corner_and_size(box: Any) -> list[float]:
    return [float(box[0]), float(box[1]), float(box[2] - box[0]), float(box[3] - box[1])]


def mean(values: Any) -> float | None:
    there = values[values > -1]
    return float(there.mean()) if there.size else None


def tide_errors(there: Truths, found: Detections) -> dict[str, tuple[int, float]]:
    """Count and gain in AP50 of each kind of error."""
    from tidecv import TIDE, Data

    true, predicted = Data("true"), Data("predicted")
    # It skips images that it was not told about, also if something was detected in them.
    for i in range(12):
        true.add_image(i, str(i))
    for n in range(len(there)):
        true.add_ground_truth(int(there.images[n]), int(there.classes[n]), _corner_and_size(there.boxes[n]))
    for n in range(len(found)):
        box = _corner_and_size(found.boxes[n])
        predicted.add_detection(int(found.images[n]), int(found.classes[n]), float(found.scores[n]), box)
    run = TIDE().evaluate(true, predicted, mode=TIDE.BOX)
    gains = {kind.short_name: gain / 100 for kind, gain in run.fix_main_errors().items()}
    return {
        TIDE_NAMES[kind.short_name]: (len(errors), gains[kind.short_name])
        for kind, errors in run.error_dict.items()
    }


def record() -> None:
    cases = []
    for name, options in SCENES.items():
        there, found = scene(**options)
        kept = {
            "boxes": there.boxes.round(1).tolist(), "classes": there.classes.tolist(), "images": there.images.tolist(),
            "areas": there.areas.round(1).tolist(), "crowd": there.crowd.astype(int).tolist(),
            "ignored": there.ignored.astype(int).tolist(),
        }  # fmt: skip
        shown = {
            "boxes": found.boxes.round(1).tolist(), "classes": found.classes.tolist(),
            "scores": found.scores.round(4).tolist(), "images": found.images.tolist(),
        }  # fmt: skip
        there, found = truths(**kept), detections(**shown)
        stats = coco_stats(there, found, 12, 5, [1, 10, 100])
        precision, recall = stats["precision"], stats["recall"]
        expected = [
            mean(precision[..., 0, -1]), mean(precision[0, ..., 0, -1]), mean(precision[5, ..., 0, -1]),
            *(mean(precision[..., a, -1]) for a in (1, 2, 3)), *(mean(recall[:, :, 0, i]) for i in range(3)),
            *(mean(recall[..., a, -1]) for a in (1, 2, 3)),
        ]  # fmt: skip
        case = {"name": name, "truths": kept, "detections": shown, "expected": expected}
        if not (there.crowd | there.ignored).any():
            case["errors"] = tide_errors(there, found)
        cases.append(case | {"by": [f"{p} {version(p)}" for p in ("pycocotools", "tidecv", "numpy")]})
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    RECORDED.write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    record()
