"""Small models of transformers with random weights, and what they answer. Imports transformers: for tests/peers alone.

python -m support.transformers_models FOLDER    # in tests/, writes recorded cases, which support.pack_cases packs
"""

import importlib
import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn

SIZES = {
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "image_size": 16,
    "patch_size": 4,
}
HIDDEN = {"intermediate_size": 20}
LABELS = {"id2label": {i: name for i, name in enumerate(("ash", "beech", "cedar", "elm", "fir"))}}
TEXT = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 10,
        "max_position_embeddings": 4, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}  # fmt: skip
VISION = {**SIZES, **HIDDEN}


def class_named(name: str) -> Any:
    """A class of transformers, also one that the package does not export."""
    if hasattr(transformers, name):
        return getattr(transformers, name)
    family = {"Idefics3": "idefics3", "Phi4Mult": "phi4_multimodal"}[name[:8]]
    part = "configuration" if name.endswith("Config") else "modeling"
    return getattr(importlib.import_module(f"transformers.models.{family}.{part}_{family}"), name)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """name: of the case. image: (h, w) that it is shown. classifies: it has a head."""

    name: str
    model: str
    config: str
    settings: dict[str, Any] = field(default_factory=dict)
    image: tuple[int, int] = (16, 16)

    @property
    def classifies(self) -> bool:
        return "Classification" in self.model

    def build(self, seed: int = 0) -> nn.Module:
        """With weights that all matter: no bias zero, no norm one."""
        config = class_named(self.config)(**self.settings)
        config._attn_implementation = "eager"
        model: nn.Module = class_named(self.model)(config).eval()
        generator = torch.Generator().manual_seed(seed)
        for name, value in model.named_parameters():
            drawn = torch.randn(value.shape, generator=generator)
            around_one = value.ndim == 1 and name.endswith("weight")
            value.data = 1 + 0.2 * drawn if around_one else 0.2 * drawn
            if name.endswith(("lambda1", "lambda_1", "lambda_2")):
                value.data = 0.5 + 0.2 * drawn
        return model


def _sample(name: str, model: str, config: str, image: tuple[int, int] = (16, 16), **settings: Any) -> Sample:
    labels = LABELS if "Classification" in model else {}
    whole = "vision_config" in settings
    return Sample(
        name=name,
        model=model,
        config=config,
        settings={**({} if whole else VISION), **labels, **settings},
        image=image,
    )


def _by_ratio(name: str, model: str, config: str, **settings: Any) -> Sample:
    """Of a class whose MLP's width is a multiple of the width."""
    found = _sample(name, model, config, **{"mlp_ratio": 2, **settings})
    kept = {key: value for key, value in found.settings.items() if key != "intermediate_size"}
    return Sample(name=name, model=model, config=config, settings=kept)


