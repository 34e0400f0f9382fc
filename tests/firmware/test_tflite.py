""".tflite files: read(write(graph)) == graph, the bytes by the official schema, foreign models, damaged files."""

import warnings
from dataclasses import replace

import flatbuffers
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware.compiler import tflite_schema as schema
from firmware.compiler.flatbuffer import Table
from firmware.compiler.graph import Pad, Padding, Shape, Window
from firmware.compiler.tflite import TfliteError, graphs_equal, read_metadata, read_tflite, write_tflite
from tests.firmware.graphs import Builder, detector_graph, graphs, random_graph, same_window

official = pytest.importorskip("tflite", reason="the official schema is needed")
editor = pytest.importorskip("ai_edge_litert.schema_py_generated", reason="the official object API is needed")


def edited(data: bytes, change) -> bytes:
    """The file after change(model, subgraph), with the official object API."""
    model = editor.ModelT.InitFromObj(editor.Model.GetRootAsModel(data, 0))
    change(model, model.subgraphs[0])
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def small_graph(padding: Padding | None = None):
    """Two convolutions, a depthwise, an addition; 'first' has other padding than SAME when given."""
    b = Builder(np.random.default_rng(7), Shape(9, 8, 3))
    window = same_window(Shape(9, 8, 3), 3, 2) if padding is None else Window((3, 3), (2, 2), padding)
    b.conv("image", 4, window, "first", "RELU6")
    shape = b.shape("first")
    b.depthwise("first", same_window(shape, 5), name="second")
    b.conv("second", 4, same_window(shape, 1), "third", "NONE")
    b.add("first", "third", "sum")
    return b.graph(("sum", "third"), name="small")


@settings(deadline=None, max_examples=80)
@given(graphs(max_ops=8))
def test_read_is_the_inverse_of_write(graph):
    data = write_tflite(graph)
    assert graphs_equal(read_tflite(data), graph)
    assert write_tflite(graph) == data == write_tflite(read_tflite(data))


def test_graphs_equal_sees_differences():
    graph = small_graph()
    other = read_tflite(write_tflite(graph))
    assert graphs_equal(graph, other)
    weights = other.ops[0].params.weights
    changed = replace(weights, values=weights.values ^ np.int8(1))
    ops = (replace(other.ops[0], params=replace(other.ops[0].params, weights=changed)), *other.ops[1:])
    assert not graphs_equal(graph, replace(other, ops=ops))
    assert not graphs_equal(graph, replace(other, outputs=other.outputs[::-1]))
    assert not graphs_equal(graph, replace(other, input_is_uint8=True))


def test_cropped_upsampling_of_one_row_is_the_same_under_two_names():
    b = Builder(np.random.default_rng(0), Shape(1, 4, 2))
    b.upsample("image", (3, 2), "large", crop=(1, 1))
    graph = b.graph(("large",))
    found = read_tflite(write_tflite(graph))
    assert (found.ops[0].params.factor, found.ops[0].params.crop) == ((2, 2), (0, 1))
    assert graphs_equal(found, graph)


def test_metadata():
    graph = small_graph()
    metadata = {"classes": ["Gesicht", "голова"], "strides": [8, 16], "version": 1}
    data = write_tflite(graph, metadata)
    assert read_metadata(data) == metadata
    assert graphs_equal(read_tflite(data), graph)
    assert read_metadata(write_tflite(graph)) is None


# what is in the file, seen through the official schema


@settings(deadline=None, max_examples=30)
@given(graphs(max_ops=6))
def test_no_stray_tensors_buffers_or_operators(graph):
    data = write_tflite(graph)
    model = official.Model.GetRootAs(data, 0)
    subgraph = model.Subgraphs(0)
    used = set(subgraph.InputsAsNumpy().tolist()) | set(subgraph.OutputsAsNumpy().tolist())
    for i in range(subgraph.OperatorsLength()):
        used |= set(subgraph.Operators(i).InputsAsNumpy().tolist()) | set(subgraph.Operators(i).OutputsAsNumpy().tolist())
    assert used == set(range(subgraph.TensorsLength()))
    buffers = {subgraph.Tensors(i).Buffer() for i in range(subgraph.TensorsLength())}
    assert buffers | {0} == set(range(model.BuffersLength()))
    assert model.Buffers(0).DataLength() == 0
    codes = [model.OperatorCodes(i).BuiltinCode() for i in range(model.OperatorCodesLength())]
    assert len(set(codes)) == len(codes)
    for i in range(1, model.BuffersLength()):
        assert model.Buffers(i).Offset() == 0
        values = model.Buffers(i).DataAsNumpy()
        start = values.__array_interface__["data"][0] - np.frombuffer(data, np.uint8).__array_interface__["data"][0]
        assert start % 16 == 0, "constants lie on 16-byte boundaries"


