"""A helical scan as a lazy sequence of fan beams, one a slice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from operator import index as operator_index
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ctflow.io.errors import ScanError
from ctflow.problem import InverseProblem
from operators.ct.geometry import ConeBeam, HelicalConeBeam, ImageGrid
from operators.ct.ray_transform import RayTransform
from operators.ct.rebinning import SliceRebinning, rebinned_heights
from operators.noise import GaussianNoise, NoiseModel, PoissonTransmission

if TYPE_CHECKING:
    from ctflow.io.scan import Scan


@dataclass(frozen=True, eq=False)
class RebinnedScan:
    """The slices of a helical scan, each the problem of the fan beam that `single_slice_rebinning` makes.

    As a `Scan` of slices, but every slice has views of its own, so that they are taken one at a time:
    ``scan[i]`` has measurement (views, bins), ``scan[i:i+1]`` (1, views, bins). Slices that the helix does
    not pass with all views are left out. Made by ``open_scan(..., rebin=True)``.

    Parameters
    ----------
    source
        The scan in space.

    Raises
    ------
    ScanError
        If it is not a helical one, or is too short for a single slice.
    """

    source: Scan

    def __post_init__(self) -> None:
        """Refuse scans that cannot be rebinned."""
        _ = self._slices

    def __len__(self) -> int:
        return len(self._slices)

    def __getitem__(self, index: int | slice) -> InverseProblem:
        """One problem; a slice must be of length 1."""
        position = self._position(index)
        slice_ = self._rebinning(position)
        views, noise = self.source.read_views(slice_.views)
        measurement, noise = slice_(views), _rebinned_noise(noise, slice_, views)
        if isinstance(index, slice):
            measurement = measurement[None]
        return InverseProblem(RayTransform(slice_.plane, self.grid), measurement, noise)

    def __iter__(self) -> Iterator[InverseProblem]:
        return (self[index] for index in range(len(self)))

    @property
    def modality(self) -> str:
        """CT."""
        return self.source.modality

    def finished(self, image: Tensor) -> Tensor:
        """Return the image as it is; see `Scan.finished`."""
        return image

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Of one slice, (height, width)."""
        return self.grid.shape

    @property
    def measurement_shape(self) -> tuple[int, ...]:
        """Of the middle slice, (views, bins)."""
        return self._rebinning(len(self) // 2).plane.sinogram_shape

    @property
    def is_volume(self) -> bool:
        """False: slices are problems of their own."""
        return False

    @property
    def most_together(self) -> int:
        """1: each slice has views of its own."""
        return 1

    def volume(self) -> InverseProblem:
        """Return the problem that was not rebinned, of all slices of the file."""
        return self.source.volume()

    def truth(self, index: int | slice) -> Tensor | None:
        """Return the image that was measured, (height, width) or (1, height, width), where known."""
        position = self._slices[self._position(index)]
        return self.source.truth(slice(position, position + 1) if isinstance(index, slice) else position)

    @property
    def path(self) -> Path:
        """The file or folder."""
        return self.source.path

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that is read."""
        return self.source.files

    @property
    def unit(self) -> str:
        """Unit of the image."""
        return self.source.unit

    @property
    def pixel_size(self) -> float | None:
        """Height and width of the image's pixels in mm, or None where it is unknown."""
        return self.source.pixel_size

    @property
    def slice_distance(self) -> float | None:
        """From slice to slice, in mm."""
        return self.source.slice_distance

    @property
    def heights(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Where the slices are along z, in mm."""
        return self.source.grid.coordinates()[2][self._slices.start : self._slices.stop]

    @cached_property
    def grid(self) -> ImageGrid:
        """The pixels of a slice."""
        whole = self.source.grid
        return ImageGrid(whole.shape[1:], whole.pixel_size[1:], whole.center[:2])  # type: ignore[index]

    @property
    def metadata(self) -> dict[str, Any]:
        """What the file says about itself; JSON-able."""
        low, high = (float(value) for value in self.heights[[0, -1]])
        return {**self.source.metadata, "rebinned_heights_mm": [low, high]}

    def describe(self) -> dict[str, Any]:
        """Return what is in the file and in the middle slice; JSON-able. See `Scan.describe`."""
        described, middle = self.source.describe(), len(self) // 2
        assumed, problems = list(described["assumed"]), list(described["problems"])
        try:
            plane = self._rebinning(middle).plane
            degrees = np.rad2deg(np.unwrap(plane.angles))
            described |= {
                "views": plane.views,
                "angles": [float(degrees.min()), float(degrees.max())],
                "geometry": f"slice {middle}: {plane.describe()}",
            }
        except ScanError as error:
            problems.append(str(error))
        outside = len(self.source) - len(self)
        rest = f"; {outside} at the ends of the helix are not seen from all around" if outside else ""
        assumed.append(f"slices: rebinned to fan beams, as if rays stayed in their slice{rest}")
        for of_the_volume in ("rows", "rebinning"):
            described.pop(of_the_volume, None)
        shown = {"slices": len(self), "grid": self.grid.describe(), "assumed": assumed, "problems": problems}
        return {**described, **shown}

    @cached_property
    def _slices(self) -> range:
        """Which slices of the file are passed with all views."""
        geometry = self.source.geometry
        if not isinstance(geometry, HelicalConeBeam | ConeBeam):
            raise self._refused(geometry.describe())
        try:
            low, high = rebinned_heights(geometry)
        except ValueError as error:
            raise self._refused(str(error)) from error
        z = self.source.grid.coordinates()[2]
        seen = np.flatnonzero((z >= low) & (z <= high))
        if not seen.size:
            ends = f"{z.min():.4g} to {z.max():.4g} mm"
            raise self._refused(f"slices at {ends}, and all views for {low:.4g} to {high:.4g} mm")
        return range(int(seen[0]), int(seen[-1]) + 1)

    def _refused(self, found: str) -> ScanError:
        expected = "a scan that climbs past a slice with views from all around it"
        hint = "without it, scan.volume() is the problem in space"
        return ScanError(self.path, "rebin", found=found, expected=expected, hint=hint)

    def _rebinning(self, position: int) -> SliceRebinning:
        height = float(self.heights[position])
        try:
            return SliceRebinning.at(self.source.geometry, height)  # type: ignore[arg-type]
        except ValueError as error:
            raise self._refused(f"slice {position}: {error}") from error

    def _position(self, index: int | slice) -> int:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1 or stop - start != 1:
                expected = "one slice at a time: each has views of its own"
                raise ScanError(self.path, "slices", found=index, expected=expected)
            return start
        position = operator_index(index)
        if not -len(self) <= position < len(self):
            raise IndexError(f"{self.path}: slice {position} of {len(self)}")
        return position % len(self)


def _rebinned_noise(noise: NoiseModel, slice_: SliceRebinning, views: Tensor) -> NoiseModel:
    """Return the noise of rays between two rows of views, (views, rows, bins): less than that of a row."""
    gain = torch.as_tensor(slice_.variance_gain()).to(views)

    def on_rays(value: float | Tensor) -> Tensor:
        everywhere = torch.as_tensor(value).to(views).expand(views.shape)
        return slice_.between_rows(everywhere)

    if isinstance(noise, GaussianNoise):
        return GaussianNoise(on_rays(noise.std) * gain.sqrt())
    if isinstance(noise, PoissonTransmission):
        electronic = on_rays(noise.electronic_std) / gain.sqrt()
        return replace(noise, photons=on_rays(noise.photons) / gain, electronic_std=electronic)
    raise ValueError(f"rebin: expected Gaussian or Poisson noise, found {type(noise).__name__}")
