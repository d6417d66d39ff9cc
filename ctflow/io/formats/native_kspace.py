"""ctflow's own file of k-space: everything that an inverse problem needs, in one self-describing HDF5 file.

::

    /                attributes format = "ctflow-kspace", version = 1, volume = 0 or 1
    /kspace          (slices, coils, height, width) or, of a volume, (coils, depth, height, width) complex64,
                     zero where not sampled; frequency 0 at n // 2, transforms unitary
    /mask            bool, broadcasts against (slices, height, width), or (depth, height, width)
    /coil_maps       optional, as /kspace, or with 1 in place of slices
    /noise           attribute std: of a complex sample, one number or one for each coil; without it the
                     noise is estimated from the data
    /image           attributes shape (height, width) of the finished image, which is the middle of the field
                     of view; optional pixel_size (height, width) and slice_distance in mm
    /truth           optional (slices, *shape) complex64, or (depth, *shape): the image that was measured
    /metadata        optional JSON text: where the data come from
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ctflow.io.atomic import replacing
from ctflow.io.complex_fields import (
    check_finite_complex,
    check_kspace_size,
    complex_dataset,
    read_complex,
)
from ctflow.io.errors import ScanError
from ctflow.io.fields import attribute_numbers, find, opened, text
from ctflow.io.kspace_mask import read_mask, stored_mask
from ctflow.io.kspace_recording import KspaceRecording, KspaceSamples

_FORMAT, _VERSION = "ctflow-kspace", 1


@dataclass(frozen=True)
class _Read:
    path: Path
    volume: bool
    std: float | tuple[float, ...] | None

    def __call__(self, start: int, stop: int) -> KspaceSamples:
        with opened(self.path) as file:
            shape = complex_dataset(file, "/kspace", ndims=(4,)).shape
            kspace = self._complex(file, "/kspace", start, stop)
            mask = read_mask(file, "/mask", shape[1:] if self.volume else (shape[0], *shape[2:]))
            maps = None
            if find(file, "/coil_maps") is not None:
                maps = self._complex(file, "/coil_maps", start, stop).expand(kspace.shape)
        if self.volume:
            mask = mask[None]
        elif len(mask) > 1:
            mask = mask[start:stop]
        std: float | Tensor | None = self.std if isinstance(self.std, float) else None
        if isinstance(self.std, tuple):
            std = torch.tensor(self.std).reshape((-1,) + (1,) * (kspace.ndim - 2))
        return KspaceSamples(kspace, mask, std, coil_maps=maps)

    def _complex(self, file: h5py.File, name: str, start: int, stop: int) -> Tensor:
        stored = complex_dataset(file, name, ndims=(4,))
        shared = self.volume or len(stored) == 1
        values = read_complex(stored, () if shared else slice(start, stop))
        axes = ("coil", "z", "y", "x") if self.volume else ("slice", "coil", "y", "x")
        check_finite_complex(self.path, name, values, axes, 0 if shared else start)
        return torch.from_numpy(values[None] if self.volume else values)


@dataclass(frozen=True)
class _ReadTruth:
    path: Path

    def __call__(self, start: int, stop: int) -> Tensor:
        with opened(self.path) as file:
            images = read_complex(complex_dataset(file, "/truth", ndims=(3,)), slice(start, stop))
        check_finite_complex(self.path, "/truth", images, ("slice", "y", "x"), start)
        return torch.from_numpy(images)


def recognises(file: h5py.File) -> bool:
    """Whether the file calls itself one of ours."""
    return text(file.attrs.get("format")) == _FORMAT


def recording(path: Path) -> KspaceRecording:
    """Return the shapes and the readers of a file.

    Raises
    ------
    ScanError
        If a field is missing, or contradicts another.
    """
    with opened(path) as file:
        (version,) = attribute_numbers(file, "/", "version", 1)
        if version != _VERSION:
            raise ScanError(path, "version", found=f"{version:g}", expected=_VERSION)
        volume = bool(attribute_numbers(file, "/", "volume", 1)[0])
        shape = complex_dataset(file, "/kspace", ndims=(4,)).shape
        coils, matrix = (shape[0], shape[1:]) if volume else (shape[1], shape[2:])
        slices = matrix[0] if volume else shape[0]
        check_kspace_size(path, "/kspace", coils, matrix)
        stored_mask(file, "/mask", matrix if volume else (slices, *matrix))
        image = tuple(int(n) for n in attribute_numbers(file, "/image", "shape", 2))
        if not all(1 <= n <= full for n, full in zip(image, matrix[-2:], strict=True)):
            raise ScanError(
                path, "/image attribute shape", found=image, expected=f"at most {tuple(matrix[-2:])}"
            )
        sides = _optional(file, "pixel_size", 2)
        distance = _optional(file, "slice_distance", 1)
        has_truth = find(file, "/truth") is not None
        if has_truth and complex_dataset(file, "/truth", ndims=(3,)).shape != (slices, *image):
            found = f"shape {file['/truth'].shape}"
            raise ScanError(path, "/truth", found=found, expected=f"shape {(slices, *image)}")
        has_maps = find(file, "/coil_maps") is not None
        if has_maps:
            found_maps = complex_dataset(file, "/coil_maps", ndims=(4,)).shape
            shapes = {shape} if volume else {shape, (1, *shape[1:])}
            if found_maps not in shapes:
                raise ScanError(
                    path, "/coil_maps", found=f"shape {found_maps}", expected=f"shape {shape} of /kspace"
                )
        std = _std(file, coils)
        metadata = _metadata(file)
    return KspaceRecording(
        format="ctflow k-space",
        slices=1 if volume else slices,
        coils=coils,
        matrix=tuple(matrix),
        read=_Read(path, volume, std),
        image_shape=(image[0], image[1]),
        field_of_view=(image[0], image[1]),
        pixel_sides=None if sides is None else (sides[0], sides[1]),
        slice_distance=None if distance is None else distance[0],
        noise=None if std is None else "as the file has it",
        read_truth=_ReadTruth(path) if has_truth else None,
        metadata=metadata,
        has_coil_maps=has_maps,
    )


def write_kspace_scan(
    path: str | Path,
    kspace: ArrayLike | Tensor,
    mask: ArrayLike | Tensor,
    *,
    coil_maps: ArrayLike | Tensor | None = None,
    noise_std: float | Sequence[float] | None = None,
    truth: ArrayLike | Tensor | None = None,
    image_shape: Sequence[int] | None = None,
    pixel_size: float | Sequence[float] | None = None,
    slice_distance: float | None = None,
    volume: bool = False,
    metadata: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> None:
    """Write k-space in ctflow's own layout, whole or not at all.

    Parameters
    ----------
    path
        The file to write.
    kspace
        Shape (slices, coils, height, width), or (coils, depth, height, width) of a volume; frequency 0 at
        n // 2.
    mask
        Where it was sampled; zeros and ones that broadcast against (slices, height, width), or (depth,
        height, width). What is elsewhere in `kspace` is written as zero.
    coil_maps
        In the shape of `kspace`, or with 1 in place of slices; None where they are to be estimated.
    noise_std
        Standard deviation of a complex sample's noise, or one for each coil; None where unknown.
    truth
        The images that were measured, (slices, *image_shape) or (depth, *image_shape), complex.
    image_shape
        Height and width of the finished image, the middle of the field of view; all of it unless given.
    pixel_size, slice_distance
        In mm, where known; one pixel size, or height and width.
    volume
        Whether the slices were encoded together.
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
    samples = np.asarray(kspace)
    if samples.ndim != 4 or 0 in samples.shape or samples.dtype.kind != "c":
        expected = "complex, (coils, depth, height, width)" if volume else "(slices, coils, height, width)"
        raise ValueError(f"kspace: expected complex numbers of shape {expected}, found {samples.shape}")
    coils = samples.shape[0 if volume else 1]
    grid = samples.shape[1:] if volume else (samples.shape[0], *samples.shape[2:])
    sampled = np.asarray(mask)
    sampled = sampled.reshape((1,) * (3 - sampled.ndim) + sampled.shape)
    if sampled.ndim != 3 or any(n not in (1, full) for n, full in zip(sampled.shape, grid, strict=True)):
        raise ValueError(f"mask: expected a shape that broadcasts to {grid}, found {np.shape(mask)}")
    shape = tuple(samples.shape[-2:]) if image_shape is None else tuple(int(n) for n in image_shape)
    if len(shape) != 2 or any(not 1 <= n <= full for n, full in zip(shape, grid[-2:], strict=True)):
        raise ValueError(f"image_shape: expected at most {grid[-2:]}, found {shape}")
    maps = None if coil_maps is None else np.asarray(coil_maps, dtype=np.complex64)
    if maps is not None and maps.shape not in {
        samples.shape,
        *(() if volume else ((1, *samples.shape[1:]),)),
    }:
        raise ValueError(f"coil_maps: expected shape {samples.shape}, found {maps.shape}")
    images = None if truth is None else np.asarray(truth, dtype=np.complex64)
    if images is not None and images.shape != (grid[0], *shape):
        raise ValueError(f"truth: expected shape {(grid[0], *shape)}, found {images.shape}")
    stds = None if noise_std is None else np.asarray(noise_std, dtype=np.float64)
    if stds is not None and (stds.shape not in ((), (coils,)) or not (stds > 0).all()):
        raise ValueError(f"noise_std: expected one positive number, or {coils}, found {noise_std}")
    described = json.dumps(dict(metadata or {}), allow_nan=False)
    kept = sampled.astype(bool)
    where = kept[None] if volume else kept[:, None]
    with replacing(path, overwrite) as file:
        file.attrs.update(format=_FORMAT, version=_VERSION, volume=int(volume))
        _create(file, "kspace", np.where(where, samples, 0).astype(np.complex64))
        file["mask"] = kept
        if maps is not None:
            _create(file, "coil_maps", maps)
        noise, image = file.create_group("noise"), file.create_group("image")
        if stds is not None:
            noise.attrs["std"] = stds
        image.attrs["shape"] = shape
        if pixel_size is not None:
            image.attrs["pixel_size"] = np.broadcast_to(np.asarray(pixel_size, np.float64), (2,))
        if slice_distance is not None:
            image.attrs["slice_distance"] = float(slice_distance)
        if images is not None:
            _create(file, "truth", images)
        file["metadata"] = described


