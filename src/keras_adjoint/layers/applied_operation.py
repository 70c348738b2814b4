"""An operation of `keras.ops` with all of its arguments fixed but the tensors that it acts on, as a layer."""

from typing import Any

import keras
from keras.layers import Layer

from keras_adjoint.layers.call_pattern import CallPattern, filled, flat


@keras.saving.register_keras_serializable(package="keras_adjoint")
class AppliedOperation(Layer):
    """What an operation of a Functional model computes, with the constants that it was called with.

    Args:
        operation: The operation.
        pattern: How it is called, with symbolic tensors in the places of those that it acts on.

    Call arguments:
        tensors: The tensor that it acts on, or a list of them.
    """

    def __init__(self, operation: keras.Operation, pattern: CallPattern, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.operation, self.pattern = operation, pattern
        self.built = True

    def call(self, tensors: Any) -> Any:
        arguments, keywords = filled((self.pattern.arguments, self.pattern.keywords), flat(tensors))
        return self.operation.call(*arguments, **keywords)

    def compute_output_spec(self, tensors: Any) -> Any:
        arguments, keywords = filled((self.pattern.arguments, self.pattern.keywords), flat(tensors))
        return self.operation.compute_output_spec(*arguments, **keywords)

    @property
    def own_pattern(self) -> CallPattern:
        """How this layer is called itself."""
        inputs = self.pattern.inputs
        return CallPattern((inputs[0] if len(inputs) == 1 else inputs,), {}, self.pattern.outputs)

    def get_config(self) -> dict[str, Any]:
        operation = keras.saving.serialize_keras_object(self.operation)
        return {**super().get_config(), "operation": operation, "pattern": self.pattern.get_config()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "AppliedOperation":
        config = dict(config)
        operation = keras.saving.deserialize_keras_object(config.pop("operation"))
        for name, value in list(vars(operation).items()):
            if isinstance(value, list) and value and all(type(each) is int for each in value):
                setattr(operation, name, tuple(value))  # as it was before JSON, which knows lists alone
        return cls(operation, CallPattern.from_config(config.pop("pattern")), **config)
