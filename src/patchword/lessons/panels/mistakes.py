"""Five broken ViTs: what the loss shows, and what a probe shows."""

from collections.abc import Mapping
from functools import partial

from patchword.diagnosis.findings import Diagnosis, Finding
from patchword.diagnosis.run import diagnose_model
from patchword.lessons.laboratory import Scans, train_classifier
from patchword.lessons.panel import Check, Curve, Figure, Lesson, Panel, Plot, Row, Step, Table
from patchword.lessons.student import MISTAKES, Mistake, StudentViT
from patchword.lessons.subject import Subject
from patchword.lessons.words import Text, literal

# Steps of each training, and over how many the drawn loss is averaged.
STEPS, MEAN = 96, 8
NAMES: Mapping[Mistake, Text] = {
    "none": Text("correct", "正确"),
    "positions": Text("positions are never added", "忘了加位置编码"),
    "batch": Text("attention over the batch", "注意力沿 batch 轴计算"),
    "softmax": Text("softmax over queries", "softmax 的轴错了"),
    "residual": Text("an addition is missing", "少了一次残差相加"),
    "probabilities": Text("softmax before the loss", "损失之前多了 softmax"),
}


def diagnosed(mistake: Mistake) -> Diagnosis:
    """What the probes find in a new model with this mistake."""
    return diagnose_model(partial(StudentViT, mistake), mistake, size=(8, 8), channels=1)


def losses(subject: Subject, mistake: Mistake) -> list[float]:
    """The loss of each step of a short training on digits."""
    scans, count = subject.lab.training, STEPS // 3 * 32
    some = Scans(images=scans.images[:count], labels=scans.labels[:count])
    return train_classifier(StudentViT(mistake, subject.lab.generator(7)), some, subject.lab.generator(8), 3)


def panel(subject: Subject) -> Panel:
    curves = {mistake: losses(subject, mistake) for mistake in NAMES}
    found = {mistake: diagnosed(mistake) for mistake in NAMES}
    numbers = {f"loss_{mistake}": sum(values[-MEAN:]) / MEAN for mistake, values in curves.items()}
    numbers |= {
        "count": len(MISTAKES),
        "steps": STEPS,
        "named": sum(bool(_serious(found[m])) for m in MISTAKES),
    }
    numbers["alarms"] = len(_serious(found["none"]))
    first = _serious(found["softmax"])[0]
    return Panel(
        notes=_NOTES,
        lead=_LEAD,
        numbers=numbers,
        steps=[
            Step(name=Text("images", "图片"), shape="[B, 1, 8, 8]"),
            Step(name=Text("logits", "logits"), shape="[B, 10]", op=Text("someone's ViT", "某人的 ViT")),
            Step(
                name=Text("findings", "发现"),
                shape=f"{len(MISTAKES)}",
                op=Text("thirteen probes", "十三个探针"),
            ),
        ],
        figures=[_losses(curves), _table(found, numbers)],
        question=_QUESTION,
        answer=_ANSWER,
        check=Check(
            code="from patchword.lessons.panels.mistakes import diagnosed\n"
            'found = diagnosed("softmax").findings[0]\n'
            "print(found.module, found.title, sep=': ')",
            prints=f"{first.module}: {first.title}",
        ),
        places=["lessons/student.py: StudentViT", "diagnosis/probes/"],
    )


_NOTES = Text(
    "Code for a ViT is short, and can be written in an afternoon.",
    "ViT 的代码很短,一个下午就能写完。",
)
_LEAD = [
    Text(
        "So are its mistakes, and most do not raise an error. Here are a correct ViT in plain torch and {count} broken ones, trained for {steps} "
        "steps. At the end the correct one has a loss of {loss_none:.2f}; without positions {loss_positions:.2f}, with a missing addition "
        "{loss_residual:.2f}, with the wrong softmax {loss_softmax:.2f}. A loss curve alone does not say which is broken.",
        "错误也很容易写出来,而且大多不会报错。这里有一个用 torch 写的正确的 ViT 和 {count} 个有错的,各训练 {steps} 步。最后正确的损失是 {loss_none:.2f};"
        "没有位置编码 {loss_positions:.2f},少一次相加 {loss_residual:.2f},softmax 轴错了 {loss_softmax:.2f}。只看损失曲线,说不出哪个是坏的。",
    ),
    Text(
        "`patchword diagnose` asks the model instead of its source: shuffle the patches, swap two images, silence a block. It names {named} of {count}, "
        "and raises {alarms} alarms for the correct one.",
        "`patchword diagnose` 不读源代码,而是直接问模型:打乱 patch、交换两张图片、关掉一个 block。它指出了 {count} 个里的 {named} 个,对正确的模型报警 {alarms} 次。",
    ),
]
_QUESTION = Text(
    "Attention over the batch: why does the loss stay near ln 10 = 2.3?",
    "注意力沿 batch 轴计算:损失为什么停在 ln 10 = 2.3 附近?",
)
_ANSWER = Text(
    "The class token then sees only the class tokens of other images, never a patch: the answer does not depend on the image. PyTorch's own ViT "
    "example had this mistake for a year.",
    "这样 class token 只能看到其他图片的 class token,看不到任何 patch:答案与图片无关。PyTorch 官方的 ViT 示例带着这个错误存在了一年。",
)


def _serious(diagnosis: Diagnosis) -> list[Finding]:
    return [finding for finding in diagnosis.findings if finding.level == "mistake"]


def _losses(curves: Mapping[Mistake, list[float]]) -> Figure:
    shown: tuple[Mistake, ...] = ("none", "positions", "residual", "softmax", "batch")

    def points(values: list[float]) -> list[tuple[float, float]]:
        starts = range(0, len(values) - MEAN + 1, MEAN)
        return [(start + MEAN, sum(values[start : start + MEAN]) / MEAN) for start in starts]

    lines = [Curve(name=NAMES[mistake], points=points(curves[mistake])) for mistake in shown]
    return Figure(
        picture=Plot(title=Text("Loss in training", "训练损失"), x_name=Text("step", "步数"), curves=lines),
        caption=Text(
            "Means of 8 steps. The softmax before the loss is left out: its loss has another scale.",
            "8 步的平均。损失之前多了 softmax 的没有画:它的损失尺度不同。",
        ),
    )


def _table(found: Mapping[Mistake, Diagnosis], numbers: Mapping[str, float]) -> Figure:
    rows: list[Row] = []
    for mistake, diagnosis in found.items():
        serious = _serious(diagnosis)
        said = literal(f"{serious[0].module}: {serious[0].title}") if serious else Text("nothing", "没有发现")
        rows.append((NAMES[mistake], [(numbers[f"loss_{mistake}"], ".2f"), said]))
    return Figure(
        picture=Table(
            title=Text("What the probes say", "探针的回答"),
            headings=[Text("loss", "损失"), Text("first finding: module, mistake", "第一条:模块、错误")],
            rows=rows,
        ),
        caption=Text(
            "`patchword diagnose my_vit.py` adds what was done, what was expected and the cure.",
            "`patchword diagnose my_vit.py` 还会给出做了什么、预期什么、怎样修。",
        ),
    )


LESSON = Lesson(slug="mistakes", title=Text("Spot the mistake", "找错误"), make=panel)
