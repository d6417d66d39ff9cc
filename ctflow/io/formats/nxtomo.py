"""NXtomo, the NeXus application definition for tomography (Koennecke et al., J. Appl. Cryst. 48, 301 (2015)).

A group of `definition` NXtomo, under any name (`entry`, `entry1/tomo_entry`, `entry0000`), holds::

    instrument/<detector>/data           (frames, y, x) counts; image_key (frames,) says what each is:
                                         0 projection, 1 flat, 2 dark, 3 invalid
    instrument/<detector>/x_pixel_size, x_rotation_axis_pixel_position, magnification
    sample/rotation_angle                (frames,) with an attribute units
    control/data                         (frames,) the beam monitor

The ESRF's files add `image_key_control`, which sets alignment frames apart by -1, and `sample/x_pixel_size`,
what a pixel is in the sample. See https://manual.nexusformat.org/classes/applications/NXtomo.html.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctflow.io.counts import (
    ROWS_FOR_GAIN,
    check_transmission,
    gain_of_flats,
    measurement,
    odd_readings,
    photons_a_bin,
)
from ctflow.io.errors import ScanError
from ctflow.io.fields import (
    check_finite,
    check_slice_size,
    dataset,
    find,
    numbers,
    opened,
    scalar,
    text,
    values_of,
)
from ctflow.io.lengths import pixel_length, radians
from ctflow.io.recording import Recording
from operators.ct.corrections import flat_field, normalise_beam, open_beam_counts
from operators.ct.geometry import Detector, ImageGrid, ParallelBeam
from operators.noise import NoiseModel

_PROJECTION, _FLAT, _DARK, _INVALID, _ALIGNMENT = 0, 1, 2, 3, -1
_DEEPEST_ENTRY, _MOST_GROUPS = 3, 10_000
# Frames in between that are read along.
_LARGEST_GAP = 32


@dataclass(frozen=True)
class _Frames:
    """Which frames of the detector are what, as indices in the order of acquisition."""

    projections: NDArray[np.intp]
    flats: NDArray[np.intp]
    darks: NDArray[np.intp]


@dataclass(frozen=True)
class _Read:
    path: Path
    entry: str
    data: str
    frames: _Frames
    gain: float
    photons: float | None

    def __call__(self, start: int, stop: int, views: NDArray[np.intp]) -> tuple[Tensor, NoiseModel]:
        return measurement(*self._transmission(start, stop, views))

    def problems(self, index: int) -> tuple[str, ...]:
        """Return what looks wrong in one slice."""
        views = np.arange(len(self.frames.projections))
        return odd_readings(*self._transmission(index, index + 1, views), index)

    def _transmission(self, start: int, stop: int, views: NDArray[np.intp]) -> tuple[Tensor, Tensor]:
        """Return transmission (slices, views, bins), NaN where there is no beam, and photons a bin."""
        used = self.frames.projections[views]
        with opened(self.path) as file:
            counts = _rows(file, self.data, used, start, stop)
            if not self.frames.flats.size:
                check_transmission(self.path, self.data, counts, start)
                transmission, open_beam = counts, torch.ones(len(counts), 1, counts.shape[2])
            else:
                flats, darks = _flats_and_darks(file, self.data, self.frames, start, stop)
                monitor = _monitor(file, self.entry, self.frames)
                if monitor is not None:
                    # Flats and projections at the strength that the beam had in the flats.
                    dark = 0.0 if darks is None else darks.mean(-2, keepdim=True)
                    usual = monitor[self.frames.flats].mean()
                    counts = normalise_beam(counts, monitor[used], usual, dark)
                    flats = normalise_beam(flats, monitor[self.frames.flats], usual, dark)
                transmission = flat_field(counts, flats, darks, taken=self.frames.flats, views=used)
                open_beam = open_beam_counts(flats, darks, taken=self.frames.flats, views=used)
        return transmission, photons_a_bin(open_beam, self.gain, self.photons)


def recognises(file: h5py.File) -> bool:
    """Whether the file has an entry that calls itself NXtomo."""
    return bool(_entries(file))


def recording(path: Path, *, angles_unit: str | None = None, photons: float | None = None) -> Recording:
    """Return the geometry and the reader of a file.

    Without flat fields the file can be read only if `photons` is given: then its data are taken for
    transmissions, already corrected.

    Raises
    ------
    ScanError
        If a field is missing, or contradicts another.
    """
    assumed: list[str] = []
    missing: list[str] = []
    problems: list[str] = []
    with opened(path) as file:
        entry, *others = _entries(file)
        if others:
            problems.append(f"{', '.join(others)}: further NXtomo entries, which are not read")
        detector = _detector(file, entry)
        data = f"{detector}/data"
        total, rows, bins = dataset(file, data, ndim=3).shape
        check_slice_size(file, data, total, bins)
        frames = _frames(file, detector, total, problems)
        angles = _angles(file, entry, total, frames, angles_unit, assumed)
        pixel_size = _pixel_size(file, entry, detector, assumed, missing)
        centre = _centre(file, detector, bins, assumed, problems)
        if _monitor(file, entry, frames) is None:
            missing.append("beam monitor")
            assumed.append("beam: as strong as interpolated between the flat fields")
        gain, noise = _noise(file, data, frames, rows, photons, assumed, missing)
        metadata = {
            name: value
            for name, place in (("title", "title"), ("sample", "sample/name"), ("start", "start_time"))
            if (value := text(find(file, f"{entry}/{place}")))
        }
    pitch = pixel_size or 1.0
    offset = 0.0 if centre is None else ((bins - 1) / 2 - centre) * pitch
    read = _Read(path, entry, data, frames, gain, photons)
    return Recording(
        format="NXtomo",
        slices=rows,
        geometry=ParallelBeam(angles, Detector(bins, pitch, offset)),
        grid=ImageGrid((bins, bins), pitch),
        unit="1/pixel" if pixel_size is None else "1/mm",
        read=read,
        noise=noise,
        axis_known=centre is not None,
        inspect=read.problems,
        metadata={**metadata, "entry": entry},
        assumed=tuple(assumed),
        missing=tuple(missing),
        problems=tuple(problems),
    )


def _entries(file: h5py.File) -> list[str]:
    """Return the groups that call themselves NXtomo, down to the third level."""
    groups = islice(_groups(file, "", 0), _MOST_GROUPS)
    return [name for name in groups if text(find(file, f"{name}/definition")) == "NXtomo"]


def _groups(file: h5py.File, name: str, depth: int) -> Iterator[str]:
    """Yield all groups of the file down to some depth; links are followed only to read fields."""
    group = file[name or "/"]
    for key in group:
        if isinstance(group.get(key, getlink=True), h5py.HardLink) and isinstance(group[key], h5py.Group):
            yield f"{name}/{key}"
            if depth + 1 < _DEEPEST_ENTRY:
                yield from _groups(file, f"{name}/{key}", depth + 1)


def _detector(file: h5py.File, entry: str) -> str:
    """Return the group of the detector that has frames and says what they are."""
    instrument = find(file, f"{entry}/instrument")
    names = list(instrument) if isinstance(instrument, h5py.Group) else []
    keyed = [
        name
        for name in (f"{entry}/instrument/{key}" for key in names)
        if any(find(file, f"{name}/{key}") is not None for key in ("image_key", "image_key_control"))
    ]
    if not keyed:
        found = f"instrument with {', '.join(names) or 'nothing'}"
        expected = "instrument/detector/image_key, which says what each frame is"
        raise ScanError(file.filename, entry, found=found, expected=expected)
    return next((name for name in keyed if name.endswith("/detector")), keyed[0])


def _frames(file: h5py.File, detector: str, total: int, problems: list[str]) -> _Frames:
    controls = find(file, f"{detector}/image_key_control") is not None
    name = f"{detector}/{'image_key_control' if controls else 'image_key'}"
    keys = numbers(file, name)
    if len(keys) != total:
        expected = f"{total} keys, one for each frame of {detector}/data"
        raise ScanError(file.filename, name, found=f"{len(keys)} keys", expected=expected)
    known = (_PROJECTION, _FLAT, _DARK, _INVALID, _ALIGNMENT)
    unknown = np.flatnonzero(~np.isin(keys, known))
    if unknown.size:
        raise ScanError(
            file.filename,
            name,
            found=f"{keys[unknown[0]]:g} at frame {unknown[0]}",
            expected="0 (projection), 1 (flat), 2 (dark), 3 (invalid) or -1 (alignment)",
        )
    for key, what in ((_INVALID, "invalid"), (_ALIGNMENT, "for alignment")):
        if count := int((keys == key).sum()):
            problems.append(f"{name}: {count} frames are {what} and left out")
    kinds = [np.flatnonzero(keys == key) for key in (_PROJECTION, _FLAT, _DARK)]
    if not kinds[0].size:
        raise ScanError(file.filename, name, found="no frame of key 0", expected="projections")
    return _Frames(*kinds)


def _rows(file: h5py.File, name: str, frames: NDArray[np.intp], start: int, stop: int) -> Tensor:
    """Return rows of the detector in some frames, float32 (rows, frames, bins), checked to be finite."""
    stored = dataset(file, name, ndim=3)
    # Ranges, and a choice in memory: HDF5 is slow at long lists of indices.
    runs = np.split(frames, np.flatnonzero(np.diff(frames) > _LARGEST_GAP) + 1)
    blocks = [
        values_of(stored, (slice(int(run[0]), int(run[-1]) + 1), slice(start, stop)))[run - run[0]]
        for run in runs
    ]
    values = np.ascontiguousarray(np.concatenate(blocks).transpose(1, 0, 2), dtype=np.float32)
    check_finite(file.filename, name, values, start)
    return torch.from_numpy(values)


def _flats_and_darks(
    file: h5py.File, data: str, frames: _Frames, start: int, stop: int
) -> tuple[Tensor, Tensor | None]:
    darks = _rows(file, data, frames.darks, start, stop) if frames.darks.size else None
    return _rows(file, data, frames.flats, start, stop), darks


def _monitor(file: h5py.File, entry: str, frames: _Frames) -> Tensor | None:
    """Return the beam monitor's reading for each frame, where there is one for all frames in use."""
    name = f"{entry}/control/data"
    if find(file, name) is None:
        return None
    readings = numbers(file, name)
    used = np.concatenate((frames.projections, frames.flats))
    if len(readings) <= used.max():
        expected = f"{used.max() + 1} readings, one for each frame"
        raise ScanError(file.filename, name, found=f"{len(readings)} readings", expected=expected)
    dim = used[readings[used] <= 0]
    if dim.size:
        found = f"{readings[dim[0]]:g} at frame {dim[0]}"
        raise ScanError(file.filename, name, found=found, expected="positive readings")
    return torch.from_numpy(readings)


