"""DETR without anchors: queries, and their matching with the objects."""

import numpy as np
import torch
from torch import Tensor

from patchword.images.stored import Pixels
from patchword.lessons.measures.matching import Assignment, assignment, cross_attention
from patchword.lessons.panel import Check, Figure, Gallery, Lesson, Panel, Step, Table, Tile
from patchword.lessons.subject import Subject
from patchword.lessons.words import Text, same
from patchword.model.detr.config import DetrConfig, TrunkConfig
from patchword.model.detr.model import DETR
from patchword.model.matching import Targets

SIDE, SCALE, QUERIES = 256, 6, 6
# Upper left corners of the digits on the canvas, in pixels.
PLACES = ((24, 30), (40, 168), (176, 104))
SMALL_DETR = DetrConfig(
    trunk=TrunkConfig(
        units=(1, 1, 1, 1), root=16, middle=(8, 16, 32, 64), outputs=(32, 64, 128, 256), channels=1
    ),
    dim=64,
    num_heads=4,
    hidden=128,
    encoder_depth=1,
    decoder_depth=2,
    num_queries=QUERIES,
    num_classes=10,
)


def scene(subject: Subject) -> tuple[Tensor, Targets]:
    """Three digits on a canvas of 256 x 256 pixels, [1, 1, 256, 256], and their classes and boxes."""
    scans = subject.lab.test
    canvas = torch.full((1, 1, SIDE, SIDE), float(scans.images.min()))
    side = 8 * SCALE
    boxes = []
    for index, (top, left) in enumerate(PLACES):
        large = scans.images[index, 0].repeat_interleave(SCALE, 0).repeat_interleave(SCALE, 1)
        canvas[0, 0, top : top + side, left : left + side] = large
        boxes.append([(left + side / 2) / SIDE, (top + side / 2) / SIDE, side / SIDE, side / SIDE])
    return canvas, Targets.of([(scans.labels[: len(PLACES)], torch.tensor(boxes))])


def detector(subject: Subject) -> DETR:
    """A small DETR with random weights."""
    return DETR(SMALL_DETR, subject.lab.generator(6)).eval()


@torch.no_grad()
def panel(subject: Subject) -> Panel:
    image, targets = scene(subject)
    detr = detector(subject)
    output = detr(image)
    found = assignment(output, targets)
    count = len(targets.labels)
    numbers = {
        "queries": QUERIES,
        "objects": count,
        "best": found.total(found.best),
        "greedy": found.total(found.greedy),
        "nearest": len(set(found.nearest.tolist())),
        "left": QUERIES - count,
        "published": DetrConfig().num_queries,
    }
    looks = cross_attention(detr, image)[0]
    return Panel(
        notes=_NOTES,
        lead=[_LEAD, _RANDOM],
        numbers=numbers,
        steps=[
            Step(name=Text("image", "图片"), shape=f"[1, 1, {SIDE}, {SIDE}]"),
            Step(
                name=Text("cells", "格子"),
                shape=f"[1, {looks[0].numel()}, {SMALL_DETR.dim}]",
                op=Text("ResNet, encoder", "ResNet、编码器"),
            ),
            Step(
                name=Text("queries", "query"),
                shape=f"[1, {QUERIES}, {SMALL_DETR.dim}]",
                op=Text("decoder", "解码器"),
            ),
            Step(
                name=Text("classes, boxes", "类别、框"),
                shape=f"[1, {QUERIES}, 11], [1, {QUERIES}, 4]",
                op=Text("heads", "预测头"),
            ),
        ],
        figures=[_costs(found, targets), _looks(image, looks, found)],
        question=_QUESTION,
        answer=_ANSWER,
        check=Check(
            code="from patchword.lessons.measures.matching import assignment\n"
            "from patchword.lessons.panels.matching import detector, scene; image, targets = scene(subject)\n"
            'found = assignment(detector(subject)(image), targets); print(f"{found.total(found.best):.2f}", found.best.tolist())',
            prints=f"{numbers['best']:.2f} {found.best.tolist()}",
        ),
        places=["model/matching.py: match", "model/detr/", "model/set_loss.py"],
        sources=["Carion et al. 2020 (arXiv 2005.12872)"],
    )


