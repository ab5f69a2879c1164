"""What a unit could see, and what it does see."""

from functools import partial

from torch import Tensor

from patchword.lessons.measures.fields import (
    effective_field,
    resnet,
    share_inside,
    spread,
    theoretical_field,
    uniform_stack,
    vgg16,
)
from patchword.lessons.panel import Check, Curve, Figure, Gallery, Lesson, Panel, Plot, Step, Table, Tile
from patchword.lessons.subject import Subject
from patchword.lessons.words import Text, same

DEPTHS = (4, 16, 64)
NETWORKS = {
    "VGG-16": vgg16(),
    "ResNet-18": resnet((2, 2, 2, 2), bottleneck=False),
    "ResNet-50": resnet((3, 4, 6, 3), bottleneck=True),
    "ResNet-50, 2015": resnet((3, 4, 6, 3), bottleneck=True, stride_on_3x3=False),
}


def panel(subject: Subject) -> Panel:
    lab = subject.lab
    images = lab.test.images[:32]
    vit_fields = [effective_field(partial(_vit_unit, subject, block), images) for block in range(4)]
    cnn_fields = [effective_field(partial(_cnn_unit, subject, stage), images) for stage in range(3)]
    numbers: dict[str, float] = {
        f"n{n}_{part}": getattr(uniform_stack(n), part)
        for n in DEPTHS
        for part in ("deviation", "above", "side", "area")
    }
    numbers |= {
        "vgg": theoretical_field(vgg16()),
        "r50": theoretical_field(NETWORKS["ResNet-50"]),
        "r18": theoretical_field(NETWORKS["ResNet-18"]),
    }
    numbers |= {
        "vit_first": spread(vit_fields[0]),
        "vit_last": spread(vit_fields[-1]),
        "cnn_first": spread(cnn_fields[0]),
        "cnn_last": spread(cnn_fields[-1]),
    }
    numbers["own"] = share_inside(vit_fields[-1], 4, 4, 2, 2)
    return Panel(
        notes=_NOTES,
        lead=_LEAD,
        numbers=numbers,
        steps=[
            Step(name=Text("32 digits", "32 个数字"), shape="[32, 1, 8, 8]"),
            Step(
                name=Text("one unit", "一个单元"),
                shape="[32, D]",
                op=Text("network up to a layer", "网络的前几层"),
            ),
            Step(name=Text("field", "感受野"), shape="[8, 8]", op=Text("|gradient|, mean", "|梯度|,求平均")),
        ],
        figures=[_pictures(vit_fields, cnn_fields), _bells(), _table()],
        question=_QUESTION,
        answer=_ANSWER,
        kindly=_KINDLY,
        check=Check(
            code="from patchword.lessons.measures.fields import resnet, theoretical_field, uniform_stack, vgg16\n"
            "fields = [theoretical_field(n) for n in (vgg16(), resnet((3, 4, 6, 3), bottleneck=True))]\n"
            'print(*fields, f"{uniform_stack(16).deviation:.2f}")',
            prints=f"{numbers['vgg']} {numbers['r50']} {numbers['n16_deviation']:.2f}",
        ),
        places=["lessons/measures/fields.py"],
        sources=[
            "Araujo et al. 2019 (Distill)",
            "Luo et al. 2016 (arXiv 1701.04128)",
            "Raghu et al. 2021, figure 6",
        ],
    )


def _vit_unit(subject: Subject, block: int, images: Tensor) -> Tensor:
    """The token of the patch at row 2, column 2, after a block of our small ViT."""
    vit = subject.lab.vit
    return vit.split(vit.encode(images, [block], normed=False)[block], vit.layout(images))["patches"][:, 2, 2]


