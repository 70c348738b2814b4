"""How JAX divides the bilinear form among devices: each computes its shards, and reads halos of its neighbours' alone.

XLA divides the operations of an algorithm one by one, and gathers whole tensors for some of them: for reshapes that interleave
phases, for loops over taps, for grouped convolutions. So the primitive is divided as a whole. XLA calls what is defined here,
and ends the process where it raises an error.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from itertools import chain
from typing import Any

import jax
from jax import lax
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from keras_adjoint.ops import Tensor
from keras_adjoint.ops.backend.protocol import Form
from keras_adjoint.ops.geometry import Convolution
from keras_adjoint.ops.halo import Divided

ARGUMENTS = ("x", "y", "kernel")
Axes = Mapping[str, tuple[str, ...]]  # the axes of the mesh along which a factor is divided


def operands_of(wanted: str) -> list[str]:
    """The operands of the gradient by the argument `wanted`."""
    return [name for name in ARGUMENTS if name != wanted]


def compute(*operands: Tensor, wanted: str, form: Form) -> Tensor:
    """The gradient of a form by one of its arguments, for the other two in the order of `ARGUMENTS`."""
    if wanted == "kernel":
        return _kernel_gradient(form, *operands)
    return getattr(form, wanted)(*operands)


def _kernel_gradient(form: Form, x: Tensor, y: Tensor) -> Tensor:
    kernel = jax.ShapeDtypeStruct(form.kernel_shape(x, y), x.dtype)
    (gradient,) = jax.linear_transpose(lambda kernel: form.y(x, kernel), kernel)(y)
    return gradient


def factors(name: str, convolution: Convolution) -> list[str]:
    """What the axes of an argument stand for. Axes of one name are divided alike; taps are not divided."""
    rank, grouped = len(convolution.axes), convolution.groups > 1
    inner = {"x": ["group" if grouped else "channel"], "y": ["group" if grouped else "filter"]}
    if name == "kernel":
        return [*(f"tap{axis}" for axis in range(rank)), *(["inner", "group"] if grouped else ["channel", "filter"])]
    return ["batch", *(f"space{axis}" for axis in range(rank)), *inner[name]]


def rule(wanted: str, form: Form) -> tuple[str, dict[str, tuple[str, ...]]]:
    """The rule by which Shardy propagates divisions from operands to the result and back, with the kinds of its factors."""
    names = {name: factors(name, form.convolution) for name in (*operands_of(wanted), wanted)}
    kinds: dict[str, list[str]] = {}
    for factor in dict.fromkeys(chain.from_iterable(names.values())):  # Shardy wants them in this order
        if _is_whole(factor):
            kinds.setdefault("need_replication_factors", []).append(factor)
        elif factor not in names[wanted]:
            kinds.setdefault("reduction_factors", []).append(factor)
        elif factor.startswith("space"):
            kinds.setdefault("permutation_factors", []).append(factor)
    operands = ", ".join(" ".join(names[name]) for name in operands_of(wanted))
    return f"{operands} -> {' '.join(names[wanted])}", {kind: tuple(found) for kind, found in kinds.items()}


def _is_whole(factor: str) -> bool:
    """Whether an axis is not divided: taps, and the channels of a group."""
    return factor == "inner" or factor.startswith("tap")


@lru_cache
def partitioned(wanted: str, form: Form) -> Callable[..., Tensor]:
    """`compute` for one argument and form, with a rule of how it is divided."""
    function = custom_partitioning(partial(_whole, wanted, form))
    text, kinds = rule(wanted, form)
    function.def_partition(
        partition=partial(_partition, wanted, form),
        sharding_rule=text,
        **kinds,
    )
    return function


def _whole(wanted: str, form: Form, first: Tensor, second: Tensor) -> Tensor:
    """The gradient by XLA's own operations. The rule takes its shape; some algorithms hold arrays, which it may not."""
    if wanted != "x":
        return compute(first, second, wanted=wanted, form=form)
    y, kernel = first, second
    shape = y.shape[0], *form.convolution.each("size"), kernel.shape[-2] * form.convolution.groups
    (x,) = jax.linear_transpose(lambda x: form.y(x, kernel), jax.ShapeDtypeStruct(shape, y.dtype))(y)
    return x


def _partition(wanted: str, form: Form, mesh: Mesh, operands: Sequence[Any], result: Any) -> tuple[Any, ...]:
    """What a device computes, and the divisions of the operands and the result that this is for."""
    tensors = {**dict(zip(operands_of(wanted), operands, strict=True)), wanted: result}
    axes = _divided(mesh, tensors, form.convolution)
    shardings = {name: _sharding(mesh, name, axes, form.convolution) for name in ARGUMENTS}
    local = partial(_compute_shard, wanted=wanted, form=form, mesh=mesh, axes=axes)
    return mesh, local, shardings[wanted], tuple(shardings[name] for name in operands_of(wanted))


def _sharding(mesh: Mesh, name: str, axes: Axes, convolution: Convolution) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec(*(axes.get(factor) for factor in factors(name, convolution))))


