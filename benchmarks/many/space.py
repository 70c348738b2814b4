"""What 8 devices of JAX exchange where an image's height is divided among them, read from the compiled programs.

python -m benchmarks.many.space                # the chosen algorithm of each case
python -m benchmarks.many.space 0 3            # of these cases
python -m benchmarks.many.space --algorithms   # all algorithms, also without the rule by which they are divided
python -m benchmarks.many.space --random 60    # so many random convolutions
"""

import itertools
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"

import jax  # noqa: E402
import numpy as np  # noqa: E402
from jax.sharding import AxisType, NamedSharding, PartitionSpec  # noqa: E402

import keras_adjoint  # noqa: E402, F401
from benchmarks.many.collectives import by_kind, collectives  # noqa: E402
from keras_adjoint.ops.algorithms.bilinear import BilinearForm  # noqa: E402
from keras_adjoint.ops.algorithms.choose import ALGORITHMS, BY_NAME, choose  # noqa: E402
from keras_adjoint.ops.algorithms.problem import Algorithm, Problem  # noqa: E402
from keras_adjoint.ops.backend.jax_partition import ARGUMENTS, compute, operands_of  # noqa: E402
from keras_adjoint.ops.backend.jax_primitive import bilinear_form  # noqa: E402
from keras_adjoint.ops.geometry import Axis, Convolution, Window, convolution_of  # noqa: E402

DEVICES, FLOAT = 8, 4
GRADIENTS = {"x": "adjoint", "y": "forward", "kernel": "kernel gradient"}


