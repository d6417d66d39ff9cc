"""Joseph's method in the plane on a GPU: interpolated line integrals and their exact transpose."""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from operators.ct.geometry import FanBeam, Float64Array, ImageGrid, ParallelBeam
from operators.ct.projectors.arctangent import arctangent

_LANES = 16  # images that are worked on at once: 64 bytes a pixel
_MOST = (1 << 31) - 1  # what 32 bits can count
_FAR = 1 << 28  # a ray whose column in row 0 is farther away misses any image
_TIE = 1 - 1e-7  # a tie, to single precision, goes as it does in ASTRA


def _kernels() -> Any:
    """Import the kernels, or say in one line what is missing."""
    try:
        import_module("triton")
    except ImportError as error:
        raise ModuleNotFoundError(
            'projector "triton" runs on a GPU through Triton, which is not installed: pip install triton '
            "(Linux; PyTorch's builds for GPUs bring it along)"
        ) from error
    return import_module("operators.ct.projectors.triton_kernels")


@dataclass(frozen=True)
class _Rays:
    """The lines of a scan and the way back from a pixel to the bins that see it, in pixels of a grid.

    start, slope, length (views, bins): column in row 0, columns per row, mm per row; with a negative length,
    rows and columns change places. maps (views, 8), counts (views,) and polynomial: see
    `triton_kernels.adjoint_pixels`.
    """

    start: Float64Array
    slope: Float64Array
    length: Float64Array
    maps: Float64Array
    counts: NDArray[np.int32]
    polynomial: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0)


def _trace(geometry: ParallelBeam | FanBeam, grid: ImageGrid) -> _Rays:
    """Return the rays of a scan in pixels of the grid, in float64."""
    columns, rows = grid.coordinates()
    # In pixels: x is a column, y a row.
    corner, scale = np.array([columns[0], rows[0]]), np.array([grid.pixel_width, -grid.pixel_height])
    points, directions = geometry.rays()
    points, directions = (points - corner) / scale, directions / scale
    length = np.hypot(*np.moveaxis(directions * scale, -1, 0))
    steep = np.abs(directions[..., 0]) < np.abs(directions[..., 1]) * _TIE
    aside, ahead = (np.where(steep, *pair) for pair in zip(*_swapped(directions), strict=True))
    across, along = (np.where(steep, *pair) for pair in zip(*_swapped(points), strict=True))
    slope = aside / ahead
    start = np.clip(across - slope * along, -_FAR, _FAR)
    length = np.where(steep, 1, -1) * length / np.abs(ahead)
    maps, polynomial, error = _maps(geometry, grid)
    reach = _reach(start, slope, steep, maps, grid.shape, geometry.detector.curved)
    # What single precision may get wrong.
    rounding = 2e-3 + 4e-6 * (geometry.detector.bins + max(grid.shape) * reach.max())
    maps[:, 6] = reach + error + rounding
    counts = np.floor(2 * maps[:, 6]).astype(np.int32) + 1
    return _Rays(start, slope, length, maps, counts, polynomial)


def _swapped(places: Float64Array) -> tuple[tuple[Float64Array, ...], tuple[Float64Array, ...]]:
    """Return (column, row) and (row, column) of places, shape (..., 2)."""
    x, y = np.moveaxis(places, -1, 0)
    return (x, y), (y, x)


def _maps(
    geometry: ParallelBeam | FanBeam, grid: ImageGrid
) -> tuple[Float64Array, tuple[float, float, float, float], float]:
    """Return the way back from pixels to bins, its polynomial, and the polynomial's error in bins."""
    vectors = geometry.vectors().reshape(-1, 3, 2)
    middle, step = vectors[:, 1], vectors[:, 2]
    maps = np.zeros((geometry.views, 8))
    maps[:, 7] = 1
    polynomial, error = (1.0, 0.0, 0.0, 0.0), 0.0
    if isinstance(geometry, ParallelBeam):
        # A pixel is at middle + t ray + k step.
        origin, ahead = middle, vectors[:, 0]
    else:
        # A pixel is at source + t (reach + k step), and a curved detector has the tangent instead of k.
        origin, ahead = vectors[:, 0], middle - vectors[:, 0]
        if geometry.detector.curved:
            radius = np.linalg.norm(ahead, axis=1, keepdims=True)
            width = np.linalg.norm(step, axis=1, keepdims=True)
            maps[:, 7:] = radius / width
            polynomial, error = arctangent(np.tan((geometry.detector.bins / 2 * width / radius).max()))
            error *= maps[:, 7].max()
            step = step * radius / width
    back = np.linalg.inv(np.stack((ahead, step), axis=2))  # (views, 2, 2): t, then t k or k
    scale = np.array([grid.pixel_width, -grid.pixel_height])
    constant = np.einsum("vij,vj->vi", back, grid.center - origin)
    maps[:, 0:2], maps[:, 2] = back[:, 1] * scale, constant[:, 1]
    if isinstance(geometry, ParallelBeam):
        maps[:, 5] = 1
    else:
        maps[:, 3:5], maps[:, 5] = back[:, 0] * scale, constant[:, 0]
    return maps, polynomial, error