def _divided(mesh: Mesh, tensors: Mapping[str, Any], convolution: Convolution) -> dict[str, tuple[str, ...]]:
    """The axes of the mesh for each factor that is divided: those of the result, else of an operand, as far as they fit."""
    axes: dict[str, tuple[str, ...]] = {}
    for name, tensor in reversed(list(tensors.items())):
        parts = (*getattr(tensor.sharding, "spec", ()), *[None] * len(tensor.shape))
        for factor, size, part in zip(factors(name, convolution), tensor.shape, parts, strict=False):
            names = (part,) if isinstance(part, str) else tuple(part or ())
            if not names or factor in axes or any(set(names) & set(used) for used in axes.values()):
                continue
            if factor.startswith("space") or _fits(factor, size, _devices(mesh, names), convolution):
                axes[factor] = names
    return axes


def _fits(factor: str, size: int, devices: int, convolution: Convolution) -> bool:
    """Whether devices can share a factor in equal parts; of a grouped convolution they share whole groups."""
    return not _is_whole(factor) and (convolution.groups if factor == "group" else size) % devices == 0


def _devices(mesh: Mesh, names: Sequence[str]) -> int:
    return math.prod(mesh.shape[name] for name in names)


def _compute_shard(*operands: Tensor, wanted: str, form: Form, mesh: Mesh, axes: Axes) -> Tensor:
    """The gradient on one device, from its shards of the operands."""
    convolution = form.convolution
    shards = dict(zip(operands_of(wanted), operands, strict=True))
    groups = convolution.groups // _devices(mesh, axes.get("group", ()))
    local, cuts = list(convolution.axes), {}
    for number, axis in enumerate(convolution.axes):
        names = axes.get(f"space{number}")
        if names is None:
            continue
        divided, position = Divided(axis, _devices(mesh, names)), number + 1
        for name, size in (("x", axis.size), ("y", axis.outputs)):
            if name in shards:
                shards[name] = _without_padding(shards[name], position, names, size, divided.devices)
        if wanted == "x":
            shards["y"] = _with_halo(shards["y"], position, divided.halo_of_y, names, divided.devices)
            local[number] = divided.adjoint
            cuts[position] = divided.first_result, divided.drift, divided.inputs, names
        else:
            x = _with_halo(shards["x"], position, divided.halo_of_x, names, divided.devices)
            shards["x"] = _cut(
                x, position, divided.first_read, -divided.drift, divided.valid.size, names, divided.devices
            )
            local[number] = divided.valid
    own = form.at(Convolution(tuple(local), groups))
    result = compute(*shards.values(), wanted=wanted, form=own)
    for position, (first, drift, size, names) in cuts.items():
        result = _cut(result, position, first, drift, size, names, _devices(mesh, names))
    summed = [axes[f] for f in axes if f not in factors(wanted, convolution)]
    return lax.psum(result, tuple(name for names in summed for name in names)) if summed else result


def _without_padding(shard: Tensor, position: int, names: tuple[str, ...], size: int, devices: int) -> Tensor:
    """A shard with zeros beyond the end of the tensor, where the devices do not divide its size."""
    length = shard.shape[position]
    if length * devices == size:
        return shard
    positions = lax.axis_index(names) * length + lax.broadcasted_iota(int, shard.shape, position)
    return jax.numpy.where(positions < size, shard, 0)


def _with_halo(shard: Tensor, position: int, halo: tuple[int, int], names: tuple[str, ...], devices: int) -> Tensor:
    """A shard with so many positions of those before and after it; zeros beyond the first and the last device."""
    before, after = halo
    size = shard.shape[position]
    parts = [shard]
    for hop in range(1, -(-before // size) + 1):
        length = min(size, before - (hop - 1) * size)
        sent = lax.slice_in_dim(shard, size - length, size, axis=position)
        parts.insert(0, lax.ppermute(sent, names, [(device, device + hop) for device in range(devices - hop)]))
    for hop in range(1, -(-after // size) + 1):
        sent = lax.slice_in_dim(shard, 0, min(size, after - (hop - 1) * size), axis=position)
        parts.append(lax.ppermute(sent, names, [(device + hop, device) for device in range(devices - hop)]))
    return lax.concatenate(parts, position) if len(parts) > 1 else shard


def _cut(
    tensor: Tensor, position: int, first: int, step: int, size: int, names: tuple[str, ...], devices: int
) -> Tensor:
    """`size` positions from `first` on, and `step` later on each device than on the one before it; zeros beyond the ends."""
    last = first + step * (devices - 1)
    low, high = -min(first, last, 0), max(0, max(first, last) + size - tensor.shape[position])
    if low or high:
        pads = [(0, 0, 0)] * tensor.ndim
        pads[position] = (low, high, 0)
        tensor = lax.pad(tensor, jax.numpy.zeros((), tensor.dtype), pads)
    if step == 0:
        return lax.slice_in_dim(tensor, first + low, first + low + size, axis=position)
    return lax.dynamic_slice_in_dim(tensor, first + low + step * lax.axis_index(names), size, axis=position)
