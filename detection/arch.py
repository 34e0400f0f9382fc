"""The network as data. No torch: `model/detector.py` interprets the layer list that `Arch.layers()` returns, `lower.py`
walks the same list, and the search costs it without ever building a module.

An `Arch` is a stem, inverted residual blocks (MobileNetV2), an additive top-down feature pyramid and one anchor-free head
a level. Every convolution pads like TensorFlow's SAME; every one but a head's outputs is followed by batch norm.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from pydantic import Field, model_validator

from datasets.strict import StrictModel

INPUT = "input"  # name of the picture in `Layer.inputs`
PRESENCE = "presence"  # the output of a classifier
Kind = Literal["conv", "depthwise", "add", "upsample", "maxpool", "mean"]


class ArchError(ValueError):
    """An architecture that cannot be built, or not for this input size. The message names the culprit."""


class Layer(NamedTuple):
    """One operator. Its name is also the name of its output."""

    name: str
    kind: Kind
    inputs: tuple[str, ...]
    channels: int  # of the output
    kernel: int = 1
    stride: int = 1  # for "upsample": the factor
    relu6: bool = False
    batch_norm: bool = False  # otherwise a convolution has a bias


class Shape(NamedTuple):
    """Extent of a feature map."""

    height: int
    width: int
    channels: int


class Stem(StrictModel):
    """The first convolution, 3 -> channels, ReLU6."""

    kernel: Literal[1, 3, 5, 7] = 3
    channels: int = Field(16, ge=1)
    stride: Literal[1, 2] = 2


class Block(StrictModel):
    """Inverted residual: 1x1 expand, depthwise, 1x1 project; an add when it keeps the shape. `repeat` copies follow each
    other, the stride is the first one's. Kernel 1 leaves the depthwise convolution out, expand 1 the first 1x1."""

    kernel: Literal[1, 3, 5, 7] = 3
    expand: float = Field(6, ge=1)  # hidden channels = round(expand * input channels)
    channels: int = Field(ge=1)
    stride: Literal[1, 2] = 1
    repeat: int = Field(1, ge=1)

    @model_validator(mode="after")
    def _kernel_1_cannot_stride(self) -> "Block":
        if self.kernel == 1 and self.stride == 2:
            raise ValueError("a block of kernel 1 has no depthwise convolution and cannot have stride 2")
        return self


class Neck(StrictModel):
    """Top-down feature pyramid by addition. `channels` a level, ascending stride; None keeps those of the backbone.

    With `chain` a level gets what the coarser level became, as in FPN (Lin et al., CVPR 2017): its rows wait until all
    coarser levels have seen what lies below them. Without, it gets the coarser level's own feature map: rows wait for one
    level only, so that a chip which streams rows keeps few of the finest map.
    """

    channels: tuple[int, ...] | None = None
    top_down: bool = True
    chain: bool = True


class Head(StrictModel):
    """At every stride: depthwise + 1x1 ReLU6 (`repeat` times), then one 1x1 convolution an output tensor."""

    strides: tuple[int, ...] = (8, 16, 32)
    channels: tuple[int, ...] = (32, 48, 64)  # a level
    kernel: Literal[1, 3, 5, 7] = 3
    repeat: int = Field(1, ge=0)


class Classifier(StrictModel):
    """Instead of neck and head: a 1x1 convolution to `channels`, the mean over the map, one logit a class."""

    channels: int = Field(128, ge=1)


