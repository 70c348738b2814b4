"""Exact, tied adjoints of Keras layers.

Where things are, from the ground up:

- `kernels`: kernels and biases as arrays.
- `ops`: tensors and integers. An algorithm is a file in `ops/algorithms`, a backend one in `ops/backend`.
- `layers`: the adjoint layers. A layer's rule is in the file of its family; `layers/registry.py` finds it.
- `models`: whole models. `adjoint` is in `models/adjoint.py`, `mirror` in `models/mirror.py`, and the table of its policies in
  `models/policies.py`.
- `testing`: `check_adjoint` and its diagnosis.
- `operators`: layers as linear maps, with an algebra, norms and bounds.
- `solvers`: least squares with operators, as functions and layers, and unrolled networks.
- `blocks`: operators and models applied to arrays larger than memory.
- `stock`: `untie`, the same in stock layers.
- `plots`, `report`, `doctor`, `demo`: figures, the page about a model, common mistakes, the demo.

A command is a file in `keras_adjoint_cli/commands`, in the package beside this one. The names below are public.
"""

# ruff: noqa: E402, I001  where this runs as a command, nothing is imported from the current folder
from keras_adjoint.command import leave_out_current_folder, runs_the_command

leave_out_current_folder(__file__)

import importlib
from typing import TYPE_CHECKING

from keras_adjoint.default_backend import settle_backend
from keras_adjoint.errors import KerasAdjointError, NoRuleError, SizeError, TieError

if TYPE_CHECKING:
    from keras_adjoint.blocks.apply import apply_blocks
    from keras_adjoint.blocks.layout_map import layout_map
    from keras_adjoint.blocks.plan import plan_blocks
    from keras_adjoint.blocks.stream import stream
    from keras_adjoint.kernels.layouts import adapt_bias, adapt_channels, convert_layout, transpose_kernel
    from keras_adjoint.layers.autotune import autotune
    from keras_adjoint.layers.registry import register_rule
    from keras_adjoint.models.adjoint import adjoint
    from keras_adjoint.models.deconvnet import deconvnet
    from keras_adjoint.models.mirror import autoencoder, mirror
    from keras_adjoint.models.ties import clone_tied, is_tied
    from keras_adjoint.operators.blocks import block, hstack, vstack
    from keras_adjoint.operators.certify import certify
    from keras_adjoint.operators.from_scipy import from_scipy
    from keras_adjoint.operators.lipschitz import Lipschitz
    from keras_adjoint.operators.model_operator import operator
    from keras_adjoint.operators.operator import identity
    from keras_adjoint.operators.regularized import Regularized
    from keras_adjoint.ops.exporting import exporting
    from keras_adjoint.plots.kernels import plot_kernels
    from keras_adjoint.plots.mirror import plot_mirror
    from keras_adjoint.plots.reconstruction import plot_reconstruction
    from keras_adjoint.solvers.least_squares import LeastSquares, pinv
    from keras_adjoint.solvers.lstsq import lstsq, nnls
    from keras_adjoint.solvers.sparse_coding import SparseCoding
    from keras_adjoint.solvers.unroll import unroll
    from keras_adjoint.stock.untie import untie
    from keras_adjoint.testing.check import AdjointReport, assert_adjoint, check_adjoint

__version__ = "0.1.0"

__all__ = [
    "AdjointReport",
    "KerasAdjointError",
    "LeastSquares",
    "Lipschitz",
    "NoRuleError",
    "Regularized",
    "SizeError",
    "SparseCoding",
    "TieError",
    "adapt_bias",
    "adapt_channels",
    "adjoint",
    "apply_blocks",
    "assert_adjoint",
    "autoencoder",
    "autotune",
    "block",
    "certify",
    "check_adjoint",
    "clone_tied",
    "convert_layout",
    "deconvnet",
    "exporting",
    "from_scipy",
    "hstack",
    "identity",
    "is_tied",
    "layout_map",
    "lstsq",
    "mirror",
    "nnls",
    "operator",
    "pinv",
    "plan_blocks",
    "plot_kernels",
    "plot_mirror",
    "plot_reconstruction",
    "register_rule",
    "stream",
    "transpose_kernel",
    "unroll",
    "untie",
    "vstack",
]

_IMPORTED_FIRST = {  # by this Keras knows the layers of saved models
    "adapt_bias": "kernels.layouts",
    "adapt_channels": "kernels.layouts",
    "convert_layout": "kernels.layouts",
    "transpose_kernel": "kernels.layouts",
    "autotune": "layers.autotune",
    "register_rule": "layers.registry",
    "adjoint": "models.adjoint",
    "clone_tied": "models.ties",
    "is_tied": "models.ties",
    "LeastSquares": "solvers.least_squares",
    "Lipschitz": "operators.adjoint_lipschitz",
    "SparseCoding": "solvers.sparse_coding",
    "Regularized": "operators.regularized",
    "from_scipy": "operators.from_scipy",
    "exporting": "ops.exporting",
    "unroll": "solvers.unroll",
    "untie": "stock.untie",
    "AdjointReport": "testing.check",
    "assert_adjoint": "testing.check",
    "check_adjoint": "testing.check",
}
_IMPORTED_WHEN_ASKED_FOR = {
    "apply_blocks": "blocks.apply",
    "autoencoder": "models.mirror",
    "block": "operators.blocks",
    "certify": "operators.certify",
    "deconvnet": "models.deconvnet",
    "hstack": "operators.blocks",
    "identity": "operators.operator",
    "layout_map": "blocks.layout_map",
    "lstsq": "solvers.lstsq",
    "mirror": "models.mirror",
    "nnls": "solvers.lstsq",
    "operator": "operators.model_operator",
    "plan_blocks": "blocks.plan",
    "pinv": "solvers.least_squares",
    "plot_kernels": "plots.kernels",
    "plot_mirror": "plots.mirror",
    "plot_reconstruction": "plots.reconstruction",
    "stream": "blocks.stream",
    "vstack": "operators.blocks",
}


def import_library() -> None:
    """Import Keras, and whatever loading a saved model needs."""
    settle_backend()  # before the first import of Keras
    for name in _IMPORTED_FIRST.keys() - globals().keys():
        __getattr__(name)


def __getattr__(name: str) -> object:
    """Whatever has not been imported is imported when it is first asked for."""
    module = {**_IMPORTED_FIRST, **_IMPORTED_WHEN_ASKED_FOR}.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if not runs_the_command():
    import_library()
