"""Fit a probe to frozen features of a model and score it: `patchword evaluate --probe`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from patchword import machine
from patchword.data.contents import hashes_of
from patchword.data.dataset import Dataset
from patchword.data.loader import Failure
from patchword.inference.evaluate import Evaluation, EvaluationRequest
from patchword.inference.model import Model
from patchword.inference.overlap import Overlap
from patchword.inference.probe import (
    ProbeRequest,
    Setup,
    scored_probe,
    set_up,
    skipped_note,
    without_fitted,
)
from patchword.probes.cache import HASH_BYTES, FeatureCache
from patchword.probes.features import Features, features
from patchword.probes.fit import Fitted, ProbeReport, feature_pair, fit_probe, require_classes
from patchword.probes.kinds import TRAINED
from patchword.probes.parts import Part, part_for, require_one_size
from patchword.training.probing.attentive import SOURCE, AttentiveFit, fit_attentive, predict_attentive
from patchword.training.probing.protocols import PROTOCOLS, LinearPlan, linear_plan
from patchword.training.probing.tokens import Tokens, memory_for_tokens
from patchword.training.probing.views import ViewsFit, fit_on_views

# Without --seed.
SEED = 0


@dataclass(frozen=True, kw_only=True)
class _Fit:
    """A fitted probe and what is known of its images.

    indices: the scored images, in the split. skipped: unreadable training images (name, reason). labels: of those it was fitted to.
    """

    fitted: Fitted
    indices: Sequence[int]
    failures: tuple[Failure, ...]
    skipped: Sequence[tuple[str, str]]
    overlap: Overlap | None
    labels: NDArray[np.int64]
    cached: int
    seconds: float
    notes: tuple[str, ...] = ()


def evaluate_probe(
    model: Model, dataset: Dataset, probe: ProbeRequest, request: EvaluationRequest | None = None
) -> Evaluation:
    """Fit a probe to the training split and score it on another one. The model's own head, if any, is ignored.

    Images of the scored split that the model or the probe was trained on are skipped and counted, as in `evaluate`.
    The model's weights are unchanged afterwards.
    Raises: DataError if there is no training split, if it has one class, or if no image is left to score; SettingsError.
    """
    request = request or EvaluationRequest()
    setup = set_up(model, dataset, request)
    part = part_for(probe.kind, model.config)
    cache = FeatureCache() if probe.cache else None
    workers = machine.granted_threads()
    with _threads(workers):
        if probe.kind == "attentive":
            found = _attentive(setup, probe, request, cache, workers)
        elif probe.kind in PROTOCOLS:
            found = _on_views(setup, probe, request, cache, part, workers)
        else:
            found = _on_features(setup, probe, request, cache, part, workers)
    report = _report(setup, probe, part, found, cache)
    notes = [*found.notes, *(cache.notes if cache else ()), *skipped_note(found.skipped)]
    if not found.fitted.converged:
        notes.append("the linear probe did not converge: more iterations could change its score slightly")
    return scored_probe(
        setup,
        report,
        indices=found.indices,
        logits=found.fitted.logits,
        failures=found.failures,
        overlap=found.overlap,
        notes=notes,
        fitted_labels=found.labels,
    )


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Compute with so many threads: on a busy machine, one too many waits for another process in every operation."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _report(
    setup: Setup, probe: ProbeRequest, part: Part, found: _Fit, cache: FeatureCache | None
) -> ProbeReport:
    vit, fitted = setup.model.vit, found.fitted
    return ProbeReport(
        kind=probe.kind,
        name=fitted.name,
        source=fitted.source,
        feature=part.text(vit),
        layer=part.layer(vit),
        pooling=part.pooling(vit),
        norm=part.norm(vit),
        images=len(found.labels),
        unreadable=tuple({"name": name, "reason": reason} for name, reason in found.skipped),
        cached=found.cached,
        computed_of=len(setup.dataset.training) + len(setup.split),
        cache=str(cache.folder) if cache else "",
        seconds=found.seconds,
        settings=fitted.settings,
        scaled=(*((part.note,) if part.note else ()), *fitted.scaled),
        parameters=fitted.parameters,
        seed=(SEED if probe.seed is None else probe.seed) if probe.kind in TRAINED else None,
        k=fitted.k,
        penalty=fitted.penalty,
        converged=fitted.converged,
    )


def _on_features(
    setup: Setup,
    probe: ProbeRequest,
    request: EvaluationRequest,
    cache: FeatureCache | None,
    part: Part,
    workers: int,
) -> _Fit:
    """Probes on one vector for each image, computed once."""
    train, scored = feature_pair(
        setup.model.vit,
        setup.preprocess,
        replace(setup.dataset, splits={"train": setup.dataset.training, "val": setup.split}),
        workers=workers,
        device=setup.model.device,
        cache=cache,
        batch_size=request.batch_size,
        progress=request.progress,
        part=part,
    )
    rest, overlap = without_fitted(setup, train.contents, scored.contents)
    left = _some(scored, rest)
    return _Fit(
        fitted=fit_probe(probe.kind, train, left, len(setup.dataset.classes), k=probe.k),
        indices=left.indices.tolist(),
        failures=scored.failures,
        skipped=_named(train.failures),
        overlap=overlap,
        labels=train.labels,
        cached=train.cached + scored.cached,
        seconds=train.seconds + scored.seconds,
    )


def _some(scored: Features, rows: list[int]) -> Features:
    return replace(
        scored,
        values=scored.values[rows],
        labels=scored.labels[rows],
        indices=scored.indices[rows],
        contents=tuple(scored.contents[i] for i in rows),
    )


def _attentive(
    setup: Setup, probe: ProbeRequest, request: EvaluationRequest, cache: FeatureCache | None, workers: int
) -> _Fit:
    model, limit, found = setup.model, memory_for_tokens(), []
    for split in (setup.dataset.training, setup.split):
        tokens = Tokens(
            model.vit,
            setup.preprocess,
            split,
            workers=workers,
            device=model.device,
            cache=cache,
            batch_size=request.batch_size,
            progress=request.progress,
            memory=limit,
        )
        limit -= tokens.needed if tokens.held else 0
        if tokens.note and probe.say is not None:
            probe.say(f"note: {tokens.note}")
        found.append(tokens)
    train, scored = found
    require_classes(train.labels)
    rest, overlap = without_fitted(setup, train.contents, scored.contents)
    fit = fit_attentive(
        train,
        len(setup.dataset.classes),
        model.config.attention.num_heads,
        seed=SEED if probe.seed is None else probe.seed,
        epochs=probe.epochs,
        progress=request.progress,
    )
    logits = predict_attentive(fit.probe, scored, train)[rest]
    return _Fit(
        fitted=_fitted_attentive(fit, logits),
        indices=scored.indices[rest].tolist(),
        failures=scored.failures,
        skipped=_named(train.failures),
        overlap=overlap,
        labels=train.labels,
        cached=train.cached + scored.cached,
        seconds=train.seconds + scored.seconds + fit.seconds,
        notes=tuple(t.note for t in found if t.note),
    )


def _fitted_attentive(fit: AttentiveFit, logits: NDArray[np.float32]) -> Fitted:
    return Fitted(
        logits=logits,
        name="attentive",
        source=SOURCE,
        settings={
            "optimiser": "adamw",
            "lr": fit.lr,
            "weight_decay": fit.weight_decay,
            "chosen": fit.chosen_text,
            "batch": fit.batch,
            "epochs": fit.epochs,
            "heads": fit.probe.heads,
            "tokens": "standardised by the mean and deviation of the training images",
        },
        parameters={name: p.numel() for name, p in fit.probe.named_parameters()},
    )


def _on_views(
    setup: Setup,
    probe: ProbeRequest,
    request: EvaluationRequest,
    cache: FeatureCache | None,
    part: Part,
    workers: int,
) -> _Fit:
    """The published linear probes, which are fitted to features of augmented views."""
    model, training = setup.model, setup.dataset.training
    require_one_size(setup.preprocess, probe.kind)
    scored = features(
        model.vit,
        setup.preprocess,
        setup.split,
        workers=workers,
        device=model.device,
        cache=cache,
        batch_size=request.batch_size,
        part=part,
    )
    contents = {content for content in hashes_of(training, size=HASH_BYTES) if content is not None}
    rest, overlap = without_fitted(setup, contents, scored.contents)
    plan = linear_plan(PROTOCOLS[probe.kind], len(training), probe.epochs)
    fit = fit_on_views(
        model.vit,
        setup.preprocess,
        training,
        len(setup.dataset.classes),
        plan,
        part,
        seed=SEED if probe.seed is None else probe.seed,
        workers=workers,
        device=model.device,
        batch_size=request.batch_size,
        say=probe.say,
        progress=request.progress,
    )
    return _Fit(
        fitted=_fitted_linear(plan, fit, scored.values[rest] @ fit.weight.T + fit.bias),
        indices=scored.indices[rest].tolist(),
        failures=scored.failures,
        skipped=fit.skipped,
        overlap=overlap,
        labels=training.labels[~np.isin(training.names, [name for name, _ in fit.skipped])],
        cached=scored.cached,
        seconds=scored.seconds + fit.seconds,
    )


def _fitted_linear(plan: LinearPlan, fit: ViewsFit, logits: NDArray[np.float32]) -> Fitted:
    protocol = plan.protocol
    return Fitted(
        logits=logits,
        name=plan.name,
        source=protocol.source,
        settings={
            "optimiser": protocol.method,
            "lr": plan.lr,
            "weight_decay": 0.0,
            "batch": plan.batch,
            "epochs": plan.schedule.epochs,
            "warmup_epochs": plan.schedule.warmup_epochs,
            "steps": fit.steps,
            "last_loss": fit.losses[-1],
            "head": "BatchNorm without learned factors, then linear" if protocol.batch_norm else "linear",
            "views": "crops of 0.08 to 1 of the area, mirrored half of the time",
        },
        scaled=plan.scaled,
        parameters={"weight": fit.weight.size, "bias": fit.bias.size},
    )


def _named(failures: Sequence[Failure]) -> list[tuple[str, str]]:
    return [(f.name, f.reason) for f in failures]
