"""What a person does with a device over the link: python -m firmware.device COMMAND PORT.

    info       who is there: board, firmware, model, memory, counters
    selftest   run the test picture inside of the model and compare its checksum
    run        run pictures of a .npy: head maps (raw), boxes, or camera frames that are letterboxed on the device
    bench      what a picture costs, by segment and operator where the firmware was built to profile
    load       give the device another model; the old one stays until the new one was opened there

PORT is /dev/tty..., COM3, socket://host:port, emulator, emulator:TARGET, or host (the same C code in a process here).
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import numpy as np

from firmware.device import DetectRecord, RunRecord
from firmware.emulator import DeviceError
from firmware.header import load_tess, read_header
from firmware.host import firmware_id
from firmware.link.client import Client, DeviceFacts
from firmware.link.device import open_board, open_client
from firmware.profile import cost_lines, node_costs

BENCH_SEED = 1


def read_frames(path: Path, shape: tuple[int, int, int]) -> tuple[np.ndarray, bool]:
    """Frames of a .npy as uint8 (n, h, w, c), and whether the file held a batch. Raise DeviceError for anything else."""
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise DeviceError(f"{path} is not a .npy file: {error}") from error
    if not isinstance(array, np.ndarray):
        raise DeviceError(f"{path} is an .npz archive, expected one array: a .npy file")
    batched = array.ndim == 4
    if array.dtype not in (np.uint8, np.int8) or array.shape[batched:] != shape:
        raise DeviceError(
            f"{path} holds {array.dtype} {array.shape}, the network takes uint8 or int8 {shape}, one or several"
        )
    frames = array if array.dtype == np.uint8 else (array.view(np.uint8) ^ 0x80)
    return (frames if batched else frames[None]), batched


def write_outputs(path: Path, records: list[RunRecord], shapes: dict[str, tuple[int, ...]], batched: bool) -> None:
    """Write the head maps as .npz, all or nothing."""
    heads = {
        name: np.stack([r.heads[name] for r in records]) if records else np.empty((0, *shape), np.int8)
        for name, shape in shapes.items()
    }
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, delete=False) as file:
        try:
            np.savez(file, **(heads if batched else {name: head[0] for name, head in heads.items()}))
            file.flush()
            os.chmod(file.name, 0o644)  # temporary files begin private
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


def show_facts(client: Client, facts: DeviceFacts) -> Iterator[str]:
    """Lines for people. Sizes in bytes."""
    mine = "this tree's" if facts.firmware == firmware_id() else "not this tree's"
    yield f"board       {facts.board}, last start: {client.welcome}"
    yield f"firmware    {facts.firmware} ({mine}), {facts.compiler}"
    if facts.identity is None:
        yield f"model       none that opens (status {facts.status})"
    else:
        where = ("in the image", "loaded, place 1", "loaded, place 2")[facts.place]
        yield f"model       {facts.model}, {facts.identity.size:,} B, CRC {facts.identity.crc:08x}, {where}"
        yield f"work memory {facts.needed:,} B of {facts.memory:,} B"
    room = f"{facts.model_room:,} B a place" if facts.model_room else "none"
    yield f"loading     {room}; lines up to {facts.line_bytes:,} B, {facts.max_boxes} boxes"
    yield f"keeping     {4 * facts.precision_words:,} B for average precision, {facts.tracks} objects that are followed"
    clock = f"{facts.clock_hz:,} Hz" if facts.clock_hz else "unknown"
    yield f"counts      {facts.unit or 'nothing'}; clock {clock}; caches {('off', 'I', 'D', 'I+D')[facts.caches & 3]}"
    yield "link        " + ", ".join(f"{value} {name}" for name, value in facts.counters.items())


def pictures_of(path: Path, mode: str) -> list[np.ndarray]:
    """uint8 (h, w, 3) or (h, w) pictures, or for `camera` uint16 (h, w) RGB565 frames, one or several in a .npy."""
    array = np.load(path, allow_pickle=False)
    if mode == "camera":
        if array.dtype != np.uint16 or array.ndim not in (2, 3):
            raise DeviceError(f"{path} holds {array.dtype} {array.shape}; camera frames are uint16 (h, w) or (n, h, w)")
        return list(array if array.ndim == 3 else array[None])
    if array.dtype != np.uint8 or array.ndim not in (3, 4) or array.shape[-1] != 3:
        raise DeviceError(f"{path} holds {array.dtype} {array.shape}; pictures are uint8 (h, w, 3) or (n, h, w, 3)")
    return list(array if array.ndim == 4 else array[None])


def _info(options: argparse.Namespace) -> None:
    client = open_client(options.port, load_tess(options.model) if options.model else None)
    try:
        facts = client.connect()
        print(json.dumps(asdict(facts), default=str) if options.json else "\n".join(show_facts(client, facts)))
    finally:
        client.close()


def _selftest(options: argparse.Namespace) -> None:
    client = open_client(options.port, load_tess(options.model) if options.model else None)
    try:
        facts = client.connect(load_tess(options.model) if options.model else None)
        cost = client.selftest()
        print(f"{options.port}: '{facts.model}' gives the bytes that the compiler computed" + _cost(cost, facts.unit))
    finally:
        client.close()


def _cost(count: int, unit: str | None) -> str:
    return f", {count:,} {unit}" if unit else ""


def _run(options: argparse.Namespace) -> None:
    header = read_header(load_tess(options.model))
    if options.mode == "raw":
        frames, batched = read_frames(options.input, header.input_shape)
        with closing(open_board(options.model, options.port)) as device:
            records = device.run_frames(frames)
        write_outputs(options.output, records, dict(header.outputs), batched)
        counts = [r.instructions for r in records if r.instructions is not None]
    else:
        with closing(open_board(options.model, options.port)) as device:
            found = device.detect_many(pictures_of(options.input, options.mode))
        write_lines(options.output, [_line(record) for record in found])
        counts = [r.instructions for r in found if r.instructions is not None]
    cost = f", {max(counts):,} {device.info.unit} a picture at most" if counts else ""
    print(f"{options.output}: {options.mode} on {options.port}{cost}")


def _line(record: DetectRecord) -> dict:
    return {"boxes": record.boxes.tolist(), "count": record.instructions, "stack": record.stack, "touched": record.touched}


def write_lines(path: Path, lines: Sequence[dict]) -> None:
    """JSON lines, all or nothing."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=path.name, delete=False) as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)


