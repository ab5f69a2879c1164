"""Settings with who chose them, and text that cannot hide."""

from dataclasses import dataclass, field

from patchword.reports.run_files import Setting, printable, settings_of
from patchword.reports.sections import settings_tables
from patchword.settings import to_toml


@dataclass(frozen=True, kw_only=True)
class Inner:
    lr: float = 0.1
    name: str = 'a "quoted" # part'


@dataclass(frozen=True, kw_only=True)
class Outer:
    seed: int = 1
    marks: tuple[str, ...] = ("#", "##")
    inner: Inner = field(default_factory=Inner)


def test_settings_come_back_with_who_chose_them() -> None:
    text = to_toml(Outer(), {"": "default", "inner.lr": "recipe: few images # two", "marks": "option"})
    found = {s.path: (s.value, s.source) for s in settings_of(text)}
    assert found == {
        "seed": ("1", "default"),
        "marks": ('["#", "##"]', "option"),
        "inner.lr": ("0.1", "recipe: few images # two"),
        "inner.name": (r'"a \"quoted\" # part"', "default"),
    }


def test_text_that_hides_is_spelled_out_and_other_scripts_stay() -> None:
    assert printable("Blüte 花 عربى 🌷") == "Blüte 花 عربى 🌷"
    assert printable("a\x00b\u202ec\udcff") == r"a\x00b\u202ec\udcff"
    assert printable("two\nlines", keep="\n") == "two\nlines"


def test_settings_set_by_hand_and_the_main_ones_come_first() -> None:
    def setting(table: str, name: str, source: str) -> Setting:
        return Setting(table=table, name=name, value="1", source=source)

    lr = setting("optim", "lr", "recipe scratch")
    clip = setting("optim", "clip_grad", "recipe scratch")
    beta = setting("optim", "beta1", "default")
    zoom = setting("augment.geometry", "zoom", "option -o")
    tables = settings_tables((lr, clip, beta, zoom))
    assert tables == {"first": [lr, zoom], "recipe": [clip], "defaults": [beta]}
