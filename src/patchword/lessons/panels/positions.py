"""Which positions look alike to the model."""

import torch

from patchword.lessons.measures.positions import (
    cosine_table,
    position_table,
    rotated_products,
    row_column_share,
    sines,
)
from patchword.lessons.panel import Check, Curve, Figure, Gallery, Lesson, Panel, Picture, Plot, Step, Tile
from patchword.lessons.panels.common import CHOOSE, DISTANCE, middle_patch, need_grid, some_patches
from patchword.lessons.subject import Subject
from patchword.lessons.words import Text
from patchword.model.positions.layout import Grid


def panel(subject: Subject) -> Panel:
    need_grid(subject)
    vit = subject.vit
    grid, dim = vit.layout(subject.image).grid, max(vit.config.dim // 4 * 4, 4)
    learned = position_table(vit, grid)
    tables = {"sin1": cosine_table(sines(grid, dim, 1)), "sin2": cosine_table(sines(grid, dim, 2))}
    if learned is not None:
        tables = {"own": cosine_table(learned), **tables}
    numbers: dict[str, float] = {"rows": grid[0], "columns": grid[1], "dim": dim}
    for name, table in tables.items():
        numbers[f"{name}_row"], numbers[f"{name}_column"] = row_column_share(table, grid)
    lead = [_OWN] if learned is not None else [_NONE_ADDED]
    figures = [
        _similar(tables, subject),
        _along(tables, subject),
        _each(next(iter(tables.values())), subject),
    ]
    return Panel(
        notes=Text(
            "The answer of the original paper is a code for each position, added to the tokens.",
            "原论文的办法:给每个位置一个编码,加到 token 上。",
        ),
        lead=[*lead, _SHARES],
        numbers=numbers,
        steps=[
            Step(name=Text("grid", "网格"), shape=f"{grid[0]} x {grid[1]}"),
            Step(
                name=Text("codes", "编码"),
                shape=f"[{grid[0] * grid[1]}, {vit.config.dim}]",
                op=Text("one row per patch", "每个 patch 一行"),
            ),
            Step(
                name=Text("similarities", "相似度"),
                shape=f"[{grid[0] * grid[1]}, {grid[0] * grid[1]}]",
                op=Text("cosines", "余弦"),
            ),
        ],
        figures=figures,
        question=Text(
            "Sines in one dimension number the patches 0, 1, 2, … row by row. Which two neighbours are far apart for them?",
            "一维正弦编码按行给 patch 编号 0、1、2……哪两个相邻的 patch 在它看来很远?",
        ),
        answer=Text(
            "Two above each other: their numbers differ by a whole row of {columns} patches. Yet trained models do as well with "
            "either kind (ViT, table 8: 0.3 points between the kinds, 3 points between any and none).",
            "上下相邻的两个:编号相差一整行,即 {columns}。不过训练之后两者差不多(ViT 论文表 8:不同编码相差 0.3 个点,有与无相差 3 个点)。",
        ),
        check=Check(
            code="from patchword.lessons.measures.positions import cosine_table, row_column_share, sines\n"
            f"row, column = row_column_share(cosine_table(sines({tuple(grid)}, {dim}, axes=2)), {tuple(grid)})\n"
            'print(f"{row:.3f} {column:.3f}")',
            prints=f"{numbers['sin2_row']:.3f} {numbers['sin2_column']:.3f}",
        ),
        places=["model/positions/", "lessons/measures/positions.py"],
        sources=["Dosovitskiy et al. 2021, figure 7 and appendix D.4", "Su et al. 2021 (RoPE)"],
    )


_OWN = Text(
    "This model adds a table of its own to the patches. Its codes were random at the start; training has made some alike: the "
    "pictures show, for the patch in the middle, how similar the code of every other patch is.",
    "这个模型给 patch 加上自己的编码表。表一开始是随机的,训练让其中一些变得相似:下图显示中间那个 patch 的编码与其他各个 patch 的相似度。",
)
_NONE_ADDED = Text(
    "This model adds nothing to its patches: its positions act inside attention, or it has none. The pictures show the fixed codes "
    "of the original paper (1-D) and of MAE (2-D).",
    "这个模型不给 patch 加任何编码:位置在注意力内部起作用,或者没有位置。下图是原论文(一维)和 MAE(二维)的固定编码。",
)
_SHARES = Text(
    'How much of the pattern is "same row" and how much "same column"? For 2-D sines, rows alone explain {sin2_row:.0%} of it and '
    "columns alone {sin2_column:.0%}; for 1-D sines {sin1_row:.0%} and {sin1_column:.0%}.",
    "这种图案里,有多少来自“同一行”,有多少来自“同一列”?二维正弦:行解释 {sin2_row:.0%},列解释 {sin2_column:.0%};"
    "一维正弦:{sin1_row:.0%} 和 {sin1_column:.0%}。",
)
_NAMES = {
    "own": Text("this model", "这个模型"),
    "sin1": Text("sines, 1-D", "正弦,一维"),
    "sin2": Text("sines, 2-D", "正弦,二维"),
}


def _tile(label: Text, table: torch.Tensor, patch: int, grid: Grid) -> Tile:
    """How similar the code of one patch is to that of each other."""
    row = table[patch]
    # The patch itself, at 1, would hide the differences among the others.
    others = torch.cat((row[:patch], row[patch + 1 :]))
    values = (row - others.mean()).reshape(grid)
    return Tile(label=label, values=values.numpy(), high=float((others - others.mean()).abs().max()))


def _each(table: torch.Tensor, subject: Subject) -> Figure:
    """The same for other patches, of the first table."""
    grid = subject.vit.layout(subject.image).grid
    tiles = [_tile(name, table, patch, grid) for patch, name in some_patches(subject)]
    return Figure(
        picture=Gallery(tiles=tiles, slider=CHOOSE, width=76),
        caption=Text(
            "The same for other patches, by row and column. Does the bright spot follow the patch, and is it a spot, a row or a column?",
            "其他 patch 的相似度,按行、列编号。亮处会跟着 patch 移动吗?它是一个点、一行,还是一列?",
        ),
    )


def _similar(tables: dict[str, torch.Tensor], subject: Subject) -> Figure:
    grid, middle = subject.vit.layout(subject.image).grid, middle_patch(subject)
    tiles = [_tile(_NAMES[name], table, middle, grid) for name, table in tables.items()]
    caption = Text(
        "Cosine similarity of the middle patch's code with that of each patch: blue more than the average of the others, orange less.",
        "中间 patch 的编码与每个 patch 编码的余弦相似度:蓝色高于其他 patch 的平均,橙色低于平均。",
    )
    return Figure(picture=Gallery(tiles=tiles, width=150), caption=caption)


def _along(tables: dict[str, torch.Tensor], subject: Subject) -> Figure:
    """Similarity along the first row, and the products of rotated queries and keys if the model rotates them."""
    vit = subject.vit
    layout = vit.layout(subject.image)
    columns = layout.grid[1]
    curves = [
        Curve(name=_NAMES[name], points=[(i, float(table[0, i])) for i in range(columns)])
        for name, table in tables.items()
    ]
    place = vit.places(layout)[0]
    if place.cos is not None:
        values = rotated_products(place, vit.config.head_dim, layout.grid, layout.num_prefix)
        curves.append(Curve(name=Text("rotations: q · k", "旋转:q · k"), points=list(enumerate(values))))
    picture: Picture = Plot(
        title=Text("Similarity along the first row", "第一行内的相似度"),
        x_name=DISTANCE,
        curves=curves,
        from_zero=False,
    )
    return Figure(
        picture=picture,
        caption=Text(
            "The first patch of the row, compared with each patch of it.",
            "第一行的第一个 patch 与该行各个 patch。",
        ),
    )


LESSON = Lesson(slug="positions", title=Text("Position codes", "位置编码"), make=panel)
