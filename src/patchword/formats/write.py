"""Write a model in any layout with the inverted reading rules, then read it back and compare.
Reading back reveals what a format cannot hold: the error lists a config field that changed,
and no files are left behind.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchword.errors import CheckpointError, OutputError, near_text
from patchword.formats.compare import differences, explicit
from patchword.formats.compare_preprocess import preparations
from patchword.formats.decoder import decoder_differences, with_position_table
from patchword.formats.facts import Options
from patchword.formats.layout import Description, Layout, Rule
from patchword.formats.layouts import LAYOUTS
from patchword.formats.limits import parts_of, unusual
from patchword.formats.read import Opened, open_foreign
from patchword.formats.source import Source
from patchword.model.resample_rules import rules
from patchword.weights.card import ModelCard, encoder_only

if TYPE_CHECKING:
    from torch import Tensor


_ANOTHER = "choose another format, or keep it as a patchword file"


@dataclass(frozen=True, kw_only=True)
class Written:
    """path: the file, or the folder if there are sidecar_files. reopened: the written files, read back.
    told: options that readers of this format need, because it has no place for them.
    changed: accepted fields of the config that read back differently, as (field, ours, theirs).
    prepared: the same for preprocessing, which a format may be unable to store.
    rewritten_for: the same for fields that this format expresses differently, with the same outputs.
    elsewhere: tables that this format's readers resample by another rule for other image sizes.
    names: a file of class names, one per line, if the format has no place for them.
    without_decoder: tensors of the source's decoder, for which the format has no place.
    """

    path: Path
    files: tuple[Path, ...]
    reopened: Opened
    told: Mapping[str, Any]
    changed: tuple[tuple[str, Any, Any], ...]
    prepared: tuple[tuple[str, Any, Any], ...] = ()
    rewritten_for: tuple[tuple[str, Any, Any], ...] = ()
    elsewhere: tuple[tuple[str, str, str], ...] = ()
    names: Path | None = None
    without_decoder: int = 0


def layouts_named(name: str, layouts: Sequence[Layout] = LAYOUTS) -> tuple[Layout, ...]:
    """The layout of that name, or those of a family: "transformers" includes transformers-vit and others.

    Raises: CheckpointError with the nearest names.
    """
    exact = tuple(layout for layout in layouts if layout.name == name)
    family = tuple(layout for layout in layouts if layout.name.startswith(f"{name}-"))
    if exact or family:
        return exact or family
    known = [layout.name for layout in layouts]
    raise CheckpointError(
        f"unknown format {name!r}{near_text(name, known)}",
        f"use one of: {', '.join(sorted(known))}, patchword",
    )


def write_as_first(
    source: Source, layouts: Sequence[Layout], out: Path, *, accept: Sequence[str] = ()
) -> Written:
    """Write in the first layout that can hold the model; the source's own layout comes first.

    Raises: CheckpointError with the reason of each if none can.
    """
    own = [layout for layout in layouts if source.layout is not None and layout.name == source.layout.name]
    others = sorted((o for o in layouts if o not in own), key=lambda layout: _rank(layout, source.card))
    reasons: dict[str, list[str]] = {}
    for layout in [*own, *others]:
        try:
            return write_as(source, layout, out, accept=accept)
        except CheckpointError as error:
            if len(layouts) == 1:
                raise
            reason = error.message.removeprefix(f"{layout.title} ").removeprefix("has ")
            reasons.setdefault(reason, []).append(layout.name)
    if len(reasons) == 1:
        reasons = {reason: ["each of them"] for reason in reasons}
    listed = "; ".join(f"{reason} ({', '.join(names)})" for reason, names in reasons.items())
    raise CheckpointError(f"none of the {len(layouts)} formats can hold this model: {listed}", _ANOTHER)


def _rank(layout: Layout, card: ModelCard) -> tuple[bool, bool]:
    """Formats that hold a decoder come first, if there is one; then those that their family prefers."""
    return card.decoder is not None and not layout.decoder_pattern, layout.second_choice(card)


def written_tensors(
    layout: Layout, description: Description, tensors: Mapping[str, "Tensor"]
) -> dict[str, "Tensor"]:
    """The format's tensors from ours. Raises: CheckpointError for a tensor that the format has no place for."""
    found: dict[str, Tensor] = {}
    named: set[str] = set()
    for rule in layout.rules(description):
        if not isinstance(rule, Rule) or not all(name in tensors for name in rule.ours):
            continue
        named.update(rule.ours)
        found |= zip(rule.theirs, _written(layout, rule, [tensors[name] for name in rule.ours]), strict=True)
    homeless = [name for name in tensors if name not in named]
    if homeless:
        raise CheckpointError(f"{layout.title} has no place for {parts_of(homeless)}", _ANOTHER)
    return found


