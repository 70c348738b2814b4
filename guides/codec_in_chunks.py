# %% [markdown]
# # Sound in chunks: a codec whose decoder is its encoder's adjoint
#
# A microphone gives sound in chunks, and whatever compresses it answers before the end is known. `ka.stream` applies a model
# of signals chunk by chunk, with exactly the outputs of the whole, however the sound is cut. This guide makes a sound, a
# strided encoder for it, decodes with the encoder's adjoint, and says what waiting for that costs.

# %%
import sys

import keras_adjoint as ka  # before Keras, so that it finds whichever backend is installed

import keras
import numpy as np
from keras import layers

QUICK = "--quick" in sys.argv
RATE, SECONDS = 8_000, 0.5 if QUICK else 4  # samples a second
TAPS, STRIDE = 16, 4

# %% [markdown]
# ## A sound
#
# A few plucked strings: each note is a sum of harmonics that fade, the higher ones sooner.

# %%
time = np.arange(round(RATE * SECONDS)) / RATE
sound = np.zeros_like(time)
for start, pitch in zip(np.arange(0, SECONDS, 0.25), [196, 247, 294, 392] * 4, strict=False):
    since = np.maximum(time - start, 0)
    for harmonic in range(1, 6):
        fading = np.exp(-3 * harmonic * since) * (time >= start)
        sound += fading * np.sin(2 * np.pi * pitch * harmonic * since) / harmonic**2
sound = (sound / np.abs(sound).max()).astype("float32")[np.newaxis, :, np.newaxis]
print(f"{sound.shape[1]:,} samples")

# %% [markdown]
# ## Encoder and decoder
#
# The encoder is one causal convolution. Its filters are the cosines of an orthonormal transform (DCT-IV) in a window whose
# squares, shifted by the stride, add up to one, so that the adjoint gives the sound back. Any trained encoder takes its place.

# %%
encoder = layers.Conv1D(TAPS, TAPS, strides=STRIDE, padding="causal", use_bias=False, name="encoder")
encoder.build((None, None, 1))
step = np.arange(TAPS)[:, np.newaxis] + 0.5
window = np.sin(np.pi * step / TAPS) / np.sqrt(TAPS / (2 * STRIDE))
transform = np.sqrt(2 / TAPS) * np.cos(np.pi / TAPS * step * (np.arange(TAPS) + 0.5))
encoder.kernel.assign((window * transform)[:, np.newaxis, :].astype("float32"))
decoder = ka.adjoint(encoder)

# %% [markdown]
# ## What chunks have to wait for
#
# The encoder is causal: no frame depends on a later sample. The adjoint of a causal convolution is *anti*-causal: a sample is
# complete when the last frame that reads it is there. The stream says so before anything is computed.

# %%
encode, decode = ka.stream(encoder), ka.stream(decoder)
for name, stream in (("encoder", encode), ("decoder", decode)):
    print(f"{name}: {stream.rate} inputs an output, lookahead {stream.lookahead}, first output after {stream.latency}")
wait = decode.lookahead * STRIDE
print(f"a decoder waits for {wait} samples, {1000 * wait / RATE:.1f} ms")
assert encode.lookahead == 0 < decode.lookahead

# %% [markdown]
# ## Chunk by chunk
#
# The chunks that arrive here have lengths drawn at random. Some are shorter than a stride, and give no frame at all.

# %%
rng, position, frames, pieces = np.random.default_rng(0), 0, [], []
while position < sound.shape[1]:
    chunk = sound[:, position : position + rng.integers(1, 400)]
    position += chunk.shape[1]
    frames.append(encode.push(chunk))
    pieces.append(decode.push(frames[-1]))
frames.append(encode.flush())
pieces.append(decode.push(frames[-1]))
pieces.append(decode.flush(output_size=sound.shape[1]))
together = np.concatenate([keras.ops.convert_to_numpy(piece) for piece in pieces], axis=1)

whole = keras.ops.convert_to_numpy(decoder(encoder(sound), output_size=sound.shape[1:2]))
difference = np.abs(together - whole).max()
print(f"{len(pieces)} pieces, which differ from the whole by {difference:.0e}")
assert together.shape == whole.shape and difference < 1e-5

# %% [markdown]
# To compare: who decodes every chunk of frames by itself, and puts the results side by side, loses what a frame gives to
# samples of the chunk before.

# %%
alone = [decoder(chunk, output_size=(chunk.shape[1] * STRIDE,)) for chunk in frames if chunk.shape[1]]
alone = np.concatenate([keras.ops.convert_to_numpy(each) for each in alone], axis=1)[:, : sound.shape[1]]
errors = np.abs(alone - whole[:, : alone.shape[1]])
print(f"without waiting, {(errors > 1e-4).mean():.1%} of the samples are wrong, by up to {errors.max():.2f}")
assert (errors > 1e-4).any()

# %% [markdown]
# ## The sound again
#
# What comes out is AᵀA of the sound. With these filters this is the sound itself, but for the last samples, of which some
# frames are missing. With the four largest of the sixteen numbers of each frame it still comes close.

# %%
inside = slice(TAPS, -TAPS)


def error(found):
    return np.linalg.norm((found - sound)[:, inside]) / np.linalg.norm(sound[:, inside])


code = np.concatenate([keras.ops.convert_to_numpy(chunk) for chunk in frames], axis=1)
smallest = np.sort(np.abs(code), axis=-1)[..., -4:-3]
fewer = keras.ops.convert_to_numpy(decoder(np.where(np.abs(code) < smallest, 0, code), output_size=sound.shape[1:2]))
print(f"relative error: {error(together):.0e}, with a quarter of the numbers {error(fewer):.0%}")
assert error(together) < 1e-5
