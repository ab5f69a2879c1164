"""The report in a real browser: opens offline without errors, sorts by keyboard, fits the window."""

import json
from pathlib import Path
from typing import Any

import pytest

from patchword.metrics.detection import evaluate
from patchword.reports.html import write_report
from support.boxes import scene
from support.browser import CONTRAST, SIDES, resize
from support.run_folder import data_of, write_sample

pytestmark = pytest.mark.browser

CLASSES = ["daisy", "dandelion", "roses", "sunflowers", "tulips", "花 " + "a very long name " * 8, "<b>&"]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "a run"
    evaluation = write_sample(folder, CLASSES)
    evaluation["confusion"][1], evaluation["confusion"][3] = [0, 7, 0, 0, 0, 0, 0], [7, 0, 0, 0, 0, 0, 0]
    evaluation["classes"][2] |= {"recall": 0.1, "f1": 0.15}
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    data = data_of(CLASSES) | {"skipped": [{"name": "train/" + "x" * 200 + ".jpg", "reason": "empty"}]}
    (folder / "data.json").write_text(json.dumps(data))
    return write_report(folder)


@pytest.fixture
def page(browser: Any, report: Path) -> Any:
    """The report freshly opened, in a window 1400 wide, with the logs of the loading still unread."""
    resize(browser, 1400)
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get(report.as_uri())
    return browser


def _first_cells(page: Any, column: int) -> list[str]:
    script = "return [...document.querySelectorAll('table.classes tbody tr')].map(r => r.cells[arguments[0]].textContent)"
    return list(page.execute_script(script, column))


def test_opening_it_says_nothing_and_asks_for_nothing(page: Any) -> None:
    assert page.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert asked and all(url.startswith(("file:", "data:")) for url in asked)
    assert len([url for url in asked if url.startswith("file:")]) == 1


def test_pictures_and_curves_are_drawn(page: Any) -> None:
    assert page.execute_script(
        "return [...document.images].every(i => i.complete && i.naturalWidth > 0) && document.images.length > 0"
    )
    boxes = "return [...document.querySelectorAll('svg polyline')].map(p => p.getBoundingClientRect().width)"
    widths = page.execute_script(boxes)
    assert len(widths) >= 5 and all(width > 50 for width in widths)
    strokes = "return [...document.querySelectorAll('svg polyline')].map(p => getComputedStyle(p).stroke)"
    assert "none" not in page.execute_script(strokes)


def test_headings_outline_the_page(page: Any) -> None:
    headings = page.execute_script("return [...document.querySelectorAll('h1, h2')].map(h => h.textContent)")
    assert headings[0].endswith("accuracy on flowers5.zip")
    for expected in (
        "Training",
        "Per-class scores",
        "Confusion matrix",
        "Most confident mistakes",
        "Data",
        "Settings",
    ):
        assert expected in headings


@pytest.mark.parametrize("width", [400, 1400])
def test_nothing_sticks_out_at_the_side(page: Any, width: int) -> None:
    resize(page, width)
    wide, fits = page.execute_script(SIDES)
    assert wide == fits <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_light_and_dark(page: Any, scheme: str) -> None:
    feature = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", feature)
    for selector in (
        "body",
        ".eyebrow",
        ".note",
        "a[href]",
        ".chart text",
        ".key",
        ".true",
        ".false",
        "td.right",
    ):
        ratio = page.execute_script(CONTRAST, selector)
        assert ratio >= 4.5, (selector, ratio)


@pytest.mark.parametrize("width", [400, 1400])
def test_the_page_of_a_detector_fits_and_draws_its_curves(browser: Any, tmp_path: Path, width: int) -> None:
    write_sample(tmp_path, CLASSES[:5])
    scores = evaluate(*scene(1), images=12, names=CLASSES[2:]).to_dict(names=["x" * 90] * 12)
    evaluation = {"task": "detect", "split": "val", "detection": scores}
    (tmp_path / "evaluation.json").write_text(json.dumps(evaluation))
    resize(browser, width)
    browser.get_log("browser")
    browser.get(write_report(tmp_path).as_uri())
    assert browser.get_log("browser") == []
    wide, fits = browser.execute_script(SIDES)
    assert wide == fits <= width
    script = "return document.querySelector('#boxes polyline').getBoundingClientRect().width"
    assert browser.execute_script(script) > 100
    assert browser.execute_script(CONTRAST, ".mistakes .false") >= 4.5


def test_the_table_of_classes_is_sorted_by_keyboard(page: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    assert _first_cells(page, 0)[0] == "roses"
    button = page.find_element("css selector", "table.classes th:first-child button")
    page.execute_script("arguments[0].focus()", button)
    page.switch_to.active_element.send_keys(Keys.ENTER)
    names = _first_cells(page, 0)
    assert names[:2] == ["<b>&", "daisy"] and names[-2:] == ["tulips", CLASSES[5]]
    header = page.find_element("css selector", "table.classes th:first-child")
    assert header.get_attribute("aria-sort") == "ascending"
    page.switch_to.active_element.send_keys(Keys.SPACE)
    assert _first_cells(page, 0) == names[::-1]
    assert header.get_attribute("aria-sort") == "descending"


def test_every_control_is_reached_by_tab(page: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    wanted = page.execute_script("return document.querySelectorAll('a, button, summary, [tabindex]').length")
    page.execute_script(
        "window.reached = new Set(); document.addEventListener('focusin', e => reached.add(e.target))"
    )
    body = page.find_element("css selector", "body")
    for _ in range(wanted + 5):
        page.switch_to.active_element.send_keys(Keys.TAB)
    assert body and page.execute_script("return reached.size") >= wanted - page.execute_script(HIDDEN)


def test_it_reads_without_javascript(browser: Any, report: Path) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(report.as_uri())
        text = browser.find_element("css selector", "body").text
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert "accuracy" in text and "classifies" in text
    assert "roses" in text and "top-1" in text


# How many controls stand inside closed details, where Tab does not go.
HIDDEN = "return document.querySelectorAll('details:not([open]) :is(a, button, [tabindex])').length"
