"""2DeteCT, measured fan-beam scans of slices in three modes (Kiss et al., Sci. Data 10, 576 (2023)).

Folders of TIFF files, numbers in uint16 or float32::

    slice00001/mode1/sinogram.tif              (3601, 1912) counts; the last view is the first again
                     dark.tif                  (1, 1912)
                     flat1.tif, flat2.tif      (1, 1912), before and after

mode1 is low dose, mode2 high fidelity, mode3 hard on the beam. A path may name the folder of all slices, one
slice, or one mode of a slice. As the authors do, bins are summed in pairs and the last view is left out; in
the slices 1 to 2830 and 5521 to 5870 the detector stood one summed bin aside, which is undone by moving the
bins, exactly. The image is the authors' 1024 x 1024, pixel by pixel.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctflow.io.counts import gain_of_flats, measurement, odd_readings, photons_a_bin
from ctflow.io.errors import ScanError
from ctflow.io.fields import check_finite
from ctflow.io.recording import Recording
from operators.ct.corrections import flat_field, open_beam_counts
from operators.ct.geometry import Detector, FanBeam, ImageGrid
from operators.noise import NoiseModel

_VIEWS, _RAW_BINS, _SUMMED = 3600, 1912, 2
_BINS, _PITCH = _RAW_BINS // _SUMMED, 0.0748 * _SUMMED
_TO_AXIS, _TO_DETECTOR = 431.019989, 529.000488
_SIZE = 1024
_PIXEL = _BINS * _PITCH * _TO_AXIS / _TO_DETECTOR / _SIZE
_MOVED = (range(1, 2831), range(5521, 5871))
_MODES = {1: "low dose", 2: "high fidelity", 3: "beam hardening"}
_USUAL_MODE = 2
_SINOGRAM, _DARK, _FLATS = "sinogram.tif", "dark.tif", ("flat1.tif", "flat2.tif")
_SLICE, _MODE = re.compile(r"slice(\d{5})"), re.compile(r"mode([123])")


@dataclass(frozen=True)
class _Slice:
    folder: Path
    number: int
    mode: int

    @property
    def moved(self) -> bool:
        """Whether the detector stood one bin aside."""
        return any(self.number in slices for slices in _MOVED)

    def files(self) -> tuple[Path, ...]:
        return tuple(self.folder / name for name in (_SINOGRAM, _DARK, *_FLATS))


@dataclass(frozen=True)
class _Read:
    slices: tuple[_Slice, ...]
    photons: float | None

    def __call__(self, start: int, stop: int, views: NDArray[np.intp]) -> tuple[Tensor, NoiseModel]:
        parts = [self._transmission(index, views) for index in range(start, stop)]
        transmission, photons = (torch.cat(part) for part in zip(*parts, strict=True))
        return measurement(transmission, photons)

    def problems(self, index: int) -> tuple[str, ...]:
        """Return what looks wrong in one slice."""
        return odd_readings(*self._transmission(index, np.arange(_VIEWS)), index)

    def _transmission(self, index: int, views: NDArray[np.intp]) -> tuple[Tensor, Tensor]:
        """Return transmission (1, views, bins), NaN where there is no beam, and photons (1, 1, bins)."""
        one = self.slices[index]
        counts = _summed(_image(one.folder / _SINOGRAM, _VIEWS + 1, index)[views])
        flats, darks = _flats_and_darks(one, index)
        transmission = flat_field(counts, flats, darks)
        open_beam = open_beam_counts(flats, darks)
        if one.moved:
            nothing = torch.full_like(transmission[..., :1], torch.nan)
            transmission = torch.cat((transmission[..., 1:], nothing), -1)
            open_beam = torch.cat((open_beam[..., 1:], torch.zeros_like(open_beam[..., :1])), -1)
        return transmission, photons_a_bin(open_beam, 1.0, self.photons)


def recognises(path: Path) -> bool:
    """Whether a folder is, or holds, slices or modes in the layout of the data set."""
    if (path / _SINOGRAM).is_file():
        return True
    names = [entry.name for entry in path.iterdir() if entry.is_dir()]
    return any(_SLICE.fullmatch(name) or _MODE.fullmatch(name) for name in names)


def recording(
    path: Path, *, angles_unit: str | None = None, photons: float | None = None, mode: int | None = None
) -> Recording:
    """Return the geometry and the reader of all slices in a folder that were scanned in one mode.

    Raises
    ------
    ScanError
        If a file is missing or of another shape, no slice has the mode, or for an `angles_unit`.
    """
    if angles_unit is not None:
        expected = "none: the angles of 2DeteCT are fixed and not in the files"
        raise ScanError(path, "angles_unit", found=repr(angles_unit), expected=expected)
    if mode is not None and mode not in _MODES:
        raise ScanError(path, "mode", found=mode, expected="1, 2 or 3")
    assumed = ["geometry: that published with 2DeteCT; the files have none"]
    slices = _slices(path, mode, assumed)
    for index, one in enumerate(slices):
        for file in one.files():
            if not file.is_file():
                field = f"slice {index}, {file.relative_to(path)}"
                raise ScanError(path, field, found="nothing", expected="a TIFF file")
    flats, darks = _flats_and_darks(slices[0], 0)
    _check_layout(slices[0].folder / _SINOGRAM)
    _, noise = gain_of_flats(flats, darks, assumed)
    moved = sum(one.moved for one in slices)
    if moved:
        assumed.append(f"detector: moved back by one bin in {moved} of {len(slices)} slices")
    read = _Read(slices, photons)
    chosen = slices[0].mode
    return Recording(
        format=f"2DeteCT (mode {chosen}, {_MODES[chosen]})",
        slices=len(slices),
        geometry=FanBeam.circular(
            _VIEWS,
            source_to_axis=_TO_AXIS,
            source_to_detector=_TO_DETECTOR,
            detector=Detector(_BINS, _PITCH),
        ),
        # The authors' image is the middle of a larger one, but for a pixel.
        grid=ImageGrid((_SIZE, _SIZE), _PIXEL, (-_PIXEL, _PIXEL)),
        unit="1/mm",
        read=read,
        noise=f"Poisson, {photons:g} photons a bin" if photons is not None else noise,
        inspect=read.problems,
        metadata={
            "mode": chosen,
            "mode_is": _MODES[chosen],
            "slice_numbers": [one.number for one in slices],
        },
        files=tuple(file for one in slices for file in one.files()),
        assumed=tuple(assumed),
        missing=("geometry",),
    )


def _slices(path: Path, mode: int | None, assumed: list[str]) -> tuple[_Slice, ...]:
    if (path / _SINOGRAM).is_file():
        found = {path: (path.parent.name, path.name)}
    elif any(_MODE.fullmatch(entry.name) for entry in path.iterdir()):
        found = {entry: (path.name, entry.name) for entry in path.iterdir()}
    else:
        folders = [folder for folder in path.iterdir() if _SLICE.fullmatch(folder.name)]
        found = {entry: (folder.name, entry.name) for folder in folders for entry in folder.iterdir()}
    every = [
        _Slice(folder, int(number[1]), int(kind[1]))
        for folder, (slice_name, mode_name) in found.items()
        if (kind := _MODE.fullmatch(mode_name)) and (number := _SLICE.fullmatch(slice_name))
    ]
    if not every:
        expected = "folders named as slice00001/mode2, whose number says how the detector stood"
        raise ScanError(path, "folders", found="others", expected=expected)
    modes = sorted({one.mode for one in every})
    wanted = mode if mode is not None else modes[0]
    if mode is None and len(modes) > 1:
        wanted = _USUAL_MODE if _USUAL_MODE in modes else modes[0]
        others = ", ".join(str(other) for other in modes if other != wanted)
        assumed.append(f"mode: {wanted} ({_MODES[wanted]}) of those there; pass mode= for {others}")
    chosen = tuple(sorted((one for one in every if one.mode == wanted), key=lambda one: one.number))
    if not chosen:
        expected = " or ".join(str(there) for there in modes)
        raise ScanError(path, "mode", found=wanted, expected=expected)
    return chosen


def _flats_and_darks(one: _Slice, index: int) -> tuple[Tensor, Tensor]:
    """Return the flats (1, 2, bins) and the dark (1, 1, bins), bins summed."""
    flats = np.concatenate([_image(one.folder / name, 1, index) for name in _FLATS])
    return _summed(flats), _summed(_image(one.folder / _DARK, 1, index))


def _summed(rows: NDArray[np.float32]) -> Tensor:
    """Return rows with bins summed in pairs, (1, rows, bins)."""
    return torch.from_numpy(rows.reshape(1, len(rows), _BINS, _SUMMED).sum(-1))


def _image(file: Path, rows: int, index: int) -> NDArray[np.float32]:
    """Return a TIFF as float32 (rows, raw bins), checked to be finite."""
    values = _real_image(file, (rows, _RAW_BINS))
    check_finite(file, "image", values[None], index)
    return values


def _check_layout(file: Path) -> None:
    """Refuse a sinogram of another shape by what its file says, without reading the numbers."""
    with _page(file, (_VIEWS + 1, _RAW_BINS)):
        pass


def _real_image(file: Path, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Return the only page of a TIFF file as float32, once it is known to be of a shape."""
    with _page(file, shape) as page:
        return np.ascontiguousarray(np.reshape(page.asarray(), shape), dtype=np.float32)


