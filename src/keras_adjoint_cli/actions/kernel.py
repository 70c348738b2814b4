"""`keras-adjoint kernel`: rearrange kernels in files of arrays."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from keras_adjoint.errors import one_of
from keras_adjoint.kernels.channels import METHODS
from keras_adjoint.kernels.layouts import KINDS, adapt_channels, convert_layout, transpose_kernel
from keras_adjoint_cli.errors import Unusable, nearest, unusable
from keras_adjoint_cli.files.arrays import Contents, Place, is_array, name_of

KERAS_LAYOUTS = {3: "WIO", 4: "HWIO", 5: "DHWIO"}


@dataclass(frozen=True)
class Plan:
    """What is done to every kernel, in this order.

    Attributes:
        source: The layout that it has; Keras' own for its number of axes if `None`.
        target: The layout that it gets; the one that it has if `None`.
        kind: See `transpose_kernel`.
        groups: See `transpose_kernel`.
        in_channels: See `adapt_channels`.
        out_channels: See `adapt_channels`.
        method: See `adapt_channels`.
    """

    source: str | None = None
    target: str | None = None
    kind: str | None = None
    groups: int = 1
    in_channels: int | None = None
    out_channels: int | None = None
    method: str = "repeat"

    def check(self) -> None:
        """Raise an `Unusable` for options that make no sense without others."""
        if self.target and not self.source:
            raise Unusable(f"Say which layout the kernels have now, as in --from OHWI. Received: --to {self.target}")
        if self.groups != 1 and not self.kind:
            raise Unusable(f"--groups are those of a --kind. Received: --groups {self.groups}")
        with unusable(ValueError):
            one_of("kind", self.kind or "flip", KINDS)
            one_of("method", self.method, METHODS)
            if self.source:
                convert_layout(np.zeros([1] * len(self.source)), self.source, self.target or self.source)

    @property
    def is_empty(self) -> bool:
        return not (self.source or self.kind or self.adapts)

    @property
    def adapts(self) -> bool:
        return self.in_channels is not None or self.out_channels is not None

    def layout(self, rank: int) -> str | None:
        """The layout of a kernel with that many axes; `None` if it is none."""
        if self.source:
            return self.source if len(self.source) == rank else None
        return KERAS_LAYOUTS.get(rank)

    def apply(self, kernel: Any) -> Any:
        """A kernel rearranged."""
        layout = self.layout(len(kernel.shape)) or self.source or KERAS_LAYOUTS[4]
        target = self.target or layout
        kernel = convert_layout(kernel, layout, target)
        if self.kind:
            kernel = transpose_kernel(kernel, self.kind, layout=target, groups=self.groups)
        if self.adapts:
            channels = {"in_channels": self.in_channels, "out_channels": self.out_channels}
            kernel = adapt_channels(kernel, **channels, method=self.method, layout=target)
        return kernel

    def as_data(self) -> dict[str, Any]:
        """The plan for programs, under the names of the options."""
        return {
            "from": self.source,
            "to": self.target,
            "kind": self.kind,
            "groups": self.groups,
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "method": self.method if self.adapts else None,
        }

    def steps(self) -> Iterator[str]:
        """What is done, in words."""
        if self.source:
            yield f"read as {self.source}" + (f", written as {self.target}" if self.target else "")
        if self.kind:
            yield f"kind {self.kind}" + (f" of {self.groups} groups" if self.groups != 1 else "")
        for name, count in (("input channels", self.in_channels), ("filters", self.out_channels)):
            if count is not None:
                yield f"{count} {name} by {self.method}"


@dataclass(frozen=True)
class Change:
    """What became of one array."""

    name: str
    dtype: str
    before: tuple[int, ...]
    after: tuple[int, ...]
    rearranged: bool


def rearrange(contents: Contents, plan: Plan, keys: Sequence[str] = ()) -> tuple[Contents, list[Change]]:
    """(the `Contents` with kernels rearranged, a `Change` for every array).

    Args:
        contents: The `Contents` of a file.
        plan: The `Plan`.
        keys: Names of the kernels, or patterns such as "*.weight" for arrays with as many axes as the layout; by default "*".
    """
    plan.check()
    arrays = {path: value for path, value in contents.values.items() if is_array(value)}
    kernels: set[Place] = set() if plan.is_empty else chosen(arrays, plan, keys)
    values, changes = dict(contents.values), []
    for path, array in arrays.items():
        if path in kernels:
            try:
                values[path] = plan.apply(array)
            except ValueError as error:
                why = f"{name_of(path)}: {str(error).rstrip('.')}."
                raise Unusable(f"{why} To take other arrays, name them by --key.") from error
            except MemoryError as error:
                raise Unusable(
                    f"{name_of(path)}: there is not enough memory for what the options make of it. {error}"
                ) from error
        change = Change(
            name=name_of(path),
            dtype=str(array.dtype).removeprefix("torch."),
            before=tuple(array.shape),
            after=tuple(values[path].shape),
            rearranged=path in kernels,
        )
        changes.append(change)
    return Contents(values, contents.notes), changes


def chosen(arrays: dict[Place, Any], plan: Plan, keys: Sequence[str]) -> set[Place]:
    """The paths of the arrays that are kernels."""
    names = {path: name_of(path) for path in arrays}
    found: set[Place] = set()
    for key in keys or ["*"]:
        if key in names.values():  # then it is one, whatever its shape
            found.update(path for path, name in names.items() if name == key)
            continue
        matching = {path for path, name in names.items() if fnmatchcase(name, key)}
        if not matching and keys:
            near = nearest(key, names.values())
            raise Unusable(f"There is no array of the name {key}, but {near}. Received: --key {key}")
        kernels = {path for path in matching if plan.layout(len(arrays[path].shape))}
        if not kernels:
            raise Unusable(no_kernels([arrays[path] for path in matching], plan))
        found |= kernels
    return found


def no_kernels(arrays: list[Any], plan: Plan) -> str:
    """What to say where no array can be a kernel."""
    ranks = Counter(len(array.shape) for array in arrays)
    there = ", ".join(f"{count} with {rank}" for rank, count in sorted(ranks.items())) or "none at all"
    wanted = f"{len(plan.source)} axes, as {plan.source} has" if plan.source else "3, 4 or 5 axes, as kernels have"
    return f"No array has {wanted}. The arrays there are: {there}."
