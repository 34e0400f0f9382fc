"""ImageNet weights as a start: the file's network unsliced, its moments when sliced, identities for what it has not."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from datasets.catalog import open_dataset
from datasets.config import load_data_config
from detection import imagenet
from detection.arch import Arch
from detection.calibration import Convolution
from detection.imagenet import SOURCE, ImagenetError, read_weights, slice_weights, start_from_imagenet
from detection.model.detector import Detector, normalise
from detection.quantize import FoldedDetector, fold_batch_norm
from firmware.compiler.preprocess import letterbox
from tests.detection.small_detector import make_frames

SIDE = 64
NARROW = Arch(preset="mobilenet_v2_rd", width=0.35, num_classes=3)


@pytest.fixture(scope="module")
def weights() -> dict[str, Convolution]:
    """A whole MobileNetV2 with random weights and batch norms, folded."""
    torch.manual_seed(0)
    detector = Detector(SOURCE)
    for unit in detector.convs.values():
        if unit.norm is not None:
            torch.nn.init.uniform_(unit.norm.weight, 0.5, 1.5)
            torch.nn.init.normal_(unit.norm.bias, std=0.3)
    return {name: fold_batch_norm(unit) for name, unit in detector.convs.items() if unit.norm is not None}


def pictures(frames: list[np.ndarray]) -> torch.Tensor:
    return normalise(torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2))


def before_activation(detector: Detector, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Output of every convolution with its batch norm, in evaluation mode."""
    found: dict[str, torch.Tensor] = {}
    for name, unit in detector.convs.items():
        if unit.norm is not None:
            unit.norm.register_forward_hook(lambda _, __, out, name=name: found.update({name: out.clone()}))
    with torch.no_grad():
        detector.eval()(x)
    return found


def test_unsliced_the_backbone_computes_the_files_network(weights) -> None:
    frames = make_frames(4, SIDE, SIDE)
    detector = Detector(SOURCE.with_classes(5)).eval()
    start_from_imagenet(detector, weights, frames)
    whole = FoldedDetector(SOURCE)
    whole.load_convolutions({**whole.convolutions(), **weights})
    other = pictures(make_frames(2, SIDE, SIDE, seed=7))  # not those that the statistics are of
    with torch.no_grad():
        expected = whole.eval().activations(other)
        found = FoldedDetector.of(detector).activations(other)
    for name in ("stem", "block3/add", "block9/add", "block17/project"):
        assert torch.allclose(found[name], expected[name], atol=2e-3 * float(expected[name].abs().max())), name


def test_sliced_channels_have_the_moments_of_the_whole_network(weights) -> None:
    frames = make_frames(4, SIDE, SIDE)
    whole = Detector(SOURCE)
    start_from_imagenet(whole, weights, frames)
    narrow = Detector(NARROW)
    start_from_imagenet(narrow, weights, frames)
    expected, found = before_activation(whole, pictures(frames)), before_activation(narrow, pictures(frames))
    parts = slice_weights(NARROW, weights)
    checked = 0
    for name, part in parts.items():
        if part is not None:
            ours, theirs = found[name], expected[part.source][:, part.channels]
            assert torch.allclose(ours.mean((0, 2, 3)), theirs.mean((0, 2, 3)), atol=1e-3), name
            same = torch.isclose(ours.var((0, 2, 3)), theirs.var((0, 2, 3)), rtol=0.02, atol=1e-4)
            assert same.float().mean() > 0.7, name  # what hardly moves is not stretched at will
            checked += int(same.sum())
    assert checked > 1000


def test_refitting_comes_nearer_to_the_whole_network(weights, monkeypatch) -> None:
    """Where 1x1 convolutions are refitted, their outputs are closer to the whole network's, on other pictures too."""
    whole = Detector(SOURCE)
    start_from_imagenet(whole, weights, make_frames(8, SIDE, SIDE))
    other = pictures(make_frames(4, SIDE, SIDE, seed=9))
    expected, errors = before_activation(whole, other), []
    for ridge in (imagenet._RIDGE, 1e9):  # so firm that nothing is refitted
        monkeypatch.setattr(imagenet, "_RIDGE", ridge)
        narrow = Detector(Arch(preset="mobilenet_v2", width=0.75))
        start_from_imagenet(narrow, weights, make_frames(8, SIDE, SIDE))
        found, part = before_activation(narrow, other), slice_weights(narrow.arch, weights)["block5/project"]
        errors.append(float((found["block5/project"] - expected["block5/project"][:, part.channels]).square().mean()))
    assert errors[0] < 0.8 * errors[1]