_NAFLEX = {key: value for key, value in VISION.items() if key != "image_size"} | {"num_patches": 16}
SAMPLES = (
    _sample("siglip_ragged", "SiglipVisionModel", "SiglipVisionConfig", (18, 18), image_size=18),
    _sample("vit", "ViTForImageClassification", "ViTConfig"),
    _sample("vit_pooler", "ViTModel", "ViTConfig", hidden_act="gelu_new", pooler_output_size=10),
    _sample("vit_mim", "ViTForMaskedImageModeling", "ViTConfig", qkv_bias=False, encoder_stride=4),
    _sample("vit_oblong", "ViTForImageClassification", "ViTConfig", (8, 24), image_size=[8, 24], num_channels=1),
    *(_sample(f"vit_{act}", "ViTModel", "ViTConfig", hidden_act=act)
      for act in ("relu6", "leaky_relu", "hardswish", "mish", "sigmoid", "tanh", "gelu_accurate")),
    _sample("deit", "DeiTForImageClassification", "DeiTConfig"),
    _sample("deit_teacher", "DeiTForImageClassificationWithTeacher", "DeiTConfig"),
    _sample("deit_pooler", "DeiTModel", "DeiTConfig"),
    _sample("msn", "ViTMSNForImageClassification", "ViTMSNConfig"),
    _sample("ijepa", "IJepaForImageClassification", "IJepaConfig"),
    _sample("beit", "BeitForImageClassification", "BeitConfig", use_relative_position_bias=True),
    _sample("beit_class_token", "BeitForImageClassification", "BeitConfig", use_mean_pooling=False,
            use_absolute_position_embeddings=True, use_shared_relative_position_bias=True, layer_scale_init_value=0.0),
    _sample("beit_mim", "BeitForMaskedImageModeling", "BeitConfig", use_shared_relative_position_bias=True,
            use_mask_token=True, vocab_size=7),
    _sample("beit_model", "BeitModel", "BeitConfig", use_relative_position_bias=True),
    _sample("data2vec", "Data2VecVisionForImageClassification", "Data2VecVisionConfig", use_relative_position_bias=True),
    _sample("data2vec_bare", "Data2VecVisionModel", "Data2VecVisionConfig", use_relative_position_bias=True),
    _sample("data2vec_model", "Data2VecVisionModel", "Data2VecVisionConfig", use_mean_pooling=False,
            use_shared_relative_position_bias=True, use_mask_token=True),
    _by_ratio("dinov2", "Dinov2ForImageClassification", "Dinov2Config"),
    _by_ratio("dinov2_swiglu", "Dinov2Model", "Dinov2Config", use_swiglu_ffn=True, mlp_ratio=4),
    _by_ratio("dinov2_swiglu_3", "Dinov2Model", "Dinov2Config", use_swiglu_ffn=True, mlp_ratio=3),
    _by_ratio("dinov2_registers", "Dinov2WithRegistersForImageClassification", "Dinov2WithRegistersConfig",
          num_register_tokens=3),
    _by_ratio("dinov2_no_registers", "Dinov2WithRegistersModel", "Dinov2WithRegistersConfig", num_register_tokens=0),
    _sample("dinov3", "DINOv3ViTModel", "DINOv3ViTConfig", (16, 24), num_register_tokens=2),
    _sample("dinov3_no_registers", "DINOv3ViTModel", "DINOv3ViTConfig", key_bias=True),
    _sample("dinov3_gated", "DINOv3ViTModel", "DINOv3ViTConfig", use_gated_mlp=True, hidden_act="silu",
            query_bias=False, value_bias=False, num_register_tokens=1),
    _sample("dinov3_value_bias", "DINOv3ViTModel", "DINOv3ViTConfig", query_bias=False),
    _sample("dinov3_key_bias", "DINOv3ViTModel", "DINOv3ViTConfig", query_bias=False, value_bias=False, key_bias=True),
    _sample("clip", "CLIPVisionModelWithProjection", "CLIPVisionConfig", projection_dim=10),
    _sample("clip_tower", "CLIPVisionModel", "CLIPVisionConfig", hidden_act="gelu"),
    _sample("clip_classifier", "CLIPForImageClassification", "CLIPConfig", vision_config=VISION, text_config=TEXT),
    _sample("siglip", "SiglipVisionModel", "SiglipVisionConfig"),
    _sample("siglip_no_head", "SiglipVisionModel", "SiglipVisionConfig", vision_use_head=False),
    _sample("siglip_classifier", "SiglipForImageClassification", "SiglipConfig", vision_config=VISION, text_config=TEXT),
    _sample("siglip2_naflex", "Siglip2VisionModel", "Siglip2VisionConfig", (16, 24), **_NAFLEX),
    _sample("siglip2_naflex_classifier", "Siglip2ForImageClassification", "Siglip2Config",
            vision_config=_NAFLEX, text_config=TEXT),
    _sample("aimv2", "Aimv2VisionModel", "Aimv2VisionConfig"),
    _sample("aimv2_native", "Aimv2VisionModel", "Aimv2VisionConfig", (16, 24), is_native=True, use_head=False,
            qkv_bias=True, mlp_bias=True),
    _sample("blip", "BlipVisionModel", "BlipVisionConfig"),
    _sample("blip2", "Blip2VisionModel", "Blip2VisionConfig", qkv_bias=False),
    _sample("internvit", "InternVLVisionModel", "InternVLVisionConfig"),
    _sample("internvit_class_token", "InternVLVisionModel", "InternVLVisionConfig", use_mean_pooling=False,
            attention_bias=True),
    _sample("internvit_rms", "InternVLVisionModel", "InternVLVisionConfig", norm_type="rms_norm",
            use_absolute_position_embeddings=False),
    _by_ratio("pixio", "PixioModel", "PixioConfig", n_cls_tokens=3),
    _by_ratio("tipsv2", "Tipsv2VisionModel", "Tipsv2VisionConfig", mlp_ratio=2.5),
    _by_ratio("tipsv2_swiglu", "Tipsv2VisionModel", "Tipsv2VisionConfig", use_swiglu_ffn=True, mlp_ratio=4),
    _sample("mlcd", "MLCDVisionModel", "MLCDVisionConfig", hidden_size=16, num_attention_heads=2),
    _sample("owlvit", "OwlViTVisionModel", "OwlViTVisionConfig"),
    _sample("git", "GitVisionModel", "GitVisionConfig"),
    _sample("idefics3", "Idefics3VisionTransformer", "Idefics3VisionConfig"),
    _sample("phi4_multimodal", "Phi4MultimodalVisionModel", "Phi4MultimodalVisionConfig", crop_size=16),
    _by_ratio("janus", "JanusVisionModel", "JanusVisionConfig", projection_dim=8),
)  # fmt: skip
# Their `pooler_output` is a token that is normed a second time, which no head of theirs reads.
NORMED_TWICE = ("Blip", "Janus")


