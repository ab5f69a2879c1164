"""The page of `learn` in a real browser: offline, on a narrow screen, with and without scripts, by keyboard."""

import json
from pathlib import Path
from typing import Any

import pytest

from patchword.lessons.laboratory import Laboratory
from patchword.lessons.page import page, panels_of
from patchword.lessons.panels import PANELS
from patchword.lessons.subject import open_subject
from support.browser import CONTRAST, SIDES, resize

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module", params=["en", "zh"])
def lesson(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of untrained models, without the step whose probes take seconds: its layout is that of any other."""
    subject = open_subject(lab=Laboratory(epochs=0))
    panels = panels_of(subject, lessons=[one for one in PANELS if one.slug != "mistakes"])
    path = tmp_path_factory.mktemp("learn") / "learn.html"
    path.write_text(page(subject, panels, request.param), encoding="utf-8")
    return path


@pytest.fixture
def opened(browser: Any, lesson: Path) -> Any:
    resize(browser, 1400)
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get(lesson.as_uri())
    return browser


def test_it_asks_for_nothing_and_every_image_is_there(opened: Any) -> None:
    assert opened.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in opened.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if not url.startswith("data:")] == [opened.current_url]
    assert opened.execute_script("return [...document.images].every(i => i.complete && i.naturalWidth > 0)")


@pytest.mark.parametrize("width", [360, 1400])
def test_nothing_sticks_out_at_the_side(opened: Any, width: int) -> None:
    resize(opened, width)
    wide, fits = opened.execute_script(SIDES)
    assert wide == fits <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_light_and_dark(opened: Any, scheme: str) -> None:
    feature = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", feature)
    for selector in (
        "p",
        "a[href]",
        "h2",
        "code",
        "blockquote",
        "figcaption",
        "summary",
        "td",
        "th",
        ".chart text",
    ):
        ratio = opened.execute_script(CONTRAST, selector)
        assert ratio >= 4.5, (selector, ratio)


def test_a_slider_shows_one_patch_at_a_time_and_says_which(opened: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    gallery = opened.find_element("css selector", "#one-head .slides")
    slider = gallery.find_element("css selector", "input")
    assert gallery.find_element("css selector", "label").text
    shown = "return [...arguments[0].querySelectorAll('.tile')].filter(t => t.offsetWidth).map(t => t.textContent)"
    first = opened.execute_script(shown, gallery)
    slider.send_keys(Keys.ARROW_RIGHT)
    second = opened.execute_script(shown, gallery)
    assert len(first) == len(second) == 1 and first != second
    assert slider.get_attribute("aria-valuetext") == second[0]


def test_without_scripts_every_image_of_a_slider_is_shown(browser: Any, lesson: Path) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(lesson.as_uri())
        tiles = browser.find_elements("css selector", "#one-head [data-slider] .tile")
        assert len(tiles) == 16 and all(tile.is_displayed() for tile in tiles)
        assert browser.find_elements("css selector", "input") == []
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
