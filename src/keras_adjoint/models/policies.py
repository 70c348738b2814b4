"""The policies: which choices each has, which layers it decides about, and what it chooses for a layer."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import keras

from keras_adjoint.errors import did_you_mean, one_of, quoted, unknown_name
from keras_adjoint.keras_internals import StochasticDepth, activation_operations, nn_operations, numpy_operations
from keras_adjoint.layers.adjoint import has_activation
from keras_adjoint.layers.computation import has_hooks
from keras_adjoint.layers.registry import class_with_rule, describe, nearest_class
from keras_adjoint.layers.selection import ADAPTIVE_MAX_POOLS, EXTREMA
from keras_adjoint.layers.wrapped import activation_of, inside
from keras_adjoint.models.automatic import why_not_tested
from keras_adjoint.models.calls import Call
from keras_adjoint.models.policy_names import NAMES

# The choices by which a mirror is the gradient.
GRADIENT = {
    "bias": "none",
    "activation": "gradient",
    "norm": "adjoint",
    "pooling": "switches",
    "gates": "gradient",
    "dropout": "drop",
    "preprocessing": "adjoint",
}

# Which policy decides about layers of a type, and about types that inherit its computation.
DECIDES: dict[type, str] = {
    keras.layers.Activation: "activation",
    keras.layers.ReLU: "activation",
    keras.layers.LeakyReLU: "activation",
    keras.layers.ELU: "activation",
    keras.layers.PReLU: "activation",
    keras.layers.Softmax: "activation",
    keras.layers.BatchNormalization: "norm",
    keras.layers.LayerNormalization: "norm",
    keras.layers.GroupNormalization: "norm",
    keras.layers.RMSNormalization: "norm",
    keras.layers.UnitNormalization: "norm",
    keras.layers.MaxPooling1D: "pooling",
    keras.layers.MaxPooling2D: "pooling",
    keras.layers.MaxPooling3D: "pooling",
    keras.layers.GlobalMaxPooling1D: "pooling",
    keras.layers.GlobalMaxPooling2D: "pooling",
    keras.layers.GlobalMaxPooling3D: "pooling",
    keras.layers.GlobalAveragePooling1D: "pooling",
    keras.layers.GlobalAveragePooling2D: "pooling",
    keras.layers.GlobalAveragePooling3D: "pooling",
    **dict.fromkeys((*EXTREMA, *ADAPTIVE_MAX_POOLS), "pooling"),
    keras.layers.Multiply: "gates",
    numpy_operations.Multiply: "gates",
    keras.layers.Dropout: "dropout",
    keras.layers.SpatialDropout1D: "dropout",
    keras.layers.SpatialDropout2D: "dropout",
    keras.layers.SpatialDropout3D: "dropout",
    keras.layers.AlphaDropout: "dropout",
    keras.layers.GaussianDropout: "dropout",
    keras.layers.GaussianNoise: "dropout",
    StochasticDepth: "dropout",
    keras.layers.Rescaling: "preprocessing",
    keras.layers.Normalization: "preprocessing",
}

# Activations that were written as operations. Of those that may take several tensors the call has one, and constants.
ACTIVATION_OPERATIONS = (
    activation_operations.Mish,
    activation_operations.ReLU,
    numpy_operations.Clip,
    numpy_operations.Exp,
    numpy_operations.Maximum,
    numpy_operations.Minimum,
    numpy_operations.Tanh,
    nn_operations.Celu,
    nn_operations.Elu,
    nn_operations.Gelu,
    nn_operations.Glu,
    nn_operations.HardShrink,
    nn_operations.HardSigmoid,
    nn_operations.HardSilu,
    nn_operations.HardTanh,
    nn_operations.LeakyRelu,
    nn_operations.LogSigmoid,
    nn_operations.LogSoftmax,
    nn_operations.Relu,
    nn_operations.Relu6,
    nn_operations.Selu,
    nn_operations.Sigmoid,
    nn_operations.Silu,
    nn_operations.SoftShrink,
    nn_operations.Softmax,
    nn_operations.Softplus,
    nn_operations.Softsign,
    nn_operations.SparsePlus,
    nn_operations.SparseSigmoid,
    nn_operations.Sparsemax,
    nn_operations.Squareplus,
    nn_operations.TanhShrink,
    nn_operations.Threshold,
)

# The names of Keras' activations.
NO_ACTIVATIONS = ("get", "serialize", "deserialize")
ACTIVATIONS = sorted(
    name for name, one in vars(keras.activations).items() if inspect.isfunction(one) and name not in NO_ACTIVATIONS
)

# Of two tensors.
EXTREMAL_OPERATIONS = (numpy_operations.Maximum, numpy_operations.Minimum)


@dataclass(frozen=True)
class Policies:
    """One policy for each kind of layer that has no adjoint, or whose adjoint may not be wanted.

    Each is a name; or a dictionary from layer names, layer classes and predicates to names, with "default" for all
    others; or, except for activations, a function that takes a layer and returns a name. An activation may also be
    anything that `keras.activations.get` takes.
    """

    bias: Any = "own"
    activation: Any = "same"
    output_activation: Any = None
    norm: Any = "own"
    pooling: Any = "spread"
    gates: Any = "skip"
    dropout: Any = "drop"
    preprocessing: Any = "undo"

    @classmethod
    def named(cls, given: Mapping[str, Any], others: Sequence[str] = ()) -> "Policies":
        """The policies in a dictionary of them, which came with the other options of a function.

        Raises:
            ValueError: If one is called otherwise.
        """
        names = [field.name for field in fields(cls)]
        strange = given.keys() - set(names)
        if strange:
            received = ", ".join(f"{name}={given[name]!r}" for name in sorted(strange))
            near = did_you_mean(min(strange), [*names, *others])
            options = f"The other options are called {', '.join(others)}." if others else ""
            raise ValueError(
                f"The policies are called {', '.join(names)}. {options}{near}".rstrip() + f" Received: {received}"
            )
        return cls(**given)

    def check(self, layers: Sequence[keras.Operation]) -> None:
        """Raise a ValueError for policies that do not exist, and for names of layers that the model does not have."""
        known = {layer.name for layer in layers}
        with_policies = {layer.name for layer in layers if not isinstance(layer, keras.layers.InputLayer)}
        for policy in NAMES:
            value = getattr(self, policy)
            if isinstance(value, Mapping):
                names = known | {"default"}
                strange = [key for key in value if (key not in names if isinstance(key, str) else not callable(key))]
                if strange:
                    raise ValueError(
                        f'The keys of a policy are layer names, layer classes, predicates and "default", and the encoder has '
                        f"no layer of the name {', '.join(map(repr, strange))}.{did_you_mean(str(strange[0]), with_policies)} "
                        f"Received: {policy}={value!r}"
                    )
                for choice in value.values():
                    _check_choice(policy, choice)
            elif policy == "activation" or not callable(value):
                _check_choice(policy, value)
        if self.output_activation is not None:
            _check_activation("output_activation", self.output_activation, ())

    def about(self, call: Call) -> str | None:
        """The name of the policy that decides about a call; `None` if an adjoint does.

        A layer that has neither a policy nor an adjoint is what the dictionary that mentions it, or its class, is about. That
        is how an unknown layer is declared to be an activation or a normalisation.
        """
        operation = call.operation
        if calls_activation(call):
            return "activation"
        if isinstance(operation, EXTREMAL_OPERATIONS):
            return "pooling"
        decided = policy_of_class(operation)
        if decided == "activation" or (decided == "gates" and len(call.inputs) < 2):
            return None  # the linear activation, and a product with constants
        if decided is None and class_with_rule(inside(operation)) is None:
            return next((policy for policy in NAMES if self._mentions(policy, operation)), None)
        return decided

    def make_gradient_of(self, call: Call) -> bool:
        """Whether a call is to be undone by its gradient, whatever it computes."""
        if call.training or self.choose("activation", call.operation) != "gradient":
            return False
        policy = self.about(call)
        return policy is None or self.choose(policy, call.operation) == GRADIENT[policy]

    def _mentions(self, policy: str, operation: keras.Operation) -> bool:
        choices = getattr(self, policy)
        return policy != "bias" and isinstance(choices, Mapping) and any(_keys(choices, operation, predicates=False))

    def choose(self, policy: str, layer: keras.Operation) -> Any:
        """What a policy chooses for one layer."""
        value = getattr(self, policy)
        if isinstance(value, Mapping):
            key = self.key(policy, layer)
            default = next(field.default for field in fields(self) if field.name == policy)
            return value.get("default" if key is None else key, default)
        if callable(value) and policy != "activation":
            value = _asked(value, layer)
            _check_choice(policy, value)
        return value

    def key(self, policy: str, layer: keras.Operation) -> Any:
        """The key of a policy's dictionary that holds for one layer; `None` if its default does."""
        value = getattr(self, policy)
        return next(_keys(value, layer, predicates=True), None) if isinstance(value, Mapping) else None


