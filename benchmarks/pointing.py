"""The pointing game of a detector's queries: `python benchmarks/pointing.py RUN DATA [IMAGES]`.

For each object that is found with a score of at least 0.3 and overlaps a true box of its class by half, whether the place where its
query looks most lies in that box. Chance is the share of the image that the box covers: where a random point would hit.
"""

import sys

import numpy as np

from patchword.data.loader import from_split
from patchword.data.request import OpenRequest
from patchword.explaining.detection import look_each
from patchword.images.frame import Frame
from patchword.inference.detector import load_detector
from patchword.inference.evaluate_boxes import open_boxes_for

run, data, count = sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 58
detector = load_detector(run, device="cpu")
dataset = open_boxes_for(detector, data, OpenRequest())
split = dataset.evaluation
rows = np.sort(np.random.default_rng(0).choice(len(split), min(count, len(split)), replace=False))
split = split.subset(rows)
hits: dict[str, list[bool]] = {}
chance: dict[str, list[float]] = {}
looked = look_each(detector, list(from_split(split)), conf=0.3, objects=1000, max_pixels=split.max_pixels)
for index, image in enumerate(looked):
    true = split.targets.image(index)
    height, width = image.size
    down, across = image.pixels.shape[:2]
    for look in image.looks:
        same = true.corners[[dataset.classes[label] == look.name for label in true.labels]]
        sides = np.minimum(same[:, 2:], look.box[2:]) - np.maximum(same[:, :2], look.box[:2])
        shared = sides.clip(min=0).prod(axis=1)
        union = (same[:, 2:] - same[:, :2]).prod(axis=1) + (look.box[2:] - look.box[:2]).prod() - shared
        overlap = shared / union
        if not len(overlap) or overlap.max() < 0.5:
            continue
        box = same[overlap.argmax()]
        frame = Frame.of(image.preprocess.plan(image.size), image.size)
        left, top, right, bottom = frame.forward(box[None])[0]
        places = {}
        if look.points is not None:
            places["points"] = look.points[look.points[:, 2].argmax(), :2]
        for method, values in look.maps.items():
            y, x = np.unravel_index(values.argmax(), values.shape)
            places[method] = np.array(
                [(x + 0.5) / values.shape[1] * across, (y + 0.5) / values.shape[0] * down]
            )
        for method, place in places.items():
            x, y = place
            hits.setdefault(method, []).append(bool(left <= x <= right and top <= y <= bottom))
            share = (box[2:] - box[:2]).prod() / (height * width)
            chance.setdefault(method, []).append(float(share))
for method, found in hits.items():
    share, random = np.mean(found), np.mean(chance[method])
    print(
        f"{method}: {len(found)} objects, {100 * share:.1f} % in the box, chance {100 * random:.1f} %: {share / random:.1f} x"
    )
