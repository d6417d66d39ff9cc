"""ISMRM raw data (Inati et al., Magn. Reson. Med. 77 (2017); https://ismrmrd.readthedocs.io).

A group, mostly `/dataset`, with `xml`, the header, and `data`, the acquisitions; other groups are images and
left alone. Acquisitions are sorted by their counters and never by their order. Slices are those of all
contrasts, phases, repetitions and sets, the slice's counter fastest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctflow.io.acquisitions import (
    ASIDE,
    CALIBRATION,
    CALIBRATION_AND_IMAGING,
    COUNTERS,
    NOISE,
    Acquisitions,
    placed,
    positions,
    read_heads,
    read_samples,
    spans,
)
from ctflow.io.complex_fields import check_kspace_size
from ctflow.io.errors import ScanError
from ctflow.io.fields import find, opened, text
from ctflow.io.ismrmrd_header import Encoding, Header, parse_header
from ctflow.io.kspace_grid import crop_readout
from ctflow.io.kspace_recording import KspaceRecording, KspaceSamples
from ctflow.io.spokes import TRAJECTORIES, ReadSpokes, factors_of
from operators.mri.coils import noise_covariance, whitening_matrix


@dataclass(frozen=True)
class _Read:
    imaging: Acquisitions
    calibration: Acquisitions
    frames: NDArray[np.int32]  # (frames, counters)
    channels: int
    matrix: tuple[int, ...]  # as it was encoded
    width: int  # of the matrix, once readout oversampling is removed
    centres: tuple[int | None, ...]
    whitening: Tensor | None

    def __call__(self, start: int, stop: int) -> KspaceSamples:
        found = [self._frame(self.frames[k]) for k in range(start, stop)]
        kspace, counts = torch.stack([one[0] for one in found]), torch.stack([one[1] for one in found])
        dense = [one[2] for one in found if one[2] is not None]
        calibration = mask = None
        if len(dense) == len(found):
            calibration = torch.stack([one[0] for one in dense])
            mask = torch.stack([one[1] for one in dense]) > 0
        return KspaceSamples(
            kspace,
            counts > 0,
            None if self.whitening is None else 1.0,
            counts if bool((counts > 1).any()) else None,
            calibration=calibration,
            calibration_mask=mask,
            whitening=self.whitening,
        )

    def _frame(self, frame: NDArray[np.int32]) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor] | None]:
        """Return k-space, counts, and both of the calibration lines with those of the image."""
        with opened(self.imaging.path) as file:
            kspace, counts = self._placed(file, _of_frame(self.imaging, frame))
            lines = _of_frame(self.calibration, frame)
            if not len(lines):  # one calibration a slice, for all repetitions and the like
                lines = self.calibration.where(self.calibration["slice"] == frame[-1])
            if not len(lines):
                return kspace, counts, None
            apart, counts_apart = self._placed(file, lines)
        both = torch.where(counts > 0, kspace, apart)
        return kspace, counts, (both, torch.maximum(counts, counts_apart))

    def _placed(self, file: h5py.File, chosen: Acquisitions) -> tuple[Tensor, Tensor]:
        lines = read_samples(file, chosen, self.channels)
        rows = positions(chosen, self.matrix, self.centres)
        kspace, counts = placed(lines, rows, spans(chosen, self.matrix[-1]), self.channels, self.matrix)
        if self.whitening is not None:
            kspace = torch.einsum("dc,c...->d...", self.whitening, kspace)
        return crop_readout(kspace, -1, self.width), counts[..., : self.width]


def recognises(file: h5py.File) -> bool:
    """Whether a group of the file has a header and acquisitions."""
    return bool(_groups(file))


def recording(path: Path) -> KspaceRecording:
    """Return the shapes and the reader of a file.

    Raises
    ------
    ScanError
        If the header or the acquisitions cannot be used; those that are not Cartesian, such as echo-planar
        ones, which need corrections of their own, are named.
    """
    assumed: list[str] = []
    missing: list[str] = []
    problems: list[str] = []
    with opened(path) as file:
        (group, *others) = _groups(file)
        if others:
            expected = "one group of acquisitions"
            raise ScanError(path, "groups", found=", ".join((group, *others)), expected=expected)
        name = f"/{group}/xml"
        header = parse_header(path, name, text(find(file, name)) or "")
        every = read_heads(file, group)
        imaging, calibration, noise = _sorted_out(every, assumed)
        encoding = header.encodings[0]
        if encoding.trajectory not in ("cartesian", *TRAJECTORIES):
            expected = f"cartesian, {', '.join(TRAJECTORIES)}; others need corrections of their own"
            raise ScanError(path, f"{name} trajectory", found=repr(encoding.trajectory), expected=expected)
        channels = int(imaging["active_channels"][0])
        whitening = _whitening(file, noise, imaging, header, missing)
        if encoding.trajectory != "cartesian":
            return _along_trajectories(file, header, imaging, whitening, assumed, missing)
    z, (height, width) = encoding.encoded.matrix[2], encoding.encoded.matrix[1::-1]
    volume = z > 1 and int(imaging["kspace_encode_step_2"].max()) > 0
    matrix = (z, height, width) if volume else (height, width)
    check_kspace_size(path, f"{name} encodedSpace", channels, matrix)
    frames = _frames(imaging)
    if volume and len(frames) > 1:
        found = f"{len(frames)} volumes ({_counted(frames)})"
        raise ScanError(path, f"/{group}/data", found=found, expected="one volume, or slices")
    centres = _centres(encoding, volume)
    # Both say now what cannot be placed.
    rows, ends = positions(imaging, matrix, centres), spans(imaging, width)
    whole = bool((ends == (0, width)).all())
    shape, view, narrow = _image(encoding, whole)
    if not whole:
        share = (ends[:, 1] - ends[:, 0]).min() / width
        assumed.append(f"asymmetric echoes of {100 * share:.0f} % at least: zero-filled")
    _check_lines(rows, frames, imaging, encoding, matrix, assumed, problems)
    cropped = (*matrix[:-1], narrow)
    sides = encoding.recon.field_of_view
    recon = encoding.recon.matrix
    return KspaceRecording(
        format="ISMRMRD" if len(frames) == 1 or volume else f"ISMRMRD, {_counted(frames)}",
        slices=len(frames),
        coils=channels,
        matrix=cropped,
        read=_Read(imaging, calibration, frames, channels, matrix, narrow, centres, whitening),
        image_shape=shape,
        field_of_view=view,
        pixel_sides=_pixel_sides(encoding),
        slice_distance=sides[2] / recon[2] if volume and sides is not None and sides[2] > 0 else None,
        noise=None if whitening is None else "after whitening by the noise scan",
        metadata=_metadata(header, frames),
        phase_axis=-2,
        assumed=tuple(assumed),
        missing=tuple(missing),
        problems=tuple(problems),
    )


def _along_trajectories(
    file: h5py.File,
    header: Header,
    imaging: Acquisitions,
    whitening: Tensor | None,
    assumed: list[str],
    missing: list[str],
) -> KspaceRecording:
    encoding, channels = header.encodings[0], int(imaging["active_channels"][0])
    matrix = (encoding.encoded.matrix[1], encoding.encoded.matrix[0])
    check_kspace_size(imaging.path, "encodedSpace", channels, matrix)
    frames = _frames(imaging)
    factors = factors_of(file, imaging, matrix, assumed)
    shape, view, _ = _image(encoding, False)
    return KspaceRecording(
        format="ISMRMRD" if len(frames) == 1 else f"ISMRMRD, {_counted(frames)}",
        slices=len(frames),
        coils=channels,
        matrix=matrix,
        read=ReadSpokes(imaging, frames, channels, factors, whitening),
        image_shape=shape,
        field_of_view=view,
        pixel_sides=_pixel_sides(encoding),
        noise=None if whitening is None else "after whitening by the noise scan",
        metadata=_metadata(header, frames),
        trajectory=encoding.trajectory,
        assumed=tuple(assumed),
        missing=tuple(missing),
    )


def _frames(imaging: Acquisitions) -> NDArray[np.int32]:
    """Return the counters of all slices, in order, (slices, counters)."""
    return np.unique(np.stack([imaging[counter] for counter in COUNTERS], -1), axis=0)


def _metadata(header: Header, frames: NDArray[np.int32]) -> dict[str, Any]:
    slices = [dict(zip(COUNTERS, map(int, frame), strict=True)) for frame in frames]
    return {**header.described, "slices_are": slices}


def _pixel_sides(encoding: Encoding) -> tuple[float, float] | None:
    sides, recon = encoding.recon.field_of_view, encoding.recon.matrix
    return None if sides is None else (sides[1] / recon[1], sides[0] / recon[0])


def _groups(file: h5py.File) -> list[str]:
    """Return the names of groups with a header and acquisitions; images have no heads."""
    found = []
    for name in file:
        data = find(file, f"/{name}/data")
        named = data.dtype.names or () if isinstance(data, h5py.Dataset) else ()
        if "head" in named and "data" in named and isinstance(find(file, f"/{name}/xml"), h5py.Dataset):
            found.append(name)
    return found


def _sorted_out(every: Acquisitions, assumed: list[str]) -> tuple[Acquisitions, Acquisitions, Acquisitions]:
    """Return acquisitions of the image, of the calibration alone and of the noise."""
    noise = every.flagged(NOISE)
    aside = np.zeros(len(every), bool)
    for number, what in ASIDE.items():
        flagged = every.flagged(number) & ~noise & ~aside
        if flagged.any():
            assumed.append(f"{int(flagged.sum())} acquisitions of {what}: left out")
        aside |= flagged
    elsewhere = (every["encoding_space_ref"] != 0) & ~noise & ~aside
    if elsewhere.any():
        assumed.append(f"{int(elsewhere.sum())} acquisitions of encoding spaces other than 0: left out")
    alone = every.flagged(CALIBRATION) & ~every.flagged(CALIBRATION_AND_IMAGING)
    rest = ~(noise | aside | elsewhere)
    imaging = every.where(rest & ~alone)
    if not len(imaging):
        found = f"none among {len(every)} acquisitions"
        raise ScanError(every.path, every.field, found=found, expected="acquisitions of an image")
    return imaging, every.where(rest & alone), every.where(noise)


def _whitening(
    file: h5py.File, noise: Acquisitions, imaging: Acquisitions, header: Header, missing: list[str]
) -> Tensor | None:
    """Return W with W psi W^H = 1 for the covariance psi of the imaging lines, or None without a noise scan.

    The noise scan's covariance grows with the bandwidth, which is one over the dwell time.
    """
    if not len(noise):
        where = f", but in another measurement, {header.noise_elsewhere}" if header.noise_elsewhere else ""
        missing.append(f"noise scan{where}")
        return None
    channels = int(imaging["active_channels"][0])
    samples = torch.from_numpy(np.concatenate(read_samples(file, noise, channels), -1))
    dwell, dwell_noise = (float(np.median(one["sample_time_us"])) for one in (imaging, noise))
    ratio = dwell_noise / dwell if dwell > 0 and dwell_noise > 0 else 1.0
    if samples.shape[-1] < 2 * channels:
        found = f"{samples.shape[-1]} samples"
        expected = f"at least {2 * channels} for {channels} channels"
        raise ScanError(noise.path, "noise scan", found=found, expected=expected)
    try:
        psi = noise_covariance(samples, dwell_ratio=ratio, bandwidth=header.noise_bandwidth)
        return whitening_matrix(psi)
    except ValueError as error:
        expected = "noise of independent channels"
        raise ScanError(noise.path, "noise scan", found=error, expected=expected) from error


def _of_frame(acquisitions: Acquisitions, frame: NDArray[np.int32]) -> Acquisitions:
    same = np.ones(len(acquisitions), bool)
    for counter, value in zip(COUNTERS, frame, strict=True):
        same &= acquisitions[counter] == value
    return acquisitions.where(same)


def _counted(frames: NDArray[np.int32]) -> str:
    """Return how many of what there are."""
    numbers = [(len(np.unique(frames[:, k])), name) for k, name in enumerate(COUNTERS)]
    return ", ".join(f"{n} {name}s".replace("ss", "s") for n, name in numbers if n > 1)


def _centres(encoding: Encoding, volume: bool) -> tuple[int | None, ...]:
    limits = [encoding.limits.get(f"kspace_encoding_step_{k}") for k in ((2, 1) if volume else (1,))]
    return tuple(None if limit is None else limit.centre for limit in limits)


def _image(encoding: Encoding, whole: bool) -> tuple[tuple[int, int], tuple[int, int], int]:
    """Return the image's shape, the pixels of the matrix that it shows, and the width to be kept."""
    encoded, recon = encoding.encoded, encoding.recon
    shape, seen = [], []
    for axis in (1, 0):
        size, wanted = encoded.matrix[axis], recon.matrix[axis]
        if encoded.field_of_view is None or recon.field_of_view is None:
            part = min(size, wanted)
        else:
            part = round(size * recon.field_of_view[axis] / encoded.field_of_view[axis])
        if part > size:  # the image would show what was not encoded
            wanted, part = max(1, round(wanted * size / part)), size
        shape.append(wanted)
        seen.append(max(part, 1))
    return (shape[0], shape[1]), (seen[0], seen[1]), seen[1] if whole else encoded.matrix[0]


