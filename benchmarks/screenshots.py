"""Pictures of a run's report.html for README and docs, made in Chromium.

    python -m benchmarks.screenshots RUN [--out docs/images]

Writes report-light.png and report-dark.png (1440 px wide, the first screen), report-phone.png (390 px) and
report-viewer.png (a token of the viewer with its candidates), each reduced to 256 colours.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
from pathlib import Path
from typing import Any

# name -> width and height of the window [CSS pixels], theme, pixels a CSS pixel
SHOTS = {
    "report-light": (1440, 900, "light", 1),
    "report-dark": (1440, 900, "dark", 1),
    "report-phone": (390, 844, "light", 2),
    "report-viewer": (1280, 860, "light", 1),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="run directory with a report.html")
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    os.environ.pop("LD_PRELOAD", None)  # a matrix library is nothing for a browser
    options.out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=executable, args=["--no-sandbox"] if os.geteuid() == 0 else [])
        for name, (width, height, theme, scale) in SHOTS.items():
            context = browser.new_context(
                viewport={"width": width, "height": height}, color_scheme=theme, device_scale_factor=scale
            )
            page = context.new_page()
            page.goto((options.run / "report.html").resolve().as_uri())
            if name == "report-viewer":
                show_token(page)
            file = options.out / f"{name}.png"
            file.write_bytes(reduced(page.screenshot()))
            print(f"{file}: {file.stat().st_size / 1e3:.0f} KB")
            context.close()
        browser.close()


def show_token(page: Any) -> None:
    """The sample that changed most, at its first fork; without an analysis the first sample."""
    if page.locator("#v-order option[value=change]").count():
        page.select_option("#v-order", "change")
    if page.locator("#v-tokens .fork").count():
        page.locator("#v-tokens .fork").first.click()
    page.evaluate("document.getElementById('samples').scrollIntoView()")


def reduced(png: bytes) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    picture = Image.open(io.BytesIO(png)).convert("RGB").quantize(256, kmeans=1, dither=Image.Dither.NONE)
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
