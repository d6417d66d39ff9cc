"""ODL's scans in space and ours: the same rays, one by one, and the way back; ODL computes on CUDA only."""

from __future__ import annotations

import math
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch

from operators import (
    ConeBeam,
    Detector,
    HelicalConeBeam,
    ImageGrid,
    ParallelBeam3D,
    RayTransform,
)
from operators.ct.projectors.odl_geometry import geometry_from_odl

PANEL = Detector((5, 8), (1.3, 1.1), (0.4, -0.6))
ARC = Detector((5, 8), (1.3, 1.1), (0.4, -0.6), curved=True)
FAR: dict[str, Any] = {"source_to_axis": 30.0, "source_to_detector": 45.0}
GRID = ImageGrid((3, 4, 5), (1.5, 0.9, 1.1), center=(1.0, -2.0, 0.5))

SCANS = {
    "parallel": ParallelBeam3D.uniform(4, PANEL, start=0.2),
    "laminography": ParallelBeam3D.uniform(5, PANEL, start=0.2, tilt=0.5),
    "one view": ParallelBeam3D([0.4], PANEL),
    "cone": ConeBeam.circular(5, detector=PANEL, **FAR),
    "cone leaning": ConeBeam.circular(5, detector=PANEL, rotation=0.1, tilt=0.2, **FAR),
    "cone curved": ConeBeam.circular(5, detector=ARC, **FAR),
    "cone uneven": ConeBeam.circular(angles=[0.1, 0.3, 0.9, 1.0], detector=PANEL, **FAR),
    "helix": HelicalConeBeam.uniform(9, 2, detector=PANEL, pitch=3.0, z_start=-2.0, start=0.3, **FAR),
    "helix curved": HelicalConeBeam.uniform(9, 2, detector=ARC, pitch=-3.0, **FAR),
}


def odl_transform(kind: str, bins: Any = ((-6, -3), (8, 4)), **settings: Any) -> Any:
    odl, tomo = import_module("odl"), import_module("odl.applications.tomo")
    space = odl.uniform_discr([-2, -1, -3], [2, 3, 4], (4, 5, 6), dtype="float32")
    geometry = getattr(tomo, kind)(
        odl.uniform_partition(0, 4 * math.pi, 13), odl.uniform_partition(*bins, (8, 7)), **settings
    )
    return tomo.RayTransform(space, geometry, impl="astra_cpu")


def ours_from(points: Any) -> np.ndarray:
    """ODL's (x, y, z) as ours, by the definition: rows of both arrays are the same places."""
    x, y, z = np.moveaxis(np.asarray(points), -1, 0)
    return np.stack((y, -x, z), axis=-1)


def places(transform: RayTransform) -> np.ndarray:
    """Every bin of every view of our transform, (views, rows, bins, 3), by its vectors."""
    geometry: Any = transform.geometry
    rows, bins = geometry.detector.shape
    numbers = geometry.vectors()[:, None, None, :]
    j = (np.arange(rows) - (rows - 1) / 2)[None, :, None, None]
    k = (np.arange(bins) - (bins - 1) / 2)[None, None, :, None]
    middle, along, across = (numbers[..., i : i + 3] for i in (3, 6, 9))
    if numbers.shape[-1] == 12:
        return middle + k * along + j * across
    source, radius = numbers[..., 0:3], numbers[..., 12:]
    unit = across / np.linalg.norm(across, axis=-1, keepdims=True)
    reach = middle - source
    level = (reach * unit).sum(-1, keepdims=True) * unit
    turn = k * np.linalg.norm(along, axis=-1, keepdims=True) / radius
    sideways = along / np.linalg.norm(along, axis=-1, keepdims=True)
    arc = np.cos(turn) * (reach - level) + radius * np.sin(turn) * sideways
    return source + level + arc + j * across


DIVERGING: dict[str, dict[str, Any]] = {
    "plain": {},
    "helix": {"pitch": 5.0, "offset_along_axis": -1.0},
    "helix of an arc": {
        "pitch": 5.0,
        "det_curvature_radius": (90, None),
        "bins": ((-0.06, -3), (0.08, 4)),
    },
    "translated helix": {"pitch": 5.0, "translation": (1, 2, 3)},
    "another axis": {"axis": (0.6, 0.0, 0.8)},
    "leaning": {"det_axes_init": ((1, 0, 0), (0, 0.3, 0.9))},
    "shifting detector": {"det_shift_func": lambda angle: np.full((np.size(angle), 3), (0.0, 0.4, -0.7))},
}


