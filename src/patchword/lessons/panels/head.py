"""One attention head, written out."""

import math

import torch

from patchword.lessons.measures.attention import Head, entropy, head_by_hand
from patchword.lessons.panel import Check, Figure, Gallery, Lesson, Panel, Step, Table, Tile
from patchword.lessons.panels.common import CHOOSE, TOKENS, middle_patch, need_grid, some_patches
from patchword.lessons.subject import Subject
from patchword.lessons.words import Text, same


def panel(subject: Subject) -> Panel:
    need_grid(subject)
    vit = subject.vit
    layout = vit.layout(subject.image)
    token = layout.num_prefix + middle_patch(subject)
    found = head_by_hand(vit, subject.image, 0, 0, token)
    dim = vit.config.head_dim
    numbers = {
        "dim": dim,
        "root": math.sqrt(dim),
        "tokens": layout.num_tokens,
        "sum": float(found.weights.sum()),
        "difference": found.difference,
        "entropy": float(entropy(found.weights)),
        "entropy_unscaled": float(entropy(found.unscaled)),
        "uniform": math.log2(layout.num_tokens),
        "largest": float(found.weights.max()),
    }
    return Panel(
        notes=_NOTES,
        lead=_LEAD,
        numbers=numbers,
        steps=[
            Step(name=TOKENS, shape=f"[1, {layout.num_tokens}, {vit.config.dim}]"),
            Step(
                name=Text("q, k, v", "q、k、v"),
                shape=f"3 x [{layout.num_tokens}, {dim}]",
                op=Text("norm, linear", "归一化、线性层"),
            ),
            Step(
                name=Text("weights", "权重"),
                shape=f"[{layout.num_tokens}, {layout.num_tokens}]",
                op=Text("q kᵀ, softmax", "q kᵀ、softmax"),
            ),
            Step(
                name=Text("output", "输出"), shape=f"[{layout.num_tokens}, {dim}]", op=Text("times v", "乘 v")
            ),
        ],
        figures=[_map(found, subject), _each(subject), _rows(found, subject)],
        question=_QUESTION,
        answer=_ANSWER,
        check=Check(
            code="from patchword.lessons.measures.attention import entropy, head_by_hand\n"
            f"head = head_by_hand(subject.vit, subject.image, layer=0, head=0, token={token})\n"
            'print(f"{entropy(head.weights):.2f} {entropy(head.unscaled):.2f}")',
            prints=f"{numbers['entropy']:.2f} {numbers['entropy_unscaled']:.2f}",
        ),
        places=["model/attention.py: Attention", "lessons/measures/attention.py: head_by_hand"],
        sources=["Vaswani et al. 2017, section 3.2.1"],
    )


def _map(found: Head, subject: Subject) -> Figure:
    layout = subject.vit.layout(subject.image)
    patches = slice(layout.num_prefix, layout.num_prefix + layout.num_patches)
    tiles = [Tile(label=Text("the image", "图片"), pixels=subject.pixels)]
    for name, row in (
        (Text("with 1/sqrt(d)", "除以 sqrt(d)"), found.weights),
        (Text("without", "不除"), found.unscaled),
    ):
        tiles.append(Tile(label=name, values=row[patches].reshape(layout.grid).numpy()))
    return Figure(
        picture=Gallery(tiles=tiles, width=150),
        caption=Text(
            "Where the middle patch reads in block 0, head 0. Darkest: {largest:.2f} of all weight.",
            "中间的 patch 在第 0 个 block、第 0 个头里读哪里。最深处占全部权重的 {largest:.2f}。",
        ),
    )


def _each(subject: Subject) -> Figure:
    """Where other patches read in the same head."""
    layout = subject.vit.layout(subject.image)
    patches = slice(layout.num_prefix, layout.num_prefix + layout.num_patches)
    with torch.no_grad():
        weights = subject.vit.attention_maps(subject.image, layers=[0], heads=[0])[0][0, 0, patches, patches]
    tiles = [
        Tile(label=name, values=weights[patch].reshape(layout.grid).numpy())
        for patch, name in some_patches(subject)
    ]
    return Figure(
        picture=Gallery(tiles=tiles, slider=CHOOSE, width=76),
        caption=Text(
            "The same head for other patches, by row and column. Do they read beside themselves, or all in one place?",
            "同一个头,换其他 patch 来问,按行、列编号。它们读自己旁边,还是都读同一处?",
        ),
    )


def _rows(found: Head, subject: Subject) -> Figure:
    names = subject.vit.layout(subject.image)
    best = found.weights.argsort(descending=True)[:5]
    rows = []
    for index in best.tolist():
        patch = index - names.num_prefix
        if 0 <= patch < names.num_patches:
            row, column = divmod(patch, names.grid[1])
            name = Text(f"patch ({row}, {column})", f"patch ({row}, {column})")
        else:
            name = same(f"token {index}")
        cells = [
            (float(value), how)
            for value, how in (
                (found.keys[index] @ found.q, ".2f"),
                (found.scores[index], ".2f"),
                (found.weights[index], ".3f"),
            )
        ]
        rows.append((name, cells))
    return Figure(
        picture=Table(
            title=Text("The five tokens it reads most", "读得最多的五个 token"),
            headings=[same("q · k"), Text("score", "分数"), Text("weight", "权重")],
            rows=rows,
        ),
        caption=Text(
            "Prefix tokens, such as the class token, have no place in the image.",
            "class token 等前缀 token 在图片里没有位置。",
        ),
    )


_NOTES = Text(
    "The Transformer encoder computes how each token relates to each other token.",
    "Transformer Encoder 中计算每个 token 之间的相关性。",
)
_LEAD = [
    Text(
        "The middle patch asks, with its query q; every token offers a key k. The score is q · k / sqrt({dim}); softmax turns "
        "{tokens} scores into {tokens} weights that sum to {sum:.3f}. Written out from the weights it agrees with the model to "
        "{difference:.1e}.",
        "中间的 patch 用它的 query q 发问,每个 token 拿出自己的 key k。分数是 q · k / sqrt({dim});softmax 把 {tokens} 个分数变成 {tokens} 个权重,"
        "和为 {sum:.3f}。按公式手算,与模型只差 {difference:.1e}。",
    ),
    Text(
        "Dividing by sqrt({dim}) = {root:.2f} keeps the softmax soft: the row has {entropy:.2f} bits of entropy; without it, "
        "{entropy_unscaled:.2f}. Equal weights would have {uniform:.2f}.",
        "除以 sqrt({dim}) = {root:.2f} 让 softmax 不至于太尖:这一行的熵是 {entropy:.2f} 比特,不除则是 {entropy_unscaled:.2f}。完全平均时是 {uniform:.2f}。",
    ),
]
_QUESTION = Text(
    "Why is the row of weights not symmetric: why may A read from B while B does not read from A?",
    "为什么权重不对称:A 读 B,B 却可以不读 A?",
)
_ANSWER = Text(
    "Queries and keys come from two different matrices, and each row has its own softmax.",
    "query 和 key 来自两个不同的矩阵,而且每一行各自做 softmax。",
)


LESSON = Lesson(slug="one-head", title=Text("One attention head, by hand", "手算一个注意力头"), make=panel)