def _written(layout: Layout, rule: Rule, ours: "list[Tensor]") -> "list[Tensor]":
    try:
        return rule.op.write(ours)
    except RuntimeError as error:
        # E.g. two prefix tokens in a format that has one.
        shown = ", ".join(f"{n} {list(t.shape)}" for n, t in zip(rule.ours, ours, strict=True))
        raise CheckpointError(
            f"{layout.title} has no place for {shown}",
            "choose another format, or keep it as a patchword file",
        ) from error


def write_as(source: Source, layout: Layout, out: Path, *, accept: Sequence[str] = ()) -> Written:
    """Write, read back, compare. accept: fields of the config that may read back differently ("norm.eps").

    Raises: CheckpointError that lists what the format cannot hold; OutputError. No files are left then.
    """
    same = source.layout is not None and source.layout.name == layout.name
    kept = (source.card, source.tensors)
    if not layout.decoder_pattern:
        kept = encoder_only(*kept)
    card, ours = kept if same else with_position_table(*layout.rewritten_for(*kept))
    spelling = source.spelling if same and source.spelling is not None else layout.spelling(card)
    description = Description(
        config=card.config,
        preprocess=card.preprocess,
        classes=card.classes,
        spelling=spelling,
        decoder=card.decoder,
    )
    sidecar_files = layout.beside(card, spelling)
    weights, head = layout.head_apart(written_tensors(layout, description, ours))
    refuse_taken(out)
    path = out / layout.file_name if sidecar_files else out
    try:
        files = [path, *_write_beside(sidecar_files, out)]
        _write_weights(layout, path, weights, card)
        told = _write_head(head, out)
        files += [*told.values(), *_write_provenance(layout, path, card)]
        written = _checked(card, layout, out, tuple(files), accept, told)
        rewritten_for = differences(explicit(source.card.config), explicit(card.config))
        if card.decoder is not None:
            rewritten_for += decoder_differences(source.card.decoder, card.decoder)
        names = _write_names(source.card.classes, written, out)
        files += names
        return replace(
            written,
            rewritten_for=tuple(rewritten_for),
            files=tuple(files),
            names=names[0] if names else None,
            without_decoder=len(source.tensors) - len(kept[1]),
        )
    except BaseException:
        remove(out)
        raise


def refuse_taken(out: Path) -> None:
    """Raises: OutputError if a conversion would overwrite something."""
    for path in [out, *_beside(out)]:
        if path.exists():
            raise OutputError(
                f"{path} already exists", "choose another --out; existing files are never overwritten"
            )


def remove(out: Path) -> None:
    """Remove what a failed conversion left."""
    if out.is_dir():
        shutil.rmtree(out, ignore_errors=True)
    else:
        for path in (out, *_beside(out)):
            path.unlink(missing_ok=True)


def _beside(out: Path) -> list[Path]:
    """Files that a conversion to a single file may write next to it."""
    return [_head_path(out), _provenance_path(out), _names_path(out)]


def _names_path(out: Path) -> Path:
    return out.with_name(f"{out.name}.classes.txt")


def _write_names(classes: Sequence[str], written: Written, out: Path) -> list[Path]:
    """Write a file for --class-names if the format lost the names. Raises: CheckpointError, OutputError."""
    if not classes or written.reopened.card.classes == tuple(classes):
        return []
    broken = [name for name in classes if name.splitlines() != [name] or name.strip() != name]
    if broken:
        raise CheckpointError(
            f"class {broken[0]!r} fits neither this format nor a list with one name per line", _ANOTHER
        )
    path = out / "classes.txt" if out.is_dir() else _names_path(out)
    return [_write_text(path, "".join(f"{name}\n" for name in classes))]


def _head_path(out: Path) -> Path:
    """A path next to the backbone, as DINO's and DINOv2's authors publish their linear heads."""
    return out.with_name(f"{out.stem}_linear_head.pth")


def _write_head(head: Mapping[str, Any], out: Path) -> dict[str, Path]:
    """Write the head's file, if any; return it by the option that reads it."""
    from patchword.containers.write import write_torch

    if head:
        write_torch(_head_path(out), head)
    return {"head": _head_path(out)} if head else {}


def _write_beside(sidecar_files: Mapping[str, bytes], folder: Path) -> list[Path]:
    if not sidecar_files:
        return []
    try:
        folder.mkdir(parents=True)
        for name, content in sidecar_files.items():
            (folder / name).write_bytes(content)
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be written ({error.strerror or error})", "choose another location"
        ) from error
    return [folder / name for name in sidecar_files]