def calls_activation(call: Call) -> bool:
    """Whether a call is one of an activation, written as a layer or as an operation."""
    if isinstance(call.operation, ACTIVATION_OPERATIONS):
        return len(call.inputs) == 1
    is_linear = activation_of(call.operation) is keras.activations.linear
    return policy_of_class(call.operation) == "activation" and not is_linear


def policy_of_class(operation: keras.Operation) -> str | None:
    """The policy that decides about an operation by its class."""
    nearest = nearest_class(inside(operation), DECIDES)
    return None if nearest is None else DECIDES[nearest]


def ends_in_activation(layer: keras.Operation) -> bool:
    """Whether a layer computes something linear, of which the adjoint is known, and then an activation."""
    return has_activation(layer) and None not in (class_with_rule(layer), class_with_rule(inside(layer)))


def _keys(choices: Mapping[Any, Any], layer: keras.Operation, *, predicates: bool) -> Iterator[Any]:
    """The keys that hold for a layer, the most specific first: its name, its classes, predicates.

    Those that hold for the layer inside of a wrapper come after those of the wrapper.
    """
    layers = list(dict.fromkeys((layer, inside(layer))))
    yield from (key for each in layers for key in (each.name, *type(each).__mro__) if key in choices)
    functions: list[Callable[[keras.Operation], Any]] = [
        key for key in choices if callable(key) and not isinstance(key, type)
    ]
    yield from (key for each in layers for key in functions if predicates and _asked(key, each))


