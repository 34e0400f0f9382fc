"""From what a user names (run, checkpoint, export, zoo folder, single file) to predictors that are ready.

Every predictor says which file it needs and which command makes it when that file is not there.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets.strict import parse
from detection.config import Config, DecodeConfig
from detection.device_ap import DeviceAp
from detection.evaluate import Predictor
from detection.exporter import decode_spec, find_checkpoint
from detection.journal import Journal
from detection.predictors import (
    DeviceClassifier,
    DevicePredictor,
    FloatPredictor,
    Int8Predictor,
    PredictorError,
    TflitePredictor,
    device_predictor,
)
from detection.presence import PresenceSpec, presence_spec
from firmware.compiler.decode import DecodeSpec
from firmware.compiler.graph import Graph
from firmware.compiler.tflite import read_metadata, read_tflite
from firmware.device import Device, open_emulator, open_host
from firmware.header import load_tess, read_header
from firmware.link.counting import room_to_count
from firmware.link.device import open_board

NAMES = ("float", "int8", "tflite", "host", "emulator", "board")  # the order of tables, truth before what is judged by it
EMULATOR_BATCH = 16  # pictures a start of the emulator
_NEEDS = {
    "float": "a checkpoint",
    "int8": "model.tflite",
    "tflite": "model.tflite",
    "host": "model.tess",
    "emulator": "model.tess",
    "board": "model.tess",
}


@dataclass(frozen=True)
class Source:
    """The files that a name stands for; None where there is none."""

    path: Path  # as the user wrote it
    checkpoint: Path | None = None
    tflite: Path | None = None
    tess: Path | None = None

    def sha256(self) -> dict[str, str]:
        """Of every file, by name."""
        files = [path for path in (self.checkpoint, self.tflite, self.tess) if path is not None]
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def find_source(path: str | Path, checkpoint: str | Path | None = None) -> Source:
    """What lies at `path`; `checkpoint` names the float network where `path` has none.

    A run folder stands for its last weights and its export/ folder, an export folder inside of a run also for the run's
    weights, a file for itself. Raises PredictorError when nothing is there.
    """
    path = Path(path)
    given = Path(checkpoint) if checkpoint else None
    if given is not None and not given.is_file():
        raise PredictorError(f"{given}: no such checkpoint")
    if path.is_file():
        kinds = {".pt": "checkpoint", ".tflite": "tflite", ".tess": "tess"}
        if path.suffix not in kinds:
            raise PredictorError(f"{path} is neither a checkpoint (.pt) nor .tflite nor .tess")
        return Source(path, **{"checkpoint": given, kinds[path.suffix]: path})
    if not path.is_dir():
        raise PredictorError(f"{path}: no such run, export folder or model")
    folders = [path, path / "export"]
    source = Source(
        path, given or _checkpoint(path), _first(folders, "model.tflite"), _first(folders, "model.tess")
    )
    if not (source.checkpoint or source.tflite or source.tess):
        raise PredictorError(f"{path} holds no checkpoint, model.tflite or model.tess")
    return source


def split_names(text: str) -> tuple[str, ...]:
    """"int8,emulator:TARGET" -> names in table order. Raises PredictorError for an unknown one."""
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        kind, _, target = name.partition(":")
        if kind not in NAMES or (target and kind not in ("emulator", "board")):
            raise PredictorError(f"'{name}' is no predictor: choose from {', '.join(NAMES)}, emulator:TARGET or board:PORT")
        if kind == "board" and not target:
            raise PredictorError("say which board: board:PORT, where PORT is /dev/tty..., socket://host:port, emulator or host")
    if sum(name.startswith("board") for name in names) > 1:
        raise PredictorError("one board at a time: each evaluation has one journal")
    if not names:
        raise PredictorError(f"no predictor was named: choose from {', '.join(NAMES)}")
    return tuple(sorted(names, key=lambda name: NAMES.index(name.partition(":")[0])))


def truth_for(names: tuple[str, ...], source: Source) -> tuple[str, ...]:
    """Put "int8" before other integer predictors where the source can give it: it is what they are compared with."""
    if "int8" in names or set(names) == {"float"} or source.tflite is None:
        return names
    return split_names(",".join(("int8", *names)))


def open_predictor(
    source: Source, name: str, raw: bool = True, batch: int = EMULATOR_BATCH, camera: bool = False
) -> Predictor:
    """Make one predictor ready; `raw` keeps head maps of the C runtime, `batch` is how many pictures the emulator gets, `camera`
    gives the C runtime RGB565 frames.

    Raises PredictorError when the source lacks what it needs, or what the files' readers raise.
    """
    kind, _, target = name.partition(":")
    needed = {"float": source.checkpoint, "int8": source.tflite, "tflite": source.tflite}.get(kind, source.tess)
    if needed is None:
        raise PredictorError(_missing(source, kind))
    if kind == "float":
        return _open_float(needed)
    if kind in ("int8", "tflite"):
        graph, spec = _read_tflite(needed)
        return Int8Predictor(graph, spec) if kind == "int8" else TflitePredictor(needed.read_bytes(), graph, spec)
    device = _open_device(needed, kind, target)
    return device_predictor(device, name, _presence_of(source), batch if kind == "emulator" else 1, raw, camera)


def _open_device(tess: Path, kind: str, place: str) -> Device:
    if kind == "host":
        return open_host(tess)
    return open_board(tess, place) if kind == "board" else open_emulator(tess, place or "mps2-an500")


def open_board_predictor(
    source: Source, name: str, folder: Path, data: Mapping[str, Any], ids: Sequence[str], profile: bool = False,
    camera: bool = False,
) -> DevicePredictor | DeviceClassifier:  # fmt: skip
    """The device behind `board:PORT`, with a journal in `folder` for the pictures `ids` of `data`, begun or gone on with.

    Raises PredictorError without a model.tess, LinkError where the device is not there or holds another model, JournalError
    where the folder is another evaluation's.
    """
    if source.tess is None:
        raise PredictorError(_missing(source, "board"))
    spec = _presence_of(source)
    device = open_board(source.tess, name.partition(":")[2], profile)
    facts = device.client.facts
    try:
        head = {"model_sha256": source.sha256()[source.tess.name], "board": facts.board, "firmware": facts.firmware}
        journal = Journal(folder, {**head, **data, "frames": "rgb565" if camera else "rgb888"}, ids)
        if spec is not None:
            return DeviceClassifier(device, name, spec, journal=journal)
        ap = None if room_to_count(device.client, device.header) else DeviceAp(device, load_tess(source.tess))
    except BaseException:
        device.close()
        raise
    return DevicePredictor(device, name, journal=journal, ap=ap, camera=camera)


def is_classifier(source: Source) -> bool:
    """Whether the network says which classes a picture shows, and not where."""
    if source.tflite is not None:
        return _presence_of(source) is not None
    if source.checkpoint is None:
        return False
    from detection.checkpoint import load_checkpoint

    return load_checkpoint(source.checkpoint).arch.classifier is not None


def class_names(source: Source) -> tuple[str, ...]:
    """The model's classes, from the first file that knows them."""
    if source.tflite is not None:
        return _read_tflite(source.tflite)[1].class_names
    if source.tess is not None:
        return read_header(load_tess(source.tess)).class_names
    from detection.checkpoint import load_checkpoint

    return load_checkpoint(source.checkpoint).class_names


