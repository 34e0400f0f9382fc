"""What a chip offers, read from `configs/targets/NAME.yaml`."""

import difflib
import re
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).resolve().parents[2] / "configs" / "targets"
ISAS = ("ref", "dsp", "mve")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class TargetError(ValueError):
    """A target that does not exist or whose file says something impossible."""


@dataclass(frozen=True)
class Firmware:
    """How firmware for a machine is built and, where it is emulated, started."""

    folder: str  # in firmware/targets
    flags: tuple[str, ...]  # compiler flags that choose the core
    line_bytes: int  # size of the application's line buffer: the widest picture that it reads
    machine: str = ""  # qemu-system-arm -M; empty: a board of its own, not emulated
    icount_shift: int = 0  # qemu-system-arm -icount shift=: an instruction takes 2^shift ns
    family: str = ""  # folder in firmware/targets that boards of a kind share
    large_ram: int = 0  # of `sram`, a memory of its own for work memory that does not fit beside stack and data
    model_place: int = 0  # bytes of each of the two places for models that come over the link; 0: none
    link_memory: int = 0  # least work memory of firmware that serves the link, for models that are loaded


@dataclass(frozen=True)
class OpenMv:
    """The memories of an OpenMV Cam with its own firmware. Sizes in bytes."""

    heap: tuple[int, ...]  # blocks of MicroPython's heap
    romfs: int
    scripts: int  # of the heap, for main.py and what it makes


@dataclass(frozen=True)
class Target:
    """A chip as the planner sees it. Sizes in bytes."""

    name: str
    sram: int
    flash: int
    isa: str = "ref"  # best kernel family that runs there: "ref", "dsp" or "mve"
    clock_hz: int | None = None  # None where time means nothing (emulators) or is not known
    stack_reserve: int = 0  # of `sram`, for the stack
    app_reserve: int = 0  # of `sram`, for buffers of the application around the runtime
    description: str = ""
    firmware: Firmware | None = None  # None: a budget only, nothing can be built or started
    openmv: OpenMv | None = None  # export.py also writes what the camera needs

    @property
    def budget(self) -> int:
        """Bytes of SRAM that a plan's `peak_sram` may take."""
        return self.sram - self.stack_reserve - self.app_reserve


def parse_size(text: str | int) -> int:
    """Bytes from 262144, "256K" or "4M" (binary units). Raise TargetError for anything else."""
    if isinstance(text, int) and not isinstance(text, bool) and text >= 0:
        return text
    match = re.fullmatch(r"(\d+) ?([KMG]?)(?:i?B)?", str(text).strip(), re.IGNORECASE)
    if not match:
        raise TargetError(f"'{text}' is not a size: write bytes or 256K, 4M")
    return int(match[1]) * _UNITS[match[2].upper()]


def target_names(folder: Path = FOLDER) -> tuple[str, ...]:
    """Names that `load_target` accepts, sorted."""
    return tuple(sorted(path.stem for path in folder.glob("*.yaml")))


def load_target(name: str, folder: Path = FOLDER) -> Target:
    """The target of that name. Raise TargetError, with the nearest name, when there is none."""
    names = target_names(folder)
    if name not in names:
        near = difflib.get_close_matches(name, names, 1, 0.4)
        hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(names)}"
        raise TargetError(f"target '{name}' does not exist; {hint}")
    path = folder / f"{name}.yaml"
    try:
        data = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise TargetError(f"{path.name}: not readable as YAML: {str(error).splitlines()[0]}") from error
    target = _target(path.name, data)
    if target.name != name:
        raise TargetError(f"{path.name}: name is '{target.name}', expected '{name}'")
    return target


def _target(file: str, data: Any) -> Target:
    _check_keys(file, data, Target)
    values = dict(data)
    for key in ("sram", "flash", "stack_reserve", "app_reserve"):
        if key in values:
            values[key] = parse_size(values[key])
    if (firmware := values.get("firmware")) is not None:
        _check_keys(f"{file}: firmware", firmware, Firmware)
        sizes = {key: parse_size(firmware[key]) for key in ("large_ram", "model_place", "link_memory") if key in firmware}
        values["firmware"] = Firmware(**{**firmware, **sizes, "flags": tuple(firmware["flags"])})
    if (openmv := values.get("openmv")) is not None:
        _check_keys(f"{file}: openmv", openmv, OpenMv)
        heap = tuple(map(parse_size, openmv["heap"]))
        values["openmv"] = OpenMv(heap, parse_size(openmv["romfs"]), parse_size(openmv["scripts"]))
    target = Target(**values)
    if target.isa not in ISAS:
        raise TargetError(f"{file}: isa '{target.isa}' is none of {', '.join(ISAS)}")
    if target.budget <= 0:
        raise TargetError(f"{file}: stack_reserve and app_reserve leave nothing of {target.sram:,} B of sram")
    return target


def _check_keys(where: str, data: Any, kind: type) -> None:
    """Every key is a field of `kind`, every field without a default is there."""
    if not isinstance(data, dict):
        raise TargetError(f"{where}: expected settings, found {type(data).__name__}")
    known = [f.name for f in fields(kind)]
    for key in data:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            raise TargetError(f"{where}: '{key}' is not a setting" + (f" (did you mean {near[0]}?)" if near else ""))
    for key in (f.name for f in fields(kind) if f.default is MISSING):
        if key not in data:
            raise TargetError(f"{where}: '{key}' is missing")
