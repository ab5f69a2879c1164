"""Where common notes simplify."""

from patchword.lessons.measures.border import border_response
from patchword.lessons.measures.fields import resnet, theoretical_field
from patchword.lessons.panel import Check, Figure, Lesson, Panel, Step, Table
from patchword.lessons.subject import Subject
from patchword.lessons.words import Text, same
from patchword.model.cost import cost
from patchword.model.sizes import sized


def panel(subject: Subject) -> Panel:
    large, base = sized("ViT-H/14", image_size=518), sized("ViT-B/16")
    numbers = {
        "huge_parameters": cost(large).parameters,
        "base_parameters": cost(base).parameters,
        "huge_tokens": large.num_tokens,
        "ratio": cost(large).parameters / cost(base).parameters,
        "base_values": base.patch_pixels,
        "large_dim": sized("ViT-L/16").dim,
        "small_dim": sized("ViT-S/16").dim,
        "zeros": border_response(8, "zeros").corner,
        "replicate": border_response(8, "replicate").corner,
        "r50": theoretical_field(resnet((3, 4, 6, 3), bottleneck=True)),
    }
    return Panel(
        notes=_NOTES,
        lead=_LEAD,
        numbers=numbers,
        steps=[
            Step(name=Text("image", "图片"), shape="[1, 3, 518, 518]"),
            Step(
                name=Text("tokens", "token"),
                shape=f"[1, {large.num_tokens}, {large.dim}]",
                op=Text("ViT-H/14", "ViT-H/14"),
            ),
            Step(name=Text("logits", "logits"), shape="[1, 1000]", op=Text("32 blocks", "32 个 block")),
        ],
        figures=[
            Figure(
                picture=_table(),
                caption=Text("Which step shows it is in the last column.", "最后一列是对应的步骤。"),
            )
        ],
        question=_QUESTION,
        answer=_ANSWER,
        check=Check(
            code="import patchword as pw; from patchword.model.cost import cost\n"
            'huge = pw.sized("ViT-H/14", image_size=518)\n'
            'print(f"{cost(huge).parameters:,}", huge.num_tokens)',
            prints=f"{numbers['huge_parameters']:,} {numbers['huge_tokens']}",
        ),
        places=["model/sizes.py", "model/cost.py"],
        sources=["Dosovitskiy et al. 2021, table 2", "Touvron et al. 2021 (DeiT), table 7"],
    )


def _table() -> Table:
    rows = [
        (
            Text('"ViT reaches 88.55 %"', "“ViT 达到 88.55 %”"),
            Text(
                "That is ViT-H/14 ({huge_parameters:,d} parameters, {ratio:.1f} times ViT-B/16), pre-trained on 303 million private images for 2,500 "
                "TPUv3-core-days and fine-tuned at 518 pixels ({huge_tokens} tokens). ViT-B/16 on ImageNet-1k alone: about 78 %.",
                "那是 ViT-H/14({huge_parameters:,d} 个参数,是 ViT-B/16 的 {ratio:.1f} 倍),在 3.03 亿张私有图片上预训练了 2500 TPUv3 核·天,再在 518 像素上微调({huge_tokens} 个 token)。"
                "只用 ImageNet-1k 的 ViT-B/16 大约 78 %。",
            ),
            "",
        ),
        (
            Text('"16 · 16 · 3 = 768 = D"', "“16 · 16 · 3 = 768 = D”"),
            Text(
                "A coincidence of ViT-B/16: {base_values} values become {small_dim} in ViT-S/16 and {large_dim} in ViT-L/16.",
                "ViT-B/16 的巧合:{base_values} 个值在 ViT-S/16 变成 {small_dim} 维,在 ViT-L/16 变成 {large_dim} 维。",
            ),
            "patches",
        ),
        (
            Text('"CNNs respond weakly at the edge"', "“CNN 对边缘的响应很弱”"),
            Text(
                "With zero padding: a corner counts {zeros:.2f} after 8 layers. With replicated borders {replicate:.2f}.",
                "补零时:8 层之后角上是 {zeros:.2f}。复制边缘时是 {replicate:.2f}。",
            ),
            "border",
        ),
        (
            Text('"CNNs only relate neighbours"', "“CNN 只能和临近像素计算”"),
            Text(
                "One layer, yes. A unit at the end of ResNet-50 spans {r50} pixels in theory, though few of them count much.",
                "单独一层是的。ResNet-50 末端的单元理论上覆盖 {r50} 像素,虽然真正有分量的不多。",
            ),
            "fields",
        ),
        (
            Text('"Layer norm: all channels of one example"', "“Layer norm:一个数据的所有 channel”"),
            Text("Of one **token**, each by itself.", "是单个 **token** 的所有 channel,各自归一化。"),
            "norms",
        ),
    ]
    return Table(
        title=Text("Notes and numbers", "笔记与数字"),
        headings=[Text("with its number", "加上数字"), Text("step", "步骤")],
        rows=[(name, [text, same(step)]) for name, text, step in rows],
    )


_NOTES = Text(
    "The best model reaches 88.55 % on ImageNet-1k (after pre-training on Google's JFT).",
    "最佳模型在 ImageNet1K 上能够达到 88.55 % 的准确率(先在 Google 自家的 JFT 数据集上进行了预训练)。",
)
_LEAD = [
    Text(
        "Notes simplify, and must. Here is each simplification of the notes that this page followed, with its number.",
        "笔记总要简化。下面列出本页遇到的每一处简化,以及相应的数字。",
    )
]
_QUESTION = Text(
    "Which accuracy should you expect from a ViT-B/16 trained on ImageNet-1k alone?",
    "只用 ImageNet-1k 训练 ViT-B/16,准确率大约是多少?",
)
_ANSWER = Text(
    "About 78 to 82 %, by the recipe: 77.9 % in the paper at 384 pixels, 81.8 % with DeiT's augmentation at 224.",
    "大约 78 到 82 %,取决于训练方法:论文里 384 像素是 77.9 %,DeiT 的数据增强在 224 像素上是 81.8 %。",
)


LESSON = Lesson(slug="corrections", title=Text("The notes, corrected", "笔记的订正"), make=panel)
