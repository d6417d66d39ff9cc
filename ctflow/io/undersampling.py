"""Leaving out samples of k-space, as if the scan had been faster."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from ctflow.io.kspace_recording import KspaceSamples
from operators.mri.column_masks import equispaced_mask, magic_mask, random_mask
from operators.mri.poisson_disc import poisson_disc

PATTERNS = ("equispaced", "random", "magic", "poisson")
_CENTRE, _CALIBRATION, _SEED = 0.32, 24, 0


def parse_undersampling(text: str) -> tuple[str, float]:
    """Return the pattern and the acceleration of "equispaced:4" and the like.

    Raises
    ------
    ValueError
        For anything else.
    """
    name, colon, number = text.partition(":")
    try:
        acceleration = float(number)
    except ValueError:
        acceleration = math.nan
    if name not in PATTERNS or not colon or not 1 < acceleration <= 64:
        raise ValueError(
            f"one of {', '.join(PATTERNS)} and a number above 1 and up to 64, such as equispaced:4"
        )
    return name, acceleration


def undersampling_mask(text: str, matrix: tuple[int, int], phase_axis: int) -> Tensor:
    """Return where samples stay, bool, (height, width) or with 1 for the readout; the same in every slice.

    Columns are those of fastMRI: along the phase encoding, with a centre of 0.32 / acceleration of them.
    "poisson" undersamples both axes, with a centre of 24 x 24.

    Parameters
    ----------
    text
        As for `parse_undersampling`.
    phase_axis
        Of `matrix`, -1 or -2.

    Raises
    ------
    ValueError
        If there is no such pattern for that many lines.
    """
    name, acceleration = parse_undersampling(text)
    if name == "poisson":
        calibration = min(_CALIBRATION, *matrix)
        generator = torch.Generator().manual_seed(_SEED)
        return poisson_disc(matrix, acceleration, calibration, generator=generator).mask
    lines, centre = matrix[phase_axis], _CENTRE / acceleration
    if name == "random":
        columns = random_mask(lines, acceleration, centre, _SEED).mask
    elif name == "equispaced":
        columns = equispaced_mask(lines, acceleration, centre, _SEED, keep_fraction=True).mask
    else:
        columns = magic_mask(lines, acceleration, centre, _SEED, keep_fraction=True).mask
    return columns[:, None] if phase_axis == -2 else columns[None]


def undersampled(samples: KspaceSamples, kept: Tensor) -> KspaceSamples:
    """Return the samples that stay; coil maps will be estimated from no others."""
    assert samples.mask is not None
    return replace(
        samples,
        kspace=torch.where(kept, samples.kspace, 0),
        mask=samples.mask & kept,
        calibration=None,
        calibration_mask=None,
    )
