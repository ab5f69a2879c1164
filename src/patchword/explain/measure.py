"""Measure how faithful maps are on a sample of the images, and choose the most faithful method."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from patchword.data.loader import Named
from patchword.errors import plural
from patchword.explain.faithfulness import BASELINES, CENTRE, RANDOM, Curves, curves_of, joined
from patchword.explain.methods.base import Job, Method
from patchword.explain.methods.table import METHODS, maps_of
from patchword.explain.sample import chosen
from patchword.explain.sanity import rank_correlation, shuffled
from patchword.explain.settings import MethodSettings, ScoreSettings
from patchword.explain.subject import Subject
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
    with torch.no_grad():
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
    curves = _curves(subject, sample, cheap, settings, first)
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
        why += f"; {' and '.join(dear)} cost more and were not tried"
    return [best], why


def _is_of(label: str, method: Method) -> bool:
    return label == method.name or label.startswith(f"{method.name},")


def _curves(
    subject: Subject,
    sample: list[Tensor],
    methods: Sequence[Method],
    settings: MethodSettings,
    scores: ScoreSettings,
) -> dict[str, Curves]:
    """Curves of all maps by label, and of the baselines."""
    parts = []
    for index, image in enumerate(sample):
        maps, target = _maps(subject, subject.vit, image, methods, settings)
        several = subject.task == "multi"
        parts.append(
            curves_of(
                subject.vit,
                image,
                {label: values[0] for label, values in maps.items()},
                None if target is None else target[0],
                scores,
                several=several,
                index=index,
            )
        )
    return joined(parts)


def _faithful(
    subject: Subject,
    sample: list[Tensor],
    methods: Sequence[Method],
    settings: MethodSettings,
    scores: ScoreSettings,
) -> dict[str, Faithful]:
    curves = _curves(subject, sample, methods, settings, scores)
    other = shuffled(subject.vit, scores.seed)
    sizes: dict[str, list[float]] = {}
    for image in sample:
        maps, target = _maps(subject, subject.vit, image, methods, settings)
        others, _ = _maps(subject, other, image, methods, settings, target)
        for label, values in maps.items():
            sizes.setdefault(label, []).append(abs(float(rank_correlation(values, others[label])[0])))
    return {
        label: Faithful(
            curves=of,
            random=curves[RANDOM],
            centre=curves[CENTRE],
            shuffled=sum(sizes[label]) / len(sizes[label]),
        )
        for label, of in curves.items()
        if label not in BASELINES
    }


def _maps(
    subject: Subject,
    vit: ViT,
    image: Tensor,
    methods: Sequence[Method],
    settings: MethodSettings,
    target: Tensor | None = None,
) -> tuple[dict[str, Tensor], Tensor | None]:
    """Maps [1, h, w] by label, and the class they explain: that of the real model, also for shuffled weights."""
    target = subject.targets(vit(image)) if target is None else target
    job = Job(vit=vit, images=image, classes=target, settings=settings)
    found = {maps.label: maps.values for method in methods for maps in maps_of(method, job)}
    return found, target
