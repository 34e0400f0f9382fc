"""Keras networks with random weights as int8 .tflite files, converted by TensorFlow: `python benchmarks/keras_models.py`.

The only file that imports TensorFlow, and it imports nothing of ours: `keras_zoo.py` runs it in a process of its own, by any
Python that has TensorFlow. Writes OUT/NAME.tflite for each name that is asked for.
"""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from keras import layers  # noqa: E402

SEED = 0
CALIBRATION = 4  # pictures

APPLICATIONS: dict[str, tuple[str, int, dict]] = {  # name -> (function of keras.applications, side of the picture, arguments)
    "mobilenet_v1_0.25": ("MobileNet", 96, {"alpha": 0.25}),
    "mobilenet_v2_0.35": ("MobileNetV2", 96, {"alpha": 0.35}),
    "mobilenet_v3_small": ("MobileNetV3Small", 96, {}),
    "mobilenet_v3_small_minimalistic": ("MobileNetV3Small", 96, {"minimalistic": True}),
    "efficientnet_b0": ("EfficientNetB0", 96, {}),
    "efficientnet_v2_b0": ("EfficientNetV2B0", 64, {}),
    "resnet50": ("ResNet50", 64, {}),
    "resnet50_v2": ("ResNet50V2", 64, {}),
    "densenet121": ("DenseNet121", 64, {}),
    "nasnet_mobile": ("NASNetMobile", 96, {}),
    "xception": ("Xception", 96, {}),
    "inception_v3": ("InceptionV3", 96, {}),
    "convnext_tiny": ("ConvNeXtTiny", 64, {}),
}


PREPROCESSING = tuple(name for name in APPLICATIONS if name.startswith(("mobilenet_v3", "efficientnet", "convnext")))


def _graph(change: Callable, size: tuple[int, int] = (12, 10), channels: int = 8) -> keras.Model:
    """A convolution, what is asked about, and a convolution behind it where the result is a map."""
    picture = keras.Input(batch_shape=(1, *size, 3))
    made = change(layers.Conv2D(channels, 3, padding="same")(picture))
    if not isinstance(made, list) and len(made.shape) == 4:
        made = layers.Conv2D(4, 3, padding="same")(made)
    return keras.Model(picture, made)


def _op(function: Callable) -> Callable:
    return lambda x: layers.Lambda(function)(x)


def _constant(shape: tuple[int, ...]) -> tf.Tensor:
    return tf.constant(np.random.default_rng(SEED).normal(0, 1, shape), tf.float32)


def _ssd_heads(x):
    """Boxes of two levels, flattened and joined: the end of nearly every SSD."""
    small = layers.Conv2D(8, 3, strides=2, padding="same")(x)
    maps = [layers.Conv2D(12, 3, padding="same")(level) for level in (x, small)]
    return layers.Concatenate(axis=1)([layers.Reshape((-1, 4))(level) for level in maps])


