"""Gradients by block, with the norm before or after each branch."""

from patchword.lessons.laboratory import SMALL_VIT
from patchword.lessons.measures.gradients import gradient_norms
from patchword.lessons.panel import Check, Curve, Figure, Lesson, Panel, Plot, Step
from patchword.lessons.subject import Subject
from patchword.lessons.words import Text

DEPTHS = (4, 12, 24)


def panel(subject: Subject) -> Panel:
    scans = subject.lab.test
    images, labels = scans.images[:16], scans.labels[:16]
    found = {
        (order, depth): gradient_norms(SMALL_VIT, order, depth, images, labels, subject.seed)
        for order in ("pre", "post")
        for depth in DEPTHS
    }
    numbers = {f"{order}_{depth}": norms[-1] for (order, depth), norms in found.items()}
    numbers |= {f"{order}_ratio": numbers[f"{order}_24"] / numbers[f"{order}_4"] for order in ("pre", "post")}
    numbers["root"] = (DEPTHS[0] / DEPTHS[-1]) ** 0.5
    deepest = DEPTHS[-1]
    return Panel(
        notes=_NOTES,
        lead=_LEAD,
        numbers=numbers,
        steps=[
            Step(name=Text("16 digits", "16 个数字"), shape="[16, 1, 8, 8]"),
            Step(
                name=Text("loss", "损失"),
                shape="[]",
                op=Text("24 blocks, random weights", "24 个 block,随机权重"),
            ),
            Step(
                name=Text("gradients", "梯度"),
                shape=f"{deepest} x 1",
                op=Text("length per block", "每个 block 的长度"),
            ),
        ],
        figures=[
            Figure(picture=_plot(found, order, title), caption=_CAPTION)
            for order, title in (
                ("pre", Text("Norm before the branch", "归一化在分支之前")),
                ("post", Text("Norm after the branch", "归一化在分支之后")),
            )
        ],
        question=_QUESTION,
        answer=_ANSWER,
        check=Check(
            code="from patchword.lessons.measures.gradients import gradient_norms; from patchword.lessons.laboratory import SMALL_VIT\n"
            f'norms = gradient_norms(SMALL_VIT, "post", 24, subject.lab.test.images[:16], subject.lab.test.labels[:16], {subject.seed})\n'
            'print(f"{norms[-1]:.2f}")',
            prints=f"{numbers['post_24']:.2f}",
        ),
        places=["model/vit.py: Block.forward", "model/parts.py: BlockConfig.order"],
        sources=["Xiong et al. 2020 (arXiv 2002.04745)"],
    )


_CAPTION = Text(
    "Length of the gradient of each block's weights; the small ViT of this page, untrained.",
    "每个 block 权重梯度的长度;本页的小 ViT,未训练。",
)


def _plot(found: dict[tuple[str, int], list[float]], order: str, title: Text) -> Plot:
    curves = [
        Curve(
            name=Text(f"{depth} blocks", f"{depth} 层"),
            points=[(i / (depth - 1), norm) for i, norm in enumerate(found[order, depth])],
        )
        for depth in DEPTHS
    ]
    return Plot(
        title=title,
        x_name=Text("from the first block (0) to the last (1)", "从第一个 block(0)到最后一个(1)"),
        curves=curves,
        show=".2f",
    )


_NOTES = Text(
    'The original Transformer normalises after each branch ("Add & Norm"); ViT draws the norm before it.',
    "原始 Transformer 在每个分支之后归一化(Add & Norm);ViT 的图里归一化在分支之前。",
)
_LEAD = [
    Text(
        "It matters before the first step of training. Look at the gradient of the **last** block of untrained models. With the norm "
        "**after** each branch it is about as large at any depth: {post_4:.2f} with 4 blocks, {post_24:.2f} with 24. With the norm "
        "**before** the branch it falls with depth, from {pre_4:.2f} to {pre_24:.2f}: to {pre_ratio:.0%}, where theory says 1 over the "
        "root of the depth, {root:.0%}.",
        "这在训练开始之前就有区别。看未训练模型**最后**一个 block 的梯度。归一化放在分支**之后**时,不论多深都差不多大:4 层 {post_4:.2f},24 层 {post_24:.2f}。"
        "放在分支**之前**时,它随深度下降,从 {pre_4:.2f} 到 {pre_24:.2f},即 {pre_ratio:.0%};理论上按深度的平方根反比下降,是 {root:.0%}。",
    ),
    Text(
        "With the norm inside the branch, the tokens themselves pass from end to end by addition alone. Their length grows with depth, so "
        "each single block matters less at the end. With the norm after the addition, every block rescales them.",
        "归一化在分支里面时,token 本身从头到尾只经过加法,长度随深度增长,所以单个 block 在末端的分量变小;归一化在加法之后时,每个 block 都重新缩放它们。",
    ),
]
_QUESTION = Text(
    "What helps a post-norm model at the start of training?", "post-norm 的模型训练开始时靠什么稳定?"
)
_ANSWER = Text(
    "A warm-up: a tiny learning rate while the gradients near the output are large, as they are with post-norm at any depth. Pre-norm models train without it, and keep "
    "it out of caution.",
    "预热(warm-up):输出附近的梯度很大(post-norm 不论多深都如此)时,用很小的学习率。pre-norm 没有预热也能训练,只是出于谨慎仍然保留。",
)


LESSON = Lesson(
    slug="pre-and-post-norm", title=Text("Norm before or after", "归一化在前还是在后"), make=panel
)
