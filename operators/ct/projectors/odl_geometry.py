"""ODL's ray transforms as our geometry and grid, and back."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from operators.ct.geometry import Detector, FanBeam, Geometry, ImageGrid, ParallelBeam
from operators.ct.projectors.odl_library import from_odl_axes, import_odl, import_tomo, odl_angles
from operators.ct.projectors.odl_space import space_from_odl, space_to_odl


def geometry_from_odl(transform: Any) -> tuple[Geometry, ImageGrid]:
    """Return the geometry and image grid of an ``odl.applications.tomo.RayTransform``.

    Lengths are taken as mm. Where the detector of a parallel beam in the plane is not centred, the geometry's
    word is followed; ODL's own `astra_cpu` ignores it there, and follows it for fans.

    In space our volume is ODL's with its third axis, z, first, and our sinogram is ODL's with rows before
    bins: ``ours == theirs.transpose(2, 0, 1)`` and ``ours == theirs.transpose(0, 2, 1)``.

    Raises
    ------
    ValueError
        If the geometry is none of ``Parallel2dGeometry`` with a detector that turns around the origin,
        ``FanBeamGeometry``, ``Parallel3dAxisGeometry`` and ``ConeBeamGeometry``, a curved detector is no arc
        around the source, or bins or pixels are not uniform.
    """
    tomo = import_tomo()

    if not isinstance(transform, tomo.RayTransform):
        raise ValueError(
            f"from_odl: expected an odl.applications.tomo.RayTransform, found {type(transform).__name__}"
        )
    odl_geometry, partition = transform.geometry, transform.domain.partition
    known: dict[Any, Callable[[Any], Geometry]] = {
        tomo.Parallel2dGeometry: _parallel_from_odl,
        tomo.FanBeamGeometry: _fan_from_odl,
        tomo.Parallel3dAxisGeometry: space_from_odl,
        tomo.ConeBeamGeometry: space_from_odl,
    }
    if type(odl_geometry) not in known:
        names = ", ".join(kind.__name__ for kind in known)
        raise ValueError(f"from_odl: expected one of {names}, found {type(odl_geometry).__name__}")
    bins = odl_geometry.det_partition
    if not (bins.is_uniform and partition.is_uniform):
        raise ValueError("from_odl: expected a uniform detector and uniform pixels, found others")
    if any(np.ravel(part.nodes_on_bdry).any() for part in (bins, partition)):
        raise ValueError("from_odl: expected nodes in the middle of cells, found nodes on the boundary")
    geometry = known[type(odl_geometry)](odl_geometry)
    (tall, wide), (bottom, left), (top, right) = (
        values[:2] for values in (partition.cell_sides, partition.min_pt, partition.max_pt)
    )
    size, center = (float(tall), float(wide)), (float(left + right) / 2, 0.0 - float(bottom + top) / 2)
    if geometry.dimensions == 2:
        return geometry, ImageGrid(partition.shape, size, center)
    height, width, depth = partition.shape
    middle = float(partition.min_pt[2] + partition.max_pt[2]) / 2
    thick = float(partition.cell_sides[2])
    return geometry, ImageGrid((depth, height, width), (thick, *size), (*center, middle))


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
    return FanBeam(np.concatenate([from_odl_axes(v) for v in (source, screen, step)], axis=1), detector)


def transform_to_odl(geometry: Geometry, grid: ImageGrid) -> Any:
    """Return the ``odl.applications.tomo.RayTransform`` (float32 numpy spaces) of a scan.

    The reverse of `geometry_from_odl`. In the plane it computes with `astra_cpu`. In space ODL computes with
    CUDA only, and knows `astra_cuda` only where ASTRA has it; elsewhere the transform says which scan it is,
    and ODL refuses to apply it.

    Raises
    ------
    ValueError
        In the plane, for a fan whose source is not on a circle about the axis before a flat detector at right
        angles, and, because ODL's `astra_cpu` computes these wrongly, for a parallel beam whose detector is
        not centred and pixels that are not square. In space, for source and detector that do not turn about
        the z axis as one. For angles that do not grow from view to view.
    """
    odl, tomo = import_odl(), import_tomo()
    left, right, bottom, top = grid.extent[:4]
    corners = [-top, left, *grid.extent[4::2]], [-bottom, right, *grid.extent[5::2]]
    space = odl.uniform_discr(*corners, (*grid.shape[-2:], *grid.shape[:-2]), dtype="float32")
    if geometry.dimensions == 3:
        able = "astra_cuda" in tomo.operators.ray_trafo.RAY_TRAFO_IMPLS
        return tomo.RayTransform(space, space_to_odl(geometry), impl="astra_cuda" if able else "astra_cpu")
    if not grid.square_pixels:
        raise ValueError(
            f"to_odl: expected square pixels, found {grid.pixel_height:g} x {grid.pixel_width:g} mm"
        )
    if isinstance(geometry, ParallelBeam):
        detector = geometry.detector
        if abs(detector.offset) > 1e-6 * detector.pitch:
            raise ValueError(f"to_odl: expected a centred detector, found offset {detector.offset:g} mm")
        odl_geometry = tomo.Parallel2dGeometry(odl_angles(geometry.angles), _odl_bins(detector))
    elif isinstance(geometry, FanBeam):
        angles = np.unwrap(geometry.angles)
        radius, behind, detector = _circle(geometry)
        odl_geometry = tomo.FanBeamGeometry(
            odl_angles(angles), _odl_bins(detector), src_radius=radius, det_radius=behind
        )
    else:
        raise ValueError(f"to_odl: expected a geometry of this package, found {type(geometry).__name__}")
    return tomo.RayTransform(space, odl_geometry, impl="astra_cpu")


def _odl_bins(detector: Detector) -> Any:
    reach = detector.bins * detector.pitch / 2
    return import_odl().uniform_partition(detector.offset - reach, detector.offset + reach, detector.bins)


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
