"""Joseph's method as a sparse matrix that is kept, for small scans in the plane."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from operators.ct.geometry import FanBeam, ImageGrid, ParallelBeam
from operators.ct.projectors.lines import marching_lines, runs
from operators.ct.projectors.threads import in_threads, spans

MOST_WEIGHTS = 50_000_000


class SparseProjector:
    """Line integrals by torch's products with the matrix of the scan and with its transpose, both kept.

    The weights are those of projector "joseph", so that values agree to rounding; the adjoint is the exact
    transpose. Both matrices are made at the first call for a dtype and a device, and stay as long as the
    engine lives: 16 bytes a weight in float32, 24 in float64. On a CPU the kernels of projector "joseph" read
    less memory and are faster; the matrix is exact on a GPU, in either precision, with nothing to compile.

    Raises
    ------
    ValueError
        For a scan of more than 50 million weights (256 x 256 pixels seen in 400 views have about 47
        million).
    """

    dtypes = (torch.float32, torch.float64)

    def __init__(self, geometry: ParallelBeam | FanBeam, grid: ImageGrid) -> None:
        from operators.ct.projectors.joseph_kernels import count_rows

        self.geometry, self.grid = geometry, grid
        self._lines, steep = marching_lines(geometry, grid)
        self._layouts = self._cut(runs(steep), runs(~steep))
        counts = np.zeros(geometry.sinogram_shape, dtype=np.int64)
        for shape, _, fans in self._layouts:
            count_rows(shape, self._lines, fans, counts)
        self._ends = np.concatenate(([0], np.cumsum(2 * counts)))
        self.weights = int(self._ends[-1])
        if self.weights > MOST_WEIGHTS:
            raise ValueError(
                f'projector "sparse": expected at most {MOST_WEIGHTS:,} weights, found {self.weights:,} for '
                f'{grid.describe()} and {geometry.describe()}; projector "joseph" keeps none'
            )
        self._kept: dict[tuple[torch.dtype, torch.device], tuple[Tensor, Tensor]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle by the settings; the matrices are made again."""
        return SparseProjector, (self.geometry, self.grid)

    def forward(self, images: Tensor) -> Tensor:
        """Images in 1/mm, (images, height, width), to line integrals (images, views, bins)."""
        return self._multiply(0, images, self.geometry.sinogram_shape)

    def adjoint(self, sinograms: Tensor) -> Tensor:
        """Transpose of forward: (images, views, bins) to (images, height, width)."""
        return self._multiply(1, sinograms, self.grid.shape)

    def working_memory(self, images: int, device: torch.device, itemsize: int) -> tuple[int, int, int]:
        """Return bytes beside input and output of forward and adjoint, and bytes kept between calls, at most.

        Of a single image or sinogram nothing is turned over. The first call needs half of what is kept beside
        it.
        """
        sizes = math.prod(self.grid.shape), math.prod(self.geometry.sinogram_shape)
        both = images * sum(sizes) * itemsize if images > 1 else 0
        kept = 2 * self.weights * (itemsize + 4) + 4 * (sum(sizes) + 2)
        tables = (*self._lines, self._ends, *(fans for _, _, fans in self._layouts))
        return both, both, kept + sum(table.nbytes for table in tables)

    def _multiply(self, which: int, batch: Tensor, shape: tuple[int, ...]) -> Tensor:
        if batch.device.type not in ("cpu", "cuda"):
            raise ValueError(
                f'projector "sparse": expected a CPU or CUDA tensor, found one on {batch.device}'
            )
        if batch.shape[0] == 0:
            return batch.new_empty((0, *shape))
        matrix = self._matrices(batch.dtype, batch.device)[which]
        rows = batch.detach().reshape(batch.shape[0], -1)
        if len(rows) == 1:
            # The product with a vector needs no memory; that with a matrix of one column would.
            return (matrix @ rows[0]).reshape(1, *shape)
        return (matrix @ rows.T.contiguous()).T.reshape(len(rows), *shape)

    def _matrices(self, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the matrix and its transpose."""
        if (dtype, device) not in self._kept:
            self._kept[dtype, device] = self._make(dtype, device)
        return self._kept[dtype, device]

    def _make(self, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
        from scipy.sparse import csr_array

        from operators.ct.projectors.joseph_kernels import list_weights

        values = np.empty(self.weights, np.float32 if dtype == torch.float32 else np.float64)
        pixels = np.empty(self.weights, np.int32)
        places = self._ends[:-1].reshape(self.geometry.sinogram_shape)
        parts = 2 * torch.get_num_threads()
        in_threads(
            list_weights,
            (
                (shape, steps, self._lines, fans[begin:end], places, pixels, values)
                for shape, steps, fans in self._layouts
                for begin, end in spans(len(fans), parts)
            ),
        )
        size = math.prod(self.geometry.sinogram_shape), math.prod(self.grid.shape)
        listed = csr_array((values, pixels, self._ends.astype(np.int32)), shape=size)
        listed.eliminate_zeros()
        # Turned over twice, the indices of every row are in order.
        transpose = listed.T.tocsr()
        return _csr(transpose.T.tocsr(), device), _csr(transpose, device)

    def _cut(
        self, steep: NDArray[np.int64], flat: NDArray[np.int64]
    ) -> list[tuple[tuple[int, int, int], tuple[int, int], NDArray[np.int64]]]:
        """Return shape, steps in pixels and fans of the image and of its transpose."""
        height, width = self.grid.shape
        return [
            ((height, width, width + 2), (width, 1), steep),
            ((width, height, height + 2), (1, width), flat),
        ]


def _csr(matrix: Any, device: torch.device) -> Tensor:
    rows, columns, values = (torch.from_numpy(part) for part in (matrix.indptr, matrix.indices, matrix.data))
    with warnings.catch_warnings():
        # torch says once that the interface of its sparse matrices may still change.
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
        return torch.sparse_csr_tensor(rows, columns, values, size=matrix.shape, check_invariants=True).to(
            device
        )
