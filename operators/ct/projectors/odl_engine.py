"""ODL as an engine: its ray transform on CPU, by ASTRA, image by image."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from operators.ct.geometry import FanBeam, ImageGrid, ParallelBeam
from operators.ct.projectors.odl_geometry import transform_to_odl


class OdlProjector:
    """Line integrals by ODL's `astra_cpu`, image by image in float32 on CPU, and their plain transpose.

    ODL's adjoint belongs to weighted inner products; the weights are taken out here. Its fans are ASTRA's
    `line_fanflat`; it refuses arcs when it computes, and casts double precision to single without a word.
    """

    dtypes = (torch.float32,)

    def __init__(self, geometry: ParallelBeam | FanBeam, grid: ImageGrid) -> None:
        self.geometry, self.grid = geometry, grid
        self._transform = transform_to_odl(geometry, grid)
        weights = self._transform.domain.weighting, self._transform.range.weighting
        self._unweight = float(weights[0].const) / float(weights[1].const)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle by the settings; ODL's spaces are made again."""
        return OdlProjector, (self.geometry, self.grid)

    def forward(self, images: Tensor) -> Tensor:
        """Images in 1/mm, (images, height, width), to line integrals (images, views, bins)."""
        return self._run(self._transform, images, self.geometry.sinogram_shape, 1.0)

    def adjoint(self, sinograms: Tensor) -> Tensor:
        """Transpose of forward: (images, views, bins) to (images, height, width)."""
        return self._run(self._transform.adjoint, sinograms, self.grid.shape, self._unweight)

    def working_memory(self, images: int, device: torch.device, itemsize: int) -> tuple[int, int, int]:
        """Return bytes beside input and output: two copies of what ODL makes of one image or sinogram."""
        sizes = math.prod(self.geometry.sinogram_shape), math.prod(self.grid.shape)
        return 2 * sizes[0] * itemsize, 2 * sizes[1] * itemsize, 0

    @staticmethod
    def _run(operator: Any, batch: Tensor, shape: tuple[int, ...], factor: float) -> Tensor:
        if batch.device.type != "cpu" or batch.dtype != torch.float32:
            raise ValueError(
                f'projector "odl": expected torch.float32 on cpu, found {batch.dtype} on {batch.device}'
            )
        result = torch.empty(batch.shape[0], *shape)
        for source, target in zip(batch.detach(), result, strict=True):
            element = operator.domain.element(np.ascontiguousarray(source.numpy()))
            target.numpy()[:] = factor * operator(element).asarray()
        return result
