"""MobileNetV2's ImageNet weights as a start for detectors with its pattern of blocks, at any width.

    train.init: mobilenet_v2_1.0_224_ptq.tflite   # int8 or uint8, de-quantised; batch norm is folded into it
    train.init: mobilenet_v2-7ebf99e0.pth         # torchvision's state dict

* `read_weights` reads a file into folded convolutions, in the network's order, for pictures (x - 128) / 128.
* A narrower detector takes the most important channels of each tensor: those whose readers have the largest weights (L1, as
  once-for-all networks sort theirs). A group with more blocks than MobileNetV2's starts the others as identities, one with fewer
  leaves out the last ones. A block without its depthwise convolution (kernel 1) takes the sum of that one's kernel into its
  projection.
* Folded weights say nothing of batch norm's statistics, and slicing changes what every layer sees. Both are settled on a few
  pictures, front to back: 1x1 convolutions are refitted to what the whole network computes there (He et al., ICCV 2017, by ridge
  regression from the cut weights), and every kept channel gets the mean and deviation that it has in the whole network.
  Unsliced, the backbone then computes what the file's network does.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from datasets.dataset import Dataset
from detection.arch import Arch, Block
from detection.calibration import Convolution
from detection.model.detector import ConvUnit, Detector, normalise
from detection.quantize import FoldedDetector, calibration_frames
from firmware.compiler import tflite_schema as schema
from firmware.compiler.tflite_parse import FileTensor, TfliteError, parse

SUFFIXES = (".tflite", ".pth")
SOURCE = Arch(preset="mobilenet_v2")
PICTURES = 32
_ROWS = 8192  # cells of a map that a refit looks at, at most
_RIDGE = 0.01  # of the inputs' mean variance: how firmly a refit holds on to the cut weights
MOST_STRETCH = 8.0  # of a channel that slicing left nearly constant
_TYPES = {schema.INT8: "i1", schema.UINT8: "u1", schema.INT32: "<i4", schema.FLOAT32: "<f4"}
_TINY = 1e-5  # variance: equal ones, zero included, are not stretched
_MEAN, _DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])  # torchvision's, of x / 255


class ImagenetError(ValueError):
    """A file without MobileNetV2's weights, or a detector without its pattern. The message says which."""


def read_weights(path: Path) -> dict[str, Convolution]:
    """Convolutions of MobileNetV2 1.0 by the layer names of preset mobilenet_v2; the classifier's are left out.

    Raises:
        ImagenetError: another network, or a file that cannot be read.
    """
    if not path.is_file():
        raise ImagenetError(f"{path}: no such file")
    try:
        found, gain, offset = _read_tflite(path) if path.suffix == ".tflite" else _read_torchvision(path)
    except TfliteError as error:
        raise ImagenetError(f"{path}: {error}") from error
    detector = Detector(SOURCE)
    names = [name for name in detector.convs if not name.startswith(("neck", "head"))]
    for name, one in zip(names, found, strict=False):
        if one.weight.shape != tuple(detector.convs[name].conv.weight.shape):
            raise ImagenetError(f"{path} is no MobileNetV2 1.0: '{name}' would have weights {one.weight.shape}")
    if len(found) < len(names):
        raise ImagenetError(f"{path} is no MobileNetV2 1.0: {len(found)} convolutions, not {len(names)} before the last 1x1")
    convolutions = dict(zip(names, found, strict=False))
    convolutions["stem"] = _for_our_pixels(convolutions["stem"], gain, offset)
    return convolutions


def load_imagenet(detector: Detector, path: Path, train: Dataset, height: int, width: int) -> None:
    """`read_weights` and `start_from_imagenet` with PICTURES training pictures, height x width. Raises as they do."""
    start_from_imagenet(detector, read_weights(path), calibration_frames(train, PICTURES, height, width))


