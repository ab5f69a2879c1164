"""Convert a model between layouts and verify it with one image through both."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from patchword.errors import CheckpointError
from patchword.formats.detection.layout import without_detector_facts
from patchword.formats.facts import Options
from patchword.formats.holders import formats_that_hold
from patchword.formats.layout import Layout
from patchword.formats.report import LoadReport
from patchword.formats.source import Source, read_source, refuse_partial
from patchword.formats.write import Written, layouts_named, refuse_taken, remove, write_as_first
from patchword.hub.find import find_weights
from patchword.inference.any_model import is_detector
from patchword.inference.conversion import MAX_DIFFERENCE, MAX_READER_DIFFERENCE, NATIVE, Conversion
from patchword.inference.readers import Opened, open_with_reader
from patchword.weights.native import check_suffix, write_model

if TYPE_CHECKING:
    from torch import Tensor


def convert(
    source: str | Path,
    to: str,
    out: Path,
    *,
    options: Options | None = None,
    accept: Sequence[str] = (),
    offline: bool = False,
) -> Conversion:
    """Write `source` in the layout `to` at `out`, read it back, and compare the outputs.

    Raises: CheckpointError if the format cannot hold something, or if the outputs differ; OutputError.
    """
    options = options or Options()
    if not is_detector(source, offline=offline, below=options.below, drop=options.drop):
        return _convert(source, to, out, without_detector_facts(options), accept, offline=offline)
    from patchword.inference.convert_detector import convert_detector

    if accept:
        raise CheckpointError(
            f"{source}: --accept {accept[0]} does not apply to detectors", "remove --accept"
        )
    return convert_detector(source, to, out, options=options, offline=offline)


def _convert(
    source: str | Path, to: str, out: Path, options: Options, accept: Sequence[str], *, offline: bool
) -> Conversion:
    """A model without boxes."""
    layouts = () if to == NATIVE else layouts_named(to)
    if not layouts:
        check_suffix(out)
    read, report = read_source(find_weights(source, offline=offline), options, decoder=True)
    refuse_partial(report)
    if layouts and read.card.untrained:
        raise CheckpointError(
            f"{source}: its {', '.join(read.card.untrained)} is untrained, and no other layout can record that",
            "train it first, or use --to patchword",
        )
    refuse_taken(out)
    written: Written | None = None
    try:
        if layouts:
            written = _written(read, layouts, out, accept)
        else:
            write_model(out, read.tensors, read.card)
        difference, compared, reader = _compared(read, out, written)
        if difference > MAX_DIFFERENCE and not (written and written.changed):
            raise CheckpointError(
                f"{out}: the outputs for one image differ by {difference:.2g} after conversion; {MAX_DIFFERENCE:g} is allowed",
                "report this: the layout's rules are wrong for this model; nothing was written",
            )
    except BaseException:
        remove(out)
        raise
    return Conversion(
        path=out,
        layout=NATIVE if written is None else written.reopened.layout.title,
        files=(out,) if written is None else written.files,
        difference=difference,
        compared=compared,
        told={} if written is None else dict(written.told),
        changed=() if written is None else written.changed,
        prepared=() if written is None else written.prepared,
        elsewhere=() if written is None else written.elsewhere,
        names=None if written is None else written.names,
        rewritten_for=() if written is None else written.rewritten_for,
        dropped=(
            *((d.reason, len(d.names)) for d in report.dropped),
            *_left_decoder(written),
        ),
        notes=report.notes,
        reader=reader,
    )


def _left_decoder(written: Written | None) -> list[tuple[str, int]]:
    if written is None or not written.without_decoder:
        return []
    return [("the decoder, for which this format has no place", written.without_decoder)]


def _written(source: Source, layouts: Sequence[Layout], out: Path, accept: Sequence[str]) -> Written:
    """Raises: CheckpointError with the formats that can hold the model."""
    try:
        return write_as_first(source, layouts, out, accept=accept)
    except CheckpointError as error:
        holders = formats_that_hold(source.card)
        if holders:
            error.fix = f"--to {', '.join(holders)} can hold this model, and --to {NATIVE}" + (
                f"; or {error.fix}" if "--accept" in error.fix else ""
            )
        raise


def _compared(source: Source, out: Path, written: Written | None) -> tuple[float, str, Opened | None]:
    """The largest difference between both outputs for one noise image from a fixed seed; then the format's own reader's.

    Raises: CheckpointError if that reader refuses the files, or its output differs.
    """
    import torch

    from patchword.inference.load import load, model_of

    before = model_of(source.card, dict(source.tensors), path=out)
    after = load(out, device="cpu", options=Options(**(dict(written.told) if written else {})))
    size = source.card.config.image
    image = torch.randn((1, size.channels, *size.size), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        first, second = before.vit(image), after.vit(image)
    kind = "logits" if source.card.config.head.num_classes else "embedding"
    compared = f"{kind} for one image of {size.size[0]} x {size.size[1]} pixels"
    difference = _relative(second, first)
    if source.card.decoder is not None and not (written and written.without_decoder):
        difference = max(difference, _predictions_differ(source, out, written, image))
        compared = f"{kind} and predicted patches for one image of {size.size[0]} x {size.size[1]} pixels"
    if written is None:
        return difference, compared, None
    # Accepted differences change the output, so compare the reader with what was read back.
    opened = open_with_reader(written.reopened.layout.name, out, after.config, image, second)
    if opened is not None and opened.difference > MAX_READER_DIFFERENCE:
        raise CheckpointError(
            f"{out}: {opened.reader} reads the result, but its output differs from ours by {opened.difference:.2g}; "
            "nothing was written",
            "choose another format, or keep it as a patchword file; please report this",
        )
    return difference, compared, opened


def _predictions_differ(source: Source, out: Path, written: Written | None, image: "Tensor") -> float:
    """The largest difference between the patches that both decoders predict under one mask."""
    import torch

    from patchword.inference.load import in_float32
    from patchword.inference.load_mae import load_mae, mae_of

    report = LoadReport(path=out, tensors=len(source.tensors), parameters=0)
    before = mae_of(source.card, in_float32(dict(source.tensors), report)[0], report)
    after = load_mae(out, device="cpu", options=Options(**(dict(written.told) if written else {}))).mae
    count = source.card.config.grid_size[0] * source.card.config.grid_size[1]
    masking = before.masking(torch.rand((1, count), generator=torch.Generator().manual_seed(0)))
    with torch.inference_mode():
        return _relative(after.predict(image, masking), before.predict(image, masking))


def _relative(ours: "Tensor", theirs: "Tensor") -> float:
    if ours.shape != theirs.shape:
        return float("inf")
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-30))