def _write_weights(layout: Layout, path: Path, tensors: "Mapping[str, Tensor]", card: ModelCard) -> None:
    from patchword.containers.write import write_npz, write_safetensors, write_torch

    if layout.container == "npz":
        write_npz(path, tensors)
    elif layout.container == "torch":
        write_torch(path, {**layout.nest(tensors), **layout.written_beside(card)})
    else:
        write_safetensors(path, tensors, {"format": "pt", **provenance_of(card)})


def provenance_of(card: ModelCard) -> dict[str, str]:
    """The origin and licence of the weights, as text for a file's metadata."""
    found = {
        "source": card.provenance.source,
        "source_sha256": card.provenance.source_sha256,
        "license": card.provenance.licence,
    }
    return {key: value for key, value in found.items() if value}


def _provenance_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.provenance.json")


def _write_provenance(layout: Layout, path: Path, card: ModelCard) -> list[Path]:
    """Write a small file next to formats without metadata; an extra key would break their readers."""
    facts = provenance_of(card)
    if layout.container == "safetensors" or not facts:
        return []
    return [_write_text(_provenance_path(path), json.dumps(facts, indent=1) + "\n")]


def _write_text(path: Path, text: str) -> Path:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror or error})", "choose another location"
        ) from error
    return path


# Read back -------------------------------------------------------------------------------

# For these a reader may assume the family's usual value, and an option overrides it; the rest is fixed in its code.
_ASKED = ("num_heads", "image_size", "pool", "decoder_num_heads", "norm_pix_loss")


def _checked(
    card: ModelCard,
    layout: Layout,
    out: Path,
    files: tuple[Path, ...],
    accept: Sequence[str],
    told: Mapping[str, Any],
) -> Written:
    try:
        reopened, told = _reopen(card, layout, out, told)
    except CheckpointError as error:
        # The rules covered every tensor, but a reader would confuse the file with something else.
        why, parts = error.message.removeprefix(f"{out}: "), unusual(card.config)
        raise CheckpointError(
            f"{layout.title} cannot hold this model{f' ({parts})' if parts else ''}: reading the result back fails: {why}",
            _ANOTHER,
        ) from error
    if reopened.layout.name not in (layout.name, *layout.twins):
        raise CheckpointError(
            f"the result in the format {layout.title} would be read as {reopened.layout.title}",
            f"convert to {reopened.layout.name} instead: the two formats are indistinguishable",
        )
    changed = (
        *differences(explicit(card.config), explicit(reopened.card.config)),
        *decoder_differences(card.decoder, reopened.card.decoder),
    )
    refused = [change for change in changed if change[0] not in accept]
    if refused:
        field, ours, theirs = refused[0]
        more = f" (and {', '.join(c[0] for c in refused[1:])})" if refused[1:] else ""
        raise CheckpointError(
            f"{layout.title} cannot hold {field} = {_text(ours)}: its readers use {_text(theirs)}{more}",
            f"choose another format, or pass --accept {field} and check the printed difference",
        )
    prepared = tuple(preparations(card.preprocess, reopened.card.preprocess))
    ours, theirs = rules(card.config), rules(reopened.card.config)
    elsewhere = tuple((k, ours[k], theirs[k]) for k in ours if k in theirs and ours[k] != theirs[k])
    return Written(
        path=out,
        files=files,
        reopened=reopened,
        told=told,
        changed=changed,
        prepared=prepared,
        elsewhere=elsewhere,
    )


def _reopen(
    card: ModelCard, layout: Layout, out: Path, given: Mapping[str, Any]
) -> tuple[Opened, Mapping[str, Any]]:
    """Read back with the given options, adding as few more as necessary."""
    told, answers = dict(given), _answers(card)
    while True:
        try:
            opened = open_foreign(out, Options(**told))
        except CheckpointError as error:
            named = next(
                (
                    name
                    for name in layout.reader_options
                    if f"--{name.replace('_', '-')}" in str(error) and name not in told
                ),
                None,
            )
            if named is None or answers[named] is None:
                raise
            told[named] = answers[named]
            continue
        found = _answers(opened.card)
        asked = (name for name in layout.reader_options if name in _ASKED and name not in told)
        wrong = next((name for name in asked if answers[name] not in (None, found[name])), None)
        if wrong is None:
            return opened, told
        told[wrong] = answers[wrong]


def _answers(card: ModelCard) -> dict[str, Any]:
    config, decoder = card.config, card.decoder
    pools = {"class": "class", "first": "first", "mean": "mean"}
    return {
        "num_heads": config.attention.num_heads,
        "image_size": config.image.size,
        "act": config.mlp.activation,
        "pool": pools.get(config.head.pool.kind),
        "decoder_num_heads": decoder and decoder.num_heads,
        "norm_pix_loss": decoder and decoder.norm_targets,
    }


def _text(value: Any) -> str:
    return f"{type(value).__name__}" if is_dataclass(value) else repr(value)
