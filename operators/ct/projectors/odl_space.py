"""ODL's scans in space as ours, and back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from operators.ct.geometry import (
    ConeBeam,
    Detector,
    Float64Array,
    Geometry,
    HelicalConeBeam,
    ParallelBeam3D,
)
from operators.ct.projectors.odl_library import (
    from_odl_axes,
    import_odl,
    import_tomo,
    odl_angles,
    to_odl_axes,
)

SpaceGeometry = ParallelBeam3D | ConeBeam | HelicalConeBeam

# Lengths that agree to this part of the largest are the same.
_CLOSE = 1e-6


def space_from_odl(odl_geometry: Any) -> SpaceGeometry:
    """Return the scan of a ``Parallel3dAxisGeometry`` or a ``ConeBeamGeometry``.

    One with a pitch is a HelicalConeBeam, unless its axis is not z, its detector leans or something is
    shifted: then a ConeBeam.

    Raises
    ------
    ValueError
        For a curved detector that is not a cylinder around the source.
    """
    tomo = import_tomo()
    angles, bins = np.atleast_1d(odl_geometry.angles), odl_geometry.det_partition
    middle = bins.mid_pt
    screen = odl_geometry.det_point_position(angles, middle)
    parallel = isinstance(odl_geometry, tomo.Parallel3dAxisGeometry)
    # On a cylinder the first parameter is an angle, and the derivative as long as the radius.
    turn = np.asarray(odl_geometry.rotation_matrix(angles)).reshape(-1, 3, 3)
    along, across = (
        turn @ step * side
        for step, side in zip(odl_geometry.detector.surface_deriv(middle), bins.cell_sides, strict=True)
    )
    rays = -odl_geometry.det_to_src(angles, middle) if parallel else odl_geometry.src_position(angles)
    rays = np.atleast_2d(rays)
    if parallel:
        # Rays have no sense, and a detector may stand anywhere along them.
        rays = rays * np.sign((np.cross(along, across) * rays).sum(axis=1, keepdims=True))
        unit = rays / np.linalg.norm(rays, axis=1, keepdims=True)
        screen = screen - (screen * unit).sum(axis=1, keepdims=True) * unit
    vectors = np.concatenate([from_odl_axes(part) for part in (rays, screen, along, across)], axis=1)
    shape = (int(bins.shape[1]), int(bins.shape[0]))
    if parallel:
        return ParallelBeam3D.from_vectors(vectors, shape)
    curved = odl_geometry.det_curvature_radius
    if curved is not None:
        if isinstance(odl_geometry.detector, tomo.SphericalDetector):
            raise ValueError("from_odl: expected a flat or a cylindrical detector, found a spherical one")
        vectors = np.concatenate((vectors, np.full((len(vectors), 1), float(curved))), axis=1)
    cone = ConeBeam.from_vectors(vectors, shape)
    if not odl_geometry.pitch:
        return cone
    helix = _helix(odl_geometry, cone)
    return helix if _same(helix.vectors(), cone.vectors()) else cone


def _helix(odl_geometry: Any, cone: ConeBeam) -> HelicalConeBeam:
    """Return the helix that ODL's numbers describe when nothing else moves."""
    angles = np.atleast_1d(odl_geometry.angles)
    distance = odl_geometry.src_radius + odl_geometry.det_radius
    across, along = odl_geometry.det_partition.mid_pt[::-1]
    detector = cone.detector
    return HelicalConeBeam(
        cone.angles[0] + angles - angles[0],
        source_to_axis=odl_geometry.src_radius,
        source_to_detector=distance,
        detector=Detector(
            (detector.rows or 1, detector.bins),
            (detector.row_pitch, detector.pitch),
            (float(across), float(along) * (distance if detector.curved else 1.0)),
            curved=detector.curved,
        ),
        pitch=odl_geometry.pitch,
        z_start=float(cone.sources[0, 2]),
    )


