"""A measured file as a lazy sequence of inverse problems."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property
from operator import index as operator_index
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ctflow.io.description import describe
from ctflow.io.errors import ScanError
from ctflow.io.reading import guarded, reading
from ctflow.io.recognition import recording_of
from ctflow.io.recording import Rays, Recording
from ctflow.problem import InverseProblem
from operators.ct.corrections import STRIPE_WIDTH
from operators.ct.corrections import remove_stripes as without_stripes
from operators.ct.geometry import Detector, ImageGrid, ParallelBeam
from operators.ct.ray_transform import RayTransform
from operators.ct.rotation_centre import find_rotation_centre
from operators.noise import NoiseModel


def open_scan(
    path: str | Path,
    *,
    views: int | None = None,
    centre: float | None = None,
    pixel_size: float | None = None,
    angles_unit: str | None = None,
    remove_stripes: bool = False,
    photons: float | None = None,
    size: int | None = None,
    mode: int | None = None,
    allow_external_links: bool = False,
) -> Scan:
    """Open a measured file, or a folder of them; the format is told by the content.

    Nothing but the description is read now.

    Parameters
    ----------
    path
        The file or folder.
    views
        Use only so many of the angles, spread evenly.
    centre
        Where the rotation axis falls on the detector, in bins (0 is the middle of the first bin), instead
        of what the file says or of what the search finds.
    pixel_size
        Width of a detector bin, and for square grids of as many pixels as bins of a pixel, in mm. Lengths
        that the file states are scaled to it. Of fan and cone beams, whose distances are known, the side of
        the image's pixels: the field of view stays, unless `size` is given.
    angles_unit
        "degrees" or "radians", for files that say neither or the wrong one.
    remove_stripes
        Whether bins that read too high or too low in every view are corrected.
    photons
        What a bin counts without an object, for the noise. A DXchange file without flat fields is read
        with it as one of corrected transmissions.
    size
        Height and width of the image in pixels, about the rotation axis; of unchanged pixel size.
    mode
        Of 2DeteCT, whose slices were each scanned in three: 1 low dose, 2 high fidelity, 3 beam hardening.
    allow_external_links
        Whether data may lie in any file that an HDF5 file names, instead of those in its folder and below.

    Raises
    ------
    ScanError
        If the file cannot be read, is of no known format, lacks a field, contradicts itself, or an
        argument does not go with it.
    """
    path = Path(path).absolute()
    for name, value in (("pixel_size", pixel_size), ("photons", photons)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ScanError(path, name, found=value, expected="a positive number")
    if angles_unit not in (None, "degrees", "radians"):
        raise ScanError(path, "angles_unit", found=repr(angles_unit), expected="'degrees' or 'radians'")
    with reading(allow_external_links):
        recording = recording_of(path, angles_unit=angles_unit, photons=photons, mode=mode)
    recording = guarded(recording, allow_external_links)
    total, bins = recording.geometry.views, recording.detector.bins
    for name, value, most in (("views", views, total), ("size", size, 2**15)):
        if value is not None and not 1 <= value <= most:
            raise ScanError(path, name, found=value, expected=f"a number from 1 to {most}")
    if centre is not None and not 0 <= centre <= bins - 1:
        expected = f"a bin from 0 to {bins - 1}"
        raise ScanError(path, "centre", found=centre, expected=expected)
    return Scan(path, recording, views, centre, pixel_size, remove_stripes, size)


def _spread(angles: NDArray[np.float64], count: int | None) -> NDArray[np.intp]:
    """Return the indices of `count` views, evenly spread in angle, in the order of acquisition."""
    total = len(angles)
    if count is None:
        return np.arange(total)
    # Interlaced scans do not acquire their angles in order.
    order = np.argsort(angles, kind="stable")
    return np.sort(order[np.arange(count) * total // count])


def _one_slice(noise: NoiseModel) -> NoiseModel:
    """Return the noise of the only slice of a batch, without the batch axis."""
    values = {field.name: getattr(noise, field.name) for field in fields(noise)}  # type: ignore[arg-type]
    single = {
        name: value[0] for name, value in values.items() if isinstance(value, Tensor) and value.ndim == 3
    }
    return replace(noise, **single)  # type: ignore[type-var]


@dataclass(frozen=True, eq=False)
class Scan:
    """The slices of one file, each an inverse problem that is read when it is asked for.

    ``len(scan)``; ``scan[i]`` with measurement (views, bins); ``scan[a:b]`` with (slices, views, bins).
    Slices that were measured together, in cone beams say, are one problem: ``scan.volume()``. The file is
    opened for each access, so that a scan can be sent to other processes. Made by `open_scan`.
    """

    path: Path
    recording: Recording
    views: int | None = None
    given_centre: float | None = None
    given_pixel_size: float | None = None
    remove_stripes: bool = False
    size: int | None = None

    def __len__(self) -> int:
        return self.recording.slices

    @overload
    def __getitem__(self, index: int) -> InverseProblem: ...
    @overload
    def __getitem__(self, index: slice) -> InverseProblem: ...
    def __getitem__(self, index: int | slice) -> InverseProblem:
        """One problem for an index, one batched problem for a slice."""
        if self.recording.volume:
            found = self.recording.geometry.describe()
            expected = "a scan whose rays stay in the plane of a slice"
            hint = "scan.volume() is the problem in space"
            raise ScanError(self.path, "slices", found=found, expected=expected, hint=hint)
        start, stop = self._range(index)
        measurement, noise = self._read(start, stop, self.used_views)
        if self.remove_stripes:
            measurement = without_stripes(measurement, self._stripe_width)
        if not isinstance(index, slice):
            measurement, noise = measurement[0], _one_slice(noise)
        return InverseProblem(self.operator, measurement, noise)

    def volume(self) -> InverseProblem:
        """Return the problem of all slices of a scan in space, with measurement (views, rows, bins).

        Raises
        ------
        ScanError
            If every slice is a problem of its own.
        """
        if not self.recording.volume:
            found = self.recording.geometry.describe()
            hint = "take slices, such as scan[0:4]"
            raise ScanError(self.path, "volume", found=found, expected="rays in space", hint=hint)
        measurement, noise = self._read(0, len(self), self.used_views)
        if self.remove_stripes:
            by_row = without_stripes(measurement.transpose(0, 1), self._stripe_width)
            measurement = by_row.transpose(0, 1).contiguous()
        return InverseProblem(self.operator, measurement, noise)

    @property
    def is_volume(self) -> bool:
        """Whether the slices are one problem, `volume`."""
        return self.recording.volume

    @property
    def _stripe_width(self) -> int:
        """Bins that stripes are looked for in, an odd number."""
        return min(STRIPE_WIDTH, (self.recording.detector.bins - 1) // 2 * 2 + 1)

    def __iter__(self) -> Iterator[InverseProblem]:
        return (self[index] for index in range(len(self)))

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the operator, which is made anew where the scan arrives."""
        return {name: value for name, value in self.__dict__.items() if name != "operator"}

    def truth(self, index: int | slice) -> Tensor | None:
        """Return the image that was measured, (height, width) or (slices, height, width), where known.

        It is in the scan's unit, and None for other pixels than the file's.
        """
        resampled = self.given_pixel_size is not None and self._distances_known
        if self.recording.read_truth is None or self.size is not None or resampled:
            return None
        images = self.recording.read_truth(*self._range(index)) / self._scale
        return images if isinstance(index, slice) else images[0]

    @property
    def unit(self) -> str:
        """Unit of the image: "1/mm", or "1/pixel" where the pixel size is unknown."""
        return self.recording.unit if self.given_pixel_size is None else "1/mm"

    @property
    def pixel_size(self) -> float | None:
        """Height and width of the image's pixels in mm, or None where it is unknown."""
        return self.grid.pixel_height if self.unit == "1/mm" else None

    @cached_property
    def grid(self) -> ImageGrid:
        """The pixels of the image, or the voxels of the volume."""
        grid = self.recording.grid
        height, width = grid.shape[-2:]
        sides = tuple(side * self._scale for side in grid.pixel_size)  # type: ignore[union-attr]
        if self.given_pixel_size is not None and self._distances_known:
            side = self.given_pixel_size
            height = max(1, round(height * grid.pixel_height / side))
            width = max(1, round(width * grid.pixel_width / side))
            sides = (*sides[:-2], side, side)
        if self.size is not None:
            height = width = self.size
        center = tuple(value * self._scale for value in grid.center)
        return ImageGrid((*grid.shape[:-2], height, width), sides, center)

    @cached_property
    def centre(self) -> float:
        """Where the rotation axis falls on the detector, in bins; searched in the middle slice if unknown.

        Raises
        ------
        ScanError
            If it is unknown and cannot be found.
        """
        detector = self.recording.detector
        if self.given_centre is not None:
            return float(self.given_centre)
        if self.recording.axis_known or not isinstance(self.recording.geometry, ParallelBeam):
            return (detector.bins - 1) / 2 - detector.offset / detector.pitch
        middle = len(self) // 2
        measurement, _ = self._read(middle, middle + 1, _spread(self.recording.angles, None))
        try:
            return find_rotation_centre(measurement[0], self.recording.angles)
        except ValueError as error:
            expected = f"a rotation axis visible in slice {middle}"
            raise ScanError(
                self.path, "rotation centre", found=error, expected=expected, hint="pass centre= in bins"
            ) from error

    @cached_property
    def geometry(self) -> Rays:
        """The rays of one slice, or of the volume."""
        return self.geometry_about(self.centre)

    @cached_property
    def operator(self) -> RayTransform:
        """The ray transform that all slices share, or that of the volume."""
        return RayTransform(self.geometry, self.grid)

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that is read."""
        return self.recording.files or (self.path,)

    @property
    def metadata(self) -> dict[str, Any]:
        """What the file says about itself; JSON-able."""
        return dict(self.recording.metadata)

    def describe(self) -> dict[str, Any]:
        """Return what is in the file, what was assumed and what is missing; JSON-able.

        Reads the middle slice. What is wrong with it is listed under `problems`, not raised.
        """
        with reading():
            return describe(self)

    @cached_property
    def used_views(self) -> NDArray[np.intp]:
        """Indices of the views in use."""
        return _spread(self.recording.angles, self.views)

    @property
    def _scale(self) -> float:
        """New over old lengths."""
        if self.given_pixel_size is None or self._distances_known:
            return 1.0
        return self.given_pixel_size / self.recording.detector.pitch

    @property
    def _distances_known(self) -> bool:
        """Whether the distances from source to axis and detector fix the scale of all lengths."""
        return not isinstance(self.recording.geometry, ParallelBeam)

    def geometry_about(self, centre: float) -> Rays:
        """Return the rays for a rotation axis at a position in bins."""
        geometry, detector = self.recording.geometry, self.recording.detector
        bins, pitch = detector.bins, detector.pitch * self._scale
        offset = ((bins - 1) / 2 - centre) * pitch
        if isinstance(geometry, ParallelBeam):
            return ParallelBeam(geometry.angles[self.used_views], Detector(bins, pitch, offset))
        geometry = geometry.subset(self.used_views)
        if math.isclose(offset, detector.offset, abs_tol=1e-9 * pitch):
            return geometry
        if detector.rows is None:
            moved = Detector(bins, pitch, offset, curved=detector.curved)
        else:
            moved = Detector(
                (detector.rows, bins),
                (detector.row_pitch, pitch),
                (detector.row_offset, offset),
                curved=detector.curved,
            )
        return geometry.with_detector(moved)

    def _range(self, index: int | slice) -> tuple[int, int]:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1 or start >= stop:
                expected = f"a range of neighbouring slices within 0:{len(self)}"
                raise ScanError(self.path, "slices", found=index, expected=expected)
            return start, stop
        position = operator_index(index)
        if not -len(self) <= position < len(self):
            raise IndexError(f"{self.path}: slice {position} of {len(self)}")
        position %= len(self)
        return position, position + 1

    def _read(self, start: int, stop: int, views: NDArray[np.intp]) -> tuple[Tensor, NoiseModel]:
        count = 1 if self.is_volume else stop - start
        needed = count * math.prod(self.recording.geometry.sinogram_shape) * 4
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if needed > there:
            what = "a volume" if self.is_volume else f"{stop - start} slices of together"
            expected = f"what fits into {there / 2**30:.1f} GiB of memory"
            raise ScanError(
                self.path,
                "slices",
                found=f"{what} {needed / 2**30:.1f} GiB",
                expected=expected,
                hint="ask for fewer at a time",
            )
        return self.recording.read(start, stop, views)
