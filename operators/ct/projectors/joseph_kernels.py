"""The inner loops of the Joseph projector, compiled once and kept on disk.

A batch is worked on in groups of `lanes` images, innermost in memory: ``packed[row, 1 + column, lane]``,
with a column of zeros before the image and at least one behind it, so that a ray needs no test at the edges.
Rays that cross every row ("steep") march along the rows of the image, the others along the rows of its
transpose. Both directions of a projector find a ray's pixels by the same integers, so the transpose is exact.

A ray's column is a whole number of 2**-40 columns: adding the slope is exact, so the values depend neither on
the number of threads nor on the size of the blocks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from operators.ct.projectors.lanes import add, load, multiply_add, store, zeros
from operators.ct.projectors.lines import FRACTION_BITS, ONE, VIEWS_TOGETHER

FRACTION = (1 << FRACTION_BITS) - 1

# "contract" lets the compiler fuse a product into a sum; it may not reorder sums.
_compiled: Any = njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
_inlined: Any = njit(inline="always", error_model="numpy")


@_inlined
def _rows_inside(start: int, slope: int, first: int, last: int, width: int) -> tuple[int, int]:
    """Return the rows of [first, last) in which a ray lies between the padding columns 0 and width + 1."""
    limit = (width + 1) << FRACTION_BITS
    top, bottom = start + first * slope, start + (last - 1) * slope
    if min(top, bottom) > 0 and max(top, bottom) < limit:
        return first, last
    if max(top, bottom) <= 0 or min(top, bottom) >= limit:
        return first, first
    at_zero = -float(start) / float(slope)
    at_limit = float(limit - start) / float(slope)
    begin = int(min(max(min(at_zero, at_limit), float(first)), float(last)))
    end = int(max(min(max(at_zero, at_limit) + 2.0, float(last)), float(begin)))
    # The divisions are good to a row; the integers decide.
    while begin < end and not 0 < start + begin * slope < limit:
        begin += 1
    while begin < end and not 0 < start + (end - 1) * slope < limit:
        end -= 1
    return begin, end


@_inlined
def _pixel(packed: Any, position: int, row_start: int, count: Any) -> tuple[int, Any]:
    """Return the offset of the pixel left of a position, and the weight of its right neighbour."""
    weight = packed.dtype.type(position & FRACTION) * packed.dtype.type(1.0 / ONE)
    return row_start + (position >> FRACTION_BITS) * len(count), weight


@_compiled
def forward_views(
    packed: Any, shape: Any, block: int, lines: Any, fans: Any, sinograms: Any, count: Any
) -> None:
    """Line integrals of packed images for some fans of neighbouring rays.

    packed: flat (rows, padded, lanes); shape: (rows, width, padded); block: rows that fit into the cache;
    lines: three arrays (views, bins), the column of each ray at row 0 and its columns per row in units of
    2**-40 columns, and its mm per row; fans (n, 3): a view, its first bin and one past its last; sinograms
    (images, views, bins), written there; count: a tuple of `lanes` entries.
    """
    starts, slopes, lengths = lines
    rows, width, padded = shape
    images, _, bins = sinograms.shape
    lanes = len(count)
    real = packed.dtype.type
    row_stride = padded * lanes
    sums = np.empty(VIEWS_TOGETHER * bins * lanes, packed.dtype)
    for group in range(0, len(fans), VIEWS_TOGETHER):
        members = min(VIEWS_TOGETHER, len(fans) - group)
        sums[:] = 0
        for first in range(0, rows, block):
            last = min(rows, first + block)
            for member in range(members):
                view, first_bin, last_bin = fans[group + member]
                for k in range(first_bin, last_bin):
                    start, slope = starts[view, k], slopes[view, k]
                    begin, end = _rows_inside(start, slope, first, last, width)
                    if begin == end:
                        continue
                    # Two rows at a time, in four sums: a processor adds faster than one sum can follow.
                    left_even = left_odd = right_even = right_odd = zeros(packed, count)
                    position = start + begin * slope
                    row_start = begin * row_stride
                    for _ in range((end - begin) >> 1):
                        offset, weight = _pixel(packed, position, row_start, count)
                        left_even = multiply_add(left_even, real(1) - weight, load(packed, offset, count))
                        right_even = multiply_add(right_even, weight, load(packed, offset + lanes, count))
                        offset, weight = _pixel(packed, position + slope, row_start + row_stride, count)
                        left_odd = multiply_add(left_odd, real(1) - weight, load(packed, offset, count))
                        right_odd = multiply_add(right_odd, weight, load(packed, offset + lanes, count))
                        position += 2 * slope
                        row_start += 2 * row_stride
                    if (end - begin) & 1:
                        offset, weight = _pixel(packed, position, row_start, count)
                        left_even = multiply_add(left_even, real(1) - weight, load(packed, offset, count))
                        right_even = multiply_add(right_even, weight, load(packed, offset + lanes, count))
                    offset = (member * bins + k) * lanes
                    total = add(add(left_even, right_even), add(left_odd, right_odd))
                    store(sums, offset, add(load(sums, offset, count), total))
        for member in range(members):
            view, first_bin, last_bin = fans[group + member]
            for k in range(first_bin, last_bin):
                length = real(lengths[view, k])
                for lane in range(images):
                    sinograms[lane, view, k] = length * sums[(member * bins + k) * lanes + lane]


@_compiled
def adjoint_rows(
    packed: Any, shape: Any, first: int, last: int, lines: Any, fans: Any, rays: Any, count: Any
) -> None:
    """Add the transpose of `forward_views` to rows [first, last) of packed images, which it alone may write.

    rays: flat (views, bins, lanes), already multiplied by the mm per row of each.
    """
    starts, slopes, _ = lines
    _, width, padded = shape
    lanes = len(count)
    bins = starts.shape[1]
    real = packed.dtype.type
    row_stride = padded * lanes
    for view, first_bin, last_bin in fans:
        for k in range(first_bin, last_bin):
            start, slope = starts[view, k], slopes[view, k]
            begin, end = _rows_inside(start, slope, first, last, width)
            if begin == end:
                continue
            ray = load(rays, (view * bins + k) * lanes, count)
            position = start + begin * slope
            row_start = begin * row_stride
            for _ in range(begin, end):
                offset, weight = _pixel(packed, position, row_start, count)
                store(packed, offset, multiply_add(load(packed, offset, count), real(1) - weight, ray))
                offset += lanes
                store(packed, offset, multiply_add(load(packed, offset, count), weight, ray))
                position += slope
                row_start += row_stride


@_compiled
def pack_rows(images: Any, steep: Any, flat: Any, padded: Any, first: int, last: int, lanes: int) -> None:
    """Copy rows [first, last) of images (images, height, width) into both packed layouts, zeros before."""
    for row in range(first, last):
        for column in range(images.shape[2]):
            here = (row * padded[0] + 1 + column) * lanes
            there = (column * padded[1] + 1 + row) * lanes
            for lane in range(images.shape[0]):
                steep[here + lane] = images[lane, row, column]
                flat[there + lane] = images[lane, row, column]


@_compiled
def unpack_rows(images: Any, steep: Any, flat: Any, padded: Any, first: int, last: int, lanes: int) -> None:
    """Write the sum of both packed layouts into rows [first, last) of images (images, height, width)."""
    for row in range(first, last):
        for column in range(images.shape[2]):
            here = (row * padded[0] + 1 + column) * lanes
            there = (column * padded[1] + 1 + row) * lanes
            for lane in range(images.shape[0]):
                images[lane, row, column] = steep[here + lane] + flat[there + lane]


@_compiled
def pack_views(sinograms: Any, rays: Any, lengths: Any, first: int, last: int, lanes: int) -> None:
    """Copy views [first, last) of sinograms into flat (views, bins, lanes), times the mm per row."""
    images, _, bins = sinograms.shape
    for view in range(first, last):
        for k in range(bins):
            length = rays.dtype.type(lengths[view, k])
            offset = (view * bins + k) * lanes
            for lane in range(images):
                rays[offset + lane] = length * sinograms[lane, view, k]
            for lane in range(images, lanes):
                rays[offset + lane] = 0


@_compiled
def count_rows(shape: Any, lines: Any, fans: Any, counts: Any) -> None:
    """Note in counts (views, bins) how many rows of the image each ray of some fans meets."""
    rows, width, _ = shape
    for view, first_bin, last_bin in fans:
        for k in range(first_bin, last_bin):
            begin, end = _rows_inside(lines[0][view, k], lines[1][view, k], 0, rows, width)
            counts[view, k] = end - begin


@_compiled
def list_weights(
    shape: Any, steps: Any, lines: Any, fans: Any, places: Any, pixels: Any, weights: Any
) -> None:
    """Write two pixels and their weights for every row that a ray meets; one outside the image weighs 0.

    steps: from row to row and from column to column of the packed image, in pixels of the image itself;
    places (views, bins): where the entries of each ray begin in pixels and weights, both flat.
    """
    starts, slopes, lengths = lines
    rows, width, _ = shape
    for view, first_bin, last_bin in fans:
        for k in range(first_bin, last_bin):
            start, slope, length = starts[view, k], slopes[view, k], lengths[view, k]
            begin, end = _rows_inside(start, slope, 0, rows, width)
            place = places[view, k]
            for row in range(begin, end):
                position = start + row * slope
                weight = (position & FRACTION) / ONE
                left = position >> FRACTION_BITS
                right = min(left + 1, width)
                pixels[place] = row * steps[0] + (max(left, 1) - 1) * steps[1]
                pixels[place + 1] = row * steps[0] + (right - 1) * steps[1]
                weights[place] = (1 - weight) * length if left >= 1 else 0.0
                weights[place + 1] = weight * length if left < width else 0.0
                place += 2
