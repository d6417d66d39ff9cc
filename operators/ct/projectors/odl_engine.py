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

from operators.ct.geometry import Detector, FanBeam, Float64Array, Geometry, ImageGrid, ParallelBeam


def _odl() -> Any:
    """Import ODL, or say in one line what is missing."""
    try:
        return import_module("odl")
    except ImportError as error:
        raise ModuleNotFoundError(
            'projector "odl", and transforms to and from ODL, need the package odl, which is not installed: '
            "pip install odl astra-toolbox"
        ) from error


def geometry_from_odl(transform: Any) -> tuple[ParallelBeam | FanBeam, ImageGrid]:
    """Return the geometry and image grid of an ``odl.applications.tomo.RayTransform``.

    Lengths are taken as mm. Where the detector of a parallel beam is not centred, the geometry's word is
    followed; ODL's own `astra_cpu` ignores it there, and follows it for fans.

    Raises
    ------
    ValueError
        If the geometry is neither a parallel beam in the plane with a flat, uniform detector that turns
        around the origin, nor a fan beam with a uniform detector that is flat or an arc around the source, or
        the pixels are not uniform.
    """
    _odl()
    tomo = import_module("odl.applications.tomo")

    if not isinstance(transform, tomo.RayTransform):
        raise ValueError(
            f"from_odl: expected an odl.applications.tomo.RayTransform, found {type(transform).__name__}"
        )
    odl_geometry, partition = transform.geometry, transform.domain.partition
    if not isinstance(odl_geometry, tomo.Parallel2dGeometry | tomo.FanBeamGeometry):
        raise ValueError(
            "from_odl: expected a Parallel2dGeometry or a FanBeamGeometry, found "
            f"{type(odl_geometry).__name__}"
        )
    bins = odl_geometry.det_partition
    if not (bins.is_uniform and partition.is_uniform):
        raise ValueError("from_odl: expected a uniform detector and uniform pixels, found others")
    if any(np.ravel(part.nodes_on_bdry).any() for part in (bins, partition)):
        raise ValueError("from_odl: expected nodes in the middle of cells, found nodes on the boundary")
    is_fan = isinstance(odl_geometry, tomo.FanBeamGeometry)
    geometry = _fan_from_odl(odl_geometry) if is_fan else _parallel_from_odl(odl_geometry)
    (tall, wide), (bottom, left), (top, right) = partition.cell_sides, partition.min_pt, partition.max_pt
    center = (float(left + right) / 2, 0.0 - float(bottom + top) / 2)
    return geometry, ImageGrid(partition.shape, (float(tall), float(wide)), center)


def _parallel_from_odl(odl_geometry: Any) -> ParallelBeam:
    axis = np.asarray(odl_geometry.det_axis_init, dtype=float)
    beside = float(np.dot(odl_geometry.det_pos_init, axis))
    if np.any(odl_geometry.translation) or abs(beside) > 1e-9:
        raise ValueError("from_odl: expected a detector that turns around the origin, found a translated one")
    start = math.atan2(axis[1], axis[0]) - math.pi / 2
    bins = odl_geometry.det_partition
    detector = Detector(int(bins.size), float(bins.cell_sides[0]), float(bins.mid_pt[0]))
    return ParallelBeam(np.atleast_1d(odl_geometry.angles) + start, detector)


def _fan_from_odl(odl_geometry: Any) -> FanBeam:
    distance, arc = odl_geometry.src_radius + odl_geometry.det_radius, odl_geometry.det_curvature_radius
    if arc is not None and not math.isclose(arc, distance, rel_tol=1e-6):
        raise ValueError(
            f"from_odl: expected an arc around the source, of radius {distance:g} mm, found radius {arc:g} mm"
        )
    angles, bins = np.atleast_1d(odl_geometry.angles), odl_geometry.det_partition
    middle = float(bins.mid_pt[0])
    source, screen = odl_geometry.src_position(angles), odl_geometry.det_point_position(angles, middle)
    along = odl_geometry.det_axis(angles)
    if arc is not None:
        # ODL gives the bins of an arc by their angle, and their direction where that is zero.
        along = along - np.sin(middle) * (screen - source) / distance
    unit = 1.0 if arc is None else distance
    detector = Detector(
        int(bins.size), unit * float(bins.cell_sides[0]), unit * middle, curved=arc is not None
    )
    step = detector.pitch * along / np.linalg.norm(along, axis=1, keepdims=True)
    return FanBeam(np.concatenate([_turned(v) for v in (source, screen, step)], axis=1), detector)


