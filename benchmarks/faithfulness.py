"""Deletion and insertion of explanations on photographs, with paired intervals: `python benchmarks/faithfulness.py RUN DATA [IMAGES]`.

The model's held-out images, drawn with seed 0, each explained for its most probable class. Prints the mean area under the curve of each
method, of the negated maps of two of them, of a random order and of the centre first, and the difference from the random order with its
95 % interval (t over the images).
"""

import statistics
import sys
import time

import numpy as np
import torch
from scipy.stats import t as student_t

from patchword.data.loader import from_split
from patchword.explaining.faithfulness import CENTRE, RANDOM, curves_of, joined
from patchword.explaining.methods.table import maps_by_name
from patchword.explaining.settings import MethodSettings, ScoreSettings
from patchword.images.prepare import read
from patchword.inference.evaluate import open_for
from patchword.inference.load import load

run, data, count = sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 100
NEGATED = ("integrated-gradients", "occlusion")
model = load(run, device="cpu")
split = open_for(model, data).evaluation
rows = np.sort(np.random.default_rng(0).choice(len(split), min(count, len(split)), replace=False))
settings, scores = MethodSettings(steps=16), ScoreSettings(steps=6)
names = ("rollout", "relevance", "integrated-relevance", *NEGATED)
parts, started = [], time.process_time()
with torch.no_grad():
    for index, one in enumerate(from_split(split.subset(rows))):
        image = torch.from_numpy(
            read(one.fetch(), model.preprocess, name=one.name, max_pixels=split.max_pixels)
        )[None]
        top = model.vit(image).argmax(1)
        maps = {name: maps_by_name(name, model.vit, image, top, settings)[0].values[0] for name in names}
        maps |= {f"not {name}": -maps[name] for name in NEGATED}
        parts.append(curves_of(model.vit, image, maps, top[0], scores, index=index))
found = joined(parts)
half = student_t.ppf(0.975, len(parts) - 1) / len(parts) ** 0.5


def less(ours: np.ndarray, random: np.ndarray) -> str:
    differences = (ours - random).tolist()
    return f"{statistics.mean(differences):+.3f} ± {half * statistics.stdev(differences):.3f}"


print(f"{len(parts)} images, {time.process_time() - started:.0f} s of CPU")
print("| order | fill | deletion | less random | insertion | less random |\n|---|---|---|---|---|---|")
for name in [*names, *(f"not {name}" for name in NEGATED), CENTRE, RANDOM]:
    for fill in scores.fills:
        cells = []
        for kind in ("deletion", "insertion"):
            own, random = (np.asarray(getattr(found[one], kind)[fill]) for one in (name, RANDOM))
            cells += [f"{own.mean():.3f}", "" if name == RANDOM else less(own, random)]
        print(f"| {name} | {fill} | {' | '.join(cells)} |")
