"""Back through an activation with memory: the sign of what it gave says what comes back."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_adjoint")
class RecordedSign(keras.layers.Layer):
    """Let pass what comes back to units that were active, as the gradient of a ReLU does.

    With y for what comes back and a for what the activation gave, "gradient" is y·[a > 0] (Simonyan et al. 2014) and
    "guided" is y·[a > 0]·[y > 0] (Springenberg et al. 2015, equation 5). For fixed a the former is linear, and for a ReLU it
    is its gradient.

    Args:
        guided: Whether negative values are stopped as well.

    Call arguments:
        y: What comes back.
        recorded: What the activation gave, of the same shape.

    Input shape: Any.
    Output shape: The same.

    Example:

    >>> y, recorded = np.array([[1.0, -2.0, 3.0]]), np.array([[0.5, 0.5, 0.0]])
    >>> np.array(RecordedSign()(y, recorded)).tolist(), np.array(RecordedSign(guided=True)(y, recorded)).tolist()
    ([[1.0, -2.0, 0.0]], [[1.0, 0.0, 0.0]])
    """

    def __init__(self, *, guided=False, **kwargs):
        super().__init__(**kwargs)
        self.guided = guided

    def call(self, y, recorded):
        active = recorded > 0
        if self.guided:
            active = ops.logical_and(active, y > 0)
        return ops.where(active, y, ops.zeros_like(y))

    def compute_output_spec(self, y, recorded):
        return keras.KerasTensor(y.shape, dtype=self.compute_dtype)

    def get_config(self):
        return {**super().get_config(), "guided": self.guided}
