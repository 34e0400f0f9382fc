"""A .tflite file, ours or other people's -> Graph.

Which operators are read is `tflite_operators.READ`; all int8. Nothing remains of QUANTIZE and DEQUANTIZE at the network's edges
(the Graph begins and ends in int8), of PAD in front of a convolution or maximum, and of RESHAPE and TRANSPOSE that move no
bytes. Everything else is a TfliteError that names the operator. Other networks can be cut: `read_tflite(data, outputs=[...])`.
"""

from collections.abc import Sequence

from firmware.compiler import tflite_schema as schema
from firmware.compiler.flatbuffer import FlatbufferError
from firmware.compiler.graph import Graph, GraphError, Op
from firmware.compiler.tflite_import import Import
from firmware.compiler.tflite_operators import READ
from firmware.compiler.tflite_parse import File, FileOperator, TfliteError, parse
from firmware.compiler.verify import verify

WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def read_tflite(data: bytes, outputs: Sequence[str] | None = None) -> Graph:
    """The network in a .tflite file, verified.

    `outputs` names tensors to end at instead of the file's own outputs; operators behind them are ignored. Raises
    TfliteError for damaged files and unsupported networks, never anything else.
    """
    file = parse(bytes(data))
    try:
        return verify(_graph(file, file.outputs if outputs is None else file.named(outputs)))
    except (FlatbufferError, GraphError) as error:
        if isinstance(error, TfliteError):
            raise
        raise TfliteError(str(error)) from error


def _graph(file: File, outputs: tuple[int, ...]) -> Graph:
    if len(file.inputs) != 1:
        raise TfliteError(f"the network has {len(file.inputs)} inputs, one picture is supported")
    needed = _ancestors(file, outputs)
    operators = [operator for operator in file.operators if not needed.isdisjoint(operator.outputs)]
    _refuse_uint8(file, operators)
    net = Import(file, outputs)
    if file.tensors[file.inputs[0]].type == schema.INT8:
        net.set_input(file.inputs[0])
    for operator in operators:
        if len(operator.outputs) != 1 and operator.kind != "SPLIT":
            raise TfliteError(f"{operator.kind} (#{operator.index}) makes {len(operator.outputs)} tensors, one is supported")
        if operator.kind not in READ:
            raise _unsupported(net, operator)
        READ[operator.kind](net, operator)
    if net.input is None:
        raise net.bad_input()
    names = []
    for index in outputs:
        net.view(index, "the network")
        names.append(net.in_order(index, "the network").name)
    ops = _read_by_someone(net.in_file_order(), names)
    made = {net.input, *(op.output for op in ops)}
    tensors = {name: tensor for name, tensor in net.tensors.items() if name in made}
    return Graph(tensors, ops, net.input, tuple(names), net.input_is_uint8, file.name or "model")


def _read_by_someone(ops: tuple[Op, ...], outputs: Sequence[str]) -> tuple[Op, ...]:
    """Without those whose results nobody reads, such as parts that a SPLIT makes for no one."""
    needed = set(outputs)
    for op in reversed(ops):
        if op.output in needed:
            needed.update(op.inputs)
    return tuple(op for op in ops if op.output in needed)


def _refuse_uint8(file: File, operators: list[FileOperator]) -> None:
    """The scheme of 2018, with uint8 weights that have zero points."""
    first = file.tensors[file.inputs[0]]
    for operator in operators:
        if operator.kind in WEIGHTED and len(operator.inputs) > 1 and first.type == schema.UINT8:
            weights = file.tensors[operator.inputs[1]]
            if operator.inputs[1] >= 0 and weights.type == schema.UINT8:
                raise TfliteError(
                    f"{operator.kind} (#{operator.index}) has weights {weights} of uint8 with zero points, TensorFlow's scheme "
                    "of 2018: convert the float model again with full int8 quantisation (TFLiteConverter with "
                    "target_spec.supported_ops = [TFLITE_BUILTINS_INT8]); input and output may stay uint8"
                )


def _unsupported(net: Import, operator: FileOperator) -> TfliteError:
    made = net.file.tensors[operator.outputs[0]]
    ends = [net.file.tensors[index].short_name for index in operator.inputs if index in net.views]
    cut = f"; to compile what comes before it, cut the network: --outputs {','.join(ends)}" if ends else ""
    return TfliteError(
        f"unsupported operator {operator.kind} (#{operator.index}, makes {made}): supported are {', '.join(READ)}{cut}"
    )


def _ancestors(file: File, outputs: tuple[int, ...]) -> set[int]:
    """Tensors that the outputs depend on, the outputs included."""
    needed = set(outputs)
    for operator in reversed(file.operators):
        if not needed.isdisjoint(operator.outputs):
            needed.update(operator.inputs)
    return needed
