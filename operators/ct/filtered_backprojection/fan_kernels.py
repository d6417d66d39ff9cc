"""The inner loops of the backprojection along fans, compiled once and kept on disk.

A batch is worked on in groups of `lanes` images, innermost in memory: pixels are flat (rows, columns, lanes),
and views flat (views, bins + 2, lanes) with a bin of zeros at either end, so that a position needs one test.
"""

from __future__ import annotations

import math
from typing import Any

from numba import njit

from operators.ct.projectors.lanes import load, multiply_add, store

# "contract" lets the compiler fuse a product into a sum; it may not reorder sums.
_compiled: Any = njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
_inlined: Any = njit(inline="always", error_model="numpy")


@_inlined
def seen(path: Any, x: float, y: float, curved: bool, bins: int) -> tuple[int, float, float]:
    """Return the padded bin left of where a pixel is seen, its right neighbour's weight, and the scale.

    The scale is 0 where the pixel is not seen.
    """
    across = path[0] + path[1] * x + path[2] * y
    along = path[3] + path[4] * x + path[5] * y
    if along <= 0:
        return 0, 0.0, 0.0
    inverse = 1 / along
    position = across * inverse
    if curved:
        scale = 1 / (along * along + across * across)
        position = math.atan(position)
    else:
        scale = inverse * inverse
    position = position * path[6] + (bins + 1) / 2
    if not 0 <= position < bins + 1:
        return 0, 0.0, 0.0
    left = int(position)
    return left, position - left, scale


@_compiled
def gather_rows(
    views: Any, paths: Any, curved: bool, bins: int, x: Any, y: Any, first: int, last: int, pixels: Any,
    count: Any,
) -> None:  # fmt: skip
    """Add to pixels in rows [first, last) what each view has where it sees them.

    paths (views, 7): how far a pixel is across and along the middle ray, as constant, factor of x and factor
    of y each, and bins per unit of their quotient (its arctangent where curved); x, y: of columns and rows.
    """
    lanes = len(count)
    real = pixels.dtype.type
    for view in range(len(paths)):
        path = paths[view]
        for row in range(first, last):
            for column in range(len(x)):
                left, weight, scale = seen(path, x[column], y[row], curved, bins)
                if scale == 0:
                    continue
                offset = (view * (bins + 2) + left) * lanes
                here = (row * len(x) + column) * lanes
                total = load(pixels, here, count)
                total = multiply_add(total, real(scale * (1 - weight)), load(views, offset, count))
                total = multiply_add(total, real(scale * weight), load(views, offset + lanes, count))
                store(pixels, here, total)


@_compiled
def scatter_views(
    views: Any, paths: Any, curved: bool, bins: int, x: Any, y: Any, first: int, last: int, pixels: Any,
    count: Any,
) -> None:  # fmt: skip
    """Add the transpose of `gather_rows` over all rows to views [first, last), which it alone may write."""
    lanes = len(count)
    real = pixels.dtype.type
    together = 16  # rows that stay in the cache while the views pass
    for top in range(0, len(y), together):
        for view in range(first, last):
            path = paths[view]
            for row in range(top, min(top + together, len(y))):
                for column in range(len(x)):
                    left, weight, scale = seen(path, x[column], y[row], curved, bins)
                    if scale == 0:
                        continue
                    offset = (view * (bins + 2) + left) * lanes
                    pixel = load(pixels, (row * len(x) + column) * lanes, count)
                    nearer = multiply_add(load(views, offset, count), real(scale * (1 - weight)), pixel)
                    store(views, offset, nearer)
                    offset += lanes
                    store(
                        views, offset, multiply_add(load(views, offset, count), real(scale * weight), pixel)
                    )
