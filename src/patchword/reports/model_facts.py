"""Describe the model of a run in the terms of the ViT paper, for readers who are new to it."""

import dataclasses
from dataclasses import dataclass

from markupsafe import Markup

from patchword.model.config import ViTConfig
from patchword.model.cost import cost

ORDERS = {
    "pre": "before attention and before the MLP",
    "post": "after attention and after the MLP, each with its residual added",
    "res_post": "to the outputs of attention and MLP, before each is added",
}
# A finer grid would look like a grey square.
LARGEST_GRID = 32
MAX_TOKENS = 14


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """Facts about a model for the page; sizes are (rows, columns)."""

    config: ViTConfig
    grid: tuple[int, int]
    patches: int
    pixels: int
    tokens: int
    padded: bool
    prefix: str
    positions: str
    norm: str
    order: str
    pool: str
    parameters: int
    gflops: float
    picture: Markup


def model_facts(config: ViTConfig, num_classes: int | None) -> ModelFacts:
    """Facts about `config`, with a head for `num_classes` if that is known."""
    if num_classes:
        config = dataclasses.replace(config, head=dataclasses.replace(config.head, num_classes=num_classes))
    price = cost(config)
    (rows, columns), patch = config.grid_size, config.patch_span
    return ModelFacts(
        config=config,
        grid=(rows, columns),
        patches=rows * columns,
        pixels=config.patch_pixels,
        tokens=price.tokens,
        padded=rows * patch[0] > config.image.size[0] or columns * patch[1] > config.image.size[1],
        prefix=_prefix(config),
        positions=config.positions.words(),
        norm=config.norm.words(),
        order=ORDERS[config.block.order],
        pool=config.head.pool.words(),
        parameters=price.parameters,
        gflops=price.flops / 1e9,
        picture=_picture(config),
    )


def _prefix(config: ViTConfig) -> str:
    tokens = config.tokens
    parts = ["the class token"] * tokens.class_token + ["the distillation token"] * tokens.distillation_token
    if tokens.num_registers:
        parts.append("1 register" if tokens.num_registers == 1 else f"{tokens.num_registers} registers")
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def _picture(config: ViTConfig) -> Markup:
    """Draw an image cut into patches and the resulting row of tokens."""
    rows, columns = config.grid_size
    if max(rows, columns) > LARGEST_GRID:
        rows, columns = 1, 1
    size = 120 / max(rows, columns)
    wide, high = columns * size, rows * size
    top = (130 - high) / 2
    cells = "".join(
        f'<rect class="cell" x="{5 + c * size:.1f}" y="{top + r * size:.1f}" width="{size:.1f}" height="{size:.1f}"/>'
        for r in range(rows)
        for c in range(columns)
    )
    start = wide + 60
    arrow = f'<path d="M{wide + 14:.0f} 65h34m-7-5 7 5-7 5"/>'
    return Markup(cells + arrow + _token_row(config, start))


def _token_row(config: ViTConfig, x: float) -> str:
    extra, patches = config.tokens.num_extra, config.num_tokens - config.tokens.num_extra
    shown_extra = min(extra, 5)
    shown = min(patches, MAX_TOKENS - shown_extra)
    kinds = ["token"] * shown
    prefix = ["token prefix"] * shown_extra
    kinds = kinds + prefix if config.tokens.registers_last else prefix + kinds
    boxes = "".join(
        f'<rect class="{kind}" x="{x + i * 24:.1f}" y="40" width="17" height="50" rx="3"/>'
        for i, kind in enumerate(kinds)
    )
    more = f'<text x="{x + len(kinds) * 24 + 2:.1f}" y="70">…</text>' if shown < patches else ""
    text = f'<text x="{x:.1f}" y="112">{config.num_tokens:,} tokens of {config.dim:,} numbers</text>'
    return boxes + more + text
