"""A user's own file: select a part, skip what is not the backbone, and find a head under another name.
`below` and `drop` are the options --below and --drop. Metrics saved by trainers are always skipped.
Everything skipped is counted and listed.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase

from patchword.containers.stored import Entry
from patchword.errors import CheckpointError, near_text, plural
from patchword.formats.checkpoint import LINEAR_HEAD, PART, Checkpoint, flat_tensors, without_prefix

# Metric states (torchmetrics, Lightning, ignite) and average counters, by the last word of their names.
_METRIC_STATES = {
    "tp", "fp", "tn", "fn", "correct", "total", "confmat", "mean_value", "sum_value", "max_value", "min_value",
    "_num_examples", "num_updates", "n_averaged", "num_batches_seen", "preds", "target", "measures", "steps",
    "sum_squared_error", "sum_abs_error", "num_samples",
}  # fmt: skip
_METRIC_WORDS = re.compile(
    r"((train|training|val|valid|validation|test)_)?\w*(acc|accuracy|metrics?|auroc|auc|f1|f1_?score|precision|recall|"
    r"confmat|confusion_matrix|loss|loss_fn|loss_func|criterion|ema_num_updates)\w*(_(fn|func|top\d))?"
)
# Linear layers next to a backbone that are not classifiers.
_NO_HEAD = re.compile(
    r"proj|pred(?!iction)|embed|text|prototype|queue|bank|mask|decod|norm|pool|momentum|temperature|logit_scale|scale"
)
_IN_A_BLOCK = re.compile(
    r"(^|\.)(blocks|layers?|resblocks|h)\.\d|encoder_layer_\d|encoderblock|patch_embed|conv_proj"
)


def cut(checkpoint: Checkpoint, below: str | None, drop: Iterable[str]) -> Checkpoint:
    """Keep only the tensors below a prefix that match no drop pattern.

    Raises: CheckpointError if a prefix or pattern matches no tensor, or if none is left.
    """
    if below is not None:
        checkpoint = _below(checkpoint, below)
    patterns = tuple(drop)
    word = _main_word(checkpoint.tensors)
    for pattern in patterns:
        dropped = tuple(name for name in checkpoint.tensors if _fits(name, pattern, word))
        if not dropped:
            raise CheckpointError(
                f"{checkpoint.name}: --drop {pattern} matches none of its {plural(len(checkpoint.tensors), 'tensor')}"
                f"{near_text(pattern, checkpoint.tensors)}",
                "pass a tensor's name, a prefix, or a pattern such as 'head.*'; `patchword inspect --json` lists the names",
            )
        checkpoint = _without(checkpoint, dropped, f"--drop {pattern}")
    if not checkpoint.tensors:
        raise CheckpointError(f"{checkpoint.name}: --drop leaves no tensor", "drop less")
    return checkpoint


def _fits(name: str, pattern: str, word: str) -> bool:
    """A pattern matches a name, a prefix, or the same below the word that most names start with."""
    short = name.removeprefix(f"{word}.")
    return any(
        fnmatchcase(candidate, tried)
        for candidate in {name, short}
        for tried in (pattern, f"{pattern.rstrip('.')}.*")
    )


def _below(checkpoint: Checkpoint, below: str) -> Checkpoint:
    prefix = below.rstrip(".") + "."
    places: list[Mapping[str, Entry]] = [checkpoint.tensors, flat_tensors(checkpoint.stored.tree)]
    for names in places:
        inside = {n.removeprefix(prefix): e for n, e in names.items() if n.startswith(prefix)}
        if inside:
            outside = tuple(
                n for n in names if not n.startswith(prefix) and n.partition(".")[0] not in _TRAINERS
            )
            found = replace(
                checkpoint, tensors=without_prefix(inside), wrapper=f"{prefix.rstrip('.')}{PART}", left=()
            )
            return replace(found, removed=((f"outside --below {below}", outside),) if outside else ())
    words = Counter(name.partition(".")[0] for name in flat_tensors(checkpoint.stored.tree))
    words |= Counter(name.partition(".")[0] for name in checkpoint.tensors)
    shown = ", ".join(f"{word} ({count})" for word, count in words.most_common(6))
    raise CheckpointError(
        f"{checkpoint.name}: no tensor name starts with {prefix!r}{near_text(below.rstrip('.'), words)}; "
        f"the prefixes are: {shown}",
        "pass --below with one of them, or with a longer prefix",
    )


_TRAINERS = {
    "optimizer",
    "optimizers",
    "optimizer_states",
    "lr_scheduler",
    "lr_schedulers",
    "scheduler",
    "scaler",
}


def _without(checkpoint: Checkpoint, names: Iterable[str], reason: str) -> Checkpoint:
    gone = tuple(names)
    kept = {name: entry for name, entry in checkpoint.tensors.items() if name not in set(gone)}
    return replace(checkpoint, tensors=kept, removed=(*checkpoint.removed, (reason, gone)))


def _main_word(names: Iterable[str]) -> str:
    """The first word of most names; "" if there is none."""
    listed = list(names)
    word, count = Counter(name.partition(".")[0] for name in listed).most_common(1)[0] if listed else ("", 0)
    return word if count > len(listed) / 2 else ""


def without_metrics(checkpoint: Checkpoint) -> Checkpoint:
    """Skip the metrics and counters that trainers save next to a model."""
    groups: dict[str, list[str]] = {}
    for name in checkpoint.tensors:
        groups.setdefault(name.partition(".")[0], []).append(name)
    gone = [n for word, names in groups.items() if _is_metric(word, names, checkpoint) for n in names]
    return (
        _without(checkpoint, gone, "training metrics")
        if gone and len(gone) < len(checkpoint.tensors)
        else checkpoint
    )


def _is_metric(word: str, names: list[str], checkpoint: Checkpoint) -> bool:
    if all(name.rpartition(".")[2] in _METRIC_STATES for name in names):
        return True
    small = all(len(checkpoint.shape(name)) < 2 for name in names)
    return small and len(names) <= 16 and _METRIC_WORDS.fullmatch(word) is not None


def with_head_named(checkpoint: Checkpoint) -> Checkpoint | None:
    """Move a linear classifier with a non-standard name to where its layout has it.
    It is recognised by its shape: one matrix as wide as the model, outside its blocks, alone in its group.
    None if there is no such layer, or more than one.
    """
    names = checkpoint.tensors
    word = _backbone_word(checkpoint)
    before = f"{word}." if word else ""
    width = _width(checkpoint, before)
    target = _head_name(checkpoint, before)
    if width is None or target is None or any(name.startswith(f"{before}{target}.weight") for name in names):
        return None
    stems = []
    for name in names:
        stem, _, part = name.rpartition(".")
        if part == "weight" and len(checkpoint.shape(name)) == 2 and checkpoint.shape(name)[1] == width:
            local = stem.removeprefix(before)
            if not _IN_A_BLOCK.search(stem) and not _NO_HEAD.search(local) and local != LINEAR_HEAD:
                stems.append(stem)
    if len(stems) != 1 or not _stands_alone(checkpoint, stems[0], before):
        return None
    stem = stems[0]
    renamed = {_renamed(name, stem, before, target): entry for name, entry in names.items()}
    shape = list(checkpoint.shape(f"{stem}.weight"))
    note = f"the classifier is {stem}.weight {shape}, detected by its shape; it is assumed to read the pooled output (--pool)"
    wrapper = ".".join(part for part in (checkpoint.wrapper.partition(":")[0], word) if part)
    return replace(checkpoint, tensors=renamed, notes=(*checkpoint.notes, note), wrapper=wrapper)


def _renamed(name: str, stem: str, before: str, target: str) -> str:
    if name.startswith(f"{stem}."):
        return target + name.removeprefix(stem)
    return name.removeprefix(before)


def _stands_alone(checkpoint: Checkpoint, stem: str, before: str) -> bool:
    """Whether only weight and bias have the layer's prefix, and all else the backbone's."""
    group = (
        before + stem.removeprefix(before).partition(".")[0]
        if stem.startswith(before)
        else stem.partition(".")[0]
    )
    inside = [name for name in checkpoint.tensors if name.startswith(f"{group}.")]
    if {name.removeprefix(f"{stem}.") for name in inside} - {"weight", "bias"}:
        return False
    return all(name in inside or name.startswith(before) for name in checkpoint.tensors)


def _backbone_word(checkpoint: Checkpoint) -> str:
    """The prefix of the blocks, "" at the top level."""
    for name in checkpoint.tensors:
        found = re.match(
            r"(?:(.*?)\.)?(blocks\.(\d+\.)?\d+\.|encoder\.layers?\.(encoder_layer_)?\d|transformer\.)", name
        )
        if found:
            return found[1] or ""
    return ""


def _width(checkpoint: Checkpoint, before: str) -> int | None:
    norms = [
        entry.shape[0]
        for name, entry in checkpoint.tensors.items()
        if name.startswith(before) and len(entry.shape) == 1 and re.search(r"(norm|ln_?)\w*\.weight$", name)
    ]
    return Counter(norms).most_common(1)[0][0] if norms else None


def _head_name(checkpoint: Checkpoint, before: str) -> str | None:
    """The classifier's name in the layout with such blocks."""
    for pattern, target in (
        (r"blocks\.(\d+\.)?0\.norm1\.weight", "head"),
        (r"encoder\.layers\.encoder_layer_0\.ln_1\.weight", "heads.head"),
        (r"encoder\.layer\.0\.(layernorm_before|norm1)\.weight", "classifier"),
    ):
        if any(re.fullmatch(re.escape(before) + pattern, name) for name in checkpoint.tensors):
            return target
    return None
