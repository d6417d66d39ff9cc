"""The inner loops of the Joseph projector in space, for Triton.

``volume[slice, row, column]`` and ``sinogram[view, row, bin]``. Places are counted in voxels from the voxel
(depth // 2, height // 2, width // 2), so that single precision is at its best where the object is. A ray
marches along the axis of which it crosses most voxels a mm; on its way from plane to plane it takes the four
voxels around it. Both kernels compute a ray by `trace`, from the numbers of its view, and are compiled
without fused products and sums but those that are written, so that both find the same weights: the transpose
is exact, and its sums have no atomics, so that they come out alike every time.

A view has these numbers: 0 to 2, a point (x, y, z) of the ray in the middle of the detector; 3 to 5, its
direction; 6 to 8, what a bin, or the unit of the tangent on a curved detector, adds to its direction; 9 to
11, what a detector row adds; 12 to 14, what the height of a curved detector's middle adds; 15 and 16, how
much of all that is added to the direction and to the point. The way back from a voxel to the detector: 17 to
20, 21 to 24 and 25 to 28, affine functions of (x, y, z), of which the first over the third is the bin or
tangent, and the second over the third the row; 29 to 31 and 15, the direction of the ray through a voxel,
for a voxel in the middle and as it goes with the voxel; 32, bins per radian on a curved detector; 33, its
rows from the source's height up to its middle.
"""

import triton
import triton.language as tl

NUMBERS = 34
_NUMBERS = tl.constexpr(NUMBERS)


@triton.jit
def trace(entry, tangent, secant, across, tall, wide, deep):
    """Return the axis of a ray's march, its two places aside of it and how they go, and the mm per step.

    tangent, secant: of the bin on a curved detector, or the bin and 1; across: the row. Axis 0 is x, and y
    and z are aside; 1 is y, with x and z; 2 is z, with x and y.
    """
    more_x = tl.load(entry + 6) * tangent + (tl.load(entry + 12) + tl.load(entry + 9) * across) * secant
    more_y = tl.load(entry + 7) * tangent + (tl.load(entry + 13) + tl.load(entry + 10) * across) * secant
    more_z = tl.load(entry + 8) * tangent + (tl.load(entry + 14) + tl.load(entry + 11) * across) * secant
    turn, shift = tl.load(entry + 15), tl.load(entry + 16)
    x, along_x = tl.load(entry) + shift * more_x, tl.load(entry + 3) + turn * more_x
    y, along_y = tl.load(entry + 1) + shift * more_y, tl.load(entry + 4) + turn * more_y
    z, along_z = tl.load(entry + 2) + shift * more_z, tl.load(entry + 5) + turn * more_z
    # A tie, to what single precision can tell, goes to x before y before z.
    tie = 1 - 1e-6
    size_x, size_y, size_z = tl.abs(along_x), tl.abs(along_y), tl.abs(along_z)
    to_x = (size_x >= size_y * tie) & (size_x >= size_z * tie)
    to_z = (size_x < size_z * tie) & (size_y < size_z * tie)
    axis = tl.where(to_x, 0, tl.where(to_z, 2, 1))
    ahead, along = (
        tl.where(to_x, x, tl.where(to_z, z, y)),
        tl.where(to_x, along_x, tl.where(to_z, along_z, along_y)),
    )
    inverse = 1 / along
    first, first_slope = tl.where(to_x, y, x), tl.where(to_x, along_y, along_x) * inverse
    second, second_slope = tl.where(to_z, y, z), tl.where(to_z, along_y, along_z) * inverse
    in_mm = (
        along_x * along_x * (wide * wide)
        + along_y * along_y * (tall * tall)
        + along_z * along_z * (deep * deep)
    )
    length = tl.sqrt(in_mm) * tl.abs(inverse)
    return axis, first - ahead * first_slope, first_slope, second - ahead * second_slope, second_slope, length