def test_channels_are_cut_alike_wherever_they_are_added_and_read(weights) -> None:
    parts = slice_weights(NARROW, weights)
    streams = {n: parts[f"block{n}/project"] for n in range(1, 19) if parts[f"block{n}/project"] is not None}
    for first, last in ((3, 5), (6, 9), (12, 14), (15, 17)):  # 32, 64, 96 and 160 channels in the whole network
        for n in range(first, last + 1):
            assert np.array_equal(streams[n].channels, streams[first].channels)
    for name, part in parts.items():
        if part is None or not name.endswith("/expand"):
            continue
        source = parts[f"block{int(name[5:-7]) - 1}/project"]
        if source is not None:
            theirs = weights[part.source].weight
            assert np.array_equal(part.weight, theirs[part.channels][:, source.channels])


def test_the_most_read_channels_are_kept(weights) -> None:
    loud = {name: Convolution(one.weight.copy(), one.bias) for name, one in weights.items()}
    for name in ("block5/expand", "block6/expand", "block7/expand"):  # all readers of the 32 channels
        loud[name].weight[:, [3, 17, 30]] *= 100
    kept = slice_weights(NARROW, loud)["block3/project"].channels
    assert {3, 17, 30} <= set(kept.tolist())
    assert len(kept) == NARROW.blocks[2].channels and (np.diff(kept) > 0).all()


def test_further_blocks_start_as_identities(weights) -> None:
    detector = Detector(NARROW)
    start_from_imagenet(detector, weights, make_frames(2, SIDE, SIDE))
    names = [name for name, part in slice_weights(NARROW, weights).items() if part is None]
    assert names == ["block10/project", "block11/project"]
    with torch.no_grad():
        maps = FoldedDetector.of(detector).activations(pictures(make_frames(1, SIDE, SIDE)))
    assert torch.equal(maps["block11/add"], maps["block9/add"])
    detector.train()(pictures(make_frames(2, SIDE, SIDE)))[0].square().sum().backward()
    assert float(detector.convs["block11/project"].norm.weight.grad.abs().max()) > 0  # and learn


def test_a_left_out_depthwise_leaves_its_gain(weights) -> None:
    part = slice_weights(Arch(preset="mobilenet_v2_rd"), weights)["block1/project"]
    gain = weights["block1/depthwise"].weight.sum((1, 2, 3))
    assert np.allclose(part.weight[:, :, 0, 0], weights["block1/project"].weight[:, :, 0, 0] * gain)


def test_larger_kernels_hold_the_smaller_one_in_their_middle(weights) -> None:
    blocks = [block.model_copy(update={"kernel": 5}) if n == 4 else block for n, block in enumerate(SOURCE.blocks)]
    part = slice_weights(SOURCE.model_copy(update={"blocks": tuple(blocks)}), weights)["block11/depthwise"]
    assert part.weight.shape[2:] == (5, 5)
    assert np.array_equal(part.weight[:, :, 1:-1, 1:-1], weights["block11/depthwise"].weight)
    assert (part.weight[:, :, 0] == 0).all()


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        (Arch(preset="tessera_s"), "not MobileNetV2's: seven groups"),
        (Arch(preset="mobilenet_v2", width=1.4), "stem.channels is 48, MobileNetV2 has 32"),
    ],
)
def test_other_detectors_are_refused(arch: Arch, message: str, weights) -> None:
    with pytest.raises(ImagenetError, match=message):
        slice_weights(arch, weights)


