"""The module against its description, and the decoding of what it says."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detection.arch import Arch, params, shapes
from detection.boxes import ciou, eiou, iou, pairwise_iou
from detection.config import DecodeConfig
from detection.decode import decode, decode_boxes, flatten, nms, vote
from detection.model.detector import PRIOR, Detector, normalise, pad_same, same_padding

torch.set_num_threads(1)  # two threads on a busy machine wait for each other

TINY = Arch.model_validate({
    "stem": {"channels": 4}, "num_classes": 3,
    "blocks": [{"channels": 4, "stride": 2, "expand": 1}, {"kernel": 5, "channels": 8, "stride": 2, "expand": 2, "repeat": 2}],
    "head": {"strides": [4, 8], "channels": [4, 8]},
})
ANY = DecodeConfig(score_threshold=1e-4, iou_threshold=0.5, max_candidates=1000, max_detections=1000)


@pytest.mark.parametrize("size", [(32, 48), (64, 32), (40, 24)])
def test_every_output_has_the_shape_that_the_arch_says(size: tuple[int, int]) -> None:
    outputs = Detector(TINY).eval()(torch.zeros(2, 3, *size))
    known = shapes(TINY.layers(), *size)
    for name, output in zip(TINY.outputs, outputs, strict=True):
        h, w, c = known[name]
        assert output.shape == (2, c, h, w)


def test_parameters_are_counted_as_folded() -> None:
    model = Detector(TINY)
    weights = sum(unit.conv.weight.numel() + unit.conv.out_channels for unit in model.convs.values())
    assert weights == params(TINY)


@given(st.integers(1, 64), st.sampled_from([1, 3, 5, 7]), st.sampled_from([1, 2, 3]))
def test_same_padding_gives_ceil_cells_and_puts_the_odd_one_after(size: int, kernel: int, stride: int) -> None:
    before, after = same_padding(size, kernel, stride)
    if kernel >= stride:
        assert (size + before + after - kernel) // stride + 1 == -(-size // stride)
    assert 0 <= after - before <= 1


def test_stride_2_on_an_even_map_pads_after() -> None:
    padded = pad_same(torch.ones(1, 1, 4, 6), 3, 2)
    assert padded.shape == (1, 1, 5, 7) and padded[0, 0, -1].sum() == 0 and padded[0, 0, 0].sum() == 6


def test_before_training_every_cell_has_the_prior() -> None:
    outputs = Detector(TINY).eval()(normalise(torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)))
    cells = flatten(TINY, outputs)
    assert cells.objectness.sigmoid().mean().item() == pytest.approx(PRIOR, rel=0.5)


def test_normalise_is_int8_over_128() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert torch.equal(normalise(pixels) * 128, pixels.float() - 128)


def test_cells_are_ordered_by_stride_then_row() -> None:
    cells = flatten(TINY, Detector(TINY).eval()(torch.zeros(1, 3, 16, 24)))
    assert cells.grids == ((4, 4, 6), (8, 2, 3))
    assert cells.centers[:2].tolist() == [[2, 2], [6, 2]] and cells.centers[24].tolist() == [4, 4]
    assert cells.strides[23] == 4 and cells.strides[24] == 8


def test_a_distance_may_be_half_a_cell_negative() -> None:
    raw = torch.tensor([[-30.0, 0.0, 0.0, 0.0]])
    box = decode_boxes(raw, torch.tensor([[20.0, 20.0]]), torch.tensor([8.0]))
    assert box[0].tolist() == pytest.approx([24, 16, 24, 24])


def _boxes(seed: int, count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 20
    return torch.cat([corner, corner + 1 + torch.rand(count, 2, generator=generator) * 20], 1)


@given(st.integers(0, 10_000), st.integers(0, 40), st.floats(0.1, 0.9))
@settings(max_examples=40)
def test_nms_equals_the_sequential_loop(seed: int, count: int, threshold: float) -> None:
    boxes, labels = _boxes(seed, count), torch.arange(count) % 2
    kept: list[int] = []
    for i in range(count):
        if all(labels[i] != labels[j] or iou(boxes[i], boxes[j]) <= threshold for j in kept):
            kept.append(i)
    assert nms(boxes, labels, threshold).tolist() == kept


@given(st.integers(0, 10_000), st.integers(1, 40), st.floats(0.1, 0.9))
@settings(max_examples=40)
def test_a_vote_is_the_weighted_mean_of_the_loop(seed: int, count: int, threshold: float) -> None:
    boxes, labels = _boxes(seed, count), torch.arange(count) % 2
    scores = torch.linspace(0.9, 0.1, count)
    keep = nms(boxes, labels, threshold)
    for i, voted in zip(keep.tolist(), vote(boxes, scores, labels, keep, threshold), strict=True):
        close = [j for j in range(count) if i == j or labels[i] == labels[j] and iou(boxes[i], boxes[j]) > threshold]
        mean = sum(scores[j] * boxes[j] for j in close) / sum(scores[j] for j in close)
        assert torch.allclose(voted, mean, atol=1e-4)


@given(st.integers(0, 10_000))
@settings(max_examples=30)
def test_similarities_are_one_for_equal_boxes_and_never_above_iou(seed: int) -> None:
    a, b = _boxes(seed, 8), _boxes(seed + 1, 8)
    for similarity in (ciou, eiou):
        value, overlap = similarity(a, b)
        assert (value <= overlap + 1e-6).all() and torch.allclose(overlap, pairwise_iou(a, b).diagonal())
        assert torch.allclose(similarity(a, a)[0], torch.ones(8), atol=1e-4)


def test_decoded_boxes_lie_in_the_content_and_come_best_first() -> None:
    torch.manual_seed(0)
    outputs = tuple(torch.randn_like(o) for o in Detector(TINY).eval()(torch.zeros(2, 3, 32, 32)))
    content = torch.tensor([[32.0, 20.0], [18.0, 32.0]])
    for found, limit in zip(decode(TINY, outputs, ANY, content), content, strict=True):
        assert len(found.boxes) and (found.boxes >= 0).all()
        assert (found.boxes <= limit.repeat(2)).all() and (found.boxes[:, 2:] > found.boxes[:, :2]).all()
        assert (found.scores.diff() <= 0).all()


def test_ties_go_by_class_then_cell() -> None:
    outputs = [torch.zeros_like(o) for o in Detector(TINY).eval()(torch.zeros(1, 3, 16, 16))]
    for i, name in enumerate(TINY.outputs):
        if name.endswith("box"):
            outputs[i] = torch.full_like(outputs[i], -0.5)
    found = decode(TINY, tuple(outputs), ANY.model_copy(update={"iou_threshold": 0.99}), torch.tensor([[16.0, 16.0]]))[0]
    assert found.labels.tolist() == sorted(found.labels.tolist()) and (found.scores == 0.25).all()
    first = found.boxes[:3]
    assert (first[:, 0].diff() > 0).all() and (first[:, 1] == first[0, 1]).all()


def test_limits_hold() -> None:
    outputs = tuple(torch.randn_like(o) for o in Detector(TINY).eval()(torch.zeros(1, 3, 32, 32)))
    few = DecodeConfig(score_threshold=1e-4, iou_threshold=0.9, max_candidates=10, max_detections=4)
    assert len(decode(TINY, outputs, few, torch.tensor([[32.0, 32.0]]))[0].boxes) == 4


def test_channels_last_computes_the_same() -> None:
    model, x = Detector(TINY).eval(), torch.randn(1, 3, 32, 32)
    other = model.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last))
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(model(x), other, strict=True))
