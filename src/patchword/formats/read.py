"""Read a file in any layout: its card, its plan, and the model's tensors. Strict, mapped, with a report."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from patchword.containers.stored import Stored, open_stored, tensor_of
from patchword.errors import (
    CheckpointError,
    KeyMismatch,
    MissingFact,
    SettingsError,
    ShapeMismatch,
    UnknownLayout,
    plural,
)
from patchword.formats.checkpoint import Checkpoint, unwrap, with_linear_head
from patchword.formats.facts import Facts, Options
from patchword.formats.layout import Description, Layout, Rule
from patchword.formats.layouts import Refused
from patchword.formats.missing import lost_tensor, mostly_there
from patchword.formats.own import cut, with_head_named, without_metrics
from patchword.formats.own_options import check_names
from patchword.formats.plan import Dropped, Plan, make_plan
from patchword.formats.recognise import recognised
from patchword.formats.report import LoadReport
from patchword.hub.names import is_hub, parse
from patchword.hub.published import Release, class_names, release_of_file, release_of_hub
from patchword.model.resample_rules import resampled
from patchword.model.shapes import DECODER
from patchword.weights.card import ModelCard, Provenance

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A matched foreign file, before any tensor is read."""

    checkpoint: Checkpoint
    layout: Layout
    description: Description
    plan: Plan
    card: ModelCard
    report: LoadReport


def open_foreign(path: Path, options: Options | None = None, source: str = "") -> Opened:
    """Recognise, describe and match the file from names, shapes and JSON only, without torch.

    source: a permanent name of a downloaded file ("hf://org/name@<commit>").
    Raises: CheckpointError for anything that is wrong with the file.
    """
    return resolve(open_stored(path), options or Options(), source)


def resolve(stored: Stored, options: Options, source: str = "") -> Opened:
    """As `open_foreign`, for a file that is already listed."""
    checkpoint = cut(unwrap(stored), options.below, options.drop)
    if options.head is not None:
        checkpoint = with_linear_head(checkpoint, open_stored(options.head))
    checkpoint = without_metrics(checkpoint)
    try:
        return _understood(checkpoint, stored, options, source)
    except Refused:
        raise
    except UnknownLayout as error:
        named = with_head_named(checkpoint) if options.head is None else None
        if named is None:
            raise
        try:
            return _understood(named, stored, options, source)
        except UnknownLayout:
            raise error from None


def _understood(checkpoint: Checkpoint, stored: Stored, options: Options, source: str) -> Opened:
    from patchword.model.cost import cost

    checkpoint, layout, evidence = recognised(checkpoint)
    release = release_for(stored, checkpoint, source)
    facts = Facts(checkpoint.name, options, release)
    try:
        description = _described(layout, checkpoint, facts)
        facts.check_all_used()
        plan = make_plan(checkpoint, layout, description, allow_partial=options.allow_partial)
    except CheckpointError as error:
        raise _with_what_is_lost(error, checkpoint) from error
    classes = options.classes
    if classes is not None:
        check_names(classes, description.config.head.num_classes, checkpoint.name)
    else:
        classes = description.classes or _published_classes(release, description)
    untrained = description.untrained
    card = ModelCard(
        config=description.config,
        preprocess=description.preprocess,
        classes=classes,
        untrained=untrained,
        provenance=_provenance(stored, source, release),
        decoder=description.decoder,
    )
    report = LoadReport(
        path=checkpoint.path,
        layout=layout.title,
        evidence=evidence,
        facts=tuple(facts.found),
        tensors=plan.matched,
        parameters=cost(description.config).parameters,
        filled=plan.filled,
        resampled=resampled(card.config, card.preprocess.common_size),
        dropped=(*(Dropped(names=n, reason=r) for r, n in checkpoint.removed), *plan.dropped),
        new=plan.missing,
        notes=(
            *_notes(checkpoint, plan),
            *checkpoint.notes,
            *facts.inferred(),
            *_doubt(layout, checkpoint, release, evidence),
            *description.notes,
        ),
    )
    return Opened(
        checkpoint=checkpoint, layout=layout, description=description, plan=plan, card=card, report=report
    )


def release_for(stored: Stored, checkpoint: Checkpoint, source: str) -> Release | None:
    """The published release that this file copies: by its hub name, or by its exact file name.

    A file with that name but smaller than the release is a different model.
    """
    if is_hub(source):
        hub = parse(source)
        return release_of_hub(hub.repo, hub.file)
    release = release_of_file(stored.files[0].name) if len(stored.files) == 1 else None
    if release is None or release.model.parameters is None:
        return None
    size = sum(math.prod(entry.shape) for entry in checkpoint.tensors.values())
    return release if size >= 0.95 * release.model.parameters else None


