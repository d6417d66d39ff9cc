"""The reconstruction file: images, and everything that made them.

::

    /                  attributes format = "ctflow-reconstruction", version = 1, created (UTC), orientation,
                       units and pixel_size of the images, and what else made them; texts and numbers
                       as they are, anything nested as JSON text; of a volume also slice_distance in mm;
                       of MR slices whose truth the measured file knows volume_quality: nmse, psnr and ssim
                       as fastMRI defines them for a volume, and complex_nmse
    /reconstruction    (slices, height, width) float32, NaN where a slice failed; of complex images the
                       magnitude, which viewers can show
    /complex           of complex images, likewise but complex64 (r and i): the images themselves
    /std               optional, likewise: standard deviation of the samples
    /samples           optional, (samples, slices, height, width), float32 or complex64
    /status            (slices,) text: "done", or "failed: " and why
    /data_fit          optional, (slices,) float32: root mean square of the residual over the noise; the
                       slices of a volume share one
    /psnr, /ssim       optional, (slices,) float32, where the measured file knows the truth
    /blocks            optional, (blocks,) JSON text: of the slices that were computed together, what made
                       them and how long it took
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ctflow.io.atomic import replacing
from ctflow.io.errors import OutputError, ScanError
from ctflow.io.fields import find, opened, text, values_of

_FORMAT, _VERSION = "ctflow-reconstruction", 1
ORIENTATION = "axes slice, row, column; x grows with the column, y shrinks with the row"


@dataclass(frozen=True)
class Result:
    """What a reconstruction file holds.

    Attributes
    ----------
    images, std
        Shape (slices, height, width); NaN where a slice failed. Images are complex where they were.
    samples
        Shape (samples, slices, height, width).
    status
        For each slice "done", or "failed: " and why.
    data_fit
        Shape (slices,).
    attributes
        Everything else, as it was given to `write_result`.
    """

    images: Tensor
    status: tuple[str, ...]
    attributes: Mapping[str, Any]
    std: Tensor | None = None
    samples: Tensor | None = None
    data_fit: Tensor | None = None


def write_result(
    path: str | Path,
    images: Tensor,
    *,
    status: Sequence[str],
    attributes: Mapping[str, Any],
    std: Tensor | None = None,
    samples: Tensor | None = None,
    data_fit: ArrayLike | None = None,
    overwrite: bool = False,
) -> None:
    """Write a reconstruction file, whole or not at all; see `Result` for the shapes.

    Parameters
    ----------
    attributes
        JSON-able. `unit` and `pixel_size` are those of the images, the latter in mm, or None.

    Raises
    ------
    ValueError
        If the parts do not belong together.
    OutputError
        If the file cannot be written.
    """
    count = len(images)
    if images.ndim != 3:
        raise ValueError(f"images: expected shape (slices, height, width), found {tuple(images.shape)}")
    if len(status) != count:
        raise ValueError(f"status: expected one for each of {count} slices, found {len(status)}")
    if std is not None and std.shape != images.shape:
        raise ValueError(f"std: expected shape {tuple(images.shape)}, found {tuple(std.shape)}")
    if samples is not None and samples.shape[1:] != images.shape:
        expected = f"(samples, {', '.join(map(str, images.shape))})"
        raise ValueError(f"samples: expected shape {expected}, found {tuple(samples.shape)}")
    with replacing(path, overwrite) as file:
        describe_result(file, attributes)
        datasets = {**image_datasets(images), "std": std, "samples": samples}
        for name, volume in datasets.items():
            if volume is not None:
                create_volume(file, name, volume, attributes.get("unit") or "", attributes.get("pixel_size"))
        file.create_dataset("status", data=list(status), dtype=h5py.string_dtype())
        if data_fit is not None:
            file["data_fit"] = np.asarray(data_fit, dtype=np.float32)


def read_result(path: str | Path) -> Result:
    """Read a reconstruction file into memory.

    Raises
    ------
    OutputError
        If it is not one, or is damaged.
    """
    path = Path(path)
    try:
        with opened(path) as file:
            found = text(file.attrs.get("format"))
            if found != _FORMAT:
                raise OutputError(f"{path}: format: expected {_FORMAT!r}, found {found!r}")
            volumes = {
                name: torch.from_numpy(values_of(found))
                for name in ("reconstruction", "complex", "std", "samples", "data_fit")
                if isinstance(found := find(file, f"/{name}"), h5py.Dataset)
            }
            status = tuple(file["status"].asstr()[()])
            attributes = {name: _as_value(value) for name, value in file.attrs.items()}
    except ScanError as error:
        raise OutputError(str(error)) from error
    if "reconstruction" not in volumes:
        raise OutputError(f"{path}: /reconstruction: expected a dataset of images, found nothing")
    images = volumes.pop("reconstruction")
    return Result(volumes.pop("complex", images), status, attributes, **volumes)


def read_images(path: str | Path, rows: Sequence[int] | None = None) -> Tensor | None:
    """The images of a reconstruction file, or of a part of one, (slices, height, width); all, or some rows.

    None where it holds none, because every slice failed.
    """
    with opened(Path(path)) as file:
        name = "complex" if "complex" in file else "reconstruction"
        if name not in file:
            return None
        stored = file[name]
        if rows is None:
            return torch.from_numpy(stored[()])
        return torch.from_numpy(np.stack([stored[row] for row in rows]))


def read_description(path: str | Path) -> dict[str, Any]:
    """Everything that a reconstruction file says but for its images: attributes, and `status` of the slices.

    Raises
    ------
    OutputError
        If it is not one, or is damaged.
    """
    path = Path(path)
    try:
        with opened(path) as file:
            found = text(file.attrs.get("format"))
            if found != _FORMAT:
                raise OutputError(f"{path}: format: expected {_FORMAT!r}, found {found!r}")
            attributes = {name: _as_value(value) for name, value in file.attrs.items()}
            return {**attributes, "status": tuple(file["status"].asstr()[()])}
    except ScanError as error:
        raise OutputError(str(error)) from error


def file_sha256(path: str | Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_sha256(files: Sequence[str | Path]) -> str:
    """The SHA-256 of one file; of several, that of the lines "SHA-256  folder/name" in their order."""
    if len(files) == 1:
        return file_sha256(files[0])
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file_sha256(file)}  {'/'.join(Path(file).parts[-2:])}\n".encode())
    return digest.hexdigest()


def describe_result(file: h5py.File, attributes: Mapping[str, Any]) -> None:
    """Write what makes an HDF5 file a reconstruction file, and everything that made its images."""
    created = datetime.now(UTC).isoformat(timespec="seconds")
    file.attrs.update(format=_FORMAT, version=_VERSION, created=created, orientation=ORIENTATION)
    file.attrs.update({key: _as_attribute(value) for key, value in attributes.items() if value is not None})


def image_datasets(images: Tensor) -> dict[str, Tensor | None]:
    """The datasets that images become: of complex ones the magnitude, which every viewer shows, and all."""
    if images.is_complex():
        return {"reconstruction": images.abs(), "complex": images}
    return {"reconstruction": images, "complex": None}


def create_volume(
    file: h5py.File, name: str, volume: Tensor, unit: str, pixel_size: float | None = None
) -> h5py.Dataset:
    """Write images, shape (..., height, width), as one dataset that plain HDF5 decompresses."""
    values = np.ascontiguousarray(volume.detach().cpu().numpy())
    # One image a chunk: readers of single slices decompress no other.
    chunks = (1,) * (values.ndim - 2) + values.shape[-2:]
    stored = file.create_dataset(
        name, values.shape, values.dtype, chunks=chunks, compression="gzip", compression_opts=1, shuffle=True
    )
    for index in np.ndindex(values.shape[:-2]):
        stored.id.write_direct_chunk((*index, 0, 0), _compressed(values[index]))
    stored.attrs["units"] = unit
    if pixel_size is not None:
        stored.attrs["pixel_size_mm"] = pixel_size
    return stored


def _compressed(image: NDArray[Any]) -> bytes:
    """An image's bytes as HDF5's filters for shuffling and gzip would leave them.

    HDF5 itself would look for repeated strings in between, which noise has none of; runs of equal bytes are
    found in less than half the time, take less space, and other threads compute meanwhile.
    """
    shuffled = np.ascontiguousarray(image.view(np.uint8).reshape(image.size, image.itemsize).T)
    deflate = zlib.compressobj(1, strategy=zlib.Z_RLE)
    return deflate.compress(shuffled.data) + deflate.flush()


def _as_attribute(value: Any) -> Any:
    if isinstance(value, str):
        # A name in another encoding than the system's, which HDF5 has no text for.
        return value.encode("utf-8", "backslashreplace").decode()
    return value if isinstance(value, int | float) else json.dumps(value)


def _as_value(stored: Any) -> Any:
    if isinstance(stored, np.generic):
        return stored.item()
    if isinstance(stored, str) and stored[:1] in ("{", "["):
        try:
            return json.loads(stored)
        except json.JSONDecodeError:
            return stored
    return stored
