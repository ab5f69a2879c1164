"""`load`, `load_mae` and `load_detector` of `import patchword as pw`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from patchword.formats.facts import Options, patterns
from patchword.python_parameters import Sides, sides
from patchword.python_words import in_python

if TYPE_CHECKING:
    from patchword.inference.detector import Detector
    from patchword.inference.model import Model
    from patchword.model.config import Activation
    from patchword.model.mae import MAE


@in_python
def load(
    path: str | Path,
    *,
    device: str | None = None,
    offline: bool = False,
    num_heads: int | None = None,
    image_size: Sides = None,
    patch_size: Sides = None,
    pool: Literal["class", "first", "mean"] | None = None,
    act: "Activation | None" = None,
    eps: float | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    head: str | Path | None = None,
    classes: Sequence[str] | None = None,
    allow_partial: bool = False,
    below: str | None = None,
    drop: Sequence[str] = (),
) -> "Model | Detector":
    """Load a model, or a detector, from a run folder, a weights file or folder in any supported format, the hub
    (hf://org/name[@revision]) or a published name.

    offline: use cached files only. The other options specify facts that the files do not contain, such as
    num_heads of a bare PyTorch file; see `patchword inspect`. image_size, patch_size: pixels per side, or
    (rows, columns). head: the file of a linear head. allow_partial: initialise missing tensors randomly.
    below: read only tensors whose names start with this ("model."). drop: names or patterns of tensors to
    ignore ("head.*"); each is listed in the report. A detector is returned as by `load_detector`, which has options for
    the facts that only files of detectors lack.
    Raises: CheckpointError; for a missing fact, it gives the fact and the option.
    """
    from patchword.formats.detection.layout import with_detector_facts
    from patchword.inference.any_model import is_detector
    from patchword.inference.load import load as load_model

    facts = Options(
        num_heads=num_heads,
        image_size=sides(image_size, "image_size"),
        patch_size=sides(patch_size, "patch_size"),
        pool=pool,
        act=act,
        eps=eps,
        mean=None if mean is None else tuple(mean),
        std=None if std is None else tuple(std),
        head=None if head is None else Path(head),
        classes=None if classes is None else tuple(classes),
        allow_partial=allow_partial,
        below=below,
        drop=patterns(drop),
    )
    if is_detector(path, offline=offline, below=facts.below, drop=facts.drop):
        from patchword.inference.detector import load_detector as load_one

        return load_one(path, device=device, options=with_detector_facts(facts), offline=offline)
    return load_model(path, device=device, options=facts, offline=offline)


@in_python
def load_mae(
    path: str | Path,
    *,
    device: str | None = None,
    offline: bool = False,
    num_heads: int | None = None,
    image_size: Sides = None,
    patch_size: Sides = None,
    pool: Literal["class", "first", "mean"] | None = None,
    act: "Activation | None" = None,
    eps: float | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    head: str | Path | None = None,
    classes: Sequence[str] | None = None,
    allow_partial: bool = False,
    below: str | None = None,
    drop: Sequence[str] = (),
    decoder_num_heads: int | None = None,
    norm_pix_loss: bool | None = None,
) -> "MAE":
    """Load a masked autoencoder, encoder and decoder, in evaluation mode, from anything that `load` accepts.

    decoder_num_heads, norm_pix_loss: heads of the decoder, and whether it predicts patches that are normalised one by
    one, if the file states neither. The other options are those of `load`.
    Raises: CheckpointError, if the file has no decoder with the file that does; for a missing fact, it gives the option.
    """
    from patchword.inference.load_mae import load_mae as load_both

    facts = Options(
        num_heads=num_heads,
        image_size=sides(image_size, "image_size"),
        patch_size=sides(patch_size, "patch_size"),
        pool=pool,
        act=act,
        eps=eps,
        mean=None if mean is None else tuple(mean),
        std=None if std is None else tuple(std),
        head=None if head is None else Path(head),
        classes=None if classes is None else tuple(classes),
        allow_partial=allow_partial,
        below=below,
        drop=patterns(drop),
        decoder_num_heads=decoder_num_heads,
        norm_pix_loss=norm_pix_loss,
    )
    return load_both(path, device=device, options=facts, offline=offline).mae


@in_python
def load_detector(
    path: str | Path,
    *,
    device: str | None = None,
    offline: bool = False,
    num_heads: int | None = None,
    dilation: bool | None = None,
    image_size: Sides = None,
    mid_image_size: Sides = None,
    act: "Activation | None" = None,
    eps: float | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    classes: Sequence[str] | None = None,
    below: str | None = None,
    drop: Sequence[str] = (),
) -> "Detector":
    """Load DETR or YOLOS, in evaluation mode, from a file or folder of its authors or of transformers, the hub
    (hf://org/name[@revision]) or a published name.

    offline: use cached files only. The other options specify facts that the files do not contain. dilation: whether the
    last stage of DETR's trunk is dilated (DC5). image_size, mid_image_size: pixels per side, or (rows, columns), of the
    images that YOLOS' positions before and between the blocks were made for. below: read only tensors whose names start
    with this. drop: names or patterns of tensors to ignore; each is listed in the report.
    Raises: CheckpointError; for a missing fact, it gives the fact and the option.
    """
    from patchword.formats.detection.layout import DetectorOptions
    from patchword.inference.detector import load_detector as load_one

    facts = DetectorOptions(
        num_heads=num_heads,
        dilation=dilation,
        image_size=sides(image_size, "image_size"),
        mid_image_size=sides(mid_image_size, "mid_image_size"),
        act=act,
        eps=eps,
        mean=None if mean is None else tuple(mean),
        std=None if std is None else tuple(std),
        classes=None if classes is None else tuple(classes),
        below=below,
        drop=patterns(drop),
    )
    return load_one(path, device=device, options=facts, offline=offline)
