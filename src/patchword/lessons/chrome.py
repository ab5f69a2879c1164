"""The words of the page around its panels."""

from patchword.lessons.panel import Gallery, Tile
from patchword.lessons.subject import Subject
from patchword.lessons.words import Numbers, Text, literal

WORDS: dict[str, Text] = {
    "title": Text("A Vision Transformer, step by step", "一步一步看懂 Vision Transformer"),
    "skip": Text("Skip to the first step", "跳到第一步"),
    "contents": Text("Steps", "目录"),
    "notes": Text("The notes say", "笔记里说"),
    "kindly": Text("Not quite", "更准确地说"),
    "question": Text("Question", "想一想"),
    "answer": Text("Answer", "答案"),
    "check": Text("Check it yourself", "自己验证"),
    "prints": Text("prints", "输出"),
    "places": Text("In the code", "代码位置"),
    "sources": Text("Source", "出处"),
    "skipped": Text("Left out for this model", "这个模型没有的步骤"),
    "setup": Text(
        "Every step ends with three lines of Python. Run these two first, once:",
        "每一步最后都有三行 Python。先运行一次下面两行:",
    ),
    "promise": Text(
        "Every number on this page was computed by patchword from this model and this image. Nothing is loaded from the network.",
        "本页的每个数字都由 patchword 用这个模型和这张图片算出。页面不访问网络。",
    ),
    "made": Text("Made by", "生成工具:"),
}


def facts_of(subject: Subject) -> list[tuple[Text, str]]:
    """Short facts about the model and the image."""
    config = subject.vit.config
    height, width = subject.image.shape[2:]
    grid = subject.vit.layout(subject.image).grid
    parameters = sum(p.numel() for p in subject.vit.parameters())
    return [
        (Text("Image", "图片"), f"{width} x {height}"),
        (Text("Patches", "patch 数"), f"{grid[0]} x {grid[1]}"),
        (Text("Width D", "宽度 D"), f"{config.dim}"),
        (Text("Blocks", "层数"), f"{config.depth}"),
        (Text("Heads", "头数"), f"{config.attention.num_heads}"),
        (Text("Parameters", "参数量"), f"{parameters:,}"),
    ]


def about(subject: Subject) -> list[tuple[Text, Numbers]]:
    """What the page is about, in sentences."""
    from patchword.lessons.measures.holes import accuracy

    if subject.model is not None:
        return [
            (
                Text(
                    "The model is yours: {name}. Steps that need a CNN or several trainings use small models of handwritten "
                    "digits, and say so.",
                    "模型是你的:{name}。需要 CNN 或多次训练的步骤用手写数字的小模型,并会说明。",
                ),
                {"name": subject.model.report.path.name},
            )
        ]
    test = subject.lab.test
    numbers = {"accuracy": accuracy(subject.vit, test.images, test.labels), "images": len(test.labels)}
    return [
        (
            Text(
                "The model is a small ViT, trained a moment ago on scans of handwritten digits of 8 x 8 pixels. It classifies "
                "{accuracy:.1%} of {images} other scans correctly. Give your own model and image to see them instead: "
                "`patchword learn MODEL IMAGE`.",
                "模型是一个刚刚训练好的小 ViT,数据是 8 x 8 像素的手写数字。它在另外 {images} 张图上的准确率是 {accuracy:.1%}。"
                "想看自己的模型和图片:`patchword learn MODEL IMAGE`。",
            ),
            numbers,
        )
    ]


def picture(subject: Subject) -> Gallery:
    return Gallery(tiles=[Tile(label=literal(subject.name), pixels=subject.pixels)], width=160)
