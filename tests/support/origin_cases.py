"""Small models of the authors' own code with random weights, and what they answer: recorded cases for support.pack_cases.

python -m support.origin_cases SOURCES FOLDER [FAMILY...]    # in tests/; needs timm, transformers and einops

SOURCES holds checkouts of the repositories that this file imports from, each under its name on GitHub. Nothing of them is
in this repository: a case has only their tensors and answers.
"""

import importlib
import json
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import timm
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor, nn

SOURCES = Path(sys.argv[1]) if len(sys.argv) > 2 else Path()
EPS = partial(nn.LayerNorm, eps=1e-6)
# Recorder: for each case its name, family, hints, provenance, file name, what is saved, image and answers.
Case = tuple[str, str, dict[str, Any], str, str, Any, Tensor, dict[str, Tensor]]


def of(checkout: str, module: str) -> Any:
    """A module of a checkout."""
    sys.path.insert(0, str(SOURCES / checkout))
    return importlib.import_module(module)


def drawn(model: nn.Module, seed: int = 0) -> Any:
    """With weights that all matter: no bias zero, no norm one. Fixed tables keep their values."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.named_parameters():
        if name.endswith(("rope.freqs", "pos_embed")) and not value.requires_grad:
            continue
        noise = torch.randn(value.shape, generator=generator)
        around_one = value.ndim == 1 and name.endswith(("weight", "gamma", "gamma_1", "gamma_2"))
        value.data = 1 + 0.2 * noise if around_one else 0.2 * noise
    return model.eval()


def picture(*size: int, channels: int = 3) -> Tensor:
    return torch.randn(1, channels, *size, generator=torch.Generator().manual_seed(1))


def moco() -> Iterator[Case]:
    vits, builder = of("moco-v3", "vits"), of("moco-v3", "moco.builder")
    sizes = {"img_size": 16, "patch_size": 4, "embed_dim": 8, "depth": 2, "num_heads": 2, "norm_layer": EPS}
    made = "facebookresearch/moco-v3 at 38aae447, vits.VisionTransformerMoCo"
    image, hints = picture(16, 16), {"num_heads": 2}
    whole = drawn(builder.MoCo(partial(vits.VisionTransformerMoCo, **sizes), True, 4, 4))
    drawn(whole.momentum_encoder, 1)
    encoder = whole.base_encoder
    tokens = encoder.forward_features(image)
    saved = {"epoch": 300, "arch": "vit_small", "state_dict": below("module", whole.state_dict())}
    found = {"tokens": tokens, "embedding": tokens[:, 0]}
    yield "moco_small_pretraining", "moco_v3", hints, made, "checkpoint_0299.pth.tar", saved, image, found
    probe = drawn(vits.VisionTransformerMoCo(**sizes, num_classes=5), 2)
    saved = {
        "epoch": 90,
        "arch": "vit_small",
        "state_dict": below("module", probe.state_dict()),
        "best_acc1": 70.0,
    }
    found = {"tokens": probe.forward_features(image), "logits": probe(image)}
    yield "moco_small_linear", "moco_v3", hints, made, "linear-vit-s-300ep.pth.tar", saved, image, found


def mae_pytorch() -> Iterator[Case]:
    finetune, pretrain = of("MAE-pytorch", "modeling_finetune"), of("MAE-pytorch", "modeling_pretrain")
    sizes = {"img_size": 16, "patch_size": 4, "qkv_bias": True, "norm_layer": EPS}
    encoder = {"encoder_embed_dim": 8, "encoder_depth": 2, "encoder_num_heads": 2}
    decoder = {"decoder_embed_dim": 8, "decoder_depth": 1, "decoder_num_heads": 2, "decoder_num_classes": 48}
    made, image, hints = (
        "pengzhiliang/MAE-pytorch at 92c23277",
        picture(16, 16),
        {"num_heads": 2, "image_size": 16},
    )
    model = drawn(pretrain.PretrainVisionTransformer(**sizes, **encoder, **decoder))
    tokens = model.encoder(image, torch.zeros(1, 16, dtype=torch.bool))
    found = {"tokens": tokens, "embedding": tokens.mean(1)}
    saved = {"model": model.state_dict(), "epoch": 399}
    yield (
        "mae_pytorch_small_pretraining",
        "mae_pytorch",
        hints,
        made,
        "checkpoint-399.pth",
        saved,
        image,
        found,
    )
    more = {"embed_dim": 8, "depth": 2, "num_heads": 2, "num_classes": 5}
    model = drawn(finetune.VisionTransformer(**sizes, **more, init_values=0.1), 1)
    found = {"embedding": model.forward_features(image), "logits": model(image)}
    args = Namespace(model="vit_base_patch16_224", imagenet_default_mean_and_std=True, input_size=224)
    saved = {"model": model.state_dict(), "epoch": 99, "args": args}
    yield "mae_pytorch_small_finetuned", "mae_pytorch", hints, made, "checkpoint-99.pth", saved, image, found


def aimv2() -> Iterator[Case]:
    aim = of("ml-aim", "aimv2")
    sizes = {
        "img_size": 16,
        "patch_size": 4,
        "embed_dim": 8,
        "mlp_hidden_dim": 12,
        "num_blocks": 2,
        "num_heads": 2,
    }
    made = "apple/ml-aim at 37621213, AIMv2VisionEncoder"
    for name, kind, image in (
        ("absolute", "absolute", picture(16, 16)),
        ("native", "sincos", picture(12, 20)),
    ):
        model = drawn(aim.AIMv2VisionEncoder(**sizes, pos_embed_type=kind))
        tokens = model(image)
        found = {"tokens": tokens, "embedding": tokens.mean(1)}
        hints = {"num_heads": 2} | ({} if name == "absolute" else {"image_size": [12, 20]})
        yield f"aimv2_small_{name}", "aimv2", hints, made, "aimv2.pth", model.state_dict(), image, found
    model, image = drawn(aim.AIMv2LiT(projection_dim=6, **sizes)), picture(16, 16)
    found = {"embedding": model.image_encoder(image), "projected": model.encode_image(image)}
    yield (
        "aimv2_small_lit",
        "aimv2",
        {"num_heads": 2},
        made,
        "aimv2_lit.pth",
        model.state_dict(),
        image,
        found,
    )


def eva_clip() -> Iterator[Case]:
    """B and L have rope, gates and norms inside; g has neither; in E the norms come last."""
    tower = of("EVA/EVA-CLIP/rei", "eva_clip.eva_vit_model").EVAVisionTransformer
    sizes = {"img_size": 16, "patch_size": 4, "embed_dim": 8, "depth": 2, "num_heads": 2, "num_classes": 6}
    fixed = {"qkv_bias": True, "use_mean_pooling": False, "norm_layer": EPS}
    gated = {"rope": True, "intp_freq": True, "naiveswiglu": True, "subln": True, "mlp_ratio": 2.6667}
    made = "baaivision/EVA at 322427bd, EVA-CLIP/rei, EVAVisionTransformer"
    for name, file, more in (
        ("base", "EVA02_CLIP_B_psz16_s8B.pt", gated),
        ("giant", "EVA01_CLIP_g_14_psz14_s11B.pt", {"mlp_ratio": 4.3637}),
        ("enormous", "EVA02_CLIP_E_psz14_s4B.pt", {"postnorm": True, "mlp_ratio": 8.5714}),
    ):
        model, image = drawn(tower(**sizes, **fixed, **more)), picture(16, 16)
        text = {"logit_scale": torch.tensor(4.6), "text.token_embedding.weight": torch.ones(3, 4)}
        saved = below("visual", model.state_dict()) | text
        found = {"embedding": model.forward_features(image), "projected": model(image)}
        yield f"eva_clip_small_{name}", "eva_clip", {"num_heads": 2}, made, file, saved, image, found


def pe() -> Iterator[Case]:
    """Core with its text tower; lang, without last norm; spatial at another size than its positions."""
    code = of("perception_models", "core.vision_encoder.pe")
    sizes = {"patch_size": 4, "width": 16, "layers": 2, "heads": 2, "mlp_ratio": 2.0, "image_size": 16}
    bare = {"pool_type": "none", "output_dim": None, "use_ln_post": False, "ls_init_value": 0.1}
    text = {"context_length": 3, "vocab_size": 5, "width": 8, "heads": 2, "layers": 1, "output_dim": 6}
    made, hints = "facebookresearch/perception_models at 7e1b73f2, VisionTransformer", {"num_heads": 2}
    model, image = drawn(code.CLIP({**sizes, "use_cls_token": True, "output_dim": 6}, text)), picture(16, 16)
    tower = model.visual
    found = {"tokens": tower.forward_features(image, norm=True), "projected": tower(image)}
    yield "pe_small_core", "pe_core", hints, made, "PE-Core-B16-224.pt", model.state_dict(), image, found
    for name, file, image, more in (
        ("lang", "PE-Lang-L14-448.pt", picture(16, 16), {"use_cls_token": True}),
        ("spatial", "PE-Spatial-G14-448.pt", picture(20, 12), {}),
    ):
        model = drawn(code.VisionTransformer(**sizes, **bare, **more))
        tokens = model(image)
        found = {"tokens": tokens, "embedding": tokens[:, int(model.use_cls_token) :].mean(1)}
        yield f"pe_small_{name}", f"pe_{name}", hints, made, file, model.state_dict(), image, found


def radio() -> Iterator[Case]:
    """A training file with two summaries of three teachers, and a hub's folder; images smaller than the positions."""
    generator = of("RADIO", "radio.vit_patch_generator").ViTPatchGenerator
    sizes = {"img_size": 16, "patch_size": 4, "embed_dim": 8, "depth": 2, "num_heads": 2, "num_classes": 0}
    model = timm.create_model("vit_tiny_patch16_224", **sizes)
    patches = {"patch_size": 4, "embed_dim": 8, "input_dims": 16, "cls_token": True, "max_input_dims": 24}
    model.patch_generator = generator(**patches, num_cls_tokens=3, register_multiple=8)
    model.patch_embed = model.cls_token = model.pos_embed = None
    model.norm = nn.Identity()
    model = drawn(model)
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in ([0.48, 0.45, 0.40], [0.26, 0.26, 0.27]))
    conditioner = {"input_conditioner.norm_mean": mean, "input_conditioner.norm_std": std}
    made, hints = (
        "NVlabs/RADIO, ViTPatchGenerator at 36a9b993 (align_corners=False) in timm's ViT",
        {"num_heads": 2},
    )
    teachers = [{"name": "clip"}, {"name": "sam", "use_summary": False}, {"name": "dino_v2"}]
    for name, file, image in (
        ("training", "radio.pth.tar", picture(16, 12)),
        ("hub", "pytorch_model.bin", picture(24, 24)),
    ):
        tokens = model.blocks(model.patch_generator(image))
        found = {"tokens": tokens, "embedding": tokens[:, [0, 2]].flatten(1)}
        state: Any = below("base_model", model.state_dict()) | conditioner
        state = {"state_dict": state, "args": Namespace(teachers=teachers, cls_token_per_teacher=True)}
        if name == "hub":
            inner = below("model", model.state_dict()) | conditioner | {"summary_idxs": torch.tensor([0, 2])}
            state = below("radio_model", inner)
        yield f"radio_small_{name}", "radio", hints, made, file, state, image, found


