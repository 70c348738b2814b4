"""Layouts of a model's variables on many devices, for `keras.distribution.ModelParallel`."""

import math
import re
from collections import defaultdict
from collections.abc import Container, Mapping, Sequence

import keras

from keras_adjoint.errors import one_of
from keras_adjoint.keras_internals import layers_inside
from keras_adjoint.layers.tied import Tied
from keras_adjoint.models.graph import graph_of, trace
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
        ValueError: If an argument is of another kind, if the devices can share no kernel at all, if XLA would compute a wrong
            gradient of a grouped kernel, or on a backend on which Keras does not divide variables; in 3.15 that is any but JAX.

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
    alone = devices == math.prod(mesh.shape)
    grouped = _axes_of_grouped_kernels(model, devices, alone=alone)
    divided: dict[int, int] = {}
    for pattern, variables in _by_pattern(by_path, grouped, devices).items():
        found = _divided_axis(variables, grouped, devices)
        if found is not None:
            names: list[str | None] = [None] * len(variables[0].shape)
            names[found] = axis
            layouts[pattern] = tuple(names)
            divided |= {id(variable): found for variable in variables}
    if not alone and devices > 1:
        _check_gradients(model, grouped, divided, devices, mesh)
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


def _by_pattern(
    by_path: dict[str, list[keras.Variable]], grouped: dict[int, tuple[int, ...]], devices: int
) -> dict[str, list[keras.Variable]]:
    """A model's variables by patterns of their paths, in that model and in copies of it.

    A path begins with the models and wrappers around a layer if these made its variables. In copies and files each layer makes
    its own, so that "encoder/conv/kernel" becomes "conv/kernel".
    """
    by_end: defaultdict[str, list[str]] = defaultdict(list)
    for path in by_path:
        by_end["/".join(path.split("/")[-2:])].append(path)
    found: dict[str, list[keras.Variable]] = {}
    for end, paths in by_end.items():
        variables = [variable for path in paths for variable in by_path[path]]
        together = _divided_axis(variables, grouped, devices)
        if all(_divided_axis(by_path[path], grouped, devices) == together for path in paths):
            found[f"(?:^|.+/){re.escape(end)}$"] = variables
        else:
            found |= {re.escape(path): by_path[path] for path in paths}
    return found


def _check_gradients(
    model: keras.layers.Layer,
    grouped: dict[int, tuple[int, ...]],
    divided: dict[int, int],
    devices: int,
    mesh: keras.distribution.DeviceMesh,
) -> None:
    """Raise a ValueError if XLA may compute a wrong gradient of a grouped kernel while another axis divides the batch.

    It adds up what devices that have the same channels compute, as if it were not the same. So the channels that such a
    kernel reads have to be divided, as those are that a kernel gives which is divided along its filters.
    """
    unsure = {id(variable): variable for variable in model.trainable_variables if id(variable) in grouped}
    if not unsure:
        return
    readers = _channels_read(model, set(grouped), divided)
    for key, kernel in unsure.items():
        if not all(readers.get(key, [False])):
            raise ValueError(
                f"XLA makes the gradient of `{kernel.path}` {devices} times too large where the batch is divided along "
                f"another axis of the mesh and the channels that this convolution in groups reads are not divided. Use a "
                f"mesh such as `DeviceMesh((1, {math.prod(mesh.shape)}), ...)`, `keras.distribution.DataParallel`, or "
                f"freeze its layer. Received: mesh of shape {tuple(mesh.shape)}, {kernel.path} {tuple(kernel.shape)}"
            )


def _channels_read(
    model: keras.layers.Layer, grouped: Container[int], divided: Mapping[int, int]
) -> dict[int, list[bool]]:
    """Whether the channels that each call reads are divided, by the kernels' identities; nothing of models without a graph."""
    graph = trace(model) if isinstance(model, keras.Model) and graph_of(model) is not None else None
    found: defaultdict[int, list[bool]] = defaultdict(list)
    divided_tensors: set[int] = set()
    for call in graph.calls if graph is not None else ():
        reads_divided = bool(call.inputs) and all(id(x) in divided_tensors for x in call.inputs)
        variables = call.operation.variables if isinstance(call.operation, keras.layers.Layer) else []
        kernels = [] if isinstance(call.operation, Tied) else [each for each in variables if len(each.shape) > 1]
        for kernel in kernels:
            found[id(kernel)].append(reads_divided)
        gives_divided = reads_divided and not isinstance(call.operation, Tied)
        if kernels:  # of two, the last one is that of the channels
            last = id(kernels[-1])
            gives_divided = divided.get(last) == -1 or (gives_divided and last in grouped)
        if gives_divided:
            divided_tensors.update(id(y) for y in call.outputs if len(y.shape) == len(call.inputs[0].shape))
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
