"""From pixels to patches to tokens, with the sizes."""

import numpy as np

from patchword.images.stored import Pixels
from patchword.lessons.panel import Check, Figure, Gallery, Lesson, Panel, Step, Table, Tile
from patchword.lessons.panels.common import IMAGE, PATCHES, TOKENS, middle_patch, shape
from patchword.lessons.subject import Subject
from patchword.lessons.words import Text, same
from patchword.model.sizes import sized

_SIZES = ("ViT-S/16", "ViT-B/16", "ViT-L/16", "ViT-H/14")


def panel(subject: Subject) -> Panel:
    vit, image, config = subject.vit, subject.image, subject.vit.config
    layout = vit.layout(image)
    rows, columns = config.patch_span
    pixels = subject.pixels
    middle = middle_patch(subject)
    top, left = middle // layout.grid[1] * rows, middle % layout.grid[1] * columns
    patch = pixels[top : top + rows, left : left + columns]
    numbers = {
        "height": pixels.shape[0],
        "width": pixels.shape[1],
        "channels": pixels.shape[2],
        "rows": rows,
        "columns": columns,
        "grid_rows": layout.grid[0],
        "grid_columns": layout.grid[1],
        "patches": layout.num_patches,
        "values": rows * columns * pixels.shape[2],
        "dim": config.dim,
        "tokens": layout.num_tokens,
        "others": layout.num_tokens - layout.num_patches,
        "notes_patches": (224 // 16) ** 2,
        "notes_values": 16 * 16 * 3,
    }
    return Panel(
        notes=_NOTES,
        lead=_LEAD,
        numbers=numbers,
        steps=[
            Step(name=IMAGE, shape=shape(image)),
            Step(
                name=PATCHES,
                shape=f"[1, {layout.num_patches}, {numbers['values']}]",
                op=Text("cut, flatten", "切块、展平"),
            ),
            Step(name=PATCHES, shape=f"[1, {layout.num_patches}, {config.dim}]", op=Text("linear", "线性层")),
            Step(
                name=TOKENS,
                shape=f"[1, {layout.num_tokens}, {config.dim}]",
                op=Text("+ positions, extra tokens", "+ 位置、额外 token"),
            ),
        ],
        figures=_figures(pixels, patch, rows, columns),
        question=_QUESTION,
        answer=_ANSWER,
        kindly=_KINDLY,
        check=Check(
            code="config, layout = subject.vit.config, subject.vit.layout(subject.image)\n"
            "values = config.patch_pixels\n"
            "print(layout.num_patches, values, config.dim)",
            prints=f"{layout.num_patches} {config.patch_pixels} {config.dim}",
        ),
        places=["model/vit.py: PatchEmbed, cut_patches", "model/config.py: PatchConfig", "model/sizes.py"],
        sources=["Dosovitskiy et al. 2021, section 3.1 and table 1"],
    )


def apart(pixels: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The image [H, W, C] with white lines between its patches, enlarged so that they stay thin."""
    scale = max(1, 384 // max(pixels.shape[:2]))
    large = pixels.repeat(scale, axis=0).repeat(scale, axis=1).copy()
    for step, axis in ((rows * scale, 0), (columns * scale, 1)):
        for line in range(step, large.shape[axis], step):
            cut = (
                (slice(line - 1, line + 1), slice(None))
                if axis == 0
                else (slice(None), slice(line - 1, line + 1))
            )
            large[cut] = 255
    return large


def _first(patch: np.ndarray) -> Text:
    values = ", ".join(str(value) for value in patch.reshape(-1)[:12])
    more = ", …" if patch.size > 12 else ""
    return Text(f"The middle patch as numbers: {values}{more}", f"中间的 patch 写成数字:{values}{more}")


def _sizes() -> Table:
    rows = []
    for name in _SIZES:
        config = sized(name)
        grid = config.grid_size
        cells = [(value, ",d") for value in (grid[0] * grid[1], config.patch_pixels, config.dim)]
        rows.append((same(name), cells))
    return Table(
        title=Text("Published sizes at 224 x 224", "公开的尺寸(224 x 224)"),
        headings=[
            Text("patches", "patch 数"),
            Text("values of a patch", "patch 的值"),
            Text("width D", "宽度 D"),
        ],
        rows=rows,
    )


def _figures(pixels: Pixels, patch: Pixels, rows: int, columns: int) -> list[Figure]:
    return [
        Figure(
            picture=Gallery(
                tiles=[
                    Tile(
                        label=Text("the image in patches", "切成 patch 的图片"),
                        pixels=apart(pixels, rows, columns),
                    ),
                    Tile(label=Text("the middle patch", "中间的 patch"), pixels=patch),
                ],
                width=190,
            ),
            caption=_first(patch),
        ),
        Figure(
            picture=_sizes(),
            caption=Text("The width D does not follow from the patch.", "宽度 D 与 patch 的大小无关。"),
        ),
    ]


_NOTES = Text(
    "ViT-B/16: an image of 224 x 224 x 3 becomes {notes_patches} patches of 16 x 16 x 3; each is mapped to a vector of "
    "16 · 16 · 3 = {notes_values}, so the tokens are [{notes_patches}, {notes_values}].",
    "ViT-B/16:224 x 224 x 3 的图片切成 {notes_patches} 个 16 x 16 x 3 的 patch,每个线性映射成 16 · 16 · 3 = {notes_values} 维的向量,"
    "所以 token 是 [{notes_patches}, {notes_values}]。",
)
_LEAD = [
    Text(
        "Your image of {height} x {width} pixels and {channels} channels becomes {grid_rows} x {grid_columns} = {patches} patches "
        "of {rows} x {columns} pixels. A patch is {values} numbers; the projection turns them into {dim}. With {others} more "
        "tokens that are not patches, the blocks see {tokens} tokens.",
        "你的图片是 {height} x {width} 像素、{channels} 个通道,切成 {grid_rows} x {grid_columns} = {patches} 个 {rows} x {columns} 的 patch。"
        "一个 patch 有 {values} 个数,投影后变成 {dim} 个。加上 {others} 个不是 patch 的 token,block 看到 {tokens} 个 token。",
    ),
]
_QUESTION = Text(
    "What happens to the number of tokens, and to the cost of attention, if patches are half as wide and high?",
    "patch 的边长减半,token 的数量和注意力的计算量怎样变化?",
)
_ANSWER = Text(
    "Four times as many tokens, and sixteen times as many pairs of tokens.",
    "token 变成 4 倍,token 对变成 16 倍。",
)
_KINDLY = Text(
    "That a patch has {notes_values} values and a token has 768 is a **coincidence of ViT-B/16**. They are two different "
    "numbers: ViT-S/16 turns the same {notes_values} values into 384, ViT-L/16 into 1,024; this model turns {values} into {dim}.",
    "patch 有 {notes_values} 个值、token 也是 768 维,这只是 **ViT-B/16 的巧合**。这是两个不同的数:ViT-S/16 把同样的 {notes_values} 个值变成 384 维,"
    "ViT-L/16 变成 1024 维;这个模型把 {values} 个变成 {dim} 个。",
)


LESSON = Lesson(slug="patches", title=Text("From pixels to tokens", "从像素到 token"), make=panel)