def tips() -> Iterator[Case]:
    """Answered by transformers' port, which reads the authors' names."""
    shape = {
        "hidden_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "patch_size": 4,
        "image_size": 16,
    }
    made, hints = f"transformers {transformers.__version__}, Tipsv2VisionModel", {"num_heads": 2}
    for name, gated, image in (("base", False, picture(16, 16)), ("giant", True, picture(20, 12))):
        config = transformers.Tipsv2VisionConfig(**shape, use_swiglu_ffn=gated)
        model = drawn(transformers.Tipsv2VisionModel(config))
        with TemporaryDirectory() as folder:
            model.save_pretrained(folder, save_original_format=True)
            names = load_file(Path(folder) / "model.safetensors")
        stored = {key.removeprefix("vision_encoder."): value for key, value in names.items()}
        tokens = model(image).last_hidden_state
        found = {"tokens": tokens, "embedding": tokens[:, 0]}
        yield f"tips_small_{name}", "tips", hints, made, f"tips_v2_{name}.npz", stored, image, found


def prithvi() -> Iterator[Case]:
    """Three dates in the file and a window of one; and a model of one date, with the weight of time and place."""
    code = of("terratorch", "prithvi_mae")
    sizes = {
        "img_size": 16,
        "patch_size": (1, 4, 4),
        "embed_dim": 16,
        "depth": 1,
        "num_heads": 2,
        "in_chans": 6,
        "mlp_ratio": 2.0,
    }
    decoder = {"decoder_embed_dim": 16, "decoder_depth": 1, "decoder_num_heads": 2}
    made, hints = "IBM/terratorch 1.2.13, prithvi_mae.PrithviMAE", {"num_heads": 2, "image_size": 16}
    for name, frames, coords, size in (
        ("dates", 3, [], (16, 16)),
        ("one_date", 1, ["time", "location"], (12, 20)),
    ):
        more = {"num_frames": frames, "coords_encoding": coords, "coords_scale_learn": True}
        model = drawn(code.PrithviMAE(**sizes, **decoder, **more))
        image = picture(*size, channels=6)
        tokens = model.encoder.forward_features(image[:, :, None])[-1]
        found = {"tokens": tokens, "embedding": tokens[:, 0]}
        file = f"Prithvi_EO_V2_{name}.pt"
        yield f"prithvi_small_{name}", "prithvi", hints, made, file, model.state_dict(), image, found


