"""What a registered rule returned, tied to the source that it reads, whichever way its layers hold that."""

from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.layers import Layer

from keras_adjoint.keras_internals import layers_inside, own_variables, set_own_trainable
from keras_adjoint.layers.registry import apply_rule, rule_for
from keras_adjoint.layers.tied import Tied
from keras_adjoint.ops.dot_test import evaluate

LEAST_CHANGE = 1e-3  # of what a layer gives, which rounding of what is added to it does not explain


@keras.saving.register_keras_serializable(package="keras_adjoint")
class RegisteredAdjoint(Tied):
    """The adjoint of a layer whose registered rule returned a layer that reads its variables.

    That layer may hold the source as an attribute, or use it in a function. Here it is tied like any other adjoint. A copy, or
    what is read from a file, is made by the rule anew, from the source there, so the layer needs no `get_config`.

    Args:
        source: A built layer of a class with a registered rule.
        inner: What the rule returned; by default it is called.
        rule_options: The options that the rule is called with.
        tied: See `Tied`.
        recorded: See `Tied`.
        dtype: By default that of `inner`.

    Call arguments: Those of `inner`.

    Input shape: That of the source's output.
    Output shape: That of the source's input.

    Example:

    >>> class Scale(keras.layers.Layer):
    ...     def build(self, shape):
    ...         self.scale = self.add_weight(shape=shape[1:])
    ...     def call(self, x):
    ...         return self.scale * x
    >>> @ka.register_rule(Scale)
    ... def same(source):
    ...     return keras.layers.Lambda(lambda y: source.scale * y)
    >>> scale = Scale()
    >>> scale.build((None, 3))
    >>> ka.is_tied(ka.adjoint(scale), scale)
    True
    """

    def __init__(
        self,
        source: Layer,
        *,
        inner: Layer | None = None,
        rule_options: dict[str, Any] | None = None,
        dtype: Any = None,
        **kwargs: Any,
    ) -> None:
        chosen = dict(rule_options or {})
        if inner is None:
            inner = apply_rule(rule_for(source)[1], source, chosen)
        super().__init__(source, dtype=inner.dtype_policy if dtype is None else dtype, **kwargs)
        self.rule_options = chosen
        self.inner = inner
        if not self.trainable:
            self._freeze_inner(False)

    def build(self, input_shape: Any) -> None:
        if not self.inner.built:
            self.inner.build(input_shape)
            self._freeze_inner(self.trainable)

    def call(self, y: Any, **options: Any) -> Any:
        return self.inner(y, **options)

    def compute_output_spec(self, y: Any, **options: Any) -> Any:
        return self.inner.compute_output_spec(y, **options)

    def compute_output_shape(self, input_shape: Any, **options: Any) -> Any:
        return self.inner.compute_output_shape(input_shape, **options)

    def _set_trainable(self, value: bool) -> None:
        Tied.trainable.fset(self, value)  # type: ignore[attr-defined]
        self._freeze_inner(bool(value))

    trainable = property(Tied.trainable.fget, _set_trainable)  # type: ignore[attr-defined]

    def _freeze_inner(self, trainable: bool) -> None:
        """Set the switch of the layers that the rule made, and stop at the source, its parts and its variables."""
        if getattr(self, "inner", None) is None:
            return  # Keras sets the switch first
        theirs = {id(part) for part in (self.source, *layers_inside(self.source), *self.source.variables)}
        for layer in layers_besides(self.inner, theirs):
            if isinstance(layer, Tied):
                layer.trainable = trainable
            else:
                set_own_trainable(layer, trainable, but=theirs)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rule_options": self.rule_options}


def layers_besides(root: Layer, others: Container[int] = ()) -> Iterator[Layer]:
    """A layer and those that it holds, but not others, by their `id`, nor what adjoint layers hold."""
    if id(root) in others:
        return
    yield root
    if not isinstance(root, Tied):
        for layer in layers_inside(root, recursive=False):
            yield from layers_besides(layer, others)


def ties_by_itself(result: Layer) -> bool:
    """Whether a layer holds adjoint layers, which are tied each by itself."""
    return any(isinstance(layer, Tied) for layer in layers_besides(result))


def reads_source(result: Layer, source: Layer, y: np.ndarray, dtype: str) -> bool:
    """Whether what a rule returned computes with variables of the source, other than by adjoint layers in it.

    Args:
        result: What the rule returned.
        source: The layer that it is the adjoint of.
        y: What to call it with, to see whether it depends on variables that it does not hold.
        dtype: The dtype of `y`.
    """
    if result is source or isinstance(result, Tied):
        return False
    theirs = {id(variable) for variable in source.weights}
    if any(id(variable) in theirs for layer in layers_besides(result) for variable in own_variables(layer)):
        return True
    if not theirs or ties_by_itself(result):
        return False
    with_own = evaluate(result, y, dtype)
    with other_values(source.weights):
        return not np.array_equal(with_own, evaluate(result, y, dtype), equal_nan=True)


def copied_weights(
    result: Layer,
    linear: Callable[[Any], Any],
    weights: Sequence[keras.Variable],
    x: np.ndarray,
    y: np.ndarray,
    dtype: str,
) -> list[keras.Variable]:
    """The weights that a layer depends on and what its rule returned does not, which may hold their numbers of today.

    Args:
        result: What the rule returned.
        linear: The layer without its bias and activation.
        weights: Those of the layer.
        x: What to call the layer with.
        y: What to call the result with.
        dtype: The dtype of both.
    """

    def forward() -> np.ndarray:  # without what is added to it
        return evaluate(linear, x, dtype) - evaluate(linear, np.zeros_like(x), dtype)

    ahead, back, found = forward(), evaluate(result, y, dtype), []
    most = LEAST_CHANGE * np.abs(ahead).max(initial=0.0)
    for variable in weights:
        if "float" in variable.dtype:
            with other_values([variable]):
                is_left_out = np.array_equal(back, evaluate(result, y, dtype), equal_nan=True)
                if is_left_out and np.abs(forward() - ahead).max(initial=0.0) > most:
                    found.append(variable)
    return found


def other_values(variables: Sequence[keras.Variable]) -> AbstractContextManager[Any]:
    """Inside, variables have other values than their own."""
    return keras.StatelessScope(state_mapping=[(each, ops.add(ops.multiply(each.value, 2), 1)) for each in variables])
