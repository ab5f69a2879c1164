"""Images with a patch that decides their class, and models that must use it: one set by hand, one trained."""

import torch
import torch.nn.functional as F

from patchword.model.config import AttentionConfig, HeadConfig, ImageConfig, MLPConfig, PatchConfig, ViTConfig
from patchword.model.kinds import NoPositions
from patchword.model.vit import ViT

PATCH, GRID, CLASSES = 4, 8, 10


def hand_set() -> ViT:
    """The class token reads red patches for class 0 and green ones for class 1, on 32 x 32 pixels in patches of 4 x 4.

    Black patches are zero tokens: they move nothing, and coloured ones get over a hundred times their attention.
    """
    config = ViTConfig(
        image=ImageConfig(size=(32, 32)),
        patch=PatchConfig(size=(PATCH, PATCH)),
        dim=8,
        depth=2,
        positions=NoPositions(),
        attention=AttentionConfig(num_heads=1),
        mlp=MLPConfig(hidden=8),
        head=HeadConfig(num_classes=2, norm="none"),
    )
    vit = ViT(config, torch.Generator().manual_seed(0)).double().eval()
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.zero_()
        for norm in (module for module in vit.modules() if isinstance(module, torch.nn.LayerNorm)):
            norm.weight.fill_(1)
        for colour in (0, 1):
            vit.patch_embed.proj.weight[colour, colour] = 1 / PATCH**2
        vit.prefix.class_token[2] = 1.0
        for block in vit.blocks:
            attention = block.attention
            attention.qkv.bias[0] = 6.0
            attention.qkv.weight[8, :2] = 1.0  # keys: how coloured a patch is
            attention.qkv.weight[16, 0] = attention.qkv.weight[17, 1] = 1.0  # values: its colour
            attention.proj.weight[4, 0] = attention.proj.weight[5, 1] = 1.0
        vit.head.weight[0, 4] = vit.head.weight[1, 5] = 1.0
    return vit


def coloured(red: list[int], green: list[int] | None = None) -> torch.Tensor:
    """One image per entry of `red`, with a red patch there, and a green one at the entry of `green`: [B, 3, 32, 32]."""
    images = torch.zeros(len(red), 3, 32, 32, dtype=torch.float64)
    for colour, places in ((0, red), (1, green or [])):
        for index, place in enumerate(places):
            y, x = place // GRID * PATCH, place % GRID * PATCH
            images[index, colour, y : y + PATCH, x : x + PATCH] = 1.0
    return images


def patterned(count: int, seed: int, *, two: bool = False) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Smooth noise with one of ten fixed patterns at a random patch; `two`: with two of them at two patches.

    Returns images [count, 3, 32, 32], classes [count, 1 or 2] and places [count, 1 or 2].
    """
    draws = torch.Generator().manual_seed(seed)
    patterns = torch.randn(CLASSES, 3, PATCH, PATCH, generator=torch.Generator().manual_seed(99)) * 1.5
    images = F.interpolate(torch.randn(count, 3, 8, 8, generator=draws), size=(32, 32), mode="bicubic")
    many = 2 if two else 1
    scores = torch.rand(count, CLASSES, generator=draws), torch.rand(count, GRID**2, generator=draws)
    classes, places = (score.argsort(1)[:, :many] for score in scores)
    for index in range(count):
        for which in range(many):
            place = int(places[index, which])
            y, x = place // GRID * PATCH, place % GRID * PATCH
            images[index, :, y : y + PATCH, x : x + PATCH] = patterns[classes[index, which]]
    return images, classes, places


def trained(seed: int, steps: int = 300) -> ViT:
    """Three blocks of width 48 with a class token, trained on `patterned` images until they are right."""
    config = ViTConfig(
        image=ImageConfig(size=(32, 32)),
        patch=PatchConfig(size=(PATCH, PATCH)),
        dim=48,
        depth=3,
        attention=AttentionConfig(num_heads=4),
        mlp=MLPConfig(hidden=96),
        head=HeadConfig(num_classes=CLASSES),
    )
    vit = ViT(config, torch.Generator().manual_seed(seed)).train()
    optimiser = torch.optim.AdamW(vit.parameters(), lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps)
    for step in range(steps):
        images, classes, _ = patterned(128, 1000 * seed + step + 1)
        loss = F.cross_entropy(vit(images), classes[:, 0])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return vit.eval()
