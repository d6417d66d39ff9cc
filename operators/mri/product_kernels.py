"""Products of images, coil maps and spectra on the CPU, each one pass over what a core has in its cache.

Arrays are contiguous: coil data (outer, inner, coils, frames, points), maps (inner, coils, frames, points)
and spectra (outer, inner, coils, frames, points), where an axis of length 1 stands for all of its kind.
Frames of maps and spectra are looked up in a table, an entry a frame. A kernel works on the points [first,
last).
"""

from __future__ import annotations

from typing import Any

from numba import njit

_compiled = njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract", "nsz"})


@_compiled
def expand(images: Any, maps: Any, table: Any, z: Any, at: Any, first: int, last: int) -> None:
    """Write maps times images (outer, inner, frames, points) into z, the block that begins at `at`."""
    for i in range(z.shape[0]):
        for j in range(z.shape[1]):
            own = at[1] + j if maps.shape[0] > 1 else 0
            for k in range(z.shape[2]):
                for f in range(z.shape[3]):
                    image = images[at[0] + i, at[1] + j, f, first:last]
                    share = maps[own, at[2] + k, table[f], first:last]
                    out = z[i, j, k, f, first:last]
                    for p in range(out.size):
                        out[p] = share[p] * image[p]


@_compiled
def combine(z: Any, maps: Any, table: Any, images: Any, at: Any, first: int, last: int) -> None:
    """Add the sum over coils of conj(maps) times z, the block that begins at `at`, to images."""
    for i in range(z.shape[0]):
        for j in range(z.shape[1]):
            own = at[1] + j if maps.shape[0] > 1 else 0
            for k in range(z.shape[2]):
                for f in range(z.shape[3]):
                    image = images[at[0] + i, at[1] + j, f, first:last]
                    share = maps[own, at[2] + k, table[f], first:last]
                    given = z[i, j, k, f, first:last]
                    for p in range(given.size):
                        image[p] += share[p].conjugate() * given[p]


@_compiled
def weigh(
    z: Any,
    z_at: Any,
    spectrum: Any,
    table: Any,
    conjugate: bool,
    out: Any,
    out_at: Any,
    at: Any,
    size: Any,
    first: int,
    last: int,
) -> None:
    """Write spectrum, or its conjugate, times z into out for `size` (outer, inner, coils) of each.

    They begin at z_at in z, at out_at in out, and at in the spectrum.
    """
    for i in range(size[0]):
        outer = at[0] + i if spectrum.shape[0] > 1 else 0
        for j in range(size[1]):
            inner = at[1] + j if spectrum.shape[1] > 1 else 0
            for k in range(size[2]):
                coil = at[2] + k if spectrum.shape[2] > 1 else 0
                for f in range(z.shape[3]):
                    given = z[z_at[0] + i, z_at[1] + j, z_at[2] + k, f, first:last]
                    factor = spectrum[outer, inner, coil, table[f], first:last]
                    result = out[out_at[0] + i, out_at[1] + j, out_at[2] + k, f, first:last]
                    if conjugate:
                        for p in range(result.size):
                            result[p] = factor[p].conjugate() * given[p]
                    else:
                        for p in range(result.size):
                            result[p] = factor[p] * given[p]


@_compiled
def scale(z: Any, spectrum: Any, table: Any, conjugate: bool, at: Any, first: int, last: int) -> None:
    """The same in place, for z as large as the block: vector instructions need arrays that do not overlap."""
    for i in range(z.shape[0]):
        outer = at[0] + i if spectrum.shape[0] > 1 else 0
        for j in range(z.shape[1]):
            inner = at[1] + j if spectrum.shape[1] > 1 else 0
            for k in range(z.shape[2]):
                coil = at[2] + k if spectrum.shape[2] > 1 else 0
                for f in range(z.shape[3]):
                    value = z[i, j, k, f, first:last]
                    factor = spectrum[outer, inner, coil, table[f], first:last]
                    if conjugate:
                        for p in range(value.size):
                            value[p] *= factor[p].conjugate()
                    else:
                        for p in range(value.size):
                            value[p] *= factor[p]
