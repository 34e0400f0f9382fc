"""Raw outputs of a model.tess for raw network inputs, on this machine or on an emulated chip.

    python -m firmware.run model.tess --on emulator:mps2-an500 --input in.npy --output out.npz

`in.npy`: uint8 network frames (h, w, c) or (n, h, w, c), or the same as int8 (uint8 - 128). `out.npz`: int8 arrays by
output name, (h, w, c) or (n, h, w, c). The same inputs give the same bytes everywhere.
"""

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np

from firmware.cli import run
from firmware.device import Device, RunRecord, open_emulator, open_host
from firmware.emulator import DeviceError


def open_device(tess: bytes | str | Path, where: str) -> Device:
    """A device by name: "host", "emulator" or "emulator:TARGET". Raise DeviceError for any other."""
    kind, _, target = where.partition(":")
    if kind == "host" and not target:
        return open_host(tess)
    if kind == "emulator":
        return open_emulator(tess, target or "mps2-an500")
    raise DeviceError(f"'{where}' is no place to run on: host, emulator or emulator:TARGET")


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


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m firmware.run", description="Run a model.tess on raw inputs.")
    parser.add_argument("model", type=Path, help="model.tess")
    parser.add_argument("--on", default="host", metavar="PLACE", help="host (default), emulator or emulator:TARGET")
    parser.add_argument("--input", type=Path, required=True, help=".npy, uint8 or int8, (h, w, c) or (n, h, w, c)")
    parser.add_argument("--output", type=Path, required=True, help=".npz, int8 by output name")
    options = parser.parse_args()
    device = open_device(options.model, options.on)
    frames, batched = read_frames(options.input, device.header.input_shape)
    records = device.run_frames(frames)
    write_outputs(options.output, records, dict(device.header.outputs), batched)
    counts = [r.instructions for r in records if r.instructions is not None]
    cost = f", {max(counts):,} instructions a frame at most" if counts else ""
    print(f"{options.output}: {len(records)} frames on {options.on}{cost}")


if __name__ == "__main__":
    run(main)
