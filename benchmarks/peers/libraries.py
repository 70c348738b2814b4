"""The same operator as each library has it: (A, Aᵀ, to its arrays, from its arrays), `None` where it cannot be said.

DeepInverse 0.5 needs torchvision, and SCICO pins another JAX than the one that is used here; where they cannot be imported,
they have no row.
"""

import itertools

import keras
import numpy as np

import keras_adjoint as ka


def ours(problem):
    """`keras_adjoint.adjoint`, compiled as the backend compiles."""
    from keras_adjoint.ops.backend import current

    rank = len(problem.sizes)
    conv_class = {1: keras.layers.Conv1D, 2: keras.layers.Conv2D}[rank]
    conv = conv_class(problem.filters, problem.taps, strides=problem.stride, use_bias=False)
    conv.build((None, *problem.sizes, problem.channels))
    conv.kernel.assign(np.moveaxis(problem.kernel, (0, 1), (-1, -2)))
    back = ka.adjoint(conv, output_size=problem.sizes)
    return (
        current().compiled(conv),
        current().compiled(back),
        lambda array: keras.ops.convert_to_tensor(np.moveaxis(array, 0, -1)[None]),
        lambda tensor: np.moveaxis(keras.ops.convert_to_numpy(tensor)[0], -1, 0),
    )


def scipy_sparse(problem):
    """The matrix written out, in SciPy's sparse format."""
    import scipy.sparse

    (filters, *outputs), channels, stride = problem.y_shape, problem.channels, problem.stride
    kernel = problem.kernel
    rows = np.arange(np.prod(problem.y_shape)).reshape(problem.y_shape)
    columns = np.arange(np.prod(problem.x_shape)).reshape(problem.x_shape)
    found = []
    for channel, tap in itertools.product(range(channels), np.ndindex(*kernel.shape[2:])):
        ends = [slice(t, t + (count - 1) * stride + 1, stride) for t, count in zip(tap, outputs, strict=True)]
        read = np.broadcast_to(columns[(channel, *ends)], rows.shape)
        weight = np.broadcast_to(kernel[(slice(None), channel, *tap)].reshape(-1, *[1] * len(outputs)), rows.shape)
        found.append((rows.ravel(), read.ravel(), weight.ravel()))
    rows, columns, weights = (np.concatenate(parts) for parts in zip(*found, strict=True))
    size = (filters * int(np.prod(outputs)), int(np.prod(problem.x_shape)))
    matrix = scipy.sparse.csr_matrix((weights, (rows, columns)), shape=size)
    return (
        lambda x: (matrix @ x.ravel()).reshape(problem.y_shape),
        lambda y: (matrix.T @ y.ravel()).reshape(problem.x_shape),
        np.asarray,
        np.asarray,
    )


def scipy_fft(problem):
    """Convolutions by Fourier transforms, for every pair of channels, of which the strided part is kept."""
    from scipy.signal import fftconvolve

    axes = tuple(range(2, 2 + len(problem.sizes)))
    flipped = np.flip(problem.kernel, axes)
    keep = (slice(None), *(slice(None, None, problem.stride),) * len(axes))
    full = (problem.filters, *(size - problem.taps + 1 for size in problem.sizes))

    def forward(x):
        return fftconvolve(x[None], flipped, "valid", axes).sum(1)[keep]

    def adjoint(y):
        stuffed = np.zeros(full, "float32")
        stuffed[keep] = y
        return fftconvolve(stuffed[:, None], problem.kernel, "full", axes).sum(0)

    return forward, adjoint, np.asarray, np.asarray


def pylops(problem):
    """A block of `Convolve1D` or `Convolve2D` for every pair of channels, and a `Restriction` to the strided part."""
    import pylops

    (filters, *outputs), kernel = problem.y_shape, problem.kernel
    positions = np.arange(np.prod(problem.sizes)).reshape(problem.sizes)
    places = positions[tuple(slice(0, (count - 1) * problem.stride + 1, problem.stride) for count in outputs)].ravel()
    keep = pylops.Restriction(int(np.prod(problem.sizes)), places, dtype="float32")

    def pair(taps):
        # Its kernel is flipped against ours, and the offset is where the origin then lies.
        flipped, offset = np.flip(taps), (problem.taps - 1,) * len(problem.sizes)
        if len(problem.sizes) == 1:
            return keep @ pylops.signalprocessing.Convolve1D(problem.sizes[0], flipped, offset[0], dtype="float32")
        return keep @ pylops.signalprocessing.Convolve2D(problem.sizes, flipped, offset, dtype="float32")

    operator = pylops.Block(
        [[pair(kernel[f, c]) for c in range(problem.channels)] for f in range(filters)], dtype="float32"
    )
    return (
        lambda x: operator.matvec(x.ravel()).reshape(problem.y_shape),
        lambda y: operator.rmatvec(y.ravel()).reshape(problem.x_shape),
        np.asarray,
        np.asarray,
    )


def sigpy(problem):
    """`ConvolveData`, which has strides and channels."""
    import sigpy

    axes = tuple(range(2, 2 + len(problem.sizes)))
    strides = [problem.stride] * len(axes)
    flipped = np.ascontiguousarray(np.flip(problem.kernel, axes))
    operator = sigpy.linop.ConvolveData(problem.x_shape, flipped, mode="valid", strides=strides, multi_channel=True)
    return operator, operator.H, np.asarray, np.asarray


def lineax(problem):
    """A function of JAX and the transpose that JAX derives of it."""
    import jax
    import lineax as lx

    kernel, strides = jax.numpy.asarray(problem.kernel), (problem.stride,) * len(problem.sizes)

    def convolve(x):
        return jax.lax.conv_general_dilated(x[None], kernel, strides, "VALID")[0]

    operator = lx.FunctionLinearOperator(convolve, jax.ShapeDtypeStruct(problem.x_shape, "float32"))
    forward, adjoint = jax.jit(lambda x: operator.mv(x)), jax.jit(lambda y: operator.T.mv(y))
    return forward, adjoint, jax.numpy.asarray, np.asarray


LIBRARIES = {
    "keras-adjoint": ours,
    "lineax": lineax,
    "SciPy, sparse matrix": scipy_sparse,
    "SciPy, Fourier": scipy_fft,
    "SigPy": sigpy,
    "PyLops": pylops,
}
