"""All methods. A new one is a file and a line here."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from patchword.errors import SettingsError, near_text
from patchword.explaining.methods import (
    attention,
    grad_cam,
    gradient_activation,
    integrated_gradients,
    integrated_relevance,
    occlusion,
    outliers,
    pca,
    relevance,
    rollout,
    value_norm,
)
from patchword.explaining.methods.base import Job, Maps, Method
from patchword.explaining.methods.patches import images_at_once
from patchword.explaining.settings import MethodSettings
from patchword.model.vit import ViT

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        attention.METHOD,
        rollout.METHOD,
        value_norm.METHOD,
        relevance.METHOD,
        integrated_relevance.METHOD,
        grad_cam.METHOD,
        gradient_activation.METHOD,
        integrated_gradients.METHOD,
        occlusion.METHOD,
        pca.METHOD,
        outliers.METHOD,
    )
}


def methods_of(names: Sequence[str]) -> list[Method]:
    """Methods by name. Raises: SettingsError for an unknown one."""
    for name in names:
        if name not in METHODS:
            raise SettingsError(
                f"unknown method {name!r}{near_text(name, METHODS)}", f"use one of: {', '.join(METHODS)}"
            )
    return [METHODS[name] for name in dict.fromkeys(names)]


def maps_of(method: Method, job: Job) -> list[Maps]:
    """Run a method, a few images at a time where memory asks for it. vit must be in evaluation mode."""
    size = images_at_once(job.vit, job.images, gradients=method.class_aware)
    if len(job.images) <= size:
        return method.run(job)
    parts = []
    for start in range(0, len(job.images), size):
        part = slice(start, start + size)
        classes = None if job.classes is None else job.classes[part]
        parts.append(method.run(replace(job, images=job.images[part], classes=classes, record=None)))
    return [_joined(of_all) for of_all in zip(*parts, strict=True)]


def maps_by_name(
    name: str,
    vit: ViT,
    images: Tensor,
    classes: Tensor | None = None,
    settings: MethodSettings | None = None,
) -> list[Maps]:
    """The maps of one method for normalised images [B, C, H, W].

    classes [B]: whose logit is explained; needed by the methods that know a class.
    Raises: SettingsError for an unknown method, a layer or head that is not there, or a model without classes.
    """
    (method,) = methods_of([name])
    with torch.no_grad():
        return maps_of(
            method, Job(vit=vit, images=images, classes=classes, settings=settings or MethodSettings())
        )


def _joined(parts: Sequence[Maps]) -> Maps:
    first = parts[0]
    return Maps(
        label=first.label,
        signed=first.signed,
        values=torch.cat([part.values for part in parts]),
        elsewhere={name: torch.cat([part.elsewhere[name] for part in parts]) for name in first.elsewhere},
        facts={name: torch.cat([part.facts[name] for part in parts]) for name in first.facts},
    )