def test_same_padding_needs_no_pad_operator_and_other_padding_does():
    count = {}
    for name, padding in {"same": None, "valid": Padding(), "mirrored": Padding(1, 1, 1, 0)}.items():
        graph = small_graph(padding)
        model = official.Model.GetRootAs(write_tflite(graph), 0)
        count[name] = model.Subgraphs(0).OperatorsLength() - len(graph.ops)
    assert count == {"same": 0, "valid": 0, "mirrored": 1}


def test_quantisation_and_versions_in_the_file():
    model = official.Model.GetRootAs(write_tflite(small_graph()), 0)
    subgraph = model.Subgraphs(0)
    assert subgraph.Name() == b"small"
    kinds = {}
    for i in range(subgraph.OperatorsLength()):
        operator = subgraph.Operators(i)
        code = model.OperatorCodes(operator.OpcodeIndex())
        assert code.DeprecatedBuiltinCode() == code.BuiltinCode()
        kinds[code.BuiltinCode()] = (code.Version(), subgraph.Tensors(operator.Inputs(1)))
    conv, depthwise = kinds[official.BuiltinOperator.CONV_2D], kinds[official.BuiltinOperator.DEPTHWISE_CONV_2D]
    assert (conv[0], depthwise[0], kinds[official.BuiltinOperator.ADD][0]) == (3, 3, 2)
    for (_, tensor), axis in ((conv, 0), (depthwise, 3)):
        quantization = tensor.Quantization()
        assert quantization.QuantizedDimension() == axis
        assert quantization.ScaleLength() == tensor.Shape(axis)
        assert quantization.ZeroPointLength() == quantization.ScaleLength() and not quantization.ZeroPointAsNumpy().any()


def test_our_schema_is_the_official_one():
    for name, number in vars(official.BuiltinOperator).items():
        if isinstance(number, int):
            assert schema.OPERATOR_NAMES[number] == name
    for name, number in schema.OPTIONS_TYPE.items():
        assert getattr(official.BuiltinOptions, name) == number
    for kind, fields in schema.TABLES.items():
        for name, (slot, _) in fields.items():
            camel = "".join(part.capitalize() for part in name.split("_"))
            constants = getattr(official, kind, None) and __import__(f"tflite.{kind}", fromlist=["x"])
            adder = getattr(constants, f"{kind}Add{camel}", None) or getattr(constants, f"Add{camel}")
            recorded = _SlotRecorder()
            adder(recorded, 1)
            assert recorded.slot == slot, f"{kind}.{name}"


class _SlotRecorder:
    """Stands in for a flatbuffers.Builder: remembers the slot that an official Add function writes."""

    slot = None

    def __getattr__(self, name):
        return lambda slot, *_: setattr(self, "slot", slot)


# other people's models


def test_one_pad_read_by_two_convolutions_is_folded_into_both():
    b = Builder(np.random.default_rng(1), Shape(8, 8, 2))
    window = Window((3, 3), (2, 2), Padding(1, 1, 0, 0))
    b.conv("image", 3, window, "left")
    b.conv("image", 2, window, "right")
    graph = b.graph(("left", "right"))

    def share(model, subgraph):
        pads = [o for o in subgraph.operators if len(o.inputs) == 2]
        convolutions = [o for o in subgraph.operators if len(o.inputs) == 3]
        convolutions[1].inputs = [pads[0].outputs[0], *convolutions[1].inputs[1:]]
        subgraph.operators.remove(pads[1])

    assert graphs_equal(read_tflite(edited(write_tflite(graph), share)), graph)


def test_pad_before_same_padding_adds_up():
    graph = small_graph(Padding(1, 1, 1, 1))

    def make_same(model, subgraph):
        subgraph.operators[1].builtinOptions.padding = schema.SAME

    # padded to 11x10; SAME at stride 2 makes 6 rows of it where the file says 5
    with pytest.raises(TfliteError, match="The output tensor has the shape"):
        read_tflite(edited(write_tflite(graph), make_same))


def test_a_cut_network():
    graph = small_graph()
    cut = read_tflite(write_tflite(graph), outputs=["second"])
    assert cut.outputs == ("second",) and [op.name for op in cut.ops] == ["first", "second"]
    with pytest.raises(TfliteError, match="no operator makes a tensor named 'nobody'"):
        read_tflite(write_tflite(graph), outputs=["nobody"])


