"""What of PyTorch's distributed tensors is refused: what it computes wrongly, and what Keras would train in vain."""

from collections.abc import Mapping, Sequence
from typing import Any

from keras_adjoint.errors import SizeError, TieError
from keras_adjoint.keras_internals import held_value, outermost_call, parameters_by_path
from keras_adjoint.ops import Tensor

try:
    from torch.distributed.distributed_c10d import _pg_map
except ImportError:  # PyTorch without processes
    _pg_map = {}

# The groups of processes that this one has joined, as all of PyTorch's ways to divide parameters need: by the calls of
# `torch.distributed.is_initialized` an eager call of a small layer would take longer.
PROCESS_GROUPS: Mapping[Any, Any] = _pg_map


def check_whole_space(x: Tensor) -> None:
    """Raise unless a distributed tensor is divided along its batch alone, as PyTorch's convolutions need.

    Raises:
        SizeError: If it is divided otherwise. PyTorch would compute as if the part of a process were the whole.
    """
    placements = getattr(x, "placements", ())
    if any(each.is_partial() or (each.is_shard() and each.dim != 0) for each in placements):
        raise SizeError(
            "PyTorch's convolutions are wrong for a `DTensor` that is divided along anything but its batch: each process takes "
            "its part for the whole. Divide the batch, `y.redistribute(placements=[Shard(0)])`, or gather it, "
            "`y.redistribute(placements=[Replicate()])`. On JAX, space can be divided. "
            f"Received: placements={tuple(placements)}, shape={tuple(x.shape)}"
        )


def check_trained(variable: Any, layers: Sequence[Any]) -> None:
    """Raise if PyTorch has put another parameter in the place of a variable's, which Keras does not notice.

    Raises:
        TieError: If so, as `fully_shard` does. The optimizer would hold parameters that no gradient reaches.
    """
    path = getattr(variable, "path", "")  # what is dequantised is no variable
    for layer in (outermost_call(), *layers):
        parameter = parameters_by_path(layer).get(path)
        if parameter is None or parameter is held_value(variable) or [v.path for v in layer.variables].count(path) > 1:
            continue
        raise TieError(
            f"`fully_shard` has divided `{path}`, and Keras does not notice: layers compute with the variable as it was, no "
            f"gradient reaches the parameters that the optimizer holds, and nothing is trained, with or without tied kernels. "
            f"Keep variables whole on each device, with `torch.nn.parallel.DistributedDataParallel(model)`, or divide them on "
            f"JAX (see `ka.layout_map`). Received: a call of `{layer.name}`, in which PyTorch holds another parameter, of type "
            f"{type(parameter).__name__}, for `{path}`"
        )
