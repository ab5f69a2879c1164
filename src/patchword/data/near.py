"""Near duplicates: pairs of images that are nearly equal, within and across splits.

Copies that were compressed again, resized or cropped a little inflate the score like exact ones (`findings.duplicates`), but
no hash finds them. Without a model, images are compared by grey thumbnails (`retrieval.thumbs`), with one by its embeddings.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchword.data.check import CheckReport
from patchword.data.dataset import Dataset, Problem
from patchword.data.findings import ImageFacts
from patchword.errors import plural
from patchword.retrieval.nearest import Vectors, nearest
from patchword.retrieval.thumbs import SIDE, agreement, coarse

# Measured on photographs compressed with quality 30, at a third of the size, or without a strip of 5 % at two sides (more
# than nine in ten are found), and on pairs of different flowers (the highest agreement is 0.981).
LEAST_AGREEMENT = 0.985
# Pairs below this correlation of 16 x 16 pixels are not compared further.
_LEAST_COARSE = 0.7
# Of embeddings, no cosine means the same for every model. A copy is also far closer than other images: its distance is at most
# this share of that to a usual neighbour of the image. For a poorly trained model, re-encoded copies of flowers have 0.1 to
# 0.25, and other flowers at least 0.33.
LEAST_COSINE = 0.9
MOST_OF_DISTANCE = 0.25
# The usual neighbour is the eighth; in small data sets, where the eighth is unlike the image, the second or later.
_USUAL, _PER_RANK = (2, 8), 50
# Neighbours of each image that are compared, in each split.
_NEIGHBOURS = 5
LISTED = 5
THUMBS = "grey thumbnails, highest correlation over small crops"
EMBEDDINGS = "cosine of embeddings less their mean, far closer than other images"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two images of a data set and how nearly they are equal, at most 1."""

    one: ImageFacts
    other: ImageFacts
    score: float

    @property
    def across(self) -> bool:
        return self.one.split != self.other.split


@dataclass(frozen=True, kw_only=True)
class NearDuplicates:
    """pairs: highest score first, without exact copies. measure, threshold: what the score is, and the lowest that counts.

    compared: number of images. not_compared: readable images without a measure, such as those of one colour.
    """

    pairs: tuple[Pair, ...]
    measure: str
    threshold: float
    compared: int
    not_compared: int = 0


@dataclass(frozen=True, kw_only=True)
class NearReport(CheckReport):
    """A `CheckReport` with the near duplicates."""

    near: NearDuplicates = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        pairs = [
            {
                "files": [_name(self.dataset, look) for look in (pair.one, pair.other)],
                "splits": [pair.one.split, pair.other.split],
                "score": round(pair.score, 4),
            }
            for pair in self.near.pairs
        ]
        about = {"measure": self.near.measure, "threshold": self.near.threshold}
        found = {
            **about,
            "compared": self.near.compared,
            "not_compared": self.near.not_compared,
            "pairs": pairs,
        }
        return {**super().to_dict(), "near_duplicates": found}


def near_by_thumbs(looks: Sequence[ImageFacts]) -> NearDuplicates:
    """Compare the thumbnails of images that were checked with `thumbs`."""
    readable = [look for look in looks if not look.reason]
    with_thumb = [(look, look.thumb) for look in readable if look.thumb is not None]
    thumbs = np.stack([t for _, t in with_thumb]) if with_thumb else np.empty((0, SIDE, SIDE), np.uint8)
    vectors = coarse(thumbs)
    textured = np.flatnonzero(vectors.any(axis=1))
    chosen = [with_thumb[i][0] for i in textured]
    one, other, _ = _candidates(chosen, vectors[textured], _LEAST_COARSE)
    scores = agreement(thumbs[textured[one]], thumbs[textured[other]])
    return NearDuplicates(
        pairs=_pairs(chosen, one, other, scores, LEAST_AGREEMENT),
        measure=THUMBS,
        threshold=LEAST_AGREEMENT,
        compared=len(chosen),
        not_compared=len(readable) - len(chosen),
    )


def near_by_vectors(looks: Sequence[ImageFacts], vectors: Vectors, not_compared: int = 0) -> NearDuplicates:
    """Compare embeddings [N, D] of the images, in the order of `looks`.

    The mean is subtracted first: all embeddings of a model share a direction, which says nothing about an image. Of many
    copies of one image few or none are found, because its usual neighbours are then copies too.
    """
    centred = vectors - vectors.mean(axis=0) if len(vectors) else vectors
    one, other, scores = _candidates(looks, centred, LEAST_COSINE)
    usual = _usual_distance(looks, centred)
    close = np.sqrt(2 - 2 * scores) <= MOST_OF_DISTANCE * np.minimum(usual[one], usual[other])
    one, other, scores = one[close], other[close], scores[close]
    return NearDuplicates(
        pairs=_pairs(looks, one, other, scores, LEAST_COSINE),
        measure=EMBEDDINGS,
        threshold=LEAST_COSINE,
        compared=len(looks),
        not_compared=not_compared,
    )


