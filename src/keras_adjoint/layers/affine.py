"""The affine part of normalisations whose statistics are those of their own input."""

import keras
from keras import ops

from keras_adjoint.layers.norm import AdjointScaling


@keras.saving.register_keras_serializable(package="keras_adjoint")
class AdjointAffinePart(AdjointScaling):
    """Multiply by the scale γ of a normalisation, or undo its γ·x̂ + β.

    Layer, group and root-mean-square normalisation divide by statistics of the very input, which is not linear. What they
    do after that is, and this layer is the adjoint of that part, or its inverse.

    Args:
        source: A built `LayerNormalization`, `GroupNormalization` or `RMSNormalization`.
        bias: "none" or "subtract".
        inverse: See `AdjointScaling`.
        tied: See `Tied`.

    Input shape: Any that the source accepts.
    Output shape: The same.

    Example:

    >>> norm = keras.layers.LayerNormalization(gamma_initializer="ones", beta_initializer="ones")
    >>> norm.build((None, 3))
    >>> keras.ops.convert_to_numpy(AdjointAffinePart(norm, inverse=True)(np.ones((1, 3)))).tolist()
    [[0.0, 0.0, 0.0]]
    """

    @property
    def exact(self):
        return False

    def scale_and_shift(self, rank):
        source = self.source
        gamma = source.scale if isinstance(source, keras.layers.RMSNormalization) else source.gamma
        beta = getattr(source, "beta", None)
        axes = source.axis if isinstance(source.axis, (list, tuple)) else [source.axis]
        axes = sorted(axis % rank for axis in axes)

        def along_axes(weight, otherwise):
            if weight is None:
                return ops.full((1,) * rank, otherwise, dtype=self.compute_dtype)
            sizes = dict(zip(axes, weight.shape, strict=True))
            return ops.reshape(ops.convert_to_tensor(weight), [sizes.get(axis, 1) for axis in range(rank)])

        return along_axes(gamma, 1.0), along_axes(beta, 0.0)