def test_missing_bias_and_one_scale_for_all_channels():
    def simplify(model, subgraph):
        convolution = subgraph.operators[0]
        convolution.inputs = convolution.inputs[:2]
        weights = subgraph.tensors[convolution.inputs[1]].quantization
        weights.scale, weights.zeroPoint = weights.scale[:1], weights.zeroPoint[:1]

    found = read_tflite(edited(write_tflite(small_graph()), simplify)).ops[0].params.weights
    assert not found.bias.any() and len(set(found.scales.tolist())) == 1 and len(found.scales) == 4


def test_duplicate_and_empty_names_are_made_unique():
    def rename(model, subgraph):
        for tensor in subgraph.tensors:
            tensor.name = b"" if tensor.name == b"image" else b"x"

    found = read_tflite(edited(write_tflite(small_graph()), rename))
    assert found.input == "tensor0" and len(found.tensors) == 5


def _option(name, value, operator=0):
    return lambda model, subgraph: setattr(subgraph.operators[operator].builtinOptions, name, value)


def _tensor(operator, position, **fields):
    def change(model, subgraph):
        tensor = subgraph.tensors[subgraph.operators[operator].inputs[position]]
        for name, value in fields.items():
            target = tensor.quantization if name in ("scale", "zeroPoint", "quantizedDimension") else tensor
            setattr(target, name, value)

    return change


def _operator_kind(code):
    def change(model, subgraph):
        kind = model.operatorCodes[subgraph.operators[3].opcodeIndex]
        kind.builtinCode = kind.deprecatedBuiltinCode = code

    return change


def _buffer(**fields):
    return lambda model, subgraph: [setattr(model.buffers[1], name, value) for name, value in fields.items()]


REFUSED = {
    "dilated": _option("dilationHFactor", 2),
    "fused activation TANH": _option("fusedActivationFunction", 4),
    "padding mode 7": _option("padding", 7),
    r"stride \(2, 0\)": _option("strideW", 0),
    r"unsupported operator ELU \(#3, makes 'sum'\): supported are CONV_2D.*--outputs first,third": _operator_kind(111),
    "outside of the flatbuffer": _buffer(offset=4096, size=10),
    r"\(4, 3, 3, 3\) int8: 108 B, its buffer has 5": _buffer(data=np.zeros(5, np.uint8)),
    "keeps its constants outside": _buffer(size=10),
    "needs a constant as input 1": _buffer(data=None),
    "weights with zero points": _tensor(0, 1, zeroPoint=[1, 0, 0, 0]),
    "3 weight scales for 4 channels": _tensor(0, 1, scale=[1.0] * 3, zeroPoint=[0] * 3),
    "4 weight scales for 4 channels": _tensor(0, 1, quantizedDimension=1),
    "of uint8.*export the model as int8": _tensor(0, 1, type=schema.UINT8),
    "bias that is not int32|should hold constants": _tensor(0, 2, type=schema.FLOAT32),
    "grouped convolution": _tensor(0, 1, shape=[12, 3, 3, 1], scale=[1.0]),
    r"expected \(1, height, width, channels\)": _tensor(0, 0, shape=[2, 9, 8, 3]),
    "is float32 and used as such: expected int8": _tensor(0, 0, type=schema.FLOAT32),
    "is a variable": _tensor(0, 0, isVariable=True),
    "scale 0.0": _tensor(0, 0, scale=[0.0]),
    "zero point 128": _tensor(0, 0, zeroPoint=[128]),
    "2 scales": _tensor(0, 0, scale=[1.0, 1.0]),
    "subgraphs": lambda model, subgraph: model.subgraphs.append(subgraph),
    "schema version 4": lambda model, subgraph: setattr(model, "version", 4),
    "has 2 inputs": lambda model, subgraph: setattr(subgraph, "inputs", [0, 0]),
    "reads what nothing has made yet": lambda model, subgraph: subgraph.operators.reverse(),
    "has input 9999": lambda model, subgraph: setattr(subgraph.operators[0], "inputs", [9999, 1, 2]),
    "no output": lambda model, subgraph: setattr(subgraph, "outputs", []),
}


@pytest.mark.parametrize("words", REFUSED)
def test_unsupported_models_are_refused_by_name(words):
    with pytest.raises(TfliteError, match=words):
        read_tflite(edited(write_tflite(small_graph()), REFUSED[words]))


