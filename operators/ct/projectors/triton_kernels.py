"""The inner loops of the Joseph projector in the plane, for Triton.

A batch is worked on in groups of `LANES` images, innermost in memory: ``image[row, column, lane]`` and
``sinogram[view, bin, lane]``. A ray's column is a whole number of 2**-30 columns, and both kernels find a
ray's pixels by the same integers: the transpose is exact, and its sums have no atomics, so that they come out
alike every time.

Every ray has three numbers: its column in row 0 (`starts`, int64), its columns per row (`slopes`, int32), and
the mm of ray per row (`lengths`, float32). A negative length is that of a ray which marches along the rows of
the transpose: read "row" for "column" and the reverse.
"""

import triton
import triton.language as tl

FRACTION_BITS = 30
_BITS = tl.constexpr(FRACTION_BITS)
_ONE = tl.constexpr(1 << FRACTION_BITS)
_FRACTION = tl.constexpr((1 << FRACTION_BITS) - 1)
_UNIT = tl.constexpr(1.0 / (1 << FRACTION_BITS))


@triton.jit
def rows_inside(start, slope, rows, columns):
    """Return the first row, and the last but one, where a ray may lie between the columns -1 and `columns`.

    The rows are good to one: whoever reads pixels has to look at the column, too.
    """
    # The slack is what single precision may get wrong in the column of a ray that meets the image.
    slack = 1e-3
    slope = tl.where(tl.abs(slope) < 1e-9, 1e-9, slope)
    before = (-1 - slack - start) / slope
    behind = (columns + slack - start) / slope
    limit = rows.to(tl.float32)
    first = tl.minimum(tl.maximum(tl.minimum(before, behind) - 1, 0.0), limit).to(tl.int32)
    last = tl.maximum(tl.minimum(tl.maximum(before, behind) + 2, limit), 0.0).to(tl.int32)
    return tl.where(first < last, first, rows), tl.where(first < last, last, 0)


@triton.jit
def forward_rays(
    image,
    starts,
    slopes,
    lengths,
    sinogram,
    rays,
    height,
    width,
    LANES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Line integrals of a packed image followed by its transpose, (2, height * width, lanes)."""
    ray = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    lane = tl.arange(0, LANES)
    known = ray < rays
    start = tl.load(starts + ray, mask=known, other=0)
    slope = tl.load(slopes + ray, mask=known, other=0)
    length = tl.load(lengths + ray, mask=known, other=0.0)
    steep = length >= 0
    rows = tl.where(known, tl.where(steep, height, width), 0)
    columns = tl.where(steep, width, height)
    first, last = rows_inside(start.to(tl.float32) * _UNIT, slope.to(tl.float32) * _UNIT, rows, columns)
    begin, end = tl.min(first, 0), tl.max(last, 0)
    step = slope.to(tl.int64)
    position = start + step * begin
    row_start = tl.where(steep, 0, height * width) + columns * begin
    total = tl.zeros((BLOCK, LANES), tl.float32)
    for row in range(begin, end):
        column = (position >> _BITS).to(tl.int32)
        weight = (position & _FRACTION).to(tl.int32).to(tl.float32) * _UNIT
        offset = (row_start + column)[:, None] * LANES + lane[None, :]
        left = (row < rows) & (column >= 0) & (column < columns)
        right = (row < rows) & (column >= -1) & (column < columns - 1)
        total += (1 - weight)[:, None] * tl.load(image + offset, mask=left[:, None], other=0.0)
        total += weight[:, None] * tl.load(image + offset + LANES, mask=right[:, None], other=0.0)
        position += step
        row_start += columns
    offset = ray[:, None] * LANES + lane[None, :]
    tl.store(sinogram + offset, tl.abs(length)[:, None] * total, mask=known[:, None])


@triton.jit
def adjoint_pixels(
    sinogram,
    starts,
    slopes,
    lengths,
    maps,
    counts,
    image,
    views,
    bins,
    height,
    width,
    linear,
    cubic,
    quintic,
    septic,
    LANES: tl.constexpr,
    TALL: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Transpose of `forward_rays`: every pixel gathers from the rays that pass within one row or column.

    maps (views, 8): where in view a pixel is seen, as the quotient of two affine functions of its column and
    row, counted from the middle of the image (three numbers each); how many bins from there a ray may lie
    that meets the pixel; and a factor that makes bins from the middle of the detector of an odd polynomial of
    the quotient, linear to septic. counts (views,): how many bins may meet a pixel.
    """
    tiles = tl.cdiv(width, WIDE)
    pixel = tl.arange(0, TALL * WIDE)
    row = (tl.program_id(0) // tiles) * TALL + pixel // WIDE
    column = (tl.program_id(0) % tiles) * WIDE + pixel % WIDE
    known = (row < height) & (column < width)
    lane = tl.arange(0, LANES)
    x = column.to(tl.float32) - (width - 1) * 0.5
    y = row.to(tl.float32) - (height - 1) * 0.5
    total = tl.zeros((TALL * WIDE, LANES), tl.float32)
    for view in range(views):
        entry = maps + 8 * view
        above = x * tl.load(entry) + y * tl.load(entry + 1) + tl.load(entry + 2)
        below = x * tl.load(entry + 3) + y * tl.load(entry + 4) + tl.load(entry + 5)
        seen = above / below
        square = seen * seen
        middle = (
            tl.load(entry + 7) * seen * (linear + square * (cubic + square * (quintic + square * septic)))
        )
        lowest = tl.ceil(middle + (bins - 1) * 0.5 - tl.load(entry + 6))
        count = tl.load(counts + view)
        # Limits, because a pixel far beside the fan may be seen at infinity.
        first = tl.minimum(tl.maximum(lowest, -1.0 * count), 1.0 * bins).to(tl.int32)
        for candidate in range(count):
            k = first + candidate
            ray = view * bins + k
            there = known & (k >= 0) & (k < bins)
            start = tl.load(starts + ray, mask=there, other=0)
            slope = tl.load(slopes + ray, mask=there, other=0)
            length = tl.load(lengths + ray, mask=there, other=0.0)
            steep = length >= 0
            along = tl.where(steep, row, column)
            across = tl.where(steep, column, row)
            beyond = (across.to(tl.int64) << _BITS) - (start + slope.to(tl.int64) * along)
            near = there & (beyond > -_ONE) & (beyond < _ONE)
            fraction = tl.where(beyond > 0, _ONE - beyond, -beyond).to(tl.int32).to(tl.float32) * _UNIT
            weight = tl.where(beyond > 0, fraction, 1 - fraction) * tl.abs(length)
            offset = ray[:, None] * LANES + lane[None, :]
            total += weight[:, None] * tl.load(sinogram + offset, mask=near[:, None], other=0.0)
    offset = (row * width + column)[:, None] * LANES + lane[None, :]
    tl.store(image + offset, total, mask=known[:, None])


INTERPRETED = not isinstance(forward_rays, triton.JITFunction)
