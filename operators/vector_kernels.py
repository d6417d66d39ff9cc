"""The vector operations of conjugate gradients on the CPU, fused: no thread is woken for a little work."""

from __future__ import annotations

from typing import Any

from numba import njit

_BLOCK = 1024  # numbers that are summed up in their own precision before they join the sum in double

_compiled = njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract", "reassoc", "nsz"})


@_compiled
def dots(x: Any, y: Any, dampings: Any, sums: Any) -> None:
    """Write the inner product of every row of x and y + damping x, (rows, n), into sums, float64."""
    rows, n = x.shape
    for row in range(rows):
        damping = x.dtype.type(dampings[row])
        total = 0.0
        for first in range(0, n, _BLOCK):
            u, v = x[row, first : first + _BLOCK], y[row, first : first + _BLOCK]
            part = x.dtype.type(0)
            for i in range(u.size):
                part += u[i] * (v[i] + damping * u[i])
            total += part
        sums[row] = total


@_compiled
def advance(x: Any, residual: Any, direction: Any, image: Any, dampings: Any, steps: Any, sums: Any) -> None:
    """Add steps direction to x, and write |residual|^2 into sums, with what the step takes from it.

    That is steps (image + damping direction).
    """
    rows, n = x.shape
    for row in range(rows):
        step, damping = x.dtype.type(steps[row]), x.dtype.type(dampings[row])
        total = 0.0
        for first in range(0, n, _BLOCK):
            u, p = x[row, first : first + _BLOCK], direction[row, first : first + _BLOCK]
            for i in range(u.size):
                u[i] += step * p[i]
            r, q = residual[row, first : first + _BLOCK], image[row, first : first + _BLOCK]
            for i in range(r.size):
                r[i] -= step * (q[i] + damping * p[i])
            part = x.dtype.type(0)
            for i in range(r.size):
                part += r[i] * r[i]
            total += part
        sums[row] = total


@_compiled
def turn(direction: Any, residual: Any, ratios: Any) -> None:
    """Make direction the residual plus ratios times itself."""
    rows, n = direction.shape
    for row in range(rows):
        ratio = direction.dtype.type(ratios[row])
        for i in range(n):
            direction[row, i] = residual[row, i] + ratio * direction[row, i]