def _turned(points: Any) -> Any:
    """Return ODL's (x, y) as ours, (y, -x)."""
    points = np.atleast_2d(points)
    return np.stack((points[:, 1], -points[:, 0]), axis=1)


def transform_to_odl(geometry: Geometry, grid: ImageGrid) -> Any:
    """Return the ``odl.applications.tomo.RayTransform`` (float32 numpy spaces, impl `astra_cpu`) of a scan.

    Raises
    ------
    ValueError
        If the geometry is neither a ParallelBeam nor a FanBeam with its source on a circle about the axis
        before a flat detector at right angles, the detector of a parallel beam is not centred or the pixels
        are not square (ODL's `astra_cpu` computes these wrongly), or the angles do not grow from view to
        view.
    """
    odl = _odl()
    tomo = import_module("odl.applications.tomo")

    if not grid.square_pixels:
        raise ValueError(
            f"to_odl: expected square pixels, found {grid.pixel_height:g} x {grid.pixel_width:g} mm"
        )
    if isinstance(geometry, ParallelBeam):
        detector = geometry.detector
        if abs(detector.offset) > 1e-6 * detector.pitch:
            raise ValueError(f"to_odl: expected a centred detector, found offset {detector.offset:g} mm")
        odl_geometry = tomo.Parallel2dGeometry(_odl_angles(geometry.angles), _odl_bins(detector))
    elif isinstance(geometry, FanBeam):
        angles = np.unwrap(geometry.angles)
        radius, behind, detector = _circle(geometry)
        odl_geometry = tomo.FanBeamGeometry(
            _odl_angles(angles), _odl_bins(detector), src_radius=radius, det_radius=behind
        )
    else:
        raise ValueError(f"to_odl: expected a ParallelBeam or a FanBeam, found {geometry.describe()}")
    left, right, bottom, top = grid.extent
    space = odl.uniform_discr([-top, left], [-bottom, right], grid.shape, dtype="float32")
    return tomo.RayTransform(space, odl_geometry, impl="astra_cpu")


def _odl_angles(angles: Float64Array) -> Any:
    """Return ODL's partition of the angles, which are larger there."""
    odl = _odl()
    angles = angles + math.pi / 2
    steps = np.diff(angles)
    if np.any(steps <= 0):
        raise ValueError(
            "to_odl: expected angles that grow from view to view; geometry.subset(order) sorts them"
        )
    if steps.size and not np.allclose(steps, steps.mean(), rtol=1e-6, atol=0):
        return odl.nonuniform_partition(angles)
    half = float(steps.mean()) / 2 if steps.size else math.pi / 2
    return odl.uniform_partition(angles[0] - half, angles[-1] + half, angles.size)


def _odl_bins(detector: Detector) -> Any:
    reach = detector.bins * detector.pitch / 2
    return _odl().uniform_partition(detector.offset - reach, detector.offset + reach, detector.bins)


def _circle(geometry: FanBeam) -> tuple[float, float, Detector]:
    """Return the distances of source and detector from the axis, and the detector with its true offset."""
    source, middle, step = (geometry.vectors()[:, i : i + 2] for i in (0, 2, 4))
    radius = float(np.linalg.norm(source[0]))
    pitch = float(np.linalg.norm(step[0]))
    behind = float(-(middle[0] @ source[0]) / radius)
    detector = Detector(geometry.detector.bins, pitch, float(middle[0] @ step[0]) / pitch)
    if not geometry.detector.curved and behind > 0:
        circle = FanBeam.circular(
            angles=geometry.angles,
            source_to_axis=radius,
            source_to_detector=radius + behind,
            detector=detector,
        )
        if np.allclose(circle.vectors(), geometry.vectors(), rtol=0, atol=1e-6 * pitch):
            return radius, behind, detector
    raise ValueError(
        "to_odl: expected a source on a circle about the axis before a flat detector at right angles, found "
        f"{geometry.describe()}"
    )


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
