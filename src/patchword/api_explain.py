"""`explain`, `reconstruct`, `explain_detector` and `redundancy` of `import patchword as pw`: the numbers and arrays of `patchword explain`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from patchword.formats.facts import Options
from patchword.images.limits import MAX_PIXELS
from patchword.images.preprocess import ValueRange
from patchword.python_parameters import Sides, sides
from patchword.python_words import in_python
from patchword.weights.card import Provenance

if TYPE_CHECKING:
    from patchword.explaining.detection import Looked
    from patchword.explaining.explanation import Explanation
    from patchword.explaining.reconstruction import Reconstructed
    from patchword.explaining.redundancy import Redundancy
    from patchword.explaining.settings import Fill, Fuse
    from patchword.inference.model import Model


@in_python
def explain(
    model: "str | Path | Model",
    sources: Any,
    *,
    methods: str | Sequence[str] | None = None,
    class_name: str | None = None,
    layers: int | Sequence[int] | Literal["all"] | None = None,
    heads: int | Sequence[int] | Literal["all"] | None = None,
    fuse: "Fuse" = "mean",
    discard: float = 0.0,
    start: int = 0,
    steps: int = 64,
    fill: "Fill" = "mean",
    score: int | None = None,
    score_fills: "Sequence[Fill] | None" = None,
    images: int | None = None,
    seed: int = 0,
    device: str | None = None,
    offline: bool = False,
    options: Options | None = None,
    split: str | None = None,
    split_seed: int | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    split_column: str | None = None,
    class_level: int | None = None,
    value_range: ValueRange | None = None,
    max_pixels: int = MAX_PIXELS,
) -> "Explanation":
    """Explain the answers of a classifier or backbone: one map over the grid of patches per image and method.

    model: from `load`, or a path as for it. sources: one image, a list of them, or a path, as for `Model.predict`.
    methods: names as in docs/explain.md; None for the most faithful one on these images. class_name: explain this
    class; None for each image's most probable one. layers, heads, fuse, discard, start, steps, fill: see
    `patchword.explaining.settings.MethodSettings`. score: images on which faithfulness is measured, 0 for none; None for 4,
    or 2 of more than 100. score_fills: what removed patches show then, "mean" and "blur". images: a random sample of so many;
    None for all. seed: of samples and of the random order.
    Raises: as `load`; SettingsError for an unknown method or class, a layer or head that is not there, or a class map of
        a model without classes; ImageError for the first unreadable image.
    """
    return _explanation(locals())


def _explanation(asked: Mapping[str, Any]) -> "Explanation":
    """asked: the parameters of `explain`."""
    from patchword.explaining.explanation import explain_images
    from patchword.explaining.sample import chosen, sources_of
    from patchword.explaining.settings import MethodSettings, score_settings
    from patchword.inference.inputs import check_at_least_one
    from patchword.inference.load import load
    from patchword.inference.model import Model
    from patchword.inference.sources import reading_of

    check_at_least_one(images=asked["images"], max_pixels=asked["max_pixels"])
    columns = (
        "split",
        "split_seed",
        "image_column",
        "label_column",
        "split_column",
        "class_level",
        "max_pixels",
    )
    reading = reading_of(*(asked[name] for name in columns))
    plain = {name: asked[name] for name in ("fuse", "discard", "start", "steps", "fill")}
    settings = MethodSettings(layers=_indices(asked["layers"]), heads=_indices(asked["heads"]), **plain)
    model, methods, fills = asked["model"], asked["methods"], asked["score_fills"]
    if not isinstance(model, Model):
        model = load(model, device=asked["device"], options=asked["options"], offline=asked["offline"])
    given = chosen(sources_of(asked["sources"], reading, model.provenance), asked["images"], asked["seed"])
    return explain_images(
        model,
        given,
        methods=(methods,) if isinstance(methods, str) else tuple(methods or ()),
        class_name=asked["class_name"],
        settings=settings,
        scores=score_settings(
            len(given), asked["score"], None if fills is None else tuple(fills), asked["seed"]
        ),
        value_range=asked["value_range"],
        max_pixels=asked["max_pixels"],
    )


def _indices(given: "int | Sequence[int] | str | None") -> Any:
    return given if given is None or given == "all" else (given,) if isinstance(given, int) else tuple(given)


@in_python
def reconstruct(
    path: str | Path,
    sources: Any,
    *,
    images: int | None = None,
    mask_ratio: float | None = None,
    seed: int = 0,
    device: str | None = None,
    offline: bool = False,
    options: Options | None = None,
    split: str | None = None,
    split_seed: int | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    split_column: str | None = None,
    class_level: int | None = None,
    value_range: ValueRange | None = None,
    max_pixels: int = MAX_PIXELS,
) -> "list[Reconstructed]":
    """Let a masked autoencoder reconstruct images from a part of their patches.

    path: of the model with its decoder, as for `load_mae`. sources: one image, a list of them, or a path, as for
    `Model.predict`. images: a random sample of so many; None for all. mask_ratio: share of hidden patches; None for that
    of training. seed: decides, with the file name of each image, which patches are hidden. options: facts that the file
    does not contain.
    Raises: as `load_mae`; ImageError for the first unreadable image; SettingsError if no patch would be visible or hidden.
    """
    from patchword.explaining.reconstruction import reconstruct_each
    from patchword.explaining.sample import chosen, sources_of
    from patchword.inference.inputs import check_at_least_one
    from patchword.inference.load_mae import load_mae
    from patchword.inference.sources import reading_of

    check_at_least_one(images=images, max_pixels=max_pixels)
    reading = reading_of(split, split_seed, image_column, label_column, split_column, class_level, max_pixels)
    loaded = load_mae(path, device=device, options=options, offline=offline)
    given = chosen(sources_of(sources, reading, loaded.card.provenance), images, seed)
    preprocess = loaded.card.preprocess.with_range(value_range)
    return list(
        reconstruct_each(
            loaded.mae, preprocess, given, mask_ratio=mask_ratio, seed=seed, max_pixels=max_pixels
        )
    )


@in_python
def explain_detector(
    path: str | Path,
    sources: Any,
    *,
    conf: float | None = None,
    objects: int = 5,
    images: int | None = None,
    seed: int = 0,
    device: str | None = None,
    offline: bool = False,
    options: Options | None = None,
    split: str | None = None,
    split_seed: int | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    split_column: str | None = None,
    class_level: int | None = None,
    value_range: ValueRange | None = None,
    max_pixels: int = MAX_PIXELS,
) -> "list[Looked]":
    """Where the queries of a detector look: for each object that it finds, maps over the image or the points that are read.

    path: of a detector, as for `load_detector`. sources: one image, a list of them, or a path, as for `Model.predict`. conf: the
    lowest score of an object; None for the detector's `default_conf`. objects: at most so many of an image, the surest first.
    images: a random sample of so many; None for all. What is returned: see `patchword.explaining.detection`.
    Raises: as `load_detector`; ImageError for the first unreadable image; SettingsError.
    """
    from patchword.explaining.detection import look_each
    from patchword.explaining.sample import chosen, sources_of
    from patchword.formats.detection.layout import with_detector_facts
    from patchword.inference.detector import load_detector
    from patchword.inference.inputs import check_at_least_one
    from patchword.inference.sources import reading_of

    check_at_least_one(images=images, objects=objects, max_pixels=max_pixels)
    reading = reading_of(split, split_seed, image_column, label_column, split_column, class_level, max_pixels)
    facts = with_detector_facts(options or Options())
    detector = load_detector(path, device=device, options=facts, offline=offline)
    given = chosen(sources_of(sources, reading, detector.provenance), images, seed)
    return list(
        look_each(
            detector,
            given,
            conf=detector.checked_conf(conf),
            objects=objects,
            preprocess=detector.preprocess.with_range(value_range),
            max_pixels=max_pixels,
        )
    )


@in_python
def redundancy(
    sources: Any,
    *,
    images: int = 150,
    image_size: Sides = None,
    patch_size: int = 16,
    seed: int = 0,
    split: str | None = None,
    split_seed: int | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    split_column: str | None = None,
    class_level: int | None = None,
    value_range: ValueRange | None = None,
    max_pixels: int = MAX_PIXELS,
) -> "Redundancy":
    """Measure how much images repeat themselves, next to the same images with shuffled patches and white noise.

    sources: as for `Model.predict`. images: a random sample of at most so many. image_size: pixels per side; None for the
    median shorter side of the sample, at most 224. patch_size: pixels per side. What is measured: see
    `patchword.explaining.redundancy.redundancy`.
    Raises: DataError for fewer than four images, or if all are of one colour; ImageError for the first unreadable image;
    SettingsError for images of fewer than two patches per side.
    """
    from patchword.explaining.redundancy import redundancy as measure
    from patchword.explaining.sample import read_sample, sources_of, square
    from patchword.inference.inputs import check_at_least_one
    from patchword.inference.sources import reading_of

    check_at_least_one(images=images, patch_size=patch_size, max_pixels=max_pixels)
    reading = reading_of(split, split_seed, image_column, label_column, split_column, class_level, max_pixels)
    sample = read_sample(
        sources_of(sources, reading, Provenance()),
        count=images,
        patch=patch_size,
        size=square(sides(image_size, "image_size"), "--image-size"),
        seed=seed,
        value_range=value_range,
        max_pixels=max_pixels,
    )
    return measure(sample.images, patch_size, seed)
