"""DICOM-CT-PD, projections of clinical scanners: the Mayo Clinic's LDCT-and-Projection-data.

A folder of DICOM files, a view each, whose private tags hold the geometry (Chen et al., Med. Phys. 42, 6964
(2015); Moen et al., Med. Phys. 48, 902 (2021), table IV)::

    (7029,1010) detector rows         (7029,1002) width of a column at the detector, mm
    (7029,1011) detector columns      (7029,1006) width of a row at the detector, mm
    (7029,100B) shape, CYLINDRICAL or FLAT
    (7031,1001) phi: angle of the detector's focal centre, rad
    (7031,1002) z of it, mm           (7031,1003) its distance from the axis, mm
    (7031,1031) its distance from the detector, mm
    (7031,1033) column and row, from 1, of the ray through axis and focal centre
    (7033,100B), (7033,100C), (7033,100D) what is to be added to angle, z and distance of the focal centre to
                                      come to the focal spot: rad, mm, mm
    (7033,100E) flying focal spot: FFSNONE, FFSZ, FFSXY, FFSXYZ
    (7033,1061) number of spectra     (7033,1065) photons of each column without an object
    (7041,1001) attenuation of water

Pixels times RescaleSlope plus RescaleIntercept are line integrals, stored by rows or by columns. Seen from
where it is upright, at phi = 0 the source is above the patient and with phi it turns to the right, columns
follow one another against it, and rows against z. So our angle is pi - phi, and rows are turned round. These
directions are those with which users of the data found the scanner's own images (ODL's contributed data sets,
PyTomography).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctflow.io.dicom import Tag, dicom_dataset, dicom_errors, is_dicom, tag_number, tag_numbers, tag_word
from ctflow.io.errors import ScanError
from ctflow.io.fields import checked
from ctflow.io.flying_spot import with_flying_spot
from ctflow.io.recording import Recording
from operators.ct.geometry import ConeBeam, Detector, HelicalConeBeam, ImageGrid
from operators.noise import NoiseModel, PoissonTransmission

_ROWS = Tag(0x7029, 0x1010, "number of detector rows", "<u2")
_COLUMNS = Tag(0x7029, 0x1011, "number of detector columns", "<u2")
_COLUMN_WIDTH = Tag(0x7029, 0x1002, "width of a detector column")
_ROW_WIDTH = Tag(0x7029, 0x1006, "width of a detector row")
_SHAPE = Tag(0x7029, 0x100B, "shape of the detector")
_PHI = Tag(0x7031, 0x1001, "angle of the focal centre")
_Z = Tag(0x7031, 0x1002, "z of the focal centre")
_TO_AXIS = Tag(0x7031, 0x1003, "distance of the focal centre from the axis")
_TO_DETECTOR = Tag(0x7031, 0x1031, "distance of the focal centre from the detector")
_CENTRE = Tag(0x7031, 0x1033, "central element of the detector")
_SPOT = {
    "angle": Tag(0x7033, 0x100B, "focal spot's shift in angle"),
    "z": Tag(0x7033, 0x100C, "focal spot's shift in z"),
    "radius": Tag(0x7033, 0x100D, "focal spot's shift in radius"),
}
_SPOT_MODE = Tag(0x7033, 0x100E, "flying focal spot")
_SPECTRA = Tag(0x7033, 0x1061, "number of spectra", "<u2")
_PHOTONS = Tag(0x7033, 0x1065, "photon statistics")
_WATER = Tag(0x7041, 0x1001, "attenuation of water")
_ASSUMED_PHOTONS = 1e5
_SIZE = 512
_LOOKED_AT = 16
_CLOSE = 1e-3


@dataclass(frozen=True)
class _Header:
    """What differs from view to view; lengths in mm, angles in radians."""

    file: Path
    number: int
    phi: float
    z: float
    to_axis: float
    spot: tuple[float, float, float]


@dataclass(frozen=True)
class _Read:
    files: tuple[Path, ...]
    shape: tuple[int, int]  # rows, columns
    photons: float | None  # those in the files for None

    def __call__(self, start: int, stop: int, views: NDArray[np.intp]) -> tuple[Tensor, NoiseModel]:
        """Return the views (views, rows, columns) of the whole volume; `start` and `stop` are its ends."""
        measured = np.empty((len(views), *self.shape), np.float32)
        photons: list[NDArray[np.float32]] = []
        for place, view in enumerate(views):
            data = dicom_dataset(self.files[view], pixels=True)
            measured[place] = _line_integrals(self.files[view], data, self.shape)
            if self.photons is None:
                seen = _photons(self.files[view], data, self.shape[1])
                if seen is None:
                    expected = "numbers as in the first view"
                    raise ScanError(self.files[view], _PHOTONS.field, found="nothing", expected=expected)
                photons.append(seen)
        # One number for all, or (views, 1, columns).
        seen_by = torch.from_numpy(np.stack(photons)[:, None]) if self.photons is None else self.photons
        return torch.from_numpy(measured), PoissonTransmission(seen_by)


def recognises(path: Path) -> bool:
    """Whether a folder holds DICOM files."""
    return any(is_dicom(file) for file in islice(_files(path), _LOOKED_AT))


def recording(path: Path, *, angles_unit: str | None = None, photons: float | None = None) -> Recording:
    """Return the geometry and the reader of a folder of views.

    Raises
    ------
    ScanError
        If a tag is missing or contradicts another, views do not lie on a helix, or for an `angles_unit`.
    ImportError
        If pydicom is missing.
    """
    if angles_unit is not None:
        expected = "none: angles of DICOM-CT-PD are in radians"
        raise ScanError(path, "angles_unit", found=repr(angles_unit), expected=expected)
    files = [file for file in _files(path) if is_dicom(file)]
    headers = sorted((_header(file) for file in files), key=lambda header: (header.number, header.file))
    file = headers[0].file
    first = dicom_dataset(file)
    _must_be_alone(file, first)
    assumed: list[str] = []
    missing: list[str] = []
    to_axis = _constant(headers)
    to_detector = tag_number(file, first, _TO_DETECTOR)
    detector = checked(file, "detector", lambda: _detector(file, first))
    angles = math.pi - np.unwrap([header.phi for header in headers])
    pitch, z_start = _helix(headers, angles, detector.row_pitch * to_axis / to_detector)
    helix = checked(
        path,
        "geometry",
        lambda: HelicalConeBeam(
            angles,
            source_to_axis=to_axis,
            source_to_detector=to_detector,
            detector=detector,
            pitch=pitch,
            z_start=z_start,
        ),
    )
    shifts = np.array([header.spot for header in headers])
    rays: HelicalConeBeam | ConeBeam = helix
    if shifts.any():
        turn, climb, retreat = shifts.T
        rays = checked(path, "focal spot", lambda: with_flying_spot(helix, -turn, climb, retreat))
    spot = _flying_spot(file, first, helix, shifts, assumed)
    shape = (detector.rows or 1, detector.bins)
    in_file = _photons(file, first, detector.bins)
    if in_file is None and photons is None:
        photons = _ASSUMED_PHOTONS
        missing.append("photon statistics")
        assumed.append(f"photons: {_ASSUMED_PHOTONS:g} a bin; pass photons= for another noise")
    usual = float(np.median(in_file)) if photons is None else photons  # type: ignore[arg-type]
    with dicom_errors(file):
        grid, about = _grid(helix, first), _about(file, first)
    ordered = tuple(header.file for header in headers)
    return Recording(
        format="DICOM-CT-PD",
        slices=grid.shape[0],
        geometry=rays,
        grid=grid,
        unit="1/mm",
        read=_Read(ordered, shape, photons),
        noise=f"Poisson, about {usual:.4g} photons a bin",
        metadata={**spot, **about},
        files=ordered,
        assumed=tuple(assumed),
        missing=tuple(missing),
    )


def _files(path: Path) -> Iterator[Path]:
    return (entry for entry in sorted(path.iterdir()) if entry.is_file())


def _header(file: Path) -> _Header:
    # Folders have tens of thousands of views.
    data = dicom_dataset(file, only=(_PHI, _Z, _TO_AXIS, *_SPOT.values(), "InstanceNumber"))
    phi, z = (tag_number(file, data, tag, positive=False) for tag in (_PHI, _Z))
    angle, height, radius = (tag_numbers(file, data, tag) for tag in _SPOT.values())
    with dicom_errors(file):
        number = int(data.get("InstanceNumber") or 0)
    return _Header(
        file,
        number,
        phi,
        z,
        tag_number(file, data, _TO_AXIS),
        (_first(angle), _first(height), _first(radius)),
    )


def _first(values: NDArray[np.float64] | None) -> float:
    return 0.0 if values is None else float(values[0])


def _must_be_alone(file: Path, data: Any) -> None:
    """Refuse several frames a file and several spectra."""
    with dicom_errors(file):
        frames = int(data.get("NumberOfFrames") or 1)
    if frames != 1:
        raise ScanError(file, "NumberOfFrames", found=frames, expected="1, a file for each view")
    spectra = tag_numbers(file, data, _SPECTRA)
    if spectra is not None and spectra[0] > 1:
        raise ScanError(file, _SPECTRA.field, found=f"{spectra[0]:g}", expected="1")


def _constant(headers: list[_Header]) -> float:
    """Return the distance of the focal centre from the axis."""
    distances = np.array([header.to_axis for header in headers])
    usual = float(np.median(distances))
    odd = np.flatnonzero(np.abs(distances - usual) > _CLOSE * usual)
    if odd.size:
        header = headers[int(odd[0])]
        expected = f"{usual:g} mm as in the other views"
        raise ScanError(header.file, _TO_AXIS.field, found=f"{header.to_axis:g} mm", expected=expected)
    return usual


def _detector(file: Path, data: Any) -> Detector:
    rows, columns = (int(tag_number(file, data, tag)) for tag in (_ROWS, _COLUMNS))
    width, height = (tag_number(file, data, tag) for tag in (_COLUMN_WIDTH, _ROW_WIDTH))
    shape = tag_word(file, data, _SHAPE)
    if shape not in ("CYLINDRICAL", "FLAT"):
        expected = "CYLINDRICAL or FLAT"
        raise ScanError(file, _SHAPE.field, found=shape or "nothing", expected=expected)
    centre = tag_numbers(file, data, _CENTRE)
    if centre is None or centre.size != 2:
        found = "nothing" if centre is None else f"{centre.size} numbers"
        raise ScanError(file, _CENTRE.field, found=found, expected="column and row")
    column, row = centre
    if not (1 <= column <= columns and 1 <= row <= rows):
        found = f"column {column:g}, row {row:g}"
        raise ScanError(file, _CENTRE.field, found=found, expected=f"within {columns} x {rows}")
    # Rows are turned round, and with them where their middle is.
    offset = ((row - (rows + 1) / 2) * height, ((columns + 1) / 2 - column) * width)
    return Detector((rows, columns), (height, width), offset, curved=shape == "CYLINDRICAL")


def _helix(headers: list[_Header], angles: NDArray[np.float64], row: float) -> tuple[float, float]:
    """Return climb in mm per turn of our angle and z of the first view; views may stray by half a row."""
    z = np.array([header.z for header in headers])
    turns = (angles - angles[0]) / (2 * math.pi)
    if not np.any(turns):
        return 0.0, float(z.mean())
    pitch, z_start = (float(value) for value in np.polyfit(turns, z, 1))
    stray = np.abs(z_start + pitch * turns - z)
    worst = int(np.argmax(stray))
    if stray[worst] > row / 2:
        found = f"z = {z[worst]:g} mm, {stray[worst]:.3g} mm off the helix of {pitch:.4g} mm a turn"
        raise ScanError(headers[worst].file, _Z.field, found=found, expected="views on a helix")
    return pitch, z_start


def _flying_spot(
    file: Path, data: Any, helix: HelicalConeBeam, shifts: NDArray[np.float64], assumed: list[str]
) -> dict[str, Any]:
    """Return the climb a turn, and mode and largest ways of the focal spot, for the record."""
    mode = tag_word(file, data, _SPOT_MODE) or "not stated"
    ways = np.abs(shifts).max(axis=0) * (helix.source_to_axis, 1, 1)
    if ways.any() and helix.detector.curved:
        way = ", ".join(f"{way:.3g} mm in {name}" for name, way in zip(_SPOT, ways, strict=True) if way)
        assumed.append(f"flying focal spot ({mode}), up to {way}: the detector's arc is taken as around it")
    largest = {f"focal_spot_{name}_mm": float(way) for name, way in zip(_SPOT, ways, strict=True)}
    return {"mm_per_turn": helix.pitch, "flying_focal_spot": mode, **largest}


def _about(file: Path, data: Any) -> dict[str, Any]:
    """Return what else the file says of the scan, and nothing of the patient."""
    names = {"Manufacturer": "manufacturer", "ManufacturerModelName": "model", "KVP": "kilovolts"}
    names["SeriesDescription"] = "series"
    found: dict[str, Any] = {
        name: str(data.get(key)) for key, name in names.items() if data.get(key) not in (None, "")
    }
    word = tag_word(file, data, _WATER)
    if word is not None:
        found["water_attenuation"] = word
    return found


def _grid(geometry: HelicalConeBeam, data: Any) -> ImageGrid:
    """Return 512 x 512 voxels a slice over the circle that all views see; as many slices as rows fill."""
    detector, to_axis = geometry.detector, geometry.source_to_axis
    reach = detector.bins / 2 * detector.pitch - abs(detector.offset)
    fan = reach / geometry.source_to_detector
    radius = to_axis * math.sin(fan if detector.curved else math.atan(fan))
    diameter = float(data.get("DataCollectionDiameter") or 2 * radius)
    thickness = detector.row_pitch * to_axis / geometry.source_to_detector
    heights = geometry.sources[:, 2]
    span = max(float(np.ptp(heights)), thickness * (detector.rows or 1))
    middle = float(heights.min() + heights.max()) / 2
    depth = max(1, round(span / thickness))
    return ImageGrid(
        (depth, _SIZE, _SIZE), (thickness, diameter / _SIZE, diameter / _SIZE), (0.0, 0.0, middle)
    )


def _photons(file: Path, data: Any, columns: int) -> NDArray[np.float32] | None:
    """Return the photons of each column without an object, or None where the file has none."""
    values = tag_numbers(file, data, _PHOTONS)
    if values is None:
        return None
    if values.size not in (1, columns) or values.min() <= 0:
        found = f"{values.size} numbers from {values.min():g}"
        expected = f"positive numbers, one or {columns}"
        raise ScanError(file, _PHOTONS.field, found=found, expected=expected)
    return np.broadcast_to(values, columns).astype(np.float32)


def _line_integrals(file: Path, data: Any, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Return one view (rows, columns), rows turned round so that they follow z."""
    with dicom_errors(file):
        sizes = [int(data[name].value) for name in ("Rows", "Columns")]
        frames, samples = (int(data.get(name) or 1) for name in ("NumberOfFrames", "SamplesPerPixel"))
    # Before pixels are unpacked: a small file may declare many.
    if sorted(sizes) != sorted(shape) or (frames, samples) != (1, 1):
        declared = f"{frames} x {samples} images of {sizes[0]} x {sizes[1]}"
        expected = f"one of {shape[0]} rows of {shape[1]} columns, or turned"
        raise ScanError(file, "pixel data", found=declared, expected=expected)
    with dicom_errors(file):
        stored = np.asarray(data.pixel_array)
        stored = stored if stored.shape == shape else stored.T.reshape(shape)
    scale = []
    for name in ("RescaleSlope", "RescaleIntercept"):
        with dicom_errors(file):
            value = float(data[name].value) if name in data else math.nan
        if not math.isfinite(value):
            found = value if name in data else "nothing"
            raise ScanError(file, name, found=found, expected="a finite number")
        scale.append(value)
    return (stored[::-1] * np.float32(scale[0]) + np.float32(scale[1])).astype(np.float32)