def _reach(
    start: Float64Array,
    slope: Float64Array,
    steep: NDArray[np.bool_],
    maps: Float64Array,
    shape: tuple[int, ...],
    curved: bool,
) -> Float64Array:
    """Return for each view how many bins may lie between a ray and a pixel beside it, at most.

    Along a ray, a pixel takes up more bins the nearer it is to the source, so that it is enough to look where
    the ray enters the image and where it leaves it.
    """
    height, width = shape
    rows, columns = np.where(steep, height, width), np.where(steep, width, height)
    with np.errstate(divide="ignore", invalid="ignore"):
        edges = np.sort(np.stack(((-1 - start) / slope, (columns - start) / slope)), axis=0)
    level = slope == 0
    inside = level & (start > -1) & (start < columns)
    edges = np.where(level, np.where(inside, [[[-np.inf]], [[np.inf]]], np.inf), edges)
    first, last = np.maximum(edges[0], 0), np.minimum(edges[1], rows - 1)
    meets = first <= last
    bins = np.arange(start.shape[1]) - (start.shape[1] - 1) / 2
    reach = np.zeros(start.shape)
    for along in (np.where(meets, first, 0), np.where(meets, last, 0)):
        for aside in (-1, 0, 1):
            across = start + slope * along + aside
            x = np.where(steep, across, along) - (width - 1) / 2
            y = np.where(steep, along, across) - (height - 1) / 2
            away = np.abs(_seen(maps[:, None], x, y, curved) - bins)
            reach = np.maximum(reach, np.where(meets, away, 0))
    return reach.max(axis=1)


def _seen(maps: Float64Array, x: Float64Array, y: Float64Array, curved: bool) -> Float64Array:
    """Return the bin, counted from the middle of the detector, that sees a place of the image."""
    above = maps[..., 0] * x + maps[..., 1] * y + maps[..., 2]
    seen = above / (maps[..., 3] * x + maps[..., 4] * y + maps[..., 5])
    return maps[..., 7] * (np.arctan(seen) if curved else seen)


