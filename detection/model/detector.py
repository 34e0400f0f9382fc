"""The module: an interpreter of `Arch.layers()`. One source for training, lowering, counting and quantisation."""

import math
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from detection.arch import INPUT, Arch, Layer

PRIOR = 0.01  # objectness of every cell before training: focal loss's initialisation
START_DISTANCE = 1.5  # of a box side from the cell's centre before training, in strides


class LevelMaps(NamedTuple):
    """Raw head maps of one level, NCHW."""

    stride: int
    objectness: Tensor  # (N, 1, h, w)
    classes: Tensor | None  # (N, K, h, w), None when K == 1
    box: Tensor  # (N, 4, h, w): t_l, t_t, t_r, t_b


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's SAME along one axis: cells before and after, so that the output has ceil(size / stride) cells."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def pad_same(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Zeros around (N, C, H, W) for a convolution without padding of its own."""
    top, bottom = same_padding(x.shape[2], kernel, stride)
    left, right = same_padding(x.shape[3], kernel, stride)
    return F.pad(x, (left, right, top, bottom)) if top + bottom + left + right else x


class ConvUnit(nn.Module):
    """Convolution with SAME padding [+ batch norm] [+ ReLU6]. `conv` and `norm` are what lowering folds."""

    def __init__(self, layer: Layer, in_channels: int) -> None:
        super().__init__()
        self.kernel, self.stride, self.relu6 = layer.kernel, layer.stride, layer.relu6
        groups = layer.channels if layer.kind == "depthwise" else 1
        own = layer.kernel // 2 if layer.stride == 1 else 0  # at stride 1 the symmetric padding is SAME, and faster
        self.conv = nn.Conv2d(
            in_channels, layer.channels, layer.kernel, layer.stride, own, groups=groups, bias=not layer.batch_norm
        )
        self.norm = nn.BatchNorm2d(layer.channels, eps=1e-3, momentum=0.03) if layer.batch_norm else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x if self.stride == 1 else pad_same(x, self.kernel, self.stride))
        if self.norm is not None:
            x = self.norm(x)
        return F.relu6(x, inplace=True) if self.relu6 else x


class Detector(nn.Module):
    """Arch -> module. Input float (N, 3, H, W), (x - 128) / 128; output one NCHW tensor a name of `arch.outputs`."""

    def __init__(self, arch: Arch) -> None:
        super().__init__()
        self.arch = arch
        self.layers = arch.layers()
        self._last_use = _last_uses(self.layers, arch.outputs)
        channels = {INPUT: 3}
        self.convs = nn.ModuleDict()
        for layer in self.layers:
            channels[layer.name] = layer.channels
            if layer.kind in ("conv", "depthwise"):
                self.convs[layer.name] = ConvUnit(layer, channels[layer.inputs[0]])
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """He initialisation; heads start at a low prior and at boxes three strides wide."""
        for name, unit in self.convs.items():
            fan_out = unit.conv.kernel_size[0] ** 2 * unit.conv.out_channels // unit.conv.groups
            nn.init.normal_(unit.conv.weight, std=math.sqrt(2.0 / fan_out) if unit.norm is not None else 0.01)
            if unit.conv.bias is not None:
                kind = name.rpartition("/")[2]
                start = {"box": math.log(START_DISTANCE + 0.5), "objectness": -math.log(1 / PRIOR - 1)}
                nn.init.constant_(unit.conv.bias, start.get(kind, 0.0))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        maps: dict[str, Tensor] = {INPUT: x}
        for index, layer in enumerate(self.layers):
            maps[layer.name] = self._run(layer, [maps[name] for name in layer.inputs])
            for name in self._last_use[index]:
                del maps[name]
        return tuple(maps[name] for name in self.arch.outputs)

    def _run(self, layer: Layer, inputs: list[Tensor]) -> Tensor:
        if layer.kind in ("conv", "depthwise"):
            return self.convs[layer.name](inputs[0])
        if layer.kind == "add":
            return inputs[0] + inputs[1]
        if layer.kind == "upsample":
            height, width = inputs[1].shape[2:]  # of the finer map: odd where a stride left a remainder
            return F.interpolate(inputs[0], scale_factor=float(layer.stride), mode="nearest")[:, :, :height, :width]
        if layer.kind == "mean":
            return inputs[0].mean((2, 3), keepdim=True)
        return F.max_pool2d(pad_same(inputs[0], layer.kernel, layer.stride), layer.kernel, layer.stride)


def normalise(images: Tensor) -> Tensor:
    """uint8 (N, 3, H, W) -> float (x - 128) / 128; int8 inference sees the same number as uint8 - 128."""
    return (images.float() - 128.0) * (1 / 128)


def split_levels(arch: Arch, outputs: tuple[Tensor, ...]) -> list[LevelMaps]:
    """Group what `Detector.forward` returns by level, ascending stride."""
    maps = dict(zip(arch.outputs, outputs, strict=True))
    return [
        LevelMaps(s, maps[f"head{s}/objectness"], maps.get(f"head{s}/class"), maps[f"head{s}/box"])
        for s in arch.strides
    ]


def _last_uses(layers: tuple[Layer, ...], outputs: tuple[str, ...]) -> list[list[str]]:
    """For every layer the maps that nothing reads after it."""
    last = {name: index for index, layer in enumerate(layers) for name in layer.inputs}
    return [[name for name in last if last[name] == index and name not in outputs] for index in range(len(layers))]