def start_from_imagenet(detector: Detector, weights: Mapping[str, Convolution], frames: Sequence[np.ndarray]) -> None:
    """Fill the backbone of `detector` in place; neck and heads stay as they are.

    Args:
        weights: what `read_weights` returned.
        frames: letterboxed uint8 (h, w, 3) of one size, a dozen; statistics of batch norm are taken on them.

    Raises:
        ImagenetError: the blocks are not MobileNetV2's, or wider.
    """
    parts = slice_weights(detector.arch, weights)
    device = next(detector.parameters()).device
    pictures = normalise(torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).to(device))
    whole = FoldedDetector(SOURCE).to(device).eval()
    whole.load_convolutions({**whole.convolutions(), **weights})
    seen = _observe(whole, pictures)
    for name, part in parts.items():
        with torch.no_grad():
            if part is None:
                detector.convs[name].norm.weight.zero_()  # the branch of a new block adds nothing yet
            else:
                detector.convs[name].conv.weight.copy_(torch.from_numpy(part.weight))
    wanted = {
        name: _Seen(seen[part.source].moments[:, part.channels], seen[part.source].rows[:, part.channels])
        for name, part in parts.items()
        if part is not None
    }
    _match(detector, pictures, wanted)


class Part(NamedTuple):
    """A convolution cut out of one of the whole network."""

    weight: np.ndarray  # float32, in the detector's shape
    source: str  # the layer of MobileNetV2 that it is of
    channels: np.ndarray  # which of that layer's outputs it keeps, ascending


def slice_weights(arch: Arch, weights: Mapping[str, Convolution]) -> dict[str, Part | None]:
    """The backbone's convolutions by layer name; None for the projection of a block that MobileNetV2 has not.

    Raises:
        ImagenetError: the blocks are not MobileNetV2's, or wider.
    """
    _check(arch)
    streams = _streams(arch, weights)
    parts: dict[str, Part | None] = {"stem": Part(weights["stem"].weight[streams[0]], "stem", streams[0])}
    number, twin = 0, 0
    for group, (block, theirs) in enumerate(zip(arch.blocks, SOURCE.blocks, strict=True)):
        for copy in range(block.repeat):
            number += 1
            source = streams[group] if copy == 0 else streams[group + 1]
            if copy < theirs.repeat:
                hidden = round(block.expand * len(source))
                cut = _block(f"block{twin + copy + 1}", weights, block, source, hidden, streams[group + 1])
                parts |= {f"block{number}/{kind}": part for kind, part in cut.items()}
            else:
                parts[f"block{number}/project"] = None
        twin += theirs.repeat
    return parts


def _block(
    name: str, weights: Mapping[str, Convolution], block: Block, source: np.ndarray, hidden: int, out: np.ndarray
) -> dict[str, Part]:
    """One inverted residual that reads channels `source` and makes `out`."""
    project = weights[f"{name}/project"].weight
    kept = source if block.expand == 1 else _largest(_reading(project), hidden)
    depthwise = weights[f"{name}/depthwise"].weight
    parts = {}
    if block.expand != 1:
        expand = f"{name}/expand"
        parts["expand"] = Part(weights[expand].weight[kept][:, source], expand, kept)
    if block.kernel > 1:
        rim = (block.kernel - 3) // 2
        parts["depthwise"] = Part(np.pad(depthwise[kept], ((0, 0), (0, 0), (rim, rim), (rim, rim))), f"{name}/depthwise", kept)
    else:
        project = project * depthwise.sum(axis=(1, 2, 3))[None, :, None, None]
    return parts | {"project": Part(project[out][:, kept], f"{name}/project", out)}


def _streams(arch: Arch, weights: Mapping[str, Convolution]) -> list[np.ndarray]:
    """Kept channels of the stem and of every group of blocks, which are added to one another."""
    kept = [_largest(_reading(weights["block1/project"].weight), arch.stem.channels)]
    first = 1
    for block, theirs in zip(arch.blocks, SOURCE.blocks, strict=True):
        names = [f"block{number}" for number in range(first, first + theirs.repeat)]
        first += theirs.repeat
        readers = [weights[f"{name}/expand"].weight for name in [*names[1:], f"block{first}"] if f"{name}/expand" in weights]
        makers = [weights[f"{name}/project"].weight.transpose(1, 0, 2, 3) for name in names]
        kept.append(_largest(sum(_reading(weight) for weight in readers or makers), block.channels))
    return kept


