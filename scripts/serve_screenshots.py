"""Pictures of the page for the documents: python scripts/serve_screenshots.py URL

URL is a running `taidpt serve`, best of the embedded video after some minutes:

    taidpt demo -o demo && taidpt-export demo/toyworld.taidpt -o toy.taidpt --swappable-bank
    taidpt serve --config site.yaml

where site.yaml is

    bundle: toy.taidpt
    prompts: demo/toyworld.safetensors
    cameras:
      - {id: yard, source: taidpt/toyworld/files/demo.mp4}
      - {id: door, source: taidpt/toyworld/files/demo.mp4}
    zones:
      - {id: gate, camera: yard, points: [[0.25, 0.3], [0.6, 0.2], [0.6, 0.95], [0.25, 0.95]]}
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
# Time for tags, live pictures and thumbnails to arrive, in milliseconds.
_SETTLED_MS = 8000
_SLOW_MS = 180_000
# Rows of the tags that are on the picture; each asks for its scores when it comes into view.
_SCORED_ROWS = 16


def main(url: str) -> None:
    """Write serve.webp, serve-tags.webp and serve-phone.webp."""
    program = shutil.which("chromium")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = _open(browser, url, 1180, 960)
        page.locator(".bars li.on button").first.click()
        page.wait_for_timeout(2000)
        _save(page.screenshot(timeout=_SLOW_MS), "serve")
        page.locator("#tags").scroll_into_view_if_needed()
        page.locator("#tags .share", has_text="% of").nth(_SCORED_ROWS).wait_for()
        tags = page.locator("section", has=page.locator("#tags"))
        _save(tags.screenshot(timeout=_SLOW_MS), "serve-tags")
        page.close()
        page = _open(browser, url, 390, 844, "dark")
        _save(page.screenshot(timeout=_SLOW_MS), "serve-phone")
        browser.close()


def _open(browser: Any, url: str, width: int, height: int, scheme: str = "light") -> Any:
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    page.set_default_timeout(_SLOW_MS)
    page.goto(url)
    page.select_option("#span", "600")
    page.wait_for_timeout(_SETTLED_MS)
    return page


def _save(png: bytes, name: str) -> None:
    Image.open(io.BytesIO(png)).convert("RGB").save(IMAGES / f"{name}.webp", quality=80, method=6)


if __name__ == "__main__":
    main(sys.argv[1])