def _published_classes(release: Release | None, description: Description) -> tuple[str, ...]:
    """The release's class names, if the head has as many outputs."""
    known = None if release is None else release.classes
    if known is None or known.names is None or known.count != description.config.head.num_classes:
        return ()
    return class_names(known.names)


def _provenance(stored: Stored, source: str, release: Release | None) -> Provenance:
    licence = "" if release is None else release.licence.weights or ""
    given = stored.configs.get("config.json", {}).get("pretrained_cfg", {})
    if not licence and isinstance(given, dict) and isinstance(given.get("license"), str):
        licence = given["license"]
    name = source or (stored.files[0].name if len(stored.files) == 1 else stored.path.name)
    return Provenance(source=name, licence=licence)


def _described(layout: Layout, checkpoint: Checkpoint, facts: Facts) -> Description:
    """Add the file's name to the error if its configs and the options cannot form a model."""
    try:
        return layout.describe(checkpoint, facts)
    except SettingsError as error:
        raise CheckpointError(f"{checkpoint.name}: {error.message}", error.fix) from error


def _with_what_is_lost(error: CheckpointError, checkpoint: Checkpoint) -> CheckpointError:
    """Add the missing tensor to the message if it may explain leftover or undescribable tensors."""
    if type(error) not in (UnknownLayout, ShapeMismatch, MissingFact, CheckpointError):
        return error
    if (lost := lost_tensor(checkpoint.tensors)) is not None:
        kind = KeyMismatch if isinstance(error, MissingFact) else type(error)
        return kind(f"{error.message}; it lacks {lost}", f"use the complete file, with {lost}")
    if isinstance(error, MissingFact) and (absent := mostly_there(checkpoint.tensors)):
        fix = f"{error.fix}; use the complete file if one of those is missing"
        message = f"{error.message}; most such files also have {', '.join(absent)}"
        return MissingFact(message, fix, error.fact)
    return error


def read_tensors(opened: Opened, *, decoder: bool = True) -> dict[str, "Tensor"]:
    """The model's tensors that the file fills, in the file's dtype; mapped if stored as the model needs them.

    decoder: also those of a masked autoencoder's decoder.
    """
    found: dict[str, Tensor] = {}
    for rule in opened.plan.rules:
        if not decoder and rule.ours and rule.ours[0].startswith(DECODER):
            continue
        found |= zip(rule.ours, read_rule(rule, opened.checkpoint, opened.plan.shapes), strict=True)
    return found


def read_rule(
    rule: Rule, checkpoint: Checkpoint, shapes: Mapping[str, tuple[int, ...]]
) -> Sequence["Tensor"]:
    """The model's tensors of one rule. Raises: CheckpointError that names the file's tensor."""
    # Read what is copied anyway into fresh memory: if it were mapped too, it would be in memory twice.
    theirs = [tensor_of(checkpoint.tensors[name], fresh=not rule.op.views) for name in rule.theirs]
    try:
        return rule.op.read(theirs, [shapes[name] for name in rule.ours])
    except CheckpointError as error:  # an operation knows neither the file nor the block
        error.message = f"{checkpoint.name}: {rule.theirs[-1]}: {error.message}"
        raise


def _doubt(layout: Layout, checkpoint: Checkpoint, release: Release | None, evidence: str) -> list[str]:
    """What else a file may be if only its tensors identify it."""
    named = checkpoint.path.name.lower().startswith(layout.published_names or ("\0",))
    wrapped = checkpoint.wrapper.split(":")[0] in layout.own_wrappers
    if not layout.doubt or release is not None or named or wrapped or checkpoint.config_json:
        return []
    return [f"identified as {layout.title} by its tensors ({evidence}); {layout.doubt}"]


def _notes(checkpoint: Checkpoint, plan: Plan) -> list[str]:
    notes = [f"taken from {checkpoint.wrapper}"] if checkpoint.wrapper else []
    if plan.rewritten_for:
        first, *others = plan.rewritten_for
        more = f" and {len(others)} more" if others else ""
        notes.append(f"checked but not needed: {first}{more}")
    unused = [left for left in checkpoint.left if left.tensors]
    if unused:
        notes.append(
            "left in the file: "
            + ", ".join(f"{left.what} ({plural(left.tensors, 'tensor')})" for left in unused)
        )
    return notes
