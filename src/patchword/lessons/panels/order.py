"""Without positions, attention cannot tell one order from another."""

from patchword.errors import SettingsError
from patchword.lessons.measures.order import shuffle_change, shuffled, whole_patches, without_positions
from patchword.lessons.panel import Check, Figure, Gallery, Lesson, NotForThisModel, Panel, Step, Tile
from patchword.lessons.panels.common import IMAGE, LOGITS, TOKENS, need_grid, shape
from patchword.lessons.subject import Subject, levels
from patchword.lessons.words import Text, shown


def panel(subject: Subject) -> Panel:
    need_grid(subject)
    vit, image = subject.vit, subject.image
    try:
        bare = without_positions(vit)
    except SettingsError as error:
        raise NotForThisModel(
            Text(
                f"It cannot be built without positions: {error.message}.",
                f"去掉位置编码后无法构建:{error.message}。",
            )
        ) from None
    numbers = {
        "without": shuffle_change(bare, image, subject.seed),
        "with_positions": shuffle_change(vit, image, subject.seed),
        "patches": vit.layout(image).num_patches,
    }
    tokens = vit.embed_tokens(image)[0]
    size = vit.config.patch_span
    tiles = [
        Tile(
            label=Text("in order", "原来的顺序"),
            pixels=levels(whole_patches(image, size)[0], subject.preprocess),
        ),
        Tile(
            label=Text("shuffled", "打乱之后"),
            pixels=levels(shuffled(image, size, subject.seed)[0], subject.preprocess),
        ),
    ]
    return Panel(
        notes=_NOTES,
        lead=_LEAD,
        numbers=numbers,
        steps=[
            Step(name=IMAGE, shape=shape(image)),
            Step(name=TOKENS, shape=shape(tokens), op=Text("patches + positions", "patch + 位置")),
            Step(name=LOGITS, shape=shape(vit(image)), op=Text("blocks, pool, head", "block、池化、分类头")),
        ],
        figures=[
            Figure(
                picture=Gallery(tiles=tiles, width=160),
                caption=Text(
                    "Both are the same set of patches. Without positions, the model answers the same for both.",
                    "两张图是同一组 patch。没有位置编码,模型对两者的回答相同。",
                ),
            )
        ],
        question=_QUESTION,
        answer=_ANSWER,
        check=Check(
            code="from patchword.lessons.measures.order import shuffle_change, without_positions\n"
            f"change = shuffle_change(subject.vit, subject.image, seed={subject.seed})\n"
            'print(f"{change:.2f}")',
            prints=shown(numbers["with_positions"], ".2f"),
        ),
        places=["model/vit.py: ViT.embed_tokens", "lessons/measures/order.py"],
        sources=["Vaswani et al. 2017, section 3.5"],
    )


_NOTES = Text(
    'Without position information, "A hit B" and "B hit A" are the same to self-attention.',
    "没有位置信息时,“A 打了 B”和“B 打了 A”对 self-attention 来说是一样的。",
)
_LEAD = [
    Text(
        "True, and exactly so. Cut the image into {patches} patches and shuffle them. In a model **without positions** the "
        "logits change by at most {without:.1e}: rounding. With this model's own positions they change by "
        "{with_positions:.2f}.",
        "没错,而且是严格成立的。把图片切成 {patches} 个 patch 再打乱。**没有位置编码**时,logits 最多变化 {without:.1e},"
        "只是舍入误差。用这个模型自己的位置编码,变化是 {with_positions:.2f}。",
    ),
    Text(
        "The reason: every token is updated by a weighted **sum** over all tokens, and a sum does not know in which order "
        "its terms came.",
        "原因:每个 token 都由所有 token 的加权**求和**来更新,而求和不在乎各项的先后。",
    ),
]
_QUESTION = Text(
    "The class token has no patch. Does it need a position?",
    "class token 不对应任何 patch。它需要位置编码吗?",
)
_ANSWER = Text(
    "No. There is only one, and its own learned vector already tells it apart. ViT and DeiT add one all the same; DeiT-III "
    "and big_vision do not.",
    "不需要。它只有一个,自己的可学习向量已经足够区分。ViT 和 DeiT 仍然加了,DeiT-III 和 big_vision 没有加。",
)


LESSON = Lesson(slug="order", title=Text("Order", "顺序"), make=panel)
