"""Measure how faithful maps are on a sample of the images, and choose the most faithful method."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from patchword import machine
from patchword.data.loader import Named
from patchword.data.pool import in_order
from patchword.errors import plural
from patchword.explaining.faithfulness import BASELINES, CENTRE, RANDOM, Curves, curves_of, joined
from patchword.explaining.methods.base import Job, Method
from patchword.explaining.methods.table import METHODS, maps_of
from patchword.explaining.sample import chosen
from patchword.explaining.sanity import rank_correlation, shuffled
from patchword.explaining.settings import MethodSettings, ScoreSettings
from patchword.explaining.subject import Subject
from patchword.model.cost import cost
from patchword.model.vit import ViT

# Of a candidate for the default method, per image: ViT-Ti/16 takes 2.5e9 for one pass.
DEAREST_FLOPS = 1e11
# Without a measurement, in this order.
UNMEASURED = ("relevance", "rollout")


@dataclass(frozen=True, kw_only=True)
class Faithful:
    """How a map did, with the two orders of patches that need no model. shuffled: mean over images of the size of the rank correlation
    with the map of the same model with shuffled weights; near 0 for a map that depends on them.
    """

    curves: Curves
    random: Curves
    centre: Curves
    shuffled: float

    def numbers(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "map": self.curves.numbers(),
            RANDOM: self.random.numbers(),
            CENTRE: self.centre.numbers(),
            "gain": self.curves.gain,
            "shuffled_weights": self.shuffled,
        }


@dataclass(frozen=True, kw_only=True)
class Measured:
    """methods: given, or the chosen one. why: how it was chosen, "" if given. images: how many were measured."""

    methods: tuple[Method, ...]
    faithfulness: Mapping[str, Faithful]
    images: int
    why: str = ""


def measure(
    subject: Subject,
    sources: Sequence[Named],
    methods: Sequence[Method],
    settings: MethodSettings,
    scores: ScoreSettings,
    **reading: Any,
) -> Measured:
    """Measure the methods on a sample of the sources; without methods, all candidates first, to choose one.

    reading: of `Subject.inputs`. A model of numbers has no probability that could fall, so it is not measured.
    """
    sample: list[Tensor] = []
    if scores.images and subject.task != "number":
        sample = list(subject.inputs(chosen(sources, scores.images, scores.seed), **reading))
    why = ""
    if not methods:
        methods, why = _choice(subject, sample, settings, scores)
    tested = [method for method in methods if method.scored]
    found = _faithful(subject, sample, tested, settings, scores) if sample and tested else {}
    return Measured(methods=tuple(methods), faithfulness=found, images=len(sample) if found else 0, why=why)


def _choice(
    subject: Subject, sample: list[Tensor], settings: MethodSettings, scores: ScoreSettings
) -> tuple[list[Method], str]:
    """The candidate with the largest gain. Measured with the first fill only: the others hardly change the order."""
    candidates = subject.candidates()
    if not sample:
        names = [method.name for method in candidates]
        best = next((METHODS[name] for name in UNMEASURED if name in names), candidates[0])
        reason = "the images could not be read" if scores.images else "faithfulness is not measured"
        if subject.task == "number":
            reason = "faithfulness is not measured for a model of numbers"
        return [best], f"{best.name} is the default where {reason}"
    config = subject.model.config
    flops = cost(config).flops
    cheap = [m for m in candidates if m.passes(config, settings) * flops <= DEAREST_FLOPS] or candidates
    dear = [m.name for m in candidates if m not in cheap]
    first = replace(scores, fills=scores.fills[:1])
    curves, _ = _examined(subject, sample, cheap, settings, first)
    # One label per method, because no layers or heads are asked for without a method.
    gains = {m.name: next(c.gain for label, c in curves.items() if _is_of(label, m)) for m in cheap}
    best = max(cheap, key=lambda method: gains[method.name])
    ranked = sorted(gains, key=lambda name: -gains[name])
    listed = ", ".join(f"{name} {gains[name]:.2f}" for name in ranked)
    why = (
        f"{best.name} has the highest insertion less deletion of {len(cheap)} methods on {plural(len(sample), 'image')} "
        f"({listed}; random order {curves[RANDOM].gain:.2f}, centre first {curves[CENTRE].gain:.2f})"
    )
    if dear:
        why += f"; {', '.join(dear)} cost more and were not tried"
    return [best], why


def _is_of(label: str, method: Method) -> bool:
    return label == method.name or label.startswith(f"{method.name},")


def _faithful(
    subject: Subject,
    sample: list[Tensor],
    methods: Sequence[Method],
    settings: MethodSettings,
    scores: ScoreSettings,
) -> dict[str, Faithful]:
    other = shuffled(subject.vit, scores.seed)
    curves, sizes = _examined(subject, sample, methods, settings, scores, other)
    return {
        label: Faithful(curves=of, random=curves[RANDOM], centre=curves[CENTRE], shuffled=sizes[label])
        for label, of in curves.items()
        if label not in BASELINES
    }


Looked = tuple[dict[str, Curves], dict[str, float]]


def _examined(
    subject: Subject,
    sample: list[Tensor],
    methods: Sequence[Method],
    settings: MethodSettings,
    scores: ScoreSettings,
    other: ViT | None = None,
) -> tuple[dict[str, Curves], dict[str, float]]:
    """Curves of all maps by label, and of the baselines; with `other`, also the mean size of each map's correlation with its map."""

    def look(numbered: tuple[int, Tensor]) -> Looked:
        index, image = numbered
        with torch.no_grad():
            return _look(subject, image, index, methods, settings, scores, other)

    parts = list(_spread(look, list(enumerate(sample)), subject.model.device))
    sizes = {
        label: sum(found[label] for _, found in parts) / len(parts)
        for label in (parts[0][1] if parts else {})
    }
    return joined([curves for curves, _ in parts]), sizes


def _look(
    subject: Subject,
    image: Tensor,
    index: int,
    methods: Sequence[Method],
    settings: MethodSettings,
    scores: ScoreSettings,
    other: ViT | None,
) -> Looked:
    """One image. The class is that of the real model, also for shuffled weights."""
    target = subject.targets(subject.vit(image))

    def maps(vit: ViT) -> dict[str, Tensor]:
        job = Job(vit=vit, images=image, classes=target, settings=settings)
        return {each.label: each.values for method in methods for each in maps_of(method, job)}

    found = maps(subject.vit)
    curves = curves_of(
        subject.vit,
        image,
        {label: values[0] for label, values in found.items()},
        None if target is None else target[0],
        scores,
        several=subject.task == "multi",
        index=index,
    )
    others = {} if other is None else maps(other)
    sizes = {label: abs(float(rank_correlation(found[label], others[label])[0])) for label in others}
    return curves, sizes


def _spread(
    work: Callable[[tuple[int, Tensor]], Looked], items: list[tuple[int, Tensor]], device: torch.device
) -> Iterator[Looked]:
    """One thread per image if there are several, as in `inference.engine`; a GPU takes one image after the other."""
    granted = machine.granted_threads()
    workers = min(granted, len(items)) if device.type == "cpu" else 1
    before = torch.get_num_threads()
    torch.set_num_threads(granted if workers <= 1 else 1)
    try:
        yield from map(work, items) if workers <= 1 else in_order(work, items, workers, workers)
    finally:
        torch.set_num_threads(before)
