"""The part of the TFLite file format (schema.fbs, version 3) that this project reads and writes, as data.

A table is a list of fields in slot order, "name:type". Types: i8 u8 i32 u32 i64 u64 f32 bool, str, [type] for vectors,
[table] and table for sub-tables. Enumerations are below. Names and numbers are TFLite's; a test holds them against the
official schema.
"""

from typing import NamedTuple


class Field(NamedTuple):
    slot: int
    type: str


def _table(*fields: str) -> dict[str, Field]:
    pairs = (field.split(":") for field in fields)
    return {name: Field(slot, kind) for slot, (name, kind) in enumerate(pairs)}


TABLES: dict[str, dict[str, Field]] = {
    "Model": _table(
        "version:u32",
        "operator_codes:[OperatorCode]",
        "subgraphs:[SubGraph]",
        "description:str",
        "buffers:[Buffer]",
        "metadata_buffer:[i32]",
        "metadata:[Metadata]",
    ),
    "OperatorCode": _table("deprecated_builtin_code:i8", "custom_code:str", "version:i32", "builtin_code:i32"),
    "SubGraph": _table("tensors:[Tensor]", "inputs:[i32]", "outputs:[i32]", "operators:[Operator]", "name:str"),
    "Tensor": _table(
        "shape:[i32]",
        "type:i8",
        "buffer:u32",
        "name:str",
        "quantization:QuantizationParameters",
        "is_variable:bool",
        "sparsity:SparsityParameters",
    ),
    "QuantizationParameters": _table(
        "min:[f32]",
        "max:[f32]",
        "scale:[f32]",
        "zero_point:[i64]",
        "details_type:u8",
        "details:table",
        "quantized_dimension:i32",
    ),
    "SparsityParameters": _table(),
    "Operator": _table(
        "opcode_index:u32",
        "inputs:[i32]",
        "outputs:[i32]",
        "builtin_options_type:u8",
        "builtin_options:table",
    ),
    "Buffer": _table("data:[u8]", "offset:u64", "size:u64"),
    "Metadata": _table("name:str", "buffer:u32"),
    "Conv2DOptions": _table(
        "padding:i8",
        "stride_w:i32",
        "stride_h:i32",
        "fused_activation_function:i8",
        "dilation_w_factor:i32",
        "dilation_h_factor:i32",
    ),
    "DepthwiseConv2DOptions": _table(
        "padding:i8",
        "stride_w:i32",
        "stride_h:i32",
        "depth_multiplier:i32",
        "fused_activation_function:i8",
        "dilation_w_factor:i32",
        "dilation_h_factor:i32",
    ),
    "Pool2DOptions": _table(
        "padding:i8",
        "stride_w:i32",
        "stride_h:i32",
        "filter_width:i32",
        "filter_height:i32",
        "fused_activation_function:i8",
    ),
    "FullyConnectedOptions": _table("fused_activation_function:i8", "weights_format:i8", "keep_num_dims:bool"),
    "AddOptions": _table("fused_activation_function:i8"),
    "SubOptions": _table("fused_activation_function:i8"),
    "MulOptions": _table("fused_activation_function:i8"),
    "ReducerOptions": _table("keep_dims:bool"),
    "SoftmaxOptions": _table("beta:f32"),
    "LeakyReluOptions": _table("alpha:f32"),
    "HardSwishOptions": _table(),
    "ConcatenationOptions": _table("axis:i32", "fused_activation_function:i8"),
    "StridedSliceOptions": _table(
        "begin_mask:i32", "end_mask:i32", "ellipsis_mask:i32", "new_axis_mask:i32", "shrink_axis_mask:i32", "offset:bool"
    ),
    "SplitOptions": _table("num_splits:i32"),
    "TransposeOptions": _table(),
    "ReshapeOptions": _table("new_shape:[i32]"),
    "PadOptions": _table(),
    "PadV2Options": _table(),
    "ResizeNearestNeighborOptions": _table("align_corners:bool", "half_pixel_centers:bool"),
    "QuantizeOptions": _table(),
}

OPTIONS_TYPE = {
    "Conv2DOptions": 1,
    "DepthwiseConv2DOptions": 2,
    "Pool2DOptions": 5,
    "FullyConnectedOptions": 8,
    "SoftmaxOptions": 9,
    "ConcatenationOptions": 10,
    "AddOptions": 11,
    "ReshapeOptions": 17,
    "MulOptions": 21,
    "PadOptions": 22,
    "TransposeOptions": 26,
    "ReducerOptions": 27,
    "SubOptions": 28,
    "StridedSliceOptions": 32,
    "SplitOptions": 35,
    "PadV2Options": 43,
    "ResizeNearestNeighborOptions": 74,
    "LeakyReluOptions": 75,
    "QuantizeOptions": 89,
    "HardSwishOptions": 91,
}

FLOAT32, INT32, UINT8, INT64, INT8 = 0, 2, 3, 4, 9
TYPE_NAMES = (
    "float32 float16 int32 uint8 int64 string bool int16 complex64 int8 float64 complex128 uint64 resource variant "
    "uint32 uint16 int4 bfloat16"
).split()

SAME, VALID = 0, 1
ACTIVATIONS = ("NONE", "RELU", "RELU_N1_TO_1", "RELU6", "TANH", "SIGN_BIT")
FILE_IDENTIFIER = b"TFL3"
FORMAT_VERSION = 3
METADATA_NAME = "tessera"

