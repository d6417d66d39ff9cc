"""X-ray data sets of the Finnish Inverse Problems Society (MATLAB files): walnut and lotus root.

The files hold sinograms without a word on the geometry, which is told by variables and shapes::

    walnut    FullSizeSinograms.mat: sinogram20, sinogram120, sinogram1200 (2296, views) detector counts
              Data82.mat, Data164.mat, Data328.mat: m (82 | 164 | 328, 120) line integrals, bins summed up
    lotus     sinogram.mat: sinogram (2240, 366) line integrals
              LotusData128.mat, LotusData256.mat: m (429, 120) line integrals

The matrix A beside m is not read: the geometry stands for it. Distances are those of Hamalainen et al.,
Tomographic X-ray data of a walnut (arXiv:1502.04064), and Bubba et al., Tomographic X-ray data of a lotus
root filled with attenuating objects (arXiv:1609.07299); where the middle of the detector is, and the order of
views and bins, are those that users of the data found by trial (the contributed data sets of ODL).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctflow.io.counts import ASSUMED_PHOTONS, measurement, photons_a_bin, photons_of_roughness
from ctflow.io.errors import ScanError
from ctflow.io.fields import check_finite
from ctflow.io.matlab import is_matlab, read_variable, variables
from ctflow.io.recording import Recording, noise_in_words
from operators.ct.geometry import Detector, FanBeam, ImageGrid
from operators.noise import NoiseModel, PoissonTransmission

_COUNTS = re.compile(r"sinogram[0-9]+")


@dataclass(frozen=True)
class _Object:
    """How an object was scanned: lengths in mm, angles in radians."""

    name: str
    bins: int
    views: int
    width: float
    source_to_axis: float
    source_to_detector: float
    offset: float
    start: float
    span: float
    reversed: bool  # views and bins are stored in the opposite order


_WALNUT = _Object("walnut", 2296, 1200, 114.8, 110.0, 300.0, -0.279, -math.pi / 2, 2 * math.pi, True)
_LOTUS = _Object("lotus", 2240, 366, 120.0, 540.0, 630.0, 0.35, math.pi / 2, 2 * math.pi * 366 / 360, False)
# Of m, by the number of its bins.
_SMALL = {82: _WALNUT, 164: _WALNUT, 328: _WALNUT, 429: _LOTUS}
_SMALL_VIEWS = 120


@dataclass(frozen=True)
class _Read:
    path: Path
    name: str
    shape: tuple[int, int]
    reversed: bool
    counts: bool
    photons: float | None

    def __call__(self, start: int, stop: int, views: NDArray[np.intp]) -> tuple[Tensor, NoiseModel]:
        values = np.asarray(read_variable(self.path, self.name))
        if values.dtype.kind not in "iuf" or values.shape != self.shape:
            found = f"{values.dtype} of shape {values.shape}"
            raise ScanError(self.path, self.name, found=found, expected=f"real numbers {self.shape}")
        stored = values.T[::-1, ::-1] if self.reversed else values.T
        stored = np.ascontiguousarray(stored[None], dtype=np.float32)
        check_finite(self.path, self.name, stored, 0)
        sinograms = torch.from_numpy(stored)[start:stop, torch.from_numpy(views)]
        if not self.counts:
            return sinograms, PoissonTransmission(self.photons or ASSUMED_PHOTONS)
        # The brightest bin of a view is what the others counted without the object.
        open_beam = sinograms.amax(-1, keepdim=True)
        if not bool((open_beam > 0).all()):
            expected = "a positive count in every view"
            raise ScanError(self.path, self.name, found="a view without any", expected=expected)
        return measurement(sinograms / open_beam, photons_a_bin(open_beam, 1.0, self.photons))


def recognises(path: Path) -> bool:
    """Whether the file is MATLAB's and has the variables of one of the data sets."""
    return is_matlab(path) and bool(_candidates(path))