@pytest.mark.parametrize("name", DIVERGING)
def test_cones_have_odls_sources_and_bins(name: str) -> None:
    theirs = odl_transform("ConeBeamGeometry", src_radius=50, det_radius=40, **DIVERGING[name])
    ours = RayTransform.from_odl(theirs)
    assert isinstance(ours.geometry, HelicalConeBeam) == (name in ("helix", "helix of an arc"))
    geometry, angles = theirs.geometry, theirs.geometry.angles
    np.testing.assert_allclose(
        ours.geometry.sources, ours_from(geometry.src_position(angles)), rtol=0, atol=1e-9
    )
    u, v = (axis.ravel() for axis in geometry.det_partition.meshgrid)
    expected = np.array(
        [[[geometry.det_point_position(a, (p, q)) for p in u] for q in v] for a in angles]
    )  # rows before bins
    np.testing.assert_allclose(places(ours), ours_from(expected), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"translation": (1, -2, 3)},
        {"det_pos_init": (0, 1, 0.5), "det_axes_init": ((1, 0, 0), (0, -0.3, 0.9))},
        {"axis": (0.6, 0.0, 0.8)},
    ],
    ids=["plain", "translated", "laminography", "another axis"],
)
def test_parallel_rays_are_odls(settings: dict[str, Any]) -> None:
    theirs = odl_transform("Parallel3dAxisGeometry", **settings)
    ours = RayTransform.from_odl(theirs)
    geometry, angles = theirs.geometry, theirs.geometry.angles
    u, v = (axis.ravel() for axis in geometry.det_partition.meshgrid)
    expected = ours_from([[[geometry.det_point_position(a, (p, q)) for p in u] for q in v] for a in angles])
    rays = ours_from(-geometry.det_to_src(angles, geometry.det_partition.mid_pt))[:, None, None, :]
    # A ray has no sense.
    np.testing.assert_allclose(np.abs((ours.geometry.vectors()[:, 0:3] * rays[:, 0, 0]).sum(-1)), 1)
    # Along its ray a bin may stand anywhere.
    apart = places(ours) - expected
    apart -= (apart * rays).sum(-1, keepdims=True) * rays
    np.testing.assert_allclose(apart, 0, atol=1e-9)


def test_voxels_are_where_odl_has_them() -> None:
    theirs = odl_transform("Parallel3dAxisGeometry")
    _, grid = geometry_from_odl(theirs)
    x, y, z = grid.coordinates()
    theirs_x, theirs_y, theirs_z = theirs.domain.grid.coord_vectors
    np.testing.assert_allclose(x, theirs_y)
    np.testing.assert_allclose(y, -theirs_x)
    np.testing.assert_allclose(z, theirs_z)
    assert grid.shape == (6, 4, 5)


@pytest.mark.parametrize("name", SCANS)
def test_to_odl_and_back_is_the_same_scan(name: str) -> None:
    ours = RayTransform(SCANS[name], GRID)
    theirs = ours.to_odl()
    assert theirs.domain.shape == (4, 5, 3)
    views = ours.geometry.views
    assert theirs.range.shape == (views, 8, 5)
    back = RayTransform.from_odl(theirs)
    assert type(back.geometry) is type(ours.geometry)
    np.testing.assert_allclose(back.geometry.vectors(), ours.geometry.vectors(), rtol=0, atol=1e-9)
    assert back.grid.shape == GRID.shape
    np.testing.assert_allclose(back.grid.extent, GRID.extent)
    image = torch.rand(3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(back(image), ours(image), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: ConeBeam.from_vectors(SCANS["cone"].vectors() + np.eye(5, 12), (5, 8)),
            "to_odl: expected source and detector to turn about the z axis as one, climbing evenly or not at "
            "all, found cone beam",
        ),
        (lambda: SCANS["cone"].subset([2, 1]), "to_odl: expected angles that grow from view to view"),
    ],
)
def test_what_odl_cannot_say_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RayTransform(make(), GRID).to_odl()


def test_what_we_cannot_say_is_refused() -> None:
    bins = ((-0.06, -0.03), (0.08, 0.04))
    settings: dict[str, Any] = {"src_radius": 50, "det_radius": 40, "bins": bins}
    with pytest.raises(ValueError, match="expected a flat or a cylindrical detector, found a spherical one"):
        RayTransform.from_odl(odl_transform("ConeBeamGeometry", det_curvature_radius=(90, 90), **settings))
    with pytest.raises(ValueError, match="curved detector: expected bins on an arc around the source"):
        RayTransform.from_odl(odl_transform("ConeBeamGeometry", det_curvature_radius=(70, None), **settings))
    odl, tomo = import_module("odl"), import_module("odl.applications.tomo")
    space = odl.uniform_discr([-2, -1, -3], [2, 3, 4], (4, 5, 6), dtype="float32")
    euler = tomo.Parallel3dEulerGeometry(
        odl.uniform_partition([0, 0], [1, 1], (3, 3)), odl.uniform_partition([-6, -3], [8, 4], (8, 7))
    )
    with pytest.raises(ValueError, match="ConeBeamGeometry, found Parallel3dEulerGeometry"):
        RayTransform.from_odl(tomo.RayTransform(space, euler, impl="astra_cpu"))
    with pytest.raises(ValueError, match='projector "odl" cannot compute a ConeBeam; these can: joseph'):
        RayTransform(SCANS["cone"], GRID, "odl")
