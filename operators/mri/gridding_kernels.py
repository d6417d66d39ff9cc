"""The inner loops of gridding on the CPU: interpolation of an oversampled spectrum, and its exact transpose.

Spectra of a few images are interleaved: ``packed[row, column, lane]``, flat, where a lane is a real or an
imaginary part of one image, so that one weight serves a whole register. The last `WIDTH` rows and columns
repeat the first ones, so that no sample needs to wrap around.
"""

from __future__ import annotations

from typing import Any

from numba import njit

from operators.ct.projectors.lanes import load, multiply_add, store, zeros
from operators.mri.kaiser_bessel import WIDTH

# "contract" lets the compiler fuse a product into a sum; it may not reorder sums.
_compiled: Any = njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})


@_compiled
def place(image: Any, apodisation: Any, grid: Any, first: int, last: int) -> None:
    """Write rows [first, last) of a grid: the apodised image, its centre at index 0, and zeros around it."""
    rows, columns = image.shape
    height, width = grid.shape
    left = columns // 2
    for line in range(first, last):
        out = grid[line]
        row = line + rows // 2 if line < rows - rows // 2 else line + rows // 2 - height
        if row < 0:
            out[:] = 0
            continue
        given, factor = image[row], apodisation[row]
        head, tail = out[width - left :], out[: columns - left]
        for i in range(left):
            head[i] = given[i] * factor[i]
        for i in range(columns - left):
            tail[i] = given[left + i] * factor[left + i]
        out[columns - left : width - left] = 0


@_compiled
def cut(grid: Any, apodisation: Any, image: Any, first: int, last: int) -> None:
    """The transpose of `place`, for rows [first, last) of the image."""
    rows, columns = image.shape
    height, width = grid.shape
    left = columns // 2
    for row in range(first, last):
        given = grid[(row - rows // 2) % height]
        out, factor = image[row], apodisation[row]
        head, tail = given[width - left :], given[: columns - left]
        for i in range(left):
            out[i] = head[i] * factor[i]
        for i in range(columns - left):
            out[left + i] = tail[i] * factor[left + i]


@_compiled
def pack(grids: Any, packed: Any, first: int, last: int) -> None:
    """Interleave a tuple of grids (rows, columns), with the halo, into rows [first, last) of packed."""
    rows, columns = grids[0].shape
    for row in range(first, last):
        out = packed[row]
        for n in range(len(grids)):
            given = grids[n][row % rows]
            for i in range(columns):
                out[i, n] = given[i]
            for i in range(WIDTH):
                out[columns + i, n] = given[i]


@_compiled
def unpack(packed: Any, grids: Any, first: int, last: int) -> None:
    """The transpose of `pack`, for the rows [first, last) of the grids."""
    rows, columns = grids[0].shape
    for row in range(first, last):
        for n in range(len(grids)):
            out = grids[n][row]
            for i in range(columns):
                out[i] = packed[row, i, n]
            for i in range(WIDTH):
                out[i] += packed[row, columns + i, n]
            if row < WIDTH:
                for i in range(columns):
                    out[i] += packed[rows + row, i, n]
                for i in range(WIDTH):
                    out[i] += packed[rows + row, columns + i, n]


@_compiled
def interpolate(
    packed: Any, stride: int, corners: Any, weights: Any, samples: Any, count: Any, begin: int, end: int
) -> None:
    """Sum up the packed spectra around the samples [begin, end).

    packed: flat, `stride` numbers a row; corners (samples, 2): first row and column of each; weights
    (samples, 2, WIDTH) along rows and columns; samples: flat, lanes innermost; count: a tuple of `lanes`
    entries.
    """
    lanes = len(count)
    for m in range(begin, end):
        start = corners[m, 0] * stride + corners[m, 1] * lanes
        total = zeros(packed, count)
        for a in range(WIDTH):
            line = zeros(packed, count)
            for b in range(WIDTH):
                line = multiply_add(
                    line, weights[m, 1, b], load(packed, start + a * stride + b * lanes, count)
                )
            total = multiply_add(total, weights[m, 0, a], line)
        store(samples, m * lanes, total)


@_compiled
def spread(
    samples: Any,
    corners: Any,
    weights: Any,
    packed: Any,
    stride: int,
    count: Any,
    begin: int,
    end: int,
    top: int,
    bottom: int,
) -> None:
    """The transpose of `interpolate`: add the samples [begin, end) to the packed rows [top, bottom)."""
    lanes = len(count)
    for m in range(begin, end):
        row = corners[m, 0]
        value = load(samples, m * lanes, count)
        for a in range(max(top - row, 0), min(bottom - row, WIDTH)):
            line = multiply_add(zeros(packed, count), weights[m, 0, a], value)
            start = (row + a) * stride + corners[m, 1] * lanes
            for b in range(WIDTH):
                place = start + b * lanes
                store(packed, place, multiply_add(load(packed, place, count), weights[m, 1, b], line))


@_compiled
def scatter(values: Any, order: Any, samples: Any, first: int, last: int) -> None:
    """Write values (samples, lanes), sorted, into samples (images, samples) for images [first, last)."""
    for n in range(first, last):
        out = samples[n]
        for m in range(len(order)):
            out[order[m]] = values[m, n]


@_compiled
def gather(samples: Any, order: Any, values: Any, first: int, last: int) -> None:
    """The transpose of `scatter`, for the sorted samples [first, last); other lanes become zero."""
    for m in range(first, last):
        place = order[m]
        for n in range(len(samples)):
            values[m, n] = samples[n, place]
        for n in range(len(samples), values.shape[1]):
            values[m, n] = 0
