"""A network that is being read from a .tflite file: which tensor of the Graph each tensor of the file is, and how it lies there.

A file's tensor is a `View` of a tensor of the graph. RESHAPE, SQUEEZE, EXPAND_DIMS and TRANSPOSE mostly change the view only:
as long as the reader of the tensor knows which letter (h, w, c) each side stands for, no byte has to move. What must lie as
(1, height, width, channels) asks for `normal`, which adds a Reshape or Pad where a view does not do.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from firmware.compiler import tflite_schema as schema
from firmware.compiler.flatbuffer import Table
from firmware.compiler.graph import (
    Clamp,
    Op,
    Pad,
    Padding,
    Params,
    Quantization,
    Reshape,
    Shape,
    Tensor,
    Transpose,
    Weights,
    Window,
    same_padding,
)
from firmware.compiler.requantize import clamp_for
from firmware.compiler.tflite_parse import File, FileOperator, FileTensor, TfliteError, quantization


class View(NamedTuple):
    """A tensor of the graph as a tensor of the file: the letters (of "hwc") that each side of the file's tensor stands for."""

    name: str
    sides: tuple[str, ...]
    moved: bool = False  # a reshape of maps into maps: a real operator for whoever does not look through it


class Padded(NamedTuple):
    """What a PAD makes: `source` with padding around it, all of one value."""

    source: int
    padding: Padding
    value: int


