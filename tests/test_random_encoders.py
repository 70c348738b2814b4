"""Random encoders with random policies, from making a decoder to untying it: each step is right, or one of our errors."""

import tempfile
from pathlib import Path

import autodiff
import keras
import numpy as np
import pytest
from encoders import EXACT, assert_close, values
from helpers import BACKEND, compiled, in_turn
from hypothesis import event, given, settings
from hypothesis import strategies as st
from keras import ops, tree
from operators_of_models import is_ours, saved_and_loaded
from random_encoders import around_autoencoders, encoders, samples

import keras_adjoint as ka
from keras_adjoint.keras_internals import computed_by
from keras_adjoint.ops.maxima import max_pool


def refused(make, *places):
    """(what `make` returns, None), or (None, the error), if that is one of ours that names a place."""
    try:
        return make(), None
    except (ka.KerasAdjointError, ValueError) as error:
        if not is_ours(error, places):
            raise AssertionError(f"no error of ours: {type(error).__name__}: {error}") from error
        return None, error


def run(model, x):
    """What a model gives at inference, as a list of arrays."""
    found = compiled(lambda x: tree.flatten(model(x, training=False)))(x)
    return [values(ops.cast(y, "float32")) for y in found]


def code_of(model, x):
    """What an encoder gives, in its structure."""
    return tree.pack_sequence_as(model.output, run(model, x)) if tree.is_nested(model.output) else run(model, x)[0]


def assert_same(found, expected):
    assert [y.shape for y in found] == [y.shape for y in expected]
    for pair in zip(found, expected, strict=True):
        assert_close(*pair)


def assert_lives(encoder, with_encoder):
    """A decoder, alone or behind its encoder, is run, saved, loaded, cloned, trained and untied, or its making is refused."""
    source = encoder.model
    make = ka.autoencoder if with_encoder else ka.mirror
    model, error = refused(lambda: make(source, **encoder.policies), source.name)
    event("refused" if error else "made")
    if error:
        return error
    x = samples(source)
    given = x if with_encoder else code_of(source, x)
    result = run(model, given)
    for y, wanted, symbolic in zip(result, tree.flatten(x), source.inputs, strict=True):
        assert y.shape[: wanted.ndim] == wanted.shape and np.isfinite(y).all()
        assert y.ndim == wanted.ndim or "int" in symbolic.dtype  # of words there is one number for each
    with tempfile.TemporaryDirectory() as folder:
        loaded = saved_and_loaded(model, Path(folder) / "model.keras")
    clone = ka.clone_tied(model)
    for copy in (loaded, clone):
        assert len(copy.weights) == len(model.weights)
        assert not {id(weight) for weight in copy.weights} & {id(weight) for weight in model.weights}
        assert_same(run(copy, given), result)
    assert ka.is_tied(loaded) == ka.is_tied(clone) == ka.is_tied(model)
    untied, error = refused(lambda: ka.untie(model), "Received: ")
    event("not untied" if error else "untied")
    if not error:
        assert_same(run(untied, given), result)
    if with_encoder:
        assert_trains(encoder, clone, model, x, [np.zeros_like(y) for y in result])
    return None


def assert_trains(encoder, clone, model, x, targets):
    """One step leaves the kernels of the decoder those of the encoder: what is made anew with these weights does the same."""
    clone.compile(keras.optimizers.SGD(1e-3), "mse", run_eagerly=True, jit_compile=False)
    clone.train_on_batch(
        x, tree.pack_sequence_as(clone.output, targets) if tree.is_nested(clone.output) else targets[0]
    )
    after = clone.get_weights()
    assert all(np.isfinite(weight).all() for weight in after)
    for weight, value in zip(model.weights, after, strict=True):
        weight.assign(value)
    fresh = ka.autoencoder(encoder.model, **encoder.policies)
    for weight, value in zip(fresh.weights, after, strict=True):
        weight.assign(value)
    assert_same(run(fresh, x), run(clone, x))


def assert_is_gradient(encoder):
    """With the exact policies the autoencoder gives Jᵀ of the encoder, at its input, applied to the code."""
    source, xs = encoder.model, tree.flatten(samples(encoder.model))
    autoencoder, error = refused(lambda: ka.autoencoder(source, **encoder.policies), source.name)
    event("refused" if error else "made")
    if error:
        return error
    floats = [number for number, x in enumerate(source.inputs) if "float" in x.dtype]

    def packed(some):
        given = [*map(ops.convert_to_tensor, xs)]
        for number, x in zip(floats, some, strict=True):
            given[number] = x
        return given if len(given) > 1 else given[0]

    def both(*some):
        def half_of_squares(*some):
            codes = tree.flatten(source(packed(some), training=False))
            return sum(ops.sum(code**2) for code in codes) / 2 + 0.0 * sum(map(ops.sum, some))

        found = tree.flatten(autoencoder(packed(some), training=False))
        gradients = autodiff.gradients_of(half_of_squares, traced=True)(some) if some else []
        return [found[number] for number in floats], list(gradients)

    found, expected = compiled(both)(*(ops.convert_to_tensor(xs[number]) for number in floats))
    assert_same([*map(values, found)], [*map(values, expected)])
    return None


FEW = settings(max_examples=settings.default.max_examples // 5)


BOTH = {True: "autoencoder", False: "mirror"}


@pytest.mark.parametrize("with_encoder", in_turn(BOTH, BOTH.get, always=["torch"]))
@FEW
@given(encoder=encoders())
def test_the_mirror_of_a_random_encoder_lives_through_everything_or_is_refused(encoder, with_encoder):
    assert_lives(encoder, with_encoder)


@FEW
@given(encoders(**EXACT, gates="gradient"))
def test_the_exact_mirror_of_a_random_encoder_is_its_gradient(encoder):
    assert_is_gradient(encoder)


@pytest.mark.parametrize("depth", [2, 3])
@FEW
@given(st.data())
def test_the_exact_mirror_of_what_holds_exact_autoencoders_is_its_gradient(depth, data):
    encoder = data.draw(around_autoencoders(depth, **EXACT, gates="gradient"))
    # TensorFlow's own gradient of `MaxPooling3D` gives each of several equal maxima all of it.
    by = {"max_pool": lambda original, *args, **options: max_pool(*args, **options)} if BACKEND == "tensorflow" else {}
    with computed_by(by):
        assert_is_gradient(encoder)
