"""Samples along trajectories: whose trajectory it is, and what they say on the grid."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ctflow.io.errors import ScanError
from ctflow.io.kspace_recording import KspaceSamples
from operators.mri.fourier import centred_fft
from operators.mri.nonuniform import NonuniformFourier

# Enough for the low frequencies that maps come from.
_ITERATIONS = 12


def one_trajectory(path: Path, trajectory: Tensor, first: int) -> Tensor:
    """Return the trajectory (readouts, samples, axes) that slices share, given as (slices or 1, ...).

    Raises
    ------
    ScanError
        If they have different ones, and cannot be one batch.
    """
    if len(trajectory) > 1 and not bool((trajectory == trajectory[:1]).all()):
        found = f"slices {first} to {first + len(trajectory) - 1} with trajectories of their own"
        expected = "slices that share one"
        raise ScanError(path, "slices", found=found, expected=expected, hint="take them one by one")
    return trajectory[0]


def on_the_grid(path: Path, samples: KspaceSamples, matrix: tuple[int, ...], first: int) -> KspaceSamples:
    """Return the k-space (slices, coils, *matrix) of least-squares images of each coil."""
    assert samples.trajectory is not None
    operator = NonuniformFourier(matrix, one_trajectory(path, samples.trajectory, first))
    images = operator.solve(samples.kspace, max_iterations=_ITERATIONS, rtol=1e-3).x
    mask = torch.ones((1,) * (len(matrix) + 1), dtype=torch.bool)
    return replace(samples, kspace=centred_fft(images, len(matrix)), mask=mask, trajectory=None)