def _noise(
    file: h5py.File,
    data: str,
    frames: _Frames,
    rows: int,
    photons: float | None,
    assumed: list[str],
    missing: list[str],
) -> tuple[float, str]:
    """Return detector counts a photon, and the noise in words, from flats in the middle of the detector."""
    if not frames.flats.size:
        if photons is None:
            hint = "if the data are already corrected transmissions, pass photons= (a bin's count in air)"
            expected = "flat fields: frames of image_key 1"
            raise ScanError(file.filename, data, found="none", expected=expected, hint=hint)
        missing.append("flat fields")
        assumed.append("data: transmissions, already corrected, since photons were given")
    elif not frames.darks.size:
        missing.append("dark fields")
        assumed.append("dark fields: zero")
    if photons is not None:
        return 1.0, f"Poisson, {photons:g} photons a bin"
    start = max(0, rows // 2 - ROWS_FOR_GAIN // 2)
    flats, darks = _flats_and_darks(file, data, frames, start, min(rows, start + ROWS_FOR_GAIN))
    return gain_of_flats(flats, darks, assumed)


def _angles(
    file: h5py.File, entry: str, total: int, frames: _Frames, unit: str | None, assumed: list[str]
) -> NDArray[np.float64]:
    name = f"{entry}/sample/rotation_angle"
    angles = numbers(file, name)
    if len(angles) != total:
        expected = f"{total} angles, one for each frame"
        raise ScanError(file.filename, name, found=f"{len(angles)} angles", expected=expected)
    return radians(file, name, angles[frames.projections], unit, assumed)


def _pixel_size(
    file: h5py.File, entry: str, detector: str, assumed: list[str], missing: list[str]
) -> float | None:
    """Return the size of a pixel in the sample in mm, or None."""
    in_sample = (f"{entry}/sample/x_pixel_size", f"{detector}/x_magnified_pixel_size")
    for name in (*in_sample, f"{detector}/x_pixel_size"):
        size, there = pixel_length(file, name, missing)
        if there and (size is None or name in in_sample):
            return size
        if size is not None:
            return size / _magnification(file, detector, name, assumed)
    return None


def _magnification(file: h5py.File, detector: str, size: str, assumed: list[str]) -> float:
    name = f"{detector}/magnification"
    magnification = scalar(file, name)
    if magnification is None:
        assumed.append(f"pixel size: {size}, with no magnification between sample and detector")
        return 1.0
    if magnification <= 0:
        raise ScanError(file.filename, name, found=magnification, expected="a positive number")
    return magnification


def _centre(
    file: h5py.File, detector: str, bins: int, assumed: list[str], problems: list[str]
) -> float | None:
    """Return the rotation axis in bins, or None."""
    name = f"{detector}/x_rotation_axis_pixel_position"
    position = scalar(file, name)
    if position is None:
        return None
    # The ESRF's files count from the middle of the detector, others from its first pixel.
    from_middle = find(file, f"{detector}/image_key_control") is not None
    centre = position + (bins - 1) / 2 if from_middle else position
    if not 0 <= centre <= bins - 1:
        problems.append(f"{name}: {position:g} is not on the {bins} pixels of a row; searched for instead")
        return None
    assumed.append(f"rotation axis: counted from the {'middle' if from_middle else 'first pixel'} of the row")
    return centre
