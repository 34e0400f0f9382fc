"""The picture of the live page in README.md, taken of the page itself: `python -m detection.live.screenshot RUN`.

RUN is a network trained on configs/demo.yaml; it looks at drawn scenes, follows what it finds and counts over a line. Needs
Chromium and playwright (both only here and in the tests).
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
from io import BytesIO
from pathlib import Path

from PIL import Image

from datasets import cli
from detection.sources import find_source

SIZES = {"desktop": (1240, 800, 1), "phone": (390, 844, 2)}  # width, height, density
HEIGHT, GAP = 640, 20  # of the file, pixels
LINE = [0.5, 0.05, 0.5, 0.95]
CROWD, TRIES = 4, 1000  # boxes in the picture that is taken, looks at the page until it comes


class ScreenshotError(ValueError):
    """No browser to take a picture with."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="RUN")
    parser.add_argument("--out", type=Path, default=Path("docs/live.webp"))
    parser.add_argument("--seconds", type=float, default=20.0, help="how long it runs before the picture is taken")
    options = parser.parse_args()
    find_source(options.source)
    command = [sys.executable, "demo.py", options.source, "--live", "scenes", "--port", "0", "--score", "0.6"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as demo:
        try:
            lines = [demo.stdout.readline(), demo.stdout.readline()]
            if "open http" not in lines[1]:
                raise ScreenshotError(f"the demo did not start: {' '.join(command)}")
            shoot(lines[1].split()[1], options.out, options.seconds)
        finally:
            demo.send_signal(signal.SIGINT)
    return 0


def shoot(url: str, out: Path, seconds: float) -> None:
    """Write the page in all SIZES, side by side, as one picture. Raises ScreenshotError without a browser."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise ScreenshotError("playwright is not installed: make setup") from error
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise ScreenshotError("no Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"] if os.geteuid() == 0 else [])
        pages = {}
        for name, (width, height, density) in SIZES.items():
            viewport = {"width": width, "height": height}
            pages[name] = browser.new_page(viewport=viewport, device_scale_factor=density, color_scheme="dark")
            pages[name].goto(url)
        pages["desktop"].evaluate(
            "line => { const s = new WebSocket(new URL('live', location.href.replace(/^http/, 'ws'))); s.onopen = () => "
            "{ s.send(JSON.stringify({set: {tracking: true, line}})); setTimeout(() => s.close(), 500) } }",
            LINE,
        )
        pages["desktop"].wait_for_timeout(1000 * seconds)
        _stop_at_a_crowd(list(pages.values()))
        _write(out, [page.screenshot() for page in pages.values()])
        browser.close()
    print(f"{out}: {out.stat().st_size:,} B")


def _stop_at_a_crowd(pages: list) -> None:
    """Pause at a picture with CROWD boxes, the same on all pages."""
    first = pages[0]
    for _ in range(TRIES):
        if int(first.get_attribute("#picture", "data-boxes") or 0) < CROWD:
            first.wait_for_timeout(100)
            continue
        first.click("#pause")
        first.wait_for_timeout(1500)  # what was under way arrives
        if int(first.get_attribute("#picture", "data-boxes")) >= CROWD:
            return
        first.click("#pause")
    raise ScreenshotError(f"no picture with {CROWD} boxes came: is this a network of configs/demo.yaml?")


def _write(target: Path, pngs: list[bytes]) -> None:
    images = [Image.open(BytesIO(png)).convert("RGB") for png in pngs]
    images = [one.resize((round(one.width * HEIGHT / one.height), HEIGHT), Image.Resampling.LANCZOS) for one in images]
    sheet = Image.new("RGB", (sum(one.width for one in images) + GAP * (len(images) - 1), HEIGHT), "white")
    left = 0
    for one in images:
        sheet.paste(one, (left, 0))
        left += one.width + GAP
    target.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(target, quality=86, method=6)


if __name__ == "__main__":
    cli.run(main)