def below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


RECORDERS: dict[str, Callable[[], Iterator[Case]]] = {
    "moco": moco,
    "mae_pytorch": mae_pytorch,
    "aimv2": aimv2,
    "eva_clip": eva_clip,
    "pe": pe,
    "radio": radio,
    "tips": tips,
    "prithvi": prithvi,
}


@torch.no_grad()
def record(origin: str, folder: Path) -> None:
    for name, family, hints, made, file, saved, image, answers in RECORDERS[origin]():
        case = folder / name
        case.mkdir(parents=True, exist_ok=True)
        save(saved, case / file)
        meta = {
            "case": name,
            "kind": "backbone",
            "origin": origin,
            "family": family,
            "load": file,
            "hints": hints,
            "inputs": {"image": "image"},
            "outputs": {key: key for key in answers},
            "tolerance": 2e-5,
            "made_with": f"{made}, random weights",
            "notes": [],
        }
        (case / "meta.json").write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")
        arrays = {key: value.numpy() for key, value in answers.items()}
        np.savez(case / "io.npz", image=image.numpy(), **arrays)


def save(saved: Any, path: Path) -> None:
    if path.suffix == ".npz":
        np.savez(path, **{name: tensor.numpy() for name, tensor in saved.items()})
    else:
        torch.save(saved, path)


if __name__ == "__main__":
    for chosen in sys.argv[3:] or RECORDERS:
        record(chosen, Path(sys.argv[2]))
