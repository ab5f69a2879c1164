"""The named sizes, such as "ViT-B/16", and their configs. Pure data; does not import torch.

Width, depth, heads and MLP are as published; 224 pixels and 1000 classes unless specified. The
tests check the exact number of parameters of each size.
"""

import re
from dataclasses import dataclass

from patchword.errors import SettingsError, near_text
from patchword.model.config import (
    AttentionConfig,
    HeadConfig,
    ImageConfig,
    MLPConfig,
    PatchConfig,
    TokensConfig,
    ViTConfig,
)
from patchword.model.kinds import AttentionPool, Learned, Size

IMAGE_SIZE = 224


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The dimensions that a letter stands for; `patches` lists the published patch sizes."""

    dim: int
    depth: int
    num_heads: int
    mlp: int
    patches: tuple[int, ...]
    source: str
    attention_pool: bool = False


SHAPES: dict[str, Shape] = {
    "Ti": Shape(
        dim=192,
        depth=12,
        num_heads=3,
        mlp=768,
        patches=(16,),
        source="DeiT, Touvron et al. 2021 (arXiv 2012.12877); AugReg, Steiner et al. 2022 (arXiv 2106.10270)",
    ),
    "S": Shape(
        dim=384,
        depth=12,
        num_heads=6,
        mlp=1536,
        patches=(8, 14, 16, 32),
        source="DeiT and AugReg; /8 DINO, Caron et al. 2021 (arXiv 2104.14294); "
        "/14 DINOv2, Oquab et al. 2023 (arXiv 2304.07193)",
    ),
    "B": Shape(
        dim=768,
        depth=12,
        num_heads=12,
        mlp=3072,
        patches=(8, 14, 16, 32),
        source="Dosovitskiy et al. 2021 (arXiv 2010.11929), table 1; /8 DINO and AugReg; /14 DINOv2",
    ),
    "L": Shape(
        dim=1024,
        depth=24,
        num_heads=16,
        mlp=4096,
        patches=(14, 16, 32),
        source="Dosovitskiy et al. 2021, table 1; /14 CLIP, Radford et al. 2021 (arXiv 2103.00020)",
    ),
    "H": Shape(
        dim=1280,
        depth=32,
        num_heads=16,
        mlp=5120,
        patches=(14, 16),
        source="Dosovitskiy et al. 2021, table 1; /16 I-JEPA, Assran et al. 2023 (arXiv 2301.08243)",
    ),
    "g": Shape(
        dim=1408,
        depth=40,
        num_heads=16,
        mlp=6144,
        patches=(14, 16),
        source="Zhai et al. 2022 (arXiv 2106.04560), table 2; /16 I-JEPA",
    ),
    "So400m": Shape(
        dim=1152,
        depth=27,
        num_heads=16,
        mlp=4304,
        patches=(14, 16),
        source="Alabdulmohsin et al. 2023 (arXiv 2305.13035), with attention pooling and no class "
        "token as in SigLIP; /16 SigLIP 2, Tschannen et al. 2025 (arXiv 2502.14786)",
        attention_pool=True,
    ),
}

SIZES: tuple[str, ...] = tuple(
    f"ViT-{name}/{patch}" for name, shape in SHAPES.items() for patch in shape.patches
)


def sized(
    name: str,
    *,
    image_size: int | Size | None = None,
    in_channels: int = 3,
    num_classes: int = 1000,
) -> ViTConfig:
    """Return the config of a named size: "ViT-B/16", "b/16", or with an unpublished patch size ("Ti/4").

    image_size: pixels per side, or (rows, columns); None for 224.
    Raises: SettingsError for an unknown name, with the nearest known ones.
    """
    shape, patch = _parse(name)
    size = IMAGE_SIZE if image_size is None else image_size
    tokens, head = TokensConfig(), HeadConfig(num_classes=num_classes)
    if shape.attention_pool:
        tokens = TokensConfig(class_token=False)
        head = HeadConfig(pool=AttentionPool(), num_classes=num_classes)
    return ViTConfig(
        image=ImageConfig(size=(size, size) if isinstance(size, int) else size, channels=in_channels),
        patch=PatchConfig(size=(patch, patch)),
        dim=shape.dim,
        depth=shape.depth,
        tokens=tokens,
        positions=Learned(),
        attention=AttentionConfig(num_heads=shape.num_heads),
        mlp=MLPConfig(hidden=shape.mlp),
        head=head,
    )


def canonical(name: str) -> str:
    """ "b/16" → "ViT-B/16"."""
    shape, patch = _parse(name)
    return next(f"ViT-{letters}/{patch}" for letters, known in SHAPES.items() if known is shape)


def backbone_of(name: str) -> str | None:
    """The size of the backbone in a detector's name: "vit-ti16-det" and "ViT-Ti/16-det" → "ViT-Ti/16"; None for other names.

    Raises: SettingsError for an unknown size.
    """
    found = re.fullmatch(r"(.*?)/?(\d+)-det", name.strip(), re.IGNORECASE)
    return None if found is None else canonical(f"{found[1]}/{found[2]}")


def source_of(name: str) -> str:
    """The paper that defines a named size."""
    return _parse(name)[0].source


def _parse(name: str) -> tuple[Shape, int]:
    letters, slash, patch = name.strip().rpartition("/")
    if patch.lower().endswith("-det"):
        raise SettingsError(
            f"{name} is a detector, which finds objects in boxes", "use it to train on data with boxes"
        )
    letters = letters[4:] if letters.lower().startswith("vit-") else letters
    # Case is ignored, except that "G" is a larger model than "g".
    lowered = {key.lower(): shape for key, shape in SHAPES.items()}
    shape = None if letters == "G" else lowered.get(letters.lower())
    if shape is None or not slash or not patch.isdecimal() or int(patch) == 0:
        full = name if name.lower().startswith("vit-") else f"ViT-{name}"
        raise SettingsError(
            f"unknown model size {name!r}{near_text(full, SIZES)}", f"use one of: {', '.join(SIZES)}"
        )
    return shape, int(patch)
