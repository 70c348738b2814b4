"""The problem: the adjoint of a 3-D convolution, on volumes of zarr that are made chunk by chunk."""

import keras
import numpy as np
import zarr

import keras_adjoint as ka

CHANNELS, TAPS, CHUNK = 8, 5, 32
COMPRESSORS = {"uncompressed": None, "zstd": "auto"}  # "auto" is zarr's own choice, zstd


def adjoint_of_size(size):
    """The adjoint of a convolution with 5³ taps from 8 channels to 8, at a size, with the same kernel in every process."""
    keras.utils.set_random_seed(0)
    conv = keras.layers.Conv3D(CHANNELS, TAPS, padding="same", use_bias=False)
    conv.build((None, size, size, size, CHANNELS))
    return ka.operator(conv, size=(size,) * 3).T


def volume(path, size, compressor, *, filled=False):
    """A new volume of float32, of chunks of 32³ positions. `filled` with numbers that depend on their chunk alone."""
    array = zarr.create_array(
        path,
        shape=(size, size, size, CHANNELS),
        chunks=(*(min(size, CHUNK),) * 3, CHANNELS),
        dtype="float32",
        compressors=COMPRESSORS[compressor],
        overwrite=True,
    )
    if filled:
        starts = range(0, size, CHUNK)
        for number, place in enumerate((a, b, c) for a in starts for b in starts for c in starts):
            cut = tuple(slice(start, min(start + CHUNK, size)) for start in place)
            shape = (*(one.stop - one.start for one in cut), CHANNELS)
            array[cut] = np.random.default_rng(number).random(shape, dtype="float32")
    return array


def error_at(operator, given, made, places):
    """The largest error of a result at some positions, each computed from the kernel and the numbers around it, in float64."""
    (kernel,) = operator.variables()
    kernel = keras.ops.convert_to_numpy(kernel).astype("float64")[::-1, ::-1, ::-1]
    size, before, worst = given.shape[0], TAPS // 2, 0.0
    for place in places:
        around = np.zeros((TAPS,) * 3 + (CHANNELS,))
        starts = [at - before for at in place]
        inside = [slice(max(0, start), min(size, start + TAPS)) for start in starts]
        window = tuple(slice(cut.start - start, cut.stop - start) for cut, start in zip(inside, starts, strict=True))
        around[window] = given[tuple(inside)]
        exact = np.einsum("abcio,abco->i", kernel, around)
        worst = max(worst, float(np.abs(made[tuple(place)] - exact).max()))
    return worst
