"""Figures of kernels, of mirrors, and of reconstructions."""

import io
import sys

import keras
import numpy as np
import pytest
from encoders import chain
from keras import layers
from matplotlib.figure import Figure

import keras_adjoint as ka
from keras_adjoint.kernels.layouts import KINDS
from keras_adjoint.plots.comparison import compare, limits_of, psnr
from keras_adjoint.plots.figures import ABOVE, BELOW
from keras_adjoint.plots.kernel_arrays import kernels_of
from keras_adjoint.plots.tiles import mosaic

pytestmark = pytest.mark.any_backend
LAYERS = {
    "conv, one axis": (lambda: layers.Conv1D(6, 5, strides=2), (16, 4), 1),
    "conv, coloured": (lambda: layers.Conv2D(30, 3), (9, 9, 3), 1),
    "conv, dilated": (lambda: layers.Conv2D(6, 3, dilation_rate=2), (9, 9, 4), 1),
    "conv, grouped": (lambda: layers.Conv2D(8, 3, groups=2), (9, 9, 6), 1),
    "conv, three axes": (lambda: layers.Conv3D(4, 3), (7, 7, 7, 2), 1),
    "conv, channels first": (lambda: layers.Conv2D(5, 3, data_format="channels_first"), (4, 9, 9), 1),
    "transposed": (lambda: layers.Conv2DTranspose(5, 3, strides=2), (7, 7, 4), 1),
    "depthwise": (lambda: layers.DepthwiseConv2D(3, depth_multiplier=2), (9, 9, 5), 1),
    "depthwise, one axis": (lambda: layers.DepthwiseConv1D(3), (9, 5), 1),
    "separable": (lambda: layers.SeparableConv2D(6, 3), (9, 9, 5), 2),
    "one tap": (lambda: layers.Conv2D(6, 1), (9, 9, 4), 1),
    "dense": (lambda: layers.Dense(7), (5,), 1),
    "einsum": (lambda: layers.EinsumDense("abc,cde->abde", output_shape=(None, 2, 4)), (5, 8), 1),
    "embedding": (lambda: layers.Embedding(11, 4), (3,), 1),
}


def built(name):
    make, shape, count = LAYERS[name]
    layer = make()
    layer.build((None, *shape))
    return layer, count


def drawn(figure):
    """The figure as an array of pixels."""
    import matplotlib.image

    written = io.BytesIO()
    figure.savefig(written, format="png", dpi=50)
    written.seek(0)
    return matplotlib.image.imread(written)


# --- kernels as arrays


@pytest.mark.parametrize("name", LAYERS)
def test_every_kernel_is_found_with_its_numbers(name):
    layer, count = built(name)
    kernels = kernels_of(layer)
    assert len(kernels) == count
    for kernel, weight in zip(kernels, layer.weights, strict=False):
        held = keras.ops.convert_to_numpy(weight)
        assert kernel.shape == held.shape
        np.testing.assert_array_equal(np.sort(kernel.values, axis=None), np.sort(held, axis=None))
        assert kernel.values.shape[-2:] == (kernel.inputs, kernel.filters)


def test_of_large_kernels_only_what_is_shown_is_read():
    (kernel,) = kernels_of(built("conv, dilated")[0], filters=3, channels=2)
    whole = keras.ops.convert_to_numpy(built("conv, dilated")[0].kernel)
    assert kernel.values.shape == (3, 3, 2, 3) and whole.shape == (3, 3, 4, 6)
    assert (kernel.inputs, kernel.filters) == (4, 6)


def test_of_grouped_kernels_whole_groups_are_read():
    layer, _ = built("conv, grouped")
    (kernel,) = kernels_of(layer, filters=5)
    assert (kernel.groups, kernel.all_groups) == (1, 2)
    np.testing.assert_array_equal(kernel.values, keras.ops.convert_to_numpy(layer.kernel)[..., :4])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["conv, dilated", "conv, grouped", "depthwise", "conv, three axes"])
