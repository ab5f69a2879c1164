"""Objects in boxes: a detector on a plain ViT, from scratch or from the weights of any ViT.

    patchword train blood/                                from scratch, ViT-Ti/16
    patchword train blood/ --model vit-s16-det            another size
    patchword train blood/ --weights hf://org/name        on the ViT of these weights

The image is as large as its small objects need, the maps as fine; every image is complete in a frame of the usual aspect
(`border`), so that nothing is stretched or cut off. AdamW with gradients clipped to norm 1 and averaged weights, cosine after a
warm-up. From weights, each block learns at 0.7 times the rate of the block after it, because the maps and the decoder are new
and the backbone is not.
"""

import math
from dataclasses import dataclass, replace

from patchword.errors import SettingsError, plural
from patchword.images.geometry import Border
from patchword.images.preprocess import Preprocess
from patchword.model.config import HeadConfig, PatchConfig, TokensConfig, ViTConfig
from patchword.model.kinds import MeanPool, Rope2d
from patchword.model.sizes import backbone_of, canonical, sized
from patchword.model.vitdet.config import VitDetConfig
from patchword.model.yolos_config import YolosConfig
from patchword.training.augment.box_settings import BoxAugmentSettings
from patchword.training.augment.settings import ColourSettings
from patchword.training.config import AverageSettings, RunSettings, TrainSettings
from patchword.training.memory import needed
from patchword.training.optim_settings import OptimSettings
from patchword.training.overlay import Overlay
from patchword.training.recipes.common import decay_over, stored_size
from patchword.training.recipes.facts import Choice, DataFacts, ObjectFacts, Size
from patchword.training.recipes.pretrained import card_for, preprocess_of
from patchword.training.schedule import ScheduleSettings
from patchword.training.tasks.detect_settings import DetectSettings, VitDetSettings
from patchword.training.tune import Full, LayerDecay

DESCRIPTION = "a detector on a plain ViT, from scratch or from weights"
DEFAULT_MODEL = "ViT-Ti/16"
# Longer sides to choose from, in pixels, and how many cells of the finest map a small object spans at least.
SIDES = (128, 192, 256, 320, 384, 448, 512, 640, 768, 896, 1024)
LEAST_SIDE, CELLS = 320, 1.5
# Objects so many patches across need no finer map; objects below so many need no coarser one.
LARGE_OBJECTS, SMALL_OBJECTS = 4.0, 2.0
QUERIES = (100, 200, 300, 600, 900)
# Queries for each object of the fullest image: without some to spare, few are left for what is hard to see.
SPARE = 1.5
BATCH, BATCH_LARGE = 8, 4
EPOCHS, MIN_STEPS, MAX_STEPS = 60, 2_000, 60_000
RATE, RATE_FROM_WEIGHTS, DECAY = 5e-4, 4e-4, 0.7
EVALUATIONS = 20
FEW_BOXES = 30
# A deviation below this makes strong outliers of weak contrasts.
LEAST_STD = 0.15


def settings_for(facts: DataFacts, overlay: Overlay) -> tuple[TrainSettings, list[Choice]]:
    """Return the settings for these data, and the choices as text. Raises: SettingsError as the other recipes."""
    objects = facts.objects
    assert objects is not None
    if facts.detr is not None:
        raise SettingsError(
            "the recipe detect trains a detector on a ViT, but the weights are those of DETR or of its ResNet",
            "remove --recipe, or give the weights of a ViT",
        )
    if isinstance(facts.detector, YolosConfig):
        raise SettingsError(
            "the recipe detect trains a detector on a ViT, but the weights are those of YOLOS",
            "remove --recipe, or give the weights of a ViT",
        )
    model, preprocess, why = _from_weights(facts, overlay) if facts.weights else _from_scratch(facts, overlay)
    shape = _maps(objects, model, _known(facts))
    why += [*shape.why, sizes_of_objects(facts, model)]
    settings = _settings(facts, overlay, model, preprocess, shape)
    return settings, [*why, _budget(facts, settings, overlay), _memory(facts, settings)]


def _from_scratch(facts: DataFacts, overlay: Overlay) -> tuple[ViTConfig, Preprocess, list[Choice]]:
    named = overlay.model_name()
    name = DEFAULT_MODEL if named is None else backbone_of(named) or canonical(named)
    reason = overlay.source("model") if named is not None else "the recipe's; change with --model"
    why = [Choice(what=f"{name} as the backbone", why=reason)]
    patch = overlay.get("model.patch.size")
    given = sized(name).patch.size if patch is None else PatchConfig(size=patch).size
    size, more = _size(facts, overlay, given)
    model = sized(name, image_size=size, in_channels=facts.channels, num_classes=0)
    model = replace(
        model,
        patch=replace(model.patch, size=given),
        tokens=TokensConfig(class_token=False),
        positions=Rope2d(),
        head=HeadConfig(pool=MeanPool(), num_classes=0),
    )
    preprocess = complete(
        Preprocess.simple(
            size,
            in_channels=facts.channels,
            mean=facts.mean,
            std=tuple(max(value, LEAST_STD) for value in facts.std),
            interpolation="bilinear",
        )
    )
    return model, preprocess, why + more


