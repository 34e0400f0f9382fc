"""The C runtime on this machine: builds firmware/runtime as a shared library and calls it through ctypes.

Same sources as on a chip, with the reference kernels. A board's answer and `HostModel`'s are the same bytes.
"""

import ctypes
import hashlib
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from firmware.cc import SHARED, compile_c

RUNTIME = Path(__file__).parent / "runtime"
LINK = Path(__file__).parent / "link"
ALIGNMENT = 16  # TESS_ALIGN
MOST_BOXES = 65535

PixelFormat = Literal["rgb888", "rgb565_be", "rgb565_le", "grey"]
_FORMATS: dict[str, tuple[int, int]] = {"rgb888": (0, 3), "rgb565_be": (1, 2), "rgb565_le": (2, 2), "grey": (3, 1)}


class TessError(ValueError):
    """What a function of the runtime answered; `code` is its negative tess_err."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{text} (tess error {code})")
        self.code = code


class OutputInfo(NamedTuple):
    """A graph output. real = scale * (q - zero_point)."""

    name: str
    shape: tuple[int, int, int]  # h, w, c
    scale: float
    zero_point: int


class _OutputInfo(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("height", ctypes.c_uint16),
        ("width", ctypes.c_uint16),
        ("channels", ctypes.c_uint16),
        ("zero_point", ctypes.c_int8),
        ("scale", ctypes.c_float),
    ]


def runtime_sources(kernels: str = "ref") -> list[Path]:
    """C files of the runtime with one folder of kernels, without a target's own files; sorted."""
    return sorted([*RUNTIME.glob("*.c"), *(RUNTIME / "kernels" / kernels).glob("*.c")])


def link_sources() -> list[Path]:
    """C files of the link and the runtime that it serves, without a target's own files; sorted."""
    return sorted([*LINK.glob("*.c"), *runtime_sources()])


def link_flags() -> list[str]:
    """Compiler flags for a program of this machine that holds the link."""
    return ["-O2", f"-I{RUNTIME}", f"-I{LINK}", f'-DLINK_FIRMWARE="{firmware_id()}"']


def firmware_id() -> str:
    """Names the sources of runtime and link: the same on a board, in an emulator and here when they were built from one tree."""
    digest = hashlib.sha256()
    for path in sorted(path for folder in (RUNTIME, LINK) for path in folder.rglob("*.[ch]") if "host" not in path.parts):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def build_library() -> Path:
    """The shared library, built when its sources have changed."""
    return compile_c([*runtime_sources(), RUNTIME / "host" / "tess_host.c"], (*SHARED, "-DTESS_PROFILE"), "libtess", ".so")


@cache
def library() -> ctypes.CDLL:
    """The loaded library with the types of its functions."""
    lib = ctypes.CDLL(str(build_library()))
    pointer, u16, u32, size, integer = ctypes.c_void_p, ctypes.c_uint16, ctypes.c_uint32, ctypes.c_size_t, ctypes.c_int
    prototypes = {
        "tess_error": (ctypes.c_char_p, [integer]),
        "tess_needed": (integer, [pointer, size, ctypes.POINTER(size)]),
        "tess_open": (integer, [pointer, pointer, size, pointer, size]),
        "tess_detect": (integer, [pointer, pointer, size]),
        "tess_selftest": (integer, [pointer]),
        "tess_input": (None, [pointer] + [ctypes.POINTER(u16)] * 3),
        "tess_sequential": (integer, [pointer]),
        "tess_outputs": (u16, [pointer]),
        "tess_output_info": (integer, [pointer, u16, ctypes.POINTER(_OutputInfo)]),
        "tess_model_name": (ctypes.c_char_p, [pointer]),
        "tess_classes": (u16, [pointer]),
        "tess_class_name": (ctypes.c_char_p, [pointer, u16]),
        "tess_ap_levels": (integer, [pointer, pointer, size]),
        "tess_ap_counters": (size, [u16, u16]),
        "tess_ap_init": (integer, [pointer, pointer, u16, u16, u16, pointer, size]),
        "tess_ap_place": (integer, [pointer, pointer] + [u16] * 4),
        "tess_ap_add": (integer, [pointer, pointer, size, pointer, size]),
        "tess_ap_class": (integer, [pointer, u16, ctypes.POINTER(u32)]),
        "tess_ap_mean": (integer, [pointer, ctypes.POINTER(u32)]),
        "tess_host_sizeof": (size, []),
        "tess_host_profile": (None, [pointer, pointer]),
        "tess_tracker_init": (integer, [pointer, pointer, u16, pointer]),
        "tess_tracker_set": (integer, [pointer, pointer]),
        "tess_tracker_set_line": (None, [pointer] + [ctypes.c_int16] * 4),
        "tess_tracker_update": (integer, [pointer, pointer, size, pointer]),
        "tess_host_run": (integer, [pointer, pointer, pointer]),
        "tess_host_checksum": (integer, [pointer, pointer, ctypes.POINTER(u32)]),
        "tess_host_run_picture": (integer, [pointer, pointer, u16, u16, integer, pointer, pointer]),
        "tess_host_letterbox": (integer, [pointer, pointer, u16, u16, integer, u16, u16, pointer, pointer]),
    }
    for name, (result, arguments) in prototypes.items():
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib


def error_text(code: int) -> str:
    """What the runtime says about a negative tess_err."""
    return library().tess_error(code).decode()


def check(code: int) -> int:
    """The code itself where it is no error. Raises TessError for a negative one."""
    if code < 0:
        raise TessError(code, error_text(code))
    return code


def _aligned(size: int) -> np.ndarray:
    """uint8 (size,), its first byte at a multiple of ALIGNMENT."""
    block = np.zeros(size + ALIGNMENT, np.uint8)
    start = -block.ctypes.data % ALIGNMENT
    return block[start : start + size]


def needed(model: bytes) -> int:
    """Bytes of work memory that a model.tess needs. Raises TessError for a bad file."""
    held = _aligned(len(model))
    held[:] = np.frombuffer(model, np.uint8)
    size = ctypes.c_size_t()
    check(library().tess_needed(held.ctypes.data, len(model), ctypes.byref(size)))
    return size.value


class HostModel:
    """An opened model.tess. One caller at a time; make several for several threads.

    Raises TessError when the file is bad or a run fails, BuildError when there is no library to run it.
    """

    def __init__(self, model: bytes) -> None:
        self._lib = lib = library()
        self._model = _aligned(len(model))
        self._model[:] = np.frombuffer(model, np.uint8)
        self.needed = needed(model)
        self._arena = _aligned(self.needed)
        self._state = _aligned(lib.tess_host_sizeof())
        self._t = self._state.ctypes.data
        check(lib.tess_open(self._t, self._model.ctypes.data, len(model), self._arena.ctypes.data, self.needed))

        h, w, c = ctypes.c_uint16(), ctypes.c_uint16(), ctypes.c_uint16()
        lib.tess_input(self._t, ctypes.byref(h), ctypes.byref(w), ctypes.byref(c))
        self.input_shape = (h.value, w.value, c.value)
        self.content = (w.value, h.value)
        self.name: str = lib.tess_model_name(self._t).decode()
        self.sequential = bool(lib.tess_sequential(self._t))
        self.outputs = tuple(self._output(o) for o in range(lib.tess_outputs(self._t)))
        self.classes = tuple(lib.tess_class_name(self._t, k).decode() for k in range(lib.tess_classes(self._t)))
        self._boxes = np.empty((MOST_BOXES, 6), np.int16)

    def _output(self, index: int) -> OutputInfo:
        info = _OutputInfo()
        check(self._lib.tess_output_info(self._t, index, ctypes.byref(info)))
        shape = (info.height, info.width, info.channels)
        return OutputInfo(info.name.decode(), shape, info.scale, info.zero_point)

    def _new_outputs(self) -> tuple[dict[str, np.ndarray], ctypes.Array]:
        # zeroed, so that an element that never came shows
        arrays = {output.name: np.zeros(output.shape, np.int8) for output in self.outputs}
        return arrays, (ctypes.c_void_p * len(self.outputs))(*(arrays[o.name].ctypes.data for o in self.outputs))

    def _frame(self, frame: np.ndarray) -> np.ndarray:
        if frame.dtype != np.uint8 or frame.shape != self.input_shape:
            raise ValueError(f"frame is {frame.dtype} {frame.shape}, the network takes uint8 {self.input_shape}")
        return np.ascontiguousarray(frame)

    def run(self, frame: np.ndarray) -> dict[str, np.ndarray]:
        """Head maps of a frame uint8 (h, w, c) of the network's size: output name -> int8 (h, w, c)."""
        frame = self._frame(frame)
        arrays, pointers = self._new_outputs()
        check(self._lib.tess_host_run(self._t, frame.ctypes.data, pointers))
        self.content = (self.input_shape[1], self.input_shape[0])
        return arrays

    def detect(self, image: np.ndarray, pixels: PixelFormat = "rgb888") -> np.ndarray:
        """Boxes in a picture of any size, int32 (n, 6): x1, y1, x2, y2 (Q4 network pixels), score (Q15), label; best first.

        `image` is uint8 (h, w, 3) RGB, or lines as a camera stores them: (h, w, 2) for RGB565, (h, w) for grey. `content` is
        then the (width, height) of the network frame that holds the picture.
        """
        self._run_picture(image, pixels, None)
        return self._detections()

    def run_and_detect(
        self, image: np.ndarray, pixels: PixelFormat = "rgb888"
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Head maps and boxes of one picture: what `run(network_frame(image))` and `detect(image)` give."""
        arrays, pointers = self._new_outputs()
        self._run_picture(image, pixels, pointers)
        return arrays, self._detections()

    def profile(self, nodes: int) -> np.ndarray:
        """From now on, what each node costs: uint64 (nodes,) that grows with every run, nanoseconds of this machine's clock."""
        self._profile = np.zeros(nodes, np.uint64)  # lives as long as the model, which writes it
        self._lib.tess_host_profile(self._t, self._profile.ctypes.data)
        return self._profile

    def network_frame(
        self, image: np.ndarray, pixels: PixelFormat = "rgb888", columns: tuple[int, int] | None = None
    ) -> np.ndarray:
        """The letterboxed picture as the network sees it, uint8 (h, w, c), or columns [c0, c1) of it."""
        image, width, height, code = _picture(image, pixels)
        h, w, c = self.input_shape
        col0, col1 = columns or (0, w)
        if not 0 <= col0 < col1 <= w:
            raise ValueError(f"columns {col0}..{col1} are outside of the network's 0..{w}")
        frame, content = np.empty((h, col1 - col0, c), np.uint8), np.empty(2, np.uint16)
        check(
            self._lib.tess_host_letterbox(
                self._t, image.ctypes.data, width, height, code, col0, col1, frame.ctypes.data, content.ctypes.data
            )
        )
        self.content = (int(content[0]), int(content[1]))
        return frame

    def selftest(self) -> None:
        """Run on the built-in test picture. Raises TessError when the outputs differ from the compiler's."""
        check(self._lib.tess_selftest(self._t))

    def score_levels(self) -> np.ndarray:
        """Scores that the head can give, Q15, uint16 (n,), ascending: the steps of tess_ap.c."""
        levels = np.empty(check(self._lib.tess_ap_levels(self._t, None, 0)), np.uint16)
        check(self._lib.tess_ap_levels(self._t, levels.ctypes.data, len(levels)))
        return levels

    def checksum(self, frame: np.ndarray) -> int:
        """SPEC.md's checksum over all outputs for a frame uint8 (h, w, c) of the network's size."""
        frame = self._frame(frame)
        total = ctypes.c_uint32()
        check(self._lib.tess_host_checksum(self._t, frame.ctypes.data, ctypes.byref(total)))
        return total.value

    def _run_picture(self, image: np.ndarray, pixels: PixelFormat, outputs: ctypes.Array | None) -> None:
        image, width, height, code = _picture(image, pixels)
        content = np.empty(2, np.uint16)
        check(
            self._lib.tess_host_run_picture(
                self._t, image.ctypes.data, width, height, code, outputs, content.ctypes.data
            )
        )
        self.content = (int(content[0]), int(content[1]))

    def _detections(self) -> np.ndarray:
        count = check(self._lib.tess_detect(self._t, self._boxes.ctypes.data, MOST_BOXES))
        boxes = self._boxes[:count].astype(np.int32)
        boxes[:, 4:] &= 0xFFFF  # score and label are unsigned
        return boxes


def _picture(image: np.ndarray, pixels: PixelFormat) -> tuple[np.ndarray, int, int, int]:
    """The picture's bytes without gaps, its width and height, and the runtime's number of the format."""
    if pixels not in _FORMATS:
        raise ValueError(f"pixel format '{pixels}' is not one of {', '.join(_FORMATS)}")
    code, channels = _FORMATS[pixels]
    lines = image[..., None] if image.ndim == 2 else image
    if image.dtype != np.uint8 or lines.ndim != 3 or lines.shape[2] != channels:
        raise ValueError(f"picture is {image.dtype} {image.shape}, {pixels} takes uint8 (h, w, {channels})")
    height, width = lines.shape[:2]
    if not (1 <= height <= 65535 and 1 <= width <= 65535):
        raise ValueError(f"picture of {width}x{height} pixels: each side must be 1..65535")
    return np.ascontiguousarray(lines), width, height, code
