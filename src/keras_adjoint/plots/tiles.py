"""Kernels as tables of small pictures, each of which has a cell for each tap.

There is a row for each input channel and a column for each filter, or, where the pictures are wide, the other way around.
Filters of three colours, and those of one input channel, fill the rows one after the other. Positive numbers are orange,
negative ones blue, zero is nearly white, and what is not finite is black.
"""

import math
from collections.abc import Iterable

import numpy as np

from keras_adjoint.plots.figures import colour
from keras_adjoint.plots.kernel_arrays import KernelArray

TINY = 1e-12  # keeps zeros from being divided by zero


def arranged(kernel: np.ndarray, *, colours: int | None = None, across: int = 8) -> np.ndarray:
    """The tiles of a kernel in rows and columns, as numbers from -1 to 1.

    Args:
        kernel: An array of shape `(*taps, inputs, filters)`.
        colours: Which of the last two axes, -1 or -2, is red, green and blue.
        across: How many tiles in a row, where a tile is a filter and not one of its input channels.

    Returns:
        An array of shape `(rows, columns, *taps)`, followed by an axis of colours if there are any; NaN where there is no
        tile, infinite where the kernel is not finite. Each tile has its own contrast, unless it is a single number.
    """
    kernel = np.where(np.isfinite(kernel), kernel, np.inf)
    if colours is not None:
        tiles = np.moveaxis(kernel, (-3 - colours, colours), (0, -1))
        return in_rows(tiles / largest(tiles, range(1, tiles.ndim)), across)
    table = np.moveaxis(kernel, (-1, -2) if filters_in_rows(kernel) else (-2, -1), (0, 1))
    if 1 in table.shape[:2]:
        table = in_rows(table.reshape(-1, *table.shape[2:]), across)
    return table / largest(table, range(2, table.ndim) if math.prod(table.shape[2:]) > 1 else range(table.ndim))


def filters_in_rows(kernel: np.ndarray) -> bool:
    """Whether each filter has a row, rather than each input channel.

    Wide tiles, which are a row of taps or of slices, have whatever is more numerous in rows.
    """
    taps = kernel.shape[:-2]
    wide = len(taps) in (1, 3) and math.prod(taps) > 1
    return wide and kernel.shape[-1] >= kernel.shape[-2]


def largest(array: np.ndarray, axes: Iterable[int]) -> np.ndarray:
    magnitudes = np.abs(np.where(np.isfinite(array), array, 0))
    return np.asarray(magnitudes.max(axis=tuple(axes), keepdims=True) + TINY)


def in_rows(tiles: np.ndarray, across: int) -> np.ndarray:
    """A list of tiles as a table of at most so many columns, filled up with NaN."""
    across = min(across, len(tiles))
    rows = math.ceil(len(tiles) / across)
    table = np.full((rows * across, *tiles.shape[1:]), np.nan)
    table[: len(tiles)] = tiles
    return table.reshape(rows, across, *tiles.shape[1:])


def mosaic(kernel: np.ndarray, *, colours: int | None = None, across: int = 8, side: int = 24) -> np.ndarray:
    """One picture of a kernel, with transparent lines between its tiles.

    The slices of three-dimensional tiles stand side by side, and one-dimensional ones are strips.

    Args:
        kernel: See `arranged`.
        colours: See `arranged`.
        across: See `arranged`.
        side: About how many pixels wide a tile is.

    Returns:
        An array of bytes of shape `(height, width, 4)`.
    """
    table = colour(arranged(kernel, colours=colours, across=across), rgb=colours is not None)
    rows, columns, *taps, _ = table.shape
    numbers = math.prod(taps) == 1  # a matrix rather than a table of pictures
    wide = len(taps) == 1 and not numbers
    tap = max(3, 8 * side // max(rows, columns, 16)) if numbers else max(1, (3 if wide else 1) * side // max(taps[-2:]))
    high = side // 2 if wide else tap
    table = table.reshape(rows, columns, *[1] * (2 - len(taps)), *taps, 4)
    table = table.repeat(high, axis=-3).repeat(tap, axis=-2)
    if len(taps) == 3:
        table = np.stack([[grid(tile[None], gap=1) for tile in row] for row in table])
    return np.round(255 * grid(table, gap=0 if numbers else max(2, tap // 3))).astype("uint8")


def grid(table: np.ndarray, *, gap: int) -> np.ndarray:
    """Pictures of shape `(rows, columns, height, width, 4)` as one."""
    rows, columns, height, width, _ = table.shape
    page = np.zeros((rows, height + gap, columns, width + gap, 4))
    page[:, :height, :, :width] = np.moveaxis(table, 1, 2)
    return page.reshape(rows * (height + gap), columns * (width + gap), 4)[: -gap or None, : -gap or None]


# --- in words


def extent(kernel: KernelArray) -> str:
    """How much of a kernel its picture shows, and how many of the values are not finite."""
    count = int(np.sum(~np.isfinite(kernel.values)))
    return shown(kernel) + (f" · {count:,} {'value is' if count == 1 else 'values are'} not finite" if count else "")


def shown(kernel: KernelArray) -> str:
    single = 1 in kernel.values.shape[-2:]
    inputs = counted(kernel.values.shape[-2], kernel.inputs, "input channel")
    filters = counted(kernel.values.shape[-1], kernel.filters, "filter")
    if kernel.colours is not None:
        return f"{filters}, in the colours that they see" if kernel.colours == -2 else f"{inputs}, {filters} as colours"
    rows, columns = (filters, inputs) if filters_in_rows(kernel.values) else (inputs, filters)
    parts = [filters, inputs] if single else [f"{rows} downwards", f"{columns} across"]
    if kernel.all_groups > 1:
        parts.append(counted(kernel.groups, kernel.all_groups, "group"))
    return " · ".join(parts)


def counted(shown: int, total: int, noun: str) -> str:
    return f"{total if shown == total else f'{shown} of {total}'} {noun}{'' if total == 1 else 's'}"
