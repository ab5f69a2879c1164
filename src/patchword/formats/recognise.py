"""Detect a file's layout from its tensors and the config next to it."""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from patchword.errors import AmbiguousLayout, CheckpointError, UnknownLayout, plural
from patchword.formats.checkpoint import Checkpoint, below_one_word
from patchword.formats.layout import Layout
from patchword.formats.layouts import LAYOUTS, REFUSED, Refused, refuse_timm
from patchword.formats.missing import is_plain_vit, lost_tensor, mostly_there
from patchword.formats.naming import by_config, named
from patchword.formats.systems import tower_of

# The minimum number of tensors in a model, and the number of parts of a file to try.
_MIN_TENSORS, _MAX_WORDS = 8, 6
_READ_TYPES = frozenset(kind for layout in LAYOUTS for kind in layout.types) | {"timm_wrapper"}


def recognised(checkpoint: Checkpoint) -> tuple[Checkpoint, Layout, str]:
    """The tensors that belong to a layout, the layout, and the evidence.
    If no layout matches the names as they are, try them without their shared prefix.

    Raises: as `recognise`, for the unchanged names.
    """
    checkpoint = tower_of(checkpoint)
    try:
        return checkpoint, *recognise(checkpoint)
    except Refused:
        raise
    except UnknownLayout as error:
        if by_config(checkpoint, _READ_TYPES) is not None:
            raise
        inner = below_one_word(checkpoint)
        while inner is not None:
            try:
                return inner, *recognise(inner)
            except Refused:
                raise
            except UnknownLayout:
                inner = below_one_word(inner)
        raise _with_siblings(error, checkpoint) from error


def _with_siblings(error: UnknownLayout, checkpoint: Checkpoint) -> UnknownLayout:
    """Report a model below a prefix (next to a projector, a text tower, an average) with the option for it."""
    counts = Counter(name.partition(".")[0] for name in checkpoint.tensors)
    found: dict[str, str] = {}
    for word, count in counts.most_common(_MAX_WORDS):
        inside = {
            n.removeprefix(f"{word}."): e for n, e in checkpoint.tensors.items() if n.startswith(f"{word}.")
        }
        if count >= _MIN_TENSORS and len(inside) == count and len(counts) > 1:
            with suppress(CheckpointError):
                found[word] = recognised(replace(checkpoint, tensors=inside))[1].title
    if not found:
        return error
    others = [name for name in checkpoint.tensors if name.partition(".")[0] not in found]
    shown = ", ".join(f"{name} {list(checkpoint.shape(name))}" for name in others[:4])
    more = f" and {len(others) - 4} more" if len(others) > 4 else ""
    models = ", ".join(
        f"{title} below {word!r} ({plural(counts[word], 'tensor')})" for word, title in found.items()
    )
    rest = f"; there is no rule for {shown}{more}" if others else ""
    return UnknownLayout(
        f"{checkpoint.name}: it holds {models}{rest}",
        " or ".join(f"pass --below {word}" for word in found) + ", if the model does not need the rest",
    )


def refuse_own_without_card(checkpoint: Checkpoint) -> None:
    """Raises: Refused for patchword's own tensors in a file without its card."""
    ours = ("patch_embed.proj.weight", "blocks.0.attention.qkv.weight", "blocks.0.mlp.fc1.weight")
    if checkpoint.has(*ours):
        raise Refused(
            f"{checkpoint.name}: a patchword file without its card: it was saved again without its metadata, so its "
            "architecture and preprocessing are unknown",
            "give the file that patchword wrote; from Python, model.save(PATH) keeps the card",
        )


def recognise(checkpoint: Checkpoint, layouts: Sequence[Layout] = LAYOUTS) -> tuple[Layout, str]:
    """The layout and the evidence for it.

    Raises: AmbiguousLayout with both if two match, UnknownLayout with the tensors found.
    """
    for refusal in REFUSED:
        refusal.check(checkpoint)
    refuse_timm(checkpoint)
    refuse_own_without_card(checkpoint)
    found = [(layout, why) for layout in layouts if (why := layout.recognise(checkpoint)) is not None]
    if len(found) == 1:
        return found[0]
    if found:
        fits = "; ".join(f"{layout.title} ({why})" for layout, why in found)
        raise AmbiguousLayout(
            f"{checkpoint.name}: it matches {len(found)} layouts: {fits}",
            "put the publisher's config.json next to it, or rename the file to its published name",
        )
    names = list(checkpoint.tensors)
    if (said := named(checkpoint, _READ_TYPES)) is not None:
        raise said
    plain = is_plain_vit(names)
    if plain and (lost := lost_tensor(names)) is not None:
        raise UnknownLayout(
            f"{checkpoint.name}: no supported layout matches its {plural(len(names), 'tensor')}; it lacks {lost}",
            f"use the complete file, with {lost}; docs/formats.md lists the layouts",
        )
    if plain and (absent := mostly_there(names)):
        raise UnknownLayout(
            f"{checkpoint.name}: no supported layout matches its {plural(len(names), 'tensor')}; "
            f"most files with such blocks also have {', '.join(absent)}",
            "use the complete file if that is missing; otherwise, docs/formats.md lists the layouts",
        )
    shown = ", ".join(f"{n} {list(checkpoint.tensors[n].shape)}" for n in names[:3])
    raise UnknownLayout(
        f"{checkpoint.name}: no supported layout matches its {plural(len(names), 'tensor')} ({shown}, …)",
        "docs/formats.md lists the layouts; if this is a Vision Transformer, report its tensor names",
    )