class Import:
    """`tensors` and `ops` grow operator by operator."""

    def __init__(self, file: File, outputs: tuple[int, ...]) -> None:
        self.file, self.outputs = file, outputs
        self.tensors: dict[str, Tensor] = {}
        self.ops: list[Op] = []
        self.views: dict[int, View] = {}
        self.padded: dict[int, Padded] = {}
        self.input: str | None = None
        self._made_by = {output: operator.index for operator in file.operators for output in operator.outputs}
        self._position: dict[str, int] = {}  # of the file's operator that an operator of the graph stands for
        self.input_is_uint8 = False

    # tensors

    def set_input(self, index: int, quant: Quantization | None = None) -> None:
        """The network's input as int8: a tensor of the file, or one with another quantisation that lies like it."""
        if self.input is not None:
            raise TfliteError(f"tensor {self.file.tensors[index]} is a second int8 form of the network's input")
        if len(self.file.tensors[index].shape) != 4:
            raise TfliteError(
                f"tensor {self.file.tensors[index]} is {self.file.tensors[index].shape}: expected (1, height, width, channels)"
            )
        self.input = self.declare(index, quant).name

    def declare(
        self, index: int, quant: Quantization | None = None, shape: Shape | None = None, sides: Sequence[str] = ()
    ) -> Tensor:
        """A new tensor of the graph under the file's name, made unique; shape and sides as the file says when not given."""
        tensor = self.file.tensors[index]
        if index in self.views:
            raise TfliteError(f"tensor {tensor} is made a second time")
        name = tensor.name or f"tensor{index}"
        while name in self.tensors:
            name += f"#{index}"
        if shape is None:
            shape, sides = plain_shape(tensor), plain_sides(tensor)
        self.tensors[name] = Tensor(name, shape, quant or quantization(tensor))
        self._position[name] = self._made_by.get(index, -1)
        self.views[index] = View(name, tuple(sides))
        return self.tensors[name]

    def invent(self, operator: FileOperator, name: str, shape: Shape, quant: Quantization) -> Tensor:
        """A new tensor of the graph that the file does not have; it takes part in an operator of the file."""
        while name in self.tensors:
            name += "'"
        self.tensors[name] = Tensor(name, shape, quant)
        self._position[name] = operator.index
        return self.tensors[name]

    def append(self, params: Params, inputs: Sequence[Tensor], output: Tensor) -> None:
        self.ops.append(Op(output.name, params, tuple(tensor.name for tensor in inputs), output.name))

    def in_file_order(self) -> tuple[Op, ...]:
        """The operators; those made late, for a reader's sake, where the file has them."""
        return tuple(sorted(self.ops, key=lambda op: self._position[op.output]))

    def make(self, operator: FileOperator, params: Params, inputs: Sequence[Tensor]) -> None:
        """An operator whose output lies as (1, height, width, channels) in the file."""
        self.append(params, inputs, self.declare(operator.outputs[0]))

    def lies(self, index: int, who: str) -> View:
        """How a tensor lies in the graph, seen through reshapes."""
        if index in self.padded and index not in self.views:
            self._pad(index, who)
        if index not in self.views:
            tensor = self.file.tensors[index] if index >= 0 else None
            if index == self.file.inputs[0]:
                raise self.bad_input()
            what = "constants" if tensor is not None and tensor.data is not None else "what nothing has made yet"
            raise TfliteError(f"{who} reads {what}: {tensor or 'a missing tensor'}")
        return self.views[index]

    def view(self, index: int, who: str) -> View:
        """How a tensor lies in the graph, for operators that do not mind."""
        if self.lies(index, who).moved:
            self.normal(index, who)
        return self.views[index]

    def normal(self, index: int, who: str) -> Tensor:
        """A tensor as (1, height, width, channels); fewer sides stand for the last ones."""
        wanted, source = plain_shape(self.file.tensors[index]), self.in_order(index, who)
        if source.shape == wanted and not self.views[index].moved:
            return source
        del self.views[index]
        return self.reshape(source, index)

    def reshape(self, source: Tensor, output: int) -> Tensor:
        """A Reshape that makes a tensor of the file."""
        made = self.declare(output, source.quant)
        self.append(Reshape(made.shape), [source], made)
        return made

    def in_order(self, index: int, who: str) -> Tensor:
        """A tensor of the graph whose bytes lie as in the file, whatever the sides are called."""
        view = self.lies(index, who)
        tensor = self.tensors[view.name]
        letters = "".join(view.sides)
        moving = [letter for letter in letters if side_size(tensor, letter) > 1]
        if sorted(moving, key="hwc".index) == moving:
            return tensor
        order = "".join(letter for letter in "hwc" if letter not in letters) + letters  # sides of size 1 first
        renamed = {before: after for before, after in zip(order, "hwc", strict=True)}
        sides = ["".join(renamed[letter] for letter in side) for side in view.sides]
        del self.views[index]
        turned = self.declare(index, tensor.quant, Shape(*(side_size(tensor, letter) for letter in order)), sides)
        self.append(Transpose(tuple("hwc".index(letter) for letter in order)), [tensor], turned)
        return turned

    def _pad(self, index: int, who: str) -> None:
        padded = self.padded[index]
        source = self.normal(padded.source, who)
        self.append(Pad(padded.padding, padded.value), [source], self.declare(index))

    def bad_input(self) -> TfliteError:
        first = self.file.tensors[self.file.inputs[0]]
        return TfliteError(
            f"the network's input {first} is {first.type_name} and used as such: expected int8, or a QUANTIZE to int8"
        )

    def leaves_int8(self, operator: FileOperator) -> TfliteError:
        """For a DEQUANTIZE that is no output: its reader has no int8 kernel, or the network was not wholly quantised."""
        reader = next((other for other in self.file.operators if operator.outputs[0] in other.inputs), None)
        what = f": {who_is(reader)} computes {self.file.tensors[reader.outputs[0]]} in float32" if reader else ""
        tensor = self.file.tensors[operator.inputs[0]]
        return TfliteError(
            f"{who_is(operator)} leaves int8 inside of the network{what}; use an operator that TFLite computes in int8 (RELU, "
            f"HARD_SWISH, LOGISTIC), or cut the network before it: --outputs {tensor.short_name}"
        )

    def output_quantization(self, operator: FileOperator) -> Quantization:
        return quantization(self.file.tensors[operator.outputs[0]])

    # parts of operators

    def windowed(
        self, operator: FileOperator, options: Table | None, kernel: Sequence[int], fill: int | None = None, folds: bool = True
    ) -> tuple[Tensor, Window]:
        """What an operator with a window really reads, and the window with padding in front folded in.

        `fill` is the value that padding must have to be folded, the zero point when None; `folds` is False when none may be.
        """
        who, index = who_is(operator), operator.inputs[0]
        stride = (number(options, "stride_h"), number(options, "stride_w"))
        if min(*stride, *kernel) < 1:
            raise TfliteError(f"{who} has kernel {tuple(kernel)}, stride {stride}")
        mode = number(options, "padding")
        if mode not in (schema.SAME, schema.VALID):
            raise TfliteError(f"{who} has padding mode {mode}")
        size = (int(kernel[0]), int(kernel[1]))
        padded = self.padded.get(index) if folds and index not in self.views else None
        if padded is not None:
            source = self.normal(padded.source, who)
            inner = grown(source.shape, padded.padding)
            own = same_padding(inner, size, stride) if mode == schema.SAME else Padding()
            padding = Padding(*(a + b for a, b in zip(padded.padding, own, strict=True)))
            fits = all(side < size[n % 2] for n, side in enumerate(padding))
            if fits and padded.value == (source.quant.zero_point if fill is None else fill):
                return source, Window(size, stride, padding)
        source = self.normal(index, who)
        return source, Window(size, stride, same_padding(source.shape, size, stride) if mode == schema.SAME else Padding())

    def clamp(self, operator: FileOperator, options: Table | None) -> Clamp:
        code = number(options, "fused_activation_function")
        name = schema.ACTIVATIONS[code] if 0 <= code < len(schema.ACTIVATIONS) else f"number {code}"
        if name not in ("NONE", "RELU", "RELU6"):
            raise TfliteError(f"{who_is(operator)} has the fused activation {name}: supported are NONE, RELU, RELU6")
        return clamp_for(name, self.output_quantization(operator))

    def constant(self, operator: FileOperator, position: int) -> np.ndarray:
        index = operator.inputs[position]
        if index < 0 or self.file.tensors[index].data is None:
            raise TfliteError(f"{who_is(operator)} needs a constant as input {position}")
        return self.file.tensors[index].constant()

    def integers(self, operator: FileOperator, position: int) -> list[int]:
        """A constant list of whole numbers."""
        values = self.constant(operator, position)
        if values.dtype.kind != "i" or values.ndim > 1:
            raise TfliteError(f"{who_is(operator)} needs a list of whole numbers as input {position}")
        return [int(value) for value in values.reshape(-1)]

    def weight_values(self, operator: FileOperator, sides: int) -> np.ndarray:
        tensor = self.file.tensors[operator.inputs[1]]
        if tensor.type != schema.INT8 or len(tensor.shape) != sides or 0 in tensor.shape:
            hint = "; uint8 weights have zero points: export the model as int8" if tensor.type == schema.UINT8 else ""
            raise TfliteError(
                f"{who_is(operator)} has weights {tensor} of {tensor.type_name} {tensor.shape}, expected int8{hint}"
            )
        return self.constant(operator, 1)

    def weights(self, operator: FileOperator, values: np.ndarray, channel_axis: int) -> Weights:
        tensor, channels, who = self.file.tensors[operator.inputs[1]], values.shape[channel_axis], who_is(operator)
        if tensor.zero_points.any() or len(tensor.zero_points) not in (0, len(tensor.scales)):
            raise TfliteError(f"{who} has weights with zero points: only symmetric weights are supported")
        if len(tensor.scales) not in (1, channels) or (len(tensor.scales) > 1 and tensor.axis != channel_axis):
            raise TfliteError(f"{who} has {len(tensor.scales)} weight scales for {channels} channels")
        bias = np.zeros(channels, np.int32)
        if len(operator.inputs) == 3 and operator.inputs[2] >= 0:
            bias = self.constant(operator, 2).astype(np.int32, copy=False)
            if self.file.tensors[operator.inputs[2]].type != schema.INT32:
                raise TfliteError(f"{who} has a bias that is not int32")
        return Weights(values, np.broadcast_to(tensor.scales, (channels,)).copy(), bias)


