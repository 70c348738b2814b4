"""Lipschitz constants of networks: never exceeded, reached where they can be, and radii that no attack gets past."""

import math

import keras
import numpy as np
import pytest
from helpers import in_turn
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from keras import layers, ops
from random_encoders import encoders, known

import keras_adjoint as ka
from keras_adjoint.models.graph import trace
from keras_adjoint.operators.call_constants import How, step_of
from keras_adjoint.operators.certificate import at_most
from keras_adjoint.operators.model_operator import model_at
from keras_adjoint.ops.precision import epsilon

L = layers


def values(tensor):
    return ops.convert_to_numpy(tensor)


def steepest(model, points):
    """The largest singular value of the Jacobians at some points, by PyTorch, but for the rounding of float32."""
    import torch

    def flat(x):
        return ops.reshape(model(x[None], training=False), (-1,))

    jacobians = [torch.autograd.functional.jacobian(flat, torch.as_tensor(point)) for point in points]
    norms = [np.linalg.norm(each.reshape(each.shape[0], -1).double().numpy(), 2) for each in jacobians]
    return max(norms) / (1 + 1e-6)


def points_of(shape, count=24):
    """Random points of several sizes, and some where single numbers are far above the others."""
    generator = np.random.default_rng(0)
    random = [scale * generator.standard_normal(shape) for scale in (0.1, 1, 5) for _ in range(count // 3)]
    peaks = [0.01 * generator.standard_normal(shape) for _ in range(8)]
    for peak in peaks:
        peak[tuple(generator.integers(0, size) for size in shape)] = 4
    return [each.astype("float32") for each in [*random, *peaks]]


def of_one_call(layer, *shape):
    x = keras.Input(shape)
    return keras.Model(x, layer(x))


def prelu():
    return L.PReLU(alpha_initializer=keras.initializers.RandomUniform(-3, 3, seed=0), shared_axes=[1])


CALLS = {  # with the constant that they have, where it is reached
    "a maximum over windows that overlap": (lambda: L.MaxPooling1D(3, strides=1, padding="same"), (9, 2), 3**0.5),
    "a maximum over images": (lambda: L.MaxPooling2D(3, strides=2), (9, 8, 1), 2),
    "windows apart": (lambda: L.MaxPooling2D(2), (6, 6, 2), 1),
    "a global maximum": (lambda: L.GlobalMaxPooling2D(), (4, 4, 2), 1),
    "leaky": (lambda: L.LeakyReLU(negative_slope=2.5), (4,), 2.5),
    "a rectifier with a slope": (lambda: L.ReLU(negative_slope=1.5, max_value=2.0), (4,), 1.5),
    "ELU": (lambda: L.ELU(alpha=1.7), (40,), 1.7),
    "PReLU": (prelu, (3, 5), None),
    "softmax": (lambda: L.Softmax(), (2,), 0.5),
    "log softmax": (lambda: L.Activation("log_softmax"), (5,), 5**0.5),
    "with its activation": (lambda: L.Dense(3, activation="selu"), (5,), None),
    "an activation that is a layer": (lambda: L.Dense(3, activation=L.LeakyReLU(negative_slope=3.0)), (5,), None),
    "at every step": (lambda: L.TimeDistributed(L.MaxPooling1D(3, strides=1)), (2, 6, 1), 3**0.5),
    "at every step, with an activation": (lambda: L.TimeDistributed(L.Dense(2, activation="relu")), (3, 4), None),
    "normalised": (lambda: L.SpectralNormalization(L.Dense(3, activation="tanh")), (4,), None),
    "a maximum and a constant": (lambda: lambda x: ops.maximum(x, 0.3), (5,), 1),
    "a mean": (lambda: lambda x: ops.mean(x, axis=(1, 2)), (3, 4, 2), 12**-0.5),
    "a sum": (lambda: lambda x: ops.sum(x, axis=1, keepdims=True), (6, 2), 6**0.5),
    "a multiple": (lambda: lambda x: 3.0 * x / 2.0 - 1.0, (5,), 1.5),
    "a scale for each": (lambda: lambda x: x * np.array([[0.5, -4.0]], "float32"), (2,), 4),
    "repeated": (lambda: lambda x: x + np.zeros((1, 4, 2), "float32"), (1, 2), 2),
    "the largest": (lambda: lambda x: ops.max(x, axis=1), (4, 3), 1),
    "a slice": (lambda: lambda x: x[:, 1:, ::2], (4, 5), 1),
    "by positions": (lambda: L.Lambda(lambda x: ops.take(x, [0, 0, 0, 1], axis=1)), (3,), 3**0.5),
    "clipped": (lambda: lambda x: ops.clip(x, -1, 1), (4,), 1),
    "an operation": (lambda: lambda x: ops.leaky_relu(x, negative_slope=-2.0), (4,), 2),
    "a cast and a sine": (lambda: lambda x: ops.sin(ops.cast(x, "float64")), (4,), 1),
    "a scaled layer": (lambda: ka.Lipschitz(L.Dense(3, activation="gelu"), constant=0.4), (5,), None),
    "a small scaled layer": (lambda: ka.Lipschitz(L.Dense(3), constant=100.0), (5,), None),
    "an adjoint": (lambda: ka.adjoint(built(L.Conv1D(2, 3, strides=2, padding="same"), 8, 3)), (4, 2), None),
}
if hasattr(L, "AdaptiveMaxPooling1D"):
    CALLS["an adaptive maximum"] = (lambda: L.AdaptiveMaxPooling1D(4), (7, 2), 2**0.5)


def built(layer, *shape):
    layer.build((None, *shape))
    return layer


@pytest.mark.only_on("torch")
@pytest.mark.parametrize("name", CALLS)
def test_the_constant_of_a_call_is_never_exceeded_and_close(name):
    make, shape, expected = CALLS[name]
    model = of_one_call(make(), *shape)
    certificate = ka.certify(model)
    found = steepest(model, points_of(shape))
    assert not certificate.unknown and 0.8 * certificate.bound <= found <= certificate.bound, (found, certificate)
    if expected is not None:
        assert certificate.bound == pytest.approx(expected, rel=1e-4)


# --- whole networks


def scaled_identity(units, factor):
    return L.Dense(units, kernel_initializer=keras.initializers.Identity(factor), use_bias=False)


def test_compositions_multiply_sums_add_and_parts_side_by_side_take_the_root():
    x, z = keras.Input((4,)), keras.Input((4,))
    doubled, tripled = scaled_identity(4, 2.0), scaled_identity(4, 3.0)
    inner = keras.Sequential([keras.Input((4,)), tripled, L.ReLU()])
    hidden = L.ReLU()(doubled(x))
    for outputs, expected in (
        (tripled(hidden), 6),
        (L.Add()([x, hidden]), 3),
        (x - hidden, 3),
        (L.Average()([x, hidden, tripled(hidden)]), 3),
        (L.Concatenate()([x, hidden]), 5**0.5),
        ([x, hidden], 5**0.5),
        (L.Maximum()([x, hidden]), 5**0.5),
        (inner(inner(x)), 9),  # nested, and shared
        (doubled(doubled(doubled(x))), 8),
        (L.Dropout(0.5)(L.GaussianNoise(1.0)(hidden)), 2),
        (x, 1),
    ):
        assert ka.certify(keras.Model(x, outputs)).bound == pytest.approx(expected, rel=1e-2)
    for outputs, expected in (
        (L.Add()([hidden, tripled(z)]), 13**0.5),  # of different inputs
        (L.Concatenate()([hidden, tripled(z)]), 3),
        (L.Add()([L.Add()([x, z]), tripled(z)]), 2**0.5 + 3),
    ):
        assert ka.certify(keras.Model([x, z], outputs)).bound == pytest.approx(expected, rel=1e-2)


@pytest.mark.any_backend
@given(encoders(bias="none"))
@settings(max_examples=settings.default.max_examples // 2)
def test_no_call_of_a_random_network_lengthens_a_difference_by_more(encoder):
    model = encoder.model
    size = [known(x.shape[1:]) for x in model.inputs]
    assume(all("float" in x.dtype for x in model.inputs))
    certificate = ka.certify(model, size=size if len(size) > 1 else size[0])
    graph = trace(model_at(model, size if len(size) > 1 else size[0]))
    calls = [call for call in graph.calls if call.inputs and call.operation.name]
    tensors = list({id(x): x for call in calls for x in (*call.inputs, *call.outputs)}.values())
    whole = keras.Model(graph.inputs, [*tensors, *graph.outputs])
    generator = np.random.default_rng(0)
    batch = model.inputs[0].shape[0] or 6
    starts = [generator.standard_normal((batch, *x.shape[1:])).astype("float32") for x in graph.inputs]
    moved = [x + (0.3 * generator.standard_normal(x.shape)).astype("float32") for x in starts]
    first, second = ([values(y).astype("float64") for y in whole(xs, training=False)] for xs in (starts, moved))
    change = [b - a for a, b in zip(first, second, strict=True)]
    lengths = {id(x): np.linalg.norm(each) for x, each in zip(tensors, change, strict=False)}
    sizes = {id(x): np.linalg.norm(each) for x, each in zip(tensors, first, strict=False)}
    for call in calls:
        step = step_of(call)
        if step.how == How.NONE:
            continue
        given = np.linalg.norm([f * lengths[id(x)] for f, x in zip(step.factors, call.inputs, strict=True)])
        if step.adds:
            given = sum(f * lengths[id(x)] for f, x in zip(step.factors, call.inputs, strict=True))
        for y in call.outputs:
            assert lengths[id(y)] <= given * (1 + 1e-5) + 1e-5 * sizes[id(y)], (call.place, step)
    ends = np.linalg.norm([np.linalg.norm(each) for each in change[len(tensors) :]])
    moves = np.linalg.norm([np.linalg.norm(b - a) for a, b in zip(starts, moved, strict=True)])
    assert ends <= certificate.bound * moves * (1 + 1e-5) + 1e-5 or certificate.bound == 0


@pytest.mark.any_backend
def test_what_is_done_at_every_step_has_the_constant_of_one_step():
    dense = built(L.Dense(3, activation="gelu"), 4)
    step = keras.Input((4,))
    inner = keras.Model(step, dense(step))
    alone = ka.certify(inner).bound
    for wrapped in (L.TimeDistributed(dense), L.TimeDistributed(inner)):
        x = keras.Input((5, 4))
        assert ka.certify(keras.Model(x, wrapped(x))).bound == pytest.approx(alone, rel=1e-5)
        x = keras.Input((2, 5, 4))
        assert ka.certify(keras.Model(x, L.TimeDistributed(wrapped)(x))).bound == pytest.approx(alone, rel=1e-5)


# --- what has no constant


def attention(x):
    return L.MultiHeadAttention(2, 3)(x, x)


def quantised(x):
    dense = L.Dense(4)
    dense.build(x.shape)
    dense.quantize("int8")
    return dense(x)


def infinite(x):
    dense = built(L.Dense(4), *x.shape[1:])
    dense.kernel.assign(ops.full(dense.kernel.shape, np.nan))
    return dense(x)


UNKNOWN = {
    "layer normalization": (lambda x: L.LayerNormalization()(x), "epsilon"),
    "a product": (lambda x: L.Multiply()([x, L.Dense(4)(x)]), "multiplies"),
    "a product of operations": (lambda x: x * L.Dense(4)(x), "multiplies"),
    "one over x": (lambda x: 1.0 / x, "may be zero"),
    "attention": (attention, "not linear"),
    "recurrent": (lambda x: L.GRU(3)(x), "not linear"),
    "an exponential": (lambda x: L.Dense(3, activation="exponential")(x), "`exponential`"),
    "a sparse softmax": (lambda x: L.Activation("sparsemax")(x), "`sparsemax`"),  # Keras' is not the projection
    "an activation of one's own": (lambda x: L.Activation(lambda x: 3 * ops.tanh(x))(x), "no Lipschitz constant"),
    "a rectifier that jumps": (lambda x: L.ReLU(threshold=1.0)(x), "ReLU"),
    "a slope that is no number": (lambda x: L.LeakyReLU(negative_slope=np.nan)(x), "LeakyReLU"),
    "in training": (lambda x: L.BatchNormalization()(x, training=True), "training"),
    "integers": (lambda x: ops.cast(ops.cast(x, "int32"), "float32"), "integers"),
    "a condition": (lambda x: ops.where(x > 0, x, 2.0 * x), "computes"),
    "a lookup": (lambda x: L.Embedding(7, 2)(x), "looks up"),  # by floats, of which it makes integers
    "a lookup at every step": (lambda x: L.TimeDistributed(L.Embedding(7, 2))(x), "looks up"),
    "a step": (lambda x: x * 0.0 + ops.where(x > 0, 1.0, 2.0), "integers"),
    "a mask": (lambda x: L.GlobalAveragePooling1D()(L.Masking()(x)), "mask"),
    "a softmax under a mask": (lambda x: L.Softmax(axis=1)(L.Masking()(x)), "mask"),
    "not a number": (infinite, "NaN"),
    "quantised": (quantised, "quantised"),
}


@pytest.mark.any_backend
@pytest.mark.parametrize("name", UNKNOWN)
def test_what_has_no_constant_is_named(name):
    make, reason = UNKNOWN[name]
    x = keras.Input((5, 4))
    model = keras.Model(x, L.Dense(2)(L.Flatten()(make(L.Dense(4)(x)))))
    certificate = ka.certify(model)
    unknown = certificate.unknown[0]
    assert unknown.how == How.NONE and reason in unknown.reason and unknown.layer in str(certificate)
    assert not any(word in unknown.reason for word in ("adjoint", "mirror", "polic"))  # of which nothing was asked
    assert certificate.bound == float("inf")
    with pytest.raises(ka.NoRuleError, match=f"`{unknown.layer}`.*Replace them.*Received: {unknown.type}"):
        certificate.radius(np.zeros((1, 2)))


@pytest.mark.any_backend
def test_an_embedding_and_what_the_outputs_do_not_depend_on():
    words = keras.Input((5,), dtype="int32")
    embedded = keras.Model(words, L.Flatten()(L.Embedding(7, 2)(words)))
    assert "looks up" in ka.certify(embedded).unknown[0].reason
    masked = keras.Model(words, L.Dense(2)(L.Embedding(7, 2, mask_zero=True)(words)))
    assert [call.type for call in ka.certify(masked).unknown] == ["Embedding"]
    x = keras.Input((4, 3))
    assert not ka.certify(keras.Model(x, L.Dense(2)(L.Masking()(x)))).unknown  # the mask is not read


# --- classifiers


def classifier(activation=None, seed=0):
    keras.utils.set_random_seed(seed)
    x = keras.Input((6, 6, 1))
    y = L.Conv2D(4, 3, activation="relu")(x)
    y = L.Add()([y, L.Conv2D(4, 3, padding="same", activation="tanh")(y)])
    y = L.Flatten()(L.MaxPooling2D(2, strides=1)(y))
    return keras.Model(x, L.Dense(3, activation=activation)(y))


@pytest.mark.only_on("torch")
def test_no_attack_changes_the_class_inside_of_the_radius():
    import torch

    model = classifier()
    x = torch.as_tensor(np.random.default_rng(0).standard_normal((16, 6, 6, 1)).astype("float32"))
    logits = model(x).detach()
    labels = logits.argmax(axis=1)
    radius = torch.as_tensor(ka.certify(model).radius(logits), dtype=torch.float32)
    assert (radius > 0).all()

    def attacked(radius, steps=20):
        change = 1e-3 * torch.randn(x.shape)
        for _ in range(steps):
            change = change.detach().requires_grad_()
            found = model(x + change)
            others = found.masked_fill(torch.nn.functional.one_hot(labels, 3).bool(), -np.inf)
            (others.max(axis=1).values - found.gather(1, labels[:, None])[:, 0]).sum().backward()
            moved = change + 0.3 * radius[:, None, None, None] * change.grad / change.grad.flatten(1).norm(
                dim=1
            ).reshape(-1, 1, 1, 1)
            change = moved * (radius / moved.flatten(1).norm(dim=1).clip(min=1e-9)).clip(max=1).reshape(-1, 1, 1, 1)
        return model(x + change).argmax(axis=1)

    assert (attacked(radius) == labels).all()
    assert (attacked(60 * radius) != labels).any()  # the attack is one


@pytest.mark.any_backend
def test_the_radius_of_a_linear_classifier_is_the_distance_to_the_other_class():
    generator = np.random.default_rng(0)
    dense = built(L.Dense(4), 6)
    dense.bias.assign(generator.standard_normal(4))
    model = keras.Sequential([keras.Input((6,)), dense])
    x = generator.standard_normal((20, 6)).astype("float32")
    logits, kernel = values(model(x)), values(dense.kernel)
    radius = ka.certify(model).radius(model(x))
    winner = logits.argmax(axis=1)
    for sample in range(20):
        apart = kernel - kernel[:, winner[sample], None]
        with np.errstate(invalid="ignore"):
            distances = (logits[sample, winner[sample]] - logits[sample]) / np.linalg.norm(apart, axis=0)
        other = int(np.nanargmin(distances))
        assert radius[sample] == pytest.approx(np.nanmin(distances), rel=1e-4)
        direction = apart[:, other] / np.linalg.norm(apart[:, other])
        for factor, same in ((0.999, True), (1.001, False)):
            moved = values(model((x[sample] + factor * radius[sample] * direction)[None].astype("float32")))
            assert (moved.argmax() == winner[sample]) == same


@pytest.mark.any_backend
@pytest.mark.parametrize("make", [lambda name: L.Activation(name), None], ids=["behind", "inside"])
def test_behind_a_softmax_or_sigmoid_the_logits_count(make):
    logits = ka.certify(classifier())
    x = np.random.default_rng(0).standard_normal((8, 6, 6, 1)).astype("float32")
    expected = logits.radius(classifier()(x))
    for name in ("softmax", "sigmoid", "log_softmax"):
        plain = classifier(None if make else name)
        model = keras.Model(plain.inputs[0], make(name)(plain.outputs[0])) if make else plain
        certificate = ka.certify(model)
        np.testing.assert_allclose(certificate.radius(model(x)), expected, rtol=1e-3)
    assert certificate.bound > logits.bound  # of the logarithm


@pytest.mark.any_backend
def test_probabilities_that_are_lost_in_rounding_certify_no_more_than_is_known():
    model = keras.Sequential([keras.Input((2,)), scaled_identity(2, 1.0), L.Softmax()])
    x = np.array([[500.0, 0.0], [80.0, 0.0], [0.0, 0.0]], "float32")
    radius = ka.certify(model).radius(model(x))
    assert 80 / 2**0.5 < radius[0] < 500 / 2**0.5 and radius[1] == pytest.approx(80 / 2**0.5, rel=1e-4)
    assert radius[2] == 0 and np.isnan(x).sum() == 0
    assert ka.certify(model).radius(np.array([[np.nan, 0.5]]))[0] == 0
    one = keras.Sequential([keras.Input((1,)), scaled_identity(1, 2.0), L.Activation("sigmoid")])
    x = np.array([[3.0], [-3.0], [500.0]], "float32")
    radius = ka.certify(one).radius(one(x), labels=np.array([1, 1, 1]))
    assert radius[0] == pytest.approx(3, rel=1e-2) and radius[1] == 0 and 5 < radius[2] < 500


@pytest.mark.any_backend
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
def test_probabilities_in_half_precision_certify_no_more_than_is_known(dtype, link):
    activation = L.Activation(link, dtype=dtype)
    model = keras.Sequential([keras.Input((2,)), scaled_identity(2, 1.0), activation])
    x = np.array([[9.0, -9.0], [6.0, 0.0], [0.25, 0.0]], "float32")
    for outputs in (model(x), values(ops.cast(model(x), "float32"))):
        radius = ka.certify(model).radius(outputs)
        rounded = 2 * epsilon(dtype)  # of either probability, relative to it
        assert (radius <= (x[:, 0] - x[:, 1] + rounded) / 2**0.5 * (1 + 1e-3)).all() and radius[2] > 0.15


@pytest.mark.parametrize(*("dtype", in_turn(["mixed_bfloat16", "float64"])))
def test_other_precisions(dtype):
    with_dtype = keras.Sequential(
        [keras.Input((6,)), L.Dense(4, activation="relu", dtype=dtype), L.Dense(3, dtype=dtype)]
    )
    certificate = ka.certify(with_dtype)
    x = np.random.default_rng(0).standard_normal((2, 50, 6)).astype("float32")
    first, second = (values(ops.cast(with_dtype(each), "float32")) for each in x)
    assert (np.linalg.norm(first - second, axis=1) <= certificate.bound * np.linalg.norm(x[0] - x[1], axis=1)).all()
    assert (certificate.radius(first, first.argmax(axis=1)) >= 0).all()


# --- bad inputs


@pytest.mark.any_backend
def test_what_makes_no_sense_is_refused():
    class Own(keras.Model):
        def call(self, x):
            return x

    for model, error, message in (
        (L.Dense(2), ValueError, r"operator\(layer\).bound\(\)"),
        ("model.keras", ValueError, "takes a Functional"),
        (None, ValueError, "takes a Functional"),
        (keras.Sequential([L.Dense(2)]), ka.NoRuleError, "call it once"),
        (Own(), ka.NoRuleError, "its `call` is its own"),
        (of_one_call(L.Conv1D(2, 3), None, 2), ka.SizeError, "Pass the shape"),
    ):
        with pytest.raises(error, match=message + r"[\s\S]*Received: "):
            ka.certify(model)
    model = keras.Sequential([keras.Input((4,)), L.Dense(3)])
    for norm in (1, np.inf, "2", None, True):
        with pytest.raises(ValueError, match="input_norm=2.*Received: input_norm="):
            ka.certify(model, input_norm=norm)
    certificate = ka.certify(model)
    for outputs in (np.zeros(3), np.zeros((2, 4)), np.array([["a", "b", "c"]]), np.zeros((1, 3), complex)):
        with pytest.raises(ValueError, match=r"shape \(batch, 3\)\. Received: "):
            certificate.radius(outputs)
    for labels in ([0], [0, 3], [0.0, 1.0], [[0], [1]], [-1, 0]):
        with pytest.raises(ValueError, match="integers from 0 to 2.*Received: "):
            certificate.radius(np.zeros((2, 3)), labels)
    probabilities = keras.Sequential([keras.Input((4,)), L.Dense(3, activation="softmax")])
    with pytest.raises(ValueError, match="probabilities.*Received: numbers from"):
        ka.certify(probabilities).radius(np.array([[2.0, -1.0, 0.0]]))
    for output in (L.Dense(1), L.Reshape((2, 2))):
        with pytest.raises(ValueError, match="two or more classes.*Received: "):
            ka.certify(of_one_call(output, 4)).radius(np.zeros((1, 1)))


@pytest.mark.any_backend
def test_of_unknown_sizes_the_one_is_certified_that_is_asked_for():
    model = of_one_call(L.Conv1D(2, 3), None, 2)
    small, large = (ka.certify(model, size=size).bound for size in (4, 40))
    assert small <= large * (1 + 1e-6)
    (call,) = ka.certify(model, size=(40, 2)).calls
    assert call.inputs == ((40, 2),) and call.layer == model.layers[1].name


@pytest.mark.any_backend
@pytest.mark.parametrize("layer", [L.Dense(2), L.MaxPooling1D(2), L.Rescaling(2.0), L.UpSampling1D(2)], ids=str)
def test_a_size_that_keras_leaves_open_is_found(layer):
    found = []
    for shape in ((None, 3), (5, 3)):
        x = keras.Input((5, 4))
        einsum = L.EinsumDense("abc,cd->abd", output_shape=shape, kernel_initializer="ones")
        model = keras.Model(x, layer(einsum(x)))
        found.append(ka.certify(model))
    assert found[0].bound == found[1].bound < float("inf")
    assert [call.outputs for call in found[0].calls] == [call.outputs for call in found[1].calls]
    x = keras.Input((5, 4))
    linear = ka.operator(keras.Model(x, L.Dense(2)(L.EinsumDense("abc,cd->abd", output_shape=(None, 3))(x))))
    assert linear.shape == (10, 20) and linear.T.out_shape == (5, 4)


class Open(L.Layer):
    """A layer that leaves a size open and cannot be called to find it."""

    def compute_output_spec(self, x):
        return keras.KerasTensor((None, None, 3))

    def call(self, x):
        raise NotImplementedError


@pytest.mark.any_backend
def test_a_size_that_layers_before_leave_open_is_named():
    x = keras.Input((5, 4))
    *_, call = ka.certify(keras.Model(x, L.Dense(2, name="last")(Open()(x)))).unknown
    assert call.layer == "last" and "size of what it takes, (?, 3)" in call.reason


@pytest.mark.any_backend
def test_division_by_a_constant_zero_has_no_constant():
    x = keras.Input((4,))
    certificate = ka.certify(keras.Model(x, ops.divide(x, np.array([1.0, 0.0, 1.0, 1.0], "float32"))))
    assert certificate.bound == float("inf") and certificate.unknown


@pytest.mark.any_backend
@given(st.floats(1e-6, 1e6))
@example(1.000005)
@example(2.0)
def test_bounds_are_rounded_up_and_by_less_than_a_unit_of_the_last_digit(bound):
    text = at_most(bound)
    assert float(text) >= bound
    digits = len(text.partition("e")[0].replace(".", "").lstrip("0"))
    assert float(text) - bound <= (0.9 if digits < 7 else 1.0) * 10.0 ** (
        math.floor(math.log10(bound)) + 1 - max(digits, 4)
    ) * (1 + 1e-6)
    assert bound != 1.000005 or text == "1.00001"


@pytest.mark.any_backend
def test_reasons_are_sentences_without_what_an_error_received():
    model = keras.Sequential([keras.Input((64, 64, 8)), layers.Resizing(32, 32, interpolation="bicubic")])
    certificate = ka.certify(model)
    assert certificate.unknown and all("Received: " in call.reason for call in certificate.unknown)
    assert "no constant. No bound is known" in str(certificate) and "Received" not in str(certificate)
