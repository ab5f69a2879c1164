"""Match a file's tensors to the model's, strictly, by names and shapes alone.

Every tensor of the file matches a rule or is dropped with a reason; every tensor of the model
is filled, or the unfilled share is reported. This reads no tensor and does not import torch.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from patchword.errors import KeyMismatch, ShapeMismatch, UnknownLayout, near_text
from patchword.formats.checkpoint import Checkpoint
from patchword.formats.layout import Description, Ignored, Layout, Rule
from patchword.model.shapes import DECODER, Shapes, decoder_shapes, shapes

HEADS = ("head.", "head_distillation.", "projection.")


@dataclass(frozen=True, kw_only=True)
class Dropped:
    names: tuple[str, ...]
    reason: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """rules: those with all their tensors present. missing: tensors of the model that nothing fills."""

    rules: tuple[Rule, ...]
    dropped: tuple[Dropped, ...]
    missing: tuple[str, ...]
    shapes: Shapes

    @property
    def matched(self) -> int:
        """Tensors of the file that are used."""
        return sum(len(rule.theirs) for rule in self.rules if rule.ours)

    @property
    def of_decoder(self) -> tuple[str, ...]:
        """Tensors of the file that fill a masked autoencoder's decoder."""
        used = [rule for rule in self.rules if rule.ours and rule.ours[0].startswith(DECODER)]
        return tuple(name for rule in used for name in rule.theirs)

    @property
    def rewritten_for(self) -> tuple[str, ...]:
        """Tensors of the file that repeat what the config states; neither used nor dropped."""
        dropped = {name for part in self.dropped for name in part.names}
        return tuple(n for rule in self.rules if not rule.ours for n in rule.theirs if n not in dropped)

    @property
    def filled(self) -> float:
        """Share of the backbone's parameters that the file fills, without heads and decoder."""
        aside = (*HEADS, DECODER)
        whole = {name: math.prod(s) for name, s in self.shapes.items() if not name.startswith(aside)}
        lost = sum(whole.get(name, 0) for name in self.missing)
        return 1 - lost / max(sum(whole.values()), 1)


def make_plan(
    checkpoint: Checkpoint, layout: Layout, description: Description, *, allow_partial: bool = False
) -> Plan:
    """Raises: UnknownLayout for a tensor that matches no rule, KeyMismatch for a missing one, ShapeMismatch."""
    expected = shapes(description.config)
    if description.decoder is not None:
        expected |= decoder_shapes(description.decoder, description.config)
    return plan_of(
        checkpoint,
        layout.title,
        layout.rules(description),
        expected,
        untrained=description.untrained,
        decoder_pattern=layout.decoder_pattern,
        allow_partial=allow_partial,
    )


def plan_of(
    checkpoint: Checkpoint,
    title: str,
    parts: Iterable[Rule | Ignored],
    expected: Shapes,
    *,
    untrained: Iterable[str] = (),
    decoder_pattern: str = "",
    allow_partial: bool = False,
    can_be_partial: bool = True,
) -> Plan:
    """As `make_plan`, for any model. title: of the layout. parts: its rules. expected: the model's tensors.
    can_be_partial: whether its loader has --allow-partial.
    """
    rules, drops = _sorted(parts)
    present = [rule for rule in rules if checkpoint.has(*rule.theirs)]
    incomplete = _incomplete_groups(checkpoint, rules, present)
    if incomplete and not allow_partial:
        raise KeyMismatch(f"{checkpoint.name}: {incomplete[0].reason}", "use the complete file")
    drops = [*drops, *incomplete]
    _check_names(checkpoint, title, present, rules, drops)
    for rule in present:
        _check_shapes(checkpoint, rule, [expected[name] for name in rule.ours])
    filled = {name for rule in present for name in rule.ours}
    missing = tuple(name for name in expected if name not in filled)
    new = tuple(f"{part}." for part in untrained)
    backbone = [name for name in missing if not name.startswith(new or ("\0",))]
    of_decoder = [name for name in backbone if name.startswith(DECODER) and decoder_pattern]
    wanted = {ours: ", ".join(rule.theirs) for rule in rules for ours in rule.ours}
    if of_decoder and (allow_partial or of_decoder == backbone):
        raise KeyMismatch(
            f"{checkpoint.name}: its decoder lacks {_first_three([wanted.get(name, name) for name in of_decoder])}",
            f"use the complete file; for the encoder alone, pass --drop '{decoder_pattern}'",
        )
    if backbone and not allow_partial:
        lacks = _first_three([wanted.get(name, name) for name in backbone])
        raise KeyMismatch(
            f"{checkpoint.name}: read as {title}, it lacks {lacks}"
            f"{near_text(backbone[0], checkpoint.tensors)}",
            "use the complete file"
            + (
                "; to train it further, pass --allow-partial, which initialises missing tensors randomly"
                * can_be_partial
            ),
        )
    return Plan(rules=tuple(present), dropped=_dropped(checkpoint, drops), missing=missing, shapes=expected)