def plain_shape(tensor: FileTensor) -> Shape:
    """(height, width, channels) of a tensor that lies in the usual order; fewer sides stand for the last ones."""
    if not 2 <= len(tensor.shape) <= 4 or tensor.shape[0] != 1 or 0 in tensor.shape:
        raise TfliteError(f"tensor {tensor} is {tensor.shape}: expected (1, height, width, channels)")
    return Shape(*([1] * (4 - len(tensor.shape))), *tensor.shape[1:])


def plain_sides(tensor: FileTensor) -> tuple[str, ...]:
    return ("", *"hwc"[4 - len(tensor.shape) :])


def side_size(tensor: Tensor, letters: str) -> int:
    """How many values the letters stand for together."""
    return math.prod(tensor.shape["hwc".index(letter)] for letter in letters)


def who_is(operator: FileOperator) -> str:
    return f"{operator.kind} (#{operator.index})"


def arity(operator: FileOperator, least: int, most: int) -> None:
    if not least <= len(operator.inputs) <= most or any(index < 0 for index in operator.inputs[:least]):
        raise TfliteError(f"{who_is(operator)} has inputs {operator.inputs[:8]}, expected {least} to {most} tensors")


def number(options: Table | None, name: str, default: int = 0) -> int:
    return options.number(name, default) if options is not None else default


def grown(shape: Shape, padding: Padding) -> Shape:
    return Shape(shape.h + padding.top + padding.bottom, shape.w + padding.left + padding.right, shape.c)
