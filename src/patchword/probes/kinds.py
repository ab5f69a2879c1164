"""The probes by name. Does not import torch."""

from typing import Literal

ProbeKind = Literal["knn", "linear", "attentive", "dino-knn", "dino-linear", "mae-linear"]
PROBES: tuple[ProbeKind, ...] = ("knn", "linear", "attentive", "dino-knn", "dino-linear", "mae-linear")
# Those that pass over the training images several times, in an order and from weights that a seed draws.
TRAINED: tuple[ProbeKind, ...] = ("attentive", "dino-linear", "mae-linear")
