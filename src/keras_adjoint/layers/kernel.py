"""Read the kernel of a source as it is now: plain, with LoRA, or dequantised."""

import keras
from keras import ops

from keras_adjoint.errors import TieError
from keras_adjoint.keras_internals import scale_along_codes, stored_variable
from keras_adjoint.layers.registry import describe
from keras_adjoint.ops import Tensor

# Variables of an int8 layer: (codes, scale, LoRA factors), the kernel being codes / scale.
_INT8 = {
    keras.layers.Dense: ("kernel", "kernel_scale", ("lora_kernel_a", "lora_kernel_b")),
    keras.layers.EinsumDense: ("kernel", "kernel_scale", ("lora_kernel_a", "lora_kernel_b")),
    keras.layers.Embedding: ("embeddings", "embeddings_scale", ("lora_embeddings_a", "lora_embeddings_b")),
}


def check_readable(source: keras.layers.Layer) -> None:
    """Raise unless the kernel of `source` can be read.

    Raises:
        TieError: If `source` is not built, or is quantised in a way that keeps no dequantised kernel.
    """
    stateless = type(source).build is keras.layers.Layer.build  # which builds nothing
    if not (source.built or stateless):
        raise TieError(
            f"The source is not built, so its adjoint cannot be made yet. Call it, or `source.build(input_shape)`, before "
            f"asking for its adjoint: write `y = layer(x)` first and `adjoint(layer)(y)` after it, since "
            f"`adjoint(layer)(layer(x))` asks before it calls. Received: {describe(source)}"
        )
    mode = source.quantization_mode
    if mode not in (None, "int8", "float8"):
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
    if source.quantization_mode != "int8":
        return getattr(source, name)
    codes, scale, lora = next(names for layer_class, names in _INT8.items() if isinstance(source, layer_class))
    codes = ops.cast(stored_variable(source, codes), source.compute_dtype)
    scale = ops.convert_to_tensor(getattr(source, scale))
    if isinstance(source, keras.layers.EinsumDense):
        scale = scale_along_codes(source, scale)
    elif isinstance(source, keras.layers.Embedding):
        scale = ops.expand_dims(scale, -1)
    kernel = codes / ops.cast(scale, source.compute_dtype)
    if source.lora_enabled:
        a, b = (ops.convert_to_tensor(getattr(source, factor)) for factor in lora)
        kernel = kernel + ops.cast((source.lora_alpha / source.lora_rank) * ops.matmul(a, b), source.compute_dtype)
    return kernel


def float_policy(source: keras.layers.Layer) -> keras.DTypePolicy:
    """The dtype policy of `source` without its quantisation."""
    policy = source.dtype_policy
    if policy.quantization_mode is None:
        return policy
    compute, variable = policy.compute_dtype, policy.variable_dtype
    return keras.DTypePolicy(compute if compute == variable else f"mixed_{compute}")