def picture(sample: Sample, batch: int = 1) -> Tensor:
    channels = sample.settings.get("num_channels", 3)
    return torch.randn(batch, channels, *sample.image, generator=torch.Generator().manual_seed(1))


def inputs(model: nn.Module, image: Tensor) -> dict[str, Any]:
    """What the class is called with: NaFlex takes rows of patches."""
    if not type(model).__name__.startswith("Siglip2"):
        # Only where the size is another: it takes the stored grid for a square.
        takes = "interpolate_pos_encoding" in _arguments(model) and tuple(image.shape[2:]) != _made_for(model)
        return {"pixel_values": image} | ({"interpolate_pos_encoding": True} if takes else {})
    side, (batch, channels, height, width) = SIZES["patch_size"], image.shape
    grid = (height // side, width // side)
    cut = image.reshape(batch, channels, grid[0], side, grid[1], side).permute(0, 2, 4, 3, 5, 1)
    rows = cut.reshape(batch, grid[0] * grid[1], -1)
    return {
        "pixel_values": rows,
        "pixel_attention_mask": torch.ones(rows.shape[:2], dtype=torch.int64),
        "spatial_shapes": torch.tensor([grid] * batch),
    }


def _made_for(model: nn.Module) -> tuple[int, int]:
    config: Any = model.config
    size = getattr(config, "vision_config", config).image_size
    return (size, size) if isinstance(size, int) else tuple(size)


def _arguments(model: nn.Module) -> tuple[str, ...]:
    call: Callable[..., Any] = model.forward
    import inspect

    return tuple(inspect.signature(call).parameters)


@torch.no_grad()
def answers(model: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """What the model answers, under the names of the recorded cases."""
    found: dict[str, Tensor] = {}
    handles = []
    for name, module in model.named_modules():
        if re.search(r"(^|\.)layers?\.0$", name) and "text" not in name and "decoder" not in name:
            handles.append(module.register_forward_hook(_keep_block(found), with_kwargs=True))
        if name in ("classifier", "cls_classifier"):
            handles.append(module.register_forward_hook(lambda m, args, out: found.update(embedding=args[0])))
        if name == "layernorm" and hasattr(model, "lm_head"):
            handles.append(module.register_forward_hook(lambda m, args, out: found.update(tokens=out)))
        if not hasattr(model, "lm_head"):
            handles.append(module.register_forward_hook(_keep_tokens(found)))
    answer = model(**inputs(model, image))
    for handle in handles:
        handle.remove()
    twice = type(model).__name__.startswith(NORMED_TWICE)
    if getattr(answer, "pooler_output", None) is not None and "embedding" not in found and not twice:
        found["embedding"] = answer.pooler_output
    if getattr(answer, "image_embeds", None) is not None:
        found["projected"] = answer.image_embeds
    if hasattr(answer, "cls_logits"):
        found |= {"logits_cls": answer.cls_logits, "logits_dist": answer.distillation_logits}
    if "classifier" in {name.split("_")[-1] for name, _ in model.named_children()}:
        found["logits"] = answer.logits
    return found


def _keep_block(found: dict[str, Tensor]) -> Callable[..., None]:
    def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        entering = args[0] if args else kwargs["hidden_states"]
        found.update(embedded=entering, block_0=out[0] if isinstance(out, tuple) else out)

    return keep


def _keep_tokens(found: dict[str, Tensor]) -> Callable[..., None]:
    def keep(module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
        if getattr(out, "last_hidden_state", None) is not None:
            found["tokens"] = out.last_hidden_state

    return keep


# Recording -------------------------------------------------------------------------------

# Name of the sample → whether it is saved in the published spelling.
RECORDED = {
    "vit": True, "vit_pooler": False, "deit_teacher": True, "msn": True, "ijepa": False, "beit": True,
    "beit_class_token": False, "beit_mim": True, "dinov2": False, "dinov2_swiglu": True, "dinov2_registers": True,
    "dinov3": True, "dinov3_gated": False, "clip": True, "clip_classifier": True, "siglip": True,
    "siglip_classifier": True, "siglip2_naflex": False, "aimv2": True, "aimv2_native": True, "blip": True, "blip2": True,
    "internvit": True, "internvit_class_token": False, "pixio": True, "tipsv2": True, "tipsv2_swiglu": False, "mlcd": True,
    "owlvit": True, "git": True, "idefics3": True, "phi4_multimodal": True, "janus": True,
}  # fmt: skip


def record(folder: Path) -> None:
    """A small case of each family, in the form of the recorded ones."""
    for sample in SAMPLES:
        if sample.name in RECORDED:
            model, image = sample.build(), picture(sample)
            arrays = {"image": image, **answers(model, image)}
            _write(folder, sample, model, arrays, published=RECORDED[sample.name])
    mae = _sample("mae", "ViTMAEForPreTraining", "ViTMAEConfig", decoder_hidden_size=8, decoder_num_hidden_layers=1,
                  decoder_num_attention_heads=2, decoder_intermediate_size=8)  # fmt: skip
    model, image = mae.build(), picture(mae, batch=2)
    noise = torch.rand(2, 16, generator=torch.Generator().manual_seed(2))
    found: dict[str, Tensor] = {}
    encoder: Any = model.vit
    encoder.layers[0].register_forward_hook(_keep_block(found), with_kwargs=True)
    with torch.no_grad():
        answer = encoder(image, noise=noise)
    found |= {
        "latent": answer.last_hidden_state,
        "mask": answer.mask,
        "ids_restore": answer.ids_restore.float(),
    }
    _write(folder, mae, model, {"image": image, "noise": noise, **found}, published=True, kind="mae")


def _write(
    folder: Path,
    sample: Sample,
    model: Any,
    arrays: dict[str, Tensor],
    *,
    published: bool,
    kind: str = "backbone",
) -> None:
    name = f"transformers_small_{sample.name}"
    (folder / name).mkdir(parents=True)
    model.save_pretrained(folder / name, save_original_format=published)
    inputs_ = {key: key for key in arrays if key in ("image", "noise")}
    meta = {
        "case": name,
        "kind": kind,
        "origin": "transformers",
        "family": model.config.model_type,
        "load": ".",
        "hints": {},
        "inputs": inputs_,
        "outputs": {key: key for key in arrays if key not in inputs_},
        "tolerance": 2e-5,
        "made_with": f"transformers {transformers.__version__}, {sample.model}, random weights",
        "notes": ["published names" if published else "names of transformers 5 itself"],
    }
    (folder / name / "meta.json").write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")
    np.savez_compressed(folder / name / "io.npz", **{key: value.numpy() for key, value in arrays.items()})


if __name__ == "__main__":
    record(Path(sys.argv[1]))
