"""`untie`: the same computation in stock Keras layers, for people who do not have this package."""

import keras

from keras_adjoint.errors import one_of
from keras_adjoint.ops.backend import untraced


@untraced
def untie(layer_or_model: keras.layers.Layer, *, to: str = "conv_transpose") -> keras.Model:
    """A model of stock Keras layers that computes the same to rounding, with copies of all weights.

    The file that it saves loads without this package. Kernels and biases train on their own from then on, unless their layers
    were frozen; scales, and biases that are subtracted, become constants. An automatic adjoint of what has no weights becomes a
    product with its matrix, of up to 2²⁰ numbers. A `Lipschitz` layer becomes the layer inside with the
    scaled kernel, under the name of the wrapper, or with a `Rescaling` before it where no kernel is known to scale.

    Args:
        layer_or_model: An adjoint or `Lipschitz` layer, if its source recorded a size or it was called on a `keras.Input`; or
            a Functional or Sequential model with such layers in it, nested models included.
        to: What becomes of an adjoint convolution. "conv_transpose": a transposed convolution with the very same kernel,
            cropped to the exact size. The kernel of a grouped or dilated one is stored with its zeros. "conv": a
            plain convolution with the flipped kernel, and at stride s one to s phases per axis, which reshapes and
            permutations interleave.

    Returns:
        A Functional `keras.Model`. It is not compiled. Layers that are not adjoints keep their names; those that an
        adjoint is converted into begin with the adjoint's name.

    Raises:
        NoRuleError: If stock layers cannot express a layer: max pooling, which reads its switches from elsewhere; an
            automatic adjoint of a layer with weights, or of a larger matrix; an adjoint inside of a subclassed model; a size
            that is not known, where it must be.
        SizeError: If a size is ambiguous, or nothing says what a layer takes that has not been called.
        ValueError: If `to` is unknown, or the argument is neither a layer nor such a model.

    Example:

    >>> inputs = keras.Input((9, 8, 3))
    >>> conv = keras.layers.Conv2D(4, 3, strides=2)
    >>> code = conv(inputs)
    >>> model = keras.Model(inputs, ka.adjoint(conv)(code))
    >>> [type(layer).__name__ for layer in ka.untie(model).layers]
    ['InputLayer', 'Conv2D', 'ZeroPadding2D', 'Conv2DTranspose', 'Cropping2D']
    """
    from keras_adjoint.layers.copying import check_has_numbers  # imported lazily
    from keras_adjoint.stock.convert import Converter
    from keras_adjoint.stock.converters import KINDS

    one_of("to", to, KINDS)
    if not isinstance(layer_or_model, keras.layers.Layer) or isinstance(layer_or_model, keras.layers.InputLayer):
        raise ValueError(f"`untie` takes a Keras layer or model. Received: layer_or_model={layer_or_model!r}")
    check_has_numbers(layer_or_model, "What is untied")
    converter = Converter(to)
    model = (converter.model if isinstance(layer_or_model, keras.Model) else converter.single)(layer_or_model)
    converter.copy_weights()
    return model
