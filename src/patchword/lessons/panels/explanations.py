"""Several explanations of the same answer, and how far to trust each."""

import torch

from patchword.explaining.faithfulness import BASELINES, CENTRE, RANDOM, Curves, curves_of
from patchword.explaining.methods.table import METHODS, maps_by_name
from patchword.explaining.settings import ScoreSettings
from patchword.lessons.panel import Check, Figure, Gallery, Lesson, Panel, Row, Step, Table, Tile
from patchword.lessons.panels.common import need_answers, need_grid, shape
from patchword.lessons.subject import Subject
from patchword.lessons.words import Text, same
from patchword.model.config import ViTConfig

CANDIDATES = (
    "attention",
    "rollout",
    "value-norm",
    "relevance",
    "grad-cam",
    "gradient-activation",
    "integrated-gradients",
    "occlusion",
)
# Of one method, in multiply-adds: more would take more than a few seconds.
MOST_FLOPS = 2e11


def methods_for(config: ViTConfig) -> list[str]:
    """The candidates that a model of this size can be explained with in seconds."""
    from patchword.explaining.settings import MethodSettings
    from patchword.model.cost import cost

    settings, flops = MethodSettings(), cost(config).flops
    return [name for name in CANDIDATES if METHODS[name].passes(config, settings) * flops <= MOST_FLOPS]


def curves(subject: Subject) -> dict[str, Curves]:
    """Deletion and insertion of the map of every method, and of two orders that need no model."""
    vit, image = subject.vit, subject.image
    with torch.no_grad():
        target = vit(image).argmax(dim=1)
        maps = {name: _map(subject, name, target) for name in methods_for(vit.config)}
        return curves_of(vit, image, maps, target[0], ScoreSettings(seed=subject.seed))


def _map(subject: Subject, name: str, target: torch.Tensor) -> torch.Tensor:
    return maps_by_name(name, subject.vit, subject.image, target)[0].values[0]


def panel(subject: Subject) -> Panel:
    need_answers(subject)
    need_grid(subject)
    vit, image = subject.vit, subject.image
    with torch.no_grad():
        logits = vit(image)[0]
    top = logits.argsort(descending=True)[:2]
    found = curves(subject)
    gains = {name: float(one.gain) for name, one in found.items()}
    methods = methods_for(vit.config)
    best = max(methods, key=lambda name: gains[name])
    numbers = {
        "methods": len(methods),
        "best": gains[best],
        "random": gains[RANDOM],
        "centre": gains[CENTRE],
        "aware": sum(METHODS[name].class_aware for name in methods),
        "outliers": float(next(iter(maps_by_name("outliers", vit, image)[0].facts.values()))[0]),
    }
    return Panel(
        notes=_NOTES,
        lead=[
            Text(
                "It shows where tokens read, not why the answer is what it is: attention knows **no class**. Of the {methods} methods here {aware} know "
                "one. To test a map, remove the patches in its order and watch the answer fall (deletion), or add them and watch it come back "
                f"(insertion). Insertion less deletion is best for {best}: {{best:.2f}}; a random order has {{random:.2f}}, centre first {{centre:.2f}}.",
                "它显示 token 从哪里读取,而不是答案为什么如此:注意力**不知道类别**。这里的 {methods} 种方法里有 {aware} 种知道类别。检验一张图的办法:按它的顺序"
                f"去掉 patch,看答案下降(deletion);或者逐个加回来,看答案恢复(insertion)。insertion 减 deletion 最高的是 {best}:{{best:.2f}};随机顺序 {{random:.2f}},从中心开始 {{centre:.2f}}。",
            ),
            Text(
                "High-norm outlier tokens, which make attention maps of large models hard to read: {outliers:.0f} here.",
                "大模型的注意力图常被范数异常大的 token 干扰:这里有 {outliers:.0f} 个。",
            ),
        ],
        numbers=numbers,
        steps=[
            Step(name=Text("image", "图片"), shape=shape(image)),
            Step(name=Text("logit", "logit"), shape="[]", op=Text("model, one class", "模型,一个类别")),
            Step(
                name=Text("map", "解释图"),
                shape=str(list(vit.layout(image).grid)),
                op=Text("a method", "某种方法"),
            ),
        ],
        figures=[_gallery(subject, methods, top), _table(found, methods)],
        question=_QUESTION,
        answer=_ANSWER,
        check=Check(
            code="from patchword.lessons.panels.explanations import curves\n"
            "found = curves(subject)\n"
            f'print(f"{{found[{best!r}].gain:.2f}} {{found[{RANDOM!r}].gain:.2f}}")',
            prints=f"{gains[best]:.2f} {gains[RANDOM]:.2f}",
        ),
        places=["explaining/methods/", "explaining/faithfulness.py"],
        sources=["Petsiuk et al. 2018 (RISE)", "Chefer et al. 2021", "Adebayo et al. 2018"],
    )


def _gallery(subject: Subject, methods: list[str], top: torch.Tensor) -> Figure:
    tiles = [Tile(label=Text("the image", "图片"), pixels=subject.pixels)]
    for name in methods:
        values = _map(subject, name, top[:1]).float().cpu().numpy()
        tiles.append(Tile(label=same(name), values=values))
    return Figure(
        picture=Gallery(tiles=tiles, width=104),
        caption=Text(
            "Blue speaks for the most likely class; orange, where a method has a sign, against it.",
            "蓝色支持最可能的类别;带符号的方法里,橙色表示反对。",
        ),
    )


def _table(found: dict[str, Curves], methods: list[str]) -> Figure:
    names = {RANDOM: Text("random order", "随机顺序"), CENTRE: Text("centre first", "从中心开始")}
    rows: list[Row] = []
    for name in [*methods, *BASELINES]:
        one = found[name]
        aware = (
            Text("–", "–")
            if name in BASELINES
            else Text("yes", "是")
            if METHODS[name].class_aware
            else Text("no", "否")
        )
        deletion = float(sum(v.mean() for v in one.deletion.values()) / len(one.deletion))
        insertion = float(sum(v.mean() for v in one.insertion.values()) / len(one.insertion))
        rows.append(
            (
                names.get(name, same(name)),
                [aware, (deletion, ".2f"), (insertion, ".2f"), (float(one.gain), ".2f")],
            )
        )
    return Figure(
        picture=Table(
            title=Text(
                "Deletion (low is good) and insertion (high is good)",
                "deletion(越低越好)与 insertion(越高越好)",
            ),
            headings=[
                Text("knows the class", "知道类别"),
                Text("deletion", "deletion"),
                Text("insertion", "insertion"),
                Text("difference", "差"),
            ],
            rows=rows,
        ),
        caption=Text(
            "One image, mean of two fills: too few to rank methods, enough to see the idea.",
            "一张图片,两种填充的平均:不足以给方法排名,但足以说明思路。",
        ),
    )


_NOTES = Text("Attention shows where the model looks.", "注意力显示模型在看哪里。")
_QUESTION = Text(
    "Two methods give different maps of one answer. Which is right?",
    "两种方法对同一个答案给出不同的图。哪个对?",
)
_ANSWER = Text(
    "Neither by looks. Compare both with a random order, on many images and with two fills; `patchword explain` does.",
    "不能靠观感判断。把两者都与随机顺序比较,用很多图片、两种填充;`patchword explain` 就这样做。",
)


LESSON = Lesson(slug="explanations", title=Text("Explanations compared", "各种解释方法的对比"), make=panel)