def test_what_the_operator_cannot_fold_remains():
    graph = small_graph(Padding(1, 1, 1, 0))

    def pad_with(value):
        def change(model, subgraph):
            pad = subgraph.operators[0]
            pad.inputs = [*pad.inputs, len(subgraph.tensors)]
            model.buffers.append(editor.BufferT(data=np.array([value], np.int8).view(np.uint8)))
            buffer = len(model.buffers) - 1
            subgraph.tensors.append(editor.TensorT(shape=[1], type=schema.INT8, buffer=buffer, name=b"value"))

        return edited(write_tflite(graph), change)

    assert graphs_equal(read_tflite(pad_with(0)), graph)
    other = read_tflite(pad_with(5))
    assert other.ops[0].params == Pad(Padding(1, 1, 1, 0), 5) and not any(other.ops[1].params.window.padding)

    def output_it(model, subgraph):
        subgraph.outputs = [*subgraph.outputs, subgraph.operators[0].outputs[0]]

    both = read_tflite(edited(write_tflite(graph), output_it))
    assert [op.kind for op in both.ops][:2] == ["Pad", "Conv2D"] and both.ops[1].inputs == ("image",)

    def rescale_it(model, subgraph):
        subgraph.tensors[subgraph.operators[0].outputs[0]].quantization.scale = [0.25]

    with pytest.raises(TfliteError, match="changes the quantisation of image"):
        read_tflite(edited(write_tflite(graph), rescale_it))


def test_a_maximum_behind_padding_with_the_zero_point_keeps_the_pad():
    """It would see zero points where the Graph's own padding is nothing at all."""
    b = Builder(np.random.default_rng(0), Shape(8, 8, 2))
    b.pool("image", Window((3, 3), (2, 2), Padding(1, 1, 0, 0)), "most")
    graph = b.graph(("most",))
    assert graphs_equal(read_tflite(write_tflite(graph)), graph)

    def pad_with_zero_point(model, subgraph):
        subgraph.operators[0].inputs = subgraph.operators[0].inputs[:2]

    found = read_tflite(edited(write_tflite(graph), pad_with_zero_point))
    assert [op.kind for op in found.ops] == ["Pad", "MaxPool2D"]


# damaged files


def _read_or_refuse(data: bytes) -> None:
    for reader in (read_tflite, read_metadata):
        try:
            reader(data)
        except TfliteError as error:
            assert len(str(error)) < 2000 and "\n" not in str(error)


@pytest.fixture(scope="module")
def file() -> bytes:
    return write_tflite(random_graph(np.random.default_rng(11), 8), {"classes": ["face"]})


def test_every_truncation_is_refused_or_readable(file):
    for size in [*range(0, 64), *range(64, len(file), 97)]:
        _read_or_refuse(file[:size])
    with pytest.raises(TfliteError):
        read_tflite(file[: len(file) // 2])


def test_garbage_is_refused():
    rng = np.random.default_rng(0)
    for size in (0, 1, 7, 8, 9, 64, 4096):
        with pytest.raises(TfliteError):
            read_tflite(rng.bytes(size))
        _read_or_refuse(b"\0\0\0\0TFL3" + rng.bytes(size))
        _read_or_refuse(bytes(size))
    _read_or_refuse(b"\x08\0\0\0TFL3" + b"\xff" * 64)


@pytest.mark.parametrize("seed", range(8))
def test_random_damage_is_refused_or_readable(file, seed):
    rng = np.random.default_rng(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(150):
            damaged = bytearray(file)
            for _ in range(rng.integers(1, 6)):
                if rng.random() < 0.5:
                    damaged[rng.integers(8, len(file))] ^= 1 << rng.integers(8)
                else:  # a whole number: offsets, counts, scales
                    at = int(rng.integers(2, len(file) // 4)) * 4
                    number = int(rng.choice([0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000, 65536]))
                    damaged[at : at + 4] = number.to_bytes(4, "little")
            _read_or_refuse(bytes(damaged))


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused(data):
    with pytest.raises(TfliteError):
        read_tflite(data)


@pytest.mark.parametrize("name", ["two\nlines", "\x1b[2J", "x" * 5000])
def test_names_in_messages_are_one_line_of_readable_length(name):
    def rename(model, subgraph):
        subgraph.tensors[subgraph.inputs[0]].name = name
        subgraph.tensors[subgraph.inputs[0]].shape = [1, 9]

    with pytest.raises(TfliteError, match="expected .1, height, width, channels") as caught:
        read_tflite(edited(write_tflite(small_graph()), rename))
    assert len(str(caught.value)) < 2000 and str(caught.value).isprintable()


def test_a_claimed_huge_vector_is_no_work():
    graph = detector_graph(np.random.default_rng(0), 32, 32)
    data = bytearray(write_tflite(graph))
    root = Table.root(bytes(data), "Model", schema.TABLES).tables("subgraphs")[0]
    start, _ = root._vector(schema.TABLES["SubGraph"]["operators"].slot, 4, "operators")
    data[start - 4 : start] = (2**30).to_bytes(4, "little")
    with pytest.raises(TfliteError, match="cut off or damaged"):
        read_tflite(bytes(data))
