"""The network as data: shapes, costs and what cannot be built."""

import pytest

from datasets.strict import SettingError, parse
from detection.arch import INPUT, Arch, layer_macs, macs, params, receptive_field, shapes
from detection.presets import PRESETS, make_divisible

SMALL = {"stem": {"channels": 8}, "blocks": [{"channels": 16, "stride": 2}, {"channels": 16, "stride": 2, "repeat": 2}],
         "head": {"strides": [4, 8], "channels": [8, 16]}}


@pytest.mark.parametrize("name", sorted(PRESETS))
@pytest.mark.parametrize("num_classes", [1, 3])
def test_layers_are_topological_and_made_once(name: str, num_classes: int) -> None:
    arch = Arch(preset=name, num_classes=num_classes)
    known = {INPUT}
    for layer in arch.layers():
        assert set(layer.inputs) <= known and layer.name not in known
        known.add(layer.name)
    assert set(arch.outputs) <= known


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_head_maps_have_the_size_of_their_stride(name: str) -> None:
    arch = Arch(preset=name, num_classes=5)
    known = shapes(arch.layers(), 128, 192)
    for stride in arch.strides:
        for kind, channels in (("objectness", 1), ("class", 5), ("box", 4)):
            assert known[f"head{stride}/{kind}"] == (128 // stride, 192 // stride, channels)


@pytest.mark.parametrize("name", ["tessera_s", "tessera_m", "mobilenet_v2_rd"])
def test_no_spatial_kernel_of_stride_1_before_stride_8(name: str) -> None:
    layers = Arch(preset=name).layers()
    known = shapes(layers, 256, 256)
    backbone = [layer for layer in layers if not layer.name.startswith(("neck", "head"))]
    early = [layer for layer in backbone if known[layer.inputs[0]].height > 256 // 8]
    assert all(layer.stride == 2 for layer in early if layer.kernel > 1)


def test_redistributed_mobilenet_has_the_papers_patch() -> None:
    """MCUNetV2: a 15 pixel receptive field up to the first map of stride 8 (papers: 63 px patches of 7 x 7 cells)."""
    layers = Arch(preset="mobilenet_v2_rd").layers()
    assert receptive_field(layers, "block3/depthwise") == 15


def test_mobilenet_v2_backbone_macs_are_the_published_ones() -> None:
    """300 M published; the backbone here lacks the last 1x1 (20.07 M) and the classifier (1.28 M)."""
    layers = Arch(preset="mobilenet_v2").layers()
    counted = sum(count for name, count in layer_macs(layers, 224, 224).items() if not name.startswith(("neck", "head")))
    assert counted + 320 * 1280 * 49 + 1280 * 1000 == pytest.approx(300.8e6, rel=1e-3)


def test_macs_by_hand() -> None:
    arch = Arch.model_validate({"stem": {"channels": 2}, "blocks": [{"expand": 1, "channels": 4, "stride": 2}],
                                "head": {"strides": [4], "channels": [4], "repeat": 0}})
    stem, depthwise, project = 27 * 2 * 64, 9 * 2 * 16, 2 * 4 * 16
    assert macs(arch, 16, 16) == stem + depthwise + project + 4 * (1 + 4) * 16
    assert params(arch) == (27 + 1) * 2 + (9 + 1) * 2 + (2 + 1) * 4 + 5 * (4 + 1)


def test_kernel_1_leaves_the_depthwise_out() -> None:
    names = [layer.name for layer in Arch(preset="mobilenet_v2_rd").layers()]
    assert "block1/depthwise" not in names and "block2/depthwise" in names


def test_an_odd_level_crops_what_is_upsampled_onto_it() -> None:
    known = shapes(Arch(preset="tessera_s").layers(), 240, 320)
    assert known["neck16/upsample"][:2] == known["neck16/add"][:2] == (15, 20)
    assert known["head32/objectness"][:2] == (8, 10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head": {"strides": [4, 16], "channels": [8, 8]}}, r"stride 16; the backbone reaches \[2, 4, 8\]"),
        ({"head": {"strides": [4, 8], "channels": [8]}}, "1 entries for 2 strides"),
        ({"head": {"strides": [8, 4], "channels": [8, 8]}}, "ascending"),
        ({"neck": {"channels": [8]}}, "neck.channels"),
        ({"preset": "tesera_s"}, "did you mean tessera_s"),
        ({"blocks": [{"kernel": 1, "stride": 2, "channels": 8}]}, "kernel 1"),
        ({"blocks": [{"kernel": 4, "channels": 8}]}, "kernel"),
        ({"stem": {"chanels": 8}}, "did you mean stem.channels"),
    ],
)
def test_what_cannot_be_built_is_named(change: dict, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        parse(SMALL | change, Arch, "x.yaml")


def test_a_saved_arch_reads_back_equal() -> None:
    arch = Arch(preset="mobilenet_v2", width=0.35, num_classes=4)
    assert Arch.model_validate_json(arch.model_dump_json()) == arch


@pytest.mark.parametrize(("channels", "expected"), [(3, 8), (8, 8), (11.2, 16), (12, 16), (35, 32), (112, 112)])
def test_make_divisible(channels: float, expected: int) -> None:
    assert make_divisible(channels) == expected and expected >= 0.9 * channels


def test_without_a_chain_a_level_waits_for_one_coarser_level_only() -> None:
    blocks = [{"channels": 8, "stride": 2}, {"channels": 12, "stride": 2}, {"channels": 16, "stride": 2}]
    plain = {"stem": {"channels": 4}, "blocks": blocks, "head": {"strides": [4, 8, 16], "channels": [8, 8, 8]}}
    chained, near = (Arch.model_validate(plain | {"neck": {"chain": chain}}) for chain in (True, False))
    of = {arch: {layer.name: layer for layer in arch.layers()} for arch in (chained, near)}
    assert of[chained]["neck4/reduce"].inputs == ("neck8/add",) and of[near]["neck4/reduce"].inputs == ("block2/project",)
    assert of[near]["neck8/reduce"].inputs == ("block3/project",)
    order = [layer.name for layer in near.layers()]
    assert order.index("head4/box") < order.index("block3/expand") < order.index("neck8/reduce") < order.index("head16/box")
    assert macs(near, 64, 64) == macs(chained, 64, 64) and params(near) == params(chained)
    for arch in (chained, near):
        known = {INPUT}
        for layer in arch.layers():
            assert known.issuperset(layer.inputs), layer.name
            known.add(layer.name)