def _first_three(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _sorted(parts: Iterable[Rule | Ignored]) -> tuple[list[Rule], list[Ignored]]:
    all_parts = list(parts)
    return [p for p in all_parts if isinstance(p, Rule)], [p for p in all_parts if isinstance(p, Ignored)]


def _incomplete_groups(checkpoint: Checkpoint, rules: list[Rule], present: list[Rule]) -> list[Ignored]:
    """Tensors of rules that need several, of which the file lacks some; alone they fill nothing."""
    used = {name for rule in present for name in rule.theirs}
    found = []
    for rule in rules:
        there = [name for name in rule.theirs if checkpoint.has(name) and name not in used]
        if there and rule not in present:
            lost = next(name for name in rule.theirs if not checkpoint.has(name))
            reason = f"it has {there[0]} but lacks {lost}"
            found += [Ignored(pattern=re.escape(name), reason=reason) for name in there]
    return found


def _check_names(
    checkpoint: Checkpoint, title: str, present: list[Rule], rules: list[Rule], drops: list[Ignored]
) -> None:
    named = {name for rule in present for name in rule.theirs}
    unknown = [n for n in checkpoint.tensors if n not in named and not any(d.names(n) for d in drops)]
    if unknown:
        shown = ", ".join(f"{name} {list(checkpoint.shape(name))}" for name in unknown[:3])
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        known = [name for rule in rules for name in rule.theirs if name not in named]
        raise UnknownLayout(
            f"{checkpoint.name}: read as {title}, which has no rule for {shown}{more}"
            f"{near_text(unknown[0], known)}",
            f"if the model can do without them, pass --drop '{_pattern(unknown)}' (or --below PREFIX for a part of the file)",
        )


def _pattern(names: list[str]) -> str:
    """A --drop pattern that matches the first name and similar ones."""
    first = names[0]
    alike = [name for name in names if name.partition(".")[0] == first.partition(".")[0]]
    return f"{first.partition('.')[0]}.*" if len(alike) == len(names) > 1 and "." in first else first


def _check_shapes(checkpoint: Checkpoint, rule: Rule, ours: list[tuple[int, ...]]) -> None:
    for name, shape in zip(rule.theirs, rule.op.their_shapes(ours), strict=True):
        found = checkpoint.shape(name)
        if found != tuple(shape):
            raise ShapeMismatch(
                f"{checkpoint.name}: {name} has shape {list(found)}, but the other tensors require {list(shape)}",
                "specify what the file does not state (--num-heads, --image-size), or download the file again",
            )


def _dropped(checkpoint: Checkpoint, drops: list[Ignored]) -> tuple[Dropped, ...]:
    by_reason: dict[str, list[str]] = {}
    for name in checkpoint.tensors:
        for drop in drops:
            if drop.names(name):
                by_reason.setdefault(drop.reason, []).append(name)
                break
    return tuple(Dropped(names=tuple(names), reason=reason) for reason, names in by_reason.items())
