"""Operators that our writer does not write: what other people's files say with SPLIT, TRANSPOSE, RESHAPE and QUANTIZE."""

import numpy as np
import pytest

from firmware.compiler import tflite_schema as schema
from firmware.compiler.graph import Quantization, Shape
from firmware.compiler.interpreter import Interpreter
from firmware.compiler.judges import run_litert_ref, run_tflm
from firmware.compiler.tflite import TfliteError, read_tflite, write_tflite
from tests.firmware.graphs import Builder, random_image, same_window
from tests.firmware.test_tflite import edited, editor

pytest.importorskip("ai_edge_litert", reason="LiteRT is the judge")
pytest.importorskip("tflite_micro", reason="TFLM is the judge")


class Editing:
    """Appends tensors and operators to a file in official objects."""

    def __init__(self, model, subgraph) -> None:
        self.model, self.subgraph = model, subgraph

    def tensor(self, name: str, shape: tuple[int, ...], quant: Quantization | None, kind: int = schema.INT8, data=None) -> int:
        tensor = editor.TensorT(name=name.encode(), shape=list(shape), type=kind, buffer=0)
        if quant is not None:
            tensor.quantization = editor.QuantizationParametersT(scale=[quant.scale], zeroPoint=[quant.zero_point])
        if data is not None:
            self.model.buffers.append(editor.BufferT(data=np.ascontiguousarray(data).reshape(-1).view(np.uint8)))
            tensor.buffer = len(self.model.buffers) - 1
        self.subgraph.tensors.append(tensor)
        return len(self.subgraph.tensors) - 1

    def integers(self, name: str, values: list[int]) -> int:
        return self.tensor(name, (len(values),), None, schema.INT32, np.array(values, "<i4"))

    def operator(self, kind: str, inputs: list[int], outputs: list[int], options: str = "", version: int = 2, **fields) -> None:
        code = schema.OPERATOR_CODES[kind]
        record = editor.OperatorCodeT(builtinCode=code, deprecatedBuiltinCode=min(code, 127), version=version)
        self.model.operatorCodes.append(record)
        made = editor.OperatorT(opcodeIndex=len(self.model.operatorCodes) - 1, inputs=inputs, outputs=outputs)
        if options:
            made.builtinOptionsType = getattr(editor.BuiltinOptions, options)
            made.builtinOptions = getattr(editor, options + "T")(**fields)
        self.subgraph.operators.append(made)


def start(channels: int = 6):
    """A network of one convolution, the number of its output in the file, and its tensor."""
    b = Builder(np.random.default_rng(3), Shape(4, 6, 3))
    b.conv("image", channels, same_window(Shape(4, 6, 3), 3), "body", "NONE")
    graph = b.graph(("body",))
    return write_tflite(graph), graph.tensors["body"]


def judge(data: bytes, litert: bool = True):
    """The graph that was read, after comparing it with the judges on the file as it is."""
    graph = read_tflite(data)
    image = random_image(np.random.default_rng(1), graph)
    found = Interpreter(graph).run(image)
    for answers in (run_tflm(data, image), *([run_litert_ref(data, image)] if litert else [])):
        for name, values in zip(graph.outputs, answers, strict=True):
            np.testing.assert_array_equal(found[name], values, err_msg=name)
    return graph


@pytest.mark.parametrize("axis", [1, 2, 3, -1])
def test_split_becomes_slices(axis: int) -> None:
    data, body = start()
    size = [1, *body.shape]
    size[axis] //= 2

    def change(model, subgraph) -> None:
        edit = Editing(model, subgraph)
        parts = [edit.tensor(f"part{n}", tuple(size), body.quant) for n in range(2)]
        dim = edit.tensor("axis", (1,), None, schema.INT32, np.array([axis], "<i4"))
        edit.operator("SPLIT", [dim, subgraph.outputs[0]], parts, "SplitOptions", numSplits=2)
        subgraph.outputs = parts[:kept]

    kept = 2
    graph = judge(edited(data, change))
    assert [op.kind for op in graph.ops] == ["Conv2D", "Slice", "Slice"]
    kept = 1  # nobody reads the second part
    graph = judge(edited(data, change))
    assert [op.kind for op in graph.ops] == ["Conv2D", "Slice"] and "part1" not in graph.tensors


def test_many_inputs_are_joined_step_by_step() -> None:
    data, body = start()

    def change(model, subgraph) -> None:
        edit = Editing(model, subgraph)
        joined = edit.tensor("joined", (1, 4, 6, 54), body.quant)
        edit.operator("CONCATENATION", [subgraph.outputs[0]] * 9, [joined], "ConcatenationOptions", axis=-1)
        subgraph.outputs = [joined]

    graph = judge(edited(data, change))
    assert [len(op.inputs) for op in graph.ops] == [1, 4, 4, 3]