def recording(path: Path, *, angles_unit: str | None = None, photons: float | None = None) -> Recording:
    """Return the geometry and the reader of a file; of several sinograms, of that with the most views.

    Raises
    ------
    ScanError
        For a sinogram of an unknown shape, or an `angles_unit`.
    """
    if angles_unit is not None:
        expected = "none: the angles are not in the file"
        raise ScanError(path, "angles_unit", found=repr(angles_unit), expected=expected)
    shapes = _candidates(path)
    name = max(shapes, key=lambda key: shapes[key][-1])
    shape, counts = shapes[name], bool(_COUNTS.fullmatch(name))
    scanned, bins, views = _scanned(path, name, shape)
    pitch = scanned.width / bins
    geometry = FanBeam.circular(
        angles=_angles(scanned, views),
        source_to_axis=scanned.source_to_axis,
        source_to_detector=scanned.source_to_detector,
        detector=Detector(bins, pitch, scanned.offset),
    )
    assumed = [f"geometry: that published with the {scanned.name} data; the file has none"]
    assumed.append(f"detector: its middle {scanned.offset:g} mm from the ray through the axis")
    if counts:
        assumed.append("flat field: the brightest bin of each view; counts: one for each photon")
    elif photons is None:
        stored = np.asarray(read_variable(path, name), dtype=np.float32)
        photons = photons_of_roughness(np.ascontiguousarray(stored.T), assumed)
    if name == "m":
        assumed.append(f"views: {360 / views:g} degrees apart, in the order of the full sinogram")
    noise = "Poisson, as many photons as the brightest bin of a view counts"
    if photons is not None:
        noise = noise_in_words(PoissonTransmission(photons))
    return Recording(
        format="FIPS",
        slices=1,
        geometry=geometry,
        grid=ImageGrid((bins, bins), pitch * scanned.source_to_axis / scanned.source_to_detector),
        unit="1/mm",
        read=_Read(path, name, (bins, views), scanned.reversed, counts, photons),
        noise=noise,
        metadata={"object": scanned.name, "variable": name},
        assumed=tuple(assumed),
        missing=("geometry", "flat fields" if counts else "photon counts"),
    )


def _candidates(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the sinograms in a file and their shapes: m only beside the matrix that goes with it."""
    found = variables(path)
    return {
        name: shape
        for name, shape in found.items()
        if shape and (_COUNTS.fullmatch(name) or name == "sinogram" or (name == "m" and "A" in found))
    }


def _scanned(path: Path, name: str, shape: tuple[int, ...]) -> tuple[_Object, int, int]:
    """Return the object that a shape of (bins, views) is of."""
    if len(shape) == 2:
        bins, views = shape
        if name == "m" and bins in _SMALL and views == _SMALL_VIEWS:
            return _SMALL[bins], bins, views
        if name == "sinogram" and shape == (_LOTUS.bins, _LOTUS.views):
            return _LOTUS, bins, views
        if _COUNTS.fullmatch(name) and bins == _WALNUT.bins and _WALNUT.views % views == 0:
            return _WALNUT, bins, views
    known = (
        "(2296, 1200) or fewer views of the walnut, m (82 | 164 | 328 | 429, 120), (2240, 366) of the lotus"
    )
    raise ScanError(path, name, found=f"shape {shape}", expected=f"(bins, views): {known}")


def _angles(scanned: _Object, views: int) -> NDArray[np.float64]:
    """Return the angles of a sinogram as it is stored, or reversed, in the middles of equal steps."""
    step = scanned.span / scanned.views
    if views == scanned.views:
        return np.asarray(scanned.start + (np.arange(views) + 0.5) * step)
    if not scanned.reversed:
        # The lotus root's small sinograms have a view every three of its 360 degrees.
        return np.asarray(scanned.start + 0.5 * step + 2 * math.pi * np.arange(views) / views)
    every = scanned.views // views
    taken = scanned.views - 1 - every * np.arange(views)[::-1]
    return np.asarray(scanned.start + (taken + 0.5) * step)