def _asked(function: Callable[[keras.Operation], Any], layer: keras.Operation) -> Any:
    """What a function that is part of a policy says of a layer.

    Raises:
        ValueError: If it raises an error.
    """
    try:
        return function(layer)
    except Exception as error:
        name = getattr(function, "__name__", repr(function))
        raise ValueError(
            f"`{name}`, which is part of a policy, raised an error when it was asked about `{layer.name}`. It is asked about "
            f"layers of every class, so have it look at the class first. Received: {type(error).__name__}: {error}, "
            f"{describe(layer)}"
        ) from error


def _check_choice(policy: str, choice: Any) -> None:
    if policy == "activation":
        _check_activation(policy, choice, NAMES[policy])
    else:
        one_of(policy, choice, NAMES[policy])


def _check_activation(option: str, choice: Any, names: Sequence[str]) -> None:
    """Refuse what is neither one of some names nor an activation."""
    if isinstance(choice, str) and choice in names:
        return
    try:
        keras.activations.get(choice)
    except (ValueError, TypeError):
        first = f"one of {quoted(names)}, or " if names else ""
        takes = f'must be {first}any activation of Keras, such as "sigmoid"'
        raise unknown_name(option, choice, takes, [*names, *ACTIVATIONS]) from None


# What can be chosen where no activations are recorded.
WITHOUT_RECORDS = {
    "activation": ("same", "linear"),
    "norm": ("own", "inverse", "scale", "skip"),
    "pooling": ("spread", "average"),
    "gates": ("skip",),
}


def describe_call(call: Call) -> str:
    """The beginning of an error about a call that neither has an adjoint nor a policy."""
    hooks = (
        " It has forward hooks, which may change what it computes: remove them first."
        if has_hooks(call.operation)
        else ""
    )
    untested = why_not_tested(call)
    why = f" It has no rule, and {untested}." if untested else ""
    return f"`{call.place}`, a `{type(call.operation).__name__}`, has neither an adjoint nor a policy.{hooks}{why}"


def keeps_shape(call: Call) -> bool:
    """Whether a call makes one tensor of another of the same shape, so that it can be left out."""
    return [tuple(x.shape) for x in call.inputs] == [tuple(y.shape) for y in call.outputs] and len(call.outputs) == 1


def hints(call: Call) -> str:
    """The end of an error about a call that cannot be undone: what can be done about it."""
    operation = call.operation
    linear = (
        f"If it is linear, write a function that takes the layer and returns the layer computing its adjoint, and decorate it "
        f"with `@keras_adjoint.register_rule({type(operation).__name__})`."
        if isinstance(operation, keras.layers.Layer)
        else "If it is linear, write it as a layer and teach its adjoint with `@keras_adjoint.register_rule`."
    )
    gradient = (
        f"For its gradient, which `keras_adjoint.autoencoder` can take, declare it an activation: "
        f'`activation={{{operation.name!r}: "gradient"}}`.'
    )
    if keeps_shape(call):
        return f'{linear} {gradient} To leave it out: `activation={{{operation.name!r}: "linear"}}`'
    return (
        f"{linear} {gradient} It does not make one tensor of another of the same shape, so it cannot be left out. Otherwise "
        f"mirror the part of the encoder before it, `keras.Model(encoder.inputs, tensor)`"
    )
