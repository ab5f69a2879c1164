"""Read and write transformers' `preprocessor_config.json`."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from patchword.errors import CheckpointError
from patchword.formats.layouts.transformers_config import JsonConfig, Size, written
from patchword.images.geometry import Capped, Cover, Keep, Patches, ResizeRule, Shorter, Squash
from patchword.images.preprocess import Interpolation, Preprocess, Reading, Resample

FILE = "preprocessor_config.json"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
HALF = (0.5, 0.5, 0.5)
# With only a shorter side there is no crop.
_NO_LIMIT = 1_000_000
# Pillow's filter numbers.
_FILTERS: dict[int, Interpolation] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}


@dataclass(frozen=True, kw_only=True)
class Processor:
    """Defaults of one image processor.

    number: meaning of a `size` that is a plain number; "margin" is ConvNeXT's, a crop from a larger image.
    crop: whether it crops the centre.
    longest: a limit for the longer side, 0 for none. multiple: both sides go down to a multiple of it (YOLOS).
    more: what it does besides, for a whole system. An image is then resized to the size of the tower, and a note says so.
    """

    size: int = 224
    number: Literal["square", "shorter", "margin"] = "square"
    crop: bool = False
    crop_size: int = 224
    interpolation: Interpolation = "bicubic"
    mean: tuple[float, ...] = HALF
    std: tuple[float, ...] = HALF
    rounding: Literal["uint8", "none"] = "uint8"
    longest: int = 0
    multiple: int = 1
    more: str = ""


_DETECTION = Processor(
    size=800, number="shorter", longest=1333, interpolation="bilinear", mean=IMAGENET_MEAN, std=IMAGENET_STD
)

_TILES = "cuts large images into tiles"
# Source: transformers 5.23, `image_processing_*.py`.
PROCESSORS: dict[str, Processor] = {
    "ViT": Processor(interpolation="bilinear"),
    "DeiT": Processor(size=256, crop=True),
    "Beit": Processor(),
    "CLIP": Processor(number="shorter", crop=True, mean=CLIP_MEAN, std=CLIP_STD),
    "ChineseCLIP": Processor(number="shorter", crop=True, mean=CLIP_MEAN, std=CLIP_STD),
    "Siglip": Processor(),
    "Siglip2": Processor(interpolation="bilinear"),
    "Bit": Processor(number="shorter", crop=True, mean=CLIP_MEAN, std=CLIP_STD),
    "DINOv3ViT": Processor(interpolation="bilinear", rounding="none", mean=IMAGENET_MEAN, std=IMAGENET_STD),
    "ConvNext": Processor(size=384, number="margin"),
    "Blip": Processor(size=384, mean=CLIP_MEAN, std=CLIP_STD),
    "OwlViT": Processor(size=768, crop_size=768, mean=CLIP_MEAN, std=CLIP_STD),
    "Tipsv2": Processor(size=448, interpolation="bilinear", mean=(0.0,) * 3, std=(1.0,) * 3),
    "Llava": Processor(number="shorter", crop=True, mean=CLIP_MEAN, std=CLIP_STD),
    "Gemma3": Processor(interpolation="bilinear"),
    "Owlv2": Processor(
        interpolation="bilinear", mean=CLIP_MEAN, std=CLIP_STD, more="pads images to a square first"
    ),
    "Janus": Processor(mean=CLIP_MEAN, std=CLIP_STD, more="pads images to a square"),
    "GotOcr2": Processor(mean=CLIP_MEAN, std=CLIP_STD, more=_TILES),
    "Idefics2": Processor(interpolation="bilinear", more=_TILES),
    "Idefics3": Processor(interpolation="lanczos", more=_TILES),
    "SmolVLM": Processor(interpolation="lanczos", more=_TILES),
    "LlavaNext": Processor(mean=CLIP_MEAN, std=CLIP_STD, more=_TILES),
    "LlavaOnevision": Processor(mean=CLIP_MEAN, std=CLIP_STD, more=_TILES),
    "Phi4Multimodal": Processor(interpolation="bicubic", more=_TILES),
    "Detr": _DETECTION,
    "Yolos": replace(_DETECTION, multiple=16),
}
# Of detectors, by the multiple that the sides go down to.
_DETECTORS = {1: "Detr", 16: "Yolos"}
_ENDINGS = ("Fast", "Pil", "ImageProcessor", "FeatureExtractor")


def read_preprocess(declared: JsonConfig, usual: str, channels: int, image_size: Size) -> Preprocess | None:
    """The preprocessing in the file; None if there is no file. usual: the default processor.

    image_size: the model's size, used if the file has none.
    """
    if not declared.values:
        return None
    name = _processor_name(declared, usual)
    if name not in PROCESSORS:
        raise CheckpointError(
            f"{declared.name}: {FILE} specifies {declared.values.get('image_processor_type')!r}, which patchword does not support",
            f"remove {FILE} and pass --mean, --std and --image-size",
        )
    processor = PROCESSORS[name]
    if name == "Siglip2":
        rule, size = _patches(declared, image_size)
    elif processor.more:
        rule, size = Squash(size=image_size, crop="floor"), image_size
    else:
        rule, size = _rule(declared, processor, image_size)
    mean, std = _mean_std(declared, processor, channels)
    return Preprocess(
        image_size=size,
        resize=rule,
        in_channels=channels,
        resample=Resample(interpolation=_interpolation(declared, processor), rounding=processor.rounding),
        mean=mean,
        std=std,
        reading=Reading(apply_exif=True),
    )


def simplified(declared: JsonConfig, usual: str) -> tuple[str, ...]:
    """A note if the processor in the file does more than patchword. usual: the default processor."""
    processor = PROCESSORS.get(_processor_name(declared, usual)) if declared.values else None
    if processor is None or not processor.more:
        return ()
    return (
        f"{_processor_name(declared, usual)}ImageProcessor {processor.more}; patchword resizes each image to the tower's size",
    )


def _processor_name(declared: JsonConfig, usual: str) -> str:
    name = declared.text("image_processor_type") or declared.text("feature_extractor_type")
    if name is None:
        return usual
    for ending in _ENDINGS:
        name = name.removesuffix(ending)
    return name


def _rule(declared: JsonConfig, processor: Processor, image_size: Size) -> tuple[ResizeRule, Size]:
    stated = declared.flag("do_center_crop")
    crop = processor.crop if stated is None else stated
    cropped = declared.size("crop_size") or (processor.crop_size, processor.crop_size)
    if declared.flag("do_resize") is False:
        if crop:
            raise CheckpointError(
                f"{declared.name}: {FILE} crops the centre without resizing first, which patchword does not support",
                f"set do_resize in {FILE} to true",
            )
        return Keep(), image_size
    if processor.number == "margin" and not crop:
        return _with_margin(declared, processor)
    rule = _resize(declared, processor, image_size, crop=crop)
    if crop:
        return rule, cropped
    if isinstance(rule, Squash):
        return rule, rule.size
    return rule, image_size


def _with_margin(declared: JsonConfig, processor: Processor) -> tuple[ResizeRule, Size]:
    """Resize both sides for sizes from 384; below, resize the shorter side to a larger size and crop the centre."""
    size = declared.values.get("size")
    edges = (
        declared.part("size").whole("shortest_edge") if isinstance(size, Mapping) else declared.whole("size")
    )
    side = processor.size if size is None else edges
    part = declared.number("crop_pct") or 224 / 256
    if not side or part <= 0:
        raise declared.wrong("size", "a shortest_edge that crop_pct divides")
    rule = (
        Squash(size=(side, side), crop="floor")
        if side >= 384
        else Shorter(size=int(side / part), crop="floor")
    )
    return rule, (side, side)


def _resize(declared: JsonConfig, processor: Processor, image_size: Size, *, crop: bool) -> ResizeRule:
    size = declared.values.get("size")
    if isinstance(size, Mapping) and "shortest_edge" in size:
        edges = declared.part("size")
        shorter, longest = edges.whole("shortest_edge"), edges.whole("longest_edge")
        if not shorter:
            raise declared.wrong("size", "an object of integers")
        if longest or not crop:
            return _capped(shorter, longest, processor)
        return Shorter(size=shorter, crop="floor")
    sides = declared.size("size")
    if processor.number != "square" and not isinstance(size, Mapping):
        shorter = min(sides) if sides else processor.size
        if not crop:
            return _capped(shorter, declared.whole("max_size") or processor.longest, processor)
        return Shorter(size=shorter, crop="floor")
    # Without a crop, use the model's own size; only a crop needs a margin.
    usual = (processor.size, processor.size) if crop else image_size
    return Squash(size=sides or usual, crop="floor")


def _capped(shorter: int, longest: int | None, processor: Processor) -> Capped:
    return Capped(shorter=shorter, longest=longest or _NO_LIMIT, longer="exact", multiple=processor.multiple)


def _patches(declared: JsonConfig, image_size: Size) -> tuple[ResizeRule, Size]:
    patch = declared.size("patch_size") or (16, 16)
    return Patches(patch=patch, max_patches=declared.whole("max_num_patches") or 256), image_size


def _interpolation(declared: JsonConfig, processor: Processor) -> Interpolation:
    number = declared.whole("resample")
    if number is None:
        return processor.interpolation
    if number not in _FILTERS:
        raise declared.wrong("resample", "0 (nearest), 1 (lanczos), 2 (bilinear) or 3 (bicubic)")
    return _FILTERS[number]


def _mean_std(
    declared: JsonConfig, processor: Processor, channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std for values in 0..1, whatever range the file rescales to."""
    mean = _channels(declared, "image_mean", processor.mean, channels)
    std = _channels(declared, "image_std", processor.std, channels)
    if declared.flag("do_normalize") is False:
        mean, std = (0.0,), (1.0,)
    factor = declared.number("rescale_factor")
    if factor is None:
        factor = 1 / 255
    if declared.flag("do_rescale") is False:
        factor = 1.0
    if factor <= 0:
        raise declared.wrong("rescale_factor", "a number above 0")
    scale = 255 * factor
    if abs(scale - 1) < 1e-6:
        return mean, std
    return tuple(m / scale for m in mean), tuple(s / scale for s in std)


