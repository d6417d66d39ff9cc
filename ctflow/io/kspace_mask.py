"""Masks of sampled k-space in HDF5 files."""

from __future__ import annotations

from collections.abc import Sequence

import h5py
import numpy as np
import torch
from torch import Tensor

from ctflow.io.errors import ScanError
from ctflow.io.fields import find, values_of


def stored_mask(file: h5py.File, name: str, grid: Sequence[int]) -> h5py.Dataset:
    """Return the dataset of a mask that broadcasts against `grid`.

    Raises
    ------
    ScanError
        If it is missing, or of another kind or shape.
    """
    stored = find(file, name)
    expected = f"zeros and ones whose shape broadcasts to {tuple(int(n) for n in grid)}"
    if not isinstance(stored, h5py.Dataset) or stored.dtype.kind not in "biuf":
        found = "nothing" if stored is None else getattr(stored, "dtype", "a group")
        raise ScanError(file.filename, name, found=found, expected=expected)
    shape = stored.shape or ()
    sizes = zip(reversed(shape), reversed(tuple(grid)), strict=False)
    if not shape or len(shape) > len(grid) or any(n not in (1, full) for n, full in sizes):
        raise ScanError(file.filename, name, found=f"shape {shape}", expected=expected)
    return stored


def read_mask(file: h5py.File, name: str, grid: Sequence[int]) -> Tensor:
    """Return a mask as bool, with as many axes as `grid`, which it broadcasts against.

    Raises
    ------
    ScanError
        As `stored_mask`, or if it holds other numbers than zeros and ones.
    """
    values = values_of(stored_mask(file, name, grid))
    if not ((values == 0) | (values == 1)).all():
        raise ScanError(file.filename, name, found="other numbers", expected="zeros and ones")
    return torch.from_numpy(np.asarray(values.astype(bool))).reshape(
        (1,) * (len(grid) - values.ndim) + values.shape
    )