def _create(file: h5py.File, name: str, values: NDArray[np.complex64]) -> None:
    file.create_dataset(
        name, data=values, chunks=(1, *values.shape[1:]), compression="gzip", compression_opts=1, shuffle=True
    )


def _optional(file: h5py.File, attribute: str, count: int) -> tuple[float, ...] | None:
    holder = find(file, "/image")
    if holder is None or attribute not in holder.attrs:
        return None
    values = attribute_numbers(file, "/image", attribute, count)
    if not all(value > 0 for value in values):
        raise ScanError(
            file.filename, f"/image attribute {attribute}", found=values, expected="positive numbers"
        )
    return values


def _std(file: h5py.File, coils: int) -> float | tuple[float, ...] | None:
    holder = find(file, "/noise")
    if holder is None or "std" not in holder.attrs:
        return None
    count = np.size(holder.attrs["std"])
    stds = attribute_numbers(file, "/noise", "std", 1 if count == 1 else coils)
    if not all(std > 0 for std in stds):
        raise ScanError(file.filename, "/noise attribute std", found=stds, expected="positive numbers")
    return stds[0] if count == 1 else stds


def _metadata(file: h5py.File) -> dict[str, Any]:
    stored = find(file, "/metadata")
    try:
        found = {} if stored is None else json.loads(text(stored) or "")
    except json.JSONDecodeError as error:
        raise ScanError(file.filename, "/metadata", found=f"{error}", expected="JSON text") from error
    if not isinstance(found, dict):
        raise ScanError(file.filename, "/metadata", found=type(found).__name__, expected="a JSON object")
    return found
