"""Boxes: the runtime's heap, tables and suppression against firmware/compiler/decode.py on head maps made of noise."""

import numpy as np
import pytest

from firmware.compiler import decode as truth
from firmware.host import HostModel
from tests.firmware.tess_bytes import Decode, Level, Net, Segment, fused, layers, write


def tables(rng: np.random.Generator, stride: int, coarse: bool) -> tuple[np.ndarray, np.ndarray]:
    """A score table (few distinct values when coarse, so that ties abound) and a distance table."""
    q = np.arange(-128, 128)
    score = 32768 / (1 + np.exp(-q / 30))
    score = np.rint(score / 4096) * 4096 if coarse else np.rint(score)
    distance = np.rint(stride * (np.exp(q / float(rng.uniform(40, 90))) - 0.5) * 16)
    return score.astype(np.uint16), distance.astype(np.int16)


def detector(rng: np.random.Generator, classes: int, coarse: bool, **limits) -> tuple[Net, Decode, truth.DecodeSpec]:
    """A network whose head maps are channels of the picture: 1x1 convolutions at strides 2 and 4 of a 24 x 20 input."""
    net = Net(rng)
    net.source(24, 20, 5)
    half = net.maxpool(0, (2, 2), (2, 2))
    quarter = net.maxpool(half, (1, 1), (2, 2))
    levels, twins, names = [], [], tuple(f"class {k}" for k in range(classes))
    for stride, feature in ((2, half), (4, quarter)):
        parts = [net.conv(feature, 1), *([net.conv(feature, classes)] if classes > 1 else []), net.conv(feature, 4)]
        labels = [f"head{stride}/objectness", *([f"head{stride}/class"] if classes > 1 else []), f"head{stride}/box"]
        sink = net.sink(*parts, names=tuple(labels))
        score, distance = tables(rng, stride, coarse)
        class_table = tables(rng, stride, coarse)[0] if classes > 1 else None
        levels.append(Level(stride, sink, score, class_table, distance))
        rows, cols, _ = net.nodes[sink].shape
        of_class = labels[1] if classes > 1 else None
        twins.append(truth.DecodeLevel(stride, rows, cols, labels[0], of_class, labels[-1], score, class_table, distance))
    written = Decode(tuple(levels), names, **limits)
    fields = (written.score_threshold, written.iou_threshold, written.max_candidates, written.max_detections)
    return net, written, truth.DecodeSpec(tuple(twins), names, *fields)


@pytest.mark.parametrize("seed", range(24))
def test_same_boxes_as_the_compiler(seed: int) -> None:
    rng = np.random.default_rng(seed)
    classes, coarse = int(rng.choice([1, 2, 7])), bool(rng.integers(2))
    limits = {
        "score_threshold": int(rng.choice([0, 4096, 16384, 30000])),
        "iou_threshold": int(rng.choice([0, 9000, 16384, 32768])),
        "max_candidates": int(rng.choice([1, 2, 7, 64, 3000])),
        "max_detections": int(rng.choice([1, 5, 1000])),
    }
    net, written, spec = detector(rng, classes, coarse, **limits)
    last = len(net.nodes)
    split = [Segment(0, 3, 1, 2, 3, 0), Segment(3, last - 3, last - 1, 2, 2, 1)] if classes == 1 else layers(net)
    for segments in (layers(net), fused(net), fused(net, 3, 2, 0), split):
        model = HostModel(write(net, segments, written))
        assert model.classes == spec.class_names
        frame = rng.integers(0, 256, (24, 20, 5), dtype=np.uint8)
        maps = model.run(frame)
        expected = truth.decode(spec, maps, (20, 24))
        np.testing.assert_array_equal(model._detections(), expected, err_msg=f"seed {seed} {limits}")
        np.testing.assert_array_equal(model._detections(), expected, err_msg="asked a second time")


def test_boxes_are_clipped_to_the_content() -> None:
    """A picture twice as wide as high fills the upper half of the frame; nothing below is reported."""
    rng = np.random.default_rng(4)
    net = Net(rng)
    net.source(16, 16, 3)
    feature = net.maxpool(0)
    sink = net.sink(net.conv(feature, 1), net.conv(feature, 4), names=("head2/objectness", "head2/box"))
    score, distance = tables(rng, 2, False)
    limits = {"score_threshold": 0, "iou_threshold": 32768, "max_candidates": 500, "max_detections": 500}
    written = Decode((Level(2, sink, score, None, distance),), ("face",), **limits)
    level = truth.DecodeLevel(2, 8, 8, "head2/objectness", None, "head2/box", score, None, distance)
    spec = truth.DecodeSpec((level,), ("face",), *limits.values())
    model = HostModel(write(net, fused(net), written))
    picture = rng.integers(0, 256, (10, 20, 3), dtype=np.uint8)
    maps, boxes = model.run_and_detect(picture)
    assert model.content == (16, 8)
    assert len(boxes) and boxes[:, 3].max() <= 8 * 16
    np.testing.assert_array_equal(boxes, truth.decode(spec, maps, model.content))
    np.testing.assert_array_equal(boxes, model.detect(picture))
    for name, values in model.run(model.network_frame(picture)).items():
        np.testing.assert_array_equal(values, maps[name])
