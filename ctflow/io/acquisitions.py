"""The acquisitions of an ISMRMRD file, a readout each: what their heads say, and their samples in k-space."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctflow.io.errors import ScanError
from ctflow.io.fields import find

# Bit n - 1 of the flags, by n.
NOISE, CALIBRATION, CALIBRATION_AND_IMAGING, REVERSE = 19, 20, 21, 22
ASIDE = {
    23: "navigation",
    24: "phase correction",
    26: "feedback",
    27: "dummy",
    28: "feedback",
    29: "surface coil correction",
    30: "phase stabilisation",
    31: "phase stabilisation",
}
COUNTERS = ("contrast", "phase", "repetition", "set", "slice")
_PLAIN = (
    "flags",
    "number_of_samples",
    "active_channels",
    "discard_pre",
    "discard_post",
    "center_sample",
    "encoding_space_ref",
    "trajectory_dimensions",
    "sample_time_us",
)
_STEPS = ("kspace_encode_step_1", "kspace_encode_step_2")
_MOST, _AT_ONCE = 20_000_000, 2048


@dataclass(frozen=True)
class Acquisitions:
    """The heads of some acquisitions, a record each, with `row`, their place in the file."""

    path: Path
    group: str
    heads: NDArray[np.void]

    def __len__(self) -> int:
        return len(self.heads)

    def __getitem__(self, name: str) -> NDArray[Any]:
        """One field of all heads."""
        return self.heads[name]

    def where(self, wanted: NDArray[Any]) -> Acquisitions:
        """Return those that a mask or indices choose."""
        return Acquisitions(self.path, self.group, self.heads[wanted])

    def flagged(self, number: int) -> NDArray[np.bool_]:
        """Whether each has a flag."""
        return (self.heads["flags"] >> np.uint64(number - 1)) & np.uint64(1) == 1

    @property
    def field(self) -> str:
        """Of the file, as errors name it."""
        return f"/{self.group}/data"


def read_heads(file: h5py.File, group: str) -> Acquisitions:
    """Return the heads of all acquisitions; their samples are not read.

    Raises
    ------
    ScanError
        If the heads lack a field.
    """
    name = f"/{group}/data"
    stored = find(file, name)
    if (
        not isinstance(stored, h5py.Dataset)
        or stored.ndim != 1
        or not {"head", "data"} <= set(stored.dtype.names or ())
    ):
        found = "nothing" if stored is None else f"dtype {getattr(stored, 'dtype', 'of a group')}"
        raise ScanError(file.filename, name, found=found[:80], expected="acquisitions with head and data")
    if not 1 <= len(stored) <= _MOST:
        expected = f"1 to {_MOST} acquisitions"
        raise ScanError(file.filename, name, found=len(stored), expected=expected)
    names, inner = stored.dtype["head"].names or (), stored.dtype["head"]
    counters = (inner["idx"].names or ()) if "idx" in names else ()
    lacking = [word for word in _PLAIN if word not in names]
    lacking += [f"idx.{word}" for word in (*_STEPS, *COUNTERS) if word not in counters]
    if lacking:
        expected = "a head as ISMRMRD has it"
        raise ScanError(file.filename, f"{name} head", found=f"no {', '.join(lacking)}", expected=expected)
    raw = stored.fields("head")[()]
    wanted = [("row", "<i8")] + [(word, raw.dtype[word].newbyteorder("<").str) for word in _PLAIN]
    wanted += [(word, "<i4") for word in (*_STEPS, *COUNTERS)]
    heads = np.zeros(len(raw), wanted)
    heads["row"] = np.arange(len(raw))
    for word in _PLAIN:
        heads[word] = raw[word]
    for word in (*_STEPS, *COUNTERS):
        heads[word] = raw["idx"][word]
    return Acquisitions(Path(file.filename), group, heads)


def readouts(file: h5py.File, chosen: Acquisitions, field: str = "data") -> Iterator[tuple[int, Any]]:
    """Yield the place among the chosen ones and the numbers of each, a few thousand rows at a time."""
    found = find(file, chosen.field)
    if not isinstance(found, h5py.Dataset):
        raise ScanError(file.filename, chosen.field, found="nothing", expected="acquisitions")
    stored = found.fields(field)
    order = np.argsort(chosen["row"], kind="stable")
    rows = chosen["row"][order]
    start = 0
    while start < len(rows):
        stop = int(np.searchsorted(rows, rows[start] + _AT_ONCE))
        block = stored[int(rows[start]) : int(rows[stop - 1]) + 1]
        for k in range(start, stop):
            yield int(order[k]), block[int(rows[k] - rows[start])]
        start = stop


def read_samples(file: h5py.File, chosen: Acquisitions, channels: int) -> list[NDArray[np.complex64]]:
    """Return the samples (channels, samples) of each: discarded ones left out, reversed readouts turned.

    Raises
    ------
    ScanError
        If one has other channels, another number of samples than it says, or samples that are not finite.
    """
    reverse = chosen.flagged(REVERSE)
    lines: list[NDArray[np.complex64]] = [np.empty((0, 0), np.complex64)] * len(chosen)
    for k, numbers in readouts(file, chosen):
        head = chosen.heads[k]
        count, where = int(head["number_of_samples"]), f"{chosen.field} acquisition {head['row']}"
        if head["active_channels"] != channels:
            found = f"{head['active_channels']} channels"
            raise ScanError(chosen.path, where, found=found, expected=f"{channels} as the others have")
        if len(numbers) != 2 * channels * count:
            expected = f"{channels} x {count} complex ones as its head says"
            raise ScanError(chosen.path, where, found=f"{len(numbers)} numbers", expected=expected)
        if not np.isfinite(np.sum(numbers, dtype=np.float64)):
            found = f"{np.count_nonzero(~np.isfinite(numbers))} numbers that are not"
            raise ScanError(chosen.path, where, found=found, expected="finite numbers")
        line = np.ascontiguousarray(numbers, dtype=np.float32).view(np.complex64).reshape(channels, count)
        line = line[:, head["discard_pre"] : count - head["discard_post"]]
        lines[k] = line[:, ::-1] if reverse[k] else line
    return lines


def spans(chosen: Acquisitions, width: int) -> NDArray[np.int64]:
    """Return where the first and one past the last sample of each lie among `width`, shape (n, 2).

    The centre of the echo goes to width // 2. A centre of 0 with more than half the samples is one that was
    not set: then the middle is taken.

    Raises
    ------
    ScanError
        If one does not fit.
    """
    kept = chosen["number_of_samples"].astype(np.int64) - chosen["discard_pre"] - chosen["discard_post"]
    stated = chosen["center_sample"].astype(np.int64)
    centre = stated - chosen["discard_pre"]
    centre = np.where(chosen.flagged(REVERSE), kept - 1 - centre, centre)
    centre = np.where((stated == 0) & (kept > width // 2), kept // 2, centre)
    start = width // 2 - centre
    wrong = np.flatnonzero((kept < 1) | (start < 0) | (start + kept > width))
    if wrong.size:
        head = chosen.heads[wrong[0]]
        found = f"{kept[wrong[0]]} samples with the centre at {centre[wrong[0]]}"
        expected = f"some that fit into {width} with the centre at {width // 2}"
        raise ScanError(
            chosen.path, f"{chosen.field} acquisition {head['row']}", found=found, expected=expected
        )
    return np.stack((start, start + kept), -1)


def positions(
    chosen: Acquisitions, matrix: Sequence[int], centres: Sequence[int | None]
) -> NDArray[np.int64]:
    """Return the rows of k-space, counted through all slices of a volume, that each is; shape (n,).

    Parameters
    ----------
    matrix
        ([depth,] height, width).
    centres
        Values of the counters along the axes but the last that are the centre of k-space; None: the middle.

    Raises
    ------
    ScanError
        If one lies outside.
    """
    place = np.zeros(len(chosen), np.int64)
    steps = _STEPS[::-1] if len(matrix) == 3 else _STEPS[:1]
    for step, size, centre in zip(steps, matrix, centres, strict=False):
        at = chosen[step] + (0 if centre is None else size // 2 - centre)
        wrong = np.flatnonzero((at < 0) | (at >= size))
        if wrong.size:
            where = f"{chosen.field} acquisition {chosen['row'][wrong[0]]} {step}"
            value, middle = chosen[step][wrong[0]], size // 2 if centre is None else centre
            expected = f"a step among {size} about {middle}"
            raise ScanError(chosen.path, where, found=value, expected=expected)
        place = place * size + at
    return place


def placed(
    lines: Sequence[NDArray[np.complex64]],
    rows: NDArray[np.int64],
    spans: NDArray[np.int64],
    channels: int,
    matrix: Sequence[int],
) -> tuple[Tensor, Tensor]:
    """Return k-space (channels, *matrix), the mean of what was measured more than once, and how often it was.

    The second has shape `matrix`, float32.
    """
    *lead, width = matrix
    total = int(np.prod(lead))
    kspace = np.zeros((total, channels, width), np.complex64)
    counts = np.zeros((total, width), np.float32)
    for start, stop in np.unique(spans, axis=0) if len(lines) else ():
        same = np.flatnonzero((spans == (start, stop)).all(-1))
        np.add.at(kspace[:, :, start:stop], rows[same], np.stack([lines[int(k)] for k in same]))
        np.add.at(counts[:, start:stop], rows[same], np.float32(1))
    kspace /= np.maximum(counts, 1)[:, None]
    by_channel = torch.from_numpy(np.ascontiguousarray(kspace.transpose(1, 0, 2)))
    return by_channel.reshape(channels, *matrix), torch.from_numpy(counts).reshape(tuple(matrix))
