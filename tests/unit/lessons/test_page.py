"""The page of `patchword learn`: its numbers, its three lines, both languages, and what a browser would load."""

import contextlib
import dataclasses
import io
import itertools
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import patchword as pw
from patchword import lessons
from patchword.cli.main import run
from patchword.images.preprocess import Preprocess
from patchword.lessons.laboratory import SMALL_VIT, Laboratory, Scans, train_classifier
from patchword.lessons.page import page, panels_of
from patchword.lessons.panel import Lesson, Panel
from patchword.lessons.panels import PANELS
from patchword.lessons.resnet import SmallResNet
from patchword.lessons.subject import Subject, open_subject
from patchword.lessons.words import FIELD, LANGUAGES, Literal, Text, filled, literal, shown
from patchword.lessons.write import setup_line
from patchword.model.config import HeadConfig, ImageConfig, PatchConfig, TokensConfig
from patchword.model.kinds import MeanPool, Rope2d
from patchword.model.vit import ViT
from patchword.weights.card import ModelCard
from patchword.weights.native import write_model
from support.page import Page
from support.photos import write_photos

Output = pytest.CaptureFixture[str]
# Elements without an end tag.
VOID = {"meta", "link", "img", "br", "input"}
# The probes of `diagnose` take seconds.
QUICK = tuple(lesson for lesson in PANELS if lesson.slug != "mistakes")
# About our own small models, whatever model is given.
OURS = {"pre-and-post-norm", "border", "fields", "holes", "matching", "corrections"}
SOME = ("one-head", "residual-stream", "explanations")
AWKWARD = "<b>`{0}` **&amp;**"


@pytest.fixture(scope="module")
def lab() -> Laboratory:
    """Without training: the numbers are poor, and every one is there."""
    return Laboratory(seed=0, epochs=0)


