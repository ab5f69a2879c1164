"""Find the tensor that a refused file lacks, by comparison with its other blocks or the other half of a layer.
Used only if a file is refused anyway, so that the message reports the missing tensor and not the leftover ones.
Certain losses are reported as missing; for tensors that such files usually have, only their absence is reported.
"""

import re
from collections import defaultdict
from collections.abc import Collection

# A bias always comes with a weight: the possible weight names for each origin's bias name.
_HALVES = {
    "bias": ("weight", "kernel", "scale"),
    "in_proj_bias": ("in_proj_weight",),
}
# Tensors that never occur without another one: a pattern, and the other's name built from the shared part.
_COMPANIONS = (
    (r"(.*)relative_position_index", r"\1relative_position_bias_table"),
    (r"(.*)freqs_sin", r"\1freqs_cos"),
    (r"head\.layers\.head_dist\.weight", "backbone.dist_token"),
    (r"((?:(?!head\.).)*)head_dist\.weight", r"\1dist_token"),
    (r"(.*)storage_tokens", r"\1rope_embed.periods"),
    (r"(.*MAPHead_0/)LayerNorm_0/scale", r"\1probe"),
    (r"(.*)block1/unit1/conv1/kernel", r"\1conv_root/kernel"),
    (r"(.*block\d+/unit\d+/)conv2/kernel", r"\1conv1/kernel"),
)
# A tensor of the blocks, and what precedes the blocks in most files with such names; some have no class token, some
# have sinusoidal positions.
_BEFORE_THE_BLOCKS = (
    (r"blocks\.0\..*", ("patch_embed.proj.weight", "cls_token", "pos_embed")),
    (r"transformer\.resblocks\.0\..*", ("conv1.weight", "class_embedding", "positional_embedding")),
    (
        r"encoder\.layers\.encoder_layer_0\..*",
        ("conv_proj.weight", "class_token", "encoder.pos_embedding"),
    ),
    (
        r"encoder\.layers?\.0\..*",
        (
            "embeddings.patch_embedding.weight",
            "embeddings.class_embedding",
            "embeddings.position_embedding.weight",
        ),
    ),
    (r"transformer\.layers\.0\..*", ("cls_token", "pos_embedding")),
    (r"layers\.0\.ln1\..*", ("patch_embed.projection.weight", "cls_token", "pos_embed")),
    (r"Transformer/encoderblock(?:_0)?/.*", ("embedding/kernel", "cls", "pos_embedding")),
)
# Transformer blocks only: the stages of a ResNet differ from each other. DINOv2 stores blocks in chunks: two numbers.
_BLOCK = re.compile(
    r"(?P<before>(?:[^.]+\.)*?(?:blocks|layers?|resblocks)\.|(?:.*/)?encoderblock_|(?:.*\.)?encoder_layer_)"
    r"(?P<number>(?<=blocks\.)\d+\.\d+(?=\.[a-z])|\d+)(?P<after>[./].+)"
)


# A block of a plain ViT, below any prefix except those of stages and other towers.
_PLAIN = re.compile(
    r"(?:(?!stages|layers?\b|features|text|roberta|decoder|down|up)[A-Za-z_]\w*\.)*"
    r"(?:blocks\.(?:\d+\.)?\d+\.attn\.(?:qkv|q_proj|proj)\.weight"
    r"|(?:transformer\.)?resblocks\.\d+\.attn\.in_proj_weight"
    r"|encoder\.layers\.encoder_layer_\d+\.self_attention\.in_proj_weight"
    r"|(?:encoder\.)?layers?\.\d+\.attention\.attention\.query\.weight"
    r"|(?:encoder\.)?layers?\.\d+\.(?:layer_norm1|layernorm_before)\.weight"
    r"|(?:encoder\.)?layer\.\d+\.(?:(?:norm1|attention_norm|ffn_norm)\.weight|layer_scale1\.lambda1)"
    r"|transformer\.layers\.\d+\.0\.(?:fn\.)?(?:fn\.)?to_qkv\.weight"
    r"|layers\.\d+\.attn\.qkv\.weight|encoder\.layers\.\d+\.rms_norm1\.weight)"
    r"|(?:.*/)?(?:Transformer|encoder|Encoder_0)/encoderblock(?:_\d+)?/.*"
)


def is_plain_vit(names: Collection[str]) -> bool:
    """Whether the blocks are named like a plain ViT's; for others we cannot know what is missing."""
    return any(_PLAIN.fullmatch(name) for name in names)


def lost_tensor(names: Collection[str]) -> str | None:
    """A tensor that is certainly missing; None if there is no evidence."""
    return _half(names) or _companion(names) or _part_of_a_block(names)


def mostly_there(names: Collection[str]) -> list[str]:
    """What most files with such names have before their blocks but this one lacks; of two towers the likelier one.

    An optimiser's copies of the tensors (opt/0/…) are not a tower.
    """
    towers = []
    for pattern, likely in _BEFORE_THE_BLOCKS:
        for prefix in {
            found[1]
            for name in names
            if (found := re.fullmatch(rf"((?!opt/\d|.*stages\.)(?:.*[./])?){pattern}", name))
        }:
            ends = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
            absent = [n for n in likely if not any(end == n or end.endswith(f"/{n}") for end in ends)]
            towers.append([f"{prefix}{name}" for name in absent])
    return min((absent for absent in towers if absent), key=len, default=[])


def _companion(names: Collection[str]) -> str | None:
    for name in names:
        for pattern, companion in _COMPANIONS:
            found = re.fullmatch(pattern, name)
            if found is not None and (other := found.expand(companion)) not in names:
                return other
    return None


def _half(names: Collection[str]) -> str | None:
    for name in names:
        stem, dot, last = name.rpartition("/" if "/" in name else ".")
        others = _HALVES.get(last)
        if others and not any(f"{stem}{dot}{other}" in names for other in others):
            return f"{stem}{dot}{_weight_of(stem, dot, others, names)}"
    return None


def _weight_of(stem: str, dot: str, others: tuple[str, ...], names: Collection[str]) -> str:
    """In Flax, a norm's weight is its scale and a layer's its kernel."""
    if dot == "/":
        return "scale" if re.search(r"[Nn]orm|gn_|/gn", stem) else "kernel"
    return others[0]


def _part_of_a_block(names: Collection[str]) -> str | None:
    """A tensor that most blocks have and one lacks."""
    blocks: dict[str, list[str]] = defaultdict(list)
    parts: dict[tuple[str, str], set[str]] = defaultdict(set)
    for name in names:
        if (found := _BLOCK.fullmatch(name)) is not None and "stages." not in found["before"]:
            before, number = found["before"], found["number"]
            if number not in blocks[before]:
                blocks[before].append(number)
            parts[before, found["after"]].add(number)
    for (before, after), numbers in parts.items():
        lacking = [number for number in blocks[before] if number not in numbers]
        if lacking and len(lacking) <= len(numbers):
            return f"{before}{lacking[0]}{after}"
    return None
