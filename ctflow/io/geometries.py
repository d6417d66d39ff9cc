"""How the rays and pixels of a scan are kept in ctflow's own HDF5 layout."""

from __future__ import annotations

import h5py
import numpy as np
from numpy.typing import NDArray

from ctflow.io.errors import ScanError
from ctflow.io.fields import (
    attribute_numbers,
    check_slice_size,
    checked,
    dataset,
    find,
    numbers,
    text,
    values_of,
)
from operators.ct.geometry import (
    ConeBeam,
    Detector,
    FanBeam,
    Geometry,
    HelicalConeBeam,
    ImageGrid,
    ParallelBeam,
    ParallelBeam3D,
)

# Any scan but one of ParallelBeams, which is kept by its angles.
GivenByVectors = FanBeam | ParallelBeam3D | ConeBeam | HelicalConeBeam

_KINDS: dict[str, type] = {
    "parallel": ParallelBeam,
    "fan": FanBeam,
    "parallel 3d": ParallelBeam3D,
    "cone": ConeBeam,
    "helical cone": HelicalConeBeam,
}
_CLOSE = 1e-5


def kind_of(geometry: Geometry) -> str:
    """Return what a geometry is called in a file; ValueError for one that has no name there."""
    for name, kind in _KINDS.items():
        if type(geometry) is kind:
            return name
    raise ValueError(f"geometry: expected one of {', '.join(_KINDS)}, found {type(geometry).__name__}")


def write_geometry(file: h5py.File, geometry: Geometry) -> None:
    """Write the attribute geometry, /detector, and /angles or /vectors."""
    detector = geometry.detector
    file.attrs["geometry"] = kind_of(geometry)
    attributes = {"bins": detector.bins, "pitch": detector.pitch, "offset": detector.offset}
    if isinstance(geometry, ParallelBeam):
        file.create_dataset("angles", data=geometry.angles).attrs["units"] = "radians"
    else:
        file.create_dataset("vectors", data=geometry.vectors()).attrs["units"] = "mm"
        attributes["curved"] = int(detector.curved)
    if detector.rows is not None:
        attributes |= {"rows": detector.rows, "row_pitch": detector.row_pitch}
        attributes |= {"row_offset": detector.row_offset}
    file.create_group("detector").attrs.update(attributes)


def stored_kind(file: h5py.File) -> str:
    """Return what geometry a file has; parallel where it does not say."""
    if "geometry" not in file.attrs:
        return "parallel"
    found = text(file.attrs["geometry"])
    if found not in _KINDS:
        expected = ", ".join(_KINDS)
        raise ScanError(
            file.filename, "/ attribute geometry", found=repr(found), expected=f"one of {expected}"
        )
    return str(found)


def read_parallel(file: h5py.File, views: int, bins: int, angles_unit: str | None) -> ParallelBeam:
    """Return a ParallelBeam of so many views and bins."""
    detector = checked(file.filename, "/detector", lambda: Detector(bins, *_pitch_and_offset(file, bins)))
    angles = _angles(file, views, angles_unit)
    return ParallelBeam(angles, detector)


