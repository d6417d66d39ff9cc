"""Data Exchange (DXchange), the layout of synchrotron tomography files (De Carlo et al., 2014).

`/exchange/data` (theta, y, x) holds detector counts, or in another order if its attribute `axes` says so;
`data_white` and `data_dark` (frames, y, x) the flat and dark fields, in some files split into `_start` and
`_end`; `theta` the angles in degrees. See https://dxfile.readthedocs.io.
"""

from __future__ import annotations

from dataclasses import dataclass
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
from ctflow.io.fields import check_finite, check_slice_size, dataset, find, numbers, opened, text, values_of
from ctflow.io.lengths import pixel_length, radians
from ctflow.io.recording import Recording
from operators.ct.corrections import flat_field, open_beam_counts
from operators.ct.geometry import Detector, ImageGrid, ParallelBeam
from operators.noise import NoiseModel

_DATA, _THETA, _DETECTOR = "/exchange/data", "/exchange/theta", "/measurement/instrument/detector"
_SUFFIXES = ("", "_start", "_end")


@dataclass(frozen=True)
class _Read:
    path: Path
    gain: float
    photons: float | None
    corrected: bool  # the data are transmissions, not counts

    def __call__(self, start: int, stop: int, views: NDArray[np.intp]) -> tuple[Tensor, NoiseModel]:
        return measurement(*self._transmission(start, stop, views))

    def problems(self, index: int) -> tuple[str, ...]:
        """Return what looks wrong in one slice."""
        with opened(self.path) as file:
            views = np.arange(_axes(file)[1][0])
        return odd_readings(*self._transmission(index, index + 1, views), index)

    def _transmission(self, start: int, stop: int, views: NDArray[np.intp]) -> tuple[Tensor, Tensor]:
        """Return transmission (slices, views, bins), NaN where there is no beam, and photons a bin."""
        with opened(self.path) as file:
            counts = _rows(file, _DATA, start, stop)
            if len(views) != counts.shape[1]:
                counts = counts[:, views]
            check_finite(self.path, _DATA, counts, start)
            if self.corrected:
                transmission = torch.from_numpy(counts)
                check_transmission(self.path, _DATA, transmission, start)
                open_beam = torch.ones(len(counts), 1, counts.shape[2])
            else:
                flats, darks = _flats(file, start, stop), _frames(file, "data_dark", start, stop)
                transmission = flat_field(torch.from_numpy(counts), flats, darks)
                open_beam = open_beam_counts(flats, darks)
        return transmission, photons_a_bin(open_beam, self.gain, self.photons)


def recognises(file: h5py.File) -> bool:
    """Whether the file has the group that all of these files have."""
    return isinstance(find(file, "/exchange"), h5py.Group)


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
    with opened(path) as file:
        views, rows, bins = _axes(file)[1]
        check_slice_size(file, _DATA, views, bins)
        corrected = _check_frames(file, rows, bins, photons)
        angles = _angles(file, views, angles_unit, assumed, missing)
        pixel_size = _pixel_size(file, assumed, missing)
        gain, noise = 1.0, f"Poisson, {photons:g} photons a bin" if photons else ""
        if corrected:
            missing.append("flat fields")
            assumed.append("data: transmissions, already corrected, since photons were given")
        else:
            if not _names(file, "data_dark"):
                missing.append("dark fields")
                assumed.append("dark fields: zero")
            if photons is None:
                gain, noise = _noise(file, rows, assumed)
        metadata = {
            name: value
            for name, place in (("title", "/exchange/title"), ("sample", "/measurement/sample/name"))
            if (value := text(find(file, place)))
        }
    if photons is not None:
        noise = f"Poisson, {photons:g} photons a bin"
    pitch = pixel_size or 1.0
    read = _Read(path, gain, photons, corrected)
    return Recording(
        format="DXchange",
        slices=rows,
        geometry=ParallelBeam(angles, Detector(bins, pitch)),
        grid=ImageGrid((bins, bins), pitch),
        unit="1/pixel" if pixel_size is None else "1/mm",
        read=read,
        noise=noise,
        axis_known=False,
        inspect=read.problems,
        metadata=metadata,
        assumed=tuple(assumed),
        missing=tuple(missing),
    )