def _usual_distance(looks: Sequence[ImageFacts], vectors: Vectors) -> NDArray[np.float64]:
    """The distance [N] of each vector, at length 1, to its usual neighbour, exact copies aside."""
    firsts = list({look.pixels_hash: i for i, look in reversed(list(enumerate(looks)))}.values())
    if len(firsts) < 3:
        return np.zeros(len(looks))
    rank = int(np.clip(len(firsts) // _PER_RANK, *_USUAL))
    furthest = nearest(vectors, vectors[firsts], rank + 1).scores[:, -1]
    usual: NDArray[np.float64] = np.sqrt(2 - 2 * furthest)
    return usual


def with_near_duplicates(report: CheckReport, near: NearDuplicates) -> NearReport:
    """The report with what was found as a warning (across splits) and a note (within)."""
    order = {"error": 0, "warning": 1, "note": 2}
    problems = sorted((*report.problems, *_problems(report.dataset, near)), key=lambda p: order[p.severity])
    plain = {name: getattr(report, name) for name in report.__dataclass_fields__}
    return NearReport(**{**plain, "problems": tuple(problems)}, near=near)


def _candidates(
    looks: Sequence[ImageFacts], vectors: Vectors, least: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Pairs of places in `looks` with their cosine: the nearest of each image in its own split, and in each other split.

    Of exact copies in a split only the first is compared, and exact copies across splits are no pair.
    """
    seen: set[tuple[str, bytes]] = set()
    places: dict[str, list[int]] = {}
    for i, look in enumerate(looks):
        if (look.split, look.pixels_hash) not in seen:
            seen.add((look.split, look.pixels_hash))
            places.setdefault(look.split, []).append(i)
    found: list[tuple[int, int, float]] = []
    for first, second in combinations_with_replacement(places, 2):
        # Each image of the smaller split, usually the evaluation images, is looked for in the larger.
        small, large = sorted((places[first], places[second]), key=len)
        rows, columns = np.array(small), np.array(large)
        near = nearest(vectors[rows], vectors[columns], _NEIGHBOURS + (first == second))
        for place, indices, scores in zip(small, near.indices, near.scores, strict=True):
            for other, score in zip(columns[indices], scores, strict=True):
                if score >= least and looks[place].pixels_hash != looks[other].pixels_hash:
                    found.append((*sorted((place, int(other))), float(score)))  # type: ignore[arg-type]
    unique = sorted({(one, other): score for one, other, score in found}.items())
    one, other = (np.array([pair[side] for pair, _ in unique], np.int64) for side in (0, 1))
    return one, other, np.array([score for _, score in unique])


def _pairs(
    looks: Sequence[ImageFacts],
    one: NDArray[np.int64],
    other: NDArray[np.int64],
    scores: NDArray[Any],
    least: float,
) -> tuple[Pair, ...]:
    found = [
        Pair(one=looks[a], other=looks[b], score=float(score))
        for a, b, score in zip(one, other, scores, strict=True)
        if score >= least
    ]
    return tuple(sorted(found, key=lambda pair: -pair.score))


def _problems(dataset: Dataset, near: NearDuplicates) -> list[Problem]:
    by = f"{near.measure}, at least {near.threshold}"
    across = [pair for pair in near.pairs if pair.across]
    within = [pair for pair in near.pairs if not pair.across]
    problems = []
    if across:
        message = (
            f"{plural(len(across), 'pair')} of near duplicates across splits ({by}): "
            f"{_listed(dataset, across)}: the score will be too high"
        )
        fix = (
            "look at them, and keep each pair in one split"
            if dataset.split_seed is None
            else "look at them, and remove the copies, or keep them together with a group column"
        )
        problems.append(Problem(severity="warning", message=message, fix=fix))
    if within:
        message = f"{plural(len(within), 'pair')} of near duplicates within a split ({by}): {_listed(dataset, within)}"
        problems.append(Problem(severity="note", message=message))
    if near.compared and not near.pairs:
        message = f"no near duplicates among {plural(near.compared, 'image')} ({by})"
        problems.append(Problem(severity="note", message=message))
    if near.not_compared:
        why = ": a single colour, or a side below 32 pixels" if near.measure == THUMBS else ""
        message = f"{plural(near.not_compared, 'image')} not compared for near duplicates{why}"
        problems.append(Problem(severity="note", message=message))
    return problems


def _listed(dataset: Dataset, pairs: Sequence[Pair]) -> str:
    shown = "; ".join(
        f"{_labelled(dataset, p.one)} ≈ {_labelled(dataset, p.other)} {p.score:.3f}" for p in pairs[:LISTED]
    )
    return shown + (f"; and {len(pairs) - LISTED} more" if len(pairs) > LISTED else "")


def _labelled(dataset: Dataset, look: ImageFacts) -> str:
    name = _name(dataset, look)
    return name if name.startswith(f"{look.split}/") or len(dataset.splits) == 1 else f"{name} ({look.split})"


def _name(dataset: Dataset, look: ImageFacts) -> str:
    return dataset.splits[look.split].names[look.index]
