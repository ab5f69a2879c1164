"""What each block adds, and what the head would answer after it."""

import torch

from patchword.lessons.measures.stream import Stream, read_after_each_block, stream
from patchword.lessons.panel import Bars, Check, Curve, Figure, Lesson, Panel, Plot, Step
from patchword.lessons.panels.common import BLOCK, LOGITS, TOKENS, need_answers, shape
from patchword.lessons.subject import Subject
from patchword.lessons.words import Numbers, Text, literal


def panel(subject: Subject) -> Panel:
    need_answers(subject)
    vit, image = subject.vit, subject.image
    flow = stream(vit, image)
    reading = read_after_each_block(vit, image)[:, 0]
    depth = len(reading)
    best = int(reading[-1].argmax())
    settled = next(i for i in range(depth) if bool((reading[i:].argmax(dim=1) == best).all()))
    numbers: Numbers = {
        "share": float(reading[-1, best]),
        "early": float(reading[0, best]),
        "settled": settled,
        "first": flow.entering[0],
        "last": flow.entering[-1],
        "most": max(a / e for a, e in zip(flow.added, flow.entering, strict=True)),
        "depth": depth,
        "name": subject.classes[best],
    }
    return Panel(
        notes=_NOTES,
        lead=_LEAD,
        numbers=numbers,
        steps=[
            Step(name=TOKENS, shape=shape(vit.embed_tokens(image)[0])),
            Step(
                name=TOKENS,
                shape=shape(vit.embed_tokens(image)[0]),
                op=Text("+ attention, + MLP", "+ 注意力、+ MLP"),
            ),
            Step(
                name=LOGITS,
                shape=f"[1, {len(subject.classes)}]",
                op=Text("norm, pool, head", "归一化、池化、分类头"),
            ),
        ],
        figures=_figures(subject, flow, reading),
        question=_QUESTION,
        answer=_ANSWER,
        check=Check(
            code="from patchword.lessons.measures.stream import read_after_each_block\n"
            "after = read_after_each_block(subject.vit, subject.image)[:, 0]\n"
            'print([f"{p:.2f}" for p in after[:, after[-1].argmax()].tolist()])',
            prints=str([f"{p:.2f}" for p in reading[:, best].tolist()]),
        ),
        places=["model/vit.py: Block.forward, ViT.encode", "lessons/measures/stream.py"],
        sources=["Raghu et al. 2021, section 5", 'nostalgebraist 2020, "logit lens"'],
    )


def _figures(subject: Subject, flow: Stream, reading: torch.Tensor) -> list[Figure]:
    depth, top = len(reading), reading[-1].argsort(descending=True)[:4].tolist()
    return [
        Figure(
            picture=Plot(
                title=Text("Class probabilities, read after each block", "在每个 block 之后读出的类别概率"),
                x_name=BLOCK,
                curves=[
                    Curve(
                        name=literal(subject.classes[i]),
                        points=[(b, float(reading[b, i])) for b in range(depth)],
                    )
                    for i in top
                ],
                show=".0%",
                most=1.0,
            ),
            caption=Text("The four most likely classes at the end.", "最后概率最大的四个类别。"),
        ),
        Figure(
            picture=Bars(
                title=Text("What a block adds, over what enters it", "block 增加的长度与进入的长度之比"),
                rows=[
                    (Text(f"block {i}", f"block {i}"), a / e)
                    for i, (a, e) in enumerate(zip(flow.added, flow.entering, strict=True))
                ],
                show=".0%",
            ),
            caption=Text("Lengths of vectors, mean over tokens.", "向量长度,对 token 求平均。"),
        ),
    ]


_NOTES = Text(
    "The encoder is L equal blocks, each with two additions.",
    "Encoder 由 L 个相同的 block 组成,每个有两次相加。",
)
_LEAD = [
    Text(
        "The additions make a stream: a block reads it and adds to it, and what an earlier block wrote stays unless it is "
        'cancelled. The head reads the end. It can also be asked early (a "logit lens"): after block 0 it gives '
        '"{name}" {early:.1%}, after the last {share:.1%}. From block {settled} on, this is its answer.',
        "这些相加构成一条流:每个 block 读它、再往上加;先前写入的内容会一直保留,除非被抵消。分类头读的是末端,但也可以提前问它(logit lens):"
        "在第 0 个 block 之后,它给“{name}”{early:.1%},最后是 {share:.1%}。从第 {settled} 个 block 起,答案就不再改变。",
    ),
    Text(
        "A token's vector grows from {first:.1f} to {last:.1f} on its way. The block that changes it most adds {most:.0%} of its length.",
        "一个 token 的向量长度从 {first:.1f} 变到 {last:.1f}。改变最大的 block 加上了其长度的 {most:.0%}。",
    ),
]
_QUESTION = Text("What would the head answer if one block were skipped?", "跳过一个 block,分类头会怎么回答?")
_ANSWER = Text(
    "Often the same: the others still write to the stream. Training with stochastic depth relies on it.",
    "往往还是一样:其他 block 仍然往流里写。stochastic depth 的训练正是利用这一点。",
)


LESSON = Lesson(slug="residual-stream", title=Text("The residual stream", "残差流"), make=panel)