def _reading(weight: np.ndarray) -> np.ndarray:
    """How much a convolution takes from each of its inputs: (c_out, c_in, k, k) -> (c_in,)."""
    return np.abs(weight).sum(axis=(0, 2, 3))


def _largest(importance: np.ndarray, count: int) -> np.ndarray:
    """Indices of the `count` largest, ascending; the first of equals."""
    return np.sort(np.argsort(-importance, kind="stable")[:count])


def _check(arch: Arch) -> None:
    pattern = [(theirs.stride, theirs.expand == 1) for theirs in SOURCE.blocks]
    if [(block.stride, block.expand == 1) for block in arch.blocks] != pattern or arch.stem.stride != 2 or arch.stem.kernel != 3:
        raise ImagenetError(
            "the blocks are not MobileNetV2's: seven groups of strides 1, 2, 2, 2, 1, 2, 1, the first with expand 1, after a 3x3 "
            "stem of stride 2 (presets mobilenet_v2 and mobilenet_v2_rd, at any width, have them)"
        )
    sizes: list[tuple[str, float, float]] = [("stem.channels", arch.stem.channels, SOURCE.stem.channels)]
    for number, (block, theirs) in enumerate(zip(arch.blocks, SOURCE.blocks, strict=True)):
        sizes += [(f"blocks[{number}].channels", block.channels, theirs.channels)]
        sizes += [(f"blocks[{number}].expand", block.expand, theirs.expand)]
    for name, ours, most in sizes:
        if ours > most:
            raise ImagenetError(f"{name} is {ours:g}, MobileNetV2 has {most:g}: there are no weights for a wider network")


class _Seen(NamedTuple):
    """What a convolution of the whole network made of the pictures, its bias included."""

    moments: Tensor  # (2, channels): mean and variance
    rows: Tensor  # (cells, channels): some of it


def _observe(whole: Detector, pictures: Tensor) -> dict[str, _Seen]:
    """Every convolution by name."""
    found: dict[str, _Seen] = {}

    def keep(name: str, made: Tensor) -> None:
        found[name] = _Seen(_moments_of(made), _rows_of(made))

    hooks = [unit.conv.register_forward_hook(lambda _, __, made, n=name: keep(n, made)) for name, unit in whole.convs.items()]
    _run(whole, pictures, hooks)
    return found


def _match(detector: Detector, pictures: Tensor, wanted: Mapping[str, _Seen]) -> None:
    """Front to back in one pass: refit 1x1 convolutions, then set batch norms, to make what the whole network made."""

    def refit(unit: ConvUnit, target: Tensor, source: Tensor) -> None:
        inputs = _rows_of(source).double()
        inputs, target = inputs - inputs.mean(0), target.double() - target.double().mean(0)
        weight = unit.conv.weight[:, :, 0, 0].double()
        square = inputs.T @ inputs
        firm = _RIDGE * square.diagonal().mean() * torch.eye(len(square), dtype=square.dtype, device=square.device)
        missing = (target - inputs @ weight.T).T @ inputs
        unit.conv.weight.add_(torch.linalg.solve(square + firm, missing.T).T[:, :, None, None].float())

    def settle(unit: ConvUnit, target: Tensor, seen: Tensor) -> None:
        mean, variance = _moments_of(seen)
        norm = unit.norm
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        stretch = ((target[1] + _TINY) / (variance + _TINY)).sqrt().clamp(max=MOST_STRETCH)
        norm.weight.copy_(stretch * (variance + norm.eps).sqrt())
        norm.bias.copy_(target[0])

    hooks = []
    for name, target in wanted.items():
        unit = detector.convs[name]
        if unit.kernel == 1:
            hooks.append(unit.conv.register_forward_pre_hook(lambda _, x, u=unit, t=target.rows: refit(u, t, x[0])))
        hooks.append(unit.norm.register_forward_pre_hook(lambda _, x, u=unit, t=target.moments: settle(u, t, x[0])))
    _run(detector, pictures, hooks)