def _channels(declared: JsonConfig, key: str, usual: tuple[float, ...], channels: int) -> tuple[float, ...]:
    value = declared.values.get(key)
    if value is None:
        return usual if channels == len(usual) else (0.5,)
    numbers = value if isinstance(value, list) else [value]
    if any(isinstance(n, bool) or not isinstance(n, int | float) for n in numbers):
        raise declared.wrong(key, "a list of numbers")
    if len(numbers) not in (1, channels):
        raise CheckpointError(
            f"{declared.name}: {FILE} has {key} for {len(numbers)} channels, but the model has {channels}",
            f"fix {key}",
        )
    return tuple(float(n) for n in numbers)


def usual_preprocess(name: str, channels: int, size: Size, *, shorter: int | None = None) -> Preprocess:
    """Preprocessing of a family's published models. shorter: the side before the crop, if they crop."""
    processor = PROCESSORS[name]
    rule: ResizeRule
    if processor.number == "shorter":
        rule = Shorter(size=shorter or min(size), crop="floor")
    elif name == "DeiT":
        rule = Squash(size=(size[0] * 256 // 224, size[1] * 256 // 224), crop="floor")
    else:
        rule = Squash(size=size, crop="floor")
    three = channels == 3
    return Preprocess(
        image_size=size,
        resize=rule,
        in_channels=channels,
        resample=Resample(interpolation=processor.interpolation, rounding=processor.rounding),
        mean=processor.mean if three else (0.5,),
        std=processor.std if three else (0.5,),
    )


# Writing -----------------------------------------------------------------------------------


def write_detection_preprocess(preprocess: Preprocess) -> bytes:
    """The processor of DETR or YOLOS for this preprocessing. Raises: CheckpointError for a rule that neither has."""
    rule = preprocess.resize
    if not (isinstance(rule, Capped) and rule.longest < _NO_LIMIT and rule.multiple in _DETECTORS):
        raise CheckpointError(
            f"no image processor of transformers' detectors supports the resize rule {rule.kind!r} ({rule})",
            "choose another format",
        )
    edges = {"shortest_edge": rule.shorter, "longest_edge": rule.longest}
    name = f"{_DETECTORS[rule.multiple]}ImageProcessor"
    return _written(preprocess, {"image_processor_type": name, "size": edges, "do_pad": True})


def write_preprocess(preprocess: Preprocess) -> bytes:
    """The processor that matches this preprocessing, or the closest one.

    All of them antialias when shrinking, and none averages over areas. Other filters become bilinear
    or the antialiased filter of their name, as in the published conversions of such weights.
    Raises: CheckpointError for a resize rule that no processor supports.
    """
    return _written(preprocess, _written_rule(preprocess))


def _written(preprocess: Preprocess, rule: dict[str, Any]) -> bytes:
    values: dict[str, Any] = {
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": _every(preprocess.mean, preprocess.in_channels),
        "image_std": _every(preprocess.std, preprocess.in_channels),
        "rescale_factor": 1 / 255,
        "resample": _filter(preprocess.resample.interpolation),
    }
    return written(values | rule)


def _written_rule(preprocess: Preprocess) -> dict[str, Any]:
    rule, (height, width) = preprocess.resize, preprocess.image_size
    crop = {"do_center_crop": True, "crop_size": {"height": height, "width": width}}
    match rule:
        case Squash(size=size):
            both = {"size": {"height": size[0], "width": size[1]}}
            if size != preprocess.image_size:
                return {"image_processor_type": "DeiTImageProcessor", **both, **crop}
            stays_float = preprocess.resample.rounding == "none" and preprocess.resample.antialias
            name = "DINOv3ViT" if stays_float else "ViT"
            return {"image_processor_type": f"{name}ImageProcessor", **both}
        case Shorter(size=side):
            return {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": side}, **crop}
        case Cover(size=size) if size[0] == size[1]:
            return {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": size[0]}, **crop}
        case Capped(shorter=side, longest=longest, longer="exact", multiple=1) if longest >= _NO_LIMIT:
            name = "CLIPImageProcessor"
            return {"image_processor_type": name, "size": {"shortest_edge": side}, "do_center_crop": False}
        case Patches(patch=patch, max_patches=most) if patch[0] == patch[1]:
            return {
                "image_processor_type": "Siglip2ImageProcessor",
                "patch_size": patch[0],
                "max_num_patches": most,
            }
        case Keep():
            return {"image_processor_type": "ViTImageProcessor", "do_resize": False}
    raise CheckpointError(
        f"no image processor of transformers supports the resize rule {rule.kind!r} ({rule})",
        "load the model with other preprocessing (image_size), or choose another format",
    )


def _filter(interpolation: Interpolation) -> int:
    numbers = {name: number for number, name in _FILTERS.items()}
    return numbers.get(interpolation, numbers["bilinear"])


def _every(values: tuple[float, ...], channels: int) -> list[float]:
    return list(values * channels if len(values) == 1 else values)
