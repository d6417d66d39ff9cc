"""Scans of the Helsinki Tomography Challenge 2022 and others of the HelTomo toolbox (MATLAB files).

A struct `CtDataFull`, `CtDataLimited` or `CtData` holds::

    sinogram      (views, bins) line integrals: flat-corrected, centred, logarithm taken
    parameters    angles in degrees; distanceSourceOrigin, distanceSourceDetector; pixelSizePost, the pitch
                  after binning; geometricMagnification; effectivePixelSizePost, the pitch at the axis;
                  numDetectorsPost. Lengths in mm unless distanceUnit or pixelSizeUnit say otherwise

Angles are those of ASTRA's fan beam, which are ours. See Meaney, Silva de Moura, Juvonen and Siltanen,
Helsinki Tomography Challenge 2022: description of the competition and dataset, and
https://zenodo.org/records/8041800.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctflow.io.counts import photons_of_roughness
from ctflow.io.errors import ScanError
from ctflow.io.fields import check_finite, checked
from ctflow.io.matlab import is_matlab, matlab_numbers, read_variable, variables
from ctflow.io.recording import Recording, noise_in_words
from ctflow.io.units import millimetres
from operators.ct.geometry import Detector, FanBeam, ImageGrid
from operators.noise import NoiseModel, PoissonTransmission

_STRUCT = "CtData"
_CLOSE = 1e-3


@dataclass(frozen=True)
class _Read:
    path: Path
    name: str
    photons: float

    def __call__(self, start: int, stop: int, views: NDArray[np.intp]) -> tuple[Tensor, NoiseModel]:
        sinogram = _sinogram(self.path, self.name, _struct(self.path, self.name))[None]
        check_finite(self.path, f"{self.name}.sinogram", sinogram, 0)
        return torch.from_numpy(sinogram[start:stop, views]), PoissonTransmission(self.photons)


def recognises(path: Path) -> bool:
    """Whether the file is MATLAB's and has a struct of the toolbox."""
    return is_matlab(path) and bool(_names(path))


def recording(path: Path, *, angles_unit: str | None = None, photons: float | None = None) -> Recording:
    """Return the geometry and the reader of a file.

    Raises
    ------
    ScanError
        If a field is missing, or contradicts another.
    """
    name, *others = _names(path)
    struct = _struct(path, name)
    sinogram = _sinogram(path, name, struct)
    parameters, place = _parameters(path, name, struct), f"{name}.parameters"
    angles = matlab_numbers(path, parameters, place, "angles").reshape(-1)
    if angles_unit != "radians":
        angles = np.deg2rad(angles)
    if len(angles) != len(sinogram):
        expected = f"{len(sinogram)} angles, one for each row of {name}.sinogram"
        raise ScanError(path, f"{place}.angles", found=f"{len(angles)} angles", expected=expected)
    to_axis = _length(path, parameters, place, "distanceSourceOrigin", "distanceUnit")
    to_detector = _length(path, parameters, place, "distanceSourceDetector", "distanceUnit")
    pitch = _length(path, parameters, place, "pixelSizePost", "pixelSizeUnit")
    bins = sinogram.shape[1]
    _must_agree(path, parameters, place, "numDetectorsPost", bins)
    _must_agree(path, parameters, place, "geometricMagnification", to_detector / to_axis)
    detector = Detector(bins, pitch)
    geometry = checked(
        path,
        place,
        lambda: FanBeam.circular(
            angles=angles, source_to_axis=to_axis, source_to_detector=to_detector, detector=detector
        ),
    )
    assumed = ["rotation axis: in the middle of the detector, as the sinogram is centred"]
    found = photons_of_roughness(sinogram, assumed) if photons is None else photons
    return Recording(
        format="HelTomo",
        slices=1,
        geometry=geometry,
        grid=ImageGrid((bins, bins), pitch * to_axis / to_detector),
        unit="1/mm",
        read=_Read(path, name, found),
        noise=noise_in_words(PoissonTransmission(found)),
        metadata={"variable": name, **_texts(parameters)},
        assumed=tuple(assumed),
        missing=() if photons is not None else ("photon counts",),
        problems=tuple(f"{other}: a further scan in the file, which is not read" for other in others),
    )


def _names(path: Path) -> list[str]:
    """Return the structs of scans, in the order of the file."""
    return [name for name in variables(path) if name.startswith(_STRUCT)]


def _struct(path: Path, name: str) -> Mapping[str, Any]:
    struct = read_variable(path, name)
    if not isinstance(struct, dict):
        found = f"{type(struct).__name__}"
        raise ScanError(path, name, found=found, expected="a struct with sinogram and parameters")
    return struct


def _parameters(path: Path, name: str, struct: Mapping[str, Any]) -> Mapping[str, Any]:
    found = struct.get("parameters")
    if not isinstance(found, dict):
        what = "nothing" if found is None else type(found).__name__
        raise ScanError(path, f"{name}.parameters", found=what, expected="a struct of numbers")
    return found


def _sinogram(path: Path, name: str, struct: Mapping[str, Any]) -> NDArray[np.float32]:
    """Return line integrals, float32 (views, bins)."""
    values = np.asarray(struct.get("sinogram", []))
    if values.ndim != 2 or values.dtype.kind not in "iuf":
        what = "nothing" if "sinogram" not in struct else f"{values.dtype} of shape {values.shape}"
        expected = "line integrals (views, bins) of a scan in the plane"
        raise ScanError(path, f"{name}.sinogram", found=what, expected=expected)
    return np.ascontiguousarray(values, dtype=np.float32)


def _length(path: Path, parameters: Mapping[str, Any], place: str, field: str, unit: str) -> float:
    values = matlab_numbers(path, parameters, place, field)
    if values.size != 1 or values[0] <= 0:
        raise ScanError(path, f"{place}.{field}", found=values.tolist(), expected="one positive length")
    stated = parameters.get(unit)
    factor = 1.0 if stated is None else millimetres(str(stated))
    if factor is None:
        raise ScanError(
            path, f"{place}.{unit}", found=repr(stated), expected="a unit of length, such as 'mm'"
        )
    return float(values[0]) * factor


def _must_agree(path: Path, parameters: Mapping[str, Any], place: str, field: str, value: float) -> None:
    """Refuse a field that contradicts what follows from the others; it may be missing."""
    if field not in parameters:
        return
    stated = matlab_numbers(path, parameters, place, field)
    if stated.size != 1 or not math.isclose(stated[0], value, rel_tol=_CLOSE):
        found = f"{stated[0]:g}" if stated.size == 1 else f"{stated.size} numbers"
        raise ScanError(path, f"{place}.{field}", found=found, expected=f"{value:g}, as the others say")


def _texts(parameters: Mapping[str, Any]) -> dict[str, str]:
    return {name: value for name, value in parameters.items() if isinstance(value, str) and value}
