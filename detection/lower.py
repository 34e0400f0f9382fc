"""The only bridge from the detector to the compiler: layers and their calibration in, int8 `Graph` out. No torch.

Everything left of here is NCHW and real-valued, everything right of it NHWC and int8.
"""

from collections.abc import Mapping

import numpy as np

from detection.arch import INPUT, Arch, Layer, shapes
from detection.calibration import (
    INPUT_QUANTIZATION,
    Calibration,
    CalibrationError,
    Convolution,
    quantize_weights,
)
from firmware.compiler.graph import (
    Add,
    Conv2D,
    DepthwiseConv2D,
    Graph,
    MaxPool2D,
    Mean,
    Op,
    Params,
    ResizeNearest,
    Shape,
    Tensor,
    Weights,
    Window,
    same_padding,
)
from firmware.compiler.requantize import clamp_for
from firmware.compiler.verify import verify


def lower(arch: Arch, calibration: Calibration, height: int | None = None, width: int | None = None) -> Graph:
    """The verified int8 graph of a detector; tensors and operators are called like the layers that make them.

    The input is as large as calibration's frames unless `height` and `width` say otherwise. Raises CalibrationError
    when the calibration lacks a layer, ArchError when the size does not suit the network, GraphError when a rule is
    broken.
    """
    height, width = height or calibration.height, width or calibration.width
    known = shapes(arch.layers(), height, width)
    quantizations = dict(calibration.quantizations)
    for name in known:
        if name not in quantizations:
            raise CalibrationError(f"the calibration has no range for '{name}'; calibrate this network again")
    tensors = {name: Tensor(name, Shape(*shape), quantizations[name]) for name, shape in known.items()}
    ops = tuple(
        Op(layer.name, _params(layer, tensors, calibration.convolutions), _read(layer), layer.name)
        for layer in arch.layers()
    )
    return verify(Graph(tensors, ops, INPUT, arch.outputs))


def _read(layer: Layer) -> tuple[str, ...]:
    """Tensors that an operator reads; an upsampling's second input only says how large the result is."""
    return layer.inputs[:1] if layer.kind == "upsample" else layer.inputs


def lower_structure(arch: Arch, height: int, width: int) -> Graph:
    """The graph that a trained detector of this structure would have, with weights of 0: enough to plan its memory,
    count its work and rank candidates of a search before anything is trained."""
    channels = {INPUT: 3} | {layer.name: layer.channels for layer in arch.layers()}
    convolutions = {
        layer.name: Convolution(
            np.zeros(_weight_shape(layer, channels[layer.inputs[0]]), np.float32), np.zeros(layer.channels, np.float32)
        )
        for layer in arch.layers()
        if layer.kind in ("conv", "depthwise")
    }
    ranges = dict.fromkeys(channels, INPUT_QUANTIZATION)
    return lower(arch, Calibration(height, width, convolutions, ranges))


def _weight_shape(layer: Layer, channels_in: int) -> tuple[int, int, int, int]:
    return layer.channels, channels_in if layer.kind == "conv" else 1, layer.kernel, layer.kernel


def _params(layer: Layer, tensors: Mapping[str, Tensor], convolutions: Mapping[str, Convolution]) -> Params:
    source, out = tensors[layer.inputs[0]], tensors[layer.name]
    clamp = clamp_for("RELU6" if layer.relu6 else "NONE", out.quant)
    if layer.kind == "add":
        return Add(clamp)
    if layer.kind == "mean":
        return Mean((True, True, False))
    if layer.kind == "upsample":
        crop = (source.shape.h * layer.stride - out.shape.h, source.shape.w * layer.stride - out.shape.w)
        return ResizeNearest((layer.stride, layer.stride), crop)
    window = _window(layer, source.shape)
    if layer.kind == "maxpool":
        return MaxPool2D(window, clamp)
    weights = _weights(layer, source, out, convolutions)
    return Conv2D(window, weights, clamp) if layer.kind == "conv" else DepthwiseConv2D(window, weights, clamp)


def _window(layer: Layer, source: Shape) -> Window:
    kernel, stride = (layer.kernel, layer.kernel), (layer.stride, layer.stride)
    return Window(kernel, stride, same_padding(source, kernel, stride))


def _weights(layer: Layer, source: Tensor, out: Tensor, convolutions: Mapping[str, Convolution]) -> Weights:
    """Weights in the graph's layout: (c_out, k_h, k_w, c_in), depthwise (k_h, k_w, c_out)."""
    if layer.name not in convolutions:
        raise CalibrationError(f"the calibration has no weights for '{layer.name}'; calibrate this network again")
    convolution = convolutions[layer.name]
    expected = _weight_shape(layer, source.shape.c)
    if convolution.weight.shape != expected or convolution.bias.shape != (layer.channels,):
        raise CalibrationError(
            f"'{layer.name}' has weights {convolution.weight.shape} and bias {convolution.bias.shape}; its layer needs "
            f"{expected} and {(layer.channels,)}: the calibration is of another network"
        )
    try:
        weights = quantize_weights(convolution, source.quant.scale, out.quant.scale)
    except CalibrationError as error:
        raise CalibrationError(f"'{layer.name}' {error}") from None
    if layer.kind == "depthwise":
        values = weights.values[:, 0].transpose(1, 2, 0)
    else:
        values = weights.values.transpose(0, 2, 3, 1)
    return Weights(np.ascontiguousarray(values), weights.scales, weights.bias)
