"""PyTorch."""

import torch

from keras_adjoint.backends import BFLOAT16, TF32


def coarse_epsilon():
    if torch.cuda.is_available():
        return TF32 if torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32 else 0.0
    return {"highest": 0.0, "high": TF32, "medium": BFLOAT16}[torch.get_float32_matmul_precision()]


def average_pooling_edges(before, after):
    # Keras pads uneven edges itself here, and repeats the edge instead of leaving it out of the mean.
    return "inside" if all(b == a for b, a in zip(before, after, strict=True)) else "replicated"


def known_size(size):
    # `torch.jit.trace` makes a tensor of every size. Asked for its integer, it says the size of its example.
    return int(size) if isinstance(size, torch.Tensor) else size