def _rows_of(maps: Tensor) -> Tensor:
    """(n, c, h, w) -> at most _ROWS cells, (cells, c): the same ones of every map of a size."""
    rows = maps.permute(0, 2, 3, 1).flatten(0, 2)
    return rows[:: -(-len(rows) // _ROWS)].clone()


@torch.no_grad()
def _run(detector: Detector, pictures: Tensor, hooks: Sequence[torch.utils.hooks.RemovableHandle]) -> None:
    training = detector.training
    try:
        detector.eval()(pictures)
    finally:
        detector.train(training)
        for hook in hooks:
            hook.remove()


def _moments_of(maps: Tensor) -> Tensor:
    """(n, c, h, w) -> (2, c): mean and variance."""
    return torch.stack([maps.mean((0, 2, 3)), maps.var((0, 2, 3), correction=0)])


def _for_our_pixels(stem: Convolution, gain: np.ndarray, offset: np.ndarray) -> Convolution:
    """The stem for y = (x - 128) / 128 where the file's network saw gain * y + offset, (3,) each."""
    weight = stem.weight * gain[None, :, None, None]
    bias = stem.bias + (stem.weight * offset[None, :, None, None]).sum(axis=(1, 2, 3))
    return Convolution(weight.astype(np.float32), bias.astype(np.float32))


def _read_tflite(path: Path) -> tuple[list[Convolution], np.ndarray, np.ndarray]:
    file = parse(path.read_bytes())
    found = []
    for operator in file.operators:
        if operator.kind in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            weight, bias = (_real(file.tensors[index], path) for index in operator.inputs[1:3])
            axes = (3, 0, 1, 2) if operator.kind == "DEPTHWISE_CONV_2D" else (0, 3, 1, 2)
            found.append(Convolution(np.ascontiguousarray(weight.transpose(axes)), bias))
    picture = file.tensors[file.inputs[0]]
    if not len(picture.scales):
        return found, np.ones(3), np.zeros(3)  # a float network: such files take (x - 127.5) / 127.5 or nearly so
    zero = int(picture.zero_points[0]) + (128 if picture.type == schema.INT8 else 0)
    scale = float(picture.scales[0])
    return found, np.full(3, 128 * scale), np.full(3, (128 - zero) * scale)


def _real(tensor: FileTensor, path: Path) -> np.ndarray:
    """The values of a constant as float32; scales run along `axis`."""
    if tensor.data is None or tensor.type not in _TYPES:
        raise ImagenetError(f"{path}: tensor {tensor} ({tensor.type_name}) holds no weights that can be read")
    values = np.frombuffer(tensor.data.tobytes(), _TYPES[tensor.type]).reshape(tensor.shape).astype(np.float64)
    if len(tensor.scales):
        shape = [-1 if axis == tensor.axis else 1 for axis in range(values.ndim)] if len(tensor.scales) > 1 else [1] * values.ndim
        values = (values - tensor.zero_points.reshape(shape)) * tensor.scales.astype(np.float64).reshape(shape)
    return values.astype(np.float32)


def _read_torchvision(path: Path) -> tuple[list[Convolution], np.ndarray, np.ndarray]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        names = [name.removesuffix(".weight") for name, value in state.items() if value.ndim == 4]
        found = [_fold(state, name) for name in names]
    except Exception as error:  # torch raises whatever its parsers meet; a stranger's file may hold anything
        reason = str(error).splitlines()[0][:100]
        raise ImagenetError(f"{path} is no state dict of torchvision's mobilenet_v2: {reason}") from None
    return found, 128 / 255 / _DEVIATION, (128 / 255 - _MEAN) / _DEVIATION


def _fold(state: Mapping[str, Tensor], name: str) -> Convolution:
    """A convolution and the batch norm that follows it in torchvision's sequences."""
    place, _, number = name.rpartition(".")
    norm = f"{place}.{int(number) + 1}"
    factor = state[f"{norm}.weight"].double() / (state[f"{norm}.running_var"].double() + 1e-5).sqrt()
    weight = state[f"{name}.weight"].double() * factor[:, None, None, None]
    bias = state[f"{norm}.bias"].double() - state[f"{norm}.running_mean"].double() * factor
    return Convolution(weight.float().numpy(), bias.float().numpy())
