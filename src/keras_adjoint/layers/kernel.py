"""Read the kernel of a source as it is now: plain, with LoRA, or dequantised."""

import math
from collections.abc import Callable

import keras
from keras import ops

from keras_adjoint.errors import TieError
from keras_adjoint.keras_internals import scale_along_codes, stored_variable
from keras_adjoint.layers.registry import describe
from keras_adjoint.ops import Tensor

# Variables of a layer in int8 or int4: (codes, scale, LoRA factors).
_QUANTISED = {
    keras.layers.Dense: ("kernel", "kernel_scale", ("lora_kernel_a", "lora_kernel_b")),
    keras.layers.EinsumDense: ("kernel", "kernel_scale", ("lora_kernel_a", "lora_kernel_b")),
    keras.layers.Embedding: ("embeddings", "embeddings_scale", ("lora_embeddings_a", "lora_embeddings_b")),
}


def check_readable(source: keras.layers.Layer, *, advice: str = "") -> None:
    """Raise unless the kernel of `source` can be read.

    Args:
        source: The layer.
        advice: What else to say of a layer that is not built.

    Raises:
        TieError: If `source` is not built, or is quantised in a way that keeps no dequantised kernel.
    """
    stateless = type(source).build is keras.layers.Layer.build  # which builds nothing
    if not (source.built or stateless):
        raise TieError(
            f"`{source.name}` is not built, so what it computes is not settled yet. Call it, or `layer.build(input_shape)`, "
            f"first.{advice} Received: {describe(source)}"
        )
    mode = source.quantization_mode
    if mode not in (None, "int8", "float8") and not (mode == "int4" and _is_packed_by_columns(source)):
        raise TieError(
            f'A kernel quantised to {mode} cannot be read back as a matrix. Quantise with "int8", which is dequantised here, '
            f"or take the adjoint with `tied=False` before quantising: it owns a kernel that is not quantised. "
            f"Received: quantization_mode={mode!r}, {describe(source)}"
        )


def kernel_shape(source: keras.layers.Layer, name: str = "kernel") -> tuple[int, ...]:
    """The shape of a kernel of `source`, whichever class made it, and whether or not its value can be read."""
    is_plain = source.quantization_mode is None
    return tuple((getattr(source, name) if is_plain else stored_variable(source, name)).shape)


def read_kernel(source: keras.layers.Layer, name: str = "kernel") -> Tensor:
    """The kernel of `source` as a tensor or variable.

    It is read at every call and never kept, because LoRA and quantisation replace the variable behind the name, and
    because a kept value would become a constant of a compiled function.
    """
    if not source.built or source.quantization_mode is not None:
        check_readable(source)
    if source.quantization_mode not in DEQUANTISE:
        return getattr(source, name)
    kernel = DEQUANTISE[source.quantization_mode](source)
    if source.lora_enabled:
        *_, lora = _variables_of(source)
        a, b = (ops.convert_to_tensor(getattr(source, factor)) for factor in lora)
        kernel = kernel + ops.cast((source.lora_alpha / source.lora_rank) * ops.matmul(a, b), source.compute_dtype)
    return kernel


def _variables_of(source: keras.layers.Layer) -> tuple[str, str, tuple[str, str]]:
    return next(names for layer_class, names in _QUANTISED.items() if isinstance(source, layer_class))


def _from_int8(source: keras.layers.Layer) -> Tensor:
    """The kernel is codes / scale."""
    codes, scale, _ = _variables_of(source)
    codes = ops.cast(stored_variable(source, codes), source.compute_dtype)
    scale = ops.convert_to_tensor(getattr(source, scale))
    if isinstance(source, keras.layers.EinsumDense):
        scale = scale_along_codes(source, scale)
    elif isinstance(source, keras.layers.Embedding):
        scale = ops.expand_dims(scale, -1)
    return codes / ops.cast(scale, source.compute_dtype)


def _from_int4(source: keras.layers.Layer) -> Tensor:
    """Two codes to a byte. With one scale to a column, the kernel is codes / scale; by blocks, (codes − zero) · scale."""
    name, scale, _ = _variables_of(source)
    is_embedding = isinstance(source, keras.layers.Embedding)
    rows, columns = _codes_shape(source)
    codes = keras.quantizers.unpack_int4(ops.convert_to_tensor(stored_variable(source, name)), columns, axis=-1)
    codes, scale = ops.cast(codes, source.compute_dtype), ops.convert_to_tensor(getattr(source, scale))
    zero = getattr(source, f"{name}_zero", None)
    if zero is None:
        kernel = codes / ops.cast(ops.expand_dims(scale, -1) if is_embedding else scale, source.compute_dtype)
    else:
        groups, axis = ops.cast(source.g_idx, "int32"), int(is_embedding)
        zero, scale = (ops.cast(ops.take(each, groups, axis=axis), source.compute_dtype) for each in (zero, scale))
        kernel = (codes - zero) * scale
    return ops.reshape(kernel, getattr(source, "original_kernel_shape", (rows, columns)))


DEQUANTISE: dict[str, Callable[[keras.layers.Layer], Tensor]] = {"int8": _from_int8, "int4": _from_int4}


def _codes_shape(source: keras.layers.Layer) -> tuple[int, int]:
    """(rows, columns) of the matrix that an int4 layer packs."""
    if isinstance(source, keras.layers.Embedding):
        return source.input_dim, source.output_dim
    if isinstance(source, keras.layers.Dense):
        return source.get_build_config()["input_shape"][-1], source.units
    columns = source.kernel_scale.shape[-1]
    return math.prod(source.original_kernel_shape) // columns, columns


def _is_packed_by_columns(source: keras.layers.Layer) -> bool:
    """Whether an int4 kernel is stored as Keras stores it since 3.15; others packed the rows."""
    rows, columns = _codes_shape(source)
    return tuple(stored_variable(source, _variables_of(source)[0]).shape) == (rows, (columns + 1) // 2)


def float_policy(source: keras.layers.Layer) -> keras.DTypePolicy:
    """The dtype policy of `source` without its quantisation."""
    policy = source.dtype_policy
    if policy.quantization_mode is None:
        return policy
    compute, variable = policy.compute_dtype, policy.variable_dtype
    return keras.DTypePolicy(compute if compute == variable else f"mixed_{compute}")
