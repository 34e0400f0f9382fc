"""Random int8 networks for tests: every operator, every awkward size, values that saturate now and then.

`random_graph(rng)` for loops with a printed seed, `graphs()` for hypothesis, `detector_graph(rng)` for a small pyramid
detector with the project's output names.
"""

from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from firmware.compiler.graph import (
    Add,
    AveragePool2D,
    ChannelOperand,
    Clamp,
    Concat,
    Conv2D,
    DepthwiseConv2D,
    FullyConnected,
    Graph,
    Lookup,
    MaxPool2D,
    Mean,
    Mul,
    Op,
    Operand,
    Pad,
    Padding,
    Params,
    Quantization,
    Reshape,
    ResizeNearest,
    Shape,
    Slice,
    Softmax,
    Sub,
    Tensor,
    Transpose,
    Weights,
    Window,
)
from firmware.compiler.ops import output_shape
from firmware.compiler.requantize import clamp_for
from firmware.compiler.tables import FUNCTIONS, OUTPUT_QUANTIZATION, PAIRS, SOFTMAX_QUANTIZATION
from firmware.compiler.verify import verify

SPREAD = 50.0  # standard deviation, in steps, that activations are scaled to


class Builder:
    """Grows a Graph operator by operator; methods return the name of what they made."""

    def __init__(self, rng: np.random.Generator, shape: Shape, quant: Quantization | None = None) -> None:
        self.rng = rng
        self.input = "image"
        self.tensors = {"image": Tensor("image", shape, quant or Quantization(1 / 128, 0))}
        self.ops: list[Op] = []

    def shape(self, name: str) -> Shape:
        return self.tensors[name].shape

    def quantization(self, scale: float | None = None) -> Quantization:
        scale = scale if scale is not None else float(self.rng.uniform(0.01, 0.1))
        centre = int(self.rng.integers(-128, 128)) if self.rng.random() < 0.3 else int(self.rng.integers(-20, 20))
        return Quantization(float(np.float32(scale)), centre)

    def _append(self, params: Params, inputs: list[str], quant: Quantization, name: str | None) -> str:
        name = name or f"{type(params).__name__.lower()}{len(self.ops)}"
        shape = output_shape(params, [self.shape(i) for i in inputs])
        self.tensors[name] = Tensor(name, shape, quant)
        self.ops.append(Op(name, params, tuple(inputs), name))
        return name

    def _weights(self, shape: tuple[int, ...], channel_axis: int, taps: int, source: Quantization):
        """Random weights and the output scale for which most outputs fit into int8."""
        channels = shape[channel_axis]
        values = np.clip(np.rint(self.rng.normal(0, 45, shape)), -127, 127).astype(np.int8)
        if self.rng.random() < 0.1:
            values = self.rng.choice(np.array([-128, 127], np.int8), shape)  # saturates
        typical = SPREAD * 45 * np.sqrt(taps)
        bias = np.rint(self.rng.normal(0, typical / 2, channels)).astype(np.int32)
        scales = (self.rng.uniform(0.5, 2.0, channels) * self.rng.uniform(0.001, 0.02)).astype(np.float32)
        scale = source.scale * float(np.median(scales)) * typical / SPREAD
        return Weights(values, scales, bias), scale

    def activation(self) -> str:
        return str(self.rng.choice(["NONE", "NONE", "RELU", "RELU6"]))

    def conv(self, source: str, channels: int, window: Window, name: str | None = None, clamp: str | None = None) -> str:
        tensor = self.tensors[source]
        taps = window.kernel[0] * window.kernel[1] * tensor.shape.c
        weights, scale = self._weights((channels, *window.kernel, tensor.shape.c), 0, taps, tensor.quant)
        quant = self.quantization(scale)
        return self._append(Conv2D(window, weights, clamp_for(clamp or self.activation(), quant)), [source], quant, name)

    def depthwise(self, source: str, window: Window, multiplier: int = 1, name: str | None = None) -> str:
        tensor = self.tensors[source]
        shape = (*window.kernel, tensor.shape.c * multiplier)
        weights, scale = self._weights(shape, 2, window.kernel[0] * window.kernel[1], tensor.quant)
        quant = self.quantization(scale)
        clamp = clamp_for(self.activation(), quant)
        return self._append(DepthwiseConv2D(window, weights, clamp, multiplier), [source], quant, name)

    def add(self, first: str, second: str, name: str | None = None) -> str:
        scales = [self.tensors[i].quant.scale for i in (first, second)]
        quant = self.quantization(float(np.hypot(*scales)) * float(self.rng.uniform(0.3, 1.5)))
        return self._append(Add(clamp_for(self.activation(), quant)), [first, second], quant, name)

    def pool(self, source: str, window: Window, name: str | None = None) -> str:
        quant = self.tensors[source].quant
        return self._append(MaxPool2D(window, clamp_for(self.activation(), quant)), [source], quant, name)

    def upsample(
        self, source: str, factor: tuple[int, int], name: str | None = None, crop: tuple[int, int] = (0, 0)
    ) -> str:
        return self._append(ResizeNearest(factor, crop), [source], self.tensors[source].quant, name)

    def fully_connected(self, source: str, channels: int) -> str:
        tensor = self.tensors[source]
        weights, scale = self._weights((channels, *tensor.shape), 0, tensor.shape.size, tensor.quant)
        if self.rng.random() < 0.6:  # one scale for all, as most converters write
            weights.scales[:] = weights.scales[0]
        quant = self.quantization(scale)
        return self._append(FullyConnected(weights, clamp_for(self.activation(), quant)), [source], quant, None)

    def pair(self, first: str, second: str, kind: type = Mul, name: str | None = None) -> str:
        """Sum, difference or product of maps that may be broadcast."""
        a, b = (self.tensors[i].quant.scale for i in (first, second))
        scale = a * b * SPREAD if kind is Mul else float(np.hypot(a, b)) * float(self.rng.uniform(0.3, 1.5))
        quant = self.quantization(scale)
        return self._append(kind(clamp_for(self.activation(), quant)), [first, second], quant, name)

    def average(self, source: str, window: Window) -> str:
        quant = self.tensors[source].quant
        return self._append(AveragePool2D(window, clamp_for(self.activation(), quant)), [source], quant, None)

    def mean(self, source: str, axes: tuple[bool, bool, bool] = (True, True, False)) -> str:
        quant = self.tensors[source].quant
        if self.rng.random() < 0.5:
            quant = self.quantization(quant.scale * float(self.rng.uniform(0.3, 1.1)))
        return self._append(Mean(axes), [source], quant, None)

    def softmax(self, source: str) -> str:
        beta = float(self.rng.choice([1.0, 1.0, 0.5, 2.0]))
        return self._append(Softmax(beta), [source], SOFTMAX_QUANTIZATION, None)

    def lookup(self, source: str, function: str) -> str:
        before = self.tensors[source].quant
        after = OUTPUT_QUANTIZATION.get(function) or self.quantization(before.scale * float(self.rng.uniform(0.6, 1.5)))
        after = before if function == "RELU6" else after
        alpha = float(np.float32(self.rng.uniform(0.01, 0.5))) if function == "LEAKY_RELU" else 0.0
        return self._append(Lookup(function, alpha), [source], after, None)

    def constant(self, source: str, function: str) -> str:
        """The source and one constant."""
        operand = Operand(int(self.rng.integers(-128, 128)), self.quantization(), bool(self.rng.integers(2)))
        before = self.tensors[source].quant.scale
        factor = operand.quant.scale * SPREAD if function == "MUL" else float(self.rng.uniform(0.5, 1.5))
        after = self.quantization(before * factor)
        params = Lookup(function, operand=operand, clamp=clamp_for(self.activation(), after))
        return self._append(params, [source], after, None)

    def channel_constant(self, source: str, kind: type) -> str:
        """The source and a constant for each channel; of one channel it is a function of one byte, as the reader sees it."""
        before = self.tensors[source]
        if before.shape.c == 1:
            return self.constant(source, kind.__name__.upper())
        values = tuple(self.rng.integers(-128, 128, before.shape.c).tolist())
        operand = ChannelOperand(values, self.quantization(), bool(self.rng.integers(2)))
        factor = operand.quant.scale * SPREAD if kind is Mul else float(self.rng.uniform(0.5, 1.5))
        after = self.quantization(before.quant.scale * factor)
        return self._append(kind(clamp_for(self.activation(), after), operand), [source], after, None)

    def concat(self, sources: list[str], axis: int = 2) -> str:
        return self._append(Concat(axis), sources, self.tensors[sources[0]].quant, None)

    def transpose(self, source: str) -> str:
        order = [(0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)][int(self.rng.integers(5))]
        return self._append(Transpose(order), [source], self.tensors[source].quant, None)

    def slice(self, source: str) -> str:
        size = self.shape(source)
        start = [int(self.rng.integers(0, n)) if self.rng.random() < 0.6 else 0 for n in size]
        taken = [int(self.rng.integers(1, n - a + 1)) for n, a in zip(size, start, strict=True)]
        return self._append(Slice(tuple(start), Shape(*taken)), [source], self.tensors[source].quant, None)

    def pad(self, source: str) -> str:
        """With a value that no convolution and no maximum would pad with by itself."""
        quant = self.tensors[source].quant
        value = int(self.rng.choice([v for v in (-100, 17, 127) if v != quant.zero_point]))
        padding = Padding(*(int(n) for n in self.rng.integers(0, 4, 4)))
        return self._append(Pad(padding, value), [source], quant, None)

    def reshape(self, source: str) -> str:
        h, w, c = self.shape(source)
        shape = [Shape(1, 1, h * w * c), Shape(h, 1, w * c), Shape(1, h * w, c), Shape(w, h, c), Shape(c, w, h)]
        shape = [s for s in shape if s != (h, w, c)]
        if not shape:
            return source
        return self._append(Reshape(shape[int(self.rng.integers(len(shape)))]), [source], self.tensors[source].quant, None)

    def kind(self, name: str) -> str:
        """Kind of the operator that makes a tensor."""
        return next((op.kind for op in self.ops if op.output == name), "input")

    def graph(self, outputs: tuple[str, ...], **fields) -> Graph:
        return verify(Graph(dict(self.tensors), tuple(self.ops), self.input, outputs, **fields))


