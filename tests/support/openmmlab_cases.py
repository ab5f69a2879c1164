"""Small models of mmpretrain with random weights, and what they answer: recorded cases for support.pack_cases.

python -m support.openmmlab_cases FOLDER    # in tests/; needs mmpretrain 1.2, mmengine and mmcv-lite, as `make test` does not

The package's own `__init__` imports every model, and with them mmcv's compiled operations and OpenCV. The ViT needs neither,
so its modules are imported one by one.
"""

import importlib
import importlib.util
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import torch
from torch import Tensor, nn

from support.port_cases import drawn, picture, write

MADE = "mmpretrain 1.2.0"
ARCH = {"embed_dims": 8, "num_layers": 2, "num_heads": 2, "feedforward_channels": 20}
SMALL: dict[str, Any] = {"arch": ARCH, "img_size": 16, "patch_size": 4}
CONFIG = "data_preprocessor = dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5], to_rgb=True)"
NAMES = ("ash", "beech", "cedar", "elm", "fir")


def modules() -> dict[str, Any]:
    """The classes of mmpretrain, by name."""
    sys.modules.setdefault("cv2", MagicMock(__version__="4.8.0"))
    found = importlib.util.find_spec("mmpretrain")
    assert found is not None and found.submodule_search_locations
    root = Path(found.submodule_search_locations[0])
    for name in ("", ".models", ".models.backbones", ".models.heads", ".models.utils"):
        package = types.ModuleType(f"mmpretrain{name}")
        package.__path__ = [str(root.joinpath(*name.split(".")[1:]))]
        sys.modules[f"mmpretrain{name}"] = package
    utils: Any = sys.modules["mmpretrain.models.utils"]
    for file, classes in {
        "helpers": ("to_2tuple",),
        "norm": ("build_norm_layer",),
        "layer_scale": ("LayerScale",),
        "swiglu_ffn": ("SwiGLUFFNFused",),
        "embed": ("resize_pos_embed",),
        "attention": ("MultiheadAttention",),
    }.items():
        module = importlib.import_module(f"mmpretrain.models.utils.{file}")
        for each in classes:
            setattr(utils, each, getattr(module, each))
    vit = importlib.import_module("mmpretrain.models.backbones.vision_transformer")
    deit = importlib.import_module("mmpretrain.models.backbones.deit")
    return {"ViT": vit.VisionTransformer, "DeiT": deit.DistilledVisionTransformer}


class Classifier(nn.Module):
    """The names of mmpretrain's ImageClassifier with its ViT heads: Linear layers below `head.layers.` or `head.fc`."""

    def __init__(self, backbone: nn.Module, head: nn.Module, answer: Callable[[Any, Any], Tensor]) -> None:
        super().__init__()
        self.backbone, self.head, self.answer = backbone, head, answer

    def forward(self, image: Tensor) -> Tensor:
        return self.answer(self.head, self.backbone(image)[-1])


def _layers(**parts: nn.Module) -> nn.Module:
    head = nn.Module()
    head.layers = nn.ModuleDict(parts)
    return head


def record(folder: Path) -> None:
    of = modules()
    linear = lambda: nn.Linear(8, 5)  # noqa: E731
    hidden = _layers(pre_logits=nn.Linear(8, 6), head=nn.Linear(6, 5))
    averaged = nn.Module()
    averaged.fc = linear()
    giant = {"layer_scale_init_value": 0.1, "layer_cfgs": {"ffn_type": "swiglu_fused"}}
    cases: dict[str, tuple[nn.Module, str]] = {
        "vit": (
            Classifier(
                of["ViT"](**SMALL),
                hidden,
                lambda head, x: head.layers["head"](head.layers["pre_logits"](x).tanh()),
            ),
            "vit",
        ),
        "deit": (
            Classifier(
                of["DeiT"](**SMALL),
                _layers(head=linear(), head_dist=linear()),
                lambda head, x: (head.layers["head"](x[0]) + head.layers["head_dist"](x[1])) / 2,
            ),
            "deit",
        ),
        "averaged": (
            Classifier(
                of["ViT"](**SMALL, final_norm=False, out_type="avg_featmap"),
                averaged,
                lambda head, x: head.fc(x),
            ),
            "vit",
        ),
        "dinov2_giant": (of["ViT"](**SMALL, **giant), "dinov2"),
        "sapiens": (of["ViT"](**SMALL), "sapiens"),
    }
    for name, (model, family) in cases.items():
        case, image = folder / f"mmpretrain_small_{name}", picture(16, 16)
        case.mkdir(parents=True)
        drawn(model)  # mmengine's modules return nothing from eval()
        answer = _recorded(model, image)
        whole = isinstance(model, Classifier)
        file: Any = model.state_dict()
        if whole:
            meta = {"mmengine_version": "0.10", "cfg": CONFIG, "dataset_meta": {"classes": NAMES}}
            file = {"meta": meta, "state_dict": file}
        torch.save(file, case / "model.pth")
        write(case, "mmpretrain", family, "model.pth", {"num_heads": 2}, MADE, image, answer)


@torch.no_grad()
def _recorded(model: nn.Module, image: Tensor) -> dict[str, Tensor]:
    backbone: Any = model.backbone if isinstance(model, Classifier) else model
    found: dict[str, Tensor] = {}
    backbone.layers[0].register_forward_hook(
        lambda module, args, out: found.update(embedded=args[0], block_0=out)
    )
    kept = backbone.out_type
    pooled = backbone(image)[-1]
    backbone.out_type = "raw"
    found["tokens"] = backbone(image)[-1]
    backbone.out_type = kept
    if isinstance(pooled, Tensor):
        # Of a head with a hidden layer, the embedding is that layer's output.
        head = getattr(model, "head", None)
        before = head.layers["pre_logits"] if hasattr(head, "layers") else None
        found["embedding"] = pooled if before is None else before(pooled).tanh()
    if isinstance(model, Classifier):
        found["logits"] = model(image)
    return found


if __name__ == "__main__":
    record(Path(sys.argv[1]))
