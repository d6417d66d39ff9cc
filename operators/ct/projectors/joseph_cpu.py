"""Joseph's method on the CPU: interpolated line integrals and their exact transpose, many images at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from operators.ct.geometry import FanBeam, Float64Array, ImageGrid, ParallelBeam

Lines = tuple[NDArray[np.int64], NDArray[np.int64], Float64Array]

_CACHE_BYTES = 1 << 19  # half of a core's own cache: rows that should stay there while many rays pass
_FAR = float(1 << 21)  # columns
_POOLS: dict[tuple[int, int], ThreadPoolExecutor] = {}


def _in_threads(work: Callable[..., None], parts: Iterable[tuple[Any, ...]]) -> None:
    """Call ``work(*part)`` for every part, in as many threads as torch uses; the kernels release the GIL.

    Pools are kept per process, because threads do not survive a fork. They run nothing but kernels, so that
    calls from several threads share a pool and cannot wait for each other.
    """
    workers = torch.get_num_threads()
    jobs = list(parts)
    if workers == 1 or len(jobs) <= 1:
        for job in jobs:
            work(*job)
        return
    key = (os.getpid(), workers)
    # setdefault is atomic, and a pool that loses the race has started no thread: no lock that a fork could
    # copy.
    pool = _POOLS.get(key) or _POOLS.setdefault(key, ThreadPoolExecutor(workers, thread_name_prefix="joseph"))
    for done in [pool.submit(work, *job) for job in jobs]:
        done.result()


def _spans(size: int, parts: int) -> list[tuple[int, int]]:
    """Cut range(size) into at most ``parts`` pieces of nearly equal length."""
    edges = np.linspace(0, size, min(parts, size) + 1).round().astype(int).tolist()
    return list(pairwise(edges))


def _lines(geometry: ParallelBeam | FanBeam, grid: ImageGrid) -> tuple[Lines, NDArray[np.bool_]]:
    """Return where the rays meet the pixels, and which of them march along rows, each (views, bins).

    The lines are: padded column at row 0 and columns per row, in units of 2**-40 columns, and mm of ray per
    row. For rays that do not march along rows, read "row" for "column" and the reverse.
    """
    from operators.ct.projectors.joseph_kernels import ONE

    points, directions = geometry.rays()
    (x, y), (ray_x, ray_y) = (np.moveaxis(values, -1, 0) for values in (points, directions))
    columns, rows = grid.coordinates()
    wide, tall = grid.pixel_width, grid.pixel_height
    # The march that moves at most one pixel aside a step; a tie, to single precision, goes as it does in
    # ASTRA.
    steep = np.abs(ray_x) * tall < np.abs(ray_y) * wide * (1 - 1e-7)
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = np.where(steep, ray_x / ray_y, ray_y / ray_x)
    across = np.where(steep, x - columns[0] + (rows[0] - y) * slope, rows[0] - y + (x - columns[0]) * slope)
    start = across / np.where(steep, wide, tall) + 1
    per_row = -slope * np.where(steep, tall / wide, wide / tall)
    length = np.sqrt(1 + slope**2) * np.where(steep, tall, wide)
    # Rays that far outside miss the image, and must not overflow.
    start = np.clip(start, -_FAR, _FAR)
    return ((start * ONE).astype(np.int64), (per_row * ONE).astype(np.int64), length), steep


def _fans(chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the runs of neighbouring bins that are chosen: view, first bin, one past the last; (n, 3)."""
    edges = np.diff(np.pad(chosen.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    view, first = np.nonzero(edges == 1)
    _, last = np.nonzero(edges == -1)
    return np.stack((view, first, last), axis=1)


class JosephProjector:
    """Line integrals by linear interpolation between the two pixels beside a ray in every row or column.

    The weights are those of ASTRA's "linear" projector for square pixels; for others, the length of a step is
    that of the ray (Joseph, IEEE Trans. Med. Imaging 1(3), 1982). The adjoint is the exact transpose: it uses
    the same weights, bit for bit. Works in float32 or float64, on CPU tensors, in ``torch.get_num_threads()``
    threads.
    """

    dtypes = (torch.float32, torch.float64)

    def __init__(self, geometry: ParallelBeam | FanBeam, grid: ImageGrid) -> None:
        self.geometry, self.grid = geometry, grid
        self._lines, steep = _lines(geometry, grid)
        self._steep, self._flat = _fans(steep), _fans(~steep)

    def forward(self, images: Tensor) -> Tensor:
        """Images in 1/mm, (images, height, width), to line integrals (images, views, bins)."""
        sinograms = torch.empty(images.shape[0], *self.geometry.sinogram_shape, dtype=images.dtype)
        for part in _groups(images):
            lanes = _lanes(part.stop - part.start)
            self._forward(_array(images[part]), sinograms[part].numpy(), lanes)
        return sinograms

    def adjoint(self, sinograms: Tensor) -> Tensor:
        """Transpose of forward: (images, views, bins) to (images, height, width)."""
        images = torch.empty(sinograms.shape[0], *self.grid.shape, dtype=sinograms.dtype)
        for part in _groups(sinograms):
            lanes = _lanes(part.stop - part.start)
            self._adjoint(_array(sinograms[part]), images[part].numpy(), lanes)
        return images

    def _layouts(self, lanes: int, dtype: Any) -> list[tuple[NDArray[Any], tuple[int, int, int], Any]]:
        """Return (zeros, (rows, width, padded width), fans) for the image and for its transpose."""
        height, width = self.grid.shape
        layouts = []
        for fans, shape in ((self._steep, (height, width)), (self._flat, (width, height))):
            padded = shape[1] + 2
            # Rows that start at the same place of the cache push each other out of it.
            while lanes > 1 and not 128 <= padded * lanes * dtype.itemsize % 1024 <= 896:
                padded += 1
            layouts.append((np.zeros(shape[0] * padded * lanes, dtype), (*shape, padded), fans))
        return layouts

    def _forward(self, images: NDArray[Any], sinograms: NDArray[Any], lanes: int) -> None:
        from operators.ct.projectors.joseph_kernels import forward_views, pack_rows

        count = (0,) * lanes
        parts = 2 * torch.get_num_threads()
        layouts = self._layouts(lanes, images.dtype)
        (steep, steep_shape, _), (flat, flat_shape, _) = layouts
        padded = (steep_shape[2], flat_shape[2])
        _in_threads(
            pack_rows,
            ((images, steep, flat, padded, *span, lanes) for span in _spans(images.shape[1], parts)),
        )
        _in_threads(
            forward_views,
            (
                (
                    packed,
                    shape,
                    _block(shape[2] * lanes * packed.itemsize),
                    self._lines,
                    some,
                    sinograms,
                    count,
                )
                for packed, shape, fans in layouts
                for some in (fans[begin:end] for begin, end in _spans(len(fans), parts))
            ),
        )

    def _adjoint(self, sinograms: NDArray[Any], images: NDArray[Any], lanes: int) -> None:
        from operators.ct.projectors.joseph_kernels import adjoint_rows, pack_views, unpack_rows

        count = (0,) * lanes
        parts = 2 * torch.get_num_threads()
        rays = np.empty(sinograms.shape[1] * sinograms.shape[2] * lanes, sinograms.dtype)
        _in_threads(
            pack_views,
            ((sinograms, rays, self._lines[2], *span, lanes) for span in _spans(sinograms.shape[1], parts)),
        )
        layouts = self._layouts(lanes, sinograms.dtype)
        _in_threads(
            adjoint_rows,
            (
                (packed, shape, *span, self._lines, fans, rays, count)
                for packed, shape, fans in layouts
                for span in _spans(
                    shape[0], max(parts, shape[0] // _block(shape[2] * lanes * packed.itemsize))
                )
            ),
        )
        (steep, steep_shape, _), (flat, flat_shape, _) = layouts
        padded = (steep_shape[2], flat_shape[2])
        _in_threads(
            unpack_rows,
            ((images, steep, flat, padded, *span, lanes) for span in _spans(images.shape[1], parts)),
        )


def _groups(batch: Tensor) -> list[slice]:
    """Cut a batch into groups that are worked on at once: 16 images fill a 512-bit register."""
    size = batch.shape[0]
    return [slice(begin, min(begin + 16, size)) for begin in range(0, size, 16)]


def _lanes(images: int) -> int:
    """Return the smallest kernel that takes this many images."""
    return next(lanes for lanes in (1, 4, 8, 16) if lanes >= images)


def _block(row_bytes: int) -> int:
    """Return how many rows of a packed image fit into a core's own cache."""
    return max(16, _CACHE_BYTES // row_bytes)


def _array(tensor: Tensor) -> NDArray[Any]:
    """Return a contiguous numpy view, or copy: numpy copies in this thread, as it must after a fork."""
    if tensor.device.type != "cpu":
        raise ValueError(f'projector "joseph": expected a CPU tensor, found one on {tensor.device}')
    return np.ascontiguousarray(tensor.detach().numpy())