class JosephTritonProjector:
    """Line integrals by linear interpolation between the two pixels beside a ray, computed on a GPU.

    The weights are those of projector "joseph", to 1e-9 of a pixel. The adjoint is the exact transpose: every
    pixel gathers from its rays with the weights of the forward direction, bit for bit, without atomics, so
    that results repeat to the last bit. float32, CUDA tensors; a batch is worked on 16 images at a time, with
    memory for 48 images or sinograms at most beside input and output.

    Raises
    ------
    ValueError
        For tensors that are not float32 or, unless Triton's interpreter runs, not on a GPU.
    ModuleNotFoundError
        Without the package triton.
    """

    dtypes = (torch.float32,)

    def __init__(self, geometry: ParallelBeam | FanBeam, grid: ImageGrid) -> None:
        self._kernels = _kernels()
        self.geometry, self.grid = geometry, grid
        self._rays = _trace(geometry, grid)
        self._tables: dict[torch.device, tuple[Tensor, ...]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle by the settings: tables belong to a device."""
        return JosephTritonProjector, (self.geometry, self.grid)

    def forward(self, images: Tensor) -> Tensor:
        """Images in 1/mm, (images, height, width), to line integrals (images, views, bins)."""
        starts, slopes, lengths, *_ = self._on_device(images)
        sinograms = images.new_empty(images.shape[0], *self.geometry.sinogram_shape)
        (height, width), rays = self.grid.shape, starts.numel()
        for part in self._groups(images):
            group = images[part].detach()
            lanes = _lanes(group)
            packed = images.new_empty(2, height * width, lanes)
            packed[0, :, : len(group)] = group.flatten(1).T
            packed[1, :, : len(group)] = group.mT.flatten(1).T
            packed[..., len(group) :] = 0
            sums = images.new_empty(rays, lanes)
            block = max(32, 128 // lanes)
            with torch.cuda.device_of(images):
                self._kernels.forward_rays[(-(-rays // block),)](
                    packed, starts, slopes, lengths, sums, rays, height, width, LANES=lanes, BLOCK=block
                )
            sinograms[part].flatten(1).copy_(sums[:, : len(group)].T)
        return sinograms

    def adjoint(self, sinograms: Tensor) -> Tensor:
        """Transpose of forward: (images, views, bins) to (images, height, width)."""
        tables = self._on_device(sinograms)
        images = sinograms.new_empty(sinograms.shape[0], *self.grid.shape)
        (height, width), (views, bins) = self.grid.shape, self.geometry.sinogram_shape
        for part in self._groups(sinograms):
            group = sinograms[part].detach()
            lanes = _lanes(group)
            packed = sinograms.new_zeros(views * bins, lanes)
            packed[:, : len(group)] = group.flatten(1).T
            sums = sinograms.new_empty(height * width, lanes)
            tall, wide = 4, max(8, 32 // lanes)
            tiles = -(-height // tall) * -(-width // wide)
            with torch.cuda.device_of(sinograms):
                self._kernels.adjoint_pixels[(tiles,)](
                    packed,
                    *tables,
                    sums,
                    views,
                    bins,
                    height,
                    width,
                    *self._rays.polynomial,
                    LANES=lanes,
                    TALL=tall,
                    WIDE=wide,
                )
            images[part].flatten(1).copy_(sums[:, : len(group)].T)
        return images

    def working_memory(self, images: int, device: torch.device, itemsize: int) -> tuple[int, int, int]:
        """Return bytes beside input and output of forward and adjoint, and bytes kept between calls."""
        batch = torch.empty(images, 0, device="meta")
        group = batch[self._groups(batch)[0]]
        pixels, rays = math.prod(self.grid.shape), math.prod(self.geometry.sinogram_shape)
        lanes = _lanes(group)
        forward = (2 * pixels + rays) * lanes + pixels * len(group)
        kept = rays * 16 + self.geometry.views * 36
        return forward * itemsize, (rays + pixels) * lanes * itemsize, kept

    def _on_device(self, batch: Tensor) -> tuple[Tensor, ...]:
        """Return the tables on the device of a tensor that may be worked on."""
        if batch.dtype != torch.float32:
            raise ValueError(f'projector "triton": expected dtype torch.float32, found {batch.dtype}')
        if not (batch.is_cuda or (self._kernels.INTERPRETED and batch.device.type == "cpu")):
            raise ValueError(f'projector "triton": expected a CUDA tensor, found one on {batch.device}')
        if batch.device not in self._tables:
            rays, unit = self._rays, 1 << self._kernels.FRACTION_BITS
            self._tables[batch.device] = tuple(
                torch.from_numpy(table).to(batch.device)
                for table in (
                    np.round(rays.start * unit).astype(np.int64),
                    np.round(rays.slope * unit).astype(np.int32),
                    rays.length.astype(np.float32),
                    rays.maps.astype(np.float32),
                    rays.counts,
                )
            )
        return self._tables[batch.device]

    def _groups(self, batch: Tensor) -> list[slice]:
        """Cut a batch into groups that are worked on at once, and whose numbers 32 bits can count."""
        largest = max(2 * math.prod(self.grid.shape), math.prod(self.geometry.sinogram_shape))
        lanes = _LANES
        while lanes > 1 and lanes * largest > _MOST:
            lanes //= 2
        return [slice(begin, begin + lanes) for begin in range(0, batch.shape[0], lanes)]


def _lanes(group: Tensor) -> int:
    """Return the smallest power of two that takes this many images."""
    return 1 << (len(group) - 1).bit_length()
