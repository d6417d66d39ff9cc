"""LoDoPaB-CT: simulated low-dose scans of chest CT slices (Leuschner et al., Sci. Data 8, 109 (2021)).

One dataset `data`: measurements float32 (n, 1000, 513), or the ground truth (n, 362, 362). Images x are
stored divided by 81.35858 / m, the attenuation of 3071 HU, and measurements y divided by the same number
with lengths in metres; the geometry is fixed: 1000 angles over 180 degrees on 513 bins that span the
diagonal of 260 mm. In our units, attenuation = x * 0.08135858 / mm and line integrals = y * 81.35858.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctflow.io.errors import ScanError
from ctflow.io.fields import check_finite, dataset, find, opened, values_of
from ctflow.io.recording import Recording, noise_in_words
from operators.ct.geometry import Detector, ImageGrid, ParallelBeam
from operators.noise import NoiseModel, PoissonTransmission

_VIEWS, _BINS, _SIZE, _FIELD_OF_VIEW = 1000, 513, 362, 260.0
_LARGEST_ATTENUATION = 3071 * (20 - 0.02) / 1000 + 20  # of 3071 HU, in 1/m
_PHOTONS = 4096.0
_MEASUREMENTS, _IMAGES = (_VIEWS, _BINS), (_SIZE, _SIZE)


@dataclass(frozen=True)
class _Read:
    path: Path
    photons: float

    def __call__(self, start: int, stop: int, views: NDArray[np.intp]) -> tuple[Tensor, NoiseModel]:
        with opened(self.path) as file:
            stored = values_of(_stored(file, _MEASUREMENTS), slice(start, stop))
        stored = stored.astype(np.float32, copy=False)
        check_finite(self.path, "/data", stored, start)
        chosen = stored if len(views) == _VIEWS else stored[:, views]
        return torch.from_numpy(chosen * np.float32(_LARGEST_ATTENUATION)), _noise(self.photons)


def recognises(file: h5py.File) -> bool:
    """Whether the file has the one dataset that these files consist of."""
    return isinstance(find(file, "/data"), h5py.Dataset)


def recording(path: Path, *, angles_unit: str | None = None, photons: float | None = None) -> Recording:
    """Return the geometry and the reader of a file of measurements.

    Raises
    ------
    ScanError
        For a file of ground truth, another shape, or an `angles_unit`.
    """
    if angles_unit is not None:
        expected = "none: the angles of LoDoPaB-CT are fixed and not in the file"
        raise ScanError(path, "angles_unit", found=repr(angles_unit), expected=expected)
    with opened(path) as file:
        slices = len(_stored(file, _MEASUREMENTS))
    return Recording(
        format="LoDoPaB-CT",
        slices=slices,
        geometry=ParallelBeam(
            # A quarter turn from ODL's angle for the same array; see RayTransform.from_odl.
            (np.arange(_VIEWS) + 0.5) * math.pi / _VIEWS - math.pi / 2,
            Detector(_BINS, pitch=_FIELD_OF_VIEW * math.sqrt(2) / _BINS),
        ),
        grid=ImageGrid((_SIZE, _SIZE), pixel_size=_FIELD_OF_VIEW / _SIZE),
        unit="1/mm",
        read=_Read(path, _PHOTONS if photons is None else photons),
        noise=noise_in_words(_noise(_PHOTONS if photons is None else photons)),
        assumed=("geometry and photon count: those published with LoDoPaB-CT; the file has neither",),
    )


def read_ground_truth(path: str | Path, start: int = 0, stop: int | None = None) -> Tensor:
    """Return images of a ground truth file in 1/mm, float32 (n, 362, 362).

    Raises
    ------
    ScanError
        If the file is not LoDoPaB-CT ground truth, or holds fewer images.
    """
    path = Path(path)
    with opened(path) as file:
        stored = _stored(file, _IMAGES)
        end = len(stored) if stop is None else stop
        if not 0 <= start < end <= len(stored):
            raise ScanError(
                path, "slices", found=f"{start}:{end}", expected=f"a range within 0:{len(stored)}"
            )
        images = values_of(stored, slice(start, end)).astype(np.float32, copy=False)
    check_finite(path, "/data", images, start)
    return torch.from_numpy(images * np.float32(_LARGEST_ATTENUATION / 1000))


def _stored(file: h5py.File, shape: tuple[int, int]) -> h5py.Dataset:
    stored = dataset(file, "/data", ndim=3)
    if stored.shape[1:] == shape:
        return stored
    found = f"shape {stored.shape}"
    hint = None
    if stored.shape[1:] == _IMAGES:
        found += ", which are images (LoDoPaB-CT ground truth), not measurements"
        hint = "open the observation_*.hdf5 file of the same number"
    elif stored.shape[1:] == _MEASUREMENTS:
        found += ", which are measurements"
    raise ScanError(
        file.filename,
        "/data",
        found=found,
        expected=f"LoDoPaB-CT's shape (n, {shape[0]}, {shape[1]})",
        hint=hint,
    )


def _noise(photons: float) -> PoissonTransmission:
    return PoissonTransmission(photons, smallest_count=0.1)
