"""Layouts of a model's variables on many devices, for `keras.distribution.ModelParallel`."""

import math
import re
from collections import defaultdict
from collections.abc import Sequence

import keras

from keras_adjoint.errors import one_of
from keras_adjoint.keras_internals import layers_inside
from keras_adjoint.ops.backend import current, untraced


@untraced
def layout_map(
    model: keras.layers.Layer, mesh: keras.distribution.DeviceMesh, *, axis: str | None = None
) -> keras.distribution.LayoutMap:
    """Layouts that divide every kernel of a model among devices, for `keras.distribution.ModelParallel`.

    A kernel is one variable however many layers read it, so an adjoint and the state of an optimizer are divided as the kernel
    is. It is divided along its filters or, where the devices do not divide their number, along its channels; that of a grouped
    convolution by whole groups, if the mesh has no other axis of several devices. Where that is not possible, and for variables
    of a single axis, the variable is kept whole on each device. The taps are never divided.

    Keras gives a variable its layout when it makes it, so the model that is trained is made after the layouts: by
    `ka.clone_tied(model)`, `keras.models.load_model` or the code that made `model`, with the same names of layers, within the
    scope of the distribution.

    Args:
        model: A built Keras model or layer.
        mesh: A `keras.distribution.DeviceMesh`.
        axis: The name of the mesh's axis whose devices share a kernel; by default the last one.

    Returns:
        A `keras.distribution.LayoutMap` with a layout for every kernel that is divided. Keras keeps the others whole.

    Raises:
        ValueError: If an argument is of another kind, if the devices can share no kernel at all, or on a backend on which
            Keras does not divide variables; in 3.15 that is any but JAX.

    Example:

    >>> encoder = keras.Sequential([keras.Input((9, 9, 1)), keras.layers.Conv2D(4, 3)])
    >>> model = ka.autoencoder(encoder)
    >>> def distributed(model, mesh):
    ...     layouts = ka.layout_map(model, mesh)
    ...     with keras.distribution.ModelParallel(layout_map=layouts, batch_dim_name="batch").scope():
    ...         return ka.clone_tied(model)
    """
    if not isinstance(model, keras.layers.Layer) or not model.built:
        raise ValueError(f"`layout_map` takes a built Keras model or layer. Received: model={model!r}")
    if not isinstance(mesh, keras.distribution.DeviceMesh):
        raise ValueError(
            f"`mesh` must be a `keras.distribution.DeviceMesh`, such as "
            f'`DeviceMesh((2, 4), ("batch", "model"), keras.distribution.list_devices())`. Received: mesh={mesh!r}'
        )
    axis = mesh.axis_names[-1] if axis is None else one_of("axis", axis, mesh.axis_names)
    if not current().DIVIDES_VARIABLES:
        raise ValueError(
            "Keras divides variables among devices on JAX alone. Set KERAS_BACKEND=jax, or keep every kernel whole on each "
            "device: with `torch.nn.parallel.DistributedDataParallel` on PyTorch, `tf.distribute.MirroredStrategy` on "
            f"TensorFlow. Received: backend={current().NAME!r}"
        )
    devices = mesh.shape[mesh.axis_names.index(axis)]
    layouts = keras.distribution.LayoutMap(mesh)
    by_path = _by_path(model)
    grouped = _axes_of_grouped_kernels(model, devices, alone=devices == math.prod(mesh.shape))
    for path, variables in by_path.items():
        divided = _divided_axis(variables, grouped, devices)
        if divided is not None:
            names: list[str | None] = [None] * len(variables[0].shape)
            names[divided] = axis
            layouts[re.escape(path)] = tuple(names)
    if not len(layouts):
        kernels = [
            f"{path} {tuple(each.shape)}" for path, all in by_path.items() for each in all if len(each.shape) > 1
        ]
        raise ValueError(
            f"{devices} devices can share no kernel of this model: they divide neither the filters nor the channels of any. "
            f"Use `keras.distribution.DataParallel`, which keeps kernels whole, or a mesh with fewer devices along "
            f"{axis!r}. Received: mesh of shape {tuple(mesh.shape)}, kernels: {', '.join(kernels) or 'none'}"
        )
    return layouts


def _by_path(model: keras.layers.Layer) -> dict[str, list[keras.Variable]]:
    """A model's variables by their path, which several may share."""
    found: defaultdict[str, list[keras.Variable]] = defaultdict(list)
    for variable in model.variables:
        found[variable.path].append(variable)
    return found


def _divided_axis(variables: Sequence[keras.Variable], grouped: dict[int, tuple[int, ...]], devices: int) -> int | None:
    """The axis along which so many devices can share each of some variables: filters, else channels, else `None`."""
    ranks = {len(variable.shape) for variable in variables}
    if len(ranks) > 1 or min(ranks) < 2:
        return None
    for axis in (-1, -2):
        if all(
            variable.shape[axis] % devices == 0 and axis in grouped.get(id(variable), (-1, -2))
            for variable in variables
        ):
            return axis
    return None


def _axes_of_grouped_kernels(model: keras.layers.Layer, devices: int, *, alone: bool) -> dict[int, tuple[int, ...]]:
    """The axes along which the kernels of grouped and depthwise convolutions can be divided, by the kernels' identities.

    XLA ends the process where devices share a group: it cannot divide the gradient of such a kernel. Where the batch is divided
    along another axis of the mesh, it divides that gradient wrongly: what it gives is larger by a factor.

    Args:
        model: The model.
        devices: How many devices share a kernel.
        alone: Whether these are all devices of the mesh.
    """
    axes: dict[int, tuple[int, ...]] = {}
    for layer in (model, *layers_inside(model)):
        if hasattr(layer, "depth_multiplier"):
            kernel = getattr(layer, "depthwise_kernel", None)
            axes[id(layer.kernel if kernel is None else kernel)] = (-2,) if alone else ()
        elif getattr(layer, "groups", 1) > 1 and hasattr(layer, "kernel"):
            axes[id(layer.kernel)] = (-1,) if alone and layer.groups % devices == 0 else ()
    return axes
