"""Small models of the ports with random weights, and what they answer: recorded cases for support.pack_cases.

python -m support.port_cases FOLDER    # in tests/; needs timm, torchvision, open_clip and vit-pytorch, as `make test` does not
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import timm
import torch
import torchvision
from timm.models import save_for_hf
from torch import Tensor, nn
from vit_pytorch import SimpleViT, ViT, simple_vit_with_register_tokens

SMALL: dict[str, Any] = {
    "embed_dim": 8,
    "depth": 2,
    "num_heads": 2,
    "patch_size": 4,
    "img_size": [16, 24],
    "num_classes": 5,
}
_NAFLEX = {key: value for key, value in SMALL.items() if key != "img_size"} | {"pos_embed_grid_size": [4, 6]}
# By the family's name: the architecture that timm is asked for, and how it is made small.
TIMM: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("vit_tiny_patch16_224", {**SMALL, "img_size": [16, 16], "no_embed_class": True}),
    "siglip": ("vit_base_patch16_siglip_224", {**SMALL, "num_classes": 0}),
    "aimv2": ("aimv2_large_patch14_224", SMALL),
    "deit": ("deit_tiny_distilled_patch16_224", SMALL),
    "deit3": ("deit3_small_patch16_224", SMALL),
    "dinov2": ("vit_giant_patch14_reg4_dinov2", SMALL),
    "dinov3": ("vit_small_plus_patch16_dinov3", {**SMALL, "num_classes": 0}),
    "beit": ("beit_base_patch16_224", SMALL),
    "beit2": ("beitv2_base_patch16_224", {**SMALL, "global_pool": "token"}),
    "eva01": ("eva_giant_patch14_224", SMALL),
    "eva02": ("eva02_base_patch14_448", SMALL),
    "eva": ("eva02_base_patch16_clip_224", SMALL),
    "pe": ("vit_pe_core_base_patch16_224", {**SMALL, "attn_pool_num_heads": 2}),
    "rope_vit": ("vit_small_patch16_rope_mixed_ape_224", SMALL),
    "naflexvit": ("naflexvit_base_patch16_siglip", {**_NAFLEX, "num_classes": 0}),
    "vit_relpos": ("vit_relpos_base_patch16_224", SMALL),
}


def drawn(model: nn.Module) -> Any:
    """With weights that all matter: no bias zero, no norm one."""
    torch.manual_seed(0)
    for name, value in model.named_parameters():
        noise = torch.randn_like(value)
        around_one = value.ndim == 1 and name.endswith("weight")
        value.data = 1 + 0.2 * noise if around_one else 0.2 * noise
        if name.endswith(("ls1.gamma", "ls2.gamma", "gamma_1", "gamma_2")):
            value.data = 0.5 + 0.2 * noise
    return model.eval()


def picture(*size: int) -> Tensor:
    return torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))


def write(
    folder: Path,
    origin: str,
    family: str,
    load: str,
    hints: dict[str, Any],
    made: str,
    image: Tensor,
    outputs: dict[str, Tensor],
) -> None:
    name = folder.name
    meta = {
        "case": name,
        "kind": "backbone",
        "origin": origin,
        "family": family,
        "load": load,
        "hints": hints,
        "inputs": {"image": "image"},
        "outputs": {key: key for key in outputs},
        "tolerance": 2e-5,
        "made_with": f"{made}, random weights",
        "notes": [],
    }
    (folder / "meta.json").write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")
    np.savez(folder / "io.npz", image=image.numpy(), **{key: value.numpy() for key, value in outputs.items()})


def record_timm(folder: Path) -> None:
    for family, (architecture, arguments) in TIMM.items():
        model = drawn(timm.create_model(architecture, **arguments))
        image = picture(*arguments.get("img_size", (16, 24)))
        tokens = model.forward_features(image)
        found = {"tokens": tokens}
        if not hasattr(
            model, "head_dist"
        ):  # there timm takes the mean of both heads' tokens, we the class token
            found["embedding"] = model.forward_head(tokens, pre_logits=True)
        if model.num_classes:
            found["logits"] = model(image)
        case = folder / f"timm_small_{family}"
        save_for_hf(model, case, model_args=arguments, safe_serialization=True)
        write(case, "timm", family, ".", {}, f"timm {timm.__version__}, {architecture}", image, found)


def record_torchvision(folder: Path) -> None:
    model = drawn(
        torchvision.models.VisionTransformer(
            image_size=16, patch_size=4, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=20, num_classes=5
        )
    )
    image, case = picture(16, 16), folder / "torchvision_small_vit"
    case.mkdir()
    torch.save(model.state_dict(), case / "model.pth")
    made = f"torchvision {torchvision.__version__}, VisionTransformer"
    write(case, "torchvision", "vit", "model.pth", {"num_heads": 2}, made, image, {"logits": model(image)})


def record_lucidrains(folder: Path) -> None:
    sizes = {
        "image_size": 16,
        "patch_size": 4,
        "num_classes": 5,
        "dim": 8,
        "depth": 2,
        "heads": 2,
        "mlp_dim": 20,
        "dim_head": 4,
    }
    registers = simple_vit_with_register_tokens.SimpleViT(**sizes, num_register_tokens=3)
    computed = {"num_heads": 2, "image_size": 16}
    cases: dict[str, tuple[nn.Module, dict[str, Any]]] = {
        "vit": (ViT(**sizes), {"num_heads": 2, "pool": "class"}),
        "simple_vit": (SimpleViT(**sizes), computed),
        "simple_vit_register": (registers, computed),
    }
    for family, (model, hints) in cases.items():
        image, case = picture(16, 16), folder / f"lucidrains_small_{family}"
        case.mkdir()
        torch.save(drawn(model).state_dict(), case / "model.pt")
        made = f"vit-pytorch {version('vit-pytorch')}, {type(model).__name__}"
        write(case, "lucidrains", family, "model.pt", hints, made, image, {"logits": model(image)})


def record_open_clip(folder: Path) -> None:
    """A file of its training: every key behind `module.`, and the text tower beside the visual one."""
    vision = {"image_size": 16, "layers": 2, "width": 8, "head_width": 4, "patch_size": 4, "mlp_ratio": 2.5}
    text = {"context_length": 4, "vocab_size": 10, "width": 8, "heads": 2, "layers": 1}
    model = drawn(open_clip.CLIP(embed_dim=6, vision_cfg=vision, text_cfg=text, quick_gelu=True))
    image, case = picture(16, 16), folder / "open_clip_small_clip"
    case.mkdir()
    kept = {f"module.{key}": value for key, value in model.state_dict().items()}
    torch.save({"epoch": 32, "name": "small", "state_dict": kept}, case / "epoch_32.pt")
    hints = {"num_heads": 2, "act": "quick_gelu"}
    made = f"open_clip_torch {open_clip.__version__}, CLIP"
    write(
        case, "open_clip", "clip", "epoch_32.pt", hints, made, image, {"projected": model.encode_image(image)}
    )


if __name__ == "__main__":
    with torch.no_grad():
        for recording in (record_timm, record_torchvision, record_lucidrains, record_open_clip):
            recording(Path(sys.argv[1]))
