"""Joseph's method on the CPU: interpolated line integrals and their exact transpose, many images at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from operators.ct.geometry import Float64Array, ImageGrid, ParallelBeam
from operators.ct.projectors.threads import in_threads, spans

_CACHE_BYTES = 1 << 19  # half of a core's own cache: rows that should stay there while many rays pass


def _lines(geometry: ParallelBeam, grid: ImageGrid) -> tuple[Float64Array, NDArray[np.bool_]]:
    """Return where each view's rays meet the pixels, shape (views, 4), and which views march along rows.

    The numbers are: padded column that the ray of bin 0 meets in row 0, columns per bin, columns per row, and
    mm of ray per row. For views that do not march along rows, read "row" for "column" and the reverse.
    """
    ray_x, ray_y, middle_x, middle_y, step_x, step_y = geometry.vectors().T
    half = (geometry.detector.bins - 1) / 2
    x, y = middle_x - half * step_x, middle_y - half * step_y
    columns, rows = grid.coordinates()
    wide, tall = grid.pixel_width, grid.pixel_height
    # The march that moves at most one pixel aside a step; a tie, to single precision, goes as it does in
    # ASTRA.
    steep = np.abs(ray_x) * tall < np.abs(ray_y) * wide * (1 - 1e-7)
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = np.where(steep, ray_x / ray_y, ray_y / ray_x)
    length = np.sqrt(1 + slope**2)
    along_rows = (
        (x - y * slope + rows[0] * slope - columns[0]) / wide + 1,
        (step_x - step_y * slope) / wide,
        -tall * slope / wide,
        tall * length,
    )
    along_columns = (
        (rows[0] - y + x * slope - columns[0] * slope) / tall + 1,
        (step_x * slope - step_y) / tall,
        -wide * slope / tall,
        wide * length,
    )
    lines = np.where(steep, along_rows, along_columns).T
    return np.ascontiguousarray(lines), steep


class JosephProjector:
    """Line integrals by linear interpolation between the two pixels beside a ray in every row or column.

    The weights are those of ASTRA's "linear" projector for square pixels; for others, the length of a step is
    that of the ray (Joseph, IEEE Trans. Med. Imaging 1(3), 1982). The adjoint is the exact transpose: it uses
    the same weights, bit for bit. Works in float32 or float64, on CPU tensors, in ``torch.get_num_threads()``
    threads.
    """

    dtypes = (torch.float32, torch.float64)

    def __init__(self, geometry: ParallelBeam, grid: ImageGrid) -> None:
        self.geometry, self.grid = geometry, grid
        self._table, steep = _lines(geometry, grid)
        self._steep, self._flat = np.flatnonzero(steep), np.flatnonzero(~steep)

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
        """Return (zeros, (rows, width, padded width), views) for the image and for its transpose."""
        height, width = self.grid.shape
        layouts = []
        for views, shape in ((self._steep, (height, width)), (self._flat, (width, height))):
            padded = shape[1] + 2
            # Rows that start at the same place of the cache push each other out of it.
            while lanes > 1 and not 128 <= padded * lanes * dtype.itemsize % 1024 <= 896:
                padded += 1
            layouts.append((np.zeros(shape[0] * padded * lanes, dtype), (*shape, padded), views))
        return layouts

    def _forward(self, images: NDArray[Any], sinograms: NDArray[Any], lanes: int) -> None:
        from operators.ct.projectors.joseph_kernels import forward_views, pack_rows

        count = (0,) * lanes
        parts = 2 * torch.get_num_threads()
        layouts = self._layouts(lanes, images.dtype)
        (steep, steep_shape, _), (flat, flat_shape, _) = layouts
        padded = (steep_shape[2], flat_shape[2])
        in_threads(
            pack_rows,
            ((images, steep, flat, padded, *span, lanes) for span in spans(images.shape[1], parts)),
        )
        in_threads(
            forward_views,
            (
                (
                    packed,
                    shape,
                    _block(shape[2] * lanes * packed.itemsize),
                    self._table,
                    some,
                    sinograms,
                    count,
                )
                for packed, shape, views in layouts
                for some in (views[begin:end] for begin, end in spans(views.size, parts))
            ),
        )

    def _adjoint(self, sinograms: NDArray[Any], images: NDArray[Any], lanes: int) -> None:
        from operators.ct.projectors.joseph_kernels import adjoint_rows, pack_views, unpack_rows

        count = (0,) * lanes
        parts = 2 * torch.get_num_threads()
        rays = np.empty(sinograms.shape[1] * sinograms.shape[2] * lanes, sinograms.dtype)
        table = self._table
        in_threads(
            pack_views, ((sinograms, rays, table, *span, lanes) for span in spans(sinograms.shape[1], parts))
        )
        layouts = self._layouts(lanes, sinograms.dtype)
        in_threads(
            adjoint_rows,
            (
                (packed, shape, *span, table, views, rays, count)
                for packed, shape, views in layouts
                for span in spans(
                    shape[0], max(parts, shape[0] // _block(shape[2] * lanes * packed.itemsize))
                )
            ),
        )
        (steep, steep_shape, _), (flat, flat_shape, _) = layouts
        padded = (steep_shape[2], flat_shape[2])
        in_threads(
            unpack_rows,
            ((images, steep, flat, padded, *span, lanes) for span in spans(images.shape[1], parts)),
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
