"""The HTML report."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from detection.report import (
    FrontRow,
    Latency,
    LatencyRow,
    Picture,
    PredictorRow,
    ReportData,
    ReportError,
    render_report,
    write_report,
)

VOID = {"meta", "img", "br", "link", "input"}


class Outline(HTMLParser):
    """Checks nesting, collects what a reader without eyes needs."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[str] = []
        self.images: list[dict] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        if tag not in VOID:
            self.open.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(tag)
        attributes = dict(attrs)
        if tag == "img":
            self.images.append(attributes)
        self.links += [attributes[key] for key in ("src", "href") if key in attributes]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def make_latency(plot: Path) -> Latency:
    whole, part = LatencyRow("a picture, all in", 8000, 8100, 9000), LatencyRow("segment 0", 5000, 5100, 5200)
    groups = (("Whole", (whole,)), ("By segment", (part,)))
    return Latency("instructions", None, groups, Picture(plot, "Instructions a picture"), (("street/<1>.jpg", 9000),))


@pytest.fixture
def data(tmp_path: Path) -> ReportData:
    Image.new("RGB", (40, 30), "teal").save(path := tmp_path / "plot.png")
    Image.new("RGB", (40, 30), "gold").save(photo := tmp_path / "photo.jpg")
    return ReportData(
        title="Faces <tiny>",
        summary="128x128, for a Cortex-M7.",
        metric="WIDER easy AP50",
        headline=(("peak SRAM", "32,000 B"),),
        predictors=(PredictorRow("float", 0.5123), PredictorRow("int8", 0.504, 32000, 98304, 18_300_000, 0.021, 53e6)),
        latency=make_latency(path),
        learning_curve=Picture(path, "Loss by epoch"),
        memory_plan=Picture(path, "Arena by step"),
        detections=(Picture(photo, "Three faces"),),
        front=(FrontRow("1 strip", 32000, 18_300_000, 0.021, True), FrontRow("whole", 99000, 17_900_000, 0.0)),
        published=(FrontRow("MCUNetV2 patches", 64000, 19_000_000, 0.093),),
        environment=(("torch", "2.14.1"),),
    )


def test_the_page_is_well_nested_self_contained_and_described(data: ReportData, tmp_path: Path) -> None:
    write_report(out := tmp_path / "runs" / "report.html", data)
    page = out.read_text(encoding="utf-8")
    outline = Outline()
    outline.feed(page)
    assert outline.open == [] and outline.headings[0] == "h1" and outline.headings.count("h1") == 1
    assert len(outline.images) == 4 and all(image["alt"] for image in outline.images)
    assert all(link.startswith("data:image/") for link in outline.links)
    assert '<html lang="en">' in page and 'name="viewport"' in page
    assert "<tiny>" not in page and "Faces &lt;tiny&gt;" in page
    assert list(out.parent.iterdir()) == [out]


def test_numbers_carry_their_units(data: ReportData) -> None:
    page = render_report(data)
    for text in ("51.2 %", "98,304 B", "18.3 M", "+2.1 %", "53.0 M", "–", "chosen", "Published methods", "64,000 B", "+9.3 %"):
        assert text in page


def test_milliseconds_stand_beside_a_stated_clock_only(data: ReportData) -> None:
    page = render_report(data)
    assert "Instructions a picture" in page and "62.5 %" in page and "8,100" in page and " ms" not in page
    clocked = replace(data.latency, unit="cycles", clock_hz=480_000_000)
    page = render_report(replace(data, latency=clocked))
    assert "Cycles a picture" in page and "480,000,000 Hz" in page and "0.02 ms" in page


def test_a_report_without_measurements_is_still_a_page() -> None:
    page = render_report(ReportData("Nothing yet"))
    assert "Nothing yet" in page and "<table" not in page and "<img" not in page


def test_a_picture_that_is_absent_or_none_is_named_and_nothing_is_written(data: ReportData, tmp_path: Path) -> None:
    (broken := tmp_path / "x.png").write_bytes(b"no picture")
    for path, message in ((tmp_path / "gone.png", "gone.png: No such file"), (broken, "x.png: not a PNG")):
        with pytest.raises(ReportError, match=message):
            write_report(tmp_path / "out.html", ReportData("t", memory_plan=Picture(path, "plan")))
    assert not list(tmp_path.glob("out.html*"))
