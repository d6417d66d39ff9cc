"""Columns of k-space taken out and put back on the CPU, turned so that each is contiguous in memory.

Arrays are contiguous: planes (n, rows, columns), of which the columns `which` become lines (n, len(which),
rows). A kernel works on the rows [first, last).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

_TILE = 8  # rows at once: complex numbers in single precision that fill a cache line

_compiled = njit(nogil=True, cache=True, error_model="numpy")


@_compiled
def pick(planes: Any, index: Any, which: Any, lines: Any, first: int, last: int) -> None:
    """Copy columns of the planes `index` into lines, one plane after another."""
    tile = np.empty((_TILE, len(which)), planes.dtype)
    for n in range(len(index)):
        plane, out = planes[index[n]], lines[n]
        for top in range(first, last, _TILE):
            count = min(_TILE, last - top)
            # Memory is read in its order, which is what it is quick at; the tile is turned in the cache.
            for i in range(count):
                row, some = plane[top + i], tile[i]
                for j in range(len(which)):
                    some[j] = row[which[j]]
            for j in range(len(which)):
                line = out[j]
                for i in range(count):
                    line[top + i] = tile[i, j]


@_compiled
def put(lines: Any, which: Any, planes: Any, index: Any, first: int, last: int) -> None:
    """The transpose of `pick`: write the planes `index`, zeros between the columns."""
    tile = np.empty((_TILE, len(which)), planes.dtype)
    for n in range(len(index)):
        given, plane = lines[n], planes[index[n]]
        for top in range(first, last, _TILE):
            count = min(_TILE, last - top)
            for j in range(len(which)):
                line = given[j]
                for i in range(count):
                    tile[i, j] = line[top + i]
            for i in range(count):
                row, some = plane[top + i], tile[i]
                row[:] = 0
                for j in range(len(which)):
                    row[which[j]] = some[j]
