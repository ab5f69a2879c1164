"""How far all heads look."""

from patchword.lessons.measures.attention import Heads, all_heads, uniform_distance
from patchword.lessons.panel import Check, Curve, Figure, Gallery, Lesson, Panel, Plot, Step, Tile
from patchword.lessons.panels.common import BLOCK, need_grid
from patchword.lessons.subject import Subject
from patchword.lessons.words import Text
from patchword.model.vit import ViT


def panel(subject: Subject) -> Panel:
    need_grid(subject)
    vit, images = subject.vit, subject.batch
    layout = vit.layout(images)
    found = all_heads(vit, images)
    chance = ViT(vit.config, subject.lab.generator(5)).eval()
    untrained = all_heads(chance, images)
    uniform = uniform_distance(layout.grid, vit.config.patch_span)
    depth, heads = found.distance.shape
    numbers = {
        "uniform": uniform,
        "least": float(found.distance.min()),
        "most": float(found.distance.max()),
        "first": float(found.distance[0].mean()),
        "last": float(found.distance[-1].mean()),
        "untrained": float(untrained.distance.mean()),
        "elsewhere": float(found.elsewhere.mean()),
        "heads": depth * heads,
    }

    return Panel(
        notes=_NOTES,
        lead=_LEAD,
        numbers=numbers,
        steps=[
            Step(
                name=Text("attention", "注意力"),
                shape=f"[{len(images)}, {heads}, {layout.num_tokens}, {layout.num_tokens}]",
            ),
            Step(
                name=Text("of patches", "只留 patch"),
                shape=f"[{len(images)}, {heads}, {layout.num_patches}, {layout.num_patches}]",
                op=Text("rows sum to 1 again", "每行重新归一"),
            ),
            Step(
                name=Text("distance", "距离"),
                shape=f"[{depth}, {heads}]",
                op=Text("times distances", "乘以距离再平均"),
            ),
        ],
        figures=_figures(found, untrained, uniform),
        question=_QUESTION,
        answer=_ANSWER,
        kindly=_KINDLY,
        check=Check(
            code="from patchword.lessons.measures.attention import all_heads, uniform_distance\n"
            f"uniform = uniform_distance({tuple(layout.grid)}, {tuple(vit.config.patch_span)})\n"
            'print(f"{all_heads(subject.vit, subject.batch).distance[0].mean():.2f} {uniform:.2f}")',
            prints=f"{numbers['first']:.2f} {uniform:.2f}",
        ),
        places=["model/vit.py: ViT.attention_maps", "lessons/measures/attention.py"],
        sources=["Dosovitskiy et al. 2021, figure 11", "Raghu et al. 2021, section 4"],
    )


_DISTANCE = Text("distance", "距离")
_ENTROPY = Text("entropy", "熵")
_ELSEWHERE = Text("share on other tokens", "给其他 token 的份额")


def _figures(found: Heads, untrained: Heads, uniform: float) -> list[Figure]:
    depth = len(found.distance)

    def curve(name: Text, values: list[float]) -> Curve:
        return Curve(name=name, points=list(enumerate(values)))

    plot = Plot(
        title=Text("Mean attention distance in pixels", "平均注意力距离(像素)"),
        x_name=BLOCK,
        curves=[
            curve(Text("farthest head", "最远的头"), found.distance.max(dim=1).values.tolist()),
            curve(Text("nearest head", "最近的头"), found.distance.min(dim=1).values.tolist()),
            curve(Text("uniform attention", "均匀注意力"), [uniform] * depth),
            curve(
                Text("untrained, mean of heads", "未训练,各头平均"), untrained.distance.mean(dim=1).tolist()
            ),
        ],
        show=".1f",
        from_zero=False,
    )
    tiles = [
        Tile(label=label, values=values.numpy())
        for label, values in (
            (_DISTANCE, found.distance),
            (_ENTROPY, found.entropy),
            (_ELSEWHERE, found.elsewhere),
        )
    ]
    return [
        Figure(
            picture=plot,
            caption=Text(
                "A head below the uniform line prefers near patches.",
                "低于均匀线的头更关注近处的 patch。",
            ),
        ),
        Figure(
            picture=Gallery(tiles=tiles, width=150),
            caption=Text(
                "One row per block, one column per head; darker is more.",
                "每行一个 block,每列一个头;越深越大。",
            ),
        ),
    ]


_NOTES = Text(
    "A CNN relates neighbouring pixels only; self-attention relates all patches.",
    "CNN 只能和临近像素计算相关性;self-attention 让所有 patch 相互关联。",
)
_LEAD = [
    Text(
        "It can. Whether it does is learned. The {heads} heads of this model look {least:.2f} to {most:.2f} pixels far, in the first "
        "block {first:.2f} and in the last {last:.2f} on average. **The line to compare with** is attention that reads everything "
        "alike: {uniform:.2f} pixels. The same model untrained: {untrained:.2f}.",
        "它可以,但是否这样做是学来的。这个模型的 {heads} 个头平均看 {least:.2f} 到 {most:.2f} 像素远,第一个 block 平均 {first:.2f},最后一个 {last:.2f}。"
        "**要拿来比较的线**是对所有 patch 一视同仁的注意力:{uniform:.2f} 像素。同一个模型未训练时:{untrained:.2f}。",
    ),
    Text(
        "{elsewhere:.0%} of the patches' attention goes to tokens that are not patches, such as the class token.",
        "patch 的注意力有 {elsewhere:.0%} 给了不是 patch 的 token,比如 class token。",
    ),
]
_QUESTION = Text(
    "A head's mean distance equals that of uniform attention. Does it read everything alike?",
    "一个头的平均距离与均匀注意力相同。它对所有 patch 一视同仁吗?",
)
_ANSWER = Text(
    "Not necessarily: it may read one patch in the far corner and one close by. Entropy tells these apart.",
    "不一定:它可能读一个远角的 patch 和一个近处的。熵可以区分这两种情况。",
)
_KINDLY = Text(
    "That the first blocks look near is not a law: ViT-L and ViT-H trained on ImageNet alone have no local heads there "
    "(Raghu et al. 2021, figure 4).",
    "“前几个 block 看得近”不是定律:只在 ImageNet 上训练的 ViT-L 和 ViT-H 前几层没有局部的头(Raghu 等 2021,图 4)。",
)


LESSON = Lesson(slug="heads", title=Text("How far the heads look", "每个头看多远"), make=panel)
