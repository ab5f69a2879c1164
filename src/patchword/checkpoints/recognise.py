"""Which layout a file is in: told from its tensors and the config beside it, never asked."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from patchword.checkpoints.checkpoint import Checkpoint, below_one_word
from patchword.checkpoints.layout import Layout
from patchword.checkpoints.layouts import LAYOUTS, REFUSED
from patchword.checkpoints.lost import lost_tensor, mostly_there
from patchword.errors import AmbiguousLayout, CheckpointError, UnknownLayout


def recognised(checkpoint: Checkpoint) -> tuple[Checkpoint, Layout, str]:
    """The tensors that are of a layout, the layout, and the evidence.

    Where no layout has the names as they are, those below the one word before all of them are tried.
    Raises: as `recognise`, of the names as they are.
    """
    try:
        return checkpoint, *recognise(checkpoint)
    except UnknownLayout as error:
        inner = below_one_word(checkpoint)
        while inner is not None:
            try:
                return inner, *recognise(inner)
            except UnknownLayout:
                inner = below_one_word(inner)
        raise _with_what_is_beside(error, checkpoint) from error


def _with_what_is_beside(error: UnknownLayout, checkpoint: Checkpoint) -> UnknownLayout:
    """A few tensors that stand beside the word before all others hide the layout: then the message names them."""
    word, count = Counter(name.partition(".")[0] for name in checkpoint.tensors).most_common(1)[0]
    beside = [name for name in checkpoint.tensors if not name.startswith(f"{word}.")]
    if not 0 < len(beside) <= count / 10:
        return error
    rest = {name: entry for name, entry in checkpoint.tensors.items() if name not in beside}
    try:
        _, layout, _ = recognised(replace(checkpoint, tensors=rest))
    except CheckpointError:
        return error
    shown = ", ".join(f"{name} {list(checkpoint.shape(name))}" for name in beside)
    return UnknownLayout(
        f"{checkpoint.name}: {layout.title} below {word!r}, and no rule of it names {shown}",
        "if the model was changed, take these tensors out of the file; else report the format",
    )


def recognise(checkpoint: Checkpoint, layouts: Sequence[Layout] = LAYOUTS) -> tuple[Layout, str]:
    """The layout and the evidence for it.

    Raises: AmbiguousLayout naming both where two fit, UnknownLayout saying what was seen.
    """
    for refusal in REFUSED:
        refusal.check(checkpoint)
    found = [(layout, why) for layout in layouts if (why := layout.recognise(checkpoint)) is not None]
    if len(found) == 1:
        return found[0]
    if found:
        fits = "; ".join(f"{layout.title} ({why})" for layout, why in found)
        raise AmbiguousLayout(
            f"{checkpoint.name}: it fits {len(found)} layouts: {fits}",
            "put the publisher's config.json beside it, or rename the file to its published name",
        )
    names = list(checkpoint.tensors)
    if (lost := lost_tensor(names)) is not None:
        raise UnknownLayout(
            f"{checkpoint.name}: {len(names)} tensors of no layout that patchword knows; it lacks {lost}",
            f"get the whole file, with {lost}; docs/formats.md lists the layouts",
        )
    if absent := mostly_there(names):
        raise UnknownLayout(
            f"{checkpoint.name}: {len(names)} tensors of no layout that patchword knows; "
            f"most with blocks of such names have {', '.join(absent)} too",
            "get the whole file if that is lost; else docs/formats.md lists the layouts",
        )
    shown = ", ".join(f"{n} {list(checkpoint.tensors[n].shape)}" for n in names[:3])
    raise UnknownLayout(
        f"{checkpoint.name}: {len(names)} tensors of no layout that patchword knows ({shown}, …)",
        "docs/formats.md lists the layouts; if this is a Vision Transformer, report its tensors' names",
    )