GRAPHS: dict[str, Callable] = {
    "concat_channels": lambda x: layers.Concatenate()([x, layers.Conv2D(4, 1)(x)]),
    "concat_rows": lambda x: layers.Concatenate(axis=1)([x, layers.Conv2D(8, 3, strides=(2, 1), padding="same")(x)]),
    "concat_columns": lambda x: layers.Concatenate(axis=2)([x, layers.Conv2D(8, 3, strides=(1, 2), padding="same")(x), x]),
    "ssd_heads": _ssd_heads,
    "mean_channels": _op(lambda x: tf.reduce_mean(x, axis=3, keepdims=True)),
    "mean_all": _op(lambda x: tf.reduce_mean(x, axis=[1, 2, 3], keepdims=True)),
    "mean_rows": _op(lambda x: tf.reduce_mean(x, axis=1, keepdims=True)),
    "global_average_pool": lambda x: layers.Dense(5)(layers.GlobalAveragePooling2D()(x)),
    "spatial_attention": lambda x: layers.Multiply()(
        [x, layers.Conv2D(1, 5, padding="same", activation="sigmoid")(_op(lambda t: tf.reduce_mean(t, 3, keepdims=True))(x))]
    ),
    "squeeze_excite": lambda x: layers.Multiply()(
        [x, layers.Dense(8, activation="sigmoid")(layers.GlobalAveragePooling2D(keepdims=True)(x))]
    ),
    "transpose_rows_columns": _op(lambda x: tf.transpose(x, (0, 2, 1, 3))),
    "transpose_to_nchw": lambda x: [_op(lambda t: tf.transpose(t, (0, 3, 1, 2)))(x)],
    "split": lambda x: layers.Add()(_op(lambda t: tf.split(t, 2, axis=3))(x)),
    "strided_slice": _op(lambda x: x[:, 1:-2, 2:, 1:7]),
    "strided_slice_by_two": _op(lambda x: x[:, ::2, ::2, :]),
    "add_constant": _op(lambda x: x + 1.5),
    "add_constant_channels": _op(lambda x: x + _constant((8,))),
    "subtract_from_constant_channels": _op(lambda x: _constant((8,)) - x),
    "multiply_constant_channels": _op(lambda x: x * _constant((8,))),
    "add_constant_map": _op(lambda x: x + _constant((1, 12, 10, 8))),
    "batch_norm_behind_sum": lambda x: layers.ReLU()(layers.BatchNormalization()(layers.Add()([x, layers.Conv2D(8, 1)(x)]))),
    "subtract": lambda x: layers.Subtract()([x, layers.Conv2D(8, 1)(x)]),
    "hard_swish": _op(tf.keras.activations.hard_silu),
    "leaky_relu": lambda x: layers.LeakyReLU(negative_slope=0.1)(x),
    "prelu": lambda x: layers.PReLU(shared_axes=[1, 2], alpha_initializer="random_uniform")(x),
    "elu": lambda x: layers.ELU()(x),
    "gelu": _op(tf.nn.gelu),
    "tanh": lambda x: layers.Activation("tanh")(x),
    "swish": lambda x: layers.Activation("swish")(x),
    "softmax": lambda x: layers.Softmax()(x),
    "maximum": lambda x: layers.Maximum()([x, layers.Conv2D(8, 1)(x)]),
    "max_pool": lambda x: layers.MaxPooling2D(3, 2, padding="same")(x),
    "average_pool": lambda x: layers.AveragePooling2D(3, 2, padding="same")(x),
    "global_max_pool": lambda x: layers.GlobalMaxPooling2D(keepdims=True)(x),
    "zero_padding": lambda x: layers.AveragePooling2D(3)(layers.ZeroPadding2D(((1, 2), (3, 0)))(x)),
    "upsample_nearest": _op(lambda x: tf.compat.v1.image.resize_nearest_neighbor(x, (24, 20))),
    "upsample_bilinear": lambda x: layers.UpSampling2D(2, interpolation="bilinear")(x),
    "transposed_convolution": lambda x: layers.Conv2DTranspose(8, 3, strides=2, padding="same")(x),
    "dilated_convolution": lambda x: layers.Conv2D(8, 3, dilation_rate=2, padding="same")(x),
    "grouped_convolution": lambda x: layers.Conv2D(8, 3, groups=2, padding="same")(x),
    "channel_shuffle": lambda x: layers.Reshape((12, 10, 8))(
        layers.Permute((1, 2, 4, 3))(layers.Reshape((12, 10, 2, 4))(x))
    ),
    "space_to_depth": _op(lambda x: tf.nn.space_to_depth(x, 2)),
    "dense_head": lambda x: layers.Dense(5, activation="softmax")(layers.Flatten()(x)),
}


def build(name: str) -> keras.Model:
    if name in GRAPHS:
        return _graph(GRAPHS[name])
    function, side, arguments = APPLICATIONS[name]
    picture = keras.Input(batch_shape=(1, side, side, 3))
    return getattr(keras.applications, function)(input_tensor=picture, weights=None, classes=10, **arguments)


def spread(model: keras.Model) -> keras.Model:
    """Weights that keep the size of activations from layer to layer; the default ones let deep networks fade to nothing."""
    dice = np.random.default_rng(SEED)
    for layer in model.layers:
        for variable in layer.weights:
            if variable.path.endswith("kernel"):
                depthwise = isinstance(layer, layers.DepthwiseConv2D) or "depthwise" in variable.path
                taps = np.prod(variable.shape[:2] if depthwise else variable.shape[:-1])
                variable.assign(dice.normal(0, np.sqrt(2 / taps), variable.shape).astype(np.float32))
    return model


def convert(model: keras.Model, lowest: float, highest: float) -> bytes:
    """Full int8 quantisation, int8 at both ends, ranges of random pictures of lowest .. highest."""
    shape, dice = model.inputs[0].shape, np.random.default_rng(SEED)
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    pictures = [dice.uniform(lowest, highest, shape).astype(np.float32) for _ in range(CALIBRATION)]
    converter.representative_dataset = lambda: ([picture] for picture in pictures)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter.convert()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="networks; all of them when none is named")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    options = parser.parse_args()
    known = [*APPLICATIONS, *GRAPHS]
    if options.list:
        print("\n".join(known))
        return
    if unknown := [name for name in options.names if name not in known]:
        sys.exit(f"error: no network is called {unknown[0]}; there are: {', '.join(known)}")
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.names or known:
        keras.utils.set_random_seed(SEED)
        path = options.out / f"{name}.tflite"
        try:
            # networks that shift and scale their pictures by themselves take bytes
            path.write_bytes(convert(spread(build(name)), *((0, 255) if name in PREPROCESSING else (-1, 1))))
        except Exception as error:  # the converter raises whatever it likes; the next network is not to suffer
            (options.out / f"{name}.error").write_text(str(error).strip().splitlines()[-1] + "\n")
        keras.backend.clear_session()


if __name__ == "__main__":
    main()
