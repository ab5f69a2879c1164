"""Accuracy on images with holes and in pieces, ViT and CNN trained alike."""

from patchword.lessons.laboratory import PREPROCESS
from patchword.lessons.measures.holes import accuracy, dropped, in_pieces
from patchword.lessons.measures.order import without_positions
from patchword.lessons.panel import Check, Curve, Figure, Gallery, Lesson, Panel, Plot, Step, Tile
from patchword.lessons.subject import Subject, levels
from patchword.lessons.words import Text

SHARES = (0.0, 0.25, 0.5, 0.75)
PIECES = (1, 2, 4, 8)
DRAWS = 3


def panel(subject: Subject) -> Panel:
    lab = subject.lab
    images, labels = lab.test.images[:100], lab.test.labels[:100]
    models = {"vit": lab.vit, "cnn": lab.cnn, "bare": without_positions(lab.vit)}
    holes = {
        name: [
            sum(accuracy(model, dropped(images, share, 2, seed), labels) for seed in range(DRAWS)) / DRAWS
            for share in SHARES
        ]
        for name, model in models.items()
        if name != "bare"
    }
    pieces = {
        name: [accuracy(model, in_pieces(images, count, subject.seed), labels) for count in PIECES]
        for name, model in models.items()
    }
    numbers = {f"{name}_half": values[2] for name, values in holes.items()}
    numbers |= {f"{name}_whole": values[0] for name, values in holes.items()}
    numbers |= {f"{name}_four": values[2] for name, values in pieces.items()}
    numbers["bare_whole"] = pieces["bare"][0]
    return Panel(
        notes=_NOTES,
        lead=_LEAD,
        numbers=numbers,
        steps=[
            Step(name=Text("100 digits", "100 个数字"), shape="[100, 1, 8, 8]"),
            Step(
                name=Text("damaged", "破坏之后"),
                shape="[100, 1, 8, 8]",
                op=Text("blank or shuffle", "抹掉或打乱"),
            ),
            Step(name=Text("logits", "logits"), shape="[100, 10]", op=Text("ViT, ResNet", "ViT、ResNet")),
        ],
        figures=[_examples(subject), *_plots(holes, pieces)],
        question=_QUESTION,
        answer=_ANSWER,
        check=Check(
            code="from patchword.lessons.measures.holes import accuracy, in_pieces\n"
            f"pieces = in_pieces(subject.lab.test.images[:100], 4, seed={subject.seed})\n"
            'print(f"{accuracy(subject.lab.vit, pieces, subject.lab.test.labels[:100]):.2f}")',
            prints=f"{numbers['vit_four']:.2f}",
        ),
        places=["lessons/measures/holes.py", "lessons/laboratory.py"],
        sources=["Naseer et al. 2021 (arXiv 2105.10497)"],
    )


def _examples(subject: Subject) -> Figure:
    image = subject.lab.test.images[:1]
    tiles = [
        Tile(
            label=Text(f"{share:.0%} blank", f"抹掉 {share:.0%}"),
            pixels=levels(dropped(image, share, 2)[0], PREPROCESS),
        )
        for share in SHARES[1:]
    ]
    tiles += [
        Tile(
            label=Text(f"{n} x {n} pieces", f"{n} x {n} 块"),
            pixels=levels(in_pieces(image, n)[0], PREPROCESS),
        )
        for n in PIECES[1:]
    ]
    return Figure(
        picture=Gallery(tiles=tiles, width=96),
        caption=Text("The first of the 100 digits, damaged.", "100 个数字中的第一个,被破坏后。"),
    )


def _plots(holes: dict[str, list[float]], pieces: dict[str, list[float]]) -> list[Figure]:
    names = {
        "vit": Text("ViT", "ViT"),
        "cnn": Text("ResNet", "ResNet"),
        "bare": Text("ViT, positions removed", "ViT,去掉位置"),
    }

    def plot(title: Text, x_name: Text, xs: tuple[float, ...], values: dict[str, list[float]]) -> Plot:
        curves = [
            Curve(name=names[name], points=list(zip(xs, ys, strict=True))) for name, ys in values.items()
        ]
        return Plot(title=title, x_name=x_name, curves=curves, show=".0%", most=1.0)

    first = plot(
        Text("Accuracy with holes", "有空洞时的准确率"),
        Text("blank patches, %", "抹掉的 patch,%"),
        tuple(100 * share for share in SHARES),
        holes,
    )
    second = plot(
        Text("Accuracy in pieces", "切块打乱后的准确率"),
        Text("pieces per side", "每边块数"),
        tuple(map(float, PIECES)),
        pieces,
    )
    chance = Text(
        "Guessing is right in 10 %. 100 images: a difference below about 10 points may be chance.",
        "瞎猜的准确率是 10 %。只有 100 张图:小于约 10 个点的差别可能只是偶然。",
    )
    return [
        Figure(
            picture=first, caption=Text(f"Mean of {DRAWS} draws of holes.", f"{DRAWS} 次随机空洞的平均。")
        ),
        Figure(picture=second, caption=chance),
    ]


_NOTES = Text(
    "CNN and ViT see an image differently.",
    "ViT 和卷积神经网络看图片的方式有很大区别。",
)
_LEAD = [
    Text(
        "So take things away and see. A small ViT and a small ResNet, trained on the same digits in the same order for the same steps, classify "
        "{vit_whole:.0%} and {cnn_whole:.0%} of 100 scans correctly. With half of the patches blanked, {vit_half:.0%} and {cnn_half:.0%}.",
        "那就拿走一些东西看看。小 ViT 和小 ResNet 用同样的数字、同样的顺序、同样的步数训练,在 100 张图上准确率是 {vit_whole:.0%} 和 {cnn_whole:.0%}。"
        "抹掉一半 patch 后是 {vit_half:.0%} 和 {cnn_half:.0%}。",
    ),
    Text(
        "Cut into 4 x 4 pieces and shuffled (the ViT's own patches), {vit_four:.0%} and {cnn_four:.0%}. The same ViT without its positions "
        "answers as before the shuffle: {bare_four:.0%} and {bare_whole:.0%}. It never knew the order, and pays for that everywhere.",
        "切成 4 x 4 块再打乱(正好是 ViT 的 patch):{vit_four:.0%} 和 {cnn_four:.0%}。去掉位置编码的同一个 ViT 打乱前后一样:{bare_whole:.0%} 和 "
        "{bare_four:.0%}。它从来不知道顺序,也处处为此付出代价。",
    ),
]
_QUESTION = Text(
    "Published ViTs survive far larger holes than published ResNets. Is that the architecture?",
    "公开的 ViT 比公开的 ResNet 更能承受大的空洞。这是架构的功劳吗?",
)
_ANSWER = Text(
    "In part at most. With half of the patches dropped, DeiT-S keeps 70 % and torchvision's ResNet-50 0.1 % (Naseer et al. 2021), but DeiT was "
    "trained with erased and mixed images and that ResNet was not. Compare at the same recipe, as here.",
    "最多只是一部分。抹掉一半时,DeiT-S 还有 70 %,torchvision 的 ResNet-50 只有 0.1 %(Naseer 等 2021);但 DeiT 训练时用了随机擦除和混合,那个 ResNet 没有。"
    "要在同样的训练方法下比较,就像这里。",
)


LESSON = Lesson(slug="holes", title=Text("Holes and shuffles", "打洞与打乱"), make=panel)