@dataclass(frozen=True)
class Case:
    """A convolution, and which axis of x and y is divided."""

    title: str
    sizes: tuple[int, ...]
    window: Window
    channels: int = 8
    filters: int = 16
    groups: int = 1
    batch: int = 2
    divided: str = "height"

    @property
    def convolution(self) -> Convolution:
        return convolution_of(self.sizes, (self.window,) * len(self.sizes), self.groups)

    @property
    def problem(self) -> Problem:
        return Problem(self.convolution, self.batch, self.channels, self.filters)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of an argument."""
        if name == "kernel":
            return (*self.convolution.each("taps"), self.channels // self.groups, self.filters)
        size, channels = ("size", self.channels) if name == "x" else ("outputs", self.filters)
        return (self.batch, *self.convolution.each(size), channels)

    def halo(self, wanted: str) -> int:
        """Bytes of the rows that the device which reads most lacks, those between two that it reads included."""
        if self.divided != "height":
            return 0
        axis = self.convolution.axes[0]
        pairs = list(reads(axis)) if wanted != "x" else [(position, output) for output, position in reads(axis)]
        written, read = (axis.size, axis.outputs) if wanted == "x" else (axis.outputs, axis.size)
        batch, _, *others = self.shape("y" if wanted == "x" else "x")
        return int(rows_beyond_shards(pairs, written // DEVICES, read // DEVICES) * batch * np.prod(others) * FLOAT)

    @property
    def spec(self) -> PartitionSpec:
        return PartitionSpec(*(("devices",) if self.divided == "batch" else (None, "devices")))


def reads(axis: Axis) -> Iterator[tuple[int, int]]:
    """Every output with every position of the input that it reads."""
    for output, tap in itertools.product(range(axis.outputs), range(axis.taps)):
        position = output * axis.stride + tap * axis.dilation - axis.pad_before
        if 0 <= position < axis.size:
            yield output, position


def rows_beyond_shards(pairs: list[tuple[int, int]], written: int, read: int) -> int:
    """The most rows that a device reads before and after its own, for pairs of a row that is written and one that it reads."""
    beyond = []
    for device in range(DEVICES):
        rows = [row for result, row in pairs if result // written == device]
        first, last = device * read, (device + 1) * read - 1
        beyond.append(max(0, first - min(rows, default=first)) + max(0, max(rows, default=last) - last))
    return max(beyond)


SAME = partial(Window, padding="same")
CASES = (
    Case("stride 2, 3×3", (64, 64), SAME(3, 2), 16, 32, batch=8),
    Case("stride 3, 2×2, no padding", (72, 21), Window(2, 3), 8, 8),
    Case("stride 1, dilation 4, 3×3", (64, 24), SAME(3, 1, 4)),
    Case("stride 2, dilation 3, 3×3", (64, 24), SAME(3, 2, 3)),
    Case("4 groups, stride 2, 3×3", (64, 24), SAME(3, 2), groups=4),
    Case("depthwise, 5×5", (64, 24), SAME(5), 8, 8, groups=8),
    Case("halo of 7 rows, shards of 4", (32, 24), SAME(15)),
    Case("3-D, stride 2, 3×3×3", (32, 12, 10), SAME(3, 2)),
    Case("3-D, dilation 2, 3×3×3", (32, 12, 10), SAME(3, 1, 2)),
    Case("4 groups, batch divided", (16, 16), SAME(3, 2), groups=4, batch=8, divided="batch"),
    Case("depthwise, batch divided", (16, 16), SAME(3, 2), 8, 8, groups=8, batch=8, divided="batch"),
)


def measure(case: Case, form: BilinearForm, wanted: str, *, rule: bool = True) -> dict[str, Any]:
    """What the devices exchange for one gradient, and how far the result is from that of one device."""
    mesh = jax.make_mesh((DEVICES,), ("devices",), axis_types=(AxisType.Auto,))
    divided, whole = NamedSharding(mesh, case.spec), NamedSharding(mesh, PartitionSpec())
    shardings = {name: whole if name == "kernel" else divided for name in ARGUMENTS}
    generator = np.random.default_rng(0)
    names = operands_of(wanted)
    operands = [generator.normal(size=case.shape(name)).astype("float32") for name in names]

    def gradient(*operands: Any) -> Any:
        return bilinear_form.bind(*operands, wanted=wanted, form=form)

    without = partial(compute, wanted=wanted, form=form)
    many = jax.jit(gradient if rule else without, out_shardings=shardings[wanted])
    many = many.lower(
        *(jax.device_put(each, shardings[name]) for each, name in zip(operands, names, strict=True))
    ).compile()
    one = jax.jit(gradient).lower(*operands).compile()
    placed = [jax.device_put(each, shardings[name]) for each, name in zip(operands, names, strict=True)]
    found, expected = np.asarray(many(*placed)), np.asarray(one(*operands))
    return {
        "case": case.title,
        "gradient": GRADIENTS[wanted],
        "algorithm": form.algorithm.name,
        "exchanged": by_kind(collectives(many.as_text())),
        "halo": case.halo(wanted),
        "kernel": int(np.prod(case.shape("kernel")) * FLOAT),
        "error": float(np.abs(found - expected).max() / np.abs(expected).max()),
        "memory": memory(many) / memory(one),
    }


def memory(program: Any) -> int:
    """The bytes that a program holds on a device at once."""
    sizes = program.memory_analysis()
    return int(sizes.argument_size_in_bytes + sizes.output_size_in_bytes + sizes.temp_size_in_bytes)


def random_cases(count: int) -> Iterator[tuple[Case, str]]:
    """Cases of every rank, stride, dilation, padding and grouping, each with one of its algorithms."""
    generator = np.random.default_rng(0)
    for number in range(count):
        rank = int(generator.choice((1, 2, 2, 3)))
        window = Window(
            int(generator.integers(1, 6 if rank < 3 else 4)),
            int(generator.integers(1, 4)),
            int(generator.integers(1, 3)),
            str(generator.choice(("same", "valid"))),
        )
        sizes = (int(generator.choice((16, 24, 40, 64))), *(int(generator.integers(9, 12)) for _ in range(rank - 1)))
        case = Case(f"random {number}", sizes, window, 4, 8, int(generator.choice((1, 1, 2, 4))))
        if case.convolution.axes[0].outputs % DEVICES == 0:  # else JAX refuses to place y
            yield case, str(generator.choice([a.name for a in fitting(case)]))


def fitting(case: Case) -> list[Algorithm]:
    """JAX's algorithms for a case."""
    return [a for a in ALGORITHMS if a.name != "fold" and a.fits(case.problem)]


def main() -> None:
    chosen = [int(number) for number in sys.argv[1:] if number.isdigit()]
    if "--random" in sys.argv:
        for case, name in random_cases(chosen[0]):
            report(case, BY_NAME[name])
    elif "--algorithms" in sys.argv:
        for case in CASES:
            for algorithm in fitting(case):
                report(case, algorithm)
                report(case, algorithm, rule=False)
    else:
        for case in [CASES[number] for number in chosen] or CASES:
            report(case, choose(case.problem))


def report(case: Case, algorithm: Algorithm, *, rule: bool = True) -> None:
    """Print what is measured of each gradient, a line for each."""
    for wanted in GRADIENTS:
        form = BilinearForm(case.convolution, algorithm)
        print(json.dumps({**measure(case, form, wanted, rule=rule), "rule": rule}), flush=True)


if __name__ == "__main__":
    main()
