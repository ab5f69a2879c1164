"""Identify a file that no layout reads: from the config next to it, its pickled classes, or well-known tensor names.

Used only after no layout has matched, so a wrong entry can never hide a supported file.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any

from patchword.errors import UnknownLayout
from patchword.formats.checkpoint import Checkpoint

_OTHER_PROGRAM = "use the program that wrote it; docs/formats.md lists the formats that patchword reads"

# Well-known models by their tensors: every pattern must match some complete name (below any prefix).
_BY_TENSORS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("a YOLO detector (Ultralytics)", (r"\d+\.conv\.weight", r"\d+\.(cv\d|m)\.(.*\.)?conv\.weight")),
    ("a U-Net of a diffusion model", (r"down_blocks\.\d+\.resnets\.0\.conv1\.weight", r"up_blocks\..*")),
    ("an autoencoder (VAE) of a diffusion model", (r"(encoder|decoder)\.(down_blocks|up|down)\.0\..*", r"(post_)?quant_conv\.weight")),
    ("a latent diffusion model", (r"(model\.diffusion_model\.)?input_blocks\.0\.0\.weight", r".*middle_block\..*")),
    ("a diffusion Transformer (DiT)", (r"blocks\.0\.adaLN_modulation\.1\.weight",)),
    ("a U-Net", (r"inc\.(double_conv|conv)\..*", r"up1\..*")),
    ("a U-Net", (r"(down|enc)\w*\d[._].*\.weight", r"(up|dec)\w*\d[._].*\.weight", r"(bottleneck|out\w*|final\w*)\..*weight")),
    ("a segmentation model (segmentation_models_pytorch)", (r"segmentation_head\.0\.weight",)),
    ("a DPT depth or segmentation model", (r".*(depth_head|refinenet1|scratch)\..*", r".*blocks\.0\.norm1\.weight")),
    ("SAM 2 (Segment Anything)", (r"image_encoder\.trunk\..*", r"(sam_)?mask_decoder\..*|memory_.*")),
    ("SAM (Segment Anything)", (r"(image|vision)_encoder\..*", r"mask_decoder\..*")),
    ("a Faster or Mask R-CNN detector", (r"rpn\.head\..*|rpn_head\..*|proposal_generator\..*", r"roi_heads?\..*")),
    ("a RetinaNet or SSD detector", (r"head\.(classification|regression)_head\..*",)),
    ("a detector with deformable attention", (r".*sampling_offsets\.weight",)),
    ("a Transformer detector (DETR or similar)", (r"(class|bbox)_embed\..*",)),
    ("DeepLab or FCN (torchvision segmentation)", (r"backbone\.(layer1|conv1|0)\..*", r"classifier\.\d.*")),
    ("a ResNet", (r"conv1\.weight", r"layer1\.0\.conv1\.weight")),
    ("a ResNet", (r"(embedder\.)?embedder\.convolution\.weight", r"encoder\.stages\.0\.layers\.0\.layer\.0\.convolution\.weight")),
    ("a RegNet", (r"(stem\.conv|stem\.0)\.weight", r"(s1\.b1|trunk_output\.block1)\..*")),
    ("a ConvNeXt", (r"stages\.0\.blocks\.0\.conv_dw\.weight", r"stem\.0\.weight")),
    ("a ConvNeXt", (r"downsample_layers\.0\.0\.weight", r"stages\.0\.0\.dwconv\.weight")),
    ("a ConvNeXt", (r"encoder\.stages\.0\.layers\.0\.dwconv\.weight",)),
    ("a ConvNeXt", (r"features\.1\.0\.layer_scale",)),
    ("a Swin Transformer", (r"(features|layers)\.\d\.(blocks\.)?0\.attn\.relative_position_bias_table",)),
    ("a Swin Transformer", (r"encoder\.layers\.0\.blocks\.0\.attention\.self\.\w+.*",)),
    ("a Swin Transformer V2", (r"layers\.0\.blocks\.0\.attn\.(logit_scale|cpb_mlp\.0\.weight)",)),
    ("an EfficientNet", (r"_?conv_stem\.weight", r"_?blocks\.0\..*")),
    ("an EfficientNet, MobileNetV3 or MNASNet", (r"features\.1\.0?\.?block\.0\.0\.weight",)),
    ("a MobileNetV2", (r"features\.1\.conv\.0\.0\.weight",)),
    ("a DenseNet", (r"features\.denseblock1\.denselayer1\.norm1\.weight",)),
    ("a VGG or AlexNet", (r"features\.0\.weight", r"classifier\.\d\.weight")),
    ("an Inception network", (r"Conv2d_1a_3x3\.conv\.weight",)),
    ("a SegFormer or PVT", (r"(encoder\.)?patch_embed(dings)?\.?[01]\.proj\.weight", r"(encoder\.)?block\.?[01]\.0\..*")),
    ("an MLP-Mixer", (r"blocks\.0\.mlp_tokens\.fc1\.weight",)),
    ("a CaiT", (r"blocks_token_only\.0\..*",)),
    ("an XCiT", (r"cls_attn_blocks\.0\..*",)),
    ("a Hiera or MViT", (r"pos_embed_(spatial|temporal)|blocks\.0\.attn\.(pool_q|norm_q)\.weight|patch_embed\.proj\.weight", r"blocks\.\d+\.(proj|attn\.pool_q)\.weight")),
    ("a BLIP or Q-Former model", (r"(visual_encoder|vision_model)\..*", r"(text_decoder|qformer|Qformer|query_tokens).*")),
    ("BERT or a similar text model", (r".*embeddings\.word_embeddings\.weight", r".*encoder\.layer\.0\.attention\.self\.query\.weight")),
    ("a DistilBERT (a text model)", (r".*embeddings\.word_embeddings\.weight", r".*transformer\.layer\.0\.attention\.q_lin\.weight")),
    ("GPT-2 (a text model)", (r"wte\.weight", r"h\.0\.attn\.c_attn\.weight")),
    ("a language model", (r"embed_tokens\.weight", r"layers\.0\.self_attn\.q_proj\.weight")),
    ("T5 (a text model)", (r"encoder\.block\.0\.layer\.0\.SelfAttention\.q\.weight",)),
    ("Whisper (a speech model)", (r"encoder\.conv1\.weight", r"decoder\.(blocks|layers)\.0\..*")),
    ("a wav2vec 2.0 model (speech)", (r".*feature_extractor\.conv_layers\.0\..*",)),
    ("a BART or translation model (text)", (r"encoder\.layers\.0\.self_attn_layer_norm\.weight",)),
    ("a ViT of mmpretrain (OpenMMLab) with relative positions (BEiT)", (r"layers\.0\.ffn\.layers\.0\.0\.weight", r".*relative_position_bias_table|layers\.0\.attn\.q_bias")),
    ("LoRA or adapter weights without their base model", (r".*lora_(A|B|up|down|embedding_A)\b.*",)),
)  # fmt: skip
_PREFIX = r"(?:.*[./])?"


def named(checkpoint: Checkpoint, read: Collection[str]) -> UnknownLayout | None:
    """The error that states what the file is; None if it is unknown. read: the model types that layouts read."""
    found = by_config(checkpoint, read) or _by_classes(checkpoint) or by_tensors(checkpoint)
    if found is None:
        return None
    what, fix = found
    return UnknownLayout(f"{checkpoint.name}: {what}", fix)


def by_config(checkpoint: Checkpoint, read: Collection[str]) -> tuple[str, str] | None:
    """The model that the config next to the weights describes, if patchword does not read it."""
    if checkpoint.is_part:  # the config describes the complete file
        return None
    adapter, config = checkpoint.configs.get("adapter_config.json", {}), checkpoint.config_json
    kind = adapter.get("peft_type") or config.get("peft_type")
    if isinstance(kind, str):
        base = adapter.get("base_model_name_or_path") or "its base model"
        return (
            f"a {kind} adapter of {base} (peft_type in its config), not a complete model",
            "merge it into its base model (peft: merge_and_unload()), save the result, and use that file",
        )
    name = config.get("_class_name")
    if isinstance(name, str):
        return f"a {name} of diffusers (_class_name in config.json), not a ViT backbone", _OTHER_PROGRAM
    kind, classes = config.get("model_type"), config.get("architectures")
    shown = f" ({', '.join(map(str, classes[:2]))})" if isinstance(classes, list) and classes else ""
    if isinstance(kind, str) and kind not in read:
        return (
            f"a transformers model of type {kind!r}{shown} (from config.json), which patchword does not read",
            _OTHER_PROGRAM,
        )
    if isinstance(kind, str) or not shown:
        return _of_keras(config)
    return f"a model of class{shown} (from config.json), which patchword does not read", _OTHER_PROGRAM


def _of_keras(config: Mapping[str, Any]) -> tuple[str, str] | None:
    if isinstance(config.get("class_name"), str) and "config" in config:
        return f"a Keras model ({config['class_name']}, from config.json)", _OTHER_PROGRAM
    return None


def _by_classes(checkpoint: Checkpoint) -> tuple[str, str] | None:
    """The class of a model pickled as a complete object, as by Ultralytics and FastAI."""
    classes = [
        name for name in checkpoint.stored.strangers if re.match(r"(ultralytics|models|fastai)\.", name)
    ]
    if not classes:
        return None
    return (
        f"a pickled model of {classes[0].partition('.')[0]} (it holds the class {classes[0]})",
        "use the program that wrote it; if it is a ViT, save its state_dict() and use that file",
    )


def by_tensors(checkpoint: Checkpoint) -> tuple[str, str] | None:
    """A well-known model that has these tensor names."""
    names = list(checkpoint.tensors)
    for what, patterns in _BY_TENSORS:
        if all(any(re.fullmatch(_PREFIX + pattern, name) for name in names) for pattern in patterns):
            return (
                f"{what} (from its tensor names), which patchword does not read",
                _OTHER_PROGRAM,
            )
    return _projector(checkpoint)


def _projector(checkpoint: Checkpoint) -> tuple[str, str] | None:
    """A linear layer or a small MLP alone: a head without its backbone."""
    shapes = [entry.shape for entry in checkpoint.tensors.values()]
    if len(shapes) > 8 or any(len(shape) > 2 for shape in shapes) or not any(len(s) == 2 for s in shapes):
        return None
    layers = sum(len(shape) == 2 for shape in shapes)
    kind = "one linear layer" if layers == 1 else f"{layers} linear layers"
    return (
        f"{kind} and no backbone ({', '.join(list(checkpoint.tensors)[:4])})",
        "give the backbone file; pass a separate linear head file with --head",
    )
