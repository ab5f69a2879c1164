"""From scratch on small photographs (32 x 32 pixels), quickly on one GPU: a plain ViT with fewer than 6.5 million parameters.

    patchword train cifar10/ --recipe cifar

256 channels, 8 blocks, 4 heads, patches of 4 (64 tokens), rotary positions, mean pooling; Muon, batch 512, 150 epochs, linear
decay; shifts by 4 pixels, mirroring, RandAugment(2, 7), mixup 0.2 and CutMix 1 for half of the images, erasing 0.25, drop path 0.1.
On a GPU that supports it, bfloat16 is chosen as for every recipe.
Not measured and not tuned: these values follow from the recipe `scratch` and from what is usual on CIFAR-10. The only
published figure found for a plain ViT of this kind is 90.9 % in 4 h on a T4.
"""

from patchword.images.preprocess import Preprocess
from patchword.model.config import (
    AttentionConfig,
    BlockConfig,
    HeadConfig,
    ImageConfig,
    PatchConfig,
    TokensConfig,
    ViTConfig,
)
from patchword.model.kinds import MeanPool, Rope2d
from patchword.training.augment.settings import AugmentSettings, GeometrySettings, MixSettings, RandAugment
from patchword.training.config import AverageSettings, RunSettings, TrainSettings
from patchword.training.optim_settings import OptimSettings
from patchword.training.overlay import Overlay
from patchword.training.recipes.common import batch_for, decay_over, safe_std
from patchword.training.recipes.facts import Choice, DataFacts
from patchword.training.recipes.published import model_for, refuse_weights
from patchword.training.schedule import ScheduleSettings
from patchword.training.tasks.settings import ClassifySettings

DESCRIPTION = "from scratch on 32-pixel photographs, quickly on one GPU"
SIDE, EPOCHS, BATCH, DIM, DEPTH, HEADS = 32, 150, 512, 256, 8, 4


def settings_for(facts: DataFacts, overlay: Overlay) -> tuple[TrainSettings, list[Choice]]:
    """Return the settings for these data, and the choices as text. Raises: SettingsError if weights are given."""
    refuse_weights("cifar", facts)
    if overlay.model_name() is not None:
        model, why = model_for("cifar", facts, overlay, "")
    else:
        model, why = _model(facts, overlay)
    batch = batch_for(BATCH, facts.num_images)
    epochs = overlay.get("schedule.epochs") or EPOCHS
    steps = epochs * max(facts.num_images // batch, 1)
    augment = AugmentSettings(
        geometry=GeometrySettings(flip=0.5 if facts.mirrors else 0.0, translate=0.125, outside="zeros"),
        policy=RandAugment(operations=2, magnitude=7, noise=0.5, probability=0.5),
        mixing=MixSettings(mixup=0.2, cutmix=1.0, probability=0.5),
        erase=0.25,
    )
    settings = TrainSettings(
        model=model,
        preprocess=Preprocess.simple(
            model.image.size, in_channels=facts.channels, mean=facts.mean, std=safe_std(facts.std)
        ),
        augment=augment,
        optim=OptimSettings(method="muon", lr=1e-3, lr_rule="sqrt"),
        schedule=ScheduleSettings(
            shape="linear", epochs=epochs, warmup_epochs=min(5.0, epochs / 10), final_lr=0.001
        ),
        task=ClassifySettings(label_smoothing=0.1),
        average=AverageSettings(decay=decay_over(steps)),
        run=RunSettings(batch_size=batch, stored_size=model.image.size, recipe="cifar"),
    )
    return settings, why


def _model(facts: DataFacts, overlay: Overlay) -> tuple[ViTConfig, list[Choice]]:
    size = overlay.get("model.image.size") or (SIDE, SIDE)
    patch = overlay.get("model.patch.size") or (4, 4)
    dim = overlay.get("model.dim") or DIM
    depth = overlay.get("model.depth") or DEPTH
    heads = overlay.get("model.attention.num_heads") or max(dim // (DIM // HEADS), 1)
    model = ViTConfig(
        image=ImageConfig(size=size, channels=facts.channels),
        patch=PatchConfig(size=patch),
        dim=dim,
        depth=depth,
        tokens=TokensConfig(class_token=False),
        positions=Rope2d(),
        attention=AttentionConfig(num_heads=heads),
        block=BlockConfig(layer_scale=0.1, drop_path=0.1),
        head=HeadConfig(pool=MeanPool(), num_classes=facts.num_classes),
    )
    rows, columns = model.grid_size
    why = [
        Choice(
            what=f"images of {size[1]}x{size[0]} pixels in patches of {patch[1]}x{patch[0]}",
            why=f"each image becomes {rows} x {columns} = {rows * columns} tokens",
        ),
        Choice(what=f"{dim} channels, {depth} blocks, {heads} heads", why="the recipe cifar; not tuned"),
    ]
    return model, why