_LEAD = Text(
    "Every image gets {queries} learned queries; each answers with a class and a box. In training, one query is responsible for each of the {objects} "
    "objects: the one-to-one assignment with the least total cost, {best:.2f} here. Letting each object in turn take the best that is left costs "
    "{greedy:.2f}. Taken by themselves, the objects would share {nearest} queries, and duplicates would have to be removed afterwards.",
    "每张图有 {queries} 个可学习的 query,每个给出一个类别和一个框。训练时,{objects} 个物体各由一个 query 负责:总代价最小的一对一分配,这里是 {best:.2f}。"
    "让物体轮流挑剩下的最好的,代价是 {greedy:.2f}。如果各选各的,它们只会选到 {nearest} 个 query,之后还得去掉重复的框。",
)
_RANDOM = Text(
    "The detector here has **random weights**: its boxes mean nothing yet, but the matching is the real one, and it works from the first step on.",
    "这里的检测器是**随机权重**:它的框还没有意义,但匹配是真实的,而且从第一步就起作用。",
)


def _costs(found: Assignment, targets: Targets) -> Figure:
    chosen = found.best.tolist()
    rows = []
    for query in range(QUERIES):
        cells: list[Text | tuple[float, str]] = []
        for index in range(len(targets.labels)):
            cost = float(found.costs[query, index])
            cells.append(same(f"**{cost:.2f}**") if chosen[index] == query else (cost, ".2f"))
        rows.append((Text(f"query {query}", f"query {query}"), cells))
    return Figure(
        picture=Table(
            title=Text("Cost of every query for every object", "每个 query 对每个物体的代价"),
            headings=[Text(f"digit {label}", f"数字 {label}") for label in targets.labels.tolist()],
            rows=rows,
        ),
        caption=Text(
            '5 · distance of the boxes − probability of the class − 2 · GIoU. Bold: the assignment; the other queries learn "no object".',
            "5 · 框的距离 − 类别概率 − 2 · GIoU。粗体是分配结果;其余的 query 学习“无物体”。",
        ),
    )


def _looks(image: Tensor, looks: Tensor, found: Assignment) -> Figure:
    grey = image[0, 0]
    levels = ((grey - grey.min()) / (grey.max() - grey.min()) * 255).round().to(torch.uint8)
    pixels: Pixels = np.ascontiguousarray(levels.numpy()[..., None])
    query = int(found.best[0])
    return Figure(
        picture=Gallery(
            tiles=[
                Tile(label=Text("the scene", "场景"), pixels=pixels),
                Tile(
                    label=Text(f"where query {query} looks", f"query {query} 看哪里"),
                    values=looks[query].numpy(),
                ),
            ],
            width=170,
        ),
        caption=Text(
            "Cross-attention of the query of the first object, last decoder layer, mean of heads.",
            "负责第一个物体的 query 在解码器最后一层的交叉注意力,各头平均。",
        ),
    )


_NOTES = Text(
    "DETR brings the Transformer to detection: no anchors, no non-maximum suppression.",
    "DETR 首创把 Transformer 引入检测:不需要 anchor,也不需要 NMS。",
)
_QUESTION = Text('Why does DETR have a class "no object"?', "DETR 为什么需要“无物体”这个类别?")
_ANSWER = Text(
    "The number of queries is fixed: {queries} here, {published} in the published model. The {left} that match nothing must be able to say so. In "
    "training that class counts a tenth, because most queries have it.",
    "query 的数量是固定的:这里 {queries} 个,公开的模型 {published} 个。没有匹配到物体的 {left} 个必须能说“没有”。训练时这个类别的权重只有十分之一,因为大多数 query 都属于它。",
)


LESSON = Lesson(slug="matching", title=Text("DETR: queries and matching", "DETR:query 与匹配"), make=panel)