@triton.jit
def trace_column(entry, tangent, tall, wide):
    """Return what `trace` finds for all rays of an upright detector's column: all but its z.

    Whether they march along x, the place and the reciprocal of the direction along the march, the place aside
    and how it goes, and the square of the mm per unit of direction without z.
    """
    more_x, more_y = tl.load(entry + 6) * tangent, tl.load(entry + 7) * tangent
    turn, shift = tl.load(entry + 15), tl.load(entry + 16)
    x, along_x = tl.load(entry) + shift * more_x, tl.load(entry + 3) + turn * more_x
    y, along_y = tl.load(entry + 1) + shift * more_y, tl.load(entry + 4) + turn * more_y
    to_x = tl.abs(along_x) >= tl.abs(along_y) * (1 - 1e-6)
    ahead = tl.where(to_x, x, y)
    inverse = 1 / tl.where(to_x, along_x, along_y)
    first, first_slope = tl.where(to_x, y, x), tl.where(to_x, along_y, along_x) * inverse
    flat = along_x * along_x * (wide * wide) + along_y * along_y * (tall * tall)
    return to_x, ahead, inverse, first - ahead * first_slope, first_slope, flat


@triton.jit
def trace_row(entry, tangent, secant, across, ahead, inverse, flat, deep):
    """Return the height of a ray of a column, how it goes, and the mm per step."""
    more_z = tl.load(entry + 8) * tangent + (tl.load(entry + 14) + tl.load(entry + 11) * across) * secant
    turn, shift = tl.load(entry + 15), tl.load(entry + 16)
    z, along_z = tl.load(entry + 2) + shift * more_z, tl.load(entry + 5) + turn * more_z
    second_slope = along_z * inverse
    length = tl.sqrt(flat + along_z * along_z * (deep * deep)) * tl.abs(inverse)
    return z - ahead * second_slope, second_slope, length


@triton.jit
def bend(bends, view, views, bins, k, there, CURVED: tl.constexpr):
    """Return tangent and secant of a bin on a curved detector, or the bin from the middle and 1."""
    if CURVED:
        tangent = tl.load(bends + view * bins + k, mask=there, other=0.0)
        secant = tl.load(bends + (views + view) * bins + k, mask=there, other=1.0)
    else:
        tangent = k.to(tl.float32) - (bins - 1) * 0.5
        secant = tl.full(k.shape, 1.0, tl.float32)
    return tangent, secant


@triton.jit
def planes_inside(start, slope, first, last, low, high):
    """Narrow planes [first, last) to those where a ray may lie between `low` and `high`; good to one."""
    slope = tl.where(tl.abs(slope) < 1e-9, 1e-9, slope)
    slack = 1e-3
    before, behind = (low - slack - start) / slope, (high + slack - start) / slope
    return tl.maximum(first, tl.minimum(before, behind) - 1), tl.minimum(last, tl.maximum(before, behind) + 2)