OPERATOR_NAMES = (
    "ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE EMBEDDING_LOOKUP FLOOR "
    "FULLY_CONNECTED HASHTABLE_LOOKUP L2_NORMALIZATION L2_POOL_2D LOCAL_RESPONSE_NORMALIZATION LOGISTIC "
    "LSH_PROJECTION LSTM MAX_POOL_2D MUL RELU RELU_N1_TO_1 RELU6 RESHAPE RESIZE_BILINEAR RNN SOFTMAX SPACE_TO_DEPTH "
    "SVDF TANH CONCAT_EMBEDDINGS SKIP_GRAM CALL CUSTOM EMBEDDING_LOOKUP_SPARSE PAD UNIDIRECTIONAL_SEQUENCE_RNN GATHER "
    "BATCH_TO_SPACE_ND SPACE_TO_BATCH_ND TRANSPOSE MEAN SUB DIV SQUEEZE UNIDIRECTIONAL_SEQUENCE_LSTM STRIDED_SLICE "
    "BIDIRECTIONAL_SEQUENCE_RNN EXP TOPK_V2 SPLIT LOG_SOFTMAX DELEGATE BIDIRECTIONAL_SEQUENCE_LSTM CAST PRELU MAXIMUM "
    "ARG_MAX MINIMUM LESS NEG PADV2 GREATER GREATER_EQUAL LESS_EQUAL SELECT SLICE SIN TRANSPOSE_CONV SPARSE_TO_DENSE "
    "TILE EXPAND_DIMS EQUAL NOT_EQUAL LOG SUM SQRT RSQRT SHAPE POW ARG_MIN FAKE_QUANT REDUCE_PROD REDUCE_MAX PACK "
    "LOGICAL_OR ONE_HOT LOGICAL_AND LOGICAL_NOT UNPACK REDUCE_MIN FLOOR_DIV REDUCE_ANY SQUARE ZEROS_LIKE FILL "
    "FLOOR_MOD RANGE RESIZE_NEAREST_NEIGHBOR LEAKY_RELU SQUARED_DIFFERENCE MIRROR_PAD ABS SPLIT_V UNIQUE CEIL "
    "REVERSE_V2 ADD_N GATHER_ND COS WHERE RANK ELU REVERSE_SEQUENCE MATRIX_DIAG QUANTIZE MATRIX_SET_DIAG ROUND "
    "HARD_SWISH IF WHILE NON_MAX_SUPPRESSION_V4 NON_MAX_SUPPRESSION_V5 SCATTER_ND SELECT_V2 DENSIFY SEGMENT_SUM "
    "BATCH_MATMUL PLACEHOLDER_FOR_GREATER_OP_CODES CUMSUM CALL_ONCE BROADCAST_TO RFFT2D CONV_3D IMAG REAL COMPLEX_ABS "
    "HASHTABLE HASHTABLE_FIND HASHTABLE_IMPORT HASHTABLE_SIZE REDUCE_ALL CONV_3D_TRANSPOSE VAR_HANDLE READ_VARIABLE "
    "ASSIGN_VARIABLE BROADCAST_ARGS RANDOM_STANDARD_NORMAL BUCKETIZE RANDOM_UNIFORM MULTINOMIAL GELU "
    "DYNAMIC_UPDATE_SLICE RELU_0_TO_1 UNSORTED_SEGMENT_PROD UNSORTED_SEGMENT_MAX UNSORTED_SEGMENT_SUM ATAN2 "
    "UNSORTED_SEGMENT_MIN SIGN BITCAST BITWISE_XOR RIGHT_SHIFT STABLEHLO_LOGISTIC STABLEHLO_ADD STABLEHLO_DIVIDE "
    "STABLEHLO_MULTIPLY STABLEHLO_MAXIMUM STABLEHLO_RESHAPE STABLEHLO_CLAMP STABLEHLO_CONCATENATE "
    "STABLEHLO_BROADCAST_IN_DIM STABLEHLO_CONVOLUTION STABLEHLO_SLICE STABLEHLO_CUSTOM_CALL STABLEHLO_REDUCE "
    "STABLEHLO_ABS STABLEHLO_AND STABLEHLO_COSINE STABLEHLO_EXPONENTIAL STABLEHLO_FLOOR STABLEHLO_LOG "
    "STABLEHLO_MINIMUM STABLEHLO_NEGATE STABLEHLO_OR STABLEHLO_POWER STABLEHLO_REMAINDER STABLEHLO_RSQRT "
    "STABLEHLO_SELECT STABLEHLO_SUBTRACT STABLEHLO_TANH STABLEHLO_SCATTER STABLEHLO_COMPARE STABLEHLO_CONVERT "
    "STABLEHLO_DYNAMIC_SLICE STABLEHLO_DYNAMIC_UPDATE_SLICE STABLEHLO_PAD STABLEHLO_IOTA STABLEHLO_DOT_GENERAL "
    "STABLEHLO_REDUCE_WINDOW STABLEHLO_SORT STABLEHLO_WHILE STABLEHLO_GATHER STABLEHLO_TRANSPOSE DILATE "
    "STABLEHLO_RNG_BIT_GENERATOR REDUCE_WINDOW STABLEHLO_COMPOSITE STABLEHLO_SHIFT_LEFT STABLEHLO_CBRT "
).split()
OPERATOR_CODES = {name: code for code, name in enumerate(OPERATOR_NAMES)}