def _from_weights(facts: DataFacts, overlay: Overlay) -> tuple[ViTConfig, Preprocess, list[Choice]]:
    card = card_for("detect", facts, overlay)
    old, channels = card.config, card.config.image.channels
    if channels == 1:
        channels = facts.channels
    patch = overlay.get("model.patch.size")
    given = old.patch.size if patch is None else PatchConfig(size=patch).size
    size, why = _size(facts, overlay, given)
    model = replace(
        old,
        image=replace(old.image, size=size, channels=channels),
        patch=replace(old.patch, size=given),
        head=replace(old.head, num_classes=0, distilled=False),
    )
    return model, complete(preprocess_of(card, facts, model)), why


def complete(preprocess: Preprocess) -> Preprocess:
    """The complete image within the frame, with a border in the mean colour where its aspect is another."""
    return replace(preprocess, resize=Border(size=preprocess.image_size))


def _size(facts: DataFacts, overlay: Overlay, patch: Size) -> tuple[Size, list[Choice]]:
    """(h, w) in complete patches, of the usual aspect of the images."""
    given = overlay.get("model.image.size")
    if given is not None:
        return given, [Choice(what=text_of_size(given), why=overlay.source("model.image.size"))]
    assert facts.objects is not None
    small, longest = facts.objects.small, max(facts.size)
    wanted = CELLS * max(patch) / 2 / max(small, 1e-6)
    side = next((s for s in SIDES if s >= max(wanted, LEAST_SIDE)), SIDES[-1])
    reason = f"a tenth of the objects is below {small * longest:.0f} pixels in images of {longest}"
    if longest < side:
        side, reason = max(longest, max(patch) * 4), "the images have no more pixels"
    size = in_patches(tuple(side * part / longest for part in facts.size), patch)
    kept = small * max(size)
    return size, [
        Choice(what=text_of_size(size), why=f"{reason}; here {kept:.0f} pixels; the aspect of most images")
    ]


def in_patches(size: tuple[float, ...], patch: Size) -> Size:
    rows, columns = (max(round(side / p), 1) * p for side, p in zip(size, patch, strict=True))
    return rows, columns


def text_of_size(size: Size) -> str:
    return f"images of {size[1]}x{size[0]} pixels"


@dataclass(frozen=True, kw_only=True)
class _Maps:
    scales: tuple[float, ...]
    queries: int
    why: tuple[Choice, ...]


def _maps(objects: ObjectFacts, model: ViTConfig, known: VitDetConfig | None) -> _Maps:
    """The maps that objects of these sizes need, and the queries that the fullest image needs. known: of a detector's weights."""
    small, large = (_patches(side, model) for side in (objects.small, objects.large))
    scales = [2.0, 1.0, 0.5]
    if small >= LARGE_OBJECTS:
        scales.remove(2.0)
    if large < SMALL_OBJECTS:
        scales.remove(0.5)
    sizes = f"80 % of the objects are {small:.1f} to {large:.1f} patches across"
    if known is not None:
        scales, sizes = list(known.scales), "as in the weights"
    shown = " and ".join(f"{scale:g}" for scale in scales)
    queries = next((q for q in QUERIES if q >= SPARE * objects.most), QUERIES[-1])
    most = f"up to {plural(objects.most, 'object')} in an image"
    warning: tuple[Choice, ...] = ()
    if objects.most > queries:
        warning = (
            Choice(
                what=f"warning: {queries} queries",
                why=f"{most}, so some cannot be found; set task.detector.num_queries",
            ),
        )
    return _Maps(
        scales=tuple(scales),
        queries=queries,
        why=(
            Choice(what=f"maps of {shown} cells for each patch's side", why=sizes),
            Choice(what=f"{queries} queries", why=most),
            *warning,
        ),
    )


def _known(facts: DataFacts) -> VitDetConfig | None:
    """Of the weights, if they are those of a detector that patchword trained."""
    return facts.detector if isinstance(facts.detector, VitDetConfig) else None


def _patches(side: float, model: ViTConfig) -> float:
    """How many patches an object spans, of a side that is a share of the image's longer side."""
    return side * max(model.image.size) / max(model.patch_span)


