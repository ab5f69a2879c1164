"""Holes and shuffles: a small ViT and a small ResNet, trained alike on digits. `python benchmarks/holes.py [SEEDS]` prints a table.

The laboratory of `patchword learn` for several seeds: the same images in the same order for the same steps. Scored on all 360 test scans; each seed has
its own models, holes and shuffles. Intervals: t over the seeds, of the difference ViT - ResNet too.
"""

import statistics
import sys

from scipy.stats import t as student_t

from patchword.lessons.laboratory import Laboratory
from patchword.lessons.measures.holes import accuracy, dropped, in_pieces
from patchword.lessons.measures.order import without_positions

seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
table: dict[str, list[tuple[float, float, float]]] = {}
for seed in range(seeds):
    lab = Laboratory(seed)
    images, labels = lab.test.images, lab.test.labels
    damaged = {"whole": images}
    damaged |= {f"{share:.0%} blank": dropped(images, share, 2, seed) for share in (0.25, 0.5, 0.75)}
    damaged |= {f"{count} x {count} pieces": in_pieces(images, count, 1000 * seed) for count in (2, 4, 8)}
    bare = without_positions(lab.vit)
    for name, views in damaged.items():
        scores = tuple(accuracy(model, views, labels) for model in (lab.vit, lab.cnn, bare))
        table.setdefault(name, []).append(scores)  # type: ignore[arg-type]


def text(values: list[float]) -> str:
    half = student_t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return f"{100 * statistics.mean(values):.1f} ± {100 * half:.1f}"


print(f"| {seeds} seeds | ViT | ResNet | ViT - ResNet | ViT, positions removed |\n|---|---|---|---|---|")
for name, rows in table.items():
    vit, cnn, bare_scores = (list(column) for column in zip(*rows, strict=True))
    differences = [a - b for a, b in zip(vit, cnn, strict=True)]
    print(f"| {name} | {text(vit)} | {text(cnn)} | {text(differences)} | {text(bare_scores)} |")
