"""From what a detector counted to line integrals and their noise, as it is the same in every format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctflow.io.errors import ScanError
from operators.ct.corrections import estimate_gain, fill_invalid, line_integrals, open_beam_counts
from operators.noise import PoissonTransmission
from operators.noise_level import estimate_photons

FEWEST_FLATS_FOR_GAIN, ROWS_FOR_GAIN = 5, 8
_SMALLEST_COUNT = 0.1
# A bin without beam says nothing; a photon count has to be positive.
_NO_PHOTONS = 1e-20
_LARGEST_TRANSMISSION = 10.0
# Where line integrals do not tell their noise.
ASSUMED_PHOTONS = 1e4
_FEWEST_FOR_ROUGHNESS = 20
# What is smoother was not measured with single photons.
_MOST_PHOTONS = 1e7


def photons_a_bin(open_beam: Tensor, gain: float, given: float | None) -> Tensor:
    """Return the photons that a bin sees without an object; next to none where there is no beam.

    Parameters
    ----------
    open_beam
        Counts without an object, shape (slices, 1 or views, bins).
    gain
        Counts a photon.
    given
        The number in every bin that sees the beam, instead.
    """
    photons = open_beam / gain if given is None else torch.where(open_beam > 0, given, 0.0)
    return photons.clamp_min(_NO_PHOTONS)


def measurement(transmission: Tensor, photons: Tensor) -> tuple[Tensor, PoissonTransmission]:
    """Return line integrals (slices, views, bins), filled in where there is no beam, and their noise."""
    measured, _ = line_integrals(transmission, photons, _SMALLEST_COUNT)
    filled, _ = fill_invalid(measured)
    return filled, PoissonTransmission(photons, smallest_count=_SMALLEST_COUNT)


def odd_readings(transmission: Tensor, photons: Tensor, index: int) -> tuple[str, ...]:
    """Return what looks wrong in the only slice of a transmission, one line each."""
    _, lifted = line_integrals(transmission, photons, _SMALLEST_COUNT)
    dead = int(torch.isnan(transmission[0]).all(0).sum())
    found = []
    if lifted:
        share = f"{lifted} of {transmission.numel()} readings"
        found.append(f"slice {index}: {share} are at or below the dark field; taken for 0.1 photons")
    if dead:
        found.append(f"slice {index}: {dead} bins see no beam; filled in and given no weight")
    return tuple(found)


def photons_of_roughness(sinogram: NDArray[np.float32], assumed: list[str]) -> float:
    """Return the photons a bin that the noise of line integrals (views, bins) tells of, and say so."""
    photons, why = ASSUMED_PHOTONS, ""
    if min(sinogram.shape) >= _FEWEST_FOR_ROUGHNESS and np.isfinite(sinogram).all():
        photons = float(estimate_photons(torch.from_numpy(sinogram)).clamp(1.0, _MOST_PHOTONS))
        why = ", from the roughness of the sinogram"
    assumed.append(f"photons: {photons:.3g} a bin{why}; pass photons= for another noise")
    return photons


def check_transmission(path: str | Path, name: str, values: Tensor, first_slice: int) -> None:
    """Refuse counts where transmissions are expected, as there are no flat fields."""
    largest = float(values.max())
    if largest > _LARGEST_TRANSMISSION:
        found = f"{largest:g} in the slices from {first_slice}"
        expected = "transmissions near or below 1, as there are no flat fields"
        raise ScanError(path, name, found=found, expected=expected)


def gain_of_flats(flats: Tensor, darks: Tensor | None, assumed: list[str]) -> tuple[float, str]:
    """Return detector counts a photon, and the noise in words, from flats (rows, frames, bins)."""
    frames = flats.shape[1]
    gain = estimate_gain(flats, darks) if frames >= FEWEST_FLATS_FOR_GAIN else None
    if gain is None:
        assumed.append("counts: one for each photon")
    else:
        assumed.append(
            f"counts: {gain:.4g} for each photon, estimated from the spread of {frames} flat frames"
        )
    photons = open_beam_counts(flats, darks).median().item() / (gain or 1.0)
    return gain or 1.0, f"Poisson, about {photons:.4g} photons a bin"
