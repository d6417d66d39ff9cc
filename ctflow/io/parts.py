"""Parts of a reconstruction file: what one block of slices gave, on disk before the next is computed.

::

    recon.h5.parts/             beside recon.h5, while a job is at it
        000004-000008.h5        slices 4 to 7
            /                   attributes format = "ctflow-part", version = 1, fingerprint, and as JSON text
                                what made the images and how long it took
            /status             as in the reconstruction file
            /reconstruction     and the other datasets of the reconstruction file; NaN where a slice failed.
                                None of them where every slice failed
        lock                    held by the process that writes here
        plan.json               what it is at

A part appears under its name when it is complete and on disk. Images are stored as they will be in the
reconstruction file, so that their compressed bytes are copied when it is assembled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ctflow.io.atomic import check_room, replacing, replacing_file
from ctflow.io.errors import OutputError, ScanError
from ctflow.io.fields import opened, text
from ctflow.io.results import create_volume, describe_result

_FORMAT, _VERSION = "ctflow-part", 1
_AXIS = "slice_axis"


@dataclass(frozen=True)
class Part:
    """What a block of slices gave.

    Attributes
    ----------
    slices
        Which of the scan.
    status
        For each "done", or "failed: " and why.
    volumes
        Tensors (slices, height, width), or with samples before the slices; empty where every slice failed.
    numbers
        Of each slice, such as `data_fit`, shape (slices,).
    about
        JSON-able: what made the images.
    """

    slices: range
    status: tuple[str, ...]
    volumes: Mapping[str, Tensor] = field(default_factory=dict)
    numbers: Mapping[str, Sequence[float]] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def failed(self) -> dict[int, str]:
        """Number in the scan and reason of the slices that failed."""
        return failures(self.slices, self.status)


def failures(slices: range, status: Sequence[str]) -> dict[int, str]:
    """Number and reason of the slices that failed, of their status in a file."""
    reasons = (line.removeprefix("failed: ") if line != "done" else None for line in status)
    return {i: reason for i, reason in zip(slices, reasons, strict=True) if reason is not None}


def parts_folder(output: Path) -> Path:
    """Where the parts of a reconstruction file are."""
    return output.with_name(f"{output.name}.parts")


def part_file(folder: Path, slices: range) -> Path:
    """The part of a block."""
    return folder / f"{slices.start:06d}-{slices.stop:06d}.h5"


def write_part(
    folder: Path, part: Part, fingerprint: str, unit: str = "", pixel_size: float | None = None
) -> None:
    """Write a part, whole or not at all.

    Raises
    ------
    OutputError
        If it cannot be written, as on a full disk.
    """
    image = _image(part, fingerprint, unit, pixel_size)
    with replacing_file(part_file(folder, part.slices), overwrite=True) as temporary:
        temporary.write_bytes(image)


def _image(part: Part, fingerprint: str, unit: str, pixel_size: float | None) -> bytes:
    """The bytes of a part's file.

    It is made in memory, for HDF5 does not get over a disk that is full.
    """
    with h5py.File("part", "w", driver="core", backing_store=False) as file:
        file.attrs.update(format=_FORMAT, version=_VERSION, fingerprint=fingerprint)
        file.attrs["about"] = json.dumps(part.about)
        for name, volume in part.volumes.items():
            stored = create_volume(file, name, volume, unit, pixel_size)
            stored.attrs[_AXIS] = volume.ndim - 3
        for name, values in part.numbers.items():
            file.create_dataset(name, data=np.asarray(values, np.float32)).attrs[_AXIS] = 0
        file.create_dataset("status", data=list(part.status), dtype=h5py.string_dtype())
        file.flush()
        return bytes(file.id.get_file_image())


def read_status(folder: Path, slices: range, fingerprint: str) -> tuple[str, ...] | None:
    """The status of a part's slices; None where there is no part of that fingerprint, or a damaged one."""
    path = part_file(folder, slices)
    if not path.is_file():
        return None
    try:
        with opened(path) as file:
            if (text(file.attrs.get("format")), text(file.attrs.get("fingerprint"))) != (
                _FORMAT,
                fingerprint,
            ):
                return None
            status = tuple(file["status"].asstr()[()])
    except (ScanError, KeyError, OSError, RuntimeError, ValueError):
        return None
    return status if len(status) == len(slices) else None


