"""Random encoders with random policies, from making a decoder to untying it: each step is right, or one of our errors."""

import tempfile
from pathlib import Path

import autodiff
import keras
import numpy as np
import pytest
from encoders import EXACT, assert_close, values
from helpers import compiled
from hypothesis import event, given, settings
from keras import ops
from operators_of_models import is_ours, saved_and_loaded
from random_encoders import encoders, samples

import keras_adjoint as ka


def refused(make, *places):
    """(what `make` returns, None), or (None, the error), if that is one of ours that names a place."""
    try:
        return make(), None
    except (ka.KerasAdjointError, ValueError) as error:
        if not is_ours(error, places):
            raise AssertionError(f"no error of ours: {type(error).__name__}: {error}") from error
        return None, error


def run(model, x):
    return values(compiled(lambda x: model(x, training=False))(x))


def assert_lives(encoder, with_encoder):
    """A decoder, alone or behind its encoder, is run, saved, loaded, cloned, trained and untied, or its making is refused."""
    source = encoder.model
    make = ka.autoencoder if with_encoder else ka.mirror
    model, error = refused(lambda: make(source, **encoder.policies), source.name)
    event("refused" if error else "made")
    if error:
        return error
    x = samples(source)
    given = x if with_encoder else run(source, x)
    result = run(model, given)
    assert result.shape == x.shape and np.isfinite(result).all()
    with tempfile.TemporaryDirectory() as folder:
        loaded = saved_and_loaded(model, Path(folder) / "model.keras")
    clone = ka.clone_tied(model)
    for copy in (loaded, clone):
        assert len(copy.weights) == len(model.weights)
        assert not {id(weight) for weight in copy.weights} & {id(weight) for weight in model.weights}
        assert_close(run(copy, given), result)
    assert ka.is_tied(loaded) == ka.is_tied(clone) == ka.is_tied(model)
    untied, error = refused(lambda: ka.untie(model), "Received: ")
    event("not untied" if error else "untied")
    if not error:
        assert_close(run(untied, given), result)
    if with_encoder:
        assert_trains(encoder, clone, model, x)
    return None


def assert_trains(encoder, clone, model, x):
    """One step moves the kernels, for the encoder and for the decoder alike, and the ties hold."""
    before = [np.array(weight) for weight in clone.get_weights()]
    clone.compile(keras.optimizers.SGD(1e-3), "mse", run_eagerly=True, jit_compile=False)
    clone.train_on_batch(x, x)
    after = clone.get_weights()
    assert all(np.isfinite(weight).all() for weight in after)
    if clone.trainable_weights:
        assert any(not np.array_equal(*pair) for pair in zip(before, after, strict=True))
    for weight, value in zip(model.weights, after, strict=True):
        weight.assign(value)
    fresh = ka.autoencoder(encoder.model, **encoder.policies)
    for weight, value in zip(fresh.weights, after, strict=True):
        weight.assign(value)
    assert_close(run(fresh, x), run(clone, x))


def assert_is_gradient(encoder):
    """With the exact policies the autoencoder gives Jᵀ of the encoder, at its input, applied to the code."""
    source, x = encoder.model, samples(encoder.model)
    autoencoder, error = refused(lambda: ka.autoencoder(source, **encoder.policies), source.name)
    event("refused" if error else "made")
    if error:
        return error

    def both(x):
        def half_of_squares(x):
            return ops.sum(source(x, training=False) ** 2) / 2 + 0.0 * ops.sum(x)

        return autoencoder(x, training=False), *autodiff.gradients_of(half_of_squares, traced=True)([x])

    found, expected = compiled(both)(ops.convert_to_tensor(x))
    assert_close(values(found), values(expected))
    return None


FEW = settings(max_examples=settings.default.max_examples // 5)


@pytest.mark.parametrize("with_encoder", [True, False], ids=["autoencoder", "mirror"])
@FEW
@given(encoder=encoders())
def test_the_mirror_of_a_random_encoder_lives_through_everything_or_is_refused(encoder, with_encoder):
    assert_lives(encoder, with_encoder)


@FEW
@given(encoders(**EXACT, gates="gradient"))
def test_the_exact_mirror_of_a_random_encoder_is_its_gradient(encoder):
    assert_is_gradient(encoder)
