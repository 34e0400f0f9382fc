"""The int8 network as data: tensors and operators. The judge that every graph must pass is `verify.py`.

Layout is NHWC with N = 1, so a feature map is (h, w, c). Activations are int8, per tensor asymmetric; weights int8, per
channel symmetric; biases int32. What an operator means is in `ops.py`, how it is computed in `interpreter.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np


class GraphError(ValueError):
    """A graph that breaks a rule. The message names the operator or tensor."""


class Shape(NamedTuple):
    """Extent of a feature map; batch is always 1."""

    h: int
    w: int
    c: int

    @property
    def size(self) -> int:
        return self.h * self.w * self.c


class Padding(NamedTuple):
    """Rows and columns of zero point around a feature map."""

    top: int = 0
    left: int = 0
    bottom: int = 0
    right: int = 0


def same_padding(shape: Shape, kernel: tuple[int, int], stride: tuple[int, int]) -> Padding:
    """What TensorFlow's SAME means for this input: the odd row or column goes after."""
    before, after = [], []
    for size, k, s in zip(shape, kernel, stride, strict=False):
        total = max(0, (-(-size // s) - 1) * s + k - size)
        before.append(total // 2)
        after.append(total - total // 2)
    return Padding(before[0], before[1], after[0], after[1])


@dataclass(frozen=True)
class Quantization:
    """real = scale * (q - zero_point), one scale and zero point a tensor."""

    scale: float  # exactly representable in float32
    zero_point: int  # -128..127


@dataclass(frozen=True)
class Tensor:
    """An activation: int8 (h, w, c)."""

    name: str
    shape: Shape
    quant: Quantization


@dataclass(frozen=True, eq=False)
class Weights:
    """Constants of a convolution. `scales[o]` is the weight scale of output channel o (zero point 0)."""

    values: np.ndarray  # int8: Conv2D (c_out, k_h, k_w, c_in); DepthwiseConv2D (k_h, k_w, c_out)
    scales: np.ndarray  # float32 (c_out,)
    bias: np.ndarray  # int32 (c_out,), scale = input scale * scales


@dataclass(frozen=True)
class Window:
    """Geometry that convolutions and pooling share."""

    kernel: tuple[int, int]  # (h, w)
    stride: tuple[int, int]
    padding: Padding


@dataclass(frozen=True)
class Clamp:
    """Fused activation as quantised limits, inclusive; -128..127 is none. `name`: "NONE", "RELU" or "RELU6"."""

    name: str = "NONE"
    low: int = -128
    high: int = 127


@dataclass(frozen=True)
class Conv2D:
    window: Window
    weights: Weights
    clamp: Clamp


@dataclass(frozen=True)
class DepthwiseConv2D:
    """Channel o reads input channel o // multiplier."""

    window: Window
    weights: Weights
    clamp: Clamp
    multiplier: int = 1


@dataclass(frozen=True)
class FullyConnected:
    """Every output channel reads the whole feature map; the output is (1, 1, c_out).

    Weights are those of a convolution whose kernel is as large as the map: (c_out, h, w, c_in).
    """

    weights: Weights
    clamp: Clamp


@dataclass(frozen=True)
class ChannelOperand:
    """A constant for each channel as the other input of an Add, Sub or Mul: int8 `values` that stand for real numbers."""

    values: tuple[int, ...]  # (c,)
    quant: Quantization
    first: bool = False  # constant - x instead of x - constant


@dataclass(frozen=True)
class Add:
    """Elementwise, like Sub and Mul: where one input has 1 row, column or channel, that one serves all.

    With an `operand` there is one input, and the other is a constant for each channel.
    """

    clamp: Clamp
    operand: ChannelOperand | None = None


@dataclass(frozen=True)
class Sub:
    clamp: Clamp
    operand: ChannelOperand | None = None


@dataclass(frozen=True)
class Mul:
    clamp: Clamp
    operand: ChannelOperand | None = None


@dataclass(frozen=True)
class MaxPool2D:
    """Input and output share one Quantization."""

    window: Window
    clamp: Clamp


@dataclass(frozen=True)
class AveragePool2D:
    """The average of what lies inside of the picture. Input and output share one Quantization."""

    window: Window
    clamp: Clamp


@dataclass(frozen=True)
class Mean:
    """The mean over all rows, columns or channels, or several of them; (h, w, c) becomes 1 long there."""

    axes: tuple[bool, bool, bool]  # rows, columns, channels


@dataclass(frozen=True)
class Softmax:
    """Over the channels of each pixel."""

    beta: float = 1.0


@dataclass(frozen=True)
class Operand:
    """A constant as the other input of an Add, Sub or Mul: int8 `value` that stands for a real number."""

    value: int
    quant: Quantization
    first: bool = False  # constant - x instead of x - constant


@dataclass(frozen=True)
class Lookup:
    """A function of each value alone: 256 answers, made by `tables.lookup_table`.

    `function` is "RELU", "RELU6", "LEAKY_RELU" (with `alpha`), "HARD_SWISH", "LOGISTIC", "TANH", "QUANTIZE" (to another scale
    and zero point), or "ADD", "SUB", "MUL" with a constant `operand`.
    """

    function: str
    alpha: float = 0.0
    operand: Operand | None = None
    clamp: Clamp = Clamp()


@dataclass(frozen=True)
class ResizeNearest:
    """Nearest-neighbour upsampling by integer factors (h, w); input and output share one Quantization.

    `crop` rows and columns are left out at the bottom and right, fewer than the factor: 8 rows become 16, or 15 to meet a
    finer map of an odd height.
    """

    factor: tuple[int, int]
    crop: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Concat:
    """Rows, columns or channels of the inputs one behind the other; all share one Quantization."""

    axis: int = 2  # 0 rows, 1 columns, 2 channels


@dataclass(frozen=True)
class Slice:
    """The part of a feature map that starts at `start` (row, column, channel) and has `shape`."""

    start: tuple[int, int, int]
    shape: Shape


@dataclass(frozen=True)
class Pad:
    """Rows and columns of one value around a feature map; what convolutions and maxima can pad by themselves needs none."""

    padding: Padding
    value: int


@dataclass(frozen=True)
class Reshape:
    """The same bytes (row by row, channels innermost) as another (h, w, c)."""

    shape: Shape


@dataclass(frozen=True)
class Transpose:
    """Rows, columns and channels in another order: side `n` of the output is side `order[n]` of the input."""

    order: tuple[int, int, int]


Params = (
    Conv2D
    | DepthwiseConv2D
    | FullyConnected
    | Add
    | Sub
    | Mul
    | MaxPool2D
    | AveragePool2D
    | Mean
    | Softmax
    | Lookup
    | ResizeNearest
    | Concat
    | Slice
    | Pad
    | Reshape
    | Transpose
)


@dataclass(frozen=True)
class Op:
    """One operator. `output` is made by no other one."""

    name: str
    params: Params
    inputs: tuple[str, ...]  # tensor names
    output: str

    @property
    def kind(self) -> str:
        return type(self.params).__name__


def operand_quantizations(tensors: Mapping[str, Tensor], op: Op) -> tuple[Quantization, Quantization]:
    """Quantisation of the first and the second operand of an Add, Sub or Mul, one of which may be constant."""
    quants = [tensors[name].quant for name in op.inputs]
    if op.params.operand is not None:
        quants.insert(0 if op.params.operand.first else 1, op.params.operand.quant)
    return quants[0], quants[1]


@dataclass(frozen=True)
class Graph:
    """A network in topological order: every operator reads the input or what an earlier operator made."""

    tensors: Mapping[str, Tensor]
    ops: tuple[Op, ...]
    input: str
    outputs: tuple[str, ...]
    input_is_uint8: bool = False  # the file's own input type; inside it is int8 all the same (uint8 - 128)
    name: str = field(default="model")

    def producer(self, tensor: str) -> int | None:
        """Index of the operator that makes `tensor`, None for the network's input."""
        return next((i for i, op in enumerate(self.ops) if op.output == tensor), None)