def check_classes(source: Source, data: tuple[str, ...]) -> None:
    """Raise PredictorError unless model and data set mean the same by a label."""
    model = class_names(source)
    if not model:
        raise PredictorError(f"{source.path} names no classes, as a classifier's .tess does not: give the folder of its export")
    if model != tuple(data):
        raise PredictorError(
            f"{source.path} finds {_short(model)}, the data set holds {_short(data)}: "
            "give the data YAML of its training, or put 'keep' or 'merge_to' into this one"
        )


def _short(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:4])
    return f"{len(names)} classes ({shown}, ...)" if len(names) > 4 else f"({shown})"


def _checkpoint(folder: Path) -> Path | None:
    for place in (folder, folder.parent):
        if place == folder.parent and folder.name != "export":
            continue
        try:
            return find_checkpoint(place)
        except ValueError:
            continue
    return None


def _first(folders: list[Path], name: str) -> Path | None:
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def _missing(source: Source, kind: str) -> str:
    message = f"predictor '{kind}' needs {_NEEDS[kind]} and {source.path} has none: "
    if kind == "float":
        return message + "add --checkpoint FILE.pt, or make one with train.py"
    made_from = source.checkpoint or source.tflite or "CHECKPOINT"
    folder = source.path / "export" if source.path.is_dir() else Path("DIR")
    return message + f"python export.py {made_from} --out {folder}" + ("" if source.path.is_dir() else ", then name DIR")


def _open_float(path: Path) -> FloatPredictor:
    import torch

    from detection.checkpoint import load_detector

    detector, checkpoint = load_detector(path)
    config = parse(checkpoint.config, Config, str(path))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    settings: DecodeConfig = config.decode
    return FloatPredictor(detector.to(device), (config.input.height, config.input.width), settings)


def _presence_of(source: Source) -> PresenceSpec | None:
    """Of a classifier: model.tess has no decoder, model.tflite beside it says what its output means."""
    if source.tflite is None:
        return None
    spec = _read_tflite(source.tflite)[1]
    return spec if isinstance(spec, PresenceSpec) else None


def _read_tflite(path: Path) -> tuple[Graph, DecodeSpec | PresenceSpec]:
    content = path.read_bytes()
    graph = read_tflite(content)
    metadata = read_metadata(content)
    spec = decode_spec(graph, metadata) or presence_spec(graph, metadata)
    if spec is None:
        raise PredictorError(f"{path} is no detector of ours: it says nothing of strides and classes, so no boxes come of it")
    return graph, spec
