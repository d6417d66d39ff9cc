"""ctflow's own scan file: everything that an inverse problem needs, in one self-describing HDF5 file.

::

    /                attributes format = "ctflow-scan", version = 1,
                     unit = "1/mm" or "1/pixel" (of the image; lengths are then in pixels instead of mm)
    /measurement     (slices, views, bins) float32 line integrals, dimensionless; attribute units = "1"
    /angles          (views,) float64; attribute units = "radians" (or "degrees")
    /detector        attributes bins, pitch, offset in mm: bin i lies at (i - (bins - 1) / 2) pitch + offset
    /grid            attributes shape (height, width), pixel_size (height, width) in mm, center (x, y) in mm
    /noise           attribute type = "gaussian" or "poisson_transmission"
    /noise/<name>    one dataset for each parameter (gaussian: std; poisson_transmission: photons,
                     electronic_std, smallest_count), a number or an array that broadcasts against the
                     measurement
    /truth           optional (slices, height, width) float32, the image that was measured, in `unit`
    /metadata        optional JSON text: where the data come from

Angles and orientation are those of `operators.ct.geometry`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ctflow.io.atomic import replacing
from ctflow.io.errors import ScanError
from ctflow.io.fields import (
    attribute_numbers,
    check_finite,
    check_slice_size,
    checked,
    dataset,
    find,
    numbers,
    opened,
    text,
)
from ctflow.io.recording import Recording, noise_in_words, with_photons
from operators.ct.geometry import Detector, Geometry, ImageGrid, ParallelBeam
from operators.noise import GaussianNoise, NoiseModel, PoissonTransmission

_FORMAT, _VERSION = "ctflow-scan", 1
_NOISES: dict[str, Any] = {"gaussian": GaussianNoise, "poisson_transmission": PoissonTransmission}
_UNITS = ("1/mm", "1/pixel")


@dataclass(frozen=True)
class _Read:
    path: Path
    photons: float | None

    def __call__(self, start: int, stop: int, views: NDArray[np.intp]) -> tuple[Tensor, NoiseModel]:
        with opened(self.path) as file:
            stored = dataset(file, "/measurement", ndim=3)
            measurement = stored[start:stop].astype(np.float32, copy=False)
            if len(views) != stored.shape[1]:
                measurement = measurement[:, views]
            noise = _noise(file, stored.shape, slice(start, stop), views)
        check_finite(self.path, "/measurement", measurement, start)
        return torch.from_numpy(measurement), with_photons(noise, self.photons)


@dataclass(frozen=True)
class _ReadTruth:
    path: Path

    def __call__(self, start: int, stop: int) -> Tensor:
        with opened(self.path) as file:
            images = dataset(file, "/truth", ndim=3)[start:stop].astype(np.float32, copy=False)
        check_finite(self.path, "/truth", images, start)
        return torch.from_numpy(images)


def recognises(file: h5py.File) -> bool:
    """Whether the file calls itself one of ours."""
    return text(file.attrs.get("format")) == _FORMAT


def recording(path: Path, *, angles_unit: str | None = None, photons: float | None = None) -> Recording:
    """Return the geometry and the readers of a file.

    Raises
    ------
    ScanError
        If a field is missing, or contradicts another.
    """
    with opened(path) as file:
        (version,) = attribute_numbers(file, "/", "version", 1)
        if version != _VERSION:
            raise ScanError(path, "version", found=f"{version:g}", expected=_VERSION)
        unit = _choice(file, "/", "unit", _UNITS)
        slices, views, bins = stored = dataset(file, "/measurement", ndim=3).shape
        check_slice_size(file, "/measurement", views, bins)
        detector = checked(path, "/detector", lambda: _detector(file, bins))
        grid = checked(path, "/grid", lambda: _grid(file))
        angles = _angles(file, views, angles_unit)
        # One slice of the noise shows whether all of it can be read.
        noise = _noise(file, stored, slice(0, 1), np.arange(1))
        has_truth = find(file, "/truth") is not None
        if has_truth and (shape := dataset(file, "/truth", ndim=3).shape) != (slices, *grid.shape):
            raise ScanError(path, "/truth", found=f"shape {shape}", expected=f"shape {(slices, *grid.shape)}")
        metadata = _metadata(file)
    return Recording(
        format="ctflow",
        slices=slices,
        geometry=ParallelBeam(angles, detector),
        grid=grid,
        unit=unit,
        read=_Read(path, photons),
        noise=noise_in_words(with_photons(noise, photons)),
        read_truth=_ReadTruth(path) if has_truth else None,
        metadata=metadata,
    )


def write_scan(
    path: str | Path,
    measurement: ArrayLike | Tensor,
    geometry: Geometry,
    grid: ImageGrid,
    noise: NoiseModel,
    *,
    unit: str = "1/mm",
    truth: ArrayLike | Tensor | None = None,
    metadata: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> None:
    """Write a scan in ctflow's own layout, whole or not at all.

    Parameters
    ----------
    path
        The file to write.
    measurement
        Line integrals, shape (slices, views, bins).
    geometry, grid
        Of one slice, the same for all.
    noise
        GaussianNoise or PoissonTransmission, its tensors broadcasting against the measurement.
    unit
        Of the image: "1/mm", or "1/pixel" where the lengths of `geometry` and `grid` are in pixels.
    truth
        The images that were measured, in `unit`, shape (slices, height, width).
    metadata
        Where the data come from; JSON-able.
    overwrite
        Whether an existing file may be replaced.

    Raises
    ------
    ValueError
        If the parts do not belong together.
    OutputError
        If the file cannot be written.
    """
    if not isinstance(geometry, ParallelBeam):
        raise ValueError(f"geometry: expected a ParallelBeam, found {geometry.describe()}")
    stored = np.asarray(measurement, dtype=np.float32)
    if stored.ndim != 3 or stored.shape[1:] != geometry.sinogram_shape or not len(stored):
        raise ValueError(f"measurement: expected (slices, *{geometry.sinogram_shape}), found {stored.shape}")
    if unit not in _UNITS:
        raise ValueError(f"unit: expected one of {_UNITS}, found {unit!r}")
    names = [name for name, kind in _NOISES.items() if isinstance(noise, kind)]
    if not names:
        raise ValueError(f"noise: expected one of {', '.join(_NOISES)}, found {type(noise).__name__}")
    images = None if truth is None else np.asarray(truth, dtype=np.float32)
    if images is not None and images.shape != (len(stored), *grid.shape):
        raise ValueError(f"truth: expected shape {(len(stored), *grid.shape)}, found {images.shape}")
    described = json.dumps(dict(metadata or {}), allow_nan=False)
    with replacing(path, overwrite) as file:
        file.attrs.update(format=_FORMAT, version=_VERSION, unit=unit)
        file.create_dataset("measurement", data=stored, chunks=(1, *stored.shape[1:])).attrs["units"] = "1"
        file.create_dataset("angles", data=geometry.angles).attrs["units"] = "radians"
        detector = geometry.detector
        file.create_group("detector").attrs.update(
            bins=detector.bins, pitch=detector.pitch, offset=detector.offset
        )
        file.create_group("grid").attrs.update(
            shape=grid.shape, pixel_size=grid.pixel_size, center=grid.center
        )
        group = file.create_group("noise")
        group.attrs["type"] = names[0]
        for field in fields(_NOISES[names[0]]):
            group[field.name] = np.asarray(getattr(noise, field.name), dtype=np.float64)
        if images is not None:
            file.create_dataset(
                "truth", data=images, chunks=(1, *grid.shape), compression="gzip", shuffle=True
            ).attrs["units"] = unit
        file["metadata"] = described


def _choice(file: h5py.File, name: str, attribute: str, choices: tuple[str, ...]) -> str:
    holder = find(file, name)
    found = None if holder is None else text(holder.attrs.get(attribute))
    if found not in choices:
        what = "nothing" if found is None else repr(found)
        raise ScanError(
            file.filename, f"{name} attribute {attribute}", found=what, expected=" or ".join(choices)
        )
    return str(found)


def _detector(file: h5py.File, bins: int) -> Detector:
    stated, pitch, offset = (
        attribute_numbers(file, "/detector", name, 1)[0] for name in ("bins", "pitch", "offset")
    )
    if stated != bins:
        raise ScanError(
            file.filename,
            "/measurement",
            found=f"{bins} bins along its last axis",
            expected=f"the {stated:g} bins of /detector, in the axes order slices, views, bins",
        )
    return Detector(bins, pitch, offset)


def _grid(file: h5py.File) -> ImageGrid:
    height, width = attribute_numbers(file, "/grid", "shape", 2)
    tall, wide = attribute_numbers(file, "/grid", "pixel_size", 2)
    x, y = attribute_numbers(file, "/grid", "center", 2)
    check_slice_size(file, "/grid", int(height), int(width))
    return ImageGrid((_whole(height), _whole(width)), (tall, wide), (x, y))


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
    unit = unit or _choice(file, "/angles", "units", ("radians", "degrees"))
    return np.deg2rad(angles) if unit == "degrees" else angles


def _noise(file: h5py.File, measured: tuple[int, ...], slices: slice, views: NDArray[np.intp]) -> NoiseModel:
    kind = _NOISES[_choice(file, "/noise", "type", tuple(_NOISES))]
    settings: dict[str, Any] = {}
    for field in fields(kind):
        name = f"/noise/{field.name}"
        stored = find(file, name)
        if not isinstance(stored, h5py.Dataset) or stored.dtype.kind not in "iuf":
            raise ScanError(file.filename, name, found="nothing", expected="a dataset of numbers")
        settings[field.name] = _parameter(file, stored, name, measured, slices, views)
    return checked(file.filename, "/noise", lambda: kind(**settings))


def _parameter(
    file: h5py.File,
    stored: h5py.Dataset,
    name: str,
    measured: tuple[int, ...],
    slices: slice,
    views: NDArray[np.intp],
) -> float | Tensor:
    """Return the part of a noise parameter that belongs to some slices and views."""
    shape: tuple[int, ...] = stored.shape or ()
    sizes = zip(shape[::-1], measured[::-1], strict=False)
    if len(shape) > 3 or any(size not in (1, full) for size, full in sizes):
        expected = f"a number, or a shape that broadcasts against {measured}"
        raise ScanError(file.filename, name, found=f"shape {shape}", expected=expected)
    by_slice = len(shape) == 3 and shape[0] == measured[0]
    value = np.asarray(stored[slices] if by_slice else stored[()], dtype=np.float64)
    if not np.isfinite(value).all():
        raise ScanError(file.filename, name, found="NaN or infinity", expected="finite numbers")
    if value.ndim == 0:
        return float(value)
    if value.ndim == 3 and not by_slice:
        value = value[0]
    if value.ndim >= 2 and value.shape[-2] > 1:
        value = value[..., views, :]
    return torch.from_numpy(value.astype(np.float32))


def _metadata(file: h5py.File) -> dict[str, Any]:
    stored = find(file, "/metadata")
    if stored is None:
        return {}
    try:
        found = json.loads(text(stored) or "")
    except json.JSONDecodeError as error:
        raise ScanError(file.filename, "/metadata", found=f"{error}", expected="JSON text") from error
    if not isinstance(found, dict):
        raise ScanError(file.filename, "/metadata", found=type(found).__name__, expected="a JSON object")
    return found