def test_transposes_are_those_of_the_library(name, kind):
    layer, _ = built(name)
    (kernel,) = kernels_of(layer)
    layout = {2: "HWIO", 3: "DHWIO"}[len(kernel.taps)]
    transposed = kernel.transposed(kind)
    expected = ka.transpose_kernel(kernel.values, kind, layout=layout, groups=kernel.groups)
    np.testing.assert_array_equal(transposed.values, expected)
    assert transposed.values.shape[-2:] == (transposed.inputs, transposed.filters)


@pytest.mark.every_backend
def test_an_adjoint_layer_shows_the_kernel_of_its_source():
    layer, _ = built("conv, dilated")
    (kernel,) = kernels_of(ka.adjoint(layer))
    np.testing.assert_array_equal(kernel.values, keras.ops.convert_to_numpy(layer.kernel))


def test_a_mosaic_shows_signs_as_colours_and_leaves_gaps():
    kernel = np.zeros((3, 3, 2, 2))
    kernel[0, 0, 0, 0], kernel[2, 2, 1, 1] = 1.0, -2.0
    pixels = mosaic(kernel, side=24)
    np.testing.assert_array_equal(pixels[0, 0], [*np.round(255 * ABOVE), 255])
    np.testing.assert_array_equal(pixels[-1, -1], [*np.round(255 * BELOW), 255])
    assert (pixels[24:26, :, 3] == 0).all() and (pixels[:24, :24, 3] == 255).all()


def test_a_mosaic_of_coloured_kernels_has_their_colours():
    kernel = np.zeros((2, 2, 3, 1))
    kernel[0, 0, 0, 0] = 1.0
    pixels = mosaic(kernel, colours=-2, side=2)
    np.testing.assert_array_equal(pixels[0, 0], [255, 128, 128, 255])
    np.testing.assert_array_equal(pixels[1, 1], [128, 128, 128, 255])


# --- plot_kernels


@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, kind) for name in LAYERS for kind in (None, "conv") if not (kind and name == "einsum")],  # of three axes
)
def test_kernels_of_every_kind_are_drawn(name, kind):
    layer, count = built(name)
    figure = ka.plot_kernels(layer, kind=kind)
    assert isinstance(figure, Figure) and len(figure.axes) == count
    assert all(
        (kind or "kernel") in axes.get_title("left") or "embeddings" in axes.get_title("left") for axes in figure.axes
    )
    assert drawn(figure)[..., :3].std() > 0.01


def test_how_many_are_drawn_is_a_choice():
    layer, _ = built("conv, coloured")
    assert ka.plot_kernels(layer).axes[0].get_xlabel() == "24 of 30 filters, in the colours that they see"
    figure = ka.plot_kernels(layer, filters=None, channels=2)
    assert (
        figure.axes[0].get_xlabel()
        == "2 of 3 input channels downwards · 30 filters across · orange above zero, blue below"
    )


def test_layers_without_kernels_are_refused_by_name():
    pool = layers.MaxPooling2D(name="pool")
    with pytest.raises(ValueError, match="draws the kernels of convolutions.*source='pool'"):
        ka.plot_kernels(pool)
    with pytest.raises(ValueError, match="Of a model, pass one of its layers"):
        ka.plot_kernels(chain(layers.Conv2D(2, 3)))
    with pytest.raises(ValueError, match='`kind` must be one of "conv_transpose"'):
        ka.plot_kernels(built("dense")[0], kind="transpose")
    with pytest.raises(ka.TieError, match="not built"):
        ka.plot_kernels(layers.Dense(3))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["conv, dilated", "conv, coloured", "conv, one axis", "conv, three axes", "dense"])
