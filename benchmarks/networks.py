"""Published backbones as int8 graphs with weights of zero: enough to plan their memory and count their work.

Inverted residuals are (expansion, kernel, channels, stride, repeats); padding is TF-SAME; classifiers are left out, for
they need less memory than what comes before them.
"""

from dataclasses import dataclass, field

import numpy as np

from firmware.compiler.graph import (
    Add,
    Clamp,
    Conv2D,
    DepthwiseConv2D,
    Graph,
    Op,
    Quantization,
    Shape,
    Tensor,
    Weights,
    Window,
    same_padding,
)
from firmware.compiler.verify import verify

QUANT = Quantization(1.0 / 64, 0)


@dataclass
class Builder:
    """Appends operators and hands back the name of what they make."""

    size: tuple[int, int]
    tensors: dict[str, Tensor] = field(default_factory=dict)
    ops: list[Op] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tensors["input"] = Tensor("input", Shape(*self.size, 3), QUANT)

    def conv(self, source: str, channels: int, kernel: int = 1, stride: int = 1) -> str:
        shape = self.tensors[source].shape
        weights = Weights(np.zeros((channels, kernel, kernel, shape.c), np.int8), *_scales(channels))
        return self._append(Conv2D(_window(shape, kernel, stride), weights, Clamp()), (source,), channels)

    def depthwise(self, source: str, kernel: int, stride: int) -> str:
        shape = self.tensors[source].shape
        weights = Weights(np.zeros((kernel, kernel, shape.c), np.int8), *_scales(shape.c))
        return self._append(DepthwiseConv2D(_window(shape, kernel, stride), weights, Clamp()), (source,), shape.c)

    def block(self, source: str, expand: int, kernel: int, channels: int, stride: int) -> str:
        """Inverted residual (MobileNetV2); kernel 1 has no depthwise convolution."""
        before = self.tensors[source].shape.c
        last = source if expand == 1 else self.conv(source, before * expand)
        if kernel > 1:
            last = self.depthwise(last, kernel, stride)
        last = self.conv(last, channels)
        return self._append(Add(Clamp()), (source, last), channels) if stride == 1 and before == channels else last

    def graph(self, name: str) -> Graph:
        return verify(Graph(self.tensors, tuple(self.ops), "input", (self.ops[-1].output,), name=name))

    def _append(self, params, inputs: tuple[str, ...], channels: int) -> str:
        name, shape = f"op{len(self.ops)}", self.tensors[inputs[0]].shape
        stride = params.window.stride[0] if hasattr(params, "window") else 1
        self.tensors[name] = Tensor(name, Shape(-(-shape.h // stride), -(-shape.w // stride), channels), QUANT)
        self.ops.append(Op(name, params, inputs, name))
        return name


def _scales(channels: int) -> tuple[np.ndarray, np.ndarray]:
    return np.full(channels, 1 / 128, np.float32), np.zeros(channels, np.int32)


def _window(shape: Shape, kernel: int, stride: int) -> Window:
    return Window((kernel, kernel), (stride, stride), same_padding(shape, (kernel, kernel), (stride, stride)))


MOBILENET_V2 = (
    (1, 3, 16, 1, 1), (6, 3, 24, 2, 2), (6, 3, 32, 2, 3),
    (6, 3, 64, 2, 4), (6, 3, 96, 1, 3), (6, 3, 160, 2, 3), (6, 3, 320, 1, 1),
)  # fmt: skip
# Receptive field redistributed: no stride-1 spatial kernel before stride 8, two blocks more at stride 16.
MOBILENET_V2_RD = (
    (1, 1, 16, 1, 1), (6, 3, 24, 2, 1), (6, 3, 32, 2, 3),
    (6, 3, 64, 2, 6), (6, 3, 96, 1, 3), (6, 3, 160, 2, 3), (6, 3, 320, 1, 1),
)  # fmt: skip
MNASNET_B1 = (
    (1, 3, 16, 1, 1), (3, 3, 24, 2, 3), (3, 5, 40, 2, 3),
    (6, 5, 80, 2, 3), (6, 3, 96, 1, 2), (6, 5, 192, 2, 4), (6, 3, 320, 1, 1),
)  # fmt: skip


# FBNet-A (arXiv 1812.03443, MobileVision's definition): blocks that are skipped left out, pointwise convolutions in two groups
# counted as whole ones.
FBNET_A = (
    (3, 3, 24, 2, 1), (1, 3, 24, 1, 1),
    (6, 5, 32, 2, 1), (3, 3, 32, 1, 1), (1, 5, 32, 1, 1), (3, 3, 32, 1, 1),
    (6, 5, 64, 2, 1), (3, 5, 64, 1, 1), (1, 5, 64, 1, 1), (6, 5, 64, 1, 1),
    (6, 3, 112, 1, 1), (1, 5, 112, 1, 2), (1, 3, 112, 1, 1),
    (6, 5, 184, 2, 2), (3, 5, 184, 1, 1), (6, 5, 184, 1, 1), (6, 5, 352, 1, 1),
)  # fmt: skip
# MCUNet for ImageNet in 320 kB ("in3"): large kernels early, which is what patches and fused chains pay for.
MCUNET_IN3 = (
    (1, 3, 8, 1, 1), (3, 7, 16, 2, 1), (5, 3, 16, 1, 1), (5, 7, 16, 1, 1), (4, 5, 16, 1, 1),
    (5, 5, 24, 2, 3), (5, 3, 40, 2, 1), (6, 7, 40, 1, 1), (4, 5, 40, 1, 1),
    (5, 5, 48, 1, 1), (5, 7, 48, 1, 1), (5, 3, 48, 1, 1),
    (6, 3, 96, 2, 1), (5, 7, 96, 1, 1), (4, 3, 96, 1, 1), (5, 7, 160, 1, 1),
)  # fmt: skip


def backbone(name: str, blocks: tuple, size: int, width: float = 1.0, last: int | None = 1280, stem: int = 32) -> Graph:
    """Stem 3x3 stride 2, inverted residuals, a last 1x1 convolution; channels rounded to eights."""
    b = Builder((size, size))
    current = b.conv("input", _divisible(stem * width), 3, 2)
    for expand, kernel, channels, stride, repeats in blocks:
        for n in range(repeats):
            current = b.block(current, expand, kernel, _divisible(channels * width), stride if n == 0 else 1)
    if last:
        current = b.conv(current, last)
    return b.graph(name)


def _divisible(channels: float) -> int:
    """MobileNet's rule: the nearest multiple of 8, never more than 10 % less."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded
