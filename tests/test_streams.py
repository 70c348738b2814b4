"""Streams: however a signal is cut, what is given back, put together, is what the model gives of the whole."""

import copy
import pickle

import keras
import numpy as np
import pytest
from autodiff import compiled
from helpers import BACKEND
from hypothesis import given
from hypothesis import strategies as st
from keras import ops
from layer_list import randomize
from random_blocks import models

import keras_adjoint as ka

L = keras.layers
GENERATOR = np.random.default_rng(0)
LENGTH = 60
LOOKAHEADS = {  # of a convolution and of its adjoint, in their own inputs
    "causal": ({"kernel_size": 3, "dilation_rate": 2, "padding": "causal"}, 0, 4),
    "causal, stride 4": ({"kernel_size": 9, "strides": 4, "padding": "causal"}, 0, 2),
    "causal, stride beyond the kernel": ({"kernel_size": 2, "strides": 3, "padding": "causal"}, 0, 1),
    "valid, stride 2": ({"kernel_size": 5, "strides": 2}, 4, 0),
    "valid, stride beyond the kernel": ({"kernel_size": 3, "strides": 5}, 2, 0),
    "same": ({"kernel_size": 5, "padding": "same"}, 2, 2),
    "channels first": ({"kernel_size": 4, "data_format": "channels_first"}, 3, 0),
}


def signals(*shape):
    return GENERATOR.normal(size=shape).astype("float32")


def numpy(x):
    return ops.convert_to_numpy(x)


def conv_of(name):
    options = LOOKAHEADS[name][0]
    first = options.get("data_format") == "channels_first"
    if first and BACKEND == "tensorflow":
        pytest.skip("TensorFlow has no such convolution on the CPU")
    conv = L.Conv1D(4, bias_initializer="ones", **options)
    conv.build((None, 3, None) if first else (None, None, 3))
    return conv, (2 if first else 1)


def in_chunks(stream, x, cuts, output_size=None):
    axis = stream.in_axis
    made = [numpy(stream.push(chunk)) for chunk in np.split(x, sorted(cuts), axis=axis)]
    return np.concatenate([*made, numpy(stream.flush(output_size))], axis=axis)


