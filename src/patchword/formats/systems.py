"""Image towers inside larger systems of transformers: where their tensors and their part of config.json are.

Vision-language models, detectors and segmenters have a tower that is a model type of its own. Its tensors become the
checkpoint and its config the config.json, so that the tower's layout reads it as if it were alone. Source: transformers 5.23.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from patchword.formats.checkpoint import Checkpoint, Leftover
from patchword.formats.layouts.transformers_config import CONFIG, JsonConfig, config_of, model_type


@dataclass(frozen=True, kw_only=True)
class System:
    """prefixes: of the tower's names, the longest of several first. config: the tower's part of config.json; "" if its
    layout reads the whole. tower: its model type, if the file states none of a tower.
    """

    prefixes: tuple[str, ...]
    tower: str
    config: str = "vision_config"


_TOWER = tuple(f"{outer}vision_tower.{inner}" for inner in ("vision_model.", "") for outer in ("model.", ""))
_CLIP = System(prefixes=_TOWER, tower="clip_vision_model")
_SIGLIP = System(prefixes=_TOWER, tower="siglip_vision_model")
_MODEL = ("model.vision_model.", "vision_model.")
SYSTEMS: Mapping[str, System] = {
    "llava": _CLIP,
    "llava_next": _CLIP,
    "llava_next_video": _CLIP,
    "vipllava": _CLIP,
    "llava_onevision": _SIGLIP,
    "paligemma": _SIGLIP,
    "gemma3": _SIGLIP,
    "aya_vision": _SIGLIP,
    "cohere2_vision": _SIGLIP,
    "internvl": System(prefixes=_TOWER, tower="internvl_vision"),
    "idefics2": System(prefixes=_MODEL, tower="idefics2_vision"),
    "idefics3": System(prefixes=_MODEL, tower="idefics3_vision"),
    "smolvlm": System(prefixes=_MODEL, tower="smolvlm_vision"),
    "janus": System(prefixes=_MODEL, tower="janus_vision_model"),
    "phi4_multimodal": System(
        prefixes=("model.embed_tokens_extend.image_embed.img_processor.",), tower="phi4_multimodal_vision"
    ),
    "git": System(prefixes=("git.image_encoder.", "image_encoder."), tower="git_vision_model"),
    "owlvit": System(prefixes=("owlvit.",), tower="owlvit", config=""),
    "owlv2": System(prefixes=("owlv2.",), tower="owlv2", config=""),
    "clipseg": System(prefixes=("clip.",), tower="clipseg", config=""),
}


def tower_of(checkpoint: Checkpoint) -> Checkpoint:
    """The image tower of a system, as a checkpoint of its own; any other checkpoint unchanged.

    Raises: CheckpointError if config.json's part for the tower is not an object.
    """
    kind = model_type(checkpoint)
    system = SYSTEMS.get(kind or "")
    if system is None:
        return checkpoint
    if checkpoint.is_part:  # the user selected the tensors
        return _described(checkpoint, system)
    prefix = next((each for each in system.prefixes if checkpoint.under(each)), None)
    if prefix is None:
        return checkpoint
    inside = {n.removeprefix(prefix): e for n, e in checkpoint.tensors.items() if n.startswith(prefix)}
    others = len(checkpoint.tensors) - len(inside)
    tower = replace(
        checkpoint,
        tensors=inside,
        wrapper=f"{prefix.rstrip('.')}: the image tower of {kind}",
        left=(*checkpoint.left, Leftover(what=f"the rest of {kind}", tensors=others)),
        notes=(*checkpoint.notes, *_layer_read(checkpoint)),
    )
    return _described(tower, system)


def _described(checkpoint: Checkpoint, system: System) -> Checkpoint:
    """The same tensors with the tower's part of config.json."""
    if not system.config:
        return checkpoint
    declared = config_of(checkpoint).part(system.config)
    # Older files repeat the type of the whole system here, or state none.
    stated = declared.values.get("model_type")
    kind = system.tower if stated is None or stated in SYSTEMS else stated
    configs = {**checkpoint.configs, CONFIG: {**declared.values, "model_type": kind}}
    return replace(checkpoint, stored=replace(checkpoint.stored, configs=configs))


def _layer_read(checkpoint: Checkpoint) -> tuple[str, ...]:
    """A note if the language model reads another block than the last."""
    layer = JsonConfig(checkpoint.name, checkpoint.config_json).values.get("vision_feature_layer")
    if layer in (None, -1):
        return ()
    return (
        f"the language model reads block {layer} of the tower (vision_feature_layer); patchword gives the tower's own output",
    )