def _check_lines(
    rows: NDArray[np.int64],
    frames: NDArray[np.int32],
    imaging: Acquisitions,
    encoding: Encoding,
    matrix: tuple[int, ...],
    assumed: list[str],
    problems: list[str],
) -> None:
    """Say what the lines of the first frame tell about acceleration and partial Fourier."""
    first = np.ones(len(imaging), bool)
    for counter, value in zip(COUNTERS, frames[0], strict=True):
        first &= imaging[counter] == value
    height = matrix[-2]
    lines = np.unique(rows[first] % height)
    gaps = np.diff(lines)
    # Away from the centre, which may be sampled densely: the stride is the widest usual gap.
    stride = 1 if not gaps.size else int(np.bincount(gaps)[1:].nonzero()[0].max() + 1)
    outer = gaps[gaps == stride].size
    stated = encoding.acceleration[0]
    regular = gaps.size and outer >= 2
    if regular and not math.isclose(stride, stated) and stated >= 1:
        problems.append(f"acceleration: the header says {stated:g}, every {_ordinal(stride)} line is there")
    before, after = int(lines[0]), height - 1 - int(lines[-1])
    if max(before, after) > 2 * max(stride, 1) and abs(before - after) > 2 * max(stride, 1):
        part = 100 * (lines[-1] - lines[0] + 1) / height
        assumed.append(f"partial Fourier: {part:.0f} % of {height} lines; the rest is zero-filled")


def _ordinal(number: int) -> str:
    suffix = {1: "st", 2: "nd", 3: "rd"}.get(number if number < 20 else number % 10, "th")
    return "" if number == 1 else f"{number}{suffix}"
