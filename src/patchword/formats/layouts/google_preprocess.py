"""Preprocessing of Google's models by family, since no file states it. All use pixels in -1..1 and TensorFlow's resizes.

Sources: vision_transformer `vit_jax/input_pipeline.py`; big_vision `configs/vit_i1k.py`, `configs/transfer.py`, the
SigLIP notebooks and `pp/proj/image_text/ops_naflex.py`.
"""

from patchword.formats.layouts.google_names import INPUT_POSITIONS, NamingVariant
from patchword.images.geometry import Cover, Patches, ResizeRule, Shorter, Squash
from patchword.images.preprocess import Preprocess, Reading, Resample
from patchword.model.config import ViTConfig

MAX_PATCHES = 256  # in the published NaFlex models


def preprocess_of(config: ViTConfig, spelling: NamingVariant) -> tuple[Preprocess, str]:
    """The preprocessing and its source."""
    size = config.image.size
    resize: ResizeRule
    if spelling.flat_patches:
        resize = Patches(patch=config.patch.size, max_patches=MAX_PATCHES)
        how, source = (
            Resample(interpolation="bilinear", antialias=True, rounding="none"),
            "big_vision's NaFlex",
        )
    elif spelling.two_towers:
        resize = Squash(size=size)
        how = Resample(interpolation="bilinear", antialias=False, rounding="truncate")
        source = "big_vision's two towers (SigLIP, LiT)"
    elif spelling.positions == INPUT_POSITIONS:
        resize = Squash(size=size)
        how = Resample(interpolation="bilinear", antialias=False, rounding="none")
        source = "vision_transformer's input pipeline"
    else:
        resize = _shorter(size) if size[0] == size[1] else Cover(size=size)
        how = Resample(interpolation="area", antialias=False, rounding="truncate")
        source = "big_vision's ImageNet configs"
    preprocess = Preprocess(
        image_size=size,
        resize=resize,
        in_channels=config.image.channels,
        resample=how,
        # TensorFlow's decoder ignores EXIF orientation.
        reading=Reading(apply_exif=False),
    )
    return preprocess, source


def _shorter(size: tuple[int, int]) -> Shorter:
    """Resize to 256 for a 224 crop and 448 for 384, as published; other sizes use the closer ratio."""
    side = size[0]
    margin = side * 7 // 6 if side >= 384 else side * 8 // 7
    return Shorter(size=margin, longer="half-even", crop="floor")
