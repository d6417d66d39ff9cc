"""ODL as an engine, and the way between ODL's geometries and ours.

ODL calls the first axis of an image x and the second y, both growing with the index; here rows go down in y
and columns go right in x. For the same array, ODL's angle is therefore larger by pi / 2, and everything else
agrees.
"""

from __future__ import annotations

import math
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

from operators.ct.geometry import Detector, Geometry, ImageGrid, ParallelBeam


def _odl() -> Any:
    """Import ODL, or say in one line what is missing."""
    try:
        return import_module("odl")
    except ImportError as error:
        raise ModuleNotFoundError(
            'projector "odl", and transforms to and from ODL, need the package odl, which is not installed: '
            "pip install odl astra-toolbox"
        ) from error


def geometry_from_odl(transform: Any) -> tuple[ParallelBeam, ImageGrid]:
    """Return the geometry and image grid of an ``odl.applications.tomo.RayTransform``.

    Lengths are taken as mm. Where the detector is not centred, the geometry's word is followed; ODL's own
    `astra_cpu` ignores it.

    Raises
    ------
    ValueError
        If the geometry is not a parallel beam in the plane with a flat, uniform detector that turns around
        the origin, or the pixels are not uniform.
    """
    _odl()
    tomo = import_module("odl.applications.tomo")

    if not isinstance(transform, tomo.RayTransform):
        raise ValueError(
            f"from_odl: expected an odl.applications.tomo.RayTransform, found {type(transform).__name__}"
        )
    odl_geometry, partition = transform.geometry, transform.domain.partition
    if not isinstance(odl_geometry, tomo.Parallel2dGeometry):
        raise ValueError(f"from_odl: expected a Parallel2dGeometry, found {type(odl_geometry).__name__}")
    bins = odl_geometry.det_partition
    if not (bins.is_uniform and partition.is_uniform):
        raise ValueError("from_odl: expected a uniform detector and uniform pixels, found others")
    if any(np.ravel(part.nodes_on_bdry).any() for part in (bins, partition)):
        raise ValueError("from_odl: expected nodes in the middle of cells, found nodes on the boundary")
    axis = np.asarray(odl_geometry.det_axis_init, dtype=float)
    beside = float(np.dot(odl_geometry.det_pos_init, axis))
    if np.any(odl_geometry.translation) or abs(beside) > 1e-9:
        raise ValueError("from_odl: expected a detector that turns around the origin, found a translated one")

    start = math.atan2(axis[1], axis[0]) - math.pi / 2
    low, high = float(bins.min_pt[0]), float(bins.max_pt[0])
    detector = Detector(int(bins.size), (high - low) / int(bins.size), (low + high) / 2)
    geometry = ParallelBeam(np.atleast_1d(odl_geometry.angles) + start, detector)
    (tall, wide), (bottom, left), (top, right) = partition.cell_sides, partition.min_pt, partition.max_pt
    center = (float(left + right) / 2, 0.0 - float(bottom + top) / 2)
    return geometry, ImageGrid(partition.shape, (float(tall), float(wide)), center)


def transform_to_odl(geometry: Geometry, grid: ImageGrid) -> Any:
    """Return the ``odl.applications.tomo.RayTransform`` (float32 numpy spaces, impl `astra_cpu`) of a scan.

    Raises
    ------
    ValueError
        If the geometry is no ParallelBeam, the detector is not centred, the pixels are not square (ODL's
        `astra_cpu` computes both wrongly), or the angles do not grow from view to view.
    """
    odl = _odl()
    tomo = import_module("odl.applications.tomo")

    if not isinstance(geometry, ParallelBeam):
        raise ValueError(f"to_odl: expected a ParallelBeam, found {geometry.describe()}")
    detector, angles = geometry.detector, geometry.angles + math.pi / 2
    if abs(detector.offset) > 1e-6 * detector.pitch:
        raise ValueError(f"to_odl: expected a centred detector, found offset {detector.offset:g} mm")
    if not grid.square_pixels:
        raise ValueError(
            f"to_odl: expected square pixels, found {grid.pixel_height:g} x {grid.pixel_width:g} mm"
        )
    steps = np.diff(angles)
    if np.any(steps <= 0):
        raise ValueError(
            "to_odl: expected angles that grow from view to view; geometry.subset(order) sorts them"
        )
    if steps.size and not np.allclose(steps, steps.mean(), rtol=1e-6, atol=0):
        views = odl.nonuniform_partition(angles)
    else:
        half = float(steps.mean()) / 2 if steps.size else math.pi / 2
        views = odl.uniform_partition(angles[0] - half, angles[-1] + half, angles.size)
    reach = detector.bins * detector.pitch / 2
    left, right, bottom, top = grid.extent
    space = odl.uniform_discr([-top, left], [-bottom, right], grid.shape, dtype="float32")
    odl_geometry = tomo.Parallel2dGeometry(views, odl.uniform_partition(-reach, reach, detector.bins))
    return tomo.RayTransform(space, odl_geometry, impl="astra_cpu")


class OdlProjector:
    """Line integrals by ODL's `astra_cpu`, image by image in float32 on CPU, and their plain transpose.

    ODL's adjoint belongs to weighted inner products; the weights are taken out here.
    """

    dtypes = (torch.float32,)

    def __init__(self, geometry: ParallelBeam, grid: ImageGrid) -> None:
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
