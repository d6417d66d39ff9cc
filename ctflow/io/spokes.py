"""Acquisitions along stored trajectories: radial, spiral and the like."""

from __future__ import annotations

import math
from dataclasses import dataclass

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctflow.io.acquisitions import COUNTERS, REVERSE, Acquisitions, read_samples, readouts
from ctflow.io.errors import ScanError
from ctflow.io.fields import opened
from ctflow.io.kspace_recording import KspaceSamples

TRAJECTORIES = ("radial", "goldenangle", "spiral", "other")
_ROUNDING = 1.01
_UNITS = ("cycles per pixel", "radians per pixel", "cycles per field of view")


@dataclass(frozen=True)
class ReadSpokes:
    """Reads slices whose samples lie on trajectories.

    Attributes
    ----------
    imaging
        The acquisitions.
    frames
        Counters of each slice, shape (slices, counters).
    channels
        Receive coils.
    factors
        What stored frequencies (x, y) are multiplied by, to be cycles per field of view.
    whitening
        What coils are multiplied by, (channels, channels), or None.
    """

    imaging: Acquisitions
    frames: NDArray[np.int32]
    channels: int
    factors: tuple[float, float]
    whitening: Tensor | None

    def __call__(self, start: int, stop: int) -> KspaceSamples:
        """Samples of slices that have as many readouts each."""
        samples, trajectories = zip(*(self._frame(self.frames[k]) for k in range(start, stop)), strict=True)
        if len({one.shape for one in samples}) > 1:
            numbers = " and ".join(str(n) for n in sorted({one.shape[1] for one in samples}))
            found = f"slices {start} to {stop - 1} with {numbers} readouts"
            expected = "as many in each slice"
            raise ScanError(
                self.imaging.path, "slices", found=found, expected=expected, hint="take them one by one"
            )
        std = None if self.whitening is None else 1.0
        return KspaceSamples(
            torch.stack(samples),
            None,
            std,
            whitening=self.whitening,
            trajectory=torch.stack(trajectories),
        )

    def _frame(self, frame: NDArray[np.int32]) -> tuple[Tensor, Tensor]:
        """Return samples (channels, readouts, samples) and where they lie, (readouts, samples, (y, x))."""
        same = np.ones(len(self.imaging), bool)
        for counter, value in zip(COUNTERS, frame, strict=True):
            same &= self.imaging[counter] == value
        chosen = self.imaging.where(same)
        chosen = chosen.where(np.argsort(chosen["kspace_encode_step_1"], kind="stable"))
        with opened(chosen.path) as file:
            lines = np.stack(read_samples(file, chosen, self.channels), 1)
            places = np.stack(read_trajectories(file, chosen))
        kspace = torch.from_numpy(lines)
        if self.whitening is not None:
            kspace = torch.einsum("dc,c...->d...", self.whitening, kspace)
        scaled = places[..., :2] * np.array(self.factors, np.float32)
        return kspace, torch.from_numpy(np.ascontiguousarray(scaled[..., ::-1]))


def read_trajectories(file: h5py.File, chosen: Acquisitions) -> list[NDArray[np.float32]]:
    """Return where the samples of each lie, (samples, dimensions), in the order of `read_samples`.

    Raises
    ------
    ScanError
        If one is missing, of another length than its readout, or not finite.
    """
    reverse = chosen.flagged(REVERSE)
    places: list[NDArray[np.float32]] = [np.empty((0, 0), np.float32)] * len(chosen)
    for k, numbers in readouts(file, chosen, "traj"):
        head = chosen.heads[k]
        count, axes = int(head["number_of_samples"]), int(head["trajectory_dimensions"])
        where = f"{chosen.field} acquisition {head['row']} traj"
        if axes != 2 or len(numbers) != count * axes:
            found = f"{len(numbers)} numbers of {axes} dimensions"
            raise ScanError(chosen.path, where, found=found, expected=f"{count} places of 2 dimensions")
        if not np.isfinite(numbers).all():
            raise ScanError(chosen.path, where, found="others", expected="finite numbers")
        place = np.asarray(numbers, np.float32).reshape(count, axes)
        place = place[head["discard_pre"] : count - head["discard_post"]]
        places[k] = place[::-1] if reverse[k] else place
    return places


def factors_of(
    file: h5py.File, imaging: Acquisitions, matrix: tuple[int, int], assumed: list[str]
) -> tuple[float, float]:
    """Return what trajectories (x, y) are multiplied by to be in cycles per field of view of (height, width).

    The format leaves their unit open; it is told by how far they reach.

    Raises
    ------
    ScanError
        If they leave k-space in any unit, or readouts are of different lengths.
    """
    kept = imaging["number_of_samples"].astype(int) - imaging["discard_pre"] - imaging["discard_post"]
    if len(np.unique(kept)) > 1:
        found = f"{kept.min()} to {kept.max()}"
        raise ScanError(
            imaging.path, f"{imaging.field} number_of_samples", found=found, expected="one number"
        )
    some = imaging.where(np.unique(np.linspace(0, len(imaging) - 1, 64).astype(int)))
    places = read_trajectories(file, some)
    reach = np.abs(np.concatenate(places)).max(0)
    height, width = matrix
    for unit, limits, factors in zip(
        _UNITS,
        ((0.5, 0.5), (math.pi, math.pi), (width / 2, height / 2)),
        ((width, height), (width / (2 * math.pi), height / (2 * math.pi)), (1.0, 1.0)),
        strict=True,
    ):
        if all(far <= _ROUNDING * limit for far, limit in zip(reach, limits, strict=True)):
            assumed.append(f"unit of trajectories: {unit}, as they reach {reach.max():.4g}")
            # What is a little outside of the grid is rounding.
            inside = min(1.0, *(limit / far for far, limit in zip(reach, limits, strict=True) if far > 0))
            return float(inside * factors[0]), float(inside * factors[1])
    found = f"frequencies up to {reach.max():.4g}"
    expected = f"at most {max(width, height) / 2:g} cycles per field of view"
    raise ScanError(imaging.path, f"{imaging.field} traj", found=found, expected=expected)
