"""Which axes each norm averages over."""

import torch

from patchword.lessons.measures.attention import entering
from patchword.lessons.measures.norms import NormFacts, norm_facts, norms_of
from patchword.lessons.panel import Check, Figure, Lesson, Panel, Step, Table
from patchword.lessons.panels.common import TOKENS, need_grid, shape
from patchword.lessons.subject import Subject
from patchword.lessons.words import Text, same, shown

_NAMES = {
    "layer": (Text("layer", "layer"), Text("D of one token", "单个 token 的 D")),
    "rms": (Text("RMS", "RMS"), Text("D, mean kept", "D,不减均值")),
    "batch": (Text("batch", "batch"), Text("B and N, per channel", "B 和 N,按通道")),
    "group": (Text("group", "group"), Text("N and some of D", "N 和一组 D")),
    "instance": (Text("instance", "instance"), Text("N, per channel", "N,按通道")),
}


def tokens_of(subject: Subject) -> torch.Tensor:
    """The tokens [8, N, D] that enter the second block (the first, if there is one block) for the image and seven digits."""
    wanted = min(1, subject.vit.config.depth - 1)
    return next(one.tokens for one in entering(subject.vit, subject.batch) if one.layer == wanted)


def panel(subject: Subject) -> Panel:
    need_grid(subject)
    tokens = tokens_of(subject)
    others = tokens[1:].flip(0) + 1
    facts = {name: norm_facts(norm, tokens, others) for name, norm in norms_of(tokens.shape[2]).items()}
    numbers = {f"{name}_mates": one.mates for name, one in facts.items()}
    numbers |= {
        "images": len(tokens),
        "tokens": tokens.shape[1],
        "dim": tokens.shape[2],
        "padding": facts["instance"].padding,
    }
    return Panel(
        notes=_NOTES,
        lead=_LEAD,
        numbers=numbers,
        steps=[
            Step(name=Text("batch", "batch"), shape=shape(subject.batch)),
            Step(name=TOKENS, shape=shape(tokens), op=Text("first block", "第一个 block")),
            Step(name=Text("normed", "归一化后"), shape=shape(tokens), op=Text("norm", "归一化")),
        ],
        figures=[Figure(picture=_table(facts), caption=_CAPTION)],
        question=_QUESTION,
        answer=_ANSWER,
        kindly=_KINDLY,
        check=Check(
            code="from patchword.lessons.measures.norms import norm_facts, norms_of\n"
            "from patchword.lessons.panels.norms import tokens_of; x = tokens_of(subject)\n"
            "print(f\"{norm_facts(norms_of(x.shape[2])['batch'], x, x[1:].flip(0) + 1).mates:.2f}\")",
            prints=shown(numbers["batch_mates"], ".2f"),
        ),
        places=["model/norms.py", "model/kinds/norms.py", "lessons/measures/norms.py"],
        sources=["Ba et al. 2016", "Ioffe & Szegedy 2015", "Wu & He 2018, figure 2"],
    )


_CAPTION = Text(
    "Largest absolute mean after the norm, taken along three sets of axes: a norm that averages over them leaves 0. Then the change of "
    "image 1's output when the other images are replaced, and when zero tokens are appended to every image.",
    "归一化之后,沿三组轴取均值的最大绝对值:对哪些轴求平均,那里就是 0。最后两列:换掉其他图片时、以及给每张图补上零 token 时,第一张图输出的变化。",
)


def _table(facts: dict[str, NormFacts]) -> Table:
    def small(value: float) -> tuple[float, str]:
        return (value, ".1e") if 0 < value < 5e-3 else (value, ".2f")

    return Table(
        title=Text("Five norms on the same tokens", "同一组 token 上的五种归一化"),
        headings=[
            Text("averages over", "对哪些轴平均"),
            Text("mean of a token", "单个 token 的均值"),
            Text("of a channel", "单个通道的均值"),
            Text("of a channel of an image", "单图单通道的均值"),
            Text("other images", "换掉其他图片"),
            Text("padding", "补零"),
        ],
        rows=[
            (
                _NAMES[name][0],
                [
                    _NAMES[name][1],
                    *(small(v) for v in (one.by_token, one.by_channel, one.by_image)),
                    (one.mates, ".2f") if one.mates else same("0"),
                    small(one.padding),
                ],
            )
            for name, one in facts.items()
        ],
    )


_NOTES = Text(
    "Batch norm forces one channel of a whole batch to mean 0 and deviation 1; layer norm does so for all channels of one example.",
    "Batch Normalization 强行让一个 batch 的某个 channel 的 μ=0、σ=1;Layer Normalization 让一个数据的所有 channel 的 μ=0、σ=1。",
)
_LEAD = [
    Text(
        "Here are {images} images as {tokens} tokens of {dim} channels, and five norms in training mode. Then all images "
        "but the first are replaced. Under **batch norm** the first image's output changes by {batch_mates:.2f}; under the "
        "four others by exactly {layer_mates}.",
        "这里有 {images} 张图片,每张 {tokens} 个 token,每个 token {dim} 个通道,以及训练模式下的五种归一化。然后把第一张以外的图片全部换掉。"
        "**batch norm** 下第一张图的输出变化了 {batch_mates:.2f};其余四种正好是 {layer_mates}。",
    ),
]
_QUESTION = Text(
    "Why does layer norm in a ViT not average over the tokens of an image too, as group norm with one group does?",
    "ViT 里的 layer norm 为什么不像只有一组的 group norm 那样,把一张图的所有 token 也一起平均?",
)
_ANSWER = Text(
    "Then a token's values would depend on how many other tokens there are: padding, masking or a larger image would change "
    "them. The last column shows it for the norms that do average over tokens.",
    "那样的话,一个 token 的值会取决于还有多少别的 token:补零、遮挡、换更大的图片都会改变它。表的最后一列显示了对 token 求平均的那些归一化的变化。",
)
_KINDLY = Text(
    '"All channels of one example" was said of vectors. In a Transformer an example has many tokens, and layer norm treats '
    "**each token by itself**: {dim} numbers at a time, not {tokens} · {dim}.",
    "“一个数据的所有 channel”说的是向量。在 Transformer 里一个数据有很多 token,layer norm **对每个 token 单独**归一化:"
    "每次 {dim} 个数,而不是 {tokens} · {dim} 个。",
)


LESSON = Lesson(slug="norms", title=Text("Norms compared", "归一化的对比"), make=panel)
