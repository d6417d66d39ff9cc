"""Our geometries and grids as ASTRA's, and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from operators.ct.geometry import (
    ConeBeam,
    FanBeam,
    Float64Array,
    Geometry,
    ImageGrid,
    ParallelBeam,
    ParallelBeam3D,
)
from operators.ct.projectors.astra_library import import_astra


def geometry_to_astra(geometry: Geometry, grid: ImageGrid) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return ASTRA's projection and volume geometry of a scan.

    Projection geometries are ``parallel_vec``, ``fanflat_vec``, ``parallel3d_vec``, ``cone_vec`` or
    ``cyl_cone_vec``. In ASTRA's volumes y grows with the row, against its images and ours, so in space
    everything is mirrored in y; the same arrays then belong together, but for ASTRA's order of data, (rows,
    views, bins).

    Raises
    ------
    ValueError
        For a fan on a curved detector, which ASTRA does not know.
    """
    astra = import_astra()
    detector, vectors = geometry.detector, geometry.vectors()
    if geometry.dimensions == 2:
        if detector.curved:
            raise ValueError(f"to_astra: expected a flat detector of a fan, found {detector.describe()}")
        kind = "parallel_vec" if isinstance(geometry, ParallelBeam) else "fanflat_vec"
        projection = astra.create_proj_geom(kind, detector.bins, vectors)
        return projection, astra.create_vol_geom(*grid.shape, *grid.extent)
    kind = "parallel3d_vec" if isinstance(geometry, ParallelBeam3D) else "cone_vec"
    if detector.curved:
        kind = "cyl_cone_vec"
    projection = astra.create_proj_geom(kind, *detector.shape, _mirrored(vectors))
    depth, height, width = grid.shape
    left, right, front, back, low, high = grid.extent
    volume = astra.create_vol_geom(height, width, depth, left, right, -back, -front, low, high)
    return projection, volume


def geometry_from_astra(
    projection: dict[str, Any], volume: dict[str, Any]
) -> tuple[ParallelBeam | FanBeam | ParallelBeam3D | ConeBeam, ImageGrid]:
    """Return the scan of ASTRA's projection and volume geometry; the reverse of `geometry_to_astra`.

    Lengths are taken as mm. A helix comes back as the ConeBeam of its views.

    Raises
    ------
    ValueError
        For other kinds than those and ``parallel``, ``fanflat``, ``parallel3d`` and ``cone``, for a volume
        geometry of another dimension, and for views that differ in their detector.
    """
    astra = import_astra()
    if projection["type"] in ("parallel", "fanflat", "parallel3d", "cone"):
        projection = astra.geom_2vec(projection)
    kind = projection["type"]
    planar, spatial = ("parallel_vec", "fanflat_vec"), ("parallel3d_vec", "cone_vec", "cyl_cone_vec")
    if kind not in planar + spatial:
        known = ", ".join(planar + spatial)
        raise ValueError(f"from_astra: expected a projection geometry {known}, found {kind}")
    if ("GridSliceCount" in volume) != (kind in spatial):
        found = "images" if kind in spatial else "volumes"
        raise ValueError(f"from_astra: expected a volume geometry for {kind}, found one of {found}")
    vectors = np.asarray(projection["Vectors"], dtype=np.float64)
    grid = _grid(volume)
    if kind == "parallel_vec":
        return ParallelBeam.from_vectors(vectors, int(projection["DetectorCount"])), grid
    if kind == "fanflat_vec":
        return FanBeam.from_vectors(vectors, int(projection["DetectorCount"])), grid
    shape = int(projection["DetectorRowCount"]), int(projection["DetectorColCount"])
    made = ParallelBeam3D if kind == "parallel3d_vec" else ConeBeam
    return made.from_vectors(_mirrored(vectors), shape), grid


def _mirrored(vectors: Float64Array) -> Float64Array:
    """Return numbers of views in space with all y turned round."""
    mirrored = vectors.copy()
    mirrored[:, 1:12:3] *= -1
    return mirrored


def _grid(volume: dict[str, Any]) -> ImageGrid:
    window = volume["option"]
    sides = {"X": "GridColCount", "Y": "GridRowCount", "Z": "GridSliceCount"}
    ends = {
        axis: (float(window[f"WindowMin{axis}"]), float(window[f"WindowMax{axis}"]), int(volume[side]))
        for axis, side in sides.items()
        if side in volume
    }
    center = {axis: (low + high) / 2 for axis, (low, high, _) in ends.items()}
    if "Z" in ends:
        center["Y"] = 0.0 - center["Y"]
    shape = tuple(number for _, _, number in ends.values())[::-1]
    size = tuple((high - low) / number for low, high, number in ends.values())[::-1]
    return ImageGrid(shape, size, tuple(center.values()))
