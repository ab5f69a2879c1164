"""DETR without anchors: queries, and their matching with the objects."""

import numpy as np
import torch
from torch import Tensor

from patchword.images.stored import Pixels
from patchword.lessons.measures.matching import Assignment, assignment, cross_attention
from patchword.lessons.panel import Check, Figure, Gallery, Lesson, Panel, Step, Table, Tile
from patchword.lessons.scene import QUERIES, SIDE, SMALL_DETR, STEPS, trained_detector
from patchword.lessons.subject import Subject
from patchword.lessons.words import Text, same
from patchword.model.boxes import to_corners
from patchword.model.detr.config import DetrConfig


@torch.no_grad()
def panel(subject: Subject) -> Panel:
    image, targets = subject.lab.scene
    with torch.enable_grad():
        detr = subject.lab.detr
    start = trained_detector(image, targets, subject.lab.generator(6), steps=0)
    output = detr(image)
    found, first = assignment(output, targets), assignment(start(image), targets)
    count = len(targets.labels)
    others = [query for query in range(QUERIES) if query not in found.queries.tolist()]
    numbers = {
        "queries": QUERIES,
        "objects": count,
        "steps": STEPS,
        "first": first.total,
        "total": found.total,
        "none": float(output.logits[-1, 0, others].softmax(-1)[:, -1].mean()),
        "left": len(others),
        "published": DetrConfig().num_queries,
    }
    looks = cross_attention(detr, image)[0]
    cells = looks[0].numel()
    return Panel(
        notes=_NOTES,
        lead=_LEAD,
        numbers=numbers,
        steps=[
            Step(name=Text("image", "图片"), shape=f"[1, 1, {SIDE}, {SIDE}]"),
            Step(
                name=Text("cells", "格子"),
                shape=f"[1, {cells}, {SMALL_DETR.dim}]",
                op=Text("ResNet, encoder", "ResNet、编码器"),
            ),
            Step(
                name=Text("queries", "query"),
                shape=f"[1, {QUERIES}, {SMALL_DETR.dim}]",
                op=Text("decoder", "解码器"),
            ),
            Step(name=Text("boxes", "框"), shape=f"[1, {QUERIES}, 4]", op=Text("head", "预测头")),
        ],
        figures=[_costs(found, targets.labels.tolist()), _looks(image, output.boxes[-1, 0], looks, found)],
        question=_QUESTION,
        answer=_ANSWER,
        check=Check(
            code="from patchword.lessons.measures.matching import assignment\n"
            "image, targets = subject.lab.scene\n"
            "print(assignment(subject.lab.detr(image), targets).queries.tolist())",
            prints=str(found.queries.tolist()),
        ),
        places=["model/matching.py: match", "model/detr/", "model/set_loss.py", "lessons/scene.py"],
        sources=["Carion et al. 2020 (arXiv 2005.12872)"],
    )


_NOTES = Text(
    "DETR brings the Transformer to detection: no anchors, no non-maximum suppression.",
    "DETR 首创把 Transformer 引入检测:不需要 anchor,也不需要 NMS。",
)
_LEAD = [
    Text(
        "Every image gets {queries} learned queries; each answers with a class and a box. In training, one query is made responsible for each of the "
        "{objects} objects: the **one-to-one assignment with the least total cost**. So no two queries answer for the same object, and no duplicates "
        "have to be removed afterwards.",
        "每张图有 {queries} 个可学习的 query,每个给出一个类别和一个框。训练时,{objects} 个物体各由一个 query 负责:**总代价最小的一对一分配**。"
        "这样不会有两个 query 回答同一个物体,之后也不用去掉重复的框。",
    ),
    Text(
        "A small DETR starts with queries that all answer alike: the best assignment costs {first:.2f}. After {steps} steps **on this one picture**, "
        'which it knows by heart, it costs {total:.2f}, and the {left} other queries say "no object" with a probability of {none:.0%}.',
        "一个小 DETR 一开始所有 query 的回答都差不多:最好的分配代价是 {first:.2f}。**只在这一张图上**训练 {steps} 步(它背下了这张图)之后,代价是 {total:.2f},"
        "其余 {left} 个 query 说“无物体”的概率是 {none:.0%}。",
    ),
]
_QUESTION = Text('Why does DETR have a class "no object"?', "DETR 为什么需要“无物体”这个类别?")
_ANSWER = Text(
    "The number of queries is fixed: {queries} here, {published} in the published model. Those that match nothing must be able to say so. In training "
    "that class counts a tenth, because most queries have it.",
    "query 的数量是固定的:这里 {queries} 个,公开的模型 {published} 个。没有匹配到物体的必须能说“没有”。训练时这个类别的权重只有十分之一,因为大多数 query 都属于它。",
)


def _costs(found: Assignment, labels: list[int]) -> Figure:
    chosen = found.queries.tolist()
    rows = []
    for query in range(QUERIES):
        cells: list[Text | tuple[float, str]] = []
        for index in range(len(labels)):
            cost = float(found.costs[query, index])
            cells.append(
                same(f"**{cost:.2f}**".replace("-", "\u2212")) if chosen[index] == query else (cost, ".2f")
            )
        rows.append((Text(f"query {query}", f"query {query}"), cells))
    return Figure(
        picture=Table(
            title=Text(
                "Cost of every query for every object, after training", "训练后每个 query 对每个物体的代价"
            ),
            headings=[Text(f"digit {label}", f"数字 {label}") for label in labels],
            rows=rows,
        ),
        caption=Text(
            '5 · distance of the boxes − probability of the class − 2 · GIoU. Bold: the assignment; the other queries learn "no object".',
            "5 · 框的距离 − 类别概率 − 2 · GIoU。粗体是分配结果;其余的 query 学习“无物体”。",
        ),
    )


def _looks(image: Tensor, boxes: Tensor, looks: Tensor, found: Assignment) -> Figure:
    tiles = [
        Tile(
            label=Text("the boxes of the three queries", "三个 query 的框"),
            pixels=_with_boxes(image, boxes[found.queries]),
        )
    ]
    for query in found.queries.tolist():
        label = Text(f"where query {query} looks", f"query {query} 看哪里")
        tiles.append(Tile(label=label, values=looks[query].numpy()))
    return Figure(
        picture=Gallery(tiles=tiles, width=150),
        caption=Text(
            "Cross-attention to the cells of the ResNet, last decoder layer, mean of heads.",
            "对 ResNet 各个格子的交叉注意力,解码器最后一层,各头平均。",
        ),
    )


def _with_boxes(image: Tensor, boxes: Tensor) -> Pixels:
    """The picture [1, 1, S, S] twice as large, with boxes [n, 4] in colour: [2 S, 2 S, 3]."""
    grey = image[0, 0]
    levels = ((grey - grey.min()) / (grey.max() - grey.min()) * 255).round().to(torch.uint8).numpy()
    pixels = np.repeat(levels.repeat(2, axis=0).repeat(2, axis=1)[..., None], 3, axis=2)
    for left, top, right, bottom in (
        (to_corners(boxes) * 2 * SIDE).round().long().clamp(0, 2 * SIDE - 2).tolist()
    ):
        for rows, columns in (
            (slice(top, top + 2), slice(left, right + 2)),
            (slice(bottom, bottom + 2), slice(left, right + 2)),
            (slice(top, bottom + 2), slice(left, left + 2)),
            (slice(top, bottom + 2), slice(right, right + 2)),
        ):
            pixels[rows, columns] = (242, 140, 60)
    return np.ascontiguousarray(pixels)


LESSON = Lesson(slug="matching", title=Text("DETR: queries and matching", "DETR:query 与匹配"), make=panel)