def test_torchvisions_weights(tmp_path) -> None:
    """Its stem pads on both sides and sees (x / 255 - mean) / deviation; block 2 has no stride and pads as ours."""
    from torchvision.models import mobilenet_v2

    torch.manual_seed(1)
    model = mobilenet_v2()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.running_mean, std=0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    torch.save(model.state_dict(), tmp_path / "w.pth")
    found = read_weights(tmp_path / "w.pth")
    frame = make_frames(1, 16, 16)[0]
    ours = F.conv2d(pictures([frame]), torch.from_numpy(found["stem"].weight), torch.from_numpy(found["stem"].bias), 2)
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    seen = ((torch.from_numpy(frame) / 255 - mean) / deviation).permute(2, 0, 1)[None]
    model.eval()
    with torch.no_grad():
        theirs = model.features[0][1](F.conv2d(seen, model.features[0][0].weight, None, 2))
        assert torch.allclose(ours, theirs, atol=1e-4)
        x = torch.rand(1, 32, 9, 9)
        one, two = (map(torch.from_numpy, vars(found[f"block1/{kind}"]).values()) for kind in ("depthwise", "project"))
        y = F.conv2d(F.relu6(F.conv2d(x, *one, padding=1, groups=32)), *two)
        assert torch.allclose(y, model.features[1](x), atol=1e-4)


def test_wrong_files_are_named(tmp_path, shared_data) -> None:
    with pytest.raises(ImagenetError, match="no such file"):
        read_weights(tmp_path / "none.tflite")
    (tmp_path / "broken.tflite").write_bytes(b"nothing at all")
    with pytest.raises(ImagenetError, match="broken.tflite: this is no .tflite"):
        read_weights(tmp_path / "broken.tflite")
    torch.save({"features.0.0.weight": torch.zeros(3, 3, 3, 3)}, tmp_path / "x.pth")
    with pytest.raises(ImagenetError, match="no state dict of torchvision's mobilenet_v2"):
        read_weights(tmp_path / "x.pth")
    with pytest.raises(ImagenetError, match="no MobileNetV2 1.0: 'stem' would have weights"):
        read_weights(shared_data / "models" / "mcunet_vww1_80.tflite")


@pytest.mark.parametrize("file", ["mobilenet_v2_1.0_224_ptq", "mobilenet_v2_1.0_224_quant_uint8"])
def test_published_files_still_know_their_classes(file: str, shared_data) -> None:
    """The backbone started from the file, followed by the file's last 1x1 and classifier, names what LiteRT names."""
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    path = shared_data / "models" / f"{file}.tflite"
    config = load_data_config("configs/data/voc9.yaml")
    train = open_dataset(config, "train", 4)
    frames = [letterbox(train[i].image, 224, 224) for i in range(4)]
    detector = Detector(SOURCE)
    start_from_imagenet(detector, read_weights(path), frames)
    last, classifier = imagenet._read_tflite(path)[0][51:53]
    with torch.no_grad():
        features = FoldedDetector.of(detector.eval()).activations(pictures(frames))["block17/project"]
        pooled = F.relu6(F.conv2d(features, torch.from_numpy(last.weight), torch.from_numpy(last.bias))).mean((2, 3))
        scores = F.linear(pooled, torch.from_numpy(classifier.weight[:, :, 0, 0]), torch.from_numpy(classifier.bias))
    interpreter = litert.Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    for frame, row in zip(frames, scores, strict=True):
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], frame[None])
        interpreter.invoke()
        theirs = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0]
        assert int(theirs.argmax()) in row.topk(3).indices.tolist()


def test_training_starts_from_an_imagenet_file(tmp_path) -> None:
    from torchvision.models import mobilenet_v2

    from detection.config import load_config
    from detection.distributed import World
    from detection.trainer import make_trainer

    torch.manual_seed(2)
    torch.save(mobilenet_v2().state_dict(), tmp_path / "w.pth")
    config = load_config("configs/tiny.yaml", [f"train.init={tmp_path / 'w.pth'}"])
    config = config.model_copy(update={"arch": Arch(preset="mobilenet_v2_rd", width=0.1)})
    data = load_data_config(config.data)
    trainer = make_trainer(config, open_dataset(data, "train", 16), open_dataset(data, "val", 2), tmp_path, World())
    trainer.start()
    expected = slice_weights(trainer.arch, read_weights(tmp_path / "w.pth"))["block4/depthwise"].weight
    for model in (trainer.model, trainer.ema.model):
        assert np.allclose(model.convs["block4/depthwise"].conv.weight.detach().numpy(), expected)
