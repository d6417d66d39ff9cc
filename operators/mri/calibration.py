"""The fully sampled centre of k-space, and the patches of it that calibration learns from."""

from __future__ import annotations

from collections.abc import Sequence
from types import EllipsisType

from torch import Tensor


def calibration_region(
    kspace: Tensor, at_most: int | Sequence[int] | None = None, *, dimensions: int = 2
) -> tuple[slice, ...]:
    """Return the box around the centre of k-space in which every sample was measured, a slice an axis.

    Parameters
    ----------
    kspace : Tensor
        Complex, shape (*batch, coils, *shape) with `dimensions` axes in shape, frequency 0 at n // 2, and
        zeros where nothing was measured. A sample counts as measured if any coil has a signal there; batch
        elements that are zero throughout are passed over.
    at_most
        Largest size of the box, of each axis or one for all; as large as can be unless given.
    dimensions
        How many trailing axes are those of k-space.

    Raises
    ------
    ValueError
        For k-space that is not complex or has too few axes, a size below one, and if the centre itself was
        not measured.

    Notes
    -----
    The box grows from the centre by one line at a time, on each side in turn, until it meets what was not
    measured, the edge or its largest size.
    """
    check_kspace(kspace, dimensions)
    shape = tuple(kspace.shape[-dimensions:])
    limits = per_axis("at_most", shape if at_most is None else at_most, dimensions)
    # Nothing further from the centre can belong to the box.
    window = tuple(
        slice(max(n // 2 - limit, 0), n // 2 + limit + 1) for n, limit in zip(shape, limits, strict=True)
    )
    heard = (kspace[last_axes(window)] != 0).any(-dimensions - 1)
    heard = heard.reshape(-1, *heard.shape[-dimensions:])
    heard = heard[heard.flatten(1).any(1)]
    sampled = heard.all(0).cpu()
    low = [n // 2 - part.start for n, part in zip(shape, window, strict=True)]
    if len(heard) == 0 or not bool(sampled[tuple(low)]):
        raise ValueError(
            f"kspace: expected a measured centre, at {tuple(n // 2 for n in shape)} of {shape}, "
            "found zeros there"
        )
    high = [start + 1 for start in low]
    growing = [(axis, step) for step in (-1, 1) for axis in range(dimensions)]
    while growing:
        for axis, step in tuple(growing):
            line = low[axis] - 1 if step < 0 else high[axis]
            beside = [slice(first, last) for first, last in zip(low, high, strict=True)]
            beside[axis] = slice(line, line + 1)
            inside = 0 <= line < sampled.shape[axis] and high[axis] - low[axis] < limits[axis]
            if not inside or not bool(sampled[tuple(beside)].all()):
                # A line that stops a side does so whatever the others grow to.
                growing.remove((axis, step))
            elif step < 0:
                low[axis] = line
            else:
                high[axis] = line + 1
    return tuple(
        slice(part.start + first, part.start + last)
        for part, first, last in zip(window, low, high, strict=True)
    )


def calibration_data(
    kspace: Tensor, at_most: int | Sequence[int], kernel: Sequence[int], *, dimensions: int = 2
) -> Tensor:
    """Return the fully sampled centre, shape (*batch, coils, *region), with room for a kernel.

    Parameters are those of `calibration_region`; `kernel` is the size of the kernel along each axis.

    Raises
    ------
    ValueError
        As `calibration_region`; for a kernel larger than the region; for values that are not finite.
    """
    region = calibration_region(kspace, at_most, dimensions=dimensions)
    sizes = tuple(part.stop - part.start for part in region)
    if any(size < length for size, length in zip(sizes, kernel, strict=True)):
        raise ValueError(
            f"kspace: expected a fully sampled centre of at least the kernel's {tuple(kernel)}, found {sizes}"
        )
    data = kspace[last_axes(region)]
    if not bool(data.isfinite().all()):
        raise ValueError("kspace: expected finite values, found others")
    return data


def patches(data: Tensor, kernel: Sequence[int]) -> Tensor:
    """Return every patch of the size of a kernel, shape (*batch, patches, coils * prod(kernel)).

    `data` has shape (*batch, coils, *region), one axis of the region for each of the kernel; a row is ordered
    as (coils, *kernel), and holds the samples at increasing frequencies.
    """
    dimensions = len(kernel)
    for length in kernel:
        data = data.unfold(-dimensions, length, 1)
    # (*batch, coils, *positions, *kernel)
    coils = data.ndim - 2 * dimensions - 1
    data = data.movedim(coils, coils + dimensions)
    return data.flatten(coils + dimensions).flatten(coils, -2)


def last_axes(region: tuple[slice, ...]) -> tuple[EllipsisType | slice, ...]:
    """The index of a region of the last axes."""
    return (..., *region)


def check_kspace(kspace: Tensor, dimensions: int, name: str = "kspace") -> None:
    """ValueError unless k-space, or coil images, are complex, shape (*batch, coils, *shape)."""
    if not isinstance(kspace, Tensor) or not kspace.is_complex():
        found = kspace.dtype if isinstance(kspace, Tensor) else type(kspace).__name__
        raise ValueError(f"{name}: expected a complex torch.Tensor, found {found}")
    if kspace.ndim < dimensions + 1:
        raise ValueError(
            f"{name}: expected coils and {dimensions} axes after them, found shape {tuple(kspace.shape)}"
        )


def per_axis(name: str, value: int | Sequence[int], dimensions: int) -> tuple[int, ...]:
    """One positive size an axis; ValueError otherwise."""
    sizes = (value,) * dimensions if isinstance(value, int) else tuple(int(size) for size in value)
    if len(sizes) != dimensions or min(sizes) < 1:
        raise ValueError(f"{name}: expected one size or {dimensions}, at least 1, found {value}")
    return sizes
