"""Named architectures: what `preset: NAME` in a config stands for. Values are plain dicts that `Arch` validates."""

import difflib
from collections.abc import Callable

from detection.arch import ArchError


def preset(name: str, width: float = 1.0) -> dict[str, object]:
    """Stem, blocks and head of preset `name` with its channels multiplied by `width`."""
    if name not in PRESETS:
        near = difflib.get_close_matches(str(name), PRESETS, 1)
        hint = f" (did you mean {near[0]}?)" if near else f"; there are {', '.join(sorted(PRESETS))}"
        raise ArchError(f"arch.preset: no preset is called '{name}'{hint}")
    return PRESETS[name](width)


def make_divisible(channels: float, divisor: int = 8) -> int:
    """MobileNet's rounding: the nearest multiple of `divisor`, never more than 10 % below."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def _block(kernel: int, expand: float, channels: int, stride: int = 1, repeat: int = 1) -> dict[str, object]:
    return {"kernel": kernel, "expand": expand, "channels": channels, "stride": stride, "repeat": repeat}


def _mobilenet_v2(width: float) -> dict[str, object]:
    """Sandler et al., CVPR 2018, Table 2, without the 1x1 convolution to 1280 and what follows it."""
    table = [(3, 1, 16, 1, 1), (3, 6, 24, 2, 2), (3, 6, 32, 2, 3), (3, 6, 64, 2, 4), (3, 6, 96, 1, 3)]
    return _scaled(width, table + [(3, 6, 160, 2, 3), (3, 6, 320, 1, 1)])


def _mobilenet_v2_rd(width: float) -> dict[str, object]:
    """MCUNetV2's redistributed receptive field: no stride-1 spatial kernel before stride 8 (63x63 patches, 2x2 at
    stride 8), two blocks of 64 channels more at stride 16 in exchange."""
    table = [(1, 1, 16, 1, 1), (3, 6, 24, 2, 1), (3, 6, 32, 2, 3), (3, 6, 64, 2, 6), (3, 6, 96, 1, 3)]
    return _scaled(width, table + [(3, 6, 160, 2, 3), (3, 6, 320, 1, 1)])


def _mcunet_v2(width: float) -> dict[str, object]:
    """MCUNetV2's large network as its authors published it (tinyengine's mcunetv2_large, MIT), without squeeze-and-excite, the
    last 1x1 convolution and the classifier. The first block also adds its input, as every block of ours that keeps its shape."""
    table = [(1, 1, 16, 1, 1), (3, 6, 24, 2, 1)]
    table += [(3, 4, 40, 2, 1), (5, 6, 40, 1, 2), (3, 3, 40, 1, 1)]
    table += [(5, 6, 64, 2, 1), (5, 4, 64, 1, 1), (3, 3, 64, 1, 1), (7, 4, 64, 1, 1)]
    table += [(5, 6, 96, 1, 1), (5, 4, 96, 1, 1), (5, 3, 96, 1, 1)]
    table += [(7, 4, 144, 2, 1), (3, 4, 144, 1, 2), (5, 4, 240, 1, 1)]
    return _scaled(width, table, stem=16)


def _scaled(width: float, table: list[tuple[int, int, int, int, int]], stem: int = 32) -> dict[str, object]:
    blocks = [_block(k, e, make_divisible(c * width), s, r) for k, e, c, s, r in table]
    return {
        "stem": {"kernel": 3, "channels": make_divisible(stem * width), "stride": 2},
        "blocks": blocks,
        "neck": {"channels": tuple(make_divisible(c * width) for c in (32, 96, 160))},
        "head": {"channels": tuple(make_divisible(c * width) for c in (64, 96, 160))},
    }


def _tessera_s(width: float) -> dict[str, object]:
    """Small faces on a small chip: a thin start without stride-1 kernels, depth and 5x5 kernels at strides 16 and 32."""
    blocks = [
        _block(3, 1.5, _by4(16 * width), 2),
        _block(3, 2, _by4(20 * width), 2),
        _block(3, 1.6, _by4(20 * width), repeat=2),
        _block(3, 2.6, _by4(36 * width), 2),
        _block(3, 2, _by4(36 * width)),
        _block(5, 2, _by4(36 * width)),
        _block(3, 2.667, _by4(64 * width), 2),
        _block(5, 2, _by4(64 * width)),
        _block(3, 2, _by4(64 * width)),
    ]
    head = {"channels": (_by4(24 * width), _by4(48 * width), _by4(64 * width))}
    return {"stem": {"channels": _by4(8 * width)}, "blocks": blocks, "head": head}


def _tessera_m(width: float) -> dict[str, object]:
    """Twenty classes in about 170 M MACs at 256x256: the same shape, wider, deeper."""
    blocks = [
        _block(3, 2, _by4(24 * width), 2),
        _block(3, 4, _by4(40 * width), 2),
        _block(3, 3, _by4(40 * width), repeat=2),
        _block(5, 4, _by4(80 * width), 2),
        _block(5, 3, _by4(80 * width), repeat=3),
        _block(5, 4, _by4(128 * width), 2),
        _block(5, 3, _by4(128 * width), repeat=3),
    ]
    head = {"channels": (_by4(48 * width), _by4(96 * width), _by4(128 * width)), "kernel": 5}
    return {"stem": {"channels": _by4(16 * width)}, "blocks": blocks, "head": head}


def _by4(channels: float) -> int:
    return make_divisible(channels, 4)


PRESETS: dict[str, Callable[[float], dict[str, object]]] = {
    "mobilenet_v2": _mobilenet_v2,
    "mobilenet_v2_rd": _mobilenet_v2_rd,
    "mcunet_v2": _mcunet_v2,
    "tessera_s": _tessera_s,
    "tessera_m": _tessera_m,
}
