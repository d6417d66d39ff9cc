"""Dart throwing on a grid, compiled once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def throw_darts(order: Any, radii: Any, allowed: Any, mask: Any) -> None:
    """Add to a mask (rows, columns) every allowed place, in an order, that no other one keeps off.

    A sampled place keeps off all that are nearer than its radius; so does what the mask holds before.
    """
    rows, columns = mask.shape
    taken = ~allowed
    for row in range(rows):
        for column in range(columns):
            if mask[row, column]:
                _keep_off(row, column, radii[row, column], taken)
    for place in order:
        row, column = place // columns, place % columns
        if not taken[row, column]:
            mask[row, column] = True
            _keep_off(row, column, radii[row, column], taken)


@njit(inline="always")
def _keep_off(row: int, column: int, radius: Any, taken: Any) -> None:
    rows, columns = taken.shape
    reach = int(np.ceil(radius))
    for i in range(max(row - reach, 0), min(row + reach + 1, rows)):
        for j in range(max(column - reach, 0), min(column + reach + 1, columns)):
            if (i - row) ** 2 + (j - column) ** 2 < radius * radius:
                taken[i, j] = True
