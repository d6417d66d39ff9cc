"""The inner loops of the Joseph projector in space, compiled once and kept on disk.

Everything is in voxels: ``packed[1 + row, 1 + column, 1 + slice]``, slices innermost, with zeros all around,
so that a ray needs no test at the edges. A ray marches along the axis that it crosses fastest, plane by
plane, and takes the bilinear mean of the four voxels around it in each.

Two kinds of kernels know the same weights. Those for any ray keep its places in a plane as whole numbers of
2**-40 voxels: adding a slope is exact, so the values do not depend on how the planes are shared out. Those
for upright views, whose rows follow each other along z, use that all rows of a bin lie in one upright plane:
they blend two columns of voxels once for all rows. A thread of a transposed kernel owns a slab of planes and
writes nowhere else.

A line of ``table`` is one view: source, or ray direction, at 0; place of row 0 of bin 0 (flat), or of the
axis of the arc at row 0 (curved), at 3; step to the next bin, or sideways radius, at 6; step to the next row
at 9; forward radius of an arc at 12; angle from bin to bin of an arc at 15, 0 if flat.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

FRACTION_BITS = 40
ONE = float(1 << FRACTION_BITS)
FRACTION = (1 << FRACTION_BITS) - 1
# A ray that meets the first plane farther away than this misses any volume.
FARTHEST = float(1 << 22)

# "contract" lets the compiler fuse a product into a sum; it may not reorder sums.
_compiled: Any = njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
_inlined: Any = njit(inline="always", error_model="numpy")


@_inlined
def _bin_place(line: Any, k: int, bins: int) -> tuple[float, float, float]:
    """Return where bin k of row 0 is."""
    if line[15] == 0.0:
        return line[3] + k * line[6], line[4] + k * line[7], line[5] + k * line[8]
    turn = (k - 0.5 * (bins - 1)) * line[15]
    ahead, aside = math.cos(turn), math.sin(turn)
    return (
        line[3] + ahead * line[12] + aside * line[6],
        line[4] + ahead * line[13] + aside * line[7],
        line[5] + ahead * line[14] + aside * line[8],
    )


@_inlined
def _march_axis(x: float, y: float, z: float) -> int:
    """Return the axis that a ray crosses fastest; ties go to x, then y, to single precision."""
    axis, most = 0, abs(x)
    if most < abs(y) * (1 - 1e-7):
        axis, most = 1, abs(y)
    if most < abs(z) * (1 - 1e-7):
        axis = 2
    return axis


@_inlined
def _inside(start: int, slope: int, limit: int, first: int, last: int) -> tuple[int, int]:
    """Return the planes of [first, last) in which a ray lies between 0 and limit, both left out."""
    one, other = start + first * slope, start + (last - 1) * slope
    if min(one, other) > 0 and max(one, other) < limit:
        return first, last
    if max(one, other) <= 0 or min(one, other) >= limit:
        return first, first
    at_zero = -float(start) / float(slope)
    at_limit = float(limit - start) / float(slope)
    begin = int(min(max(min(at_zero, at_limit), float(first)), float(last)))
    end = int(max(min(max(at_zero, at_limit) + 2.0, float(last)), float(begin)))
    # The divisions are good to a plane; the integers decide.
    while begin < end and not 0 < start + begin * slope < limit:
        begin += 1
    while begin < end and not 0 < start + (end - 1) * slope < limit:
        end -= 1
    return begin, end


@_inlined
def _crossing(place: Any, to: Any, axis: int, shape: Any, first: int, last: int) -> Any:
    """Return the planes of [first, last) that a ray crosses inside, and its two fixed-point lines in them."""
    one, two = (1, 2) if axis == 0 else ((0, 2) if axis == 1 else (1, 0))
    slope_one, slope_two = to[one] / to[axis], to[two] / to[axis]
    start_one = place[one] - place[axis] * slope_one
    start_two = place[two] - place[axis] * slope_two
    if not (abs(start_one) < FARTHEST and abs(start_two) < FARTHEST):
        return first, first, 0, 0, 0, 0
    a, da, b, db = int(start_one * ONE), int(slope_one * ONE), int(start_two * ONE), int(slope_two * ONE)
    begin, end = _inside(a, da, (shape[one] + 1) << FRACTION_BITS, first, last)
    if begin < end:
        begin, end = _inside(b, db, (shape[two] + 1) << FRACTION_BITS, begin, end)
    return begin, end, a, da, b, db


@_inlined
def _direction(line: Any, parallel: bool, place: Any) -> tuple[float, float, float]:
    if parallel:
        return line[0], line[1], line[2]
    return place[0] - line[0], place[1] - line[1], place[2] - line[2]


@_inlined
def _step_length(to: Any, axis: int, sizes: Any) -> float:
    """Return the mm of a ray between two planes."""
    x, y, z = to[0] * sizes[0], to[1] * sizes[1], to[2] * sizes[2]
    return math.sqrt(x * x + y * y + z * z) / abs(to[axis])


@_compiled
def march_axes(parallel: bool, table: Any, rows: int, bins: int, marched: Any) -> None:
    """Note in marched (views, 3) along which axes some ray of each view marches."""
    for view in range(table.shape[0]):
        line = table[view]
        for k in range(bins):
            x, y, z = _bin_place(line, k, bins)
            for row in range(rows):
                place = (x + row * line[9], y + row * line[10], z + row * line[11])
                to = _direction(line, parallel, place)
                marched[view, _march_axis(to[0], to[1], to[2])] = True


@_compiled
def forward_views(
    packed: Any, shape: Any, strides: Any, sizes: Any, parallel: bool, table: Any, views: Any, sinogram: Any
) -> None:
    """Add line integrals to a sinogram for some views, any rays.

    packed: flat; shape: columns, rows, slices of the volume; strides: of packed in the same order; sizes: mm
    of a voxel, likewise; table (all views, 16); views: indices; sinogram (all views, rows, bins).
    """
    _, rows, bins = sinogram.shape
    real = packed.dtype.type
    scale = real(1.0 / ONE)
    for view in views:
        line = table[view]
        for k in range(bins):
            x, y, z = _bin_place(line, k, bins)
            for row in range(rows):
                place = (x + row * line[9], y + row * line[10], z + row * line[11])
                to = _direction(line, parallel, place)
                axis = _march_axis(to[0], to[1], to[2])
                begin, end, a, da, b, db = _crossing(place, to, axis, shape, 1, shape[axis] + 1)
                one, two = (1, 2) if axis == 0 else ((0, 2) if axis == 1 else (1, 0))
                right, up = np.uintp(strides[one]), np.uintp(strides[two])
                total = real(0)
                a, b = a + begin * da, b + begin * db
                base = begin * strides[axis]
                for _ in range(begin, end):
                    offset = np.uintp(
                        base + (a >> FRACTION_BITS) * strides[one] + (b >> FRACTION_BITS) * strides[two]
                    )
                    w, v = real(a & FRACTION) * scale, real(b & FRACTION) * scale
                    near = (real(1) - v) * packed[offset] + v * packed[offset + up]
                    far = (real(1) - v) * packed[offset + right] + v * packed[offset + right + up]
                    total += (real(1) - w) * near + w * far
                    a, b = a + da, b + db
                    base += strides[axis]
                sinogram[view, row, k] += total * real(_step_length(to, axis, sizes))


@_compiled
def adjoint_planes(
    packed: Any,
    shape: Any,
    strides: Any,
    sizes: Any,
    parallel: bool,
    table: Any,
    views: Any,
    sinogram: Any,
    axis: int,
    first: int,
    last: int,
) -> None:
    """Add the transpose of `forward_views` to planes [first, last) of an axis, of rays marching along it."""
    _, rows, bins = sinogram.shape
    real = packed.dtype.type
    scale = real(1.0 / ONE)
    one, two = (1, 2) if axis == 0 else ((0, 2) if axis == 1 else (1, 0))
    right, up = np.uintp(strides[one]), np.uintp(strides[two])
    for view in views:
        line = table[view]
        for k in range(bins):
            x, y, z = _bin_place(line, k, bins)
            for row in range(rows):
                place = (x + row * line[9], y + row * line[10], z + row * line[11])
                to = _direction(line, parallel, place)
                if _march_axis(to[0], to[1], to[2]) != axis:
                    continue
                begin, end, a, da, b, db = _crossing(place, to, axis, shape, first, last)
                ray = sinogram[view, row, k] * real(_step_length(to, axis, sizes))
                a, b = a + begin * da, b + begin * db
                base = begin * strides[axis]
                for _ in range(begin, end):
                    offset = np.uintp(
                        base + (a >> FRACTION_BITS) * strides[one] + (b >> FRACTION_BITS) * strides[two]
                    )
                    w, v = real(a & FRACTION) * scale, real(b & FRACTION) * scale
                    near, far = (real(1) - w) * ray, w * ray
                    packed[offset] += (real(1) - v) * near
                    packed[offset + up] += v * near
                    packed[offset + right] += (real(1) - v) * far
                    packed[offset + right + up] += v * far
                    a, b = a + da, b + db
                    base += strides[axis]


@_inlined
def _rows_inside(start: float, step: float, limit: float, rows: int) -> tuple[int, int]:
    """Return the rows of a bin that lie between 0 and limit, both left out."""
    low, high = 0.0, float(rows)
    if step != 0.0:
        one, other = -start / step, (limit - start) / step
        low, high = min(max(min(one, other), 0.0), high), max(min(max(one, other) + 2.0, high), 0.0)
    begin, end = int(low), int(high)
    while begin < end and not 0.0 < start + begin * step < limit:
        begin += 1
    while begin < end and not 0.0 < start + (end - 1) * step < limit:
        end -= 1
    return begin, end


@_inlined
def _upright_lines(line: Any, parallel: bool, place: Any, to: Any, axis: int) -> tuple[float, ...]:
    """Return z of row 0 in plane 0, its climb per plane, and the same of the distance from row to row."""
    if parallel:
        climb = to[2] / to[axis]
        return place[2] - place[axis] * climb, climb, line[11], 0.0
    near = -line[axis] / to[axis]
    return line[2] + near * to[2], to[2] / to[axis], near * line[11], line[11] / to[axis]


@_inlined
def _slices_between(one: float, other: float) -> tuple[int, int]:
    """Return the first slice that rows from one place to another touch, and the one behind the last."""
    return int(min(one, other)), int(max(one, other)) + 2


# Loops of their own from zero on, which the compiler turns into SIMD; where it cannot, nothing waits.
@_inlined
def _blend(column: Any, near: Any, far: Any, weight: Any) -> None:
    for i in range(column.size):
        column[i] = (column.dtype.type(1) - weight) * near[i] + weight * far[i]


@_inlined
def _add_scaled(target: Any, factor: Any, column: Any) -> None:
    for i in range(column.size):
        target[i] += factor * column[i]


@_inlined
def _rows_of_column(sums: Any, column: Any, below: Any, weights: Any, start: float, step: float) -> None:
    """Add to rows at start, start + step, ... what a column of slices is there."""
    real = column.dtype.type
    for row in range(sums.size):
        place = start + row * step
        below[row] = np.int32(place)
        weights[row] = real(place - below[row])
    for row in range(sums.size):
        i, v = np.uintp(below[row]), weights[row]
        sums[row] += (real(1) - v) * column[i] + v * column[i + np.uintp(1)]


@_inlined
def _column_of_rows(
    column: Any, rays: Any, below: Any, lower: Any, upper: Any, start: float, step: float
) -> None:
    """Transpose of `_rows_of_column`."""
    real = column.dtype.type
    for row in range(rays.size):
        place = start + row * step
        below[row] = np.int32(place)
        v = real(place - below[row])
        lower[row], upper[row] = (real(1) - v) * rays[row], v * rays[row]
    for row in range(rays.size):
        i = np.uintp(below[row])
        column[i] += lower[row]
        column[i + np.uintp(1)] += upper[row]


@_compiled
def forward_upright(
    packed: Any, shape: Any, strides: Any, sizes: Any, parallel: bool, table: Any, views: Any, sinogram: Any
) -> None:
    """Add line integrals for some upright views; as `forward_views`."""
    _, rows, bins = sinogram.shape
    real = packed.dtype.type
    scale = real(1.0 / ONE)
    limit = shape[2] + 1.0
    height = shape[2] + 2
    column = np.empty(height, packed.dtype)
    sums, weights = np.empty(rows, packed.dtype), np.empty(rows, packed.dtype)
    below = np.empty(rows, np.int32)
    for view in views:
        line = table[view]
        for k in range(bins):
            place = _bin_place(line, k, bins)
            to = _direction(line, parallel, place)
            axis = _march_axis(to[0], to[1], 0.0)
            side = strides[1 - axis]
            slope = to[1 - axis] / to[axis]
            start = place[1 - axis] - place[axis] * slope
            sums[:] = 0
            if abs(start) < FARTHEST:
                a, da = int(start * ONE), int(slope * ONE)
                begin, end = _inside(a, da, (shape[1 - axis] + 1) << FRACTION_BITS, 1, shape[axis] + 1)
                z, dz, gap, dgap = _upright_lines(line, parallel, place, to, axis)
                for plane in range(begin, end):
                    bottom, step = z + plane * dz, gap + plane * dgap
                    low, high = _rows_inside(bottom, step, limit, rows)
                    if low == high:
                        continue
                    at = a + plane * da
                    w = real(at & FRACTION) * scale
                    offset = plane * strides[axis] + (at >> FRACTION_BITS) * side
                    lowest, highest = _slices_between(bottom + low * step, bottom + (high - 1) * step)
                    _blend(
                        column[lowest:highest],
                        packed[offset + lowest : offset + highest],
                        packed[offset + side + lowest : offset + side + highest],
                        w,
                    )
                    _rows_of_column(
                        sums[low:high], column, below[: high - low], weights, bottom + low * step, step
                    )
            for row in range(rows):
                ray = to if parallel else (to[0], to[1], to[2] + row * line[11])
                sinogram[view, row, k] += sums[row] * real(_step_length(ray, axis, sizes))


@_compiled
def adjoint_upright(
    packed: Any,
    shape: Any,
    strides: Any,
    sizes: Any,
    parallel: bool,
    table: Any,
    views: Any,
    sinogram: Any,
    axis: int,
    first: int,
    last: int,
) -> None:
    """Add the transpose of `forward_upright` to planes [first, last) of an axis; as `adjoint_planes`."""
    _, rows, bins = sinogram.shape
    real = packed.dtype.type
    scale = real(1.0 / ONE)
    limit = shape[2] + 1.0
    height = shape[2] + 2
    column = np.empty(height, packed.dtype)
    rays, lower, upper = np.empty((3, rows), packed.dtype)
    below = np.empty(rows, np.int32)
    for view in views:
        line = table[view]
        for k in range(bins):
            place = _bin_place(line, k, bins)
            to = _direction(line, parallel, place)
            if _march_axis(to[0], to[1], 0.0) != axis:
                continue
            side = strides[1 - axis]
            slope = to[1 - axis] / to[axis]
            start = place[1 - axis] - place[axis] * slope
            if not abs(start) < FARTHEST:
                continue
            a, da = int(start * ONE), int(slope * ONE)
            begin, end = _inside(a, da, (shape[1 - axis] + 1) << FRACTION_BITS, first, last)
            if begin == end:
                continue
            for row in range(rows):
                ray = to if parallel else (to[0], to[1], to[2] + row * line[11])
                rays[row] = sinogram[view, row, k] * real(_step_length(ray, axis, sizes))
            z, dz, gap, dgap = _upright_lines(line, parallel, place, to, axis)
            for plane in range(begin, end):
                bottom, step = z + plane * dz, gap + plane * dgap
                low, high = _rows_inside(bottom, step, limit, rows)
                if low == high:
                    continue
                lowest, highest = _slices_between(bottom + low * step, bottom + (high - 1) * step)
                column[lowest:highest] = 0
                _column_of_rows(
                    column, rays[low:high], below[: high - low], lower, upper, bottom + low * step, step
                )
                at = a + plane * da
                w = real(at & FRACTION) * scale
                offset = plane * strides[axis] + (at >> FRACTION_BITS) * side
                _add_scaled(packed[offset + lowest : offset + highest], real(1) - w, column[lowest:highest])
                offset += side
                _add_scaled(packed[offset + lowest : offset + highest], w, column[lowest:highest])


@_compiled
def pack_volume(volume: Any, packed: Any, first: int, last: int) -> None:
    """Copy rows [first, last) of volume (slices, rows, columns) into packed (rows, columns, slices)."""
    slices, _, columns = volume.shape
    for row in range(first, last):
        for column in range(columns):
            for i in range(slices):
                packed[row + 1, column + 1, i + 1] = volume[i, row, column]


@_compiled
def unpack_volume(volume: Any, packed: Any, first: int, last: int) -> None:
    """Copy rows [first, last) of packed into the volume: the reverse of `pack_volume`."""
    slices, _, columns = volume.shape
    for row in range(first, last):
        for i in range(slices):
            for column in range(columns):
                volume[i, row, column] = packed[row + 1, column + 1, i + 1]