def _bench(options: argparse.Namespace) -> None:
    model = load_tess(options.model)
    shape = read_header(model).input_shape
    frames = np.random.default_rng(BENCH_SEED).integers(0, 256, (options.pictures, *shape), dtype=np.uint8)
    with closing(open_board(options.model, options.port, profile=options.profile)) as device:
        records = device.run_frames(frames)
        info = device.info
    counts = [r.instructions for r in records if r.instructions is not None]
    if counts:
        print(f"{info.target}: {info.unit} a picture: median {int(np.median(counts)):,}, most {max(counts):,}")
        if info.clock_hz and info.unit == "cycles":
            print(f"at {info.clock_hz:,} Hz: median {1000 * np.median(counts) / info.clock_hz:.1f} ms")
    else:
        print(f"{info.target}: nothing is counted there")
    stack = f"{info.stack:,} B" if info.stack else "not measured"
    print(f"stack {stack}, work memory touched {info.touched:,} of {info.arena:,} B, guards whole")
    if records and records[0].profile is not None:
        costs = node_costs(model, np.median([r.profile for r in records], axis=0))
        print("\n".join(cost_lines(costs, info.unit or "")))


def _load(options: argparse.Namespace) -> None:
    model = load_tess(options.new)
    client = open_client(options.port, load_tess(options.model) if options.model else None)
    try:
        client.connect()
        facts = client.load(model)
        client.selftest()
        print(f"{options.port}: '{facts.model}' loaded, opened and tested (place {facts.place}, CRC {facts.identity.crc:08x})")
    finally:
        client.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m firmware.device", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, action in (("info", _info), ("selftest", _selftest), ("run", _run), ("bench", _bench), ("load", _load)):
        command = commands.add_parser(name)
        command.set_defaults(action=action)
        command.add_argument("port", metavar="PORT")
        if name == "load":
            command.add_argument("new", type=Path, metavar="MODEL", help="model.tess to load")
        needed = name in ("run", "bench")
        command.add_argument("--model", type=Path, required=needed, help="model.tess that host and emulator start with")
        if name == "info":
            command.add_argument("--json", action="store_true")
        if name == "run":
            command.add_argument("--mode", choices=("raw", "boxes", "camera"), default="raw")
            command.add_argument("--input", type=Path, required=True, help=".npy of network frames, pictures or RGB565 frames")
            command.add_argument("--output", type=Path, required=True, help=".npz (raw), or JSON lines")
        if name == "bench":
            command.add_argument("--pictures", type=int, default=5)
            command.add_argument("--profile", action="store_true", help="count each node; builds an emulator's firmware for it")
    options = parser.parse_args()
    options.action(options)
    sys.stdout.flush()
