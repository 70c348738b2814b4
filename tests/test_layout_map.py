"""`ka.layout_map`: which variables are divided among devices, and along which axis."""

import math

import keras
import pytest

import keras_adjoint as ka

L = keras.layers
on_jax = pytest.mark.only_on("jax")


def mesh(*shape, names=("batch", "model")):
    devices = [f"cpu:{number}" for number in range(math.prod(shape))]
    return keras.distribution.DeviceMesh(shape, names, devices)


def divided(model, batches=1, devices=4):
    """The axes along which variables are divided, by their paths."""
    layouts = ka.layout_map(model, mesh(batches, devices))
    axes = {variable.path: layouts[variable.path] for variable in model.variables}
    return {path: layout.axes.index("model") for path, layout in axes.items() if layout is not None}


def built(layer, *shape):
    layer.build((None, *shape))
    return layer


KERNELS = {
    "filters": (lambda: built(L.Conv2D(8, 3), 9, 9, 3), {"kernel": 3}),
    "channels where filters do not divide": (lambda: built(L.Conv1D(6, 3), 9, 4), {"kernel": 1}),
    "units of a dense layer": (lambda: built(L.Dense(8), 5), {"kernel": 1}),
    "channels of a depthwise kernel": (lambda: built(L.DepthwiseConv2D(3, depth_multiplier=4), 9, 9, 8), {"kernel": 2}),
    "whole groups": (lambda: built(L.Conv2D(16, 3, groups=8), 9, 9, 8), {"kernel": 3}),
    "transposed": (lambda: built(L.Conv2DTranspose(3, 3), 9, 9, 8), {"kernel": 3}),
    "heads": (lambda: built(L.EinsumDense("abc,cde->abde", (None, 8, 3)), 5, 6), {"kernel": 1}),
    "embeddings": (lambda: built(L.Embedding(7, 4)), {"embeddings": 1}),
    "separable": (
        lambda: built(L.SeparableConv2D(12, 3), 9, 9, 8),
        {"depthwise_kernel": 2, "pointwise_kernel": 3},
    ),
}


@on_jax
@pytest.mark.parametrize("name", KERNELS)
def test_kernels_are_divided_along_channels_and_never_along_taps(name):
    make, expected = KERNELS[name]
    assert {path.rsplit("/")[-1]: axis for path, axis in divided(make()).items()} == expected


@on_jax
@pytest.mark.parametrize("batches", [1, 2])
def test_kernels_of_groups_are_whole_where_the_batch_is_divided_along_another_axis(batches):
    model = keras.Sequential(
        [
            keras.Input((9, 9, 8)),
            L.Conv2D(8, 3, name="all"),
            L.Conv2D(8, 3, groups=8, name="groups"),
            L.DepthwiseConv2D(3, name="depthwise"),
            L.SeparableConv2D(8, 3, name="separable"),
        ],
        name="model",
    )
    found = {path.removeprefix("model/"): axis for path, axis in divided(model, batches).items()}
    everywhere = {"all/kernel": 3, "separable/pointwise_kernel": 3}
    alone = {"groups/kernel": 3, "depthwise/kernel": 2, "separable/depthwise_kernel": 2}
    assert found == (everywhere if batches > 1 else everywhere | alone)


@on_jax
def test_a_kernel_that_several_layers_read_has_one_layout_and_what_cannot_be_divided_none():
    x = keras.Input((9, 9, 4))
    y = L.Conv2D(6, 3, groups=2, name="groups")(L.Conv2D(8, 3, name="first")(x))
    model = ka.autoencoder(keras.Model(x, y))
    assert divided(model) == {"first/kernel": 3}
    assert len(ka.layout_map(model, mesh(2, 4))) == 1


def _sequential():
    return keras.Sequential([keras.Input((9, 9, 3)), L.Conv2D(8, 3, name="a"), L.Conv2D(4, 3, name="b")], name="inner")


def _around(layer):
    x = keras.Input((9, 9, 3))
    return keras.Model(x, layer(x))


def _in_steps():
    steps = L.TimeDistributed(L.Conv2D(8, 3, name="a"), name="steps")
    return keras.Sequential([keras.Input((2, 9, 9, 3)), steps], name="inner")


