"""Which tensor of a file becomes which of the model: decided by names and shapes alone, strictly.

Every tensor of the file is named by a rule or dropped with a reason; every tensor of the model
is filled, or the share that is not is told. No tensor is read here, and no torch imported.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from patchword.checkpoints.checkpoint import Checkpoint
from patchword.checkpoints.layout import Description, Ignored, Layout, Rule
from patchword.errors import KeyMismatch, ShapeMismatch, UnknownLayout, near_text
from patchword.model.shapes import Shapes, shapes

HEADS = ("head.", "head_distillation.", "projection.")


@dataclass(frozen=True, kw_only=True)
class Dropped:
    names: tuple[str, ...]
    reason: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """rules: those whose tensors are all there. missing: tensors of the model that nothing fills."""

    rules: tuple[Rule, ...]
    dropped: tuple[Dropped, ...]
    missing: tuple[str, ...]
    shapes: Shapes

    @property
    def matched(self) -> int:
        """Tensors of the file that are used."""
        return sum(len(rule.theirs) for rule in self.rules if rule.ours)

    @property
    def rewritten_for(self) -> tuple[str, ...]:
        """Tensors of the file that say again what the config says, neither used nor dropped."""
        dropped = {name for part in self.dropped for name in part.names}
        return tuple(n for rule in self.rules if not rule.ours for n in rule.theirs if n not in dropped)

    @property
    def filled(self) -> float:
        """Share of the backbone's numbers that the file fills; heads apart."""
        whole = {name: math.prod(s) for name, s in self.shapes.items() if not name.startswith(HEADS)}
        lost = sum(whole.get(name, 0) for name in self.missing)
        return 1 - lost / max(sum(whole.values()), 1)


def make_plan(
    checkpoint: Checkpoint, layout: Layout, description: Description, *, allow_partial: bool = False
) -> Plan:
    """Raises: UnknownLayout for a tensor no rule names, KeyMismatch for one that is missing, ShapeMismatch."""
    expected = shapes(description.config)
    rules, drops = _sorted(layout.rules(description))
    present = [rule for rule in rules if checkpoint.has(*rule.theirs)]
    incomplete = _incomplete_groups(checkpoint, rules, present)
    if incomplete and not allow_partial:
        raise KeyMismatch(f"{checkpoint.name}: {incomplete[0].reason}", "get the whole file")
    drops = [*drops, *incomplete]
    _check_names(checkpoint, layout, present, rules, drops)
    for rule in present:
        _check_shapes(checkpoint, rule, [expected[name] for name in rule.ours])
    filled = {name for rule in present for name in rule.ours}
    missing = tuple(name for name in expected if name not in filled)
    untrained = tuple(f"{part}." for part in description.untrained)
    backbone = [name for name in missing if not name.startswith(untrained or ("\0",))]
    if backbone and not allow_partial:
        wanted = {ours: ", ".join(rule.theirs) for rule in rules for ours in rule.ours}
        lacks = ", ".join(wanted.get(name, name) for name in backbone[:3])
        more = f" and {len(backbone) - 3} more" if len(backbone) > 3 else ""
        raise KeyMismatch(
            f"{checkpoint.name}: read as {layout.title}, it lacks {lacks}{more}"
            f"{near_text(backbone[0], checkpoint.tensors)}",
            "get the whole file; to train it further, pass --allow-partial: what is missing is drawn at random",
        )
    return Plan(rules=tuple(present), dropped=_dropped(checkpoint, drops), missing=missing, shapes=expected)


def _sorted(parts: Iterable[Rule | Ignored]) -> tuple[list[Rule], list[Ignored]]:
    all_parts = list(parts)
    return [p for p in all_parts if isinstance(p, Rule)], [p for p in all_parts if isinstance(p, Ignored)]


def _incomplete_groups(checkpoint: Checkpoint, rules: list[Rule], present: list[Rule]) -> list[Ignored]:
    """What a file has of rules that take several tensors, where it lacks others of them; alone they fill nothing."""
    used = {name for rule in present for name in rule.theirs}
    found = []
    for rule in rules:
        there = [name for name in rule.theirs if checkpoint.has(name) and name not in used]
        if there and rule not in present:
            lost = next(name for name in rule.theirs if not checkpoint.has(name))
            reason = f"it has {there[0]} and lacks {lost}"
            found += [Ignored(pattern=re.escape(name), reason=reason) for name in there]
    return found


def _check_names(
    checkpoint: Checkpoint, layout: Layout, present: list[Rule], rules: list[Rule], drops: list[Ignored]
) -> None:
    named = {name for rule in present for name in rule.theirs}
    unknown = [n for n in checkpoint.tensors if n not in named and not any(d.names(n) for d in drops)]
    if unknown:
        shown = ", ".join(f"{name} {list(checkpoint.shape(name))}" for name in unknown[:3])
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        known = [name for rule in rules for name in rule.theirs if name not in named]
        raise UnknownLayout(
            f"{checkpoint.name}: read as {layout.title}, and no rule of it names {shown}{more}"
            f"{near_text(unknown[0], known)}",
            f"if the model can do without them, pass --drop '{_pattern(unknown)}' (or --below PREFIX for a part of the file)",
        )


def _pattern(names: list[str]) -> str:
    """A pattern for --drop that fits the first name and its like."""
    first = names[0]
    alike = [name for name in names if name.partition(".")[0] == first.partition(".")[0]]
    return f"{first.partition('.')[0]}.*" if len(alike) == len(names) > 1 and "." in first else first


def _check_shapes(checkpoint: Checkpoint, rule: Rule, ours: list[tuple[int, ...]]) -> None:
    for name, shape in zip(rule.theirs, rule.op.their_shapes(ours), strict=True):
        found = checkpoint.shape(name)
        if found != tuple(shape):
            raise ShapeMismatch(
                f"{checkpoint.name}: {name} is {list(found)}, and the other tensors ask for {list(shape)}",
                "tell what the file does not (--num-heads, --image-size), or get the file again",
            )


def _dropped(checkpoint: Checkpoint, drops: list[Ignored]) -> tuple[Dropped, ...]:
    by_reason: dict[str, list[str]] = {}
    for name in checkpoint.tensors:
        for drop in drops:
            if drop.names(name):
                by_reason.setdefault(drop.reason, []).append(name)
                break
    return tuple(Dropped(names=tuple(names), reason=reason) for reason, names in by_reason.items())
