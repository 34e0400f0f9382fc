"""Pictures -> detections, five ways behind one interface: torch, the interpreter, LiteRT, the C runtime here and emulated.

Each takes the picture as it is and does its own letterbox; torch, interpreter and LiteRT share the Python one, the C
runtime has the same arithmetic. The integer ones also return what they computed, so that bytes can be compared.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from datasets.annotations import GroundTruth, Sample
from detection.detections import Detections
from detection.device_ap import DeviceAp
from detection.evaluate import Prediction, RawOutput
from detection.journal import Journal
from detection.presence import PresenceSpec
from firmware.compiler.decode import DecodeSettings, DecodeSpec, decode, to_original
from firmware.compiler.graph import Graph
from firmware.compiler.interpreter import Interpreter
from firmware.compiler.preprocess import content_size, from_rgb565, letterbox, to_int8, to_rgb565
from firmware.device import DetectRecord, Device

if TYPE_CHECKING:
    from detection.model.detector import Detector


class PredictorError(ValueError):
    """A predictor that cannot be made or run. The message says what is missing and which command makes it."""


class _Base(ABC):
    """What all predictors share: they can be called with one picture."""

    name: str
    batch: int = 1

    @abstractmethod
    def predict(self, samples: Sequence[Sample]) -> list[Prediction]:
        """One Prediction a sample; boxes in pixels of the originals."""

    def __call__(self, image: np.ndarray, width: int, height: int) -> Detections:
        """uint8 (h, w, 3) RGB, perhaps a shrunk copy of a width x height original -> detections in the original."""
        return self.predict([Sample(image, GroundTruth.empty(), "", width, height)])[0].detections


class FloatPredictor(_Base):
    """The torch network with float decoding: what the int8 ones are compared with by AP, not by bytes."""

    name = "float"
    batch = 16

    def __init__(self, detector: "Detector", input_size: tuple[int, int], settings: DecodeSettings) -> None:
        """`input_size` is (height, width); the detector stays on its device, in evaluation mode."""
        self.detector = detector.eval()
        self.height, self.width = input_size
        self.settings = settings

    def predict(self, samples: Sequence[Sample]) -> list[Prediction]:
        import torch

        from detection.decode import decode as decode_float
        from detection.model.detector import normalise

        device = next(self.detector.parameters()).device
        frames = np.stack([letterbox(sample.image, self.height, self.width) for sample in samples])
        contents = [_content(sample, self.height, self.width) for sample in samples]
        with torch.no_grad():
            outputs = self.detector(normalise(torch.from_numpy(frames).permute(0, 3, 1, 2).to(device)))
            content = torch.tensor(contents, dtype=torch.float32)
            found = decode_float(self.detector.arch, outputs, self.settings, content)
        predictions = []
        for one, content_of, sample in zip(found, contents, samples, strict=True):
            scale = np.array([sample.width / content_of[0], sample.height / content_of[1]] * 2)
            limit = np.array([sample.width, sample.height] * 2)
            boxes = np.clip(one.boxes.cpu().numpy() * scale, 0, limit).astype(np.float32)
            predictions.append(Prediction(Detections(boxes, one.scores.cpu().numpy(), one.labels.cpu().numpy())))
        return predictions


class _HeadMapPredictor(_Base):
    """An int8 network of any make, decoded by `firmware.compiler.decode`."""

    def __init__(self, graph: Graph, spec: DecodeSpec | PresenceSpec) -> None:
        self.graph, self.spec = graph, spec
        self.height, self.width, _ = graph.tensors[graph.input].shape

    @abstractmethod
    def head_maps(self, frame: np.ndarray) -> dict[str, np.ndarray]:
        """uint8 (height, width, 3) letterboxed frame -> output name -> int8 (h, w, n)."""

    def predict(self, samples: Sequence[Sample]) -> list[Prediction]:
        predictions = []
        for sample in samples:
            heads = self.head_maps(letterbox(sample.image, self.height, self.width))
            content = _content(sample, self.height, self.width)
            own = isinstance(self.spec, PresenceSpec)
            raw = RawOutput(heads, self.spec.decode(heads, content) if own else decode(self.spec, heads, content))
            predictions.append(Prediction(_to_detections(raw.boxes, content, sample), raw))
        return predictions


class Int8Predictor(_HeadMapPredictor):
    """The numpy interpreter: the truth that the others must equal."""

    name = "int8"

    def __init__(self, graph: Graph, spec: DecodeSpec | PresenceSpec) -> None:
        super().__init__(graph, spec)
        self._interpreter = Interpreter(graph)

    def head_maps(self, frame: np.ndarray) -> dict[str, np.ndarray]:
        return self._interpreter.run(frame)


class TflitePredictor(_HeadMapPredictor):
    """LiteRT with its reference kernels on model.tflite: an outside judge of the int8 arithmetic."""

    name = "tflite"

    def __init__(self, model: bytes, graph: Graph, spec: DecodeSpec | PresenceSpec) -> None:
        """Raises PredictorError when LiteRT is not installed or refuses the model."""
        super().__init__(graph, spec)
        try:
            from ai_edge_litert.interpreter import Interpreter as LiteRt
            from ai_edge_litert.interpreter import OpResolverType
        except ImportError as error:
            raise PredictorError("predictor 'tflite' needs LiteRT: pip install ai-edge-litert") from error
        try:
            resolver = OpResolverType.BUILTIN_REF  # the default, XNNPACK, rounds differently
            self._litert = LiteRt(model_content=model, experimental_op_resolver_type=resolver, num_threads=1)
            self._litert.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise PredictorError(f"LiteRT refuses the model: {error}") from error
        self._input = self._litert.get_input_details()[0]
        self._outputs = [detail["index"] for detail in self._litert.get_output_details()]
        if self._input["dtype"] not in (np.int8, np.uint8):
            raise PredictorError(f"model.tflite takes {self._input['dtype'].__name__} pixels, expected int8 or uint8")

    def head_maps(self, frame: np.ndarray) -> dict[str, np.ndarray]:
        self._litert.set_tensor(self._input["index"], (frame if self._input["dtype"] == np.uint8 else to_int8(frame))[None])
        self._litert.invoke()
        maps = [self._litert.get_tensor(index)[0] for index in self._outputs]
        maps = [to_int8(one) if one.dtype == np.uint8 else one for one in maps]
        return dict(zip(self.graph.outputs, maps, strict=True))


class _OnDevice(_Base):
    """model.tess in the C runtime.

    With a journal, pictures that it holds are not run again, and each new one is on disk before the next.
    """

    def __init__(self, device: Device, name: str, batch: int, journal: Journal | None) -> None:
        self.device, self.name, self.batch, self.journal = device, name, batch, journal
        self.height, self.width, _ = device.header.input_shape

    def predict(self, samples: Sequence[Sample]) -> list[Prediction]:
        predictions = []
        for record, sample in zip(self._records(samples), samples, strict=True):
            found = _to_detections(record.boxes, _content(sample, self.height, self.width), sample)
            predictions.append(Prediction(found, RawOutput(record.heads or {}, record.boxes), record.instructions))
        return predictions

    def close(self) -> None:
        """Give back what the device holds: a port, and an emulator or a process behind it."""
        self.device.close()
        if self.journal is not None:
            self.journal.close()

    @abstractmethod
    def _run(self, samples: Sequence[Sample]) -> list[DetectRecord]:
        """What the device finds in pictures now."""

    def _counted(self, sample: Sample, record: DetectRecord, fresh: bool) -> None:  # noqa: B027  (most count nothing)
        """A picture is in the journal; `fresh`: it was run just now."""

    def _records(self, samples: Sequence[Sample]) -> list[DetectRecord]:
        if self.journal is None:
            return self._run(samples)
        return [self._journalled(sample, self.journal) for sample in samples]

    def _journalled(self, sample: Sample, journal: Journal) -> DetectRecord:
        known = sample.image_id in journal.records
        if not known:
            journal.append(sample.image_id, self._run([sample])[0])
        record = journal.records[sample.image_id]
        self._counted(sample, record, fresh=not known)
        return record


class DevicePredictor(_OnDevice):
    """A detector: network, decoding and suppression on the device; the letterbox too, but for colour pictures over a link."""

    def __init__(
        self, device: Device, name: str, batch: int = 1, raw: bool = True, journal: Journal | None = None,
        ap: DeviceAp | None = None, camera: bool = False,
    ) -> None:  # fmt: skip
        """`raw` also fetches head maps, for comparing; counts of instructions do not include that. With `ap` the device is told
        the truth of each picture, and counts. `camera`: it gets pictures as RGB565 frames; see CameraFrames.
        """
        super().__init__(device, name, batch, journal)
        self.raw, self.ap, self.camera = raw, ap, camera

    def _run(self, samples: Sequence[Sample]) -> list[DetectRecord]:
        pictures = [to_rgb565(sample.image) if self.camera else sample.image for sample in samples]
        return self.device.detect_many(pictures, raw=self.raw)

    def _counted(self, sample: Sample, record: DetectRecord, fresh: bool) -> None:
        if self.ap is not None:
            self.ap.add(record.boxes, sample, _content(sample, self.height, self.width), fresh)


class DeviceClassifier(_OnDevice):
    """A classifier. It has no decoder: frames are letterboxed and logits read here."""

    def __init__(self, device: Device, name: str, spec: PresenceSpec, batch: int = 1, journal: Journal | None = None) -> None:
        super().__init__(device, name, batch, journal)
        self.spec = spec

    def _run(self, samples: Sequence[Sample]) -> list[DetectRecord]:
        frames = [letterbox(sample.image, self.height, self.width) for sample in samples]
        return [
            DetectRecord(
                boxes=self.spec.decode(record.heads, _content(sample, self.height, self.width)), heads=record.heads,
                instructions=record.instructions, stack=record.stack, touched=record.touched, profile=record.profile,
                repeats=record.repeats,
            )
            for record, sample in zip(self.device.run_frames(frames), samples, strict=True)
        ]  # fmt: skip


class CameraFrames(Sequence[Sample]):
    """A data set as a camera with RGB565 shows it: colours of 5, 6 and 5 bits, widened to 8 again for whoever takes RGB."""

    def __init__(self, pictures: Sequence[Sample]) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Sample:
        sample = self.pictures[index]
        return sample._replace(image=from_rgb565(to_rgb565(sample.image)))


def device_predictor(
    device: Device, name: str, spec: PresenceSpec | None, batch: int = 1, raw: bool = True, camera: bool = False
) -> DevicePredictor | DeviceClassifier:
    """The predictor for what the device runs; `spec`: of a classifier."""
    if spec is not None:
        return DeviceClassifier(device, name, spec, batch)
    return DevicePredictor(device, name, batch, raw, camera=camera)


def _content(sample: Sample, height: int, width: int) -> tuple[int, int]:
    """(width, height) of the letterboxed picture inside of the network's frame."""
    return content_size((sample.image.shape[1], sample.image.shape[0]), (width, height))


def _to_detections(boxes: np.ndarray, content: tuple[int, int], sample: Sample) -> Detections:
    return Detections(*to_original(boxes, content, (sample.width, sample.height)))
