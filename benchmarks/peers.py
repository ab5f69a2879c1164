"""Save the same ViT in each system's own format, with random weights: speed does not depend on them."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

SIZES = {"Ti": ("tiny", 192, 3), "S": ("small", 384, 6), "B": ("base", 768, 12)}


def save_models(folder: Path, size: str) -> dict[str, Path]:
    """Write a weights file (or folder) for each system, in a separate process."""
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import peers; peers.write({str(folder)!r}, {size!r})"
    subprocess.run([sys.executable, "-c", code], check=True)
    return {
        "patchword": folder / f"{size}.safetensors",
        "timm": folder / f"timm-{size}.safetensors",
        "transformers": folder / f"transformers-{size}",
    }


def write(place: str, size: str) -> None:
    import timm
    import torch
    from safetensors.torch import save_file
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    from patchword.images.preprocess import Preprocess
    from patchword.model.sizes import sized
    from patchword.model.vit import ViT
    from patchword.weights.card import ModelCard
    from patchword.weights.native import write_model

    folder, (name, dim, heads) = Path(place), SIZES[size]
    config = sized(f"ViT-{size}/16")
    names = tuple(f"class {i}" for i in range(1000))
    card = ModelCard(config=config, preprocess=Preprocess.simple(224), classes=names)
    write_model(
        folder / f"{size}.safetensors", ViT(config, torch.Generator().manual_seed(0)).state_dict(), card
    )
    save_file(timm.create_model(f"vit_{name}_patch16_224").state_dict(), folder / f"timm-{size}.safetensors")
    theirs = ViTConfig(hidden_size=dim, num_attention_heads=heads, intermediate_size=4 * dim, num_labels=1000)
    ViTForImageClassification(theirs).save_pretrained(folder / f"transformers-{size}")
    ViTImageProcessor().save_pretrained(folder / f"transformers-{size}")


def photographs(data: str | None, folder: Path) -> list[str]:
    """List the photographs of `data` (a zip or a folder; default: PATCHWORD_DATA)."""
    place = data or os.environ.get("PATCHWORD_DATA")
    if not place:
        raise SystemExit("pass --data: a zip or a folder of photographs, such as imagenet-sample.zip")
    path = Path(place)
    if path.is_dir() and (path / "imagenet-sample.zip").is_file():
        path = path / "imagenet-sample.zip"
    if path.is_file():
        with zipfile.ZipFile(path) as archive:
            archive.extractall(folder / "photographs")
        path = folder / "photographs"
    endings = {".jpg", ".jpeg", ".png"}
    return sorted(str(p) for p in path.rglob("*") if p.suffix.lower() in endings)


def send(**facts: object) -> None:
    print(json.dumps(facts), flush=True)
