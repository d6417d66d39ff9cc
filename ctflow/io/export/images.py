"""The images of a reconstruction file, as every other format is written from them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ctflow.io.errors import OutputError
from ctflow.io.export.patient import USUAL_AXES, Placement, check_axes
from ctflow.io.fields import find, hdf5_errors, opened, text, values_of

PARTS = ("reconstruction", "std", "samples")
WATER = 0.02
"""Attenuation of water in 1/mm, at about 70 keV."""

_PLAUSIBLE_WATER = (0.01, 0.1)
_ATTENUATION = ("1/mm", "1/pixel")
_AXES = {"reconstruction": 3, "std": 3, "samples": 4}


@dataclass(frozen=True)
class Images:
    """Images that are read one at a time, while the file is open.

    Attributes
    ----------
    path, part
        The reconstruction file, and which of its datasets.
    shape
        Slices, rows, columns; of samples with their number before.
    modality
        "CT" or "MR".
    unit
        Of the numbers: "1/mm", "1/pixel", "HU" or the file's own.
    placement
        Where the voxels are; where `pixel_known` is False, in pixels.
    slice_distance
        In mm, or None where it is unknown and that of pixels stands for it.
    attributes
        Those of the file.
    status
        Of each slice.
    water
        Attenuation in 1/mm, where the unit is HU.
    assumed
        One line each: what was taken for granted.
    """

    path: Path
    part: str
    shape: tuple[int, ...]
    modality: str
    unit: str
    placement: Placement
    pixel_known: bool
    slice_distance: float | None
    attributes: Mapping[str, Any]
    status: tuple[str, ...]
    water: float | None
    assumed: tuple[str, ...]
    stored: h5py.Dataset
    factor: float
    shift: float

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        """Images (rows, columns), slice after slice, sample after sample; NaN where a slice failed."""
        for index in product(*(range(size) for size in self.shape[:-2])):
            yield self.image(*index)

    def image(self, *index: int) -> NDArray[np.float32]:
        """Return one image (rows, columns), complex ones by their magnitude."""
        with hdf5_errors(self.path):
            values = values_of(self.stored, index)
        values = np.abs(values) if values.dtype.kind == "c" else values
        scaled = values.astype(np.float64) * self.factor + self.shift
        return np.ascontiguousarray(scaled, dtype=np.float32)

    def failed_as(self, how: str) -> tuple[str, ...]:
        """Return a line that says what became of the slices that failed, if there are any."""
        failed = [str(k) for k, line in enumerate(self.status) if line != "done"]
        return (f"failed slices {', '.join(failed)}: {how}",) if failed else ()


@contextmanager
def opened_images(
    path: Path,
    part: str,
    *,
    pixel_size: float | None = None,
    slice_distance: float | None = None,
    axes: str = USUAL_AXES,
    hounsfield: bool = False,
    water: float | None = None,
) -> Iterator[Images]:
    """Open a reconstruction file; see `ctflow.io.export.export_result` for the arguments.

    Raises
    ------
    ScanError
        If it is damaged.
    OutputError
        If it is another file, lacks the part, or an argument does not go with it.
    """
    for name, value in (("pixel_size", pixel_size), ("slice_distance", slice_distance), ("water", water)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise OutputError(f"{name}: expected a positive number, found {value}")
    assumed: list[str] = []
    with opened(path) as file:
        stored, status = _stored(path, file, part), _status(path, file)
        attributes = {name: _value(value) for name, value in file.attrs.items()}
        slices, rows, columns = stored.shape[-3:]
        if len(status) != slices:
            raise OutputError(f"{path}: /status: expected {slices} texts, found {len(status)}")
        unit = str(attributes.get("unit") or "")
        modality = "CT" if unit in _ATTENUATION else "MR"
        height, width = _sides(path, attributes, pixel_size)
        between, volume = _between(path, attributes, slice_distance)
        if between is None and slices > 1:
            assumed.append("slice distance: as the width of a pixel, as it is unknown")
        factor = 1.0
        if unit == "1/pixel" and width is not None:
            factor, unit = 1 / width, "1/mm"
        shift, used = 0.0, None
        if hounsfield and modality == "CT":
            if unit != "1/mm":
                raise OutputError(f"{path}: expected 1/mm for HU, found {unit}: pass the pixel size in mm")
            used = water or _water_of(attributes, assumed)
            factor, unit = 1000 * factor / used, "HU"
            shift = 0.0 if part == "std" else -1000.0
        letters = check_axes(axes, volume)
        assumed.append(f"patient: x, y and z of the image point to {', '.join(letters)}")
        sides = (between or width or 1.0, height or 1.0, width or 1.0)
        yield Images(
            path=path,
            part=part,
            shape=tuple(stored.shape),
            modality=modality,
            unit=unit,
            placement=Placement((slices, rows, columns), sides, _center(attributes), letters),
            pixel_known=width is not None,
            slice_distance=between,
            attributes=attributes,
            status=status,
            water=used,
            assumed=tuple(assumed),
            stored=stored,
            factor=factor,
            shift=shift,
        )


def _stored(path: Path, file: h5py.File, part: str) -> h5py.Dataset:
    if text(file.attrs.get("format")) != "ctflow-reconstruction":
        raise OutputError(f"{path}: expected a reconstruction file, such as recon.h5, found another")
    if part not in PARTS:
        raise OutputError(f"what: expected {', '.join(PARTS)}, found {part!r}")
    stored = find(file, f"/{part}")
    if not isinstance(stored, h5py.Dataset):
        there = ", ".join(name for name in PARTS if name in file)
        raise OutputError(f"{path}: /{part}: expected a dataset of images, found only {there or 'nothing'}")
    expected = f"numbers with {_AXES[part]} axes"
    if stored.dtype.kind not in "iufc" or stored.shape is None or len(stored.shape) != _AXES[part]:
        raise OutputError(f"{path}: /{part}: expected {expected}, found {stored.dtype} of {stored.shape}")
    if 0 in stored.shape:
        raise OutputError(f"{path}: /{part}: expected images, found shape {stored.shape}")
    return stored


def _status(path: Path, file: h5py.File) -> tuple[str, ...]:
    stored = find(file, "/status")
    if (
        not isinstance(stored, h5py.Dataset)
        or h5py.check_string_dtype(stored.dtype) is None
        or stored.ndim != 1
    ):
        raise OutputError(f"{path}: /status: expected a text for each slice, found none")
    return tuple(str(line) for line in stored.asstr(errors="replace")[()])


def _value(stored: Any) -> Any:
    """Return an attribute as it was before it was written, nested ones from JSON."""
    stored = stored.item() if isinstance(stored, np.generic) else stored
    if isinstance(stored, str) and stored[:1] in ("{", "["):
        try:
            return json.loads(stored)
        except json.JSONDecodeError:
            return stored
    return stored


def _numbers(path: Path, name: str, value: Any, counts: tuple[int, ...]) -> tuple[float, ...] | None:
    """Return an attribute of one or several finite numbers, or None where it is missing."""
    if value is None:
        return None
    found = np.atleast_1d(np.asarray(value))
    if (
        found.dtype.kind not in "iuf"
        or found.ndim != 1
        or len(found) not in counts
        or not np.isfinite(found).all()
    ):
        raise OutputError(
            f"{path}: {name}: expected {' or '.join(map(str, counts))} numbers, found {value!r}"
        )
    return tuple(float(number) for number in found)


def _grid(attributes: Mapping[str, Any], name: str) -> Any:
    grid = attributes.get("grid")
    return grid.get(name) if isinstance(grid, dict) else None


def _sides(
    path: Path, attributes: Mapping[str, Any], given: float | None
) -> tuple[float | None, float | None]:
    """Return height and width of a pixel in mm, or None."""
    stated = _numbers(path, "pixel_size", attributes.get("pixel_size"), (1, 2))
    if stated is None:
        return given, given
    if min(stated) <= 0:
        raise OutputError(f"{path}: pixel_size: expected positive numbers, found {stated}")
    if given is not None:
        raise OutputError(f"pixel_size: expected none, as {path} says {stated[0]:g} mm, found {given:g}")
    in_full = _numbers(path, "grid", _grid(attributes, "pixel_size"), (2, 3)) or stated
    return in_full[-2 if len(in_full) > 1 else -1], in_full[-1]


def _between(path: Path, attributes: Mapping[str, Any], given: float | None) -> tuple[float | None, bool]:
    """Return the distance of slices in mm, or None, and whether they were measured as one volume."""
    stated = _numbers(path, "slice_distance", attributes.get("slice_distance"), (1,))
    if stated is None:
        return given, False
    if stated[0] <= 0:
        raise OutputError(f"{path}: slice_distance: expected a positive number, found {stated[0]:g}")
    if given is not None:
        raise OutputError(f"slice_distance: expected none, as {path} says {stated[0]:g} mm, found {given:g}")
    return stated[0], True


def _center(attributes: Mapping[str, Any]) -> tuple[float, float, float]:
    found = _grid(attributes, "center")
    center = tuple(float(value) for value in found) if isinstance(found, list) else ()
    x, y, z = (*center, 0.0, 0.0, 0.0)[:3]
    return x, y, z


def _water_of(attributes: Mapping[str, Any], assumed: list[str]) -> float:
    """Return the attenuation of water in 1/mm that the scan states, or the usual one."""
    metadata = attributes.get("metadata")
    stated = metadata.get("water_attenuation") if isinstance(metadata, dict) else None
    try:
        value = float(stated)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        value = math.nan
    low, high = _PLAUSIBLE_WATER
    if low <= value <= high:
        assumed.append(f"water: {value:g}/mm, as the scan says")
        return value
    assumed.append(f"water: {WATER:g}/mm; pass another")
    return WATER
