"""How much memory a detector needs beside its backbone: what cannot be avoided, as `model/memory.py`. Does not import torch."""

from patchword.model.vitdet.config import VitDetConfig

_FLOAT = 4
# Tensors of a map that the backward pass needs: three convolutions or norms and their inputs, the proposals' layers, values read.
_OF_A_CELL, _READ_BY_A_LAYER = 10, 1
# Of a query in a layer: projections, attention, norms, MLP of four times the width, and the heads.
_OF_A_QUERY = 24


def weights(config: VitDetConfig) -> int:
    """Numbers in the maps, proposals and decoder, to a few per cent."""
    dim, before, classes = config.width, config.vit.dim, config.num_classes
    maps = sum((4 * before * dim if scale == 2 else 0) + before * dim + 9 * dim**2 for scale in config.scales)
    box = 2 * dim**2 + 4 * dim
    reads = 3 * dim * config.num_heads * config.num_points * len(config.scales)
    layer = 14 * dim**2 + reads + classes * dim + box
    return maps + 3 * dim**2 + classes * dim + box + config.num_layers * layer


def cells(config: VitDetConfig, size: tuple[int, int]) -> int:
    """Of all maps, for an image of (h, w) pixels."""
    height, width = config.vit.patch_span
    rows, columns = -(-size[0] // height), -(-size[1] // width)
    return sum(round(rows * scale + 0.25) * round(columns * scale + 0.25) for scale in config.scales)


def step_bytes(config: VitDetConfig, size: tuple[int, int]) -> int:
    """What a training step keeps per image of `size`, whatever objects are in it."""
    count, dim, classes = cells(config, size), config.width, config.num_classes
    maps = count * dim * (_OF_A_CELL + _READ_BY_A_LAYER * config.num_layers)
    scores = 4 * count * (classes + 4)
    queries = config.num_layers * config.num_queries * (_OF_A_QUERY * dim + 4 * classes)
    return _FLOAT * (maps + scores + queries)


def held_bytes(config: VitDetConfig, method: str) -> int:
    """Weights, gradients, their average and the optimiser's state, as `model/memory.py`."""
    return _FLOAT * weights(config) * (4 if method in ("muon", "sgd", "lars") else 5)