@contextmanager
def _page(file: Path, expected: tuple[int, int]) -> Iterator[Any]:
    """Open the only page of a TIFF file, which has to be of a shape."""
    with _as_scan_errors(file):
        from tifffile import TiffFile

        # Pages, not series: those may lie in other files, which some kinds of TIFF name.
        with TiffFile(file) as content:
            page, pages = content.pages[0], len(content.pages)
            shape, dtype = tuple(page.shape), np.dtype(page.dtype or np.void)
            flat = shape if len(shape) == 2 else (1, *shape)
            if pages != 1 or flat != expected or dtype.kind not in "iuf":
                found = f"{dtype} of shape {shape if pages == 1 else (pages, *shape)}"
                raise ScanError(file, "image", found=found, expected=f"real numbers of shape {expected}")
            yield page


@contextmanager
def _as_scan_errors(file: Path) -> Iterator[None]:
    """What tifffile raises, and does not only log, for a damaged file becomes a ScanError."""
    log = logging.getLogger("tifffile")
    silent, log.disabled = log.disabled, True
    try:
        yield
    except (ImportError, ScanError):
        raise
    except Exception as error:
        # tifffile answers damage with nearly any of Python's errors, depending on where it strikes.
        found = f"a truncated or damaged file ({error})"
        raise ScanError(file, "image", found=found, expected="a readable TIFF file") from error
    finally:
        log.disabled = silent


def read_reconstruction(file: str | Path) -> Tensor:
    """Return one of the published images, `reconstruction.tif`, in 1/mm: float32 (1024, 1024).

    Their numbers are attenuation by pixel; the pixels are those of the scans that this module reads.

    Raises
    ------
    ScanError
        If the file is another.
    """
    file = Path(file)
    if not file.is_file():
        raise ScanError(file, "file", found="nothing", expected="a TIFF file")
    values = _real_image(file, (_SIZE, _SIZE))
    check_finite(file, "image", values[None], 0)
    return torch.from_numpy(values / np.float32(_PIXEL))
