"""The reconstruction file: images, and everything that made them.

::

    /                  attributes format = "ctflow-reconstruction", version = 1, created (UTC), orientation,
                       units and pixel_size of the images, and what else made them; texts and numbers
                       as they are, anything nested as JSON text; of a volume also slice_distance in mm
    /reconstruction    (slices, height, width) float32 or complex64, NaN where a slice failed
    /std               optional, likewise: standard deviation of the samples
    /samples           optional, (samples, slices, height, width)
    /status            (slices,) text: "done", or "failed: " and why
    /data_fit          optional, (slices,) float32: root mean square of the residual over the noise; the
                       slices of a volume share one
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import ArrayLike
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
        Shape (slices, height, width); NaN where a slice failed.
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
    created = datetime.now(UTC).isoformat(timespec="seconds")
    written = {name: _as_attribute(value) for name, value in attributes.items() if value is not None}
    with replacing(path, overwrite) as file:
        file.attrs.update(format=_FORMAT, version=_VERSION, created=created, orientation=ORIENTATION)
        file.attrs.update(written)
        for name, volume in (("reconstruction", images), ("std", std), ("samples", samples)):
            if volume is not None:
                stored = _create(file, name, volume)
                stored.attrs["units"] = attributes.get("unit") or ""
                if attributes.get("pixel_size") is not None:
                    stored.attrs["pixel_size_mm"] = attributes["pixel_size"]
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
                for name in ("reconstruction", "std", "samples", "data_fit")
                if isinstance(found := find(file, f"/{name}"), h5py.Dataset)
            }
            status = tuple(file["status"].asstr()[()])
            attributes = {name: _as_value(value) for name, value in file.attrs.items()}
    except ScanError as error:
        raise OutputError(str(error)) from error
    if "reconstruction" not in volumes:
        raise OutputError(f"{path}: /reconstruction: expected a dataset of images, found nothing")
    return Result(volumes.pop("reconstruction"), status, attributes, **volumes)


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


def _create(file: h5py.File, name: str, volume: Tensor) -> h5py.Dataset:
    values = volume.detach().cpu().numpy()
    # One image a chunk: readers of single slices decompress no other.
    chunks = (1,) * (values.ndim - 2) + values.shape[-2:]
    return file.create_dataset(
        name, data=values, chunks=chunks, compression="gzip", compression_opts=1, shuffle=True
    )


def _as_attribute(value: Any) -> Any:
    return value if isinstance(value, str | int | float) else json.dumps(value)


def _as_value(stored: Any) -> Any:
    if isinstance(stored, np.generic):
        return stored.item()
    if isinstance(stored, str) and stored[:1] in ("{", "["):
        try:
            return json.loads(stored)
        except json.JSONDecodeError:
            return stored
    return stored
