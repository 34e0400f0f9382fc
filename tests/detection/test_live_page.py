"""The live page in a real Chromium: boxes on the right pixels, controls that work, a phone's screen, a server that comes back."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.detection.live_server import Live, Still, ToldDevice
from tests.detection.small_export import build, write_run

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make setup")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")

BOXES = [[160, 80, 480, 400, 29491, 1], [16, 16, 96, 96, 13107, 0], [400, 300, 700, 500, 9830, 2]]  # Q4 of 48 x 32
GROUND = (40, 90, 160)
WAIT = 30_000  # milliseconds at most
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser() -> Iterator["sync_api.Browser"]:
    with sync_api.sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def tess(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("page") / "run", build()) / "export" / "model.tess"


@pytest.fixture
def live(tess: Path, tmp_path: Path) -> Iterator[Live]:
    running = begin(tess, tmp_path)
    yield running
    running.stop()


def begin(tess: Path, out: Path, port: int = 0) -> Live:
    picture = np.full((320, 480, 3), GROUND, np.uint8)
    return Live(tess, ToldDevice(tess.read_bytes(), BOXES), Still(picture, seconds=0.1), out, port)


@pytest.fixture
def page(browser: "sync_api.Browser", live: Live) -> Iterator["sync_api.Page"]:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(live.url)
    shows(page, 3)
    yield page
    page.close()
    assert wrong == []


def shows(page: "sync_api.Page", boxes: int) -> None:
    sync_api.expect(page.locator("#picture")).to_have_attribute("data-boxes", str(boxes), timeout=WAIT)


def colors(page: "sync_api.Page", points: list[tuple[float, float]]) -> list[tuple[int, ...]]:
    """RGB on the page's canvas at points of the 480 x 320 picture."""
    script = """points => { const c = document.getElementById('picture'), p = c.getContext('2d')
        const at = (x, y) => p.getImageData(Math.floor(x * c.width / 480), Math.floor(y * c.height / 320), 1, 1)
        return points.map(([x, y]) => [...at(x, y).data]) }"""
    return [tuple(color[:3]) for color in page.evaluate(script, [list(point) for point in points])]


def near(color: tuple[int, ...], wanted: tuple[int, ...], distance: int = 12) -> bool:
    return max(abs(a - b) for a, b in zip(color, wanted, strict=True)) <= distance


def own_color(live: Live, label: int) -> tuple[int, ...]:
    text = live.studio.about["classes"][label]["color"]
    return tuple(int(text[at : at + 2], 16) for at in (1, 3, 5))


@pytest.mark.parametrize("width, density", [(1280, 1), (390, 3)])
def test_boxes_are_drawn_on_their_pixels(browser, live: Live, width: int, density: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 844}, device_scale_factor=density)
    page.goto(live.url)
    shows(page, 3)
    for label, (x1, y1, x2, y2) in ((1, (100, 50, 300, 250)), (2, (250, 187.5, 437.5, 312.5))):
        middle_x, middle_y = x1 + 20, y2 - 30
        edges = [(x1, middle_y), (x2, y2 - 5), (middle_x, y2), (x2 - 5, y1)]
        assert all(near(color, own_color(live, label)) for color in colors(page, edges)), (label, colors(page, edges))
        beside = [(x1 - 6, middle_y), (x2 + 6, y2 - 5), (middle_x, y2 + 6), (x1 + 6, middle_y)]
        assert all(near(color, GROUND) for color in colors(page, beside)), (label, colors(page, beside))
    page.close()


def test_score_classes_and_pause(page, live: Live) -> None:
    page.locator("#score").fill("0.35")
    shows(page, 2)
    sync_api.expect(page.locator("#least")).to_have_text("0.35")
    wait_for(page, lambda: live.studio.settings.score == 0.35)
    page.locator("#score").fill("0.95")
    shows(page, 0)
    page.locator("#score").fill("0.1")
    shows(page, 3)
    page.get_by_role("button", name="square").click()
    shows(page, 2)
    assert live.studio.settings.hidden == {1}
    page.get_by_role("button", name="Pause").click()
    page.wait_for_selector("#status.paused")
    page.get_by_role("button", name="square").click()  # what stands still can still be looked at
    shows(page, 3)
    page.get_by_role("button", name="Go on").click()
    page.wait_for_selector("#status.live")


def wait_for(page: "sync_api.Page", true) -> None:
    for _ in range(200):
        if true():
            return
        page.wait_for_timeout(25)
    raise AssertionError("it never came true")


def test_a_line_is_drawn_with_the_finger_and_counts(page, live: Live) -> None:
    page.get_by_role("button", name="Line").click()
    box = page.locator("#picture").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.1, box["y"] + box["height"] * 0.75)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.5)
    page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + box["height"] * 0.75)
    page.mouse.up()
    wait_for(page, lambda: live.studio.settings.line is not None)
    assert np.allclose(live.studio.settings.line, (0.1, 0.75, 0.9, 0.75), atol=0.01) and live.studio.settings.tracking
    sync_api.expect(page.locator("#objects")).to_have_text("3", timeout=WAIT)
    assert near(colors(page, [(480 * 0.15, 240)])[0], (255, 255, 255), 20)
    page.get_by_role("button", name="No line").click()
    wait_for(page, lambda: live.studio.settings.line is None)


def test_snapshot_and_recording(page, live: Live) -> None:
    with page.expect_download() as download:
        page.get_by_text("Snapshot").click()
    assert Path(download.value.path()).read_bytes()[:2] == b"\xff\xd8"
    page.get_by_role("button", name="Record").click()
    sync_api.expect(page.locator("#name")).to_have_text(re.compile(r"^([3-9]|\d\d+) recorded"), timeout=WAIT)
    page.get_by_role("button", name="Stop").click()
    page.wait_for_selector("#record[aria-pressed=false]")
    assert len(list(live.studio.out.glob("recording-*/pictures/*.jpg"))) >= 3


def test_the_page_comes_back_when_the_server_does(browser, tess: Path, tmp_path: Path) -> None:
    first = begin(tess, tmp_path)
    page = browser.new_page(viewport=PHONE)
    page.goto(first.url)
    shows(page, 3)
    first.stop()
    page.wait_for_selector("#status.lost")
    page.evaluate("document.getElementById('picture').dataset.boxes = ''")
    second = begin(tess, tmp_path, first.port)
    try:
        page.wait_for_selector("#status.live")
        shows(page, 3)
        assert not page.locator("#stage.lost").count()
    finally:
        second.stop()
        page.close()


def test_a_phone_needs_no_sideways_scrolling_and_shows_picture_and_controls(browser, live: Live) -> None:
    page = browser.new_page(viewport=PHONE, has_touch=True, is_mobile=True)
    page.goto(live.url)
    shows(page, 3)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    for name in ("#picture", "#pause", "#record", "#track", "#score"):
        box = page.locator(name).bounding_box()
        assert box["y"] >= 0 and box["y"] + box["height"] <= PHONE["height"], name
        assert name == "#score" or min(box["width"], box["height"]) >= 36, f"{name} is too small for a thumb"
    page.close()
