"""The patch convolution and a matrix product are the same."""

from patchword.lessons.measures.patches import convolution_and_linear, largest_difference
from patchword.lessons.panel import Check, Figure, Lesson, Panel, Step, Table
from patchword.lessons.panels.common import IMAGE, PATCHES, shape
from patchword.lessons.subject import Subject
from patchword.lessons.words import Text


def panel(subject: Subject) -> Panel:
    vit, image = subject.vit, subject.image
    convolved, multiplied = convolution_and_linear(vit, image)
    proj = vit.patch_embed.proj
    difference = largest_difference((convolved, multiplied))
    numbers = {
        "difference": difference,
        "products": convolved.shape[1] * proj.weight.numel(),
        "weights": proj.weight.numel(),
        "kernel": proj.kernel_size[0],
        "stride": proj.stride[0],
    }
    first = [(float(value), ".4f") for value in convolved[0, 0, :3]]
    second = [(float(value), ".4f") for value in multiplied[0, 0, :3]]
    return Panel(
        notes=_NOTES,
        lead=_LEAD,
        numbers=numbers,
        steps=[
            Step(name=IMAGE, shape=shape(image)),
            Step(
                name=Text("map", "特征图"),
                shape=f"[1, {proj.out_channels}, h, w]",
                op=Text("convolution", "卷积"),
            ),
            Step(name=PATCHES, shape=shape(convolved), op=Text("flatten, transpose", "展平、转置")),
        ],
        figures=[
            Figure(
                picture=Table(
                    title=Text(
                        "The first patch, the first three of its channels", "第一个 patch 的前三个通道"
                    ),
                    headings=[Text(str(i), str(i)) for i in range(3)],
                    rows=[(Text("convolution", "卷积"), first), (Text("matrix", "矩阵"), second)],
                ),
                caption=Text(
                    "The last digits may differ: the sums are taken in another order.",
                    "最后几位可能不同:求和的顺序不一样。",
                ),
            )
        ],
        question=_QUESTION,
        answer=_ANSWER,
        check=Check(
            code="from patchword.lessons.measures.patches import convolution_and_linear, largest_difference\n"
            "difference = largest_difference(convolution_and_linear(subject.vit, subject.image))\n"
            "print(difference < 1e-5)",
            prints=str(difference < 1e-5),
        ),
        places=["model/vit.py: PatchEmbed.forward, PatchEmbed.project"],
        sources=["Dosovitskiy et al. 2021, section 3.1"],
    )


_NOTES = Text(
    "In code, patches are cut by a convolution whose kernel and stride are both the patch size.",
    "在代码实现中,patch 的裁剪是用一个 patch_size 大小的卷积、同时以 patch_size 的步长进行卷积实现的。",
)
_LEAD = [
    Text(
        "A kernel of {kernel} that moves {stride} pixels at a time never overlaps itself: every patch meets the same {weights} "
        "weights once. Cutting, flattening and one matrix product give the same tokens; the relative difference is {difference:.1e}. Both "
        "take {products} products.",
        "{kernel} 像素的核每次移动 {stride} 像素,从不重叠:每个 patch 只与同一组 {weights} 个权重相乘一次。切块、展平、再乘一个矩阵,"
        "得到相同的 token,相对差别是 {difference:.1e}。两者都是 {products} 次乘法。",
    )
]
_QUESTION = Text("Is a ViT then a CNN?", "那么 ViT 是 CNN 吗?")
_ANSWER = Text(
    "Only in its first layer, and there without overlap. After it, no kernel is left: every token reads from every other.",
    "只有第一层是,而且没有重叠。之后不再有卷积核:每个 token 都可以读取其他所有 token。",
)


LESSON = Lesson(
    slug="convolution", title=Text("A convolution that is a linear layer", "卷积就是线性层"), make=panel
)
