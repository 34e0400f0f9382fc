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

SIZES = {"desktop": (1240, 800, 1, 1240), "phone": (390, 844, 2, 390)}  # width, height, density, width of the file
LINE = [0.5, 0.05, 0.5, 0.95]
COLORS = 128  # of the palette: small files


class ScreenshotError(ValueError):
    """No browser to take a picture with."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="RUN")
    parser.add_argument("--out", type=Path, default=Path("docs/live.png"), help="-phone is added for the small one")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long it runs before the picture is taken")
    options = parser.parse_args()
    find_source(options.source)
    command = [sys.executable, "demo.py", options.source, "--live", "scenes", "--port", "0", "--score", "0.5"]
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
    """Write one file a size of SIZES. Raises ScreenshotError without a browser."""
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
        for name, (width, height, density, _) in SIZES.items():
            viewport = {"width": width, "height": height}
            pages[name] = browser.new_page(viewport=viewport, device_scale_factor=density, color_scheme="dark")
            pages[name].goto(url)
        pages["desktop"].evaluate(
            "line => { const s = new WebSocket(new URL('live', location.href.replace(/^http/, 'ws'))); s.onopen = () => "
            "{ s.send(JSON.stringify({set: {tracking: true, line}})); setTimeout(() => s.close(), 500) } }",
            LINE,
        )
        pages["desktop"].wait_for_timeout(1000 * seconds)
        for name, page in pages.items():
            target = out if name == "desktop" else out.with_stem(f"{out.stem}-{name}")
            _write(target, page.screenshot(), SIZES[name][3])
            print(f"{target}: {target.stat().st_size:,} B")
        browser.close()


def _write(target: Path, png: bytes, width: int) -> None:
    image = Image.open(BytesIO(png)).convert("RGB")
    image = image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
    target.parent.mkdir(parents=True, exist_ok=True)
    image.quantize(COLORS, dither=Image.Dither.NONE).save(target, optimize=True)


if __name__ == "__main__":
    cli.run(main)