def test_what_is_not_finite_is_drawn_black_and_counted(name, value):
    layer, _ = built(name)
    kernel = keras.ops.convert_to_numpy(layer.kernel).copy()
    before = ka.plot_kernels(layer).axes[0].images
    kernel.flat[0] = value
    layer.kernel.assign(kernel)
    (axes,) = ka.plot_kernels(layer).axes
    assert "1 value is not finite" in axes.get_xlabel()
    if axes.images:  # and not one of curves
        pixels, usual = axes.images[0].get_array(), before[0].get_array()
        np.testing.assert_array_equal(pixels[0, 0], [0, 0, 0, 255])
        assert (pixels[..., :3][pixels[..., 3] > 0].max(-1) == 0).mean() < 0.1
        assert pixels.shape == usual.shape


# --- plot_mirror


def test_a_mirror_is_drawn_with_a_thick_line_for_each_shared_kernel():
    encoder = chain(
        layers.Conv2D(4, 3, name="first"),
        layers.MaxPooling2D(),
        layers.Flatten(),
        layers.Dense(5, name="second"),
    )
    figure = ka.plot_mirror(encoder, pooling="average")
    (axes,) = figure.axes
    texts = [text.get_text() for text in axes.texts]
    assert {"first", "second", "pooling: average", "3×3×3×4"} <= set(texts)
    assert len([line for line in axes.lines if line.get_linewidth() == 4]) == 2
    assert len([line for line in axes.lines if line.get_linestyle() == "--"]) == 1
    assert drawn(figure).shape[0] > 100


def test_a_mirror_with_gaps_is_drawn():
    figure = ka.plot_mirror(chain(layers.AutoContrast(), layers.Conv2D(4, 3)))
    assert "no adjoint, no policy" in [text.get_text() for text in figure.axes[0].texts]


def test_in_a_mirror_long_names_are_drawn_whole():
    name = "a_layer_whose_name_is_longer_than_any_box_that_it_has_to_fit_in"
    texts = [text.get_text() for text in ka.plot_mirror(chain(layers.Conv2D(4, 3, name=name))).axes[0].texts]
    assert name in "".join(texts)


# --- plot_reconstruction


def small():
    return ka.autoencoder(chain(layers.Conv2D(4, 3, strides=2), shape=(None, None, 3)))


@pytest.mark.every_backend
def test_reconstructions_are_drawn_with_their_ratio():
    whole = small()
    images = np.random.default_rng(0).random((2, 12, 10, 3)).astype("float32")
    figure = ka.plot_reconstruction(whole, images, names=["one", "two"])
    reconstructions = keras.ops.convert_to_numpy(whole(images))
    for row, (image, found) in enumerate(zip(images, reconstructions, strict=True)):
        shown = figure.axes[3 * row : 3 * row + 3]
        error = np.mean((found.astype("float64") - image) ** 2)
        assert shown[1].get_xlabel() == f"PSNR {-10 * np.log10(error):.1f} dB".replace("-", "−")
        np.testing.assert_array_equal(shown[0].images[0].get_array(), image)
    assert figure.axes[3].get_xlabel() == "two"


def test_fitted_reconstructions_have_the_brightness_and_contrast_of_their_originals():
    images = np.random.default_rng(0).random((1, 12, 10, 3)).astype("float32")
    (comparison,) = compare(small(), images)
    np.testing.assert_allclose(comparison.fitted.mean(), images.mean(), rtol=1e-4)
    np.testing.assert_allclose(comparison.fitted.std(), images.std(), rtol=1e-4)
    assert "fitted" in ka.plot_reconstruction(small(), images, fit=True).axes[1].get_title("left")


