"""What is tuned: everything, the head, the last blocks, everything at falling rates, adapters, or DETR with a slow trunk. Does not import torch."""

import re
from dataclasses import dataclass
from typing import ClassVar

from patchword.errors import SettingsError, near_text

# The root and the four stages of a ResNet.
TRUNK_PARTS = 5
# The linear maps of a block that an adapter can be added to.
LORA_PARTS = ("q", "k", "v", "proj", "fc1", "fc2")


@dataclass(frozen=True, kw_only=True)
class Full:
    """Tune every parameter at the same rate."""

    kind: ClassVar[str] = "full"

    @property
    def text(self) -> str:
        return self.kind


@dataclass(frozen=True, kw_only=True)
class Head:
    """Tune the head alone, on frozen features."""

    kind: ClassVar[str] = "head"

    @property
    def text(self) -> str:
        return self.kind


@dataclass(frozen=True, kw_only=True)
class Last:
    """Tune the last blocks, and what follows them: final norm, pooling, head."""

    kind: ClassVar[str] = "last"
    blocks: int = 2

    def __post_init__(self) -> None:
        if self.blocks < 1:
            raise SettingsError(
                f"tune.blocks is {self.blocks}", "use at least 1 block, or tune the head alone"
            )

    @property
    def text(self) -> str:
        return f"last:{self.blocks}"


@dataclass(frozen=True, kw_only=True)
class LayerDecay:
    """Tune everything, each block at `decay` times the rate of the block after it.

    Source: Bao et al. 2022 (BEiT, arXiv 2106.08254) and He et al. 2022 (MAE, arXiv 2111.06377), appendix A.2; 0.65 is
    MAE's value for ViT-B, 0.75 the one for ViT-L and ViT-H.
    """

    kind: ClassVar[str] = "llrd"
    decay: float = 0.65

    def __post_init__(self) -> None:
        if not 0 < self.decay <= 1:
            raise SettingsError(
                f"tune.decay is {self.decay}", "use a value above 0 and up to 1, such as 0.65"
            )

    @property
    def text(self) -> str:
        return f"llrd:{self.decay:g}"


@dataclass(frozen=True, kw_only=True)
class LoRA:
    """Tune low-rank adapters of the blocks' linear maps, and the head.

    Args:
        rank: of each adapter.
        alpha: an adapter's output is multiplied by alpha / rank.
        parts: the adapted maps, out of q, k, v, proj, fc1, fc2.
        dropout: on the adapters' input, during training only.

    Queries, keys and values get an adapter each, as in Hu et al. 2022 (arXiv 2106.09685), section 4.2. Their table 5 finds
    a small rank on more maps better than a large one on few; that all linear maps should have one is section 4 of
    Dettmers et al. 2023 (QLoRA, arXiv 2305.14314).
    """

    kind: ClassVar[str] = "lora"
    rank: int = 8
    alpha: float = 16.0
    parts: tuple[str, ...] = LORA_PARTS
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.rank < 1 or not 0 < self.alpha < float("inf") or not 0 <= self.dropout < 1:
            raise SettingsError(
                f"tune: rank {self.rank}, alpha {self.alpha}, dropout {self.dropout}",
                "use a rank of at least 1, a finite alpha above 0, and a dropout from 0 to below 1",
            )
        for part in self.parts:
            if part not in LORA_PARTS:
                raise SettingsError(
                    f"tune.parts contains {part!r}{near_text(part, LORA_PARTS)}",
                    f"use some of: {', '.join(LORA_PARTS)}",
                )
        if not self.parts or len(set(self.parts)) < len(self.parts):
            raise SettingsError(
                f"tune.parts is {list(self.parts)}",
                f"name at least one of {', '.join(LORA_PARTS)}, each once",
            )

    @property
    def text(self) -> str:
        return f"lora:{self.rank}"


@dataclass(frozen=True, kw_only=True)
class Trunk:
    """Tune DETR, its ResNet at `rate` times the learning rate of the rest.

    frozen: how many parts of the ResNet keep their weights, from the front: the root, then the four stages. DETR's authors
    train at a tenth, and freeze root and first stage: Carion et al. 2020 (arXiv 2005.12872), section 4;
    facebookresearch/detr, main.py and models/backbone.py.
    """

    kind: ClassVar[str] = "trunk"
    rate: float = 0.1
    frozen: int = 2

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1 or not 0 <= self.frozen <= TRUNK_PARTS:
            raise SettingsError(
                f"tune: rate {self.rate}, frozen {self.frozen}",
                f"use a rate above 0 and up to 1, such as 0.1, and from 0 to {TRUNK_PARTS} frozen parts",
            )

    @property
    def text(self) -> str:
        return f"trunk:{self.rate:g}"


TuneSettings = Full | Head | Last | LayerDecay | LoRA | Trunk
# What DETR can be tuned with; the others are for the blocks of a ViT.
FOR_DETR = (Full, Head, Trunk)

FORMS = ("full", "head", "last:K", "llrd", "llrd:DECAY", "lora", "lora:RANK", "trunk", "trunk:RATE")


def parse_tune(text: str) -> TuneSettings:
    """Read the value of `--tune`: full, head, last:K, llrd, llrd:0.75, lora, lora:16, trunk, trunk:0.1.

    Raises: SettingsError for anything else, with the nearest form.
    """
    name, colon, value = text.strip().lower().partition(":")
    fix = f"use one of: {', '.join(FORMS)}"
    names = ["full", "head", "last", "llrd", "lora", "trunk"]
    if name not in names:
        near = near_text(name, names)
        raise SettingsError(f"--tune {text}: there is no {name!r}{near}", fix)
    if not colon and name != "last":
        plain: dict[str, TuneSettings] = {
            "full": Full(),
            "head": Head(),
            "llrd": LayerDecay(),
            "lora": LoRA(),
            "trunk": Trunk(),
        }
        return plain[name]
    if name in ("full", "head"):
        raise SettingsError(f"--tune {text}: {name} takes no value", f"write --tune {name}")
    if name in ("llrd", "trunk"):
        if re.fullmatch(r"\d*\.?\d+", value) and 0 < float(value) <= 1:
            return LayerDecay(decay=float(value)) if name == "llrd" else Trunk(rate=float(value))
        what, example = ("decay", "llrd:0.65") if name == "llrd" else ("rate", "trunk:0.1")
        raise SettingsError(
            f"--tune {text}: {value!r} is not a {what} above 0 and up to 1", f"write it as --tune {example}"
        )
    if not re.fullmatch(r"[1-9]\d{0,5}", value):
        example, what = ("last:2", "number of blocks") if name == "last" else ("lora:8", "rank")
        raise SettingsError(
            f"--tune {text}: {value!r} is not a {what} of at least 1", f"write it as --tune {example}"
        )
    return Last(blocks=int(value)) if name == "last" else LoRA(rank=int(value), alpha=2.0 * int(value))
