"""Coil maps for a scan's slices: estimated from the fully sampled centre, or read from a file."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from ctflow.io.cfl import cfl_header, map_cfl
from ctflow.io.complex_fields import check_finite_complex, complex_dataset, is_complex, read_complex
from ctflow.io.errors import ScanError
from ctflow.io.fields import find, opened
from operators.mri.adaptive import adaptive_maps, calibration_images
from operators.mri.calibration import calibration_region
from operators.mri.espirit import espirit

METHODS = ("espirit", "adaptive", "none")
_CALIBRATION, _FEWEST = 24, 12
_NAMES = ("coil_maps", "sensitivities", "maps", "csm", "dataset/csm")


def calibration_sides(mask: Tensor) -> tuple[int, ...]:
    """Sides of the box about the centre of a mask (*matrix) in which everything is sampled; 0 for none."""
    try:
        region = calibration_region(mask[None].to(torch.complex64), dimensions=mask.ndim)
    except ValueError:
        return (0,) * mask.ndim
    return tuple(part.stop - part.start for part in region)


def estimated_maps(path: Path, kspace: Tensor, mask: Tensor, method: str, first: int) -> Tensor:
    """Return maps (slices, coils, *matrix) of k-space of that shape; see `METHODS`.

    Raises
    ------
    ScanError
        If the centre of k-space is not sampled densely enough.
    """
    matrix = tuple(kspace.shape[2:])
    if method == "none":
        return torch.full_like(kspace, kspace.shape[1] ** -0.5)
    maps = []
    for k, samples in enumerate(kspace):
        region = calibration_sides((mask[k] if len(mask) > 1 else mask[0]).expand(matrix))
        if min(region) < min(_FEWEST, *matrix):
            found = f"{' x '.join(map(str, region))} samples in slice {first + k}"
            expected = f"at least {_FEWEST} along each axis, fully sampled about the centre, to estimate maps"
            hint = "pass maps as coil_maps=PATH"
            raise ScanError(path, "calibration region", found=found, expected=expected, hint=hint)
        try:
            maps.append(_estimated(samples, method))
        except ValueError as error:
            expected = f"k-space that {method} finds coil maps in"
            raise ScanError(path, f"slice {first + k}", found=error, expected=expected) from error
    return torch.stack(maps)


def _estimated(samples: Tensor, method: str) -> Tensor:
    """Maps (coils, *matrix) of one slice's k-space."""
    dimensions = samples.ndim - 1
    if method == "espirit":
        return espirit(samples, calibration=_CALIBRATION, dimensions=dimensions)
    low = calibration_images(samples, calibration=_CALIBRATION, dimensions=dimensions)
    return adaptive_maps(low, dimensions=dimensions)


def read_maps(source: Path, start: int, stop: int, coils: int, matrix: tuple[int, ...]) -> Tensor:
    """Return the maps (stop - start, coils, *matrix) of an HDF5 file or a pair of BART's.

    Without an axis of slices they are the same for all.

    Raises
    ------
    ScanError
        If they are of another size than the scan, or cannot be read.
    """
    header = cfl_header(source)
    if header is not None:
        stored = map_cfl(header)
        lead = stored.shape[:-4]
        if any(size > 1 for axis, size in enumerate(lead) if axis != 2):
            found = f"axes {' x '.join(map(str, stored.shape[::-1]))}"
            raise ScanError(source, "coil maps", found=found, expected="one set of maps, of slices or not")
        values = stored.reshape(lead[2], *stored.shape[-4:])
        if len(matrix) == 2:
            values = values[:, :, 0] if values.shape[2] == 1 else values
        return _checked(source, values, start, stop, coils, matrix)
    with opened(source) as file:
        name = next((name for name in _NAMES if is_complex(file.get(name))), None)
        if name is None:
            found = ", ".join(_said(file, key) for key in file) or "nothing"
            raise ScanError(source, "coil maps", found=found, expected="a complex dataset coil_maps")
        stored = complex_dataset(file, name, ndims=(len(matrix) + 1, len(matrix) + 2))
        return _checked(source, stored, start, stop, coils, matrix)


def _said(file: h5py.File, name: str) -> str:
    stored = find(file, name)
    return f"{name} of dtype {stored.dtype}" if isinstance(stored, h5py.Dataset) else name


def _checked(
    source: Path,
    stored: h5py.Dataset | np.ndarray,
    start: int,
    stop: int,
    coils: int,
    matrix: tuple[int, ...],
) -> Tensor:
    shape = (coils, *matrix)
    found = tuple(stored.shape)
    if found[-len(shape) :] != shape or len(found) > len(shape) + 1:
        expected = f"shape ([slices,] {', '.join(map(str, shape))}) as the scan has it"
        raise ScanError(source, "coil maps", found=f"shape {found}", expected=expected)
    shared = len(found) == len(shape) or found[0] == 1
    if not shared and found[0] < stop:
        raise ScanError(source, "coil maps", found=f"{found[0]} slices", expected=f"at least {stop}")
    where = () if shared else slice(start, stop)
    if isinstance(stored, h5py.Dataset):
        values = read_complex(stored, where)
    else:
        values = np.array(stored[where], dtype=np.complex64)
    values = values.reshape(-1, *shape)
    axes = ("slice", "coil", *("z", "y", "x")[-len(matrix) :])
    check_finite_complex(source, "coil maps", values, axes, 0 if shared else start)
    return torch.from_numpy(values).expand(stop - start, *shape)
