"""What the filters of the first layer look like."""

import numpy as np

from patchword.lessons.measures.patches import Filters, principal_filters
from patchword.lessons.panel import Bars, Check, Figure, Gallery, Lesson, Panel, Step, Tile
from patchword.lessons.subject import Subject
from patchword.lessons.words import Text, same

MOST = 28


def panel(subject: Subject) -> Panel:
    proj = subject.vit.patch_embed.proj
    found = principal_filters(subject.vit)
    count = min(MOST, len(found.shares))
    share = float(found.shares[:count].sum())
    half = int((found.shares.cumsum(0) < 0.9).sum()) + 1
    numbers = {
        "filters": proj.weight.shape[0],
        "values": proj.weight[0].numel(),
        "count": count,
        "share": share,
        "first": float(found.shares[0]),
        "ninety": half,
    }
    untrained = principal_filters(subject.lab.untrained)
    numbers["random_first"] = float(untrained.shares[0])
    return Panel(
        notes=_NOTES,
        lead=_LEAD,
        numbers=numbers,
        steps=[
            Step(name=Text("kernel", "卷积核"), shape=str(list(proj.weight.shape))),
            Step(
                name=Text("table", "矩阵"),
                shape=f"[{numbers['filters']}, {numbers['values']}]",
                op=Text("flatten", "展平"),
            ),
            Step(
                name=Text("components", "主成分"),
                shape=f"[{count}, {numbers['values']}]",
                op=Text("PCA", "PCA"),
            ),
        ],
        figures=_figures(found, count),
        question=_QUESTION,
        answer=_ANSWER,
        check=Check(
            code="from patchword.lessons.measures.patches import principal_filters\n"
            "shares = principal_filters(subject.vit).shares\n"
            'print(f"{shares[0]:.3f}")',
            prints=f"{float(found.shares[0]):.3f}",
        ),
        places=["model/vit.py: PatchEmbed.proj", "lessons/measures/patches.py"],
        sources=["Dosovitskiy et al. 2021, figure 7, left (28 components of ViT-L/32)"],
    )


def _picture(component: np.ndarray) -> np.ndarray:
    """[C, h, w] of any sign → [h, w, 1 or 3] uint8 with zero at grey."""
    chosen = component[:3] if len(component) >= 3 else component[:1]
    scaled = chosen / (np.abs(component).max() or 1.0)
    levels: np.ndarray = np.rint(127.5 + 127.5 * scaled).astype(np.uint8).transpose(1, 2, 0)
    return np.ascontiguousarray(levels)


def _figures(found: Filters, count: int) -> list[Figure]:
    return [
        Figure(
            picture=Gallery(
                tiles=[
                    Tile(label=same(f"{100 * float(s):.1f} %"), pixels=_picture(c.numpy()))
                    for c, s in zip(found.components[:count], found.shares[:count], strict=True)
                ],
                width=72,
            ),
            caption=Text(
                "Principal components, largest first, and their shares. Grey is zero.",
                "主成分,从大到小,以及各自的占比。灰色为零。",
            ),
        ),
        Figure(
            picture=Bars(
                title=Text("Share of the variance", "方差占比"),
                rows=[(same(str(i + 1)), float(s)) for i, s in enumerate(found.shares[: min(count, 10)])],
                show=".1%",
            ),
            caption=Text(
                "In our untrained small ViT the first component holds {random_first:.0%}.",
                "在我们未训练的小 ViT 里,第一主成分占 {random_first:.0%}。",
            ),
        ),
    ]


_NOTES = Text(
    "The embedding layer turns image data into tokens.",
    "Embedding 层把图片数据转换成 token。",
)
_LEAD = [
    Text(
        "It does so with {filters} filters of {values} values. Of the {values} directions that they could take, {ninety} hold 90 % of "
        "their variance, and the first alone {first:.0%}. The {count} largest, drawn below, hold {share:.1%}.",
        "它用的是 {filters} 个滤波器,每个 {values} 个值。在可能的 {values} 个方向里,{ninety} 个包含了 90 % 的方差,第一个方向占 {first:.0%}。"
        "下面画出的最大的 {count} 个一共占 {share:.1%}。",
    )
]
_QUESTION = Text(
    "What does a filter compute whose values are all alike?",
    "如果一个滤波器的所有值都相同,它算的是什么?",
)
_ANSWER = Text(
    "The mean brightness of the patch. Stripes compute edges, checks compute fine texture.",
    "patch 的平均亮度。条纹算边缘,棋盘格算细纹理。",
)


LESSON = Lesson(slug="filters", title=Text("The first filters", "第一层的滤波器"), make=panel)
