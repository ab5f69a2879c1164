"""Open the files from `convert` with the format's own program, if installed: timm, transformers, torchvision.
Each is optional. It gets the written files and one image; its output must equal ours.
"""

import contextlib
import importlib
import importlib.metadata
import importlib.util
import io
import json
import logging
import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchword.errors import CheckpointError
from patchword.model.config import ViTConfig

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Opened:
    """reader: its name and version. difference: the largest from our output, relative to the largest output."""

    reader: str
    difference: float


def open_with_reader(
    layout: str, out: Path, config: ViTConfig, image: "Tensor", ours: "Tensor"
) -> Opened | None:
    """Compare with the layout's reader; None if it is not installed, or is a repository without a package.

    Raises: CheckpointError if the reader refuses the files.
    """
    package = layout.partition("-")[0]
    if package not in _READERS or importlib.util.find_spec(package) is None:
        return None
    reader = f"{package} {importlib.metadata.version(package)}"
    try:
        with _quiet():
            outputs = list(_READERS[package](out, config, image))
    except Exception as error:  # anything the other program raises would also reach its user
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise CheckpointError(
            f"{reader} refuses the result ({type(error).__name__}: {reason}); nothing was written",
            "choose another format, or keep it as a patchword file",
        ) from error
    far = [_relative(theirs, ours) for theirs in outputs]
    return Opened(reader=reader, difference=min(far, default=float("inf")))


def _relative(theirs: "Tensor", ours: "Tensor") -> float:
    if theirs.shape != ours.shape:
        return float("inf")
    return float((theirs - ours).abs().max() / ours.abs().max().clamp(min=1e-30))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress other programs' progress bars, warnings and network requests."""
    before = {name: os.environ.get(name) for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_VERBOSITY")}
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _timm(out: Path, config: ViTConfig, image: "Tensor") -> "Iterable[Tensor]":
    import torch
    from safetensors.torch import load_file

    timm: Any = importlib.import_module("timm")
    words = json.loads((out / "config.json").read_text(encoding="utf-8"))
    model = timm.create_model(words["architecture"], **words["model_args"]).eval()
    model.load_state_dict(load_file(out / "model.safetensors"), strict=True)
    with torch.inference_mode():
        yield model(image)


def _transformers(out: Path, config: ViTConfig, image: "Tensor") -> "Iterable[Tensor]":
    import torch

    transformers: Any = importlib.import_module("transformers")
    words = json.loads((out / "config.json").read_text(encoding="utf-8"))
    kind = getattr(transformers, words["architectures"][0])
    model, info = kind.from_pretrained(
        out, dtype=torch.float32, output_loading_info=True, local_files_only=True
    )
    wrong = {
        key: sorted(info[key])
        for key in ("missing_keys", "unexpected_keys", "mismatched_keys")
        if info.get(key)
    }
    if wrong:
        raise ValueError(", ".join(f"{key} {names[:2]}" for key, names in wrong.items()))
    model = model.vit if words["architectures"][0] == "ViTMAEForPreTraining" else model
    if hasattr(model.config, "mask_ratio"):
        model.config.mask_ratio = 0.0  # ViTMAE hides patches at random
    with torch.inference_mode():
        found = model.eval()(**_inputs(words["model_type"], config, image))
    yield from (
        found[key] for key in ("logits", "image_embeds", "pooler_output") if found.get(key) is not None
    )
    if (tokens := found.get("last_hidden_state")) is not None and tokens.ndim == 3:
        yield from (tokens[:, 0], tokens[:, config.tokens.num_prefix :].mean(1), tokens.mean(1))


def _inputs(model_type: str, config: ViTConfig, image: "Tensor") -> dict[str, "Tensor"]:
    """SigLIP 2's NaFlex class takes patches [B, N, p * p * C] and the shape of their grid."""
    import torch

    if not model_type.startswith("siglip2"):
        return {"pixel_values": image}
    (rows, columns), (height, width) = config.grid_size, config.patch.size
    whole = image[:, :, : rows * height, : columns * width]
    patches = whole.reshape(*whole.shape[:2], rows, height, columns, width).permute(0, 2, 4, 3, 5, 1)
    return {
        "pixel_values": patches.flatten(3).flatten(1, 2),
        "pixel_attention_mask": torch.ones(len(image), rows * columns, dtype=torch.int64),
        "spatial_shapes": torch.tensor([[rows, columns]] * len(image)),
    }


def _torchvision(out: Path, config: ViTConfig, image: "Tensor") -> "Iterable[Tensor]":
    import torch

    torchvision: Any = importlib.import_module("torchvision")
    head = config.head
    model = torchvision.models.VisionTransformer(
        config.image.size[0],
        config.patch.size[0],
        config.depth,
        config.attention.num_heads,
        config.dim,
        config.mlp_dim,
        num_classes=head.num_classes or 1,
        representation_size=head.pre_logits or None,
    )
    if not head.num_classes:
        model.heads.head = torch.nn.Identity()
    tensors = torch.load(out, map_location="cpu", weights_only=True)
    model.load_state_dict(tensors, strict=True)
    with torch.inference_mode():
        yield model.eval()(image)


_READERS = {"timm": _timm, "transformers": _transformers, "torchvision": _torchvision}
