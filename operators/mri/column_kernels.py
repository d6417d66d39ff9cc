"""Columns of k-space taken out and put back on the CPU, turned so that each is contiguous in memory.

Arrays are contiguous: planes (n, rows, columns), of which the columns `which` become lines (n, len(which),
rows), and factors of the shape of lines, with an entry of `own` for each plane. A kernel works on the rows
[first, last).
"""

from __future__ import annotations

from typing import Any

from numba import njit

_TILE = 8  # rows at once: complex numbers in single precision that fill a cache line

_compiled: Any = njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract", "nsz"})


@_compiled
def pick(planes: Any, which: Any, lines: Any, first: int, last: int) -> None:
    """Copy columns of planes into lines."""
    whole = first + (last - first) // _TILE * _TILE
    for n in range(len(planes)):
        plane, out = planes[n], lines[n]
        # Tiles of a fixed height: the compiler unrolls them, and a cache line is written at once.
        for top in range(first, whole, _TILE):
            for j in range(len(which)):
                line, column = out[j], which[j]
                for i in range(_TILE):
                    line[top + i] = plane[top + i, column]
        for row in range(whole, last):
            for j in range(len(which)):
                out[j, row] = plane[row, which[j]]


@_compiled
def put(lines: Any, which: Any, planes: Any, first: int, last: int) -> None:
    """The transpose of `pick`: write planes, zeros between the columns."""
    whole = first + (last - first) // _TILE * _TILE
    for n in range(len(planes)):
        given, plane = lines[n], planes[n]
        for top in range(first, whole, _TILE):
            for i in range(_TILE):
                plane[top + i, :] = 0
            for j in range(len(which)):
                line, column = given[j], which[j]
                for i in range(_TILE):
                    plane[top + i, column] = line[top + i]
        for row in range(whole, last):
            plane[row, :] = 0
            for j in range(len(which)):
                plane[row, which[j]] = given[j, row]


@_compiled
def take(
    planes: Any, index: Any, which: Any, factors: Any, own: Any, lines: Any, first: int, last: int
) -> None:
    """Write the conjugate of factors times the columns of planes[index] into lines."""
    whole = first + (last - first) // _TILE * _TILE
    for n in range(len(index)):
        plane, factor, out = planes[index[n]], factors[own[n]], lines[n]
        for top in range(first, whole, _TILE):
            for j in range(len(which)):
                line, by, column = out[j], factor[j], which[j]
                for i in range(_TILE):
                    line[top + i] = by[top + i].conjugate() * plane[top + i, column]
        for row in range(whole, last):
            for j in range(len(which)):
                out[j, row] = factor[j, row].conjugate() * plane[row, which[j]]


@_compiled
def fill(
    lines: Any, which: Any, factors: Any, own: Any, planes: Any, index: Any, first: int, last: int
) -> None:
    """The transpose of `take`: write planes[index], zeros between the columns."""
    whole = first + (last - first) // _TILE * _TILE
    for n in range(len(index)):
        given, factor, plane = lines[n], factors[own[n]], planes[index[n]]
        for top in range(first, whole, _TILE):
            for i in range(_TILE):
                plane[top + i, :] = 0
            for j in range(len(which)):
                line, by, column = given[j], factor[j], which[j]
                for i in range(_TILE):
                    plane[top + i, column] = by[top + i] * line[top + i]
        for row in range(whole, last):
            plane[row, :] = 0
            for j in range(len(which)):
                plane[row, which[j]] = factor[j, row] * given[j, row]
