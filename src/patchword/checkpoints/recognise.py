"""Which layout a file is in: told from its tensors and the config beside it, never asked."""

from collections.abc import Sequence

from patchword.checkpoints.checkpoint import Checkpoint, below_one_word
from patchword.checkpoints.layout import Layout
from patchword.checkpoints.layouts import LAYOUTS, REFUSED
from patchword.checkpoints.lost import lost_tensor, mostly_there
from patchword.errors import AmbiguousLayout, UnknownLayout


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
        raise error


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
