"""How publishers' PyTorch code prepares images for evaluation, and the numbers it normalises with."""

from patchword.images.geometry import ResizeRule
from patchword.images.preprocess import Interpolation, Preprocess, Reading, Resample
from patchword.model.config import ViTConfig
from patchword.model.kinds import Size

# Mean and standard deviation.
Numbers = tuple[tuple[float, ...], tuple[float, ...]]
IMAGENET: Numbers = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF: Numbers = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
CLIP: Numbers = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def evaluation(
    config: ViTConfig,
    resize: ResizeRule,
    numbers: Numbers = ((0.5,), (0.5,)),
    *,
    size: Size | None = None,
    resample: Resample | Interpolation = "bicubic",
) -> Preprocess:
    """As torchvision's transforms do it, which ignore EXIF orientation.

    numbers: for as many channels as they are; for others, 0.5 is used. size: (h, w) of the images, if it is not the config's.
    """
    channels = config.image.channels
    mean, std = numbers if channels == len(numbers[0]) else ((0.5,), (0.5,))
    return Preprocess(
        image_size=size or config.image.size,
        resize=resize,
        in_channels=channels,
        resample=Resample(interpolation=resample) if isinstance(resample, str) else resample,
        mean=mean,
        std=std,
        reading=Reading(apply_exif=False),
    )