def agree(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("name", LOOKAHEADS)
def test_a_convolution_and_its_adjoint_are_those_of_the_whole(name):
    conv, axis = conv_of(name)
    shape = (2, 3, LENGTH) if axis == 2 else (2, LENGTH, 3)
    x = signals(*shape)
    y = numpy(conv(x))
    forward, backward = ka.stream(conv), ka.stream(ka.adjoint(conv))
    assert (forward.lookahead, backward.lookahead) == LOOKAHEADS[name][1:]
    assert forward.rate == 1 / backward.rate == conv.strides[0]
    assert (forward.in_channels, forward.out_channels) == (3, 4)
    for cuts in ([], [0, 1, 2, 30, 30, 59]) if BACKEND != "torch" else ([], range(1, LENGTH), [0, 7, 8, 30, 30, 59]):
        agree(in_chunks(forward, x, cuts), y)
        frames = [cut for cut in cuts if cut <= y.shape[axis]]
        agree(in_chunks(backward, y, frames, LENGTH), numpy(ka.adjoint(conv)(y, output_size=LENGTH)))


def test_nothing_is_held_back_longer_than_the_latency():
    conv, _ = conv_of("causal, stride 4")
    backward = ka.stream(ka.adjoint(conv))
    given = [backward.push(signals(1, 1, 4)).shape[1] for _ in range(6)]
    assert backward.latency == 3 and given == [0, 0, 4, 4, 4, 4]


def codec(length, branches=False):
    x = keras.Input((length, 1))
    y = L.Conv1D(4, 5, strides=2, padding="causal", activation="gelu")(x)
    z = L.Conv1D(4, 3, dilation_rate=2, padding="causal", activation="relu")(y)
    y = L.Add()([y, z]) if branches else z
    y = L.Conv1D(6, 4, strides=4, padding="causal", activation="tanh")(L.BatchNormalization()(y))
    encoder = keras.Model(x, y)
    for layer in encoder.layers:
        randomize(layer)
    return encoder


def test_mirrored_codecs_at_every_length():
    encoder, x = codec(None), keras.Input((96, 1))
    decoder, both = ka.mirror(keras.Model(x, encoder(x))), ka.autoencoder(codec(None, branches=True))
    codes = signals(2, 12, 6)
    agree(in_chunks(ka.stream(decoder), codes, [3, 4, 9], 96), numpy(decoder(codes)))
    longer = ka.mirror(keras.Model(x := keras.Input((160, 1)), encoder(x)))
    longer.set_weights(decoder.get_weights())
    codes = signals(2, 20, 6)
    agree(in_chunks(ka.stream(decoder), codes, [1, 2, 15], 160), numpy(longer(codes)))
    branched = ka.mirror(codec(96, branches=True))
    with pytest.raises(ka.SizeError, match=r"Pass the `length`.*add_1?_?adjoint"):
        ka.stream(branched)
    codes = signals(2, 12, 6)
    agree(in_chunks(ka.stream(branched, length=12), codes, [3, 4, 9], 96), numpy(branched(codes)))
    for length in (96, 83):
        x = signals(2, length, 1)
        agree(in_chunks(ka.stream(both), x, [10, 11, 60]), numpy(both(x)))


@pytest.mark.parametrize("policy", [{"pooling": "switches"}, {"activation": "gradient"}, {"activation": "guided"}])
@pytest.mark.parametrize("taps, stride", [(2, 2), (3, 2), (2, 3), (5, 1)])
def test_codecs_whose_decoder_needs_what_was_recorded(policy, taps, stride):
    x = keras.Input((47, 1))
    y = L.Conv1D(4, 3, padding="causal", activation="relu")(x)
    y = L.Conv1D(3, 4, strides=2, padding="causal", activation="relu")(L.MaxPooling1D(taps, stride)(y))
    both = ka.autoencoder(keras.Model(x, y), **policy)
    for layer in both.layers:
        randomize(layer)
    x = signals(2, 47, 1)
    stream = ka.stream(both, length=47)
    for cuts in ([], [0, 1, 2, 7, 30, 30, 46]) if BACKEND != "torch" else ([], range(1, 47), [3, 3, 40]):
        agree(in_chunks(stream, x, cuts), numpy(both(x)))


@pytest.mark.in_turn("torch")
@given(models((1, 1)), st.lists(st.integers(0, 16), max_size=6))
def test_random_models(drawn, cuts):
    model, _ = drawn
    x = signals(2, *model.inputs[0].shape[1:])
    formats = [getattr(layer, "data_format", None) for layer in model.layers]
    axes = [layer.axis for layer in model.layers if isinstance(layer, L.BatchNormalization)]
    length = x.shape[2 if "channels_first" in formats or 1 in axes else 1]
    whole, cuts = numpy(model(x, training=False)), [cut for cut in cuts if cut <= length]
    agree(in_chunks(ka.stream(model, length=length), x, cuts), whole)
    try:
        stream = ka.stream(model)
    except ka.NoRuleError as error:
        assert "pads the beginning of a signal by its total length" in str(error)
        return
    agree(in_chunks(stream, x, cuts), whole)


@pytest.mark.parametrize("name", [name for name in LOOKAHEADS if "first" not in name])
def test_functional_form_with_its_state(name):
    conv, _ = conv_of(name)
    frames = 20 * conv.strides[0]
    x = signals(2, frames, 3)
    for op, taken, size in (
        (conv, x, conv.strides[0] * 2),
        (ka.adjoint(conv), numpy(conv(signals(2, 41 * conv.strides[0], 3)))[:, :40], 4),
    ):
        step = ka.stream(op).functional(size)
        state, made = step.initial_state(2), []
        for number in range(taken.shape[1] // size):
            state, out = step(state, taken[:, number * size : (number + 1) * size])
            made.append(numpy(out))
        made = np.concatenate(made, axis=1)
        expected = numpy(ka.stream(op).push(taken))
        kept = made[:, step.delay :]
        assert not made[:, : step.delay].any() and made.shape[1] == step.output_size * (taken.shape[1] // size)
        common = min(kept.shape[1], expected.shape[1])
        assert common >= expected.shape[1] - 4 * step.output_size
        agree(kept[:, :common], expected[:, :common])


@pytest.mark.only_on("jax")
def test_functional_form_is_scanned():
    import jax

    model = ka.autoencoder(codec(None))
    step = ka.stream(model).functional(16)
    x = signals(2, 96, 1)
    chunks = np.moveaxis(x.reshape(2, 6, 16, 1), 1, 0)
    _, made = jax.jit(lambda state, chunks: jax.lax.scan(step, state, chunks))(step.initial_state(2), chunks)
    made = np.moveaxis(np.asarray(made), 0, 1).reshape(2, 96, 1)
    agree(made[:, step.delay :], numpy(model(x))[:, : 96 - step.delay])


def test_padding_by_the_total_length_needs_it():
    for layers in ([(5, 2)], [(3, 1), (3, 2)], [(3, 2), (3, 3)]):
        model = keras.Sequential([keras.Input((None, 3)), *(L.Conv1D(2, k, s, padding="same") for k, s in layers)])
        with pytest.raises(ka.NoRuleError, match=r"by its total length.*Pass `length`"):
            ka.stream(model)
        x = signals(2, 53, 3)
        stream = ka.stream(model, length=53)
        agree(in_chunks(stream, x, [11, 12]), numpy(model(x)))
        with pytest.raises(ka.SizeError, match="Received: 54 positions"):
            stream.push(signals(2, 54, 3))
        stream.push(x[:, :50])
        with pytest.raises(ka.SizeError, match="signals of 53 positions. Received: 50"):
            stream.flush()


def test_what_cannot_be_streamed_is_refused():
    pooled = keras.Sequential([keras.Input((None, 3)), L.Conv1D(2, 3), L.GlobalAveragePooling1D(name="mean")])
    for model, words in (
        (pooled, "/mean`"),
        (keras.Sequential([keras.Input((8, 8, 3)), L.Conv2D(2, 3)]), "one axis of positions"),
        (
            keras.Sequential([keras.Input((None, 3)), L.LSTM(2, return_sequences=True)]),
            "depends on all steps before it",
        ),
    ):
        with pytest.raises(ka.NoRuleError, match=words):
            ka.stream(model)
    for wrong in (3, ka.identity((4, 1))):
        with pytest.raises(ValueError, match="Keras layer or model"):
            ka.stream(wrong)
    for length in (None, 20):
        with pytest.raises(
            ka.NoRuleError, match="channels of the signals that `.*` takes are not known. Stream a model"
        ):
            ka.stream(L.Conv1D(2, 3), length=length)
    conv, _ = conv_of("causal")
    for length in (0, 2.5, "long"):
        with pytest.raises(ValueError, match="positive integer"):
            ka.stream(conv, length=length)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    "layer",
    [
        L.AveragePooling1D(3, 2),
        ka.adjoint(L.AveragePooling1D(3, 2)),
        ka.adjoint(L.AveragePooling1D(2, data_format="channels_first")),
        L.UpSampling1D(2),
        ka.adjoint(L.UpSampling1D(5)),
        L.MaxPooling1D(2),
        ka.adjoint(L.ZeroPadding1D(2)),
        L.Activation("relu"),
    ],
    ids=lambda layer: layer.name,
)
def test_layers_without_weights_alone_take_signals_of_any_channels(layer):
    stream = ka.stream(layer)
    assert stream.in_channels is stream.out_channels is None
    with pytest.raises(ka.NoRuleError, match="channels of the signals are not known"):
        stream.functional(20)
    for channels in (3, 5):
        x = signals(2, 40, channels)
        x = np.swapaxes(x, 1, 2) if stream.in_axis == 2 else x
        found = in_chunks(pickle.loads(pickle.dumps(stream)), x, [7, 8])
        agree(in_chunks(stream, x, [1, 30]), found)
        open_size = getattr(layer, "needs_output_size", False)
        agree(found, numpy(layer(x, output_size=(found.shape[stream.in_axis],)) if open_size else layer(x)))
        assert stream.in_channels == stream.out_channels == channels


@pytest.mark.any_backend
def test_a_mirror_that_pads_otherwise_at_the_length_that_it_was_made_for_is_refused_at_once():
    x = keras.Input((100, 1))
    encoder = keras.Model(x, L.Conv1D(4, 5, strides=3, padding="same")(x))
    decoder = ka.mirror(encoder)
    with pytest.raises(ka.NoRuleError, match="by its total length.*Pass `length`"):
        ka.stream(decoder)
    codes = signals(2, 34, 4)
    agree(in_chunks(ka.stream(decoder, length=34), codes, [3, 20]), numpy(decoder(codes)))


@pytest.mark.in_turn("torch", "jax")
@pytest.mark.parametrize("size, strides, refused", [(2, 1, True), (3, 2, True), (2, 2, False)])
def test_adjoints_of_means_at_the_end_need_the_length(size, strides, refused):
    layer = ka.adjoint(L.AveragePooling1D(size, strides, padding="same"))
    if refused:
        with pytest.raises(ka.NoRuleError, match="its last windows are inside.*Pass `length`"):
            ka.stream(layer)
    x = signals(2, 10, 3)
    found = in_chunks(ka.stream(layer, length=10 if refused else None), x, [4, 8])
    agree(found, numpy(layer(x, output_size=found.shape[1:2]) if strides > 1 else layer(x)))
    if not refused:
        stream = ka.stream(layer)
        stream.push(x)
        with pytest.raises(ka.NoRuleError, match="Pass `length`"):
            stream.flush(19)


@pytest.mark.any_backend
def test_the_latency_of_what_is_cropped_takes_no_longer_where_much_is_cropped():
    assert ka.stream(L.Cropping1D((2, 10**8))).latency == 10**8 + 3


def test_chunks_that_do_not_fit_leave_the_stream_as_it_was():
    conv, _ = conv_of("causal, stride 4")
    stream, x = ka.stream(conv), signals(2, LENGTH, 3)
    with pytest.raises(ka.SizeError, match="Nothing has been pushed"):
        stream.flush()
    first = numpy(stream.push(x[:, :20]))
    for wrong, words in (
        (signals(2, 5, 4), "positions, 3"),
        (signals(3, 5, 3), "same batch"),
        (signals(5, 3), "shape"),
    ):
        with pytest.raises(ka.SizeError, match=words):
            stream.push(wrong)
    with pytest.raises(ValueError, match="batch of numbers"):
        stream.push("text")
    rest = [numpy(stream.push(x[:, 20:])), numpy(stream.flush())]
    agree(np.concatenate([first, *rest], axis=1), numpy(conv(x)))
    backward = ka.stream(ka.adjoint(conv))
    backward.push(signals(1, 10, 4))
    for size in (10, 41):
        with pytest.raises(ka.SizeError, match=rf"output_size=\(?{size}"):
            backward.flush(size)
    assert backward.flush(37).shape[1] + 32 == 37


def test_a_stream_follows_the_kernel():
    conv, _ = conv_of("causal")
    stream, x = ka.stream(conv), signals(1, 20, 3)
    in_chunks(stream, x, [5])
    conv.kernel.assign(2 * conv.kernel)
    agree(in_chunks(stream, x, [5]), numpy(conv(x)))


def test_functional_form_refuses_what_it_has_no_chunks_for():
    conv, _ = conv_of("causal, stride 4")
    stream = ka.stream(conv)
    for size in (0, 6, 2.0, "4"):
        with pytest.raises(ValueError, match="positive multiple of 4"):
            stream.functional(size)
    step = stream.functional(8)
    with pytest.raises(ValueError, match="Every chunk has 8 positions"):
        step(step.initial_state(1), signals(1, 4, 3))
    with pytest.raises(ValueError, match="Chunks are alike"):
        ka.stream(conv, length=60).functional(8)
    edges = keras.Sequential([keras.Input((None, 2)), L.MaxPooling1D(3, 1, padding="same")])
    with pytest.raises(ka.NoRuleError, match="something else than zeros"):
        ka.stream(edges).functional(4)


DEEP = [L.Conv1D(3, 9, padding="same"), L.Conv1D(3, 9, strides=2, padding="causal"), L.Conv1D(3, 9, padding="same")]


@pytest.mark.any_backend
@pytest.mark.parametrize("number", range(3))
def test_functional_form_of_windows_longer_than_a_chunk(number):
    layers, size = [([L.Conv1D(4, 3, dilation_rate=4)], 1), ([L.Conv1D(4, 9, strides=4)], 4), (DEEP, 2)][number]
    model = keras.Sequential([keras.Input((None, 3)), *layers])
    step, x = ka.stream(model).functional(size), signals(2, 96, 3)
    state, made = step.initial_state(2), []
    for start in range(0, 96, size):
        state, out = step(state, x[:, start : start + size])
        made.append(numpy(out))
    made, whole = np.concatenate(made, axis=1), numpy(model(x))
    found = made[:, step.delay :]
    assert not made[:, : step.delay].any() and step.delay > 0 and found.shape[1] >= whole.shape[1] - 8
    agree(found, whole[:, : found.shape[1]])


@pytest.mark.any_backend
def test_functional_form_refuses_chunks_and_states_of_something_else():
    model = keras.Sequential([keras.Input((None, 3)), L.MaxPooling1D(4), L.UpSampling1D(4)])
    with pytest.raises(ValueError, match="positive multiple of 4"):  # although there are as many outputs as inputs
        ka.stream(model).functional(2)
    conv, _ = conv_of("causal")
    step = ka.stream(conv).functional(4)
    other = ka.stream(conv_of("causal, stride 4")[0]).functional(4).initial_state(2)
    for state, chunk in (
        (step.initial_state(2), signals(2, 4, 5)),
        (step.initial_state(2), signals(1, 4, 3)),
        (other, signals(2, 4, 3)),
        ((), signals(2, 4, 3)),
    ):
        with pytest.raises(ka.SizeError, match="channels, and as many signals as its state"):
            step(state, chunk)
    with pytest.raises(ValueError, match="batch=0"):
        step.initial_state(0)


@pytest.mark.any_backend
@pytest.mark.parametrize("length", [None, 15])
def test_a_mirror_ends_where_its_encoder_began(length):
    encoder = keras.Sequential(
        [keras.Input((61, 3)), L.Conv1D(4, 5, strides=2, padding="causal"), L.Conv1D(6, 3, strides=2)]
    )
    mirror = ka.mirror(encoder)
    codes = signals(2, 15, 6)
    whole = numpy(mirror(codes))
    assert whole.shape[1] == 61
    agree(in_chunks(ka.stream(mirror, length=length), codes, [3, 4, 9]), whole)


@pytest.mark.any_backend
def test_an_adjoint_of_a_known_size_is_not_streamed_as_that_of_another():
    conv = L.Conv1D(4, 5, strides=2, padding="same")
    conv.build((None, None, 3))
    backward, y = ka.adjoint(conv, output_size=21), signals(2, 11, 4)
    with pytest.raises(ka.NoRuleError, match="by its total length.*Pass `length`"):
        ka.stream(backward)
    agree(in_chunks(ka.stream(backward, length=11), y, [3, 4, 9]), numpy(backward(y)))


ENDS = {
    "cropped": [L.Cropping1D((1, 3))],
    "cropped between": [L.Conv1D(3, 5, strides=2), L.Cropping1D((1, 3)), L.MaxPooling1D(3)],
    "output padding": [L.Conv1DTranspose(3, 4, strides=3, padding="same", output_padding=1)],
    "transposed, cropped": [L.Conv1DTranspose(3, 5, strides=11), L.Cropping1D((1, 13))],
}


@pytest.mark.any_backend
@pytest.mark.parametrize("name", ENDS)
def test_what_an_end_cuts_off_is_waited_for(name):
    model = keras.Sequential([keras.Input((None, 3)), *ENDS[name]])
    stream, x = ka.stream(model), signals(2, LENGTH, 3)
    made = [numpy(stream.push(x[:, number : number + 1])) for number in range(LENGTH)]
    first = next(number for number, out in enumerate(made, 1) if out.shape[1])
    agree(np.concatenate([*made, numpy(stream.flush())], axis=1), numpy(model(x)))
    assert first == stream.latency


@pytest.mark.any_backend
def test_streams_are_copied_and_chunks_written_to_again():
    conv, _ = conv_of("causal, stride 4")
    stream, x = ka.stream(conv), signals(2, LENGTH, 3)
    chunk = ops.convert_to_tensor(x[:, :20])
    first = numpy(stream.push(chunk))
    if BACKEND == "torch":
        chunk.fill_(1e6)
    for copied in (copy.deepcopy(stream), pickle.loads(pickle.dumps(stream)), stream):
        rest = [numpy(copied.push(x[:, 20:])), numpy(copied.flush())]
        agree(np.concatenate([first, *rest], axis=1), numpy(conv(x)))


@pytest.mark.only_on("jax", "tensorflow")
def test_compiled_functions_leave_the_stream_as_it_was():
    conv, _ = conv_of("causal")
    stream, x = ka.stream(conv), signals(1, 20, 3)
    first = numpy(stream.push(x[:, :8]))
    with pytest.raises(ka.KerasAdjointError, match=r"Use `stream.functional\(chunk_size\)`"):
        compiled(stream.push)(ops.convert_to_tensor(x[:, 8:]))
    agree(np.concatenate([first, numpy(stream.push(x[:, 8:]))], axis=1), numpy(conv(x)))


def test_chunks_are_of_real_numbers():
    conv, _ = conv_of("causal")
    for dtype in ("complex64", "O", "datetime64[s]", "U3"):
        with pytest.raises(ValueError, match="real numbers. Received: a chunk of dtype"):
            ka.stream(conv).push(np.zeros((1, 4, 3)).astype(dtype))


@pytest.mark.every_backend
def test_chunks_may_have_another_byte_order():
    conv, _ = conv_of("causal")
    x = signals(2, 20, 3)
    agree(in_chunks(ka.stream(conv), x.astype(">f4"), [7]), numpy(conv(x)))


def test_a_signal_that_is_too_short_is_refused_with_inputs_of_signals():
    conv = L.Conv1D(2, 7)
    conv.build((None, None, 4))
    stream = ka.stream(conv)
    stream.push(np.ones((1, 3, 4), "float32"))
    with pytest.raises(
        ka.SizeError, match=r"inputs like `keras.Input\(\(None, 3\)\)`. Received: a tensor of shape \(3, 4\)"
    ):
        stream.flush()


def test_a_flush_before_any_position_is_refused():
    conv, _ = conv_of("causal")
    stream = ka.stream(conv)
    stream.push(signals(2, 0, 3))
    with pytest.raises(ka.SizeError, match=r"flush\(\) after 0 positions"):
        stream.flush()


@pytest.mark.any_backend
@pytest.mark.parametrize("outputs", [996, 5])
def test_a_flush_to_a_size_that_cannot_be_leaves_the_stream_as_it_was(outputs):
    conv, _ = conv_of("causal, stride 4")
    stream = ka.stream(ka.adjoint(conv))
    y = signals(1, 10, conv.filters)
    given = numpy(stream.push(y))
    assert "after 10 positions" in repr(stream)
    with pytest.raises(ka.SizeError, match=f"there cannot be so many outputs; by default there are 40. .*{outputs}"):
        stream.flush(outputs)
    with pytest.raises(ka.SizeError, match="Every chunk has 8 positions"):
        step = stream.functional(8)
        assert "chunks of 8 positions" in repr(step)
        step(step.initial_state(1), signals(1, 7, conv.filters))
    agree(np.concatenate([given, numpy(stream.flush(38))], axis=1), numpy(ka.adjoint(conv)(y, output_size=38)))
