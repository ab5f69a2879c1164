"""Chromium without a window, and scripts that measure a page."""

import shutil
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)


def start(profile: Path) -> Any:
    """A driver whose logs of the console and of the network are read with `get_log`."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    chromium, driver_path = shutil.which("chromium"), shutil.which("chromedriver")
    assert chromium and driver_path, "install chromium and chromium-driver"
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in [*FLAGS.split(), f"--user-data-dir={profile}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=Service(driver_path))


def resize(browser: Any, width: int) -> None:
    """A window so many CSS pixels wide."""
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


# Width of the content and of the window.
SIDES = "const d = document.documentElement; return [d.scrollWidth, d.clientWidth]"

# WCAG contrast of an element's text with what lies behind it, semi-transparent layers mixed.
CONTRAST = """
const parse = c => { const m = c.match(/[\\d.]+/g).map(Number); return m.length < 4 ? [...m.slice(0, 3), 1] : m; };
const luminance = c => { const [r, g, b] = c.slice(0, 3).map(v => { v /= 255;
  return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const over = (top, under) => [0, 1, 2].map(i => top[i] * top[3] + under[i] * (1 - top[3]));
const behind = e => { const layers = [];
  for (let n = e; n; n = n.parentElement) layers.push(parse(getComputedStyle(n).backgroundColor));
  return layers.reverse().reduce((under, layer) => over(layer, under), [255, 255, 255]); };
const ratios = [...document.querySelectorAll(arguments[0])].map(e => {
  const style = getComputedStyle(e);
  const text = luminance(parse(e instanceof SVGElement ? style.fill : style.color)), back = luminance(behind(e));
  return (Math.max(text, back) + 0.05) / (Math.min(text, back) + 0.05); });
return ratios.length ? Math.min(...ratios) : 0;
"""
