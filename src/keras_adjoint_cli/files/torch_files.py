"""PyTorch's own files, as arrays, whichever backend Keras runs on."""

from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  teaches NumPy the names of bfloat16 and the like
import numpy as np
import torch


def load(file: Path) -> Any:
    """What is in a file, as long as that is tensors in dictionaries and lists; no code in it is run."""
    return torch.load(file, map_location="cpu", weights_only=True)


def save(contents: Any, file: Path) -> None:
    torch.save(contents, file)


def is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


def why_no_array(tensor: Any) -> str:
    """What a tensor is that has no numbers of its own in order, such as "a sparse tensor"; "" for every other one."""
    if tensor.is_meta:
        return "a tensor on the device meta, which has no numbers"
    if tensor.layout != torch.strided:
        return "a sparse tensor; store `tensor.to_dense()`"
    if tensor.is_quantized:
        return "a quantised tensor; store `tensor.dequantize()`"
    return ""


def to_numpy(tensor: Any) -> np.ndarray:
    """A tensor as an array of the same dtype."""
    tensor, dtype = tensor.detach().contiguous(), np.dtype(str(tensor.dtype).removeprefix("torch."))
    if dtype.isbuiltin == 1:
        return tensor.numpy()
    return tensor.view(getattr(torch, f"int{8 * dtype.itemsize}")).numpy().view(dtype)


def from_numpy(array: np.ndarray) -> Any:
    """An array as a tensor of the same dtype."""
    array = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="), copy=False)).reshape(array.shape)
    if array.dtype.isbuiltin == 1:
        return torch.from_numpy(array.copy())
    return torch.from_numpy(array.view(f"int{8 * array.dtype.itemsize}").copy()).view(getattr(torch, array.dtype.name))
