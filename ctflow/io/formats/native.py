"""ctflow's own scan file: everything that an inverse problem needs, in one self-describing HDF5 file.

::

    /                attributes format = "ctflow-scan", version = 1 (2 for all but parallel geometries),
                     unit = "1/mm" or "1/pixel" (of the image; lengths are then in pixels instead of mm),
                     geometry = "parallel" (also where it is missing), "fan", "parallel 3d", "cone" or
                     "helical cone"
    /measurement     (slices, views, bins) or, of a volume, (views, rows, bins) float32 line integrals,
                     dimensionless; attribute units = "1"
    /angles          (views,) float64; attribute units = "radians" (or "degrees"); parallel only
    /vectors         (views, numbers) float64, in mm; all but parallel: what the geometry's `vectors` gives
    /detector        attributes bins, pitch, offset in mm: bin i lies at (i - (bins - 1) / 2) pitch + offset;
                     with vectors also curved (0 or 1); of a volume also rows, row_pitch, row_offset
    /grid            attributes shape ([depth,] height, width), pixel_size in the same order in mm, center
                     (x, y[, z]) in mm
    /noise           attribute type = "gaussian" or "poisson_transmission"
    /noise/<name>    one dataset for each parameter (gaussian: std; poisson_transmission: photons,
                     electronic_std, smallest_count), a number or an array that broadcasts against the
                     measurement
    /truth           optional (slices, height, width) float32, the image that was measured, in `unit`
    /metadata        optional JSON text: where the data come from

Angles and orientation are those of `operators.ct.geometry`; vectors hold offsets already.
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
    opened,
    text,
    values_of,
)
from ctflow.io.geometries import (
    GivenByVectors,
    choice,
    kind_of,
    read_grid,
    read_parallel,
    read_vectors,
    stored_kind,
    write_geometry,
    write_grid,
)
from ctflow.io.recording import Recording, noise_in_words, with_photons
from operators.ct.geometry import Geometry, ImageGrid, ParallelBeam
from operators.noise import GaussianNoise, NoiseModel, PoissonTransmission

_FORMAT, _VERSIONS = "ctflow-scan", (1, 2)
_NOISES: dict[str, Any] = {"gaussian": GaussianNoise, "poisson_transmission": PoissonTransmission}
_UNITS = ("1/mm", "1/pixel")


@dataclass(frozen=True)
class _Read:
    path: Path
    photons: float | None
    volume: bool

    def __call__(self, start: int, stop: int, views: NDArray[np.intp]) -> tuple[Tensor, NoiseModel]:
        slices = slice(start, stop)
        with opened(self.path) as file:
            stored = dataset(file, "/measurement", ndim=3)
            if self.volume:
                measurement = values_of(stored, () if len(views) == len(stored) else views)
            else:
                measurement = values_of(stored, slices)
                if len(views) != stored.shape[1]:
                    measurement = measurement[:, views]
            noise = _noise(file, stored.shape, None if self.volume else slices, views)
        measurement = measurement.astype(np.float32, copy=False)
        axes = ("view", "row", "bin") if self.volume else ("slice", "view", "bin")
        check_finite(self.path, "/measurement", measurement, 0 if self.volume else start, axes)
        return torch.from_numpy(measurement), with_photons(noise, self.photons)


@dataclass(frozen=True)
class _ReadTruth:
    path: Path

    def __call__(self, start: int, stop: int) -> Tensor:
        with opened(self.path) as file:
            images = values_of(dataset(file, "/truth", ndim=3), slice(start, stop))
        images = images.astype(np.float32, copy=False)
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
        if version not in _VERSIONS:
            expected = " or ".join(map(str, _VERSIONS))
            raise ScanError(path, "version", found=f"{version:g}", expected=expected)
        unit = choice(file, "/", "unit", _UNITS)
        kind = stored_kind(file)
        stored = dataset(file, "/measurement", ndim=3).shape
        check_slice_size(file, "/measurement", stored[1], stored[2])
        volume = kind not in ("parallel", "fan")
        geometry: ParallelBeam | GivenByVectors
        if kind == "parallel":
            geometry = read_parallel(file, stored[1], stored[2], angles_unit)
        else:
            if angles_unit is not None:
                expected = f"none for {kind}, kept as vectors"
                raise ScanError(path, "angles_unit", found=angles_unit, expected=expected)
            geometry = read_vectors(file, kind, stored if volume else stored[1:])
        grid = read_grid(file, geometry.dimensions)
        slices = grid.shape[0] if volume else stored[0]
        # One slice of the noise shows whether all of it can be read.
        noise = _noise(file, stored, None if volume else slice(0, 1), np.arange(1))
        has_truth, images = find(file, "/truth") is not None, (slices, *grid.shape[-2:])
        if has_truth and (shape := dataset(file, "/truth", ndim=3).shape) != images:
            raise ScanError(path, "/truth", found=f"shape {shape}", expected=f"shape {images}")
        metadata = _metadata(file)
    return Recording(
        format="ctflow",
        slices=slices,
        geometry=geometry,
        grid=grid,
        unit=unit,
        read=_Read(path, photons, volume),
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
        Line integrals, shape (slices, views, bins), or (views, rows, bins) for a geometry in space.
    geometry, grid
        Of one slice, the same for all; or of the volume.
    noise
        GaussianNoise or PoissonTransmission, its tensors broadcasting against the measurement.
    unit
        Of the image: "1/mm", or "1/pixel" where the lengths of `geometry` and `grid` are in pixels.
    truth
        The images that were measured, in `unit`, shape (slices, height, width); or the volume.
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
    version = 1 if kind_of(geometry) == "parallel" else 2
    stored = np.asarray(measurement, dtype=np.float32)
    volume, shape = geometry.dimensions == 3, geometry.sinogram_shape
    if len(grid.shape) != geometry.dimensions:
        raise ValueError(f"grid: expected {geometry.dimensions} dimensions, found {grid.describe()}")
    if stored.ndim != 3 or stored.shape[0 if volume else 1 :] != shape or not len(stored):
        expected = str(shape) if volume else f"(slices, *{shape})"
        raise ValueError(f"measurement: expected {expected}, found {stored.shape}")
    if unit not in _UNITS:
        raise ValueError(f"unit: expected one of {_UNITS}, found {unit!r}")
    names = [name for name, kind in _NOISES.items() if isinstance(noise, kind)]
    if not names:
        raise ValueError(f"noise: expected one of {', '.join(_NOISES)}, found {type(noise).__name__}")
    images = None if truth is None else np.asarray(truth, dtype=np.float32)
    expected_images = grid.shape if volume else (len(stored), *grid.shape)
    if images is not None and images.shape != expected_images:
        raise ValueError(f"truth: expected shape {expected_images}, found {images.shape}")
    described = json.dumps(dict(metadata or {}), allow_nan=False)
    with replacing(path, overwrite) as file:
        file.attrs.update(format=_FORMAT, version=version, unit=unit)
        file.create_dataset("measurement", data=stored, chunks=(1, *stored.shape[1:])).attrs["units"] = "1"
        write_geometry(file, geometry)
        write_grid(file, grid)
        group = file.create_group("noise")
        group.attrs["type"] = names[0]
        for field in fields(_NOISES[names[0]]):
            group[field.name] = np.asarray(getattr(noise, field.name), dtype=np.float64)
        if images is not None:
            file.create_dataset(
                "truth", data=images, chunks=(1, *grid.shape[-2:]), compression="gzip", shuffle=True
            ).attrs["units"] = unit
        file["metadata"] = described


def _noise(
    file: h5py.File, measured: tuple[int, ...], slices: slice | None, views: NDArray[np.intp]
) -> NoiseModel:
    """Return the noise of some slices and views; of a volume, slices is None."""
    kind = _NOISES[choice(file, "/noise", "type", tuple(_NOISES))]
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
    slices: slice | None,
    views: NDArray[np.intp],
) -> float | Tensor:
    """Return the part of a noise parameter that belongs to some slices and views."""
    shape: tuple[int, ...] = stored.shape or ()
    sizes = zip(shape[::-1], measured[::-1], strict=False)
    if len(shape) > 3 or any(size not in (1, full) for size, full in sizes):
        expected = f"a number, or a shape that broadcasts against {measured}"
        raise ScanError(file.filename, name, found=f"shape {shape}", expected=expected)
    by_slice = slices is not None and len(shape) == 3 and shape[0] == measured[0]
    value = np.asarray(values_of(stored, slices if by_slice else ()), dtype=np.float64)
    if not np.isfinite(value).all():
        raise ScanError(file.filename, name, found="NaN or infinity", expected="finite numbers")
    if value.ndim == 0:
        return float(value)
    if slices is None:
        if value.ndim == 3 and len(value) > 1:
            value = value[views]
        return torch.from_numpy(value.astype(np.float32))
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