def space_to_odl(geometry: Geometry) -> Any:
    """Return ODL's geometry of a scan in space.

    Raises
    ------
    ValueError
        If the scan does not turn about the z axis as a whole, climbing evenly or not at all, or the angles do
        not grow from view to view.
    """
    tomo = import_tomo()
    if not isinstance(geometry, SpaceGeometry):
        raise ValueError(f"to_odl: expected a geometry of this package, found {type(geometry).__name__}")
    vectors, detector = geometry.vectors(), geometry.detector
    angles = np.asarray(geometry.angles)
    partition = odl_angles(angles)
    start, middle, along, across = (
        _turned_back(to_odl_axes(vectors[:1, i : i + 3])[0], angles[0]) for i in (0, 3, 6, 9)
    )
    along, across = along / np.linalg.norm(along), across / np.linalg.norm(across)
    if isinstance(geometry, ParallelBeam3D):
        offset, row_offset, _ = np.linalg.solve(np.stack((along, across, start), axis=1), middle)
        made = tomo.Parallel3dAxisGeometry(
            partition,
            _panel(detector, offset, row_offset, 1.0),
            det_pos_init=(0, 0, 0),
            det_axes_init=(along, across),
        )
    else:
        reach, radius = middle - start, math.hypot(start[0], start[1])
        forward = np.array((-start[0], -start[1], 0.0)) / radius
        unit, curvature = 1.0, None
        if detector.curved:
            unit = float(vectors[0, 12])
            aside = np.cross(forward, (0.0, 0.0, 1.0))
            offset = unit * math.atan2(reach @ aside, reach @ forward)
            along, distance, row_offset = aside, unit, reach @ across
            curvature = (unit, None)
        else:
            offset, row_offset, distance = np.linalg.solve(np.stack((along, across, forward), axis=1), reach)
        heights = vectors[:, 2]
        turns = (angles - angles[0]) / (2 * math.pi)
        pitch = float((heights[-1] - heights[0]) / turns[-1]) if len(turns) > 1 else 0.0
        made = tomo.ConeBeamGeometry(
            partition,
            _panel(detector, offset, row_offset, unit),
            src_radius=radius,
            det_radius=distance - radius,
            det_curvature_radius=curvature,
            pitch=pitch,
            offset_along_axis=float(heights[0]) - pitch * (angles[0] + math.pi / 2) / (2 * math.pi),
            src_to_det_init=forward,
            det_axes_init=(along, across),
        )
    if not _same(space_from_odl(made).vectors(), _standing(geometry, vectors)):
        raise ValueError(
            "to_odl: expected source and detector to turn about the z axis as one, climbing evenly or not at "
            f"all, found {geometry.describe()}"
        )
    return made


def _turned_back(point: Float64Array, angle: float) -> Float64Array:
    """Return where a point of ODL is before ODL turns it to one of our angles."""
    cosine, sine = math.cos(angle + math.pi / 2), math.sin(angle + math.pi / 2)
    return np.array((cosine * point[0] + sine * point[1], cosine * point[1] - sine * point[0], point[2]))


def _panel(detector: Detector, offset: float, row_offset: float, unit: float) -> Any:
    """Return ODL's partition of a detector, bins before rows; along an arc in parts of its radius."""
    rows, bins = detector.shape
    middle = np.array((offset / unit, row_offset))
    reach = np.array((bins * detector.pitch / unit, rows * detector.row_pitch)) / 2
    return import_odl().uniform_partition(middle - reach, middle + reach, (bins, rows))


def _standing(geometry: SpaceGeometry, vectors: Float64Array) -> Float64Array:
    """Return the numbers with the detector of parallel rays where `space_from_odl` puts it."""
    if isinstance(geometry, ParallelBeam3D):
        rays = vectors[:, 0:3]
        vectors = vectors.copy()
        vectors[:, 3:6] -= (vectors[:, 3:6] * rays).sum(axis=1, keepdims=True) * rays
    return vectors


def _same(one: Float64Array, other: Float64Array) -> bool:
    return one.shape == other.shape and bool(
        np.allclose(one, other, rtol=0, atol=_CLOSE * np.abs(other).max())
    )