class Arch(StrictModel):
    """A detector's structure. In YAML either explicit or `preset: NAME` [`width: 0.35`] with overrides beside it; a
    preset is written out when it is read, so a saved Arch is always explicit."""

    preset: str | None = None
    width: float = Field(1.0, gt=0)  # multiplies the preset's channels
    stem: Stem = Stem()
    blocks: tuple[Block, ...]
    neck: Neck = Neck()
    head: Head = Head()
    classifier: Classifier | None = None  # says whether a class is in the picture; there are no boxes then
    num_classes: int = Field(1, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _expand_preset(cls, data: object) -> object:
        if not isinstance(data, dict) or data.get("preset") is None:
            return data
        from detection.presets import preset  # it needs the records above

        return preset(data["preset"], float(data.get("width", 1.0))) | data

    @model_validator(mode="after")
    def _levels_exist(self) -> "Arch":
        if self.classifier is not None:
            return self
        strides = self.head.strides
        if not strides or list(strides) != sorted(set(strides)):
            raise ValueError(f"head.strides {list(strides)} must be ascending and not empty")
        reached = _reached_strides(self)
        for stride in strides:
            if stride not in reached:
                raise ValueError(f"head.strides asks for stride {stride}; the backbone reaches {sorted(reached)}")
        if len(self.head.channels) != len(strides):
            raise ValueError(f"head.channels has {len(self.head.channels)} entries for {len(strides)} strides")
        if self.neck.channels is not None and len(self.neck.channels) != len(strides):
            raise ValueError(f"neck.channels has {len(self.neck.channels)} entries for {len(strides)} strides")
        return self

    @property
    def strides(self) -> tuple[int, ...]:
        return self.head.strides if self.classifier is None else ()

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the output tensors: for each level objectness, [class], box; a classifier's one."""
        if self.classifier is not None:
            return (PRESENCE,)
        kinds = ("objectness", "class", "box") if self.num_classes > 1 else ("objectness", "box")
        return tuple(f"head{stride}/{kind}" for stride in self.strides for kind in kinds)

    def with_classes(self, num_classes: int) -> "Arch":
        return self.model_copy(update={"num_classes": num_classes})

    def layers(self) -> tuple[Layer, ...]:
        """The network in topological order, heads as early as can be; the first layer reads `INPUT`."""
        backbone, features = _backbone(self)
        if self.classifier is not None:
            return (*backbone, *_classifier(self, backbone[-1].name))
        neck, merged = _neck(self, [features[stride] for stride in self.strides])
        heads = [layer for index, name in enumerate(merged) for layer in _head(self, index, name)]
        return _early(backbone, [*neck, *heads])


def shapes(layers: Sequence[Layer], height: int, width: int) -> dict[str, Shape]:
    """Shape of every tensor for an input of height x width. Raises ArchError where an add's inputs differ."""
    known = {INPUT: Shape(height, width, 3)}
    for layer in layers:
        sources = [known[name] for name in layer.inputs]
        first = sources[0]
        if layer.kind == "add" and any(source != first for source in sources):
            raise ArchError(
                f"'{layer.name}' adds {' and '.join(f'{s.height}x{s.width}x{s.channels}' for s in sources)} for input "
                f"{height}x{width}: choose a height and width that the largest stride divides"
            )
        if layer.kind == "upsample":
            size = sources[1].height, sources[1].width
            if (first.height, first.width) != tuple(-(-side // layer.stride) for side in size):
                raise ArchError(f"'{layer.name}' cannot make {size[0]}x{size[1]} of {first.height}x{first.width}")
        elif layer.kind == "mean":
            size = 1, 1
        else:
            size = -(-first.height // layer.stride), -(-first.width // layer.stride)
        known[layer.name] = Shape(*size, layer.channels)
    return known


def layer_macs(layers: Sequence[Layer], height: int, width: int) -> dict[str, int]:
    """Multiply-accumulates of every convolution, padding included (as every published count does)."""
    known = shapes(layers, height, width)
    counts = {}
    for layer in layers:
        if layer.kind in ("conv", "depthwise"):
            out = known[layer.name]
            per_pixel = layer.kernel**2 * out.channels
            if layer.kind == "conv":
                per_pixel *= known[layer.inputs[0]].channels
            counts[layer.name] = per_pixel * out.height * out.width
    return counts


def macs(arch: Arch, height: int, width: int) -> int:
    return sum(layer_macs(arch.layers(), height, width).values())


def params(arch: Arch) -> int:
    """Weights and biases once batch norm is folded: what the chip stores."""
    channels = {INPUT: 3}
    total = 0
    for layer in arch.layers():
        channels[layer.name] = layer.channels
        if layer.kind in ("conv", "depthwise"):
            inputs = channels[layer.inputs[0]] if layer.kind == "conv" else 1
            total += layer.channels * (layer.kernel**2 * inputs + 1)
    return total


def receptive_field(layers: Sequence[Layer], name: str) -> int:
    """Side, in input pixels, of the square that one element of tensor `name` depends on (its widest path)."""
    field, jump = {INPUT: 1.0}, {INPUT: 1.0}
    for layer in layers:
        source_jump = max(jump[source] for source in layer.inputs)
        field[layer.name] = max(field[source] for source in layer.inputs)
        if layer.kind == "upsample":
            jump[layer.name] = source_jump / layer.stride
        else:
            field[layer.name] += (layer.kernel - 1) * source_jump
            jump[layer.name] = source_jump * layer.stride
    if name not in field:
        raise ArchError(f"no layer is called '{name}'")
    return math.ceil(field[name])


def block_places(arch: Arch) -> dict[str, tuple[int, int]]:
    """By name of each inverted residual: the stride that it works at, and how many come before it at that stride."""
    stride, number, places = arch.stem.stride, 0, {}
    for block in arch.blocks:
        for copy in range(block.repeat):
            number += 1
            stride *= block.stride if copy == 0 else 1
            places[f"block{number}"] = stride, sum(known == stride for known, _ in places.values())
    return places


def _reached_strides(arch: Arch) -> set[int]:
    stride, reached = arch.stem.stride, {arch.stem.stride}
    for block in arch.blocks:
        stride *= block.stride
        reached.add(stride)
    return reached


def _conv(name: str, source: str, channels: int, kernel: int = 1, stride: int = 1, relu6: bool = True) -> Layer:
    return Layer(name, "conv", (source,), channels, kernel, stride, relu6, batch_norm=True)


def _depthwise(name: str, source: str, channels: int, kernel: int, stride: int = 1) -> Layer:
    return Layer(name, "depthwise", (source,), channels, kernel, stride, relu6=True, batch_norm=True)


def _backbone(arch: Arch) -> tuple[list[Layer], dict[int, Layer]]:
    """Layers, and the last one at every stride."""
    layers = [_conv("stem", INPUT, arch.stem.channels, arch.stem.kernel, arch.stem.stride)]
    stride = arch.stem.stride
    features = {stride: layers[-1]}
    number = 0
    for block in arch.blocks:
        for copy in range(block.repeat):
            number += 1
            step = block.stride if copy == 0 else 1
            layers += _inverted_residual(f"block{number}", layers[-1], block, step)
            stride *= step
            features[stride] = layers[-1]
    return layers, features


def _inverted_residual(name: str, source: Layer, block: Block, stride: int) -> list[Layer]:
    layers: list[Layer] = []
    current, hidden = source.name, round(block.expand * source.channels)
    if block.expand != 1:
        layers.append(_conv(f"{name}/expand", current, hidden))
        current = layers[-1].name
    if block.kernel > 1:
        layers.append(_depthwise(f"{name}/depthwise", current, hidden, block.kernel, stride))
        current = layers[-1].name
    layers.append(_conv(f"{name}/project", current, block.channels, relu6=False))
    if stride == 1 and block.channels == source.channels:
        layers.append(Layer(f"{name}/add", "add", (source.name, layers[-1].name), block.channels))
    return layers


def _neck(arch: Arch, levels: Sequence[Layer]) -> tuple[list[Layer], list[str]]:
    """Layers, and the name of the feature map of every level, ascending stride."""
    layers: list[Layer] = []
    wanted = arch.neck.channels or tuple(level.channels for level in levels)
    merged: dict[int, str] = {}
    for index in reversed(range(len(levels))):
        stride, name = arch.strides[index], levels[index].name
        if levels[index].channels != wanted[index]:
            layers.append(_conv(f"neck{stride}/lateral", name, wanted[index], relu6=False))
            name = layers[-1].name
        if arch.neck.top_down and index + 1 < len(levels):
            coarse = merged[index + 1] if arch.neck.chain else levels[index + 1].name
            if (wanted[index + 1] if arch.neck.chain else levels[index + 1].channels) != wanted[index]:
                layers.append(_conv(f"neck{stride}/reduce", coarse, wanted[index], relu6=False))
                coarse = layers[-1].name
            factor = arch.strides[index + 1] // stride
            layers.append(Layer(f"neck{stride}/upsample", "upsample", (coarse, name), wanted[index], stride=factor))
            layers.append(Layer(f"neck{stride}/add", "add", (name, layers[-1].name), wanted[index]))
            name = layers[-1].name
        merged[index] = name
    return layers, [merged[index] for index in range(len(levels))]


def _early(backbone: Sequence[Layer], others: Sequence[Layer]) -> tuple[Layer, ...]:
    """Both in one order: what does not belong to the backbone follows the last backbone layer that it depends on."""
    after = {layer.name: index for index, layer in enumerate(backbone)}
    for layer in others:
        after[layer.name] = max(after[name] for name in layer.inputs)
    return tuple(sorted([*backbone, *others], key=lambda layer: after[layer.name]))


def _head(arch: Arch, index: int, source: str) -> list[Layer]:
    head, name = arch.head, f"head{arch.strides[index]}"
    layers: list[Layer] = []
    channels = _neck_channels(arch)[index]
    current = source
    for copy in range(1, head.repeat + 1):
        if head.kernel > 1:
            layers.append(_depthwise(f"{name}/depthwise{copy}", current, channels, head.kernel))
            current = layers[-1].name
        channels = head.channels[index]
        layers.append(_conv(f"{name}/pointwise{copy}", current, channels))
        current = layers[-1].name
    layers.append(Layer(f"{name}/objectness", "conv", (current,), 1))
    if arch.num_classes > 1:
        layers.append(Layer(f"{name}/class", "conv", (current,), arch.num_classes))
    layers.append(Layer(f"{name}/box", "conv", (current,), 4))
    return layers


def _classifier(arch: Arch, source: str) -> list[Layer]:
    channels = arch.classifier.channels
    return [
        _conv("classifier/pointwise", source, channels),
        Layer("classifier/mean", "mean", ("classifier/pointwise",), channels),
        Layer(PRESENCE, "conv", ("classifier/mean",), arch.num_classes),
    ]


def _neck_channels(arch: Arch) -> tuple[int, ...]:
    if arch.neck.channels is not None:
        return arch.neck.channels
    _, features = _backbone(arch)
    return tuple(features[stride].channels for stride in arch.strides)