def _cnn_unit(subject: Subject, stages: int, images: Tensor) -> Tensor:
    """The unit in the middle of our small ResNet's map after the root and some stages."""
    features = subject.lab.cnn.features(images, stages)
    return features[:, :, features.shape[2] // 2, features.shape[3] // 2]


def _pictures(vit_fields: list[Tensor], cnn_fields: list[Tensor]) -> Figure:
    names = [Text("ResNet: root", "ResNet:第一层"), Text("stage 1", "阶段 1"), Text("stage 2", "阶段 2")]
    names += [
        Text(f"ViT: block {i}" if not i else f"block {i}", f"ViT:block {i}" if not i else f"block {i}")
        for i in range(4)
    ]
    tiles = [
        Tile(label=name, values=field.numpy())
        for name, field in zip(names, [*cnn_fields, *vit_fields], strict=True)
    ]
    return Figure(
        picture=Gallery(tiles=tiles, width=84),
        caption=Text(
            "Small trained models of 8 x 8 digits: which pixels one unit in the middle depends on, mean over 32 scans. {own:.0%} of the ViT's "
            "last field lies in the unit's own patch, which is 6 % of the image: the addition around each block keeps it.",
            "8 x 8 手写数字上训练好的小模型:中间一个单元依赖哪些像素(32 张图平均)。ViT 最后的感受野有 {own:.0%} 在自己的 patch 里,而它只占图片的 6 %:"
            "每个 block 外面的相加保留了它。",
        ),
    )


def _bells() -> Figure:
    widths = range(1, 65)
    return Figure(
        picture=Plot(
            title=Text("Pixels per side, by number of layers", "每边像素数与层数"),
            x_name=Text("layers", "层数"),
            curves=[
                Curve(
                    name=Text("could be seen", "理论上能看到"),
                    points=[(n, uniform_stack(n).side) for n in widths],
                ),
                Curve(
                    name=Text("matter (above 4.55 % of the peak)", "有分量(高于峰值的 4.55 %)"),
                    points=[(n, uniform_stack(n).above) for n in widths],
                ),
            ],
            show=".0f",
        ),
        caption=Text(
            "Uniform 3 x 3 kernels. One grows with n, the other with its root.",
            "均匀 3 x 3 核。一个随 n 增长,另一个随 n 的平方根增长。",
        ),
    )


def _table() -> Figure:
    rows = [(same(name), [(theoretical_field(layers), ",d")]) for name, layers in NETWORKS.items()]
    return Figure(
        picture=Table(
            title=Text("Theoretical fields", "理论感受野"),
            headings=[Text("pixels per side", "每边像素")],
            rows=rows,
        ),
        caption=Text(
            "ResNet-50 has its stride on the 3 x 3 convolution in most libraries; in the paper of 2015 on the 1 x 1 before it.",
            "多数库里 ResNet-50 的步长在 3 x 3 卷积上;2015 年的论文放在它前面的 1 x 1 上。",
        ),
    )


_NOTES = Text(
    "A CNN can only relate neighbouring pixels; the top left can never be convolved together with the bottom right.",
    "CNN 只能和临近像素计算相关性,无法对非领域的像素共同计算,例如左上角的像素无法和右下角的像素联合卷积。",
)
_LEAD = [
    Text(
        "Count: each layer adds (kernel − 1) times the strides before it. One unit of VGG-16's last map can see {vgg} pixels per side, of "
        "ResNet-18's {r18}, of ResNet-50's {r50}. An image has 224.",
        "算一算:每层增加(核 − 1)乘以之前各层步长之积。VGG-16 最后的特征图上,一个单元能看到 {vgg} 像素宽,ResNet-18 {r18},ResNet-50 {r50}。"
        "而图片只有 224。",
    ),
    Text(
        "But what counts is a bell in the middle. After 16 uniform layers its deviation is {n16_deviation:.1f} pixels, and "
        "{n16_above} of {n16_side} pixels per side matter ({n16_area:.0%} of the area); after 64 layers {n64_above} of {n64_side} ({n64_area:.0%}).",
        "但真正起作用的是中间的一口钟。16 层均匀卷积之后,标准差是 {n16_deviation:.1f} 像素,每边 {n16_side} 个像素里只有 {n16_above} 个有分量"
        "(面积的 {n16_area:.0%});64 层之后是 {n64_side} 个里的 {n64_above} 个({n64_area:.0%})。",
    ),
]
_QUESTION = Text(
    "If effect shrinks like a bell, why do CNNs work on large objects?",
    "既然作用像钟形一样衰减,CNN 为什么能识别大物体?",
)
_ANSWER = Text(
    "Strides make later layers step over many pixels at once, and the final pooling joins all places.",
    "步长让后面的层一次跨过很多像素,最后的池化再把所有位置合在一起。",
)
_KINDLY = Text(
    '"Can only" and "never" hold for one layer. Deep units of a ResNet span the whole image in theory. In effect, and in the first '
    "layers, the notes are right: here the ResNet's field has a deviation of {cnn_first:.2f} pixels after its root and {cnn_last:.2f} "
    "after its last stage; the ViT's {vit_first:.2f} after its first block and {vit_last:.2f} after its last.",
    "“只能”和“无法”只对单独一层成立。理论上,ResNet 深层的单元覆盖整张图。就实际作用和前几层来说,笔记是对的:这里 ResNet 的感受野在第一层之后标准差为 "
    "{cnn_first:.2f} 像素,最后一个阶段之后 {cnn_last:.2f};ViT 第一个 block 之后 {vit_first:.2f},最后一个之后 {vit_last:.2f}。",
)


LESSON = Lesson(slug="fields", title=Text("Receptive fields", "感受野"), make=panel)