def same_padding(size: tuple[int, int], kernel: tuple[int, int], stride: tuple[int, int]) -> Padding:
    """TensorFlow's SAME, written a second time on purpose."""
    total = [max(0, (-(-n // s) - 1) * s + k - n) for n, k, s in zip(size, kernel, stride, strict=True)]
    return Padding(total[0] // 2, total[1] // 2, total[0] - total[0] // 2, total[1] - total[1] // 2)


def same_window(shape: Shape, kernel: int, stride: int = 1) -> Window:
    pair = (kernel, kernel), (stride, stride)
    return Window(*pair, same_padding((shape.h, shape.w), *pair))


def random_window(rng: np.random.Generator, shape: Shape, stride: tuple[int, int] | None = None) -> Window:
    """Kernels 1, 3, 5, 7, mixed strides, padding SAME, mirrored SAME (PyTorch's), none or anything."""
    kernel = (int(rng.choice([1, 3, 3, 5, 7])),) * 2
    if rng.random() < 0.2:
        kernel = (int(rng.choice([1, 2, 3, 5])), int(rng.choice([1, 2, 3, 7])))
    if stride is None:
        stride = (int(rng.integers(1, 3)),) * 2 if rng.random() < 0.8 else (int(rng.integers(1, 3)), int(rng.integers(1, 4)))
    style = rng.choice(["same", "same", "mirror", "valid", "any"])
    padding = same_padding((shape.h, shape.w), kernel, stride)
    if style == "mirror":
        padding = Padding(padding.bottom, padding.right, padding.top, padding.left)
    if style == "any":
        padding = Padding(*(int(rng.integers(0, kernel[side % 2])) for side in range(4)))
    if style == "valid":
        padding = Padding()
    window = Window(kernel, stride, padding)
    fits = all(shape[d] + padding[d] + padding[d + 2] >= kernel[d] for d in (0, 1))
    return window if fits else Window(kernel, stride, same_padding((shape.h, shape.w), kernel, stride))


def random_graph(rng: np.random.Generator, max_ops: int = 10, max_size: int = 24, max_channels: int = 12) -> Graph:
    """A verified network of at most max_ops operators (+ 2 for pyramid adds), sides up to max_size, any operator."""
    height, width = (int(rng.integers(1, max_size + 1)) for _ in range(2))
    channels = int(rng.choice([1, 2, 3, 3, 3, 4]))
    quant = None if rng.random() < 0.5 else Quantization(float(np.float32(rng.uniform(0.005, 0.1))), int(rng.integers(-128, 128)))
    b = Builder(rng, Shape(height, width, channels), quant)
    for _ in range(int(rng.integers(1, max_ops + 1))):
        _random_step(b, max_size, max_channels)
    if not b.ops:  # an upsampling would have grown too large
        b.conv(b.input, 2, random_window(rng, b.shape(b.input)))
    made = [op.output for op in b.ops]
    read = {name for op in b.ops for name in op.inputs}
    dead_ends = [name for name in made if name not in read]
    extra = [name for name in made if name in read and rng.random() < 0.15]
    outputs = [name for name in made if name in {*dead_ends, *extra}]
    rng.shuffle(outputs)
    return b.graph(tuple(outputs), input_is_uint8=bool(rng.random() < 0.15))


def _random_step(b: Builder, max_size: int, max_channels: int) -> None:
    rng = b.rng
    names = list(b.tensors)
    # mostly the newest tensor, sometimes an older one: branches and several outputs
    source = names[-1] if rng.random() < 0.75 else names[int(rng.integers(len(names)))]
    shape = b.shape(source)
    if rng.random() < 0.35:
        _rarer_step(b, source, max_size, max_channels)
        return
    kind = rng.choice(["conv", "conv", "point", "depthwise", "depthwise", "add", "residual", "pool", "upsample"])
    if kind == "conv":
        b.conv(source, int(rng.integers(1, max_channels + 1)), random_window(rng, shape))
    elif kind == "point":
        b.conv(source, int(rng.integers(1, max_channels + 1)), Window((1, 1), (1, 1), Padding()))
    elif kind == "depthwise":
        multiplier = int(rng.integers(2, 4)) if rng.random() < 0.25 and shape.c * 3 <= max_channels else 1
        b.depthwise(source, random_window(rng, shape), multiplier)
    elif kind == "add":
        partners = [n for n in names if b.shape(n) == shape]
        b.add(source, partners[int(rng.integers(len(partners)))])
    elif kind == "residual":
        middle = b.depthwise(source, same_window(shape, int(rng.choice([3, 5, 7]))))
        b.add(source, b.conv(middle, shape.c, same_window(shape, 1)))
    elif kind == "pool":
        b.pool(source, random_window(rng, shape))
    elif kind == "upsample":
        factor = (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
        if shape.h * factor[0] <= 2 * max_size and shape.w * factor[1] <= 2 * max_size:
            crop = tuple(int(f > 1 and rng.random() < 0.4) for f in factor)
            _pyramid_add(b, b.upsample(source, factor, crop=crop))


# What reads the bytes of a file behind a TRANSPOSE as they lay before it: there, read(write(graph)) is another graph.
LOOKS_THROUGH = ("full", "mean", "softmax", "lookup", "constant", "reshape", "transpose")


def _rarer_step(b: Builder, source: str, max_size: int, max_channels: int) -> None:
    rng, shape = b.rng, b.shape(source)
    kind = rng.choice(
        ["full", "pair", "excite", "average", "mean", "softmax", "lookup", "constant", "channel constant", "concat", "slice",
         "pad", "reshape", "transpose"]
    )  # fmt: skip
    if b.kind(source) == "Transpose" and kind in LOOKS_THROUGH:
        return
    if kind == "full" and max(shape[:2]) <= 12 and b.kind(source) != "Reshape":
        b.fully_connected(source, int(rng.integers(1, max_channels + 1)))
    elif kind == "pair":
        partners = [n for n in b.tensors if all(x == y or min(x, y) == 1 for x, y in zip(b.shape(n), shape, strict=True))]
        pair = [source, partners[int(rng.integers(len(partners)))]]
        sides = np.max([b.shape(n) for n in pair], axis=0)
        if sides[2] <= max_channels:
            rng.shuffle(pair)
            b.pair(*pair, [Add, Sub, Mul][int(rng.integers(3))])
    elif kind == "excite":
        gate = b.conv(b.mean(source), shape.c, Window((1, 1), (1, 1), Padding()))
        b.pair(source, b.lookup(gate, "LOGISTIC") if b.tensors[gate].quant.scale <= 8 else gate, Mul)
    elif kind == "average":
        window = random_window(rng, shape)
        usual = (Padding(), same_padding((shape.h, shape.w), window.kernel, window.stride))
        b.average(source, window if window.padding in usual else replace(window, padding=usual[1]))
    elif kind == "mean":
        axes = rng.random(3) < 0.5
        b.mean(source, tuple(axes.tolist()) if axes.any() else (True, True, False))
    elif kind == "softmax" and b.tensors[source].quant.scale < 16:  # with a beta of 2 still below the limit of 32
        b.softmax(source)
    elif kind == "lookup":
        known = [name for name in FUNCTIONS if name not in OUTPUT_QUANTIZATION or b.tensors[source].quant.scale <= 8]
        b.lookup(source, str(rng.choice(known)))
    elif kind == "constant":
        b.constant(source, str(rng.choice(list(PAIRS))))
    elif kind == "channel constant":
        b.channel_constant(source, [Add, Sub, Mul][int(rng.integers(3))])
    elif kind == "concat":
        quant, axis = b.tensors[source].quant, int(rng.choice([0, 1, 2, 2]))
        others = [dim for dim in range(3) if dim != axis]
        alike = [n for n, t in b.tensors.items() if t.quant == quant and all(t.shape[dim] == shape[dim] for dim in others)]
        count = int(rng.integers(2, 5))
        names = [source, *(alike[int(rng.integers(len(alike)))] for _ in range(count - 1))]
        if sum(b.shape(n)[axis] for n in names) <= 2 * (max_channels if axis == 2 else max_size):
            b.concat(names, axis)
    elif kind == "slice":
        b.slice(source)
    elif kind == "pad" and b.kind(source) != "Pad" and max(shape[:2]) + 6 <= 2 * max_size:
        b.pad(source)
    elif kind == "reshape" and b.kind(source) != "Reshape" and max(shape[0] * shape[1], shape.size // shape.h) <= 2 * max_size:
        b.reshape(source)
    elif kind == "transpose" and b.kind(source) != "Reshape" and max(shape[:2]) <= 2 * max_channels and min(shape) > 1:
        b.transpose(source)


def _pyramid_add(b: Builder, upsampled: str) -> None:
    """Add the upsampled map to a lateral convolution of an older map of the same height and width, where there is one."""
    shape = b.shape(upsampled)
    laterals = [n for n, t in b.tensors.items() if (t.shape.h, t.shape.w) == (shape.h, shape.w) and n != upsampled]
    if laterals:
        lateral = laterals[int(b.rng.integers(len(laterals)))]
        b.add(b.conv(lateral, shape.c, same_window(shape, 1)), upsampled)


def random_image(rng: np.random.Generator, graph: Graph) -> np.ndarray:
    """int8 (h, w, c) noise over the whole range, or a smooth picture."""
    shape = graph.tensors[graph.input].shape
    if rng.random() < 0.5:
        return rng.integers(-128, 128, shape, dtype=np.int8)
    ramp = np.add.outer(np.arange(shape.h) * rng.normal(0, 8), np.arange(shape.w) * rng.normal(0, 8))
    picture = ramp[..., None] + rng.normal(0, 40, shape.c) + rng.normal(0, 5, shape)
    return np.clip(np.rint(picture), -128, 127).astype(np.int8)


@st.composite
def graphs(draw: st.DrawFn, max_ops: int = 8, max_size: int = 20) -> Graph:
    """A random_graph; shrinks towards few operators and small pictures."""
    ops, size = draw(st.integers(1, max_ops)), draw(st.integers(1, max_size))
    return random_graph(np.random.default_rng(draw(st.integers(0, 2**32 - 1))), ops, size)


def detector_graph(
    rng: np.random.Generator,
    height: int = 64,
    width: int = 64,
    strides: tuple[int, ...] = (8, 16),
    classes: int = 1,
    width_multiplier: float = 1.0,
) -> Graph:
    """A small pyramid detector: inverted residuals down to max(strides), top-down adds, heads named as in the project.

    `strides` are consecutive powers of two from 4 up; height and width are multiples of the largest. Outputs per level,
    ascending: objectness, [class], box.
    """
    b = Builder(rng, Shape(height, width, 3))
    channels = {s: max(4, int(8 * width_multiplier * (1 + i))) for i, s in enumerate((2, 4, 8, 16, 32, 64))}
    top = b.conv("image", channels[2], same_window(b.shape("image"), 3, 2), "stem", "RELU6")
    features, stride = {}, 2
    while stride < max(strides):
        stride *= 2
        top = _inverted_residual(b, top, channels[stride], 2, f"down{stride}")
        top = b.add(top, _inverted_residual(b, top, channels[stride], 1, f"block{stride}"), f"stage{stride}")
        features[stride] = top
    lateral_channels, above = channels[min(strides)], None
    for stride in sorted(strides, reverse=True):
        shape = b.shape(features[stride])
        lateral = b.conv(features[stride], lateral_channels, same_window(shape, 1), f"lateral{stride}")
        if above:  # an odd height or width leaves a row or column of the coarser map's double over
            crop = (2 * b.shape(above).h - shape.h, 2 * b.shape(above).w - shape.w)
            above = b.add(lateral, b.upsample(above, (2, 2), f"up{stride}", crop), f"merge{stride}")
        else:
            above = lateral
        features[stride] = above
    outputs = []
    for stride in sorted(strides):
        tower = b.depthwise(features[stride], same_window(b.shape(features[stride]), 3), name=f"tower{stride}")
        point = same_window(b.shape(tower), 1)
        heads = [("objectness", 1), ("class", classes), ("box", 4)]
        for head, count in heads:
            if head != "class" or classes > 1:
                outputs.append(_head(b, tower, count, point, f"head{stride}/{head}"))
    return b.graph(tuple(outputs), name="detector")


def _head(b: Builder, source: str, channels: int, window: Window, name: str) -> str:
    """A linear map whose values lie in about -5..5 (objectness, class) or -1..3 (box), as trained heads do."""
    name = b.conv(source, channels, window, name, "NONE")
    scale, zero_point = (0.03, -10) if name.endswith("box") else (0.06, 20)
    made = b.tensors[name].quant
    op, weights = b.ops[-1], b.ops[-1].params.weights
    factor = float(np.float32(scale)) / made.scale
    scaled = Weights(weights.values, (weights.scales * factor).astype(np.float32), weights.bias)
    quant = Quantization(float(np.float32(scale)), zero_point)
    b.tensors[name] = replace(b.tensors[name], quant=quant)
    b.ops[-1] = replace(op, params=replace(op.params, weights=scaled, clamp=Clamp()))
    return name


def _inverted_residual(b: Builder, source: str, channels: int, stride: int, name: str) -> str:
    expanded = b.conv(source, 2 * b.shape(source).c, same_window(b.shape(source), 1), f"{name}/expand", "RELU6")
    middle = b.depthwise(expanded, same_window(b.shape(expanded), 3, stride), name=f"{name}/depthwise")
    return b.conv(middle, channels, same_window(b.shape(middle), 1), f"{name}/project", "NONE")
