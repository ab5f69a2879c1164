"""How much the border of an image counts in a CNN."""

import numpy as np

from patchword.lessons.measures.border import Padding, border_map, border_response, gradient_by_distance
from patchword.lessons.panel import Check, Curve, Figure, Gallery, Lesson, Panel, Plot, Step, Table, Tile
from patchword.lessons.subject import Subject
from patchword.lessons.words import Text

LAYERS = (1, 4, 8, 16)
PADDINGS: tuple[Padding, ...] = ("zeros", "replicate", "reflect", "none")
_NAMES = {
    "zeros": Text("zeros", "补零"),
    "replicate": Text("replicate", "复制边缘"),
    "reflect": Text("reflect", "镜像"),
    "none": Text("no padding", "不填充"),
}


def panel(subject: Subject) -> Panel:
    found = {(padding, n): border_response(n, padding) for padding in PADDINGS for n in LAYERS}
    numbers = {
        f"{padding}_{n}_{part}": getattr(one, part)
        for (padding, n), one in found.items()
        for part in ("corner", "edge")
    }
    embed = subject.vit.patch_embed.proj.weight
    columns = embed.detach().abs().sum(dim=(0, 1))
    numbers["vit"] = float(columns[0, 0] / columns[columns.shape[0] // 2, columns.shape[1] // 2])
    return Panel(
        notes=_NOTES,
        lead=_LEAD,
        numbers=numbers,
        steps=[
            Step(name=Text("image", "图片"), shape="[1, 1, 65, 65]"),
            Step(
                name=Text("map", "特征图"),
                shape="[1, 1, 65, 65]",
                op=Text("n convolutions 3 x 3", "n 个 3 x 3 卷积"),
            ),
            Step(
                name=Text("gradient", "梯度"), shape="[65, 65]", op=Text("of the map's sum", "对特征图之和")
            ),
        ],
        figures=[_maps(), _table(numbers), _trained(subject)],
        question=_QUESTION,
        answer=_ANSWER,
        kindly=_KINDLY,
        check=Check(
            code="from patchword.lessons.measures.border import border_response\n"
            'zeros, replicate = border_response(8, "zeros"), border_response(8, "replicate")\n'
            'print(f"{zeros.corner:.2f} {zeros.edge:.2f} {replicate.corner:.2f}")',
            prints=f"{numbers['zeros_8_corner']:.2f} {numbers['zeros_8_edge']:.2f} {numbers['replicate_8_corner']:.2f}",
        ),
        places=["lessons/measures/border.py", "lessons/resnet.py: SmallResNet"],
        sources=["Islam et al. 2020 (arXiv 2001.08248)", "Alsallakh et al. 2021 (arXiv 2010.02178)"],
    )


def _maps() -> Figure:
    tiles = []
    for padding in PADDINGS:
        response = border_map(8, padding, 33).numpy()
        tiles.append(Tile(label=_NAMES[padding], values=np.asarray(response), high=float(response.max())))
    return Figure(
        picture=Gallery(tiles=tiles, width=120),
        caption=Text(
            "How much each pixel of 33 x 33 counts after 8 layers.", "8 层之后,33 x 33 图片中每个像素的分量。"
        ),
    )


def _table(numbers: dict[str, float]) -> Figure:
    def cell(value: float) -> tuple[float, str]:
        return value, ".2f" if value >= 0.005 else ".1e"

    rows = [
        (
            _NAMES[padding],
            [cell(numbers[f"{padding}_{n}_{part}"]) for n in LAYERS for part in ("corner", "edge")],
        )
        for padding in PADDINGS
    ]
    headings = [
        heading for n in LAYERS for heading in (Text(f"{n}: corner", f"{n} 层:角"), Text("edge", "边"))
    ]
    return Figure(
        picture=Table(
            title=Text("Corner and edge over centre, by number of layers", "角和边与中心之比,按层数"),
            headings=headings,
            rows=rows,
        ),
        caption=Text(
            "Uniform kernels of stride 1 in float64, 65 x 65 pixels.", "均匀核,步长 1,float64,65 x 65 像素。"
        ),
    )


def _trained(subject: Subject) -> Figure:
    """Learned kernels instead of uniform ones."""
    images = subject.lab.test.images[:64]
    lab = subject.lab
    curves = [
        Curve(name=name, points=list(enumerate(gradient_by_distance(features, images))))
        for name, features in (
            (Text("ResNet, random weights", "ResNet,随机权重"), lambda x: lab.random_cnn.features(x, 1)),
            (Text("ResNet, trained", "ResNet,训练后"), lambda x: lab.cnn.features(x, 1)),
            (Text("ViT's patch embedding", "ViT 的 patch 嵌入"), lambda x: lab.vit.patch_embed(x)[0]),
        )
    ]
    return Figure(
        picture=Plot(
            title=Text(
                "Learned kernels: strength by distance from the border", "学到的核:强度与到边缘的距离"
            ),
            x_name=Text("pixels from the border", "到边缘的像素数"),
            curves=curves,
        ),
        caption=Text(
            "Small models of 8 x 8 digits. ResNet with zero padding: first stage. A ViT's patches have no border: every one meets the same weights.",
            "8 x 8 手写数字上的小模型。ResNet 补零,第一个阶段。ViT 的 patch 没有边缘:每个都与同一组权重相乘。",
        ),
    )


_NOTES = Text(
    "CNNs respond weakly at the edge: border pixels are convolved fewer times, so they contribute less to the gradient.",
    "实际结果中显示,CNN 对边缘的响应很弱:越靠边缘的像素,被卷积次数越少,在梯度更新时贡献更少。",
)
_LEAD = [
    Text(
        "Measured with uniform 3 x 3 kernels, so that the numbers are exact: how much a pixel counts in the last map, over a pixel in "
        "the centre. With **zero padding** after one layer: corner {zeros_1_corner:.2f}, edge {zeros_1_edge:.2f} (4 and 6 of 9 "
        "products); after 8 layers {zeros_8_corner:.2f} and {zeros_8_edge:.2f}. So the notes are right there.",
        "用均匀的 3 x 3 核来量,数字是精确的:一个像素在最后的特征图里的分量,与中心像素之比。**补零**时,一层之后:角 {zeros_1_corner:.2f}、"
        "边 {zeros_1_edge:.2f}(9 次乘积里的 4 次和 6 次);8 层之后 {zeros_8_corner:.2f} 和 {zeros_8_edge:.2f}。这里笔记是对的。",
    ),
]
_QUESTION = Text(
    "A CNN with zero padding can learn where in the image it is. How?",
    "补零的 CNN 能学到自己在图片的什么位置。怎么做到的?",
)
_ANSWER = Text(
    "The zeros mark the border, and every layer carries the mark further in (Islam et al. 2020). It is a CNN's position code; a "
    "ViT needs a table instead.",
    "零标记了边缘,每一层把这个标记往里传(Islam 等 2020)。这就是 CNN 的位置编码;ViT 则需要一张表。",
)
_KINDLY = Text(
    "It is the **padding**, not the convolution. With replicated borders a corner counts as much as the centre: "
    "{replicate_8_corner:.2f} after 8 layers. Without padding it nearly vanishes: {none_4_corner:.1e} after 4. And weak is not "
    "blind: a trained network raises or lowers the border as it needs (Alsallakh et al. 2021).",
    "原因是**填充方式**,不是卷积本身。复制边缘时,8 层之后角上的像素和中心一样重要:{replicate_8_corner:.2f}。不填充时几乎消失:4 层之后 "
    "{none_4_corner:.1e}。而且“弱”不等于“看不见”:训练好的网络会按需要增强或减弱边缘(Alsallakh 等 2021)。",
)


LESSON = Lesson(slug="border", title=Text("The border of a CNN", "CNN 的边缘"), make=panel)
