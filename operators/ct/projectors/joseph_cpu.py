"""Joseph's method on the CPU: interpolated line integrals and their exact transpose, many images at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from operators.ct.geometry import FanBeam, ImageGrid, ParallelBeam
from operators.ct.projectors.batches import as_array, groups, lane_count
from operators.ct.projectors.lines import VIEWS_TOGETHER, marching_lines, runs
from operators.ct.projectors.threads import in_threads, spans

_NAME = 'projector "joseph"'
_CACHE_BYTES = 1 << 19  # half of a core's own cache: rows that should stay there while many rays pass


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
        self._lines, steep = marching_lines(geometry, grid)
        self._steep, self._flat = runs(steep), runs(~steep)

    def forward(self, images: Tensor) -> Tensor:
        """Images in 1/mm, (images, height, width), to line integrals (images, views, bins)."""
        sinograms = torch.empty(images.shape[0], *self.geometry.sinogram_shape, dtype=images.dtype)
        for part in groups(images.shape[0]):
            lanes = lane_count(part.stop - part.start)
            self._forward(as_array(images[part], _NAME), sinograms[part].numpy(), lanes)
        return sinograms

    def adjoint(self, sinograms: Tensor) -> Tensor:
        """Transpose of forward: (images, views, bins) to (images, height, width)."""
        images = torch.empty(sinograms.shape[0], *self.grid.shape, dtype=sinograms.dtype)
        for part in groups(sinograms.shape[0]):
            lanes = lane_count(part.stop - part.start)
            self._adjoint(as_array(sinograms[part], _NAME), images[part].numpy(), lanes)
        return images

    def working_memory(self, images: int, device: torch.device, itemsize: int) -> tuple[int, int, int]:
        """Return bytes beside input and output of forward and adjoint, and bytes kept between calls."""
        lanes = lane_count(min(images, 16))
        views, bins = self.geometry.sinogram_shape
        packed = sum(
            rows * padded * lanes * itemsize for rows, _, padded in self._packed_shapes(lanes, itemsize)
        )
        sums = torch.get_num_threads() * VIEWS_TOGETHER * bins * lanes * itemsize
        kept = sum(part.nbytes for part in (*self._lines, self._steep, self._flat))
        return packed + sums, packed + views * bins * lanes * itemsize, kept

    def _packed_shapes(self, lanes: int, itemsize: int) -> list[tuple[int, int, int]]:
        """Return rows, width and padded width of the packed image and of its transpose."""
        shapes = []
        for rows, width in (self.grid.shape, self.grid.shape[::-1]):
            padded = width + 2
            # Rows that start at the same place of the cache push each other out of it.
            while lanes > 1 and not 128 <= padded * lanes * itemsize % 1024 <= 896:
                padded += 1
            shapes.append((rows, width, padded))
        return shapes

    def _layouts(self, lanes: int, dtype: Any) -> list[tuple[NDArray[Any], tuple[int, int, int], Any]]:
        """Return (zeros, (rows, width, padded width), fans) for the image and for its transpose."""
        return [
            (np.zeros(shape[0] * shape[2] * lanes, dtype), shape, fans)
            for shape, fans in zip(
                self._packed_shapes(lanes, dtype.itemsize), (self._steep, self._flat), strict=True
            )
        ]

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
                    self._lines,
                    some,
                    sinograms,
                    count,
                )
                for packed, shape, fans in layouts
                for some in (fans[begin:end] for begin, end in spans(len(fans), parts))
            ),
        )

    def _adjoint(self, sinograms: NDArray[Any], images: NDArray[Any], lanes: int) -> None:
        from operators.ct.projectors.joseph_kernels import adjoint_rows, pack_views, unpack_rows

        count = (0,) * lanes
        parts = 2 * torch.get_num_threads()
        rays = np.empty(sinograms.shape[1] * sinograms.shape[2] * lanes, sinograms.dtype)
        in_threads(
            pack_views,
            ((sinograms, rays, self._lines[2], *span, lanes) for span in spans(sinograms.shape[1], parts)),
        )
        layouts = self._layouts(lanes, sinograms.dtype)
        in_threads(
            adjoint_rows,
            (
                (packed, shape, *span, self._lines, fans, rays, count)
                for packed, shape, fans in layouts
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


def _block(row_bytes: int) -> int:
    """Return how many rows of a packed image fit into a core's own cache."""
    return max(16, _CACHE_BYTES // row_bytes)
