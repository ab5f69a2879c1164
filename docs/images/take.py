"""Take the picture of a report that the README shows.

    python docs/images/take.py runs/demo docs/images/report.png

Needs Chromium, its driver, and the extra `browser` of pyproject.toml.
"""

import base64
import io
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image

WIDTH, HEIGHT = 1180, 1150
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --hide-scrollbars"
)


def take(report: Path) -> bytes:
    """The first screen of the page, as a PNG."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    with tempfile.TemporaryDirectory() as profile:
        for flag in [*FLAGS.split(), f"--user-data-dir={profile}"]:
            options.add_argument(flag)
        driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
        try:
            size = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            driver.get(report.resolve().as_uri())
            return base64.b64decode(driver.execute_cdp_cmd("Page.captureScreenshot", {})["data"])
        finally:
            driver.quit()


def main() -> None:
    run, target = Path(sys.argv[1]), Path(sys.argv[2])
    with Image.open(io.BytesIO(take(run / "report.html"))) as picture:
        picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(target, optimize=True)


if __name__ == "__main__":
    main()