@pytest.mark.parametrize(
    "layer, shape",
    [
        (lambda: layers.Dense(3), (20,)),
        (lambda: layers.Conv1D(4, 3), (20, 2)),
        (lambda: layers.Conv2D(4, 3), (9, 9, 1)),
        (lambda: layers.Conv2D(4, 3), (9, 9, 5)),
        (lambda: layers.Conv3D(2, 3), (7, 7, 7, 1)),
    ],
    ids=["vector", "signal", "grey", "many channels", "volume"],
)
def test_samples_of_every_rank_are_drawn(layer, shape):
    whole = ka.autoencoder(chain(layer(), shape=shape))
    samples = np.random.default_rng(0).normal(size=(1, *shape)).astype("float32")
    figure = ka.plot_reconstruction(whole, samples)
    assert len(figure.axes) == 3 and drawn(figure)[..., :3].std() > 0.01


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e38])
@pytest.mark.parametrize(
    "layer, shape",
    [(lambda: layers.Dense(3), (20,)), (lambda: layers.Conv2D(4, 3), (9, 9, 3))],
    ids=["vector", "picture"],
)
@pytest.mark.parametrize("fit", [False, True])
def test_reconstructions_that_are_not_finite_are_drawn_and_called_so(layer, shape, value, fit):
    encoder = chain(layer(), shape=shape)
    encoder.layers[1].kernel.assign(np.full(encoder.layers[1].kernel.shape, value))
    figure = ka.plot_reconstruction(ka.autoencoder(encoder), np.full((1, *shape), 0.5, "float32"), fit=fit)
    assert figure.axes[1].get_xlabel().startswith("PSNR not finite")
    assert figure.axes[2].get_xlabel() == "not finite"
    drawn(figure)


def test_samples_may_have_different_sizes():
    figure = ka.plot_reconstruction(small(), [np.zeros((9, 7, 3)), np.ones((6, 8, 3))])
    assert len(figure.axes) == 6


def test_what_cannot_be_compared_is_refused():
    encoder = chain(layers.Conv2D(4, 3))
    with pytest.raises(
        ValueError, match=r"a sample of shape \(13, 11, 3\), for which `encoder` returns shape \(11, 9, 4\)"
    ):
        ka.plot_reconstruction(encoder, np.zeros((1, 13, 11, 3)))
    with pytest.raises(ValueError, match="no images"):
        ka.plot_reconstruction(encoder, [])


def test_the_ratio_is_that_of_its_definition():
    assert psnr([0.0, 0.0], [0.1, 0.1], 1) == pytest.approx(20)
    assert psnr([0.0], [25.5], 255) == pytest.approx(20)
    assert psnr([1.0], [1.0], 1) == float("inf")


def test_the_range_of_values_is_a_usual_one_or_their_own():
    assert limits_of([np.array([0.0, 0.5])]) == (0, 1)
    assert limits_of([np.array([-0.2, 0.5])]) == (-1, 1)
    assert limits_of([np.array([0.0, 200.0])]) == (0, 255)
    assert limits_of([np.array([-3.0, 7.0])]) == (-3.0, 7.0)


# --- matplotlib


def test_pyplot_keeps_no_figure():
    """Pyplot would show those that it keeps in a window."""
    from matplotlib import _pylab_helpers

    encoder = chain(layers.Conv2D(4, 3))
    drawn(ka.plot_kernels(encoder.layers[1]))
    drawn(ka.plot_mirror(encoder))
    drawn(ka.plot_reconstruction(ka.autoencoder(encoder), np.zeros((1, 13, 11, 3))))
    assert not _pylab_helpers.Gcf.figs


def test_notebooks_show_a_figure_without_pyplot():
    assert ka.plot_mirror(chain(layers.Conv2D(4, 3)))._repr_png_().startswith(b"\x89PNG")


def test_without_matplotlib_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    encoder = chain(layers.Conv2D(4, 3))
    calls = (
        lambda: ka.plot_kernels(encoder.layers[1]),
        lambda: ka.plot_mirror(encoder),
        lambda: ka.plot_reconstruction(ka.autoencoder(encoder), np.zeros((1, 13, 11, 3))),
    )
    for call in calls:
        with pytest.raises(ImportError, match=r'pip install "keras-adjoint\[plot\]"$'):
            call()
