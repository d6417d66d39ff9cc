"""The passes over memory of a Toeplitz product on the CPU.

Images and maps are (rows, columns), where `rows` stands for all axes but the last. A pair is the coil image
at whole and at half frequencies along its last axis, (2, rows, columns). Kernels work on rows [first, last).
"""

from __future__ import annotations

from typing import Any

from numba import njit

_compiled: Any = njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract", "nsz"})


@_compiled
def modulate(image: Any, share: Any, along: Any, across: Any, pair: Any, first: int, last: int) -> None:
    """Write image times share times along, a number a row, into pair, and that times across, one a column."""
    for row in range(first, last):
        given, factor, turn = image[row], share[row], along[row]
        whole, half = pair[0, row], pair[1, row]
        for i in range(given.size):
            value = given[i] * factor[i] * turn
            whole[i] = value
            half[i] = value * across[i]


@_compiled
def weigh(pair: Any, spectrum: Any, first: int, last: int) -> None:
    """Multiply rows [first, last) of a pair by a real spectrum of its shape, in place."""
    for p in range(2):
        for row in range(first, last):
            value, factor = pair[p, row], spectrum[p, row]
            for i in range(value.size):
                value[i] *= factor[i]


@_compiled
def demodulate(pair: Any, share: Any, along: Any, across: Any, image: Any, first: int, last: int) -> None:
    """The transpose of `modulate`: add to image."""
    for row in range(first, last):
        out, factor, turn = image[row], share[row], along[row].conjugate()
        whole, half = pair[0, row], pair[1, row]
        for i in range(out.size):
            out[i] += (whole[i] + half[i] * across[i].conjugate()) * (factor[i].conjugate() * turn)
