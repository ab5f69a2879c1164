"""Which tensor a refused file has lost, told by its likes: the same part of the other blocks, the other half of a layer.

Asked only where a file is refused anyhow, so that the message names what is missing and not what is left over.
"""

import re
from collections import defaultdict
from collections.abc import Collection

# A bias never stands alone; beside which weights it may stand, by how its origin names them.
_HALVES = {
    "bias": ("weight", "kernel", "scale"),
    "in_proj_bias": ("in_proj_weight",),
}
# Of the blocks of a transformer; stages of a ResNet differ among themselves. DINOv2 keeps blocks in chunks: two numbers.
_BLOCK = re.compile(
    r"(?P<before>(?:[^.]+\.)*?(?:blocks|layers?|resblocks)\.|(?:.*/)?encoderblock_|(?:.*\.)?encoder_layer_)"
    r"(?P<number>(?<=blocks\.)\d+\.\d+(?=\.[a-z])|\d+)(?P<after>[./].+)"
)


def lost_tensor(names: Collection[str]) -> str | None:
    """A tensor that is missing for certain; None where nothing tells."""
    return _half(names) or _part_of_a_block(names)


def _half(names: Collection[str]) -> str | None:
    for name in names:
        stem, dot, last = name.rpartition("/" if "/" in name else ".")
        others = _HALVES.get(last)
        if others and not any(f"{stem}{dot}{other}" in names for other in others):
            return f"{stem}{dot}{_weight_of(stem, dot, others, names)}"
    return None


def _weight_of(stem: str, dot: str, others: tuple[str, ...], names: Collection[str]) -> str:
    """As Flax says it, a norm's is its scale and a layer's its kernel."""
    if dot == "/":
        return "scale" if re.search(r"[Nn]orm|gn_|/gn", stem) else "kernel"
    return others[0]


def _part_of_a_block(names: Collection[str]) -> str | None:
    """What most blocks have and one lacks."""
    blocks: dict[str, list[str]] = defaultdict(list)
    parts: dict[tuple[str, str], set[str]] = defaultdict(set)
    for name in names:
        if (found := _BLOCK.fullmatch(name)) is not None:
            before, number = found["before"], found["number"]
            if number not in blocks[before]:
                blocks[before].append(number)
            parts[before, found["after"]].add(number)
    for (before, after), numbers in parts.items():
        lacking = [number for number in blocks[before] if number not in numbers]
        if lacking and len(lacking) <= len(numbers):
            return f"{before}{lacking[0]}{after}"
    return None