@triton.jit
def forward_rays(
    volume,
    numbers,
    bends,
    sinogram,
    views,
    rows,
    bins,
    planes,
    first_size,
    second_size,
    plane_stride,
    first_stride,
    second_stride,
    tall,
    wide,
    deep,
    AXIS: tl.constexpr,
    CURVED: tl.constexpr,
    TALL: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Line integrals along those rays that march along one axis; others are left as they are.

    planes, first_size, second_size and the strides: of the volume along the march and aside of it. bends (2,
    views, bins): tangent and secant of each bin on a curved detector. tall, wide, deep: of a voxel, in mm.
    """
    across_tiles = tl.cdiv(rows, TALL)
    along_tiles = tl.cdiv(bins, WIDE)
    tile = tl.program_id(0) % (across_tiles * along_tiles)
    view = tl.program_id(0) // (across_tiles * along_tiles)
    lane = tl.arange(0, TALL * WIDE)
    j = (tile // along_tiles) * TALL + lane // WIDE
    k = (tile % along_tiles) * WIDE + lane % WIDE
    known = (j < rows) & (k < bins)
    tangent, secant = bend(bends, view, views, bins, k, known, CURVED)
    across = j.to(tl.float32) - (rows - 1) * 0.5
    axis, first_start, first_slope, second_start, second_slope, length = trace(
        numbers + view * _NUMBERS, tangent, secant, across, tall, wide, deep
    )
    known = known & (axis == AXIS)
    low_plane, low_first, low_second = -(planes // 2), -(first_size // 2), -(second_size // 2)
    begin = tl.where(known, 1.0 * low_plane, 1.0 * (low_plane + planes))
    end = tl.where(known, 1.0 * (low_plane + planes), 1.0 * low_plane)
    begin, end = planes_inside(first_start, first_slope, begin, end, low_first - 1.0, low_first + first_size)
    begin, end = planes_inside(
        second_start, second_slope, begin, end, low_second - 1.0, low_second + second_size
    )
    total = tl.zeros((TALL * WIDE,), tl.float32)
    for plane in range(tl.min(begin, 0).to(tl.int32), tl.max(end, 0).to(tl.int32)):
        step = tl.full((TALL * WIDE,), 0.0, tl.float32) + plane
        first = tl.fma(step, first_slope, first_start)
        second = tl.fma(step, second_slope, second_start)
        whole_first, whole_second = tl.floor(first), tl.floor(second)
        right, up = first - whole_first, second - whole_second
        left, down = 1 - right, 1 - up
        f, s = whole_first.to(tl.int32) - low_first, whole_second.to(tl.int32) - low_second
        place = (plane - low_plane) * plane_stride + f * first_stride + s * second_stride
        inside = known & (plane >= low_plane) & (plane < low_plane + planes)
        at_left, at_right = inside & (f >= 0) & (f < first_size), inside & (f >= -1) & (f < first_size - 1)
        at_down, at_up = (s >= 0) & (s < second_size), (s >= -1) & (s < second_size - 1)
        total = tl.fma(left * down, tl.load(volume + place, mask=at_left & at_down, other=0.0), total)
        place += first_stride
        total = tl.fma(right * down, tl.load(volume + place, mask=at_right & at_down, other=0.0), total)
        place += second_stride
        total = tl.fma(right * up, tl.load(volume + place, mask=at_right & at_up, other=0.0), total)
        place -= first_stride
        total = tl.fma(left * up, tl.load(volume + place, mask=at_left & at_up, other=0.0), total)
    tl.store(sinogram + (view * rows + j) * bins + k, total * length, mask=known)


@triton.jit
def hat(place, voxel):
    """Return the weight of a voxel beside a place, as `forward_rays` has it."""
    whole = tl.floor(place)
    right = place - whole
    return tl.where(voxel == whole, 1 - right, tl.where(voxel == whole + 1, right, 0.0))


@triton.jit
def seen_from(entry, x, y, z):
    """Return an affine function of a place."""
    return tl.load(entry) * x + tl.load(entry + 1) * y + tl.load(entry + 2) * z + tl.load(entry + 3)


@triton.jit
def reach_of(entry, below, least, value, allowed_x, allowed_y, allowed_z, half_wide, half_tall, half_deep):
    """Bound how a quotient of affine functions varies about the middle of a tile, where it is `value`.

    Returns by how much it differs inside the tile, and between a ray and a voxel less than one voxel aside of
    it in both directions in which the ray does not march, for the axes that are allowed.
    """
    gain_x, gain_y, gain_z = tl.abs(tl.load(below)), tl.abs(tl.load(below + 1)), tl.abs(tl.load(below + 2))
    by_x = tl.abs(tl.load(entry) - value * tl.load(below))
    by_y = tl.abs(tl.load(entry + 1) - value * tl.load(below + 1))
    by_z = tl.abs(tl.load(entry + 2) - value * tl.load(below + 2))
    spread = (by_x * half_wide + by_y * half_tall + by_z * half_deep) / least
    by_x, by_y, by_z = by_x + spread * gain_x, by_y + spread * gain_y, by_z + spread * gain_z
    aside = tl.where(allowed_x, by_y + by_z, 0.0)
    aside = tl.maximum(aside, tl.where(allowed_y, by_x + by_z, 0.0))
    aside = tl.maximum(aside, tl.where(allowed_z, by_x + by_y, 0.0))
    return spread, aside / least


@triton.jit
def adjoint_voxels(
    sinogram,
    numbers,
    bends,
    volume,
    views,
    rows,
    bins,
    depth,
    height,
    width,
    tall,
    wide,
    deep,
    margin,
    linear,
    cubic,
    quintic,
    septic,
    CURVED: tl.constexpr,
    UPRIGHT: tl.constexpr,
    DEEP: tl.constexpr,
    TALL: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Add the transpose of `forward_rays`, all axes: every voxel gathers from the rays that pass within one.

    The voxels of a tile look at a rectangle of bins around the place where each is seen. Its size is bounded
    by how fast that place moves at the tile, and `margin` bins of rounding; linear to septic are the odd
    polynomial that stands for the arc tangent on a curved detector. UPRIGHT: the rays of a detector's column
    differ in z only and none marches along z, so that most of `trace` is done once a column.
    """
    column_tiles, row_tiles = tl.cdiv(width, WIDE), tl.cdiv(height, TALL)
    tile = tl.program_id(0)
    first_column = (tile % column_tiles) * WIDE
    first_row = ((tile // column_tiles) % row_tiles) * TALL
    first_slice = (tile // (column_tiles * row_tiles)) * DEEP
    lane = tl.arange(0, DEEP * TALL * WIDE)
    column = first_column + lane % WIDE
    row = first_row + (lane // WIDE) % TALL
    level = first_slice + lane // (WIDE * TALL)
    known = (column < width) & (row < height) & (level < depth)
    x = (column - width // 2).to(tl.float32)
    y = (row - height // 2).to(tl.float32)
    z = (level - depth // 2).to(tl.float32)
    # The middle of the tile, and how far from it a place within one voxel of the tile may be.
    middle_x = 1.0 * (first_column - width // 2) + (WIDE - 1) * 0.5
    middle_y = 1.0 * (first_row - height // 2) + (TALL - 1) * 0.5
    middle_z = 1.0 * (first_slice - depth // 2) + (DEEP - 1) * 0.5
    half_wide, half_tall, half_deep = (WIDE + 1) * 0.5, (TALL + 1) * 0.5, (DEEP + 1) * 0.5
    total = tl.zeros((DEEP * TALL * WIDE,), tl.float32)
    for view in range(views):
        entry = numbers + view * _NUMBERS
        turn = tl.load(entry + 15)
        size_x = tl.abs(turn * middle_x + tl.load(entry + 29))
        size_y = tl.abs(turn * middle_y + tl.load(entry + 30))
        size_z = tl.abs(turn * middle_z + tl.load(entry + 31))
        slack = turn * (half_wide + half_tall + half_deep) + 1e-5 * (size_x + size_y + size_z)
        largest = tl.maximum(tl.maximum(size_x, size_y), size_z) - slack
        allowed_x, allowed_y, allowed_z = size_x >= largest, size_y >= largest, size_z >= largest
        below = seen_from(entry + 25, middle_x, middle_y, middle_z)
        least = tl.abs(below) - tl.abs(tl.load(entry + 25)) * half_wide
        least -= tl.abs(tl.load(entry + 26)) * half_tall + tl.abs(tl.load(entry + 27)) * half_deep
        # A tile around the plane of the source looks at all bins.
        least = tl.maximum(least, 1e-6)
        bin_middle = seen_from(entry + 17, middle_x, middle_y, middle_z) / below
        row_middle = seen_from(entry + 21, middle_x, middle_y, middle_z) / below
        _, bin_reach = reach_of(
            entry + 17,
            entry + 25,
            least,
            bin_middle,
            allowed_x,
            allowed_y,
            allowed_z,
            half_wide,
            half_tall,
            half_deep,
        )
        row_spread, row_reach = reach_of(
            entry + 21,
            entry + 25,
            least,
            row_middle,
            allowed_x,
            allowed_y,
            allowed_z,
            half_wide,
            half_tall,
            half_deep,
        )
        under = seen_from(entry + 25, x, y, z)
        along = seen_from(entry + 17, x, y, z) / under
        across = seen_from(entry + 21, x, y, z) / under
        if CURVED:
            # Angles differ by no more than their tangents, and cosines by no more than angles.
            row_reach += (tl.abs(row_middle) + row_spread) * bin_reach
            per_radian = tl.load(entry + 32)
            bin_reach *= per_radian
            across = across / tl.sqrt(1 + along * along) - tl.load(entry + 33)
            square = along * along
            along *= per_radian * (linear + square * (cubic + square * (quintic + square * septic)))
        bin_reach += margin
        row_reach += margin
        along += (bins - 1) * 0.5
        across += (rows - 1) * 0.5
        many_bins = tl.minimum(tl.floor(2 * bin_reach) + 1, 1.0 * bins).to(tl.int32)
        many_rows = tl.minimum(tl.floor(2 * row_reach) + 1, 1.0 * rows).to(tl.int32)
        meets = known & (along + bin_reach >= 0) & (along - bin_reach <= bins - 1)
        meets = meets & (across + row_reach >= 0) & (across - row_reach <= rows - 1)
        # Limits, because a voxel far beside the cone may be seen at infinity.
        first_bin = tl.minimum(tl.maximum(tl.ceil(along - bin_reach), 0.0), 1.0 * bins).to(tl.int32)
        first_row_seen = tl.minimum(tl.maximum(tl.ceil(across - row_reach), 0.0), 1.0 * rows).to(tl.int32)
        seen = tl.max(meets.to(tl.int32), 0)
        if UPRIGHT:
            for b in range(many_bins * seen):
                k = first_bin + b
                tangent, secant = bend(bends, view, views, bins, k, known & (k >= 0) & (k < bins), CURVED)
                march_x, ahead, inverse, first_start, first_slope, flat = trace_column(
                    entry, tangent, tall, wide
                )
                step = tl.where(march_x, x, y)
                first = hat(tl.fma(step, first_slope, first_start), tl.where(march_x, y, x))
                in_column = known & (k >= 0) & (k < bins) & (first > 0)
                for r in range(many_rows):
                    j = first_row_seen + r
                    row_place = j.to(tl.float32) - (rows - 1) * 0.5
                    second_start, second_slope, length = trace_row(
                        entry, tangent, secant, row_place, ahead, inverse, flat, deep
                    )
                    second = hat(tl.fma(step, second_slope, second_start), z)
                    weight = first * second * length
                    near = in_column & (j >= 0) & (j < rows) & (weight > 0)
                    ray = tl.load(sinogram + (view * rows + j) * bins + k, mask=near, other=0.0)
                    total = tl.fma(weight, ray, total)
        else:
            for candidate in range(many_bins * many_rows * seen):
                j = first_row_seen + candidate // many_bins
                k = first_bin + candidate % many_bins
                there = known & (j >= 0) & (j < rows) & (k >= 0) & (k < bins)
                tangent, secant = bend(bends, view, views, bins, k, there, CURVED)
                axis, first_start, first_slope, second_start, second_slope, length = trace(
                    entry, tangent, secant, j.to(tl.float32) - (rows - 1) * 0.5, tall, wide, deep
                )
                step = tl.where(axis == 0, x, tl.where(axis == 1, y, z))
                first = hat(tl.fma(step, first_slope, first_start), tl.where(axis == 0, y, x))
                second = hat(tl.fma(step, second_slope, second_start), tl.where(axis == 2, y, z))
                weight = first * second * length
                near = there & (weight > 0)
                ray = tl.load(sinogram + (view * rows + j) * bins + k, mask=near, other=0.0)
                total = tl.fma(weight, ray, total)
    place = volume + (level * height + row) * width + column
    tl.store(place, tl.load(place, mask=known, other=0.0) + total, mask=known)


INTERPRETED = not isinstance(forward_rays, triton.JITFunction)