@on_jax
@pytest.mark.parametrize(
    "make, ends",
    [
        (_sequential, {"a/kernel": 3, "b/kernel": 3}),
        (lambda: ka.autoencoder(_sequential()), {"a/kernel": 3, "b/kernel": 3}),
        (lambda: _around(_sequential()), {"a/kernel": 3, "b/kernel": 3}),
        (lambda: ka.autoencoder(_around(_around(_sequential()))), {"a/kernel": 3, "b/kernel": 3}),
        (_in_steps, {"a/kernel": 3}),
    ],
)
def test_copies_and_files_have_the_layouts_of_the_model(make, ends, tmp_path):
    model = make()
    model.save(tmp_path / "model.keras")
    for other in (model, ka.clone_tied(model), keras.saving.load_model(tmp_path / "model.keras")):
        for blueprint in (model, ka.clone_tied(model)):
            layouts = ka.layout_map(blueprint, mesh(2, 4))
            found = {
                v.path: layouts[v.path].axes.index("model") for v in other.variables if layouts[v.path] is not None
            }
            assert {"/".join(path.split("/")[-2:]): axis for path, axis in found.items()} == ends


@on_jax
def test_layers_of_one_name_in_two_models_have_the_layouts_that_each_can_have():
    x = keras.Input((9, 9, 3))
    first, second = (
        keras.Sequential([keras.Input((None, None, channels)), L.Conv2D(filters, 3, name="a")], name=name)
        for name, channels, filters in (("one", 3, 8), ("two", 8, 5))
    )
    assert divided(keras.Model(x, second(first(x)))) == {"one/a/kernel": 3, "two/a/kernel": 2}
    dense = keras.Sequential([keras.Input((None, None, 8)), L.Dense(4, name="a")], name="three")
    assert divided(keras.Model(x, dense(first(x)))) == {"one/a/kernel": 3, "three/a/kernel": 1}


IN_GROUPS = {
    "reads the input": (lambda: [L.DepthwiseConv2D(3, name="groups"), L.Conv2D(8, 1)], False),
    "reads channels that are not divided": (
        lambda: [L.Conv2D(6, 3), L.Conv2D(12, 3, groups=6, name="groups"), L.Dense(8)],
        False,
    ),
    "separable": (lambda: [L.SeparableConv2D(8, 3, name="groups")], False),
    "reads divided channels": (lambda: [L.Conv2D(8, 3), L.BatchNormalization(), L.ReLU(), L.DepthwiseConv2D(3)], True),
    "one behind the other": (
        lambda: [L.Dense(8), L.Conv2D(8, 3, groups=4), L.DepthwiseConv2D(3), L.SeparableConv2D(4, 2)],
        True,
    ),
}


@on_jax
@pytest.mark.parametrize("title", IN_GROUPS)
def test_grouped_kernels_whose_gradients_xla_makes_too_large_are_refused(title):
    make, is_right = IN_GROUPS[title]
    model = ka.autoencoder(keras.Sequential([keras.Input((9, 9, 8)), *make()]))
    if is_right:
        assert len(ka.layout_map(model, mesh(2, 4)))
        return
    with pytest.raises(
        ValueError, match=r"gradient of `[^`]*groups/\w+` 4 times too large .*\(\(1, 8\), .*Received: mesh"
    ):
        ka.layout_map(model, mesh(2, 4))
    assert len(ka.layout_map(model, mesh(1, 8)))
    model.get_layer("groups").trainable = False
    assert len(ka.layout_map(model, mesh(2, 4)))


@on_jax
def test_axis_is_the_last_one_unless_named():
    layer = built(L.Dense(8), 8)
    assert ka.layout_map(layer, mesh(4, 2), axis="batch")[layer.kernel.path].axes == (None, "batch")
    assert ka.layout_map(layer, mesh(8, names=("all",)))[layer.kernel.path].axes == (None, "all")
    with pytest.raises(ValueError, match=r'Did you mean "model"\? Received: axis=.modell.'):
        ka.layout_map(layer, mesh(4, 2), axis="modell")


@on_jax
def test_what_devices_cannot_share_at_all_is_refused_with_the_kernels():
    layer = built(L.Dense(5, name="odd"), 3)
    with pytest.raises(
        ValueError, match=r"4 devices can share no kernel .*DataParallel.* Received: .*odd/kernel \(3, 5\)"
    ):
        ka.layout_map(layer, mesh(2, 4))


def test_other_arguments_and_backends_are_refused():
    layer = built(L.Dense(8), 8)
    with pytest.raises(ValueError, match="built Keras model or layer. Received: model="):
        ka.layout_map(L.Dense(8), mesh(2, 4))
    with pytest.raises(ValueError, match=r"`DeviceMesh\(\(2, 4\).* Received: mesh=4"):
        ka.layout_map(layer, 4)
    if keras.backend.backend() != "jax":
        with pytest.raises(ValueError, match="on JAX alone. Set KERAS_BACKEND=jax, .* Received: backend="):
            ka.layout_map(layer, mesh(2, 4))