def _axes(file: h5py.File, name: str = _DATA) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return where the axes theta (or frame), y, x lie in a dataset, and their lengths in that order."""
    stored = dataset(file, name, ndim=3)
    stated = text(stored.attrs.get("axes"))
    order: tuple[int, ...] = (0, 1, 2)
    if stated is not None:
        words = [word.strip().lower() for word in stated.replace(",", ":").split(":")]
        words = ["theta" if word.startswith(("theta", "angle")) else word for word in words]
        if sorted(words) != ["theta", "x", "y"]:
            expected = "an order of theta, y and x, such as 'theta:y:x'"
            raise ScanError(file.filename, f"{name} attribute axes", found=repr(stated), expected=expected)
        order = tuple(words.index(word) for word in ("theta", "y", "x"))
    return order, tuple(stored.shape[axis] for axis in order)


def _rows(file: h5py.File, name: str, start: int, stop: int) -> NDArray[np.float32]:
    """Return rows of the detector, float32 (rows, views or frames, bins), checked to be finite."""
    (theta, y, x), _ = _axes(file, name)
    chosen = [slice(None)] * 3
    chosen[y] = slice(start, stop)
    block = values_of(dataset(file, name, ndim=3), tuple(chosen)).transpose(y, theta, x)
    return np.ascontiguousarray(block, dtype=np.float32)


def _names(file: h5py.File, stem: str) -> list[str]:
    names = (f"/exchange/{stem}{suffix}" for suffix in _SUFFIXES)
    return [name for name in names if find(file, name) is not None]


def _frames(file: h5py.File, stem: str, start: int, stop: int) -> Tensor | None:
    blocks = []
    for name in _names(file, stem):
        blocks.append(_rows(file, name, start, stop))
        check_finite(file.filename, name, blocks[-1], start)
    return torch.from_numpy(np.concatenate(blocks, axis=1)) if blocks else None


def _flats(file: h5py.File, start: int, stop: int) -> Tensor:
    flats = _frames(file, "data_white", start, stop)
    if flats is None:
        raise _no_flats(file)
    return flats


def _no_flats(file: h5py.File) -> ScanError:
    return ScanError(
        file.filename,
        "/exchange/data_white",
        found="nothing",
        expected="flat fields (frames, y, x)",
        hint="if the data are already corrected transmissions, pass photons= (a bin's count without object)",
    )


def _check_frames(file: h5py.File, rows: int, bins: int, photons: float | None) -> bool:
    """Check the shapes of flats and darks; return whether the data have to be corrected ones."""
    for stem in ("data_white", "data_dark"):
        for name in _names(file, stem):
            shape = _axes(file, name)[1]
            if shape[1:] != (rows, bins):
                found = f"{shape[1]} rows of {shape[2]} bins"
                expected = f"{rows} rows of {bins} bins as in {_DATA}"
                raise ScanError(file.filename, name, found=found, expected=expected)
    corrected = not _names(file, "data_white")
    if corrected and photons is None:
        raise _no_flats(file)
    return corrected


def _noise(file: h5py.File, rows: int, assumed: list[str]) -> tuple[float, str]:
    """Return detector counts a photon, and the noise in words, from flats in the middle of the detector."""
    start = max(0, rows // 2 - ROWS_FOR_GAIN // 2)
    stop = min(rows, start + ROWS_FOR_GAIN)
    return gain_of_flats(_flats(file, start, stop), _frames(file, "data_dark", start, stop), assumed)


def _angles(
    file: h5py.File, views: int, unit: str | None, assumed: list[str], missing: list[str]
) -> NDArray[np.float64]:
    if find(file, _THETA) is None:
        missing.append("theta (angles)")
        assumed.append("theta: equally spaced from 0 to 180 degrees, both included")
        return np.linspace(0, np.pi, views)
    angles = numbers(file, _THETA)
    if len(angles) != views:
        shape = dataset(file, _DATA, ndim=3).shape
        found, hint = f"{len(angles)} angles for the {views} views of {_DATA}", None
        if len(angles) in shape:
            found += f" with shape {shape}: wrong axes order"
            hint = f"write the order into the attribute axes of {_DATA}, such as 'y:theta:x'"
        raise ScanError(file.filename, _THETA, found=found, expected="one angle a view", hint=hint)
    return radians(file, _THETA, angles, unit, assumed)


def _pixel_size(file: h5py.File, assumed: list[str], missing: list[str]) -> float | None:
    """Return the pixel size in mm, or None."""
    for name in ("actual_pixel_size_x", "actual_pixel_size", "pixel_size_x", "pixel_size"):
        place = f"{_DETECTOR}/{name}"
        size, there = pixel_length(file, place, missing)
        if size is not None and not name.startswith("actual"):
            assumed.append(f"pixel size: {place}, with no magnification between sample and detector")
        if there:
            return size
    return None
