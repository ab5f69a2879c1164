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
    numbers = {f"{order}_{depth}": norms[-1] / norms[0] for (order, depth), norms in found.items()}
    deepest = DEPTHS[-1]
    return Panel(
        notes=Text(
            'The original Transformer normalises after each branch ("Add & Norm"); ViT draws the norm before it.',
            "原始 Transformer 在每个分支之后归一化(Add & Norm);ViT 的图里归一化在分支之前。",
        ),
        lead=[
            Text(
                "It matters before the first step of training. In an untrained model of 24 blocks with the norm **after** each branch, "
                "the gradient of the last block is {post_24:,.1f} times that of the first. With the norm **before** the branch it is "
                "{pre_24:,.2f} times.",
                "这在训练开始之前就有区别。24 层、未训练的模型,归一化放在分支**之后**时,最后一个 block 的梯度是第一个的 {post_24:,.1f} 倍;"
                "放在**之前**时是 {pre_24:,.2f} 倍。",
            ),
            Text(
                "With the norm inside the branch, the tokens themselves pass from end to end by addition alone, and so do gradients. With "
                "the norm after the addition, every block rescales them.",
                "归一化在分支里面时,token 本身从头到尾只经过加法,梯度也是;归一化在加法之后时,每个 block 都会重新缩放它们。",
            ),
        ],
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
        question=Text(
            "What helps a post-norm model at the start of training?", "post-norm 的模型训练开始时靠什么稳定?"
        ),
        answer=Text(
            "A warm-up: a tiny learning rate while the gradients near the output are large. Pre-norm models train without it, and keep "
            "it out of caution.",
            "预热(warm-up):输出附近的梯度很大时用很小的学习率。pre-norm 没有预热也能训练,只是出于谨慎仍然保留。",
        ),
        check=Check(
            code="from patchword.lessons.measures.gradients import gradient_norms; from patchword.lessons.laboratory import SMALL_VIT\n"
            f'norms = gradient_norms(SMALL_VIT, "post", 24, subject.lab.test.images[:16], subject.lab.test.labels[:16], {subject.seed})\n'
            'print(f"{norms[-1] / norms[0]:.1f}")',
            prints=f"{numbers['post_24']:.1f}",
        ),
        places=["model/vit.py: Block.forward", "model/parts.py: BlockConfig.order"],
        sources=["Xiong et al. 2020 (arXiv 2002.04745)"],
    )


_CAPTION = Text(
    "Length of the gradient of each block's weights, divided by that of the first block; the small ViT of this page, untrained.",
    "每个 block 权重梯度的长度,除以第一个 block 的;本页的小 ViT,未训练。",
)


def _plot(found: dict[tuple[str, int], list[float]], order: str, title: Text) -> Plot:
    curves = [
        Curve(
            name=Text(f"{depth} blocks", f"{depth} 层"),
            points=[
                (i / (depth - 1), norm / found[order, depth][0]) for i, norm in enumerate(found[order, depth])
            ],
        )
        for depth in DEPTHS
    ]
    return Plot(
        title=title,
        x_name=Text("from the first block (0) to the last (1)", "从第一个 block(0)到最后一个(1)"),
        curves=curves,
        show=".1f",
    )


LESSON = Lesson(slug="depth", title=Text("Norm before or after", "归一化在前还是在后"), make=panel)