@pytest.fixture(scope="module")
def ours(lab: Laboratory) -> Subject:
    return open_subject(lab=lab)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that shares nothing with ours, and photographs."""
    folder = tmp_path_factory.mktemp("theirs")
    config = replace(
        SMALL_VIT,
        image=ImageConfig(size=(32, 40)),
        patch=PatchConfig(size=(8, 8)),
        dim=24,
        depth=2,
        tokens=TokensConfig(class_token=False, num_registers=2),
        positions=Rope2d(),
        attention=replace(SMALL_VIT.attention, num_heads=2),
        head=HeadConfig(pool=MeanPool(), num_classes=3),
    )
    vit = ViT(config, torch.Generator().manual_seed(3))
    card = ModelCard(
        config=config, preprocess=Preprocess.simple((32, 40)), classes=(AWKWARD, "daisy", "玫瑰")
    )
    write_model(folder / "model.safetensors", vit.state_dict(), card)
    bare = replace(config, head=replace(config.head, num_classes=0))
    weights = ViT(bare, torch.Generator().manual_seed(3)).state_dict()
    write_model(folder / "backbone.safetensors", weights, replace(card, config=bare, classes=()))
    write_photos(folder / "photos")
    return folder


@pytest.fixture(scope="module")
def theirs(folder: Path, lab: Laboratory) -> Subject:
    return open_subject(folder / "model.safetensors", folder / "photos", lab=lab)


Made = tuple[Subject, list[tuple[Lesson, Panel | Text]]]


@pytest.fixture(scope="module")
def made(ours: Subject, theirs: Subject) -> dict[str, Made]:
    """Both subjects with their panels, which are computed once."""
    return {
        "ours": (ours, panels_of(ours, lessons=QUICK)),
        "theirs": (theirs, panels_of(theirs, lessons=QUICK)),
    }


def computed(made: Made) -> dict[str, Panel]:
    return {lesson.slug: panel for lesson, panel in made[1] if isinstance(panel, Panel)}


@pytest.mark.parametrize("who", ["ours", "theirs"])
def test_the_three_lines_of_every_step_print_its_number(who: str, made: dict[str, Made]) -> None:
    subject, panels = made[who][0], computed(made[who])
    assert list(panels) == [lesson.slug for lesson, _ in made[who][1]]
    assert len(PANELS) == 18 and len(panels) >= 11
    for slug, panel in panels.items():
        lines = panel.check.code.split("\n")
        assert len(lines) == 3 and lines[-1].count("print(") == 1, slug
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(panel.check.code, slug, "exec"), {"subject": subject})
        assert out.getvalue() == panel.check.prints + "\n", slug


def test_every_text_names_the_same_numbers_in_both_languages(made: dict[str, Made]) -> None:
    for one in made.values():
        for slug, panel in computed(one).items():
            for text in texts_of(panel):
                names = [set(FIELD.findall(text.said(language))) for language in ("en", "zh")]
                assert names[0] == names[1], (slug, text)
                assert {name for name, _ in names[0]} <= set(panel.numbers), (slug, text)
    # Chinese, and not a copy of the English.
    assert sum(text.en != text.zh for text in texts_of(list(computed(made["ours"]).values()))) > 150


def texts_of(value: Any) -> Iterator[Text]:
    if isinstance(value, Text):
        if not isinstance(value, Literal):
            yield value
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from texts_of(getattr(value, field.name))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from texts_of(item)


class Checker(Page):
    """A page whose elements must be closed in order."""

    def __init__(self, text: str) -> None:
        self.stack: list[str] = []
        self.wrong: list[str] = []
        self.ids: list[str] = []
        super().__init__(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        super().handle_starttag(tag, attrs)
        self.ids += [value for name, value in attrs if name == "id" and value]
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        if not self.stack or self.stack.pop() != tag:
            self.wrong.append(tag)
        super().handle_endtag(tag)


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("who", ["ours", "theirs"])
def test_the_page_is_one_valid_offline_file(who: str, language: Any, made: dict[str, Made]) -> None:
    subject, panels = made[who]
    text = page(subject, panels, language)
    found = Checker(text)
    assert len(text.encode()) < 5_000_000
    assert not found.wrong and not found.stack
    assert len(found.ids) == len(set(found.ids))
    for name, value in found.attributes:
        if name in ("href", "src"):
            assert (value or "").startswith(("#", "data:")), value
        assert not name.startswith("on")
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org)", text)
    policies = [value or "" for name, value in found.attributes if name == "content"]
    assert (
        any(policy.startswith("default-src 'none'") for policy in policies) and found.elements["script"] == 1
    )
    # A heading for every step, no level is left out, every image has an alternative text, every link an aim.
    assert [level for level, _ in found.headings if level == 2][1:] == [2] * len(panels)
    # Charts have their own headings, below those of their step.
    levels = [level for level, _ in found.headings if level != 4]
    assert levels[0] == 1 and all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert found.elements["img"] == sum(name == "alt" for name, _ in found.attributes)
    assert {v[1:] for n, v in found.attributes if n == "href" and v and v.startswith("#")} <= set(found.ids)
    # Numbers are there without scripts, and none is left unfilled.
    assert len(found.numbers) > 100 and all(shown_text for _, shown_text in found.numbers)
    assert not re.search(
        r"\{\w+(:[^}]*)?\}", found.text.replace(AWKWARD, "").split("from patchword.lessons import")[0]
    )


def test_sliders_only_add(made: dict[str, Made]) -> None:
    """Without scripts every image that a slider chooses from is on the page, and each has a name."""
    text = page(*made["theirs"], "en")
    assert "<input" not in text.split("<script>")[0]
    galleries = re.findall(r'<div class="gallery" data-slider="Choose a patch">(.*?)</div>', text, re.DOTALL)
    assert galleries
    for gallery in galleries:
        names = re.findall(r"<figcaption>(patch [^<]+)</figcaption>", gallery)
        assert len(names) == gallery.count("<img") == len(set(names)) == 8


def test_colours_are_told_apart_on_light_and_dark_paper() -> None:
    """WCAG 2.2, 1.4.3: text has a contrast of at least 4.5 with what lies behind it."""
    style = (Path(lessons.__file__).parents[1] / "reports/templates/report.css").read_text()
    for scheme in re.findall(r":root \{(.*?)\}", style, re.DOTALL)[:2]:
        colours = dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6})", scheme))
        for behind in ("paper", "card"):
            for name in ("ink", "soft", "blue", "orange"):
                assert _contrast(colours[name], colours[behind]) >= 4.5, (name, behind)


def _contrast(first: str, second: str) -> float:
    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_names_and_roles_are_there_for_a_screen_reader(language: Any, made: dict[str, Made]) -> None:
    text = page(*made["ours"], language)
    assert re.search(r'<html lang="(en|zh-CN)">', text) and text.count("<main ") == text.count("<h1") == 1
    assert '<a class="skip" href="#main">' in text and "<title>" in text
    for tag, inside in (("table", "<caption>"), ("svg", "<title"), ("figure", "<figcaption>")):
        for part in re.findall(rf"<{tag}[ >].*?</{tag}>", text, re.DOTALL):
            assert inside in part, part[:200]
    for head in re.findall(r"<th[ >][^>]*>", text):
        assert 'scope="' in head
    for region in re.findall(r'<[a-z]+[^>]*role="(?:region|img)"[^>]*>', text):
        assert "aria-label" in region
    ids = set(re.findall(r' id="([^"]+)"', text))
    for names in re.findall(r'aria-labelledby="([^"]+)"', text):
        assert set(names.split()) <= ids
    for summary in re.findall(r"<details[^>]*>(.{9})", text):
        assert summary == "<summary>"


def test_both_languages_show_the_same_numbers(made: dict[str, Made]) -> None:
    pages = [Page(page(*made["ours"], language)) for language in LANGUAGES]
    assert sorted(pages[0].numbers) == sorted(pages[1].numbers)


def test_a_name_of_a_class_is_text_and_no_markup(made: dict[str, Made]) -> None:
    text = page(*made["theirs"], "en")
    assert "<b>`" not in text and "&lt;b&gt;" in text


def test_a_step_that_a_model_cannot_have_is_listed(folder: Path, lab: Laboratory) -> None:
    subject = open_subject(folder / "backbone.safetensors", folder / "photos/00.png", lab=lab)
    panels = panels_of(subject, lessons=[lesson for lesson in PANELS if lesson.slug in SOME])
    left_out = {lesson.slug for lesson, panel in panels if isinstance(panel, Text)}
    assert left_out == {"residual-stream", "explanations"}
    found = Page(page(subject, panels, "en"))
    assert "Left out for this model: 2 / 3" in found.text


def test_numbers_are_shown_in_the_language_of_people() -> None:
    assert [shown(0.992, ".1%"), shown(1437), shown(-0.25, ".2f")] == ["99.2\u00a0%", "1,437", "\u22120.25"]
    assert shown(1.9e-7, ".1e") == "1.9\u00a0·\u00a010\u207b\u2077" and shown(0.0, ".1e") == "0"
    assert [shown(-0.001, ".0%"), shown(-0.0, ".2f")] == ["0\u00a0%", "0.00"]
    html = filled(Text("<{x:.1f}> `a` **b**", ""), "en", {"x": 0.25})
    assert html == '&lt;<data value="0.25" data-name="x">0.2</data>&gt; <code>a</code> <strong>b</strong>'


def test_the_setup_opens_the_same_subject() -> None:
    assert setup_line(None, None, 0) == "subject = open_subject()"
    assert setup_line("runs/a", "b.png", 3) == "subject = open_subject('runs/a', 'b.png', seed=3)"
    assert setup_line(None, "b.png", 0) == "subject = open_subject(None, 'b.png')"


def test_an_image_alone_is_an_image(folder: Path) -> None:
    subject = open_subject(folder / "photos/00.png")
    assert subject.model is None and subject.image.shape == (1, 1, 8, 8) and subject.name.endswith("00.png")


@pytest.mark.parametrize(
    ("arguments", "problem", "fix"),
    [
        (["--out", "page.pdf"], "page.pdf: unknown file extension '.pdf'", "use .html"),
        (["--out", "page"], "page: no file extension", "use .html"),
        (["--out", "nowhere/page.html"], "nowhere", ""),
        (["nowhere.safetensors"], "nowhere.safetensors", ""),
        (["{folder}/model.safetensors", "nowhere.png"], "nowhere.png", ""),
        (["{folder}/broken.png"], "broken.png", ""),
    ],
)
def test_a_mistake_costs_two_lines(
    arguments: list[str],
    problem: str,
    fix: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Output,
) -> None:
    monkeypatch.chdir(tmp_path)
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    assert run(["learn", *(argument.format(folder=folder) for argument in arguments)]) == 2
    lines = capsys.readouterr().err.splitlines()[-2:]
    assert lines[0].startswith("error: ") and problem in lines[0]
    assert lines[1].strip().startswith("fix: ") and fix in lines[1]
    assert not list(tmp_path.iterdir())


def test_an_unknown_language_names_those_that_exist() -> None:
    with pytest.raises(pw.PatchwordError, match="unknown language 'zn'") as caught:
        pw.learn(language="zn")  # type: ignore[arg-type]
    assert "en, zh" in caught.value.fix


def test_training_lowers_the_loss_and_repeats(lab: Laboratory) -> None:
    some = Scans(images=lab.training.images[:96], labels=lab.training.labels[:96])
    runs = [
        train_classifier(SmallResNet(generator=lab.generator(3)), some, lab.generator(2), 4) for _ in range(2)
    ]
    assert runs[0] == runs[1] and len(runs[0]) == 12
    assert sum(runs[0][-3:]) < 0.9 * sum(runs[0][:3])


def test_names_of_people_are_no_markup() -> None:
    assert filled(Text("{n}", "{n}"), "zh", {"n": "**{x}**<"}) == "<bdi>**{x}**&lt;</bdi>"
    assert filled(literal("`{x}`"), "en", {}) == "`{x}`"


@pytest.mark.slow
def test_mistakes_are_named_and_a_correct_model_is_not() -> None:
    subject = open_subject(lab=Laboratory(epochs=1))
    (panel,) = (lesson.make(subject) for lesson in PANELS if lesson.slug == "mistakes")
    assert panel.numbers["named"] == panel.numbers["count"] == 5 and panel.numbers["alarms"] == 0
    losses = {name: panel.numbers[f"loss_{name}"] for name in ("none", "positions", "batch")}
    assert losses["none"] < losses["positions"] < losses["batch"]
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(panel.check.code, {"subject": subject})
    assert out.getvalue() == panel.check.prints + "\n"


@pytest.mark.slow
def test_the_command_writes_the_same_page_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["learn"]) == 0
    assert f"{len(PANELS)} steps written: learn.html" in capsys.readouterr().err
    first = Path("learn.html").read_bytes()
    subject = pw.learn(out="again.html")
    assert Path("again.html").read_bytes() == first
    # Every number of the page, computed once more from new models, is the same.
    accuracy = next(value for value, text in Page(first.decode()).numbers if text.endswith("%"))
    test = subject.lab.test
    with torch.no_grad():
        assert accuracy == pytest.approx(
            float((subject.vit(test.images).argmax(1) == test.labels).double().mean())
        )
    assert accuracy > 0.9
    Image.new("L", (8, 8)).save("grey.png")
    assert run(["learn", "grey.png", "--language", "zh", "--out", "grey.html"]) == 0
    assert 'lang="zh-CN"' in Path("grey.html").read_text(encoding="utf-8")
