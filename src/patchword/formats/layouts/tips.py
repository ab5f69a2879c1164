"""TIPS and TIPSv2, image encoders: DINOv2's names in `.npz`. Source: google-deepmind/tips `pytorch/run_image_encoder_inference.py`."""

from patchword.formats.checkpoint import Checkpoint
from patchword.formats.layouts.dinov2 import DINOv2
from patchword.formats.layouts.original import USUAL_HEADS, AuthorsFile, Constants
from patchword.images.geometry import Squash
from patchword.images.preprocess import Preprocess, Reading
from patchword.images.preprocess import Resample as PixelResample
from patchword.model.config import ViTConfig
from patchword.model.kinds import Learned, Positions, Resample


class TIPS(DINOv2):
    """Two class tokens: the first learned from captions of the web, the second, a register here, from synthetic ones."""

    name = "tips"
    title = "TIPS (its authors' .npz)"
    container = "npz"
    file_name = "model.npz"
    constants = Constants(who="TIPS' code", heads=USUAL_HEADS | {1152: 16, 1536: 24}, layer_scale=1.0)
    published = r"tips\w*()"

    def recognise(self, checkpoint: Checkpoint) -> str | None:
        why = self.signs(checkpoint) if checkpoint.stored.container == "npz" else None
        return None if why is None else f"{why} in .npz"

    def positions(self, file: AuthorsFile) -> Positions:
        return Learned(resample=Resample(interpolation="bilinear"))

    def evaluated(self, file: AuthorsFile, config: ViTConfig) -> tuple[Preprocess, str, tuple[str, ...]]:
        """Pixels stay between 0 and 1."""
        size = config.image.size
        usual = Preprocess(
            image_size=size,
            resize=Squash(size=size),
            in_channels=config.image.channels,
            resample=PixelResample(interpolation="bilinear"),
            mean=(0.0,) * config.image.channels,
            std=(1.0,) * config.image.channels,
            reading=Reading(apply_exif=False),
        )
        note = "the embedding is the first of two class tokens; the second is the register, tokens[:, 1]"
        return usual, "TIPS' inference script", (note,)
