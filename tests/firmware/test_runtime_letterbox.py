"""The C letterbox against firmware/compiler/preprocess.py: any size, every pixel format, whole rows and parts of them."""

import numpy as np
import pytest

from firmware.compiler.preprocess import content_size, letterbox
from firmware.host import HostModel, TessError
from tests.firmware.tess_bytes import Net, fused, write


def model_for(height: int, width: int, channels: int = 3) -> HostModel:
    net = Net(np.random.default_rng(0))
    net.source(height, width, channels)
    net.sink(net.maxpool(0, (1, 1), (1, 1)))
    return HostModel(write(net, fused(net)))


def sizes(count: int) -> list[tuple[int, int, int, int]]:
    """(height, width) of network and picture; small, equal, large and lopsided."""
    rng = np.random.default_rng(77)
    drawn = [tuple(int(v) for v in rng.integers(1, 40, 4)) for _ in range(count)]
    fixed = [(8, 8, 8, 8), (8, 8, 1, 1), (1, 1, 30, 30), (6, 8, 480, 640), (16, 12, 3, 200), (16, 12, 200, 3), (5, 7, 15, 21)]
    return [*fixed, *drawn]


@pytest.mark.parametrize("net_h, net_w, height, width", sizes(60))
def test_same_frame_as_the_compiler(net_h: int, net_w: int, height: int, width: int) -> None:
    image = np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    model = model_for(net_h, net_w)
    expected = letterbox(image, net_h, net_w)
    np.testing.assert_array_equal(model.network_frame(image), expected)
    assert model.content == content_size((width, height), (net_w, net_h))
    for columns in ((0, net_w // 2 + 1), (net_w // 2, net_w), (net_w - 1, net_w)):
        np.testing.assert_array_equal(model.network_frame(image, columns=columns), expected[:, columns[0] : columns[1]])


@pytest.mark.parametrize("net_h, net_w, height, width", sizes(12))
def test_camera_formats(net_h: int, net_w: int, height: int, width: int) -> None:
    rng = np.random.default_rng(height + width)
    model = model_for(net_h, net_w)
    words = rng.integers(0, 65536, (height, width), dtype=np.uint16)
    red, green, blue = words >> 11, words >> 5 & 63, words & 31
    rgb = np.stack([red << 3 | red >> 2, green << 2 | green >> 4, blue << 3 | blue >> 2], axis=2).astype(np.uint8)
    expected = letterbox(rgb, net_h, net_w)
    little = np.ascontiguousarray(words.astype("<u2")).view(np.uint8).reshape(height, width, 2)
    np.testing.assert_array_equal(model.network_frame(little, "rgb565_le"), expected)
    np.testing.assert_array_equal(model.network_frame(little[..., ::-1], "rgb565_be"), expected)

    grey = rng.integers(0, 256, (height, width), dtype=np.uint8)
    expected = letterbox(np.repeat(grey[..., None], 3, axis=2), net_h, net_w)
    np.testing.assert_array_equal(model.network_frame(grey, "grey"), expected)
    np.testing.assert_array_equal(model_for(net_h, net_w, 1).network_frame(grey, "grey"), expected[..., :1])


def test_largest_picture_does_not_overflow() -> None:
    image = np.full((4000, 4000, 3), 255, np.uint8)
    image[::2] = 254
    expected = letterbox(image, 3, 4)
    np.testing.assert_array_equal(model_for(3, 4).network_frame(image), expected)


def test_pictures_that_cannot_be_taken() -> None:
    with pytest.raises(TessError, match="out of range"):
        model_for(4, 4).network_frame(np.zeros((4001, 4000), np.uint8), "grey")
    with pytest.raises(TessError, match="out of range"):
        model_for(4, 4, 1).network_frame(np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match="pixel format 'yuv' is not one of rgb888"):
        model_for(4, 4).network_frame(np.zeros((8, 8), np.uint8), "yuv")
    with pytest.raises(ValueError, match=r"rgb565_be takes uint8 \(h, w, 2\)"):
        model_for(4, 4).network_frame(np.zeros((8, 8, 3), np.uint8), "rgb565_be")
