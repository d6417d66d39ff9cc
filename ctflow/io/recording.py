"""What every scan format is reduced to before it becomes inverse problems."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ctflow.io.geometries import GivenByVectors
from operators.ct.geometry import Detector, ImageGrid, ParallelBeam
from operators.noise import GaussianNoise, NoiseModel, PoissonTransmission

Rays = ParallelBeam | GivenByVectors
# (first slice, one past the last, views in use) -> (slices, views, bins) line integrals and their noise,
# whose tensors have either no slice axis or one of the same length, and at most three axes. Of a scan in
# space all slices are read at once: (views, rows, bins).
Read = Callable[[int, int, NDArray[np.intp]], tuple[Tensor, NoiseModel]]


@dataclass(frozen=True)
class Recording:
    """One measured file, or one folder of them.

    Attributes
    ----------
    format
        Name of the file format.
    slices
        Number of slices.
    geometry
        The rays of one slice, or of a scan in space; lengths in mm, or with a pitch of 1 where the file does
        not say its pixel size.
    grid
        The image of one slice, or of a scan in space the volume; in the same unit of length.
    unit
        Of the image: "1/mm" or "1/pixel".
    read
        Reads slices; picklable, and opens the file anew for each call.
    noise
        The noise model in words.
    geometry
        The rays, where they are no ParallelBeam of the angles and the detector.
    axis_known
        Whether the detector's offset is known; otherwise the rotation centre has to be found.
    read_truth
        Reads images (slices, height, width) that the file knows to be true, where it has them.
    inspect
        Says what looks wrong in one slice, one line each, after reading it.
    metadata
        What else the file says about itself, JSON-able.
    files
        The files that are read, where that is not the one that was opened.
    assumed, missing, problems
        One line each: what was taken for granted, what the file lacks, and what looks wrong.
    """

    format: str
    slices: int
    geometry: Rays
    grid: ImageGrid
    unit: str
    read: Read
    noise: str
    axis_known: bool = True
    read_truth: Callable[[int, int], Tensor] | None = None
    inspect: Callable[[int], tuple[str, ...]] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    assumed: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def angles(self) -> NDArray[np.float64]:
        """In radians, shape (views,)."""
        return self.geometry.angles

    @property
    def detector(self) -> Detector:
        """The bins of one view."""
        return self.geometry.detector

    @property
    def volume(self) -> bool:
        """Whether the slices are measured together, by rays that run through several."""
        return self.geometry.dimensions == 3


def noise_in_words(noise: NoiseModel) -> str:
    """Return one line for a person."""
    if isinstance(noise, GaussianNoise):
        return f"Gaussian, standard deviation {_about(noise.std)}"
    if isinstance(noise, PoissonTransmission):
        electronic = _about(noise.electronic_std)
        extra = "" if electronic == "0" else f", electronic noise {electronic} counts"
        return f"Poisson, {_about(noise.photons)} photons a bin{extra}"
    return type(noise).__name__


def _about(value: float | Tensor) -> str:
    return f"about {value.mean().item():.4g}" if isinstance(value, Tensor) else f"{value:.4g}"


def with_photons(noise: NoiseModel, photons: float | None) -> NoiseModel:
    """Return Poisson noise with that many photons a bin; the noise as it is for None."""
    if photons is None:
        return noise
    if isinstance(noise, PoissonTransmission):
        return replace(noise, photons=photons)
    return PoissonTransmission(photons)


def noise_of_one_slice(noise: NoiseModel) -> NoiseModel:
    """Return the noise of the only slice of a batch, without the batch axis."""
    values = {field.name: getattr(noise, field.name) for field in fields(noise)}  # type: ignore[arg-type]
    single = {
        name: value[0] for name, value in values.items() if isinstance(value, Tensor) and value.ndim == 3
    }
    return replace(noise, **single)  # type: ignore[type-var]
