"""Integer decoding against loops in Python integers, written from the specification."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware.compiler import decode as decoding
from firmware.compiler.decode import DecodeConfig, DecodeError, DecodeSpec, decode, make_decode_spec, to_original
from firmware.compiler.graph import Quantization
from tests.firmware.graphs import detector_graph


def spec_and_maps(rng: np.random.Generator, classes: int, strides=(8, 16), size=(32, 48), **settings):
    graph = detector_graph(rng, *size, strides, classes)
    config = replace(DecodeConfig(score_threshold=0.5, max_candidates=40, max_detections=20), **settings)
    spec = make_decode_spec(graph, strides, [f"class{i}" for i in range(classes)], config)
    maps = {name: rng.integers(-128, 128, graph.tensors[name].shape, dtype=np.int8) for name in graph.outputs}
    for name in maps:  # few different scores, so that ties happen
        if not name.endswith("box"):
            maps[name] = (maps[name] // 32 * 32).astype(np.int8)
    return spec, maps


def slow_decode(spec: DecodeSpec, maps: dict[str, np.ndarray], content: tuple[int, int]) -> list[tuple[int, ...]]:
    found, cell = [], 0
    for level in spec.levels:
        for y in range(level.rows):
            for x in range(level.cols):
                for label in range(spec.num_classes):
                    score = int(level.objectness_table[int(maps[level.objectness][y, x, 0]) + 128])
                    if spec.num_classes > 1:
                        score = score * int(level.class_table[int(maps[level.class_scores][y, x, label]) + 128]) >> 15
                    sides = [int(level.distance_table[int(t) + 128]) for t in maps[level.box][y, x]]
                    box = slow_box((2 * x + 1) * level.stride * 8, (2 * y + 1) * level.stride * 8, sides, content)
                    if score >= spec.score_threshold and box[2] > box[0] and box[3] > box[1]:
                        found.append((-score, label, cell, box))
                cell += 1
    found = sorted(found)[: spec.max_candidates]
    kept = []
    for candidate in found:
        if all(candidate[1] != other[1] or not overlap(candidate[3], other[3], spec.iou_threshold) for other in kept):
            kept.append(candidate)
    return [(*slow_vote(one, found, spec.iou_threshold), -one[0], one[1]) for one in kept[: spec.max_detections]]


def slow_vote(candidate: tuple, found: list[tuple], threshold: int) -> tuple[int, ...]:
    _, label, _, box = candidate
    voters = [(-other[0], other[3]) for other in found if other[1] == label and overlap(box, other[3], threshold)]
    weight = sum(score for score, _ in voters)
    if not weight:
        return box
    return tuple((sum(score * corners[i] for score, corners in voters) + weight // 2) // weight for i in range(4))


def slow_box(x: int, y: int, sides: list[int], content: tuple[int, int]) -> tuple[int, int, int, int]:
    left, top, right, bottom = sides
    corners = (x - left, y - top, x + right, y + bottom)
    return tuple(min(max(value, 0), content[i % 2] * 16) for i, value in enumerate(corners))


def overlap(a, b, threshold: int) -> bool:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inter = max(width, 0) * max(height, 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter
    return inter * 32768 > threshold * union


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 2**32 - 1), st.integers(1, 3), st.floats(0, 1), st.floats(0, 1), st.integers(1, 60), st.integers(1, 30),
    st.integers(1, 48), st.integers(1, 32),
)  # fmt: skip
def test_decode_is_the_specification(seed, classes, score, iou, candidates, detections, content_w, content_h):
    spec, maps = spec_and_maps(
        np.random.default_rng(seed),
        classes,
        score_threshold=score,
        iou_threshold=iou,
        max_candidates=candidates,
        max_detections=detections,
    )
    found = decode(spec, maps, (content_w, content_h))
    assert found.dtype == np.int32 and found.shape[1] == 6
    assert [tuple(row) for row in found.tolist()] == slow_decode(spec, maps, (content_w, content_h))


def test_boxes_come_best_first_within_the_content():
    spec, maps = spec_and_maps(np.random.default_rng(2), 2)
    found = decode(spec, maps, (45, 30))
    assert 0 < len(found) <= 20
    assert (np.diff(found[:, 4]) <= 0).all()
    assert (found[:, 4] >= spec.score_threshold).all()
    assert (found[:, :2] < found[:, 2:4]).all() and (found[:, [0, 1]] >= 0).all()
    assert found[:, 2].max() <= 45 * 16 and found[:, 3].max() <= 30 * 16


def test_overlap_equal_to_the_threshold_survives():
    """IoU of 0..30 and 10..40 is exactly a half: 20 / 40."""
    rows = np.array([[0, 0, 30, 16, 9, 0], [10, 0, 40, 16, 8, 0], [0, 0, 30, 16, 7, 1]], np.int32)
    assert decoding.nms(rows, 16384, 10).tolist() == [0, 1, 2]
    assert decoding.nms(rows, 16383, 10).tolist() == [0, 2]
    assert decoding.nms(rows, 16383, 1).tolist() == [0]


def test_a_box_is_the_mean_of_what_it_suppresses_weighted_by_score():
    """IoU of 0..30 and 6..36 is two thirds; the box of another class has no vote, the far one keeps to itself."""
    rows = np.array([[0, 0, 30, 16, 9, 0], [6, 0, 36, 17, 3, 0], [3, 0, 33, 16, 3, 1], [0, 40, 30, 56, 2, 0]], np.int32)
    kept = decoding.nms(rows, 16384, 10)
    assert kept.tolist() == [0, 2, 3]
    voted = decoding.vote(rows, kept, 16384)
    assert voted.tolist() == [[2, 0, 32, 16, 9, 0], rows[2].tolist(), rows[3].tolist()]  # 1.5, 31.5, 16.25


def test_no_candidate_is_an_empty_answer():
    spec, maps = spec_and_maps(np.random.default_rng(2), 1, score_threshold=1.0)
    maps = {name: np.full_like(values, -128) for name, values in maps.items()}
    assert decode(spec, maps, (48, 32)).shape == (0, 6)
    assert len(to_original(decode(spec, maps, (48, 32)), (48, 32), (100, 100)).boxes) == 0


@given(st.floats(0.001, 0.3), st.integers(-128, 127), st.sampled_from([4, 8, 16, 32, 64]))
def test_tables(scale, zero_point, stride):
    quant = Quantization(float(np.float32(scale)), zero_point)
    scores, distances = decoding.score_table(quant), decoding.distance_table(quant, stride)
    assert scores.dtype == np.uint16 and distances.dtype == np.int16
    assert (np.diff(scores.astype(int)) >= 0).all() and (np.diff(distances.astype(int)) >= 0).all()
    assert scores[zero_point + 128] == 16384 and distances[zero_point + 128] == stride * 8
    for q in (-128, 0, 127):
        real = quant.scale * (q - zero_point)
        assert abs(scores[q + 128] - 32768 / (1 + math.exp(-real))) <= 0.5
        assert abs(distances[q + 128] - min(stride * (math.exp(real) - 0.5) * 16, 32767)) <= 0.5 + 1e-9


def test_a_perfect_cell_decodes_to_its_box():
    """Box 16..48 x 8..40 around the cell (3, 3) of stride 8, whose centre is 28, 28."""
    graph = detector_graph(np.random.default_rng(0), 64, 64, (8,))
    spec = make_decode_spec(graph, [8], ["face"], DecodeConfig())
    maps = {name: np.full(graph.tensors[name].shape, -128, np.int8) for name in graph.outputs}
    maps["head8/objectness"][3, 3] = 127
    quant = graph.tensors["head8/box"].quant
    for channel, distance in enumerate((12, 20, 20, 12)):
        maps["head8/box"][3, 3, channel] = round(math.log(distance / 8 + 0.5) / quant.scale) + quant.zero_point
    found = to_original(decode(spec, maps, (64, 64)), (64, 64), (128, 192))
    np.testing.assert_allclose(found.boxes, [[32, 24, 96, 120]], atol=2.5)
    assert found.scores[0] > 0.99 and found.labels.tolist() == [0]
    assert (found.boxes.dtype, found.scores.dtype, found.labels.dtype) == (np.float32, np.float32, np.int64)


def test_to_original_clips_to_the_picture():
    found = to_original(np.array([[0, 0, 640, 480, 32768, 1]], np.int32), (40, 30), (401, 299))
    np.testing.assert_array_equal(found.boxes, [[0, 0, 401, 299]])
    assert found.scores.tolist() == [1.0]


def test_wrong_heads_and_settings_are_refused():
    graph = detector_graph(np.random.default_rng(0), 64, 64, (8, 16), classes=2)
    names = ["a", "b"]
    make_decode_spec(graph, (8, 16), names, DecodeConfig())
    for strides, classes, config, words in [
        ((8,), names, DecodeConfig(), "has 6 outputs; 1 levels"),
        ((8, 16), ["a"], DecodeConfig(), "has 6 outputs; 2 levels with objectness, box each are 4"),
        ((16, 8), names, DecodeConfig(), "ascending"),
        ((8, 32), names, DecodeConfig(), "output 'head16/objectness'"),
        ((8, 16), [], DecodeConfig(), "at least one class"),
        ((8, 16), names, DecodeConfig(score_threshold=1.5), "score_threshold is 1.5"),
        ((8, 16), names, DecodeConfig(iou_threshold=float("nan")), "iou_threshold"),
        ((8, 16), names, DecodeConfig(max_candidates=0), "max_candidates is 0"),
    ]:
        with pytest.raises(DecodeError, match=words):
            make_decode_spec(graph, strides, classes, config)
    spec = make_decode_spec(graph, (8, 16), names, DecodeConfig())
    maps = {name: np.zeros(graph.tensors[name].shape, np.float32) for name in graph.outputs}
    with pytest.raises(DecodeError, match="float32"):
        decode(spec, maps, (64, 64))
