"""Kernels as tables of small pictures, each of which has a cell for each tap.

There is a row for each input channel and a column for each filter, or, where the pictures are wide, the other way around.
Filters of three colours, and those of one input channel, fill the rows one after the other. Numbers around zero are told
by colour: orange above, blue below, nearly white at zero, and black where they are not finite.
"""

import math

import numpy as np

BELOW, ZERO, ABOVE = np.array([[29, 91, 163], [246, 244, 240], [196, 84, 20]]) / 255
NOT_FINITE = np.zeros(3)
TINY = 1e-12  # keeps zeros from being divided by zero


def arranged(kernel, *, colours=None, across=8):
    """The tiles of a kernel in rows and columns, as numbers from -1 to 1.

    Args:
        kernel: An array of shape `(*taps, inputs, filters)`.
        colours: Which of the last two axes, -1 or -2, is red, green and blue.
        across: How many tiles in a row, where a tile is a filter and not one of its input channels.

    Returns:
        An array of shape `(rows, columns, *taps)`, with colours as one axis more; NaN where there is no tile, infinite where
        the kernel is not finite. Each tile has its own contrast, unless it is a single number.
    """
    kernel = np.where(np.isfinite(kernel), kernel, np.inf)
    if colours is not None:
        tiles = np.moveaxis(kernel, (-3 - colours, colours), (0, -1))
        return in_rows(tiles / largest(tiles, range(1, tiles.ndim)), across)
    table = np.moveaxis(kernel, (-1, -2) if filters_in_rows(kernel) else (-2, -1), (0, 1))
    if 1 in table.shape[:2]:
        table = in_rows(table.reshape(-1, *table.shape[2:]), across)
    return table / largest(table, range(2, table.ndim) if math.prod(table.shape[2:]) > 1 else range(table.ndim))


def filters_in_rows(kernel):
    """Whether each filter has a row, rather than each input channel.

    If tiles are wide, being a row of taps or of slices, then whatever there is more of goes downwards.
    """
    taps = kernel.shape[:-2]
    wide = len(taps) in (1, 3) and math.prod(taps) > 1
    return wide and kernel.shape[-1] >= kernel.shape[-2]


def largest(array, axes):
    return np.abs(np.where(np.isfinite(array), array, 0)).max(axis=tuple(axes), keepdims=True) + TINY


def in_rows(tiles, across):
    """A list of tiles as a table of so many columns, with NaN behind the last tile."""
    across = min(across, len(tiles))
    rows = math.ceil(len(tiles) / across)
    table = np.full((rows * across, *tiles.shape[1:]), np.nan)
    table[: len(tiles)] = tiles
    return table.reshape(rows, across, *tiles.shape[1:])


def painted(table, *, in_colour):
    """Numbers from -1 to 1 as colours from 0 to 1 and, last, an opacity, which is 0 for NaN. What is infinite is black."""
    infinite = np.isinf(table)
    table = np.where(infinite, 0, table)
    if in_colour:
        colours, infinite = 0.5 + 0.5 * table, infinite.any(-1)
    else:
        end = np.where((table < 0)[..., None], BELOW, ABOVE)
        colours = ZERO + np.abs(table)[..., None] * (end - ZERO)
    colours = np.where(infinite[..., None], NOT_FINITE, colours)
    return np.concatenate([np.nan_to_num(colours), ~np.isnan(colours[..., :1])], axis=-1)


def mosaic(kernel, *, colours=None, across=8, side=24):
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
    table = painted(arranged(kernel, colours=colours, across=across), in_colour=colours is not None)
    rows, columns, *taps, _ = table.shape
    numbers = math.prod(taps) == 1  # rather a matrix than a table of pictures
    wide = len(taps) == 1 and not numbers
    tap = max(3, 8 * side // max(rows, columns, 16)) if numbers else max(1, (3 if wide else 1) * side // max(taps[-2:]))
    high = side // 2 if wide else tap
    table = table.reshape(rows, columns, *[1] * (2 - len(taps)), *taps, 4)
    table = table.repeat(high, axis=-3).repeat(tap, axis=-2)
    if len(taps) == 3:
        table = np.stack([[grid(tile[None], gap=1) for tile in row] for row in table])
    return np.round(255 * grid(table, gap=0 if numbers else max(2, tap // 3))).astype("uint8")


def grid(table, *, gap):
    """Pictures of shape `(rows, columns, height, width, 4)` as one."""
    rows, columns, height, width, _ = table.shape
    page = np.zeros((rows, height + gap, columns, width + gap, 4))
    page[:, :height, :, :width] = np.moveaxis(table, 1, 2)
    return page.reshape(rows * (height + gap), columns * (width + gap), 4)[: -gap or None, : -gap or None]
