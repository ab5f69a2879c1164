"""The settings of a set loss. Does not import torch."""

from dataclasses import dataclass, fields

from patchword.errors import SettingsError


@dataclass(frozen=True, kw_only=True)
class SetLossConfig:
    """Costs of matching predictions with objects, and weights of the losses; the defaults are DETR's.

    Args:
        cost_class, cost_l1, cost_giou: of a query and an object, for the matching.
        weight_class, weight_l1, weight_giou: of the terms in the total loss.
        no_object: weight of the class "no object" in the cross-entropy, which most queries have.

    Source: Carion et al. 2020 (arXiv 2005.12872), appendix A.4.
    """

    cost_class: float = 1.0
    cost_l1: float = 5.0
    cost_giou: float = 2.0
    weight_class: float = 1.0
    weight_l1: float = 5.0
    weight_giou: float = 2.0
    no_object: float = 0.1

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self)):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise SettingsError(f"loss.{name} is {value}", f"set loss.{name} to a finite value from 0")
        if not any((self.cost_class, self.cost_l1, self.cost_giou)):
            raise SettingsError(
                "every matching cost is 0, so any query would fit any object", "set loss.cost_class = 1"
            )
        if not self.no_object:
            raise SettingsError(
                "loss.no_object is 0, so queries without an object would learn nothing",
                "set loss.no_object = 0.1",
            )
