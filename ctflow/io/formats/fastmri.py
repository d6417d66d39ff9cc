"""fastMRI's files of knees and brains (Zbontar et al., arXiv:1811.08839; https://fastmri.med.nyu.edu).

`/kspace` complex64 (slices, coils, readout, phase encoding), or without coils in emulated single-coil files;
`/mask` over the phase encoding, or over both axes, in undersampled ones; `/ismrmrd_header`, which tells the
columns that were padded with zeros and never measured; `/reconstruction_rss` and `/reconstruction_esc`
float32, the middle of the root-sum-of-squares and single-coil images, in fully sampled ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctflow.io.complex_fields import (
    check_finite_complex,
    check_kspace_size,
    complex_dataset,
    is_complex,
    read_complex,
)
from ctflow.io.errors import ScanError
from ctflow.io.fields import check_finite, dataset, find, opened, text, values_of
from ctflow.io.ismrmrd_header import Header, parse_header
from ctflow.io.kspace_grid import crop_readout
from ctflow.io.kspace_recording import KspaceRecording, KspaceSamples

_KSPACE, _HEADER, _MASK = "/kspace", "/ismrmrd_header", "/mask"
_TARGETS = {3: "/reconstruction_esc", 4: "/reconstruction_rss"}
_ATTRIBUTES = ("acquisition", "acceleration", "num_low_frequency")


@dataclass(frozen=True)
class _Read:
    path: Path
    padding: tuple[int, int]  # first column that was measured, and one past the last
    rows: int  # of the matrix, once readout oversampling is removed

    def __call__(self, start: int, stop: int) -> KspaceSamples:
        with opened(self.path) as file:
            stored = complex_dataset(file, _KSPACE, ndims=(3, 4))
            kspace = read_complex(stored, slice(start, stop))
            mask = _mask(file, stored.shape[-2:])
        axes = ("slice", "coil", "row", "column") if kspace.ndim == 4 else ("slice", "row", "column")
        check_finite_complex(self.path, _KSPACE, kspace, axes, start)
        samples = torch.from_numpy(kspace)
        samples = samples.unsqueeze(1) if samples.ndim == 3 else samples
        columns = torch.zeros(samples.shape[-1], dtype=torch.bool)
        columns[slice(*self.padding)] = True
        if mask is None:
            there = (samples != 0).any(dim=1).any(dim=1)
            # Whatever the header says; a slice without any sample is not undersampled.
            there = there | ~there.any(-1, keepdim=True)
            sampled = (there & columns)[:, None]
        else:
            sampled = (torch.from_numpy(mask) & columns)[None]
        return KspaceSamples(crop_readout(samples, -2, self.rows), sampled)


@dataclass(frozen=True)
class _ReadTruth:
    path: Path
    name: str

    def __call__(self, start: int, stop: int) -> Tensor:
        with opened(self.path) as file:
            stored = dataset(file, self.name, ndim=3)
            images = values_of(stored, slice(start, stop)).astype(np.float32, copy=False)
        check_finite(self.path, self.name, images, start, ("slice", "row", "column"))
        return torch.from_numpy(images)


def recognises(file: h5py.File) -> bool:
    """Whether the file has complex k-space and an ISMRMRD header beside it."""
    return is_complex(find(file, _KSPACE)) and isinstance(find(file, _HEADER), h5py.Dataset)


def recording(path: Path) -> KspaceRecording:
    """Return the shapes and the readers of a file.

    Readout oversampling is removed, but for masks that depend on the readout: then all of the field of view
    is reconstructed and cropped at last.

    Raises
    ------
    ScanError
        If a field is missing, or contradicts another.
    """
    with opened(path) as file:
        stored = complex_dataset(file, _KSPACE, ndims=(3, 4))
        slices, coils = stored.shape[0], stored.shape[1] if stored.ndim == 4 else 1
        height, width = stored.shape[-2:]
        check_kspace_size(path, _KSPACE, coils, (height, width))
        content = text(find(file, _HEADER))
        if content is None:
            raise ScanError(path, _HEADER, found="no text", expected="an ISMRMRD header in XML")
        header = parse_header(path, _HEADER, content)
        mask = _mask(file, (height, width))
        target = _TARGETS[stored.ndim]
        truth = dataset(file, target, ndim=3).shape if find(file, target) is not None else None
        metadata = {
            name: value for name in _ATTRIBUTES if (value := _plain(file.attrs.get(name))) is not None
        }
    encoding, problems = header.encodings[0], []
    encoded = (encoding.encoded.matrix[0], encoding.encoded.matrix[1])
    if encoded != (height, width):
        found = f"{height} x {width} samples"
        problems.append(f"{_KSPACE}: {found}, where the header has {encoded[0]} x {encoded[1]}")
    shape = (min(encoding.recon.matrix[0], height), min(encoding.recon.matrix[1], width))
    if truth is not None:
        if truth[0] != slices or truth[1] > height:
            expected = f"{slices} images of at most {height} rows"
            raise ScanError(path, target, found=f"shape {truth}", expected=expected)
        shape = (truth[1], min(truth[2], width))
    padding = _padding(path, header, width)
    rows = shape[0] if mask is None or mask.shape[0] == 1 else height
    assumed = []
    if padding != (0, width):
        assumed.append(f"columns {padding[0]} to {padding[1] - 1} of {width}: measured, the others padded")
    sides = encoding.recon.field_of_view
    return KspaceRecording(
        format="fastMRI",
        slices=slices,
        coils=coils,
        matrix=(rows, width),
        read=_Read(path, padding, rows),
        image_shape=shape,
        field_of_view=shape,
        pixel_sides=None
        if sides is None
        else (sides[0] / encoding.recon.matrix[0], sides[1] / encoding.recon.matrix[1]),
        read_truth=None if truth is None else _ReadTruth(path, target),
        metadata={**header.described, **metadata},
        assumed=tuple(assumed),
        missing=("noise scan",),
        problems=tuple(problems),
    )


def _padding(path: Path, header: Header, width: int) -> tuple[int, int]:
    """Return the first column that was measured, and one past the last."""
    encoding = header.encodings[0]
    limit = encoding.limits.get("kspace_encoding_step_1")
    if limit is None or limit.maximum == 0:
        return 0, width
    left = encoding.encoded.matrix[1] // 2 - limit.centre
    right = left + limit.maximum + 1
    if not 0 <= left < right <= width:
        found = f"columns {left} to {right - 1}"
        raise ScanError(path, f"{_HEADER} encodingLimits", found=found, expected=f"some of 0 to {width - 1}")
    return left, right


def _mask(file: h5py.File, shape: tuple[int, ...]) -> NDArray[np.bool_] | None:
    """Return the mask, (1 or rows, columns), or None where the file has none."""
    stored = find(file, _MASK)
    if stored is None:
        return None
    expected = f"zeros and ones for {shape[1]} columns, or for {shape[0]} x {shape[1]} samples"
    if not isinstance(stored, h5py.Dataset) or stored.dtype.kind not in "biuf":
        found = f"dtype {stored.dtype}" if isinstance(stored, h5py.Dataset) else "a group"
        raise ScanError(file.filename, _MASK, found=found, expected=expected)
    sizes = tuple(size for size in stored.shape or () if size > 1)
    if sizes not in ((shape[1],), tuple(shape)):
        raise ScanError(file.filename, _MASK, found=f"shape {stored.shape}", expected=expected)
    values = values_of(stored).reshape(-1, shape[1])
    if not ((values == 0) | (values == 1)).all():
        raise ScanError(file.filename, _MASK, found="other numbers", expected=expected)
    return values.astype(bool)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        value = value.item() if value.size == 1 else value.tolist()
    return text(value) if isinstance(value, bytes) else value
