"""Angles and lengths of HDF5 files in radians and millimetres, whatever unit they come in."""

from __future__ import annotations

import h5py
import numpy as np
from numpy.typing import NDArray

from ctflow.io.errors import ScanError
from ctflow.io.fields import find, scalar, text
from ctflow.io.units import angle_unit, millimetres

# A full turn is 6.28 radians: what spans less is either a very limited scan or not in degrees.
_SUSPICIOUS_SPAN, _SUSPICIOUS_VIEWS = 6.4, 10


def radians(
    file: h5py.File, name: str, angles: NDArray[np.float64], unit: str | None, assumed: list[str]
) -> NDArray[np.float64]:
    """Return angles of a dataset in radians.

    Parameters
    ----------
    name
        The dataset, whose attribute `units` counts; degrees are assumed where it has none.
    angles
        Those of its values that are used.
    unit
        "degrees" or "radians", instead of what the file says.

    Raises
    ------
    ScanError
        If the unit is unknown, or the angles contradict it.
    """
    stated = _unit(file, name)
    known = angle_unit(stated)
    span = float(np.ptp(angles))
    if unit is None:
        hint = 'pass angles_unit="radians" or angles_unit="degrees"'
        if stated and known is None:
            field = f"{name} attribute units"
            expected = "degrees or radians"
            raise ScanError(file.filename, field, found=repr(stated), expected=expected, hint=hint)
        too_small = not stated and span < _SUSPICIOUS_SPAN and len(angles) > _SUSPICIOUS_VIEWS
        too_large = known == "radians" and span > 4 * _SUSPICIOUS_SPAN
        if too_small or too_large:
            found = f"{len(angles)} angles over {span:.4g}, in {stated or 'an unstated unit'}"
            expected = "angles in radians" if too_large else "angles in degrees"
            raise ScanError(file.filename, name, found=found, expected=expected, hint=hint)
        unit = known or "degrees"
        if not stated:
            assumed.append(f"{name.rsplit('/', 1)[-1]}: in degrees")
    return np.deg2rad(angles) if unit == "degrees" else angles


def pixel_length(file: h5py.File, name: str, missing: list[str]) -> tuple[float | None, bool]:
    """Return the length of a pixel in mm, None for an unknown unit, and whether the dataset is there.

    Raises
    ------
    ScanError
        If it is not one positive number.
    """
    size = scalar(file, name)
    if size is None:
        return None, False
    if size <= 0:
        raise ScanError(file.filename, name, found=size, expected="a positive length")
    unit = _unit(file, name)
    factor = millimetres(unit)
    if factor is None:
        missing.append(f"unit of {name} (found {unit!r}); give the pixel size in mm")
        return None, True
    return size * factor, True


def _unit(file: h5py.File, name: str) -> str:
    """Return what a dataset's attribute `units` says, "" where there is none."""
    found = find(file, name)
    return "" if found is None else (text(found.attrs.get("units")) or "").strip()
