"""Masks of phase-encoding columns: random, equispaced and magic, number for number those of fastMRI."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from operators.mri.sampling_pattern import SamplingMask

Seed = int | Sequence[int]


def random_mask(width: int, acceleration: float, centre_fraction: float, seed: Seed) -> SamplingMask:
    """Columns drawn independently, and all of those in the middle.

    Parameters
    ----------
    width
        Number of columns.
    acceleration
        Columns over sampled ones, in expectation.
    centre_fraction
        Share of the columns that are sampled in the middle.
    seed
        One or more integers below 2**32; fastMRI makes them of the letters of a file's name.

    Returns
    -------
    A mask of shape (width,), for the last axis of k-space.

    References
    ----------
    Zbontar et al., fastMRI, arXiv:1811.08839, 2018; `RandomMaskFunc` of its package, version 0.3.
    """
    _check(width, acceleration, centre_fraction)
    draws, centre = _draws(seed), round(width * centre_fraction)
    chance = (width / acceleration - centre) / (width - centre)
    if chance < 0:
        raise ValueError(
            f"centre_fraction: expected at most {1 / acceleration:.3g} for acceleration {acceleration:g}, "
            f"found {centre_fraction:g}"
        )
    return _pattern(draws.uniform(size=width) < chance, centre)


def equispaced_mask(
    width: int,
    acceleration: float,
    centre_fraction: float,
    seed: Seed,
    *,
    offset: int | None = None,
    keep_fraction: bool = False,
) -> SamplingMask:
    """Every so-many-th column, and all of those in the middle.

    Parameters
    ----------
    width, acceleration, centre_fraction, seed
        As of `random_mask`. The seed draws the offset, unless it is given.
    offset
        The first column sampled.
    keep_fraction
        False: every `acceleration`-th column, a whole number, so that with the middle more than width /
        acceleration are sampled. True: columns lie further apart, so that about width / acceleration are
        sampled in all; rounding makes the distances differ by one. The files of fastMRI's challenges for
        multiple coils are of this kind.

    References
    ----------
    `EquiSpacedMaskFunc` and `EquispacedMaskFractionFunc` of fastMRI 0.3.
    """
    _check(width, acceleration, centre_fraction)
    draws, centre = _draws(seed), round(width * centre_fraction)
    columns = np.zeros(width, bool)
    if not keep_fraction:
        stride = _whole(acceleration)
        first = draws.randint(0, high=stride) if offset is None else offset
        columns[first::stride] = True
        return _pattern(columns, centre)
    if centre * acceleration >= width:
        raise ValueError(
            f"centre_fraction: expected less than {1 / acceleration:.3g} for acceleration {acceleration:g}, "
            f"found {centre_fraction:g}"
        )
    spacing = acceleration * (centre - width) / (centre * acceleration - width)
    first = draws.randint(0, high=round(spacing)) if offset is None else offset
    columns[np.around(np.arange(first, width - 1, spacing)).astype(np.int64)] = True
    return _pattern(columns, centre)


def magic_mask(
    width: int,
    acceleration: float,
    centre_fraction: float,
    seed: Seed,
    *,
    offset: int | None = None,
    keep_fraction: bool = False,
) -> SamplingMask:
    """Equispaced columns whose mirror images fall between those of the other side.

    So that a nearly real image's symmetry fills in what was not sampled.

    Parameters
    ----------
    width, acceleration, centre_fraction, seed, offset, keep_fraction
        As of `equispaced_mask`; with `keep_fraction` the distance is a whole number, and the middle shrinks
        to what width / acceleration columns leave it.

    References
    ----------
    Defazio, Offset sampling improves deep learning based accelerated MRI reconstructions, arXiv:1912.01101,
    2019; `MagicMaskFunc` and `MagicMaskFractionFunc` of fastMRI 0.3.
    """
    _check(width, acceleration, centre_fraction)
    draws, centre = _draws(seed), round(width * centre_fraction)
    if keep_fraction:
        wanted = round(width / acceleration)
        centre = max(min(centre, wanted), 1)
        if wanted <= centre:
            raise ValueError(
                f"centre_fraction: expected less than {1 / acceleration:.3g}, to leave columns outside "
                f"the middle, found {centre_fraction:g}"
            )
        stride = round(width / (wanted - centre))
    else:
        stride = _whole(acceleration)
    first = draws.randint(0, high=stride) if offset is None else offset
    positive, negative = (first + 1, first + 2) if first % 2 == 0 else (first + 2, first - 1)
    half = (width + 1) // 2
    right, left = np.zeros(half, bool), np.zeros(width - half, bool)
    right[positive::stride] = True
    left[negative::stride] = True
    return _pattern(np.fft.fftshift(np.concatenate([right, left[::-1]])), centre)


def _check(width: int, acceleration: float, centre_fraction: float) -> None:
    if acceleration < 1:
        raise ValueError(f"acceleration: expected at least 1, found {acceleration:g}")
    if not 0 <= centre_fraction < 1:
        raise ValueError(f"centre_fraction: expected 0 or more and less than 1, found {centre_fraction:g}")
    if width < 1:
        raise ValueError(f"width: expected at least 1, found {width}")


def _whole(acceleration: float) -> int:
    if acceleration != int(acceleration):
        raise ValueError(
            f"acceleration: expected a whole number for a true stride, found {acceleration:g}; "
            "keep_fraction=True takes any"
        )
    return int(acceleration)


def _draws(seed: Seed) -> np.random.RandomState:
    """NumPy's older generator, which fastMRI draws from, after its first draw: of one acceleration in one."""
    draws = np.random.RandomState(seed)
    draws.randint(1)
    return draws


def _pattern(columns: NDArray[np.bool_], centre: int) -> SamplingMask:
    calibration = np.zeros(len(columns), bool)
    first = (len(columns) - centre + 1) // 2
    calibration[first : first + centre] = True
    return SamplingMask(torch.from_numpy(columns | calibration), torch.from_numpy(calibration))
