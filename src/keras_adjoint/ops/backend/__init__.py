"""What differs between backends: one small file each, all with the same names.

`coarse_epsilon()` is the machine epsilon of float32 products as the backend is set to compute them, 0 if they are exact
to float32. `average_pooling_edges(before, after)` says what average pooling with "same" padding takes its means over
beyond the edge, for zeros `before` and `after` every axis: "inside" (only over positions inside) or "replicated" (also
over copies of the edge). `known_size(size)` is the integer behind a size that tracing has made a tensor of.
`SHIFTS_CONV_TRANSPOSE` says whether this version of Keras misplaces what some `Conv*Transpose` give with "same" padding.

For the algorithms: `CANDIDATES` names those that are considered for each precision and kind of convolution, and `NAME` the
backend in `cost_model.json`. `convolve` is a grouped convolution with explicit pads, `transposed_convolve` its adjoint by the
backend's own operation, where `can_transpose` says that there is one; `LONGEST_SUM_IN_HALF` is how many numbers one may sum
over in half precision to be fast, and, if it is strided, to be right, `UNFOLDS_GROUPS` whether a grouped convolution writes
out what each of its positions reads, `WRITES_COLUMNS` in which precisions its own transposed convolution is known to write
out columns, and `CHANNELS_AT_ONCE` how many channels dense convolutions compute together. What is not the backend's own
operation is chosen if it is expected to take less time by the factor `NATIVE_MARGIN`. `fold` adds overlapping columns along as
many axes as `FOLDED_RANKS` says. `summed(term, operand, rows)` is the sum of `term(operand, *row)`, which holds few terms
at once, and `map_sequential(term, operand, rows)` a list of them, none begun before the one before it is done.
`with_derivatives(form, kernel, y)` is Aᵀ y, differentiated as its form says. `device_of(tensor)` is "cpu" or "gpu",
`compiled(function)` what most people run, and `wait(tensor)` returns when it has been computed.
"""

import importlib
import operator
from functools import partial, reduce
from itertools import starmap

import keras

TF32 = 2.0**-10  # 10 bits of mantissa
BFLOAT16 = 2.0**-7


def current():
    """The file of the backend that Keras runs on."""
    if not _CURRENT:  # not `functools.cache`, through which `torch.compile` would look and see an import
        _CURRENT.append(importlib.import_module(f"keras_adjoint.ops.backend.{keras.backend.backend()}"))
    return _CURRENT[0]


_CURRENT: list = []


def sum_unrolled(term, operand, rows):
    """The sum of `term(operand, *row)`, operation by operation."""
    return reduce(operator.add, starmap(partial(term, operand), rows))


def map_unrolled(term, operand, rows):
    """A list of `term(operand, *row)`, operation by operation."""
    return list(starmap(partial(term, operand), rows))
