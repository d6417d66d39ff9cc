"""The passes over memory of a Toeplitz product on the CPU.

Images and maps are (rows, columns), where `rows` stands for all axes but the last. A family is a coil image
at whole and half frequencies along every axis, (halves, 2, rows, columns): the last axis has the second
place, all others share the first. Kernels work on rows [first, last).
"""

from __future__ import annotations

from typing import Any

from numba import njit

_compiled: Any = njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract", "nsz"})


@_compiled
def modulate(image: Any, share: Any, along: Any, across: Any, family: Any, first: int, last: int) -> None:
    """Write image times share times along, (halves, rows), into family, and that times across, (columns,)."""
    for row in range(first, last):
        given, factor = image[row], share[row]
        for half in range(len(along)):
            turn = along[half, row]
            whole, other = family[half, 0, row], family[half, 1, row]
            for i in range(given.size):
                value = given[i] * factor[i] * turn
                whole[i] = value
                other[i] = value * across[i]


@_compiled
def weigh(family: Any, spectrum: Any, first: int, last: int) -> None:
    """Multiply a family by a real spectrum of its shape, in place."""
    for half in range(family.shape[0]):
        for p in range(2):
            for row in range(first, last):
                value, factor = family[half, p, row], spectrum[half, p, row]
                for i in range(value.size):
                    value[i] *= factor[i]


@_compiled
def demodulate(family: Any, share: Any, along: Any, across: Any, image: Any, first: int, last: int) -> None:
    """The transpose of `modulate`: add to image."""
    for row in range(first, last):
        out, factor = image[row], share[row]
        for half in range(len(along)):
            turn = along[half, row].conjugate()
            whole, other = family[half, 0, row], family[half, 1, row]
            for i in range(out.size):
                out[i] += (whole[i] + other[i] * across[i].conjugate()) * (factor[i].conjugate() * turn)
