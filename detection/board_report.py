"""The end of an evaluation on a device: latency log, the device's own average precision, report.html beside the journal."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detection.device_ap import device_ap_json, device_ap_lines
from detection.evaluate import Evaluation
from detection.journal import Journal
from detection.latency import latency_section, summary_line, write_latency
from detection.metrics.grouped import Q30
from detection.predictors import DeviceClassifier, DevicePredictor
from detection.report import PredictorRow, ReportData, write_report
from detection.results import HEADINGS, agreement
from firmware.device import DeviceInfo
from firmware.link.counting import room_to_count


def conclude(
    predictor: DevicePredictor | DeviceClassifier, found: Sequence[Evaluation], model: Path, title: str
) -> tuple[list[str], dict[str, Any]]:
    """Write log and page; lines for people, and what belongs into metrics.json.

    Raises DeviceApError where the device counted another average precision than this machine, LinkError where it is gone.
    """
    journal = predictor.journal
    assert journal is not None
    latency = write_latency(journal, predictor.device.info, model)
    lines, counted = [f"{summary_line(latency)}; log and report.html in {journal.folder}"], None
    if isinstance(predictor, DevicePredictor):
        said, counted = _device_ap(predictor, found)
        lines += said
    write_report(journal.folder / "report.html", board_report(found, title, journal, predictor.device.info, latency, counted))
    return lines, {"latency": latency, "device_ap": counted}


def _device_ap(predictor: DevicePredictor, found: Sequence[Evaluation]) -> tuple[list[str], dict[str, Any] | None]:
    if predictor.ap is None:
        return [f"note: {room_to_count(predictor.device.client, predictor.device.header)}"], None
    by_list = next(one.metrics.values["voc_ap50_area"] for one in found if one.name == predictor.name)
    counted = predictor.ap.result()
    return device_ap_lines(predictor.name, counted, by_list), device_ap_json(counted, by_list)


def board_report(
    found: Sequence[Evaluation], title: str, journal: Journal, info: DeviceInfo, latency: dict[str, Any], counted: dict | None
) -> ReportData:
    """What the page says. `latency` as write_latency, `counted` as device_ap_json gave it; None: it did not count."""
    values = found[0].metrics.values
    metric = next((name for name in HEADINGS if name in values), next(iter(values)))
    headline = [("pictures", str(latency["pictures"]))]
    if counted and counted["ap50_q30"] is not None:
        headline.append(("AP50, counted on the device", f"{counted['ap50_q30'] / Q30:.4f}"))
    if latency["ms"]:
        headline.append(("median a picture", f"{latency['ms']['p50']:.1f} ms"))
    elif latency["count"]:
        headline.append((f"{latency['unit']} a picture, median", f"{latency['count']['p50'] / 1e6:.1f} M"))
    headline.append(("work memory touched", f"{latency['work_memory_most']:,} B"))
    if latency["stack_most"]:
        headline.append(("stack", f"{latency['stack_most']:,} B"))
    environment = {
        "device": info.target, "firmware": journal.head["firmware"], "model (sha256)": journal.head["model_sha256"],
        "work memory needed": f"{info.arena:,} B", "frames sent again": f"{latency['repeated_frames']:,}",
        "clock": f"{info.clock_hz:,} Hz" if info.clock_hz else "not stated",
    }  # fmt: skip
    return ReportData(
        title=title,
        summary="Every picture ran on the device; head maps and boxes were compared byte for byte where a predictor is named.",
        metric=HEADINGS.get(metric, metric),
        headline=tuple(headline),
        predictors=tuple(_row(one, metric, info) for one in found),
        latency=latency_section(journal, latency),
        environment=tuple(environment.items()),
    )


def _row(one: Evaluation, metric: str, info: DeviceInfo) -> PredictorRow:
    counted = None if one.instructions is None else round(one.instructions)
    name = one.name if agreement(one) == "-" else f"{one.name} ({agreement(one)})"
    runs_tess = one.name.startswith(("host", "emulator", "board"))
    return PredictorRow(name, one.metrics.values.get(metric), model_size=info.model if runs_tess else None, instructions=counted)
