"""Any HDF5 file with complex k-space in a dataset called kspace, and perhaps a mask and coil maps beside it.

`/kspace` has the axes (slice, coil, y, x), (coil, y, x) or (y, x), or those that its attribute `axes` names;
frequency 0 is at n // 2. `/mask` broadcasts against (slice, y, x) or has no axis of slices; without it, what
is zero in all coils was not sampled. `/coil_maps` has the shape of `/kspace`, with or without slices.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from ctflow.io.complex_fields import (
    check_finite_complex,
    check_kspace_size,
    complex_dataset,
    read_complex,
)
from ctflow.io.errors import ScanError
from ctflow.io.fields import find, opened, text
from ctflow.io.kspace_mask import read_mask, stored_mask
from ctflow.io.kspace_recording import KspaceRecording, KspaceSamples

_KSPACE, _MASK, _MAPS = "/kspace", "/mask", "/coil_maps"
_AXES = ("slice", "coil", "y", "x")


@dataclass(frozen=True)
class _Read:
    path: Path

    def __call__(self, start: int, stop: int) -> KspaceSamples:
        with opened(self.path) as file:
            kspace = _values(file, _KSPACE, start, stop)
            count, *matrix = _shape(file, _axes(file), _KSPACE)[0], *kspace.shape[-2:]
            maps = None
            if find(file, _MAPS) is not None:
                maps = _values(file, _MAPS, start, stop).expand(kspace.shape)
            if find(file, _MASK) is None:
                mask = (kspace != 0).any(1)
                mask = mask | ~mask.flatten(1).any(1)[:, None, None]
            else:
                mask = read_mask(file, _MASK, (count, *matrix))
                mask = mask[start:stop] if len(mask) > 1 else mask
        return KspaceSamples(kspace, mask, coil_maps=maps)


def recognises(file: h5py.File) -> bool:
    """Whether the file has a dataset of that name; what is wrong with it `recording` says."""
    return isinstance(find(file, _KSPACE), h5py.Dataset)


def recording(path: Path) -> KspaceRecording:
    """Return the shapes and the reader of a file.

    Raises
    ------
    ScanError
        If the shapes do not belong together.
    """
    assumed = []
    with opened(path) as file:
        stored = complex_dataset(file, _KSPACE, ndims=(2, 3, 4))
        axes = _axes(file)
        slices, coils, *matrix = _shape(file, axes, _KSPACE)
        if text(stored.attrs.get("axes")) is None:
            assumed.append(f"axes of {_KSPACE}: ({', '.join(axes)}); write others into its attribute axes")
        check_kspace_size(path, _KSPACE, coils, matrix)
        if find(file, _MASK) is None:
            assumed.append("mask: what is zero in all coils was not sampled")
        else:
            stored_mask(file, _MASK, (slices, *matrix))
        has_maps = find(file, _MAPS) is not None
        if has_maps:
            complex_dataset(file, _MAPS, ndims=(3, 4))
            found = _shape(file, _AXES, _MAPS)
            if found not in ((slices, coils, *matrix), (1, coils, *matrix)):
                expected = f"shape {(slices, coils, *matrix)} of {_KSPACE}"
                raise ScanError(path, _MAPS, found=f"shape {found}", expected=expected)
    height, width = matrix
    return KspaceRecording(
        format="k-space in HDF5",
        slices=slices,
        coils=coils,
        matrix=(height, width),
        read=_Read(path),
        image_shape=(height, width),
        field_of_view=(height, width),
        has_coil_maps=has_maps,
        assumed=tuple(assumed),
        missing=("noise scan",),
    )


def _axes(file: h5py.File) -> tuple[str, ...]:
    """Return the names of the axes of k-space, in the order of the file."""
    stored = complex_dataset(file, _KSPACE, ndims=(2, 3, 4))
    stated = text(stored.attrs.get("axes"))
    if stated is None:
        return _AXES[-stored.ndim :]
    words = tuple(word.strip().lower().removesuffix("s") for word in stated.replace(":", ",").split(","))
    known = len(words) == stored.ndim == len(set(words)) and {"y", "x"} <= set(words) <= set(_AXES)
    if not known:
        expected = f"{stored.ndim} of {', '.join(_AXES)}"
        raise ScanError(file.filename, f"{_KSPACE} attribute axes", found=repr(stated), expected=expected)
    return words


def _shape(file: h5py.File, axes: tuple[str, ...], name: str) -> tuple[int, ...]:
    """Return the lengths of slice, coil, y and x."""
    shape = file[name].shape
    lengths = dict(zip(axes[-len(shape) :], shape, strict=True))
    return tuple(lengths.get(axis, 1) for axis in _AXES)


def _values(file: h5py.File, name: str, start: int, stop: int) -> Tensor:
    """Return a part of k-space or of maps, (slices, coils, y, x)."""
    stored = complex_dataset(file, name, ndims=(2, 3, 4))
    axes = _axes(file) if name == _KSPACE else _AXES[-stored.ndim :]
    shared = "slice" not in axes or stored.shape[axes.index("slice")] == 1
    where = tuple(slice(start, stop) if axis == "slice" and not shared else slice(None) for axis in axes)
    values = read_complex(stored, where)
    check_finite_complex(file.filename, name, values, axes, start if axes[0] == "slice" and not shared else 0)
    order = [axis for axis in _AXES if axis in axes]
    values = values.transpose([axes.index(axis) for axis in order])
    shape = iter(values.shape)
    values = values.reshape([next(shape) if axis in axes else 1 for axis in _AXES])
    return torch.from_numpy(np.ascontiguousarray(values))