def read_about(folder: Path, slices: range) -> dict[str, Any]:
    """What made a part's images."""
    with opened(part_file(folder, slices)) as file:
        return dict(json.loads(text(file.attrs["about"]) or "{}"))


def assemble(
    output: Path,
    folder: Path,
    blocks: Sequence[range],
    attributes: Mapping[str, Any],
    *,
    overwrite: bool,
) -> None:
    """Put the parts of all blocks together into a reconstruction file, whole or not at all.

    One part is open at a time, and images are copied without being decompressed.

    Raises
    ------
    OutputError
        If the file cannot be written, or the parts do not belong together.
    """
    check_room(output, sum(part_file(folder, block).stat().st_size for block in blocks))
    count, first = sum(len(block) for block in blocks), blocks[0].start
    status: list[str] = []
    about: list[str] = []
    with replacing(output, overwrite) as file:
        describe_result(file, attributes)
        for block in blocks:
            with opened(part_file(folder, block)) as part:
                status.extend(part["status"].asstr()[()])
                about.append(text(part.attrs["about"]) or "{}")
                for name, stored in part.items():
                    if name != "status":
                        _copy(stored, _room_for(file, name, stored, count), block.start - first)
        file.create_dataset("status", data=status, dtype=h5py.string_dtype())
        file.create_dataset("blocks", data=about, dtype=h5py.string_dtype())


def split(output: Path, folder: Path, blocks: Sequence[range], k: int, fingerprint: str) -> None:
    """Take block `k` of those that a reconstruction file was assembled from out of it, as a part."""
    block = blocks[k]
    rows = slice(block.start - blocks[0].start, block.stop - blocks[0].start)
    with opened(output) as file, replacing(part_file(folder, block), overwrite=True) as part:
        part.attrs.update(format=_FORMAT, version=_VERSION, fingerprint=fingerprint)
        part.attrs["about"] = file["blocks"].asstr()[k]
        part.create_dataset("status", data=file["status"].asstr()[rows], dtype=h5py.string_dtype())
        for name, stored in file.items():
            if _AXIS in stored.attrs:
                _copy(stored, _room_for(part, name, stored, len(block)), -rows.start)


def _room_for(file: h5py.File, name: str, like: h5py.Dataset, count: int) -> h5py.Dataset:
    """The dataset of that name with room for so many slices, NaN as long as nothing is written."""
    axis = int(like.attrs[_AXIS])
    shape = (*like.shape[:axis], count, *like.shape[axis + 1 :])
    if name in file:
        if file[name].shape != shape or file[name].dtype != like.dtype:
            raise OutputError(f"{file.filename}: {name}: expected images of {shape}, found {like.shape}")
        return file[name]
    options: dict[str, Any] = {}
    if like.chunks is not None:
        options = {"chunks": like.chunks, "compression": like.compression, "shuffle": like.shuffle}
        options["compression_opts"] = like.compression_opts
    room = file.create_dataset(name, shape, like.dtype, fillvalue=like.dtype.type(np.nan), **options)
    room.attrs.update(like.attrs)
    return room


def _copy(source: h5py.Dataset, target: h5py.Dataset, shift: int) -> None:
    """Copy what fits of the source, moved by `shift` along the axis of slices."""
    axis = int(source.attrs[_AXIS])
    if source.chunks is None:
        begin, end = max(0, -shift), min(source.shape[axis], target.shape[axis] - shift)
        values: NDArray[Any] = source[(slice(None),) * axis + (slice(begin, end),)]
        target[(slice(None),) * axis + (slice(begin + shift, end + shift),)] = values
        return
    for k in range(source.id.get_num_chunks()):
        offset = list(source.id.get_chunk_info(k).chunk_offset)
        mask, stored = source.id.read_direct_chunk(tuple(offset))
        offset[axis] += shift
        if 0 <= offset[axis] < target.shape[axis]:
            target.id.write_direct_chunk(tuple(offset), stored, mask)
