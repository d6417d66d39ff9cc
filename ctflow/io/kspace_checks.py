"""Whether samples look like k-space as it is expected: centred, and sampled where the mask says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ctflow.io.errors import ScanError

# A window that holds the centre of k-space has so many times the mean energy, or such a part of all.
_WINDOW, _STANDS_OUT, _PART_OF_ALL = 5, 30.0, 0.4
_MOST_LACKING = 0.5


def check_axes(path: Path, name: str, coils: int, matrix: Sequence[int]) -> None:
    """Refuse an order of axes in which what should be coils can only be pixels."""
    if coils > min(matrix[-2:]):
        found = f"{coils} coils of {' x '.join(map(str, matrix))} samples"
        expected = "fewer coils than rows and columns: the axes (slice, coil, y, x) in that order"
        raise ScanError(path, name, found=found, expected=expected)


def check_centre(path: Path, name: str, kspace: Tensor, first: int) -> None:
    """Refuse k-space (slices, coils, *matrix) whose energy is not about index n // 2."""
    matrix = tuple(kspace.shape[2:])
    for k, samples in enumerate(kspace):
        peak, prominence = _centre_of_energy(samples)
        if prominence < 1:  # noise, or nothing
            continue
        tolerances = [max(3, n // 8) for n in matrix]
        pairs = list(zip(peak, matrix, tolerances, strict=True))
        if all(abs(at - n // 2) <= t for at, n, t in pairs):
            continue
        at_corner = all(n < 2 * _WINDOW or min(at, n - at) <= t for at, n, t in pairs)
        where = ", ".join(map(str, peak))
        found = f"slice {first + k} with its energy about index {where} of {' x '.join(map(str, matrix))}"
        hint = (
            "this looks like an unshifted FFT; apply fftshift to the image axes"
            if at_corner
            else "are the axes in another order, or shifted?"
        )
        expected = f"the centre of k-space about index {', '.join(str(n // 2) for n in matrix)}"
        raise ScanError(path, name, found=found, expected=expected, hint=hint)


def looks_like_kspace(kspace: Tensor) -> bool:
    """Whether one place of (coils, *matrix) stands out, as the centre of k-space does and images do not."""
    return _centre_of_energy(kspace)[1] >= 1


def check_mask(path: Path, name: str, kspace: Tensor, mask: Tensor) -> None:
    """Refuse a mask (slices or 1, *matrix) that says otherwise than the samples (slices, coils, *matrix)."""
    there = (kspace != 0).any(1)
    outside = int((there & ~mask).sum())
    if outside:
        found = f"{outside} samples other than zero where the mask says that there are none"
        expected = "zeros outside the mask"
        raise ScanError(path, name, found=found, expected=expected, hint="does it belong to other data?")
    sampled = mask.expand(there.shape)
    # An empty slice is not the mask's fault.
    for k in there.flatten(1).any(1).nonzero().flatten().tolist():
        lacking = float(1 - (there[k] & sampled[k]).sum() / sampled[k].sum().clamp_min(1))
        if lacking > _MOST_LACKING:
            found = f"zeros in {100 * lacking:.0f} % of the samples that the mask names"
            raise ScanError(path, name, found=found, expected="samples where the mask says so")


def _centre_of_energy(samples: Tensor) -> tuple[tuple[int, ...], float]:
    """Where a window of (coils, *matrix) has most energy, and how prominent that is: 1 or more for an object.

    A window, since lines between the sampled ones are empty.
    """
    energy = samples.abs().double().square().sum(0)
    windows = 1.0
    for axis, n in enumerate(energy.shape):
        if n >= 2 * _WINDOW:
            shifts = range(-(_WINDOW // 2), _WINDOW // 2 + 1)
            energy = torch.stack([energy.roll(shift, axis) for shift in shifts]).sum(0)
            windows *= n / _WINDOW
    best = int(energy.argmax())
    place = []
    for n in reversed(energy.shape):
        place.append(best % n)
        best //= n
    ratio = float(energy.max() / energy.mean().clamp_min(torch.finfo(energy.dtype).tiny))
    return tuple(reversed(place)), ratio / min(_STANDS_OUT, _PART_OF_ALL * windows)
