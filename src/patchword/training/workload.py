"""How much a masked autoencoder computes: its encoder sees some patches, its decoder all places. Does not import torch."""

from dataclasses import replace

from patchword.model.config import ViTConfig
from patchword.model.cost import cost
from patchword.model.decoder import num_visible
from patchword.training.config import TrainSettings
from patchword.training.tasks.settings import MAESettings


def computed(settings: TrainSettings) -> tuple[ViTConfig, ...]:
    """The models whose passes a training view costs, at the sizes that they see: for most tasks, the model itself."""
    model = replace(settings.model, image=replace(settings.model.image, size=settings.view_size))
    if not isinstance(settings.task, MAESettings):
        return (model,)
    (rows, columns), (height, width) = model.grid_size, model.patch_span
    visible = num_visible(rows * columns, settings.task.decoder.mask_ratio)
    # A row of as many patches; positions do not change the cost.
    seen = replace(model, image=replace(model.image, size=(height, width * visible)))
    return seen, settings.task.decoder.trunk(model)


def share_of_a_pass(settings: TrainSettings) -> float:
    """The arithmetic of a training view, as a multiple of the model's on a complete one."""
    whole = replace(settings.model, image=replace(settings.model.image, size=settings.view_size))
    return sum(cost(part).flops for part in computed(settings)) / cost(whole).flops