def flat_classifier(order: list[int]):
    """Convolution, TRANSPOSE, flattening, FULLY_CONNECTED, as PyTorch's exporters write it."""
    data, body = start(3)
    sides = [1, *body.shape]

    def change(model, subgraph) -> None:
        edit, last = Editing(model, subgraph), subgraph.outputs[0]
        turned = edit.tensor("turned", tuple(sides[n] for n in order), body.quant)
        edit.operator("TRANSPOSE", [last, edit.integers("order", order)], [turned], "TransposeOptions")
        flat = edit.tensor("flat", (1, body.shape.size), body.quant)
        edit.operator("RESHAPE", [turned, edit.integers("shape", [1, body.shape.size])], [flat], "ReshapeOptions", version=1)
        weights = np.random.default_rng(0).integers(-127, 128, (5, body.shape.size), dtype=np.int8)
        scale = Quantization(float(np.float32(0.01)), 0)
        constants = [edit.tensor("w", weights.shape, scale, data=weights)]
        bias_scale = Quantization(body.quant.scale * 0.01, 0)
        constants.append(edit.tensor("b", (5,), bias_scale, schema.INT32, np.arange(5, dtype="<i4")))
        answer = edit.tensor("answer", (1, 5), Quantization(float(np.float32(body.quant.scale * 5)), 3))
        edit.operator("FULLY_CONNECTED", [flat, *constants], [answer], "FullyConnectedOptions", version=4)
        subgraph.outputs = [answer]

    return edited(data, change)


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [0, 3, 1, 2], [0, 2, 1, 3]])
def test_weights_turn_instead_of_maps(order: list[int]) -> None:
    graph = judge(flat_classifier(order), litert=False)
    assert [op.kind for op in graph.ops] == ["Conv2D", "FullyConnected"]


@pytest.mark.parametrize("order", [[0, 2, 1, 3], [0, 3, 1, 2], [0, 3, 2, 1]])
def test_a_transpose_moves_bytes_where_it_matters(order: list[int]) -> None:
    """Two readers of one transposed map: the output, and a softmax over what are its last sides now."""
    data, body = start()
    sides = [1, *body.shape]

    def change(model, subgraph) -> None:
        edit, size = Editing(model, subgraph), tuple(sides[n] for n in order)
        turned = edit.tensor("turned", size, body.quant)
        edit.operator("TRANSPOSE", [subgraph.outputs[0], edit.integers("order", order)], [turned], "TransposeOptions")
        shares = edit.tensor("shares", size, Quantization(1 / 256, -128))
        edit.operator("SOFTMAX", [turned], [shares], "SoftmaxOptions", beta=1.0)
        subgraph.outputs = [turned, shares]

    graph = judge(edited(data, change))
    assert {op.kind for op in graph.ops} == {"Conv2D", "Transpose", "Softmax"}


def with_constant(values: np.ndarray, first: bool) -> bytes:
    """A convolution of (4, 6, 6), less a constant, or a constant less it."""
    data, body = start()

    def change(model, subgraph) -> None:
        edit = Editing(model, subgraph)
        constant = edit.tensor("constant", values.shape, Quantization(0.25, -9), data=values.astype(np.int8))
        made = edit.tensor("made", (1, *body.shape), Quantization(body.quant.scale * 2, 11))
        pair = [constant, subgraph.outputs[0]] if first else [subgraph.outputs[0], constant]
        edit.operator("SUB", pair, [made], "SubOptions")
        subgraph.outputs = [made]

    return edited(data, change)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("shape", [(6,), (1, 1, 1, 6)])
def test_a_constant_a_channel(shape: tuple[int, ...], first: bool) -> None:
    graph = judge(with_constant(np.arange(-60, 60, 20).reshape(shape), first))
    assert [op.kind for op in graph.ops] == ["Conv2D", "Sub"] and graph.ops[1].params.operand.first == first


def test_a_constant_a_pixel_is_refused_with_both_shapes() -> None:
    with pytest.raises(TfliteError, match=r"SUB .*'constant' of int8 \(1, 4, 6, 1\) beside a map of \(4, 6, 6\).* each channel"):
        read_tflite(with_constant(np.zeros((1, 4, 6, 1)), False))


def test_flat_outputs_need_no_operator_and_cut_channels_need_one() -> None:
    data, body = start()

    def change(model, subgraph) -> None:
        edit, last = Editing(model, subgraph), subgraph.outputs[0]
        flat = edit.tensor("flat", (1, 144), body.quant)
        edit.operator("RESHAPE", [last, edit.integers("a", [1, 144])], [flat], "ReshapeOptions", version=1)
        boxes = edit.tensor("boxes", (1, 48, 3), body.quant)
        edit.operator("RESHAPE", [last, edit.integers("b", [1, 48, 3])], [boxes], "ReshapeOptions", version=1)
        subgraph.outputs = [flat, boxes]

    graph = judge(edited(data, change))
    assert [op.kind for op in graph.ops] == ["Conv2D", "Reshape"] and graph.outputs == ("body", "boxes")


def test_requantising_inside_and_at_a_uint8_output() -> None:
    data, body = start()

    def change(model, subgraph) -> None:
        edit, last = Editing(model, subgraph), subgraph.outputs[0]
        inside = edit.tensor("inside", (1, *body.shape), Quantization(float(np.float32(body.quant.scale * 1.3)), 5))
        edit.operator("QUANTIZE", [last], [inside], "QuantizeOptions")
        other = Quantization(float(np.float32(body.quant.scale * 0.9)), 120)
        unsigned = edit.tensor("unsigned", (1, *body.shape), other, schema.UINT8)
        edit.operator("QUANTIZE", [inside], [unsigned], "QuantizeOptions")
        subgraph.outputs = [unsigned]

    graph = judge(edited(data, change))
    assert [op.kind for op in graph.ops] == ["Conv2D", "Lookup", "Lookup"]


@pytest.mark.parametrize("name", ["mobilenet_v1_0.5_160_quant_uint8", "mobilenet_v2_1.0_224_quant_uint8"])
def test_uint8_networks_are_refused_with_a_way_out(shared_data, name: str) -> None:
    with pytest.raises(TfliteError, match="of uint8 with zero points.*convert the float model again.*TFLITE_BUILTINS_INT8"):
        read_tflite((shared_data / "models" / f"{name}.tflite").read_bytes())