def read_vectors(file: h5py.File, kind: str, sinogram_shape: tuple[int, ...]) -> GivenByVectors:
    """Return any other geometry, of views and bins, or of views, rows and bins."""
    views, bins = sinogram_shape[0], sinogram_shape[-1]
    stored = dataset(file, "/vectors", ndim=2)
    if len(stored) != views:
        expected = f"{views} rows, one for each view of /measurement"
        raise ScanError(file.filename, "/vectors", found=f"{len(stored)} rows", expected=expected)
    choice(file, "/vectors", "units", ("mm",))
    vectors = np.asarray(values_of(stored), dtype=np.float64)
    pitch, offset = _pitch_and_offset(file, bins)
    curved = bool(attribute_numbers(file, "/detector", "curved", 1)[0])
    if kind == "fan":
        geometry: GivenByVectors = checked(
            file.filename, "/vectors", lambda: FanBeam(vectors, Detector(bins, pitch, offset, curved=curved))
        )
        found = float(np.linalg.norm(vectors[:, 4:6], axis=1).mean())
    else:
        rows = _count(file, "rows", sinogram_shape[1], "views, rows, bins")
        make = _KINDS[kind].from_vectors  # type: ignore[attr-defined]
        geometry = checked(file.filename, "/vectors", lambda: make(vectors, (rows, bins)))
        found = geometry.detector.pitch
        if geometry.detector.curved != curved:
            expected = "radii in /vectors of a curved detector, and of no other"
            raise ScanError(
                file.filename, "/detector attribute curved", found=str(curved).lower(), expected=expected
            )
    if abs(found - pitch) > _CLOSE * pitch:
        raise ScanError(
            file.filename,
            "/detector attribute pitch",
            found=f"{pitch:g}",
            expected=f"{found:g}, as in /vectors",
        )
    return geometry


def write_grid(file: h5py.File, grid: ImageGrid) -> None:
    """Write /grid."""
    file.create_group("grid").attrs.update(shape=grid.shape, pixel_size=grid.pixel_size, center=grid.center)


def read_grid(file: h5py.File, dimensions: int) -> ImageGrid:
    """Return the pixels, or in three dimensions the voxels, of a file."""
    shape = attribute_numbers(file, "/grid", "shape", dimensions)
    sizes = attribute_numbers(file, "/grid", "pixel_size", dimensions)
    center = attribute_numbers(file, "/grid", "center", dimensions)
    check_slice_size(file, "/grid", int(shape[-2]), int(shape[-1]))
    return checked(
        file.filename, "/grid", lambda: ImageGrid(tuple(_whole(side) for side in shape), sizes, center)
    )


def choice(file: h5py.File, name: str, attribute: str, choices: tuple[str, ...]) -> str:
    """Return an attribute that is one of some texts."""
    holder = find(file, name)
    found = None if holder is None else text(holder.attrs.get(attribute))
    if found not in choices:
        what = "nothing" if found is None else repr(found)
        raise ScanError(
            file.filename, f"{name} attribute {attribute}", found=what, expected=" or ".join(choices)
        )
    return str(found)


def _pitch_and_offset(file: h5py.File, bins: int) -> tuple[float, float]:
    _count(file, "bins", bins, "slices, views, bins")
    pitch, offset = (attribute_numbers(file, "/detector", name, 1)[0] for name in ("pitch", "offset"))
    return pitch, offset


def _count(file: h5py.File, name: str, found: int, axes: str) -> int:
    (stated,) = attribute_numbers(file, "/detector", name, 1)
    if stated != found:
        raise ScanError(
            file.filename,
            "/measurement",
            found=f"{found} {name} along its {'last axis' if name == 'bins' else 'second axis'}",
            expected=f"the {stated:g} {name} of /detector, in the axes order {axes}",
        )
    return found


def _whole(number: float) -> int:
    if not number.is_integer():
        raise ValueError(f"{number} pixels")
    return int(number)


def _angles(file: h5py.File, views: int, unit: str | None) -> NDArray[np.float64]:
    angles = numbers(file, "/angles")
    if len(angles) != views:
        found = f"{len(angles)} angles for {views} views"
        expected = f"{views} angles, one for each view of /measurement"
        raise ScanError(file.filename, "/angles", found=found, expected=expected)
    unit = unit or choice(file, "/angles", "units", ("radians", "degrees"))
    return np.deg2rad(angles) if unit == "degrees" else angles


def spread_views(angles: NDArray[np.float64], count: int | None) -> NDArray[np.intp]:
    """Return the indices of `count` views, evenly spread in angle, in the order of acquisition."""
    total = len(angles)
    if count is None:
        return np.arange(total)
    # Interlaced scans do not acquire their angles in order.
    order = np.argsort(angles, kind="stable")
    return np.sort(order[np.arange(count) * total // count])
