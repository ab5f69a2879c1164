"""How much a model computes. A masked autoencoder's encoder sees some patches, its decoder all places. Imports torch for DETR alone."""

from dataclasses import replace

from patchword.model.config import ViTConfig
from patchword.model.cost import Cost, cost
from patchword.model.decoder import num_visible
from patchword.training.config import TrainSettings
from patchword.training.tasks.detect_settings import DetectSettings
from patchword.training.tasks.settings import MAESettings


def price(settings: TrainSettings) -> Cost:
    """Of the model, at its image size; a detector on a ViT is its backbone here. DETR's is that of the largest images."""
    if settings.detr is None or not isinstance(settings.task, DetectSettings):
        return cost(settings.vit)
    from patchword.model.detr import cost as detr

    return detr.cost(settings.detr.config(settings.task.num_classes), settings.preprocess.image_size)


def computed(settings: TrainSettings) -> tuple[ViTConfig, ...]:
    """The models whose passes a training view costs, at the sizes that they see: for most tasks, the model itself."""
    model = replace(settings.vit, image=replace(settings.vit.image, size=settings.view_size))
    if not isinstance(settings.task, MAESettings):
        return (model,)
    (rows, columns), (height, width) = model.grid_size, model.patch_span
    visible = num_visible(rows * columns, settings.task.decoder.mask_ratio)
    # A row of as many patches; positions do not change the cost.
    seen = replace(model, image=replace(model.image, size=(height, width * visible)))
    return seen, settings.task.decoder.trunk(model)


def share_of_a_pass(settings: TrainSettings) -> float:
    """The arithmetic of a training view, as a multiple of the model's on a complete one."""
    whole = replace(settings.vit, image=replace(settings.vit.image, size=settings.view_size))
    return sum(cost(part).flops for part in computed(settings)) / cost(whole).flops