def sizes_of_objects(facts: DataFacts, model: ViTConfig) -> Choice:
    """How large they are in patches; a warning if they are hard to see."""
    objects = facts.objects
    assert objects is not None
    median = _patches(objects.median, model)
    small = _patches(objects.small, model)
    what = f"objects of {median:.1f} patches (median)"
    why = f"{plural(objects.count, 'object')}; a tenth is below {small:.1f}"
    if small < 0.5:
        larger = math.ceil(max(model.image.size) / small / 32) * 32 // 2
        return Choice(what=f"warning: {what}", why=f"{why}, which is hard to see; try --image-size {larger}")
    return Choice(what=what, why=why)


def _budget(facts: DataFacts, settings: TrainSettings, overlay: Overlay) -> Choice:
    """Images and steps, and what that usually yields."""
    assert facts.objects is not None
    epochs, batch = settings.schedule.epochs, settings.run.batch_size
    steps = epochs * max(facts.num_images // batch, 1)
    each = facts.objects.count / max(facts.num_classes, 1)
    seen = f"{facts.num_images:,} images x {epochs} epochs = {steps:,} steps of {batch}"
    minutes = overlay.get("run.max_minutes")
    if minutes and overlay.get("schedule.epochs") is None:
        return Choice(what=f"as many epochs as fit into {minutes:g} minutes", why="measured by trial steps")
    return Choice(what=seen, why=_usual(steps, each, from_weights=facts.weights is not None))


def _memory(facts: DataFacts, settings: TrainSettings) -> Choice:
    need = needed(settings, facts.num_images).total
    why = "views have one size and images one number of queries, so no image needs more than another"
    return Choice(what=f"at least {need / 2**20:,.0f} MiB of memory", why=why)


def _usual(steps: int, each: float, *, from_weights: bool) -> str:
    boxes = f"{each:,.0f} boxes for each class"
    if each < FEW_BOXES:
        return f"{boxes} are few to learn from; some hundred are usual for a useful detector"
    if steps < (300 if from_weights else 1000):
        start = "from weights, 300" if from_weights else "from scratch, 1,000"
        return f"{boxes}; {start} steps or more are usual before boxes fit, so expect little; use --epochs"
    if from_weights:
        return f"{boxes}; usual for a first useful detector"
    return f"{boxes}; from scratch, boxes fit after some thousand steps; --weights needs far fewer"


def _detector(shape: _Maps, known: VitDetConfig | None) -> VitDetSettings:
    if known is None:
        return VitDetSettings(scales=shape.scales, num_queries=shape.queries)
    return replace(VitDetSettings.of(known), num_queries=shape.queries)


def warmup_for(epochs: int) -> float:
    return min(3.0, epochs / 10)


def evaluated_every(epochs: int) -> int:
    """In epochs: AP needs a pass over all held-out images."""
    return max(round(epochs / EVALUATIONS), 1)


def _settings(
    facts: DataFacts, overlay: Overlay, model: ViTConfig, preprocess: Preprocess, shape: _Maps
) -> TrainSettings:
    wide = model.dim > 384
    batch = max(min(BATCH_LARGE if wide else BATCH, facts.num_images // 2), 1)
    batch = overlay.get("run.batch_size") or batch
    steps_per_epoch = max(facts.num_images // batch, 1)
    epochs = overlay.get("schedule.epochs")
    if epochs is None:
        fewest, most = MIN_STEPS / steps_per_epoch, MAX_STEPS / steps_per_epoch
        epochs = max(1, math.ceil(min(max(EPOCHS, fewest), most)))
    scratch = facts.weights is None
    return TrainSettings(
        model=model,
        preprocess=preprocess,
        optim=OptimSettings(lr=RATE if scratch else RATE_FROM_WEIGHTS),
        schedule=ScheduleSettings(epochs=epochs, warmup_epochs=warmup_for(epochs), final_lr=0.01),
        tune=Full() if scratch else LayerDecay(decay=DECAY),
        task=DetectSettings(
            num_classes=facts.num_classes,
            detector=_detector(shape, _known(facts)),
            augment=BoxAugmentSettings(
                scale=(0.7, 1.6),
                stretch=(0.8, 1.25),
                flip=0.5 if facts.mirrors else 0.0,
                colour=ColourSettings(brightness=0.2, contrast=0.2, saturation=0.2),
            ),
        ),
        average=AverageSettings(decay=decay_over(epochs * steps_per_epoch)),
        run=RunSettings(
            batch_size=batch,
            stored_size=stored_size(model.image.size),
            evaluate_every=evaluated_every(epochs),
            recipe="detect",
        ),
    )
