"""A measured file as a lazy sequence of inverse problems."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctflow.io.description import describe
from ctflow.io.errors import ScanError
from ctflow.io.geometries import spread_views
from ctflow.io.kspace_recording import KspaceRecording
from ctflow.io.links import linked_files
from ctflow.io.mr_scan import KspaceReading, MRScan, open_kspace
from ctflow.io.reading import guarded, reading_files
from ctflow.io.rebinned import RebinnedScan
from ctflow.io.recognition import recording_of
from ctflow.io.recording import Rays, Recording, noise_of_one_slice
from ctflow.io.slice_range import require_memory, slice_range
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
    coil_maps: str | Path | None = None,
    coils: int | None = None,
    undersample: str | None = None,
    noise_std: float | None = None,
    rebin: bool = False,
    allow_external_links: bool = False,
) -> AnyScan:
    """Open a measured file, or a folder of them; the format is told by the content.

    Nothing but the description is read now. Files of CT become a `Scan`, k-space an `MRScan` of the same
    protocol; arguments of the one are refused for the other.

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
    coil_maps
        Of k-space: "espirit" or "adaptive" to estimate them from the fully sampled centre, "none" for the
        same everywhere, or an HDF5 or BART file of them. What the file brings, or "espirit", unless given.
    coils
        Of k-space: compress the coils to so many virtual ones.
    undersample
        Of k-space: leave samples out, such as "equispaced:4"; see `ctflow.io.undersampling`.
    noise_std
        Of k-space: standard deviation of a complex sample's noise, in the file's unit.
    rebin
        Whether a helical scan is to be a sequence of fan beams, one a slice, instead of a volume.
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
    with reading_files(allow_external_links), linked_files() as linked:
        recording = recording_of(path, angles_unit=angles_unit, photons=photons, mode=mode)
    if others := linked - {path.resolve()}:
        recording = replace(recording, files=(*(recording.files or (path,)), *sorted(others)))
    recording = guarded(recording, allow_external_links)
    of_kspace = {"coil_maps": coil_maps, "coils": coils, "undersample": undersample, "noise_std": noise_std}
    if isinstance(recording, KspaceRecording):
        of_ct = {
            "views": views,
            "centre": centre,
            "angles_unit": angles_unit,
            "photons": photons,
            "mode": mode,
        }
        reading = KspaceReading(pixel_size=pixel_size, size=size, **of_kspace)  # type: ignore[arg-type]
        return open_kspace(path, recording, reading, **of_ct, remove_stripes=remove_stripes, rebin=rebin)
    for name, given in of_kspace.items():
        if given is not None:
            raise ScanError(path, name, found=given, expected="none for a scan of CT")
    total, bins = recording.geometry.views, recording.detector.bins
    for name, value, most in (("views", views, total), ("size", size, 2**15)):
        if value is not None and not 1 <= value <= most:
            raise ScanError(path, name, found=value, expected=f"a number from 1 to {most}")
    if centre is not None and not 0 <= centre <= bins - 1:
        expected = f"a bin from 0 to {bins - 1}"
        raise ScanError(path, "centre", found=centre, expected=expected)
    scan = Scan(path, recording, views, centre, pixel_size, remove_stripes, size)
    return RebinnedScan(scan) if rebin else scan


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

    modality = "CT"

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
            hint = "scan.volume() is the problem in space; rebin=True makes slices of a helical scan"
            raise ScanError(self.path, "slices", found=found, expected=expected, hint=hint)
        start, stop = slice_range(self.path, index, len(self))
        measurement, noise = self._read(start, stop, self.used_views)
        if self.remove_stripes:
            measurement = without_stripes(measurement, self._stripe_width)
        if not isinstance(index, slice):
            measurement, noise = measurement[0], noise_of_one_slice(noise)
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
        measurement, noise = self.read_views(np.arange(len(self.used_views)))
        return InverseProblem(self.operator, measurement, noise)

    def read_views(self, which: NDArray[np.intp]) -> tuple[Tensor, NoiseModel]:
        """Read some of the views in use of a scan in space, (views, rows, bins), and their noise."""
        measurement, noise = self._read(0, len(self), self.used_views[which])
        if self.remove_stripes:
            by_row = without_stripes(measurement.transpose(0, 1), self._stripe_width)
            measurement = by_row.transpose(0, 1).contiguous()
        return measurement, noise

    @property
    def is_volume(self) -> bool:
        """Whether the slices are one problem, `volume`."""
        return self.recording.volume

    @property
    def most_together(self) -> int:
        """How many slices one problem may have; those of a volume are all in one."""
        return len(self)

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
        images = self.recording.read_truth(*slice_range(self.path, index, len(self))) / self._scale
        return images if isinstance(index, slice) else images[0]

    def finished(self, image: Tensor) -> Tensor:
        """Return what of a problem's image goes into a file: all."""
        return image

    def together(self, problems: Sequence[InverseProblem]) -> InverseProblem:
        """Return problems of single slices as one, with the noise of the first."""
        measurements = torch.stack([problem.measurement for problem in problems])
        return InverseProblem(self.operator, measurements, problems[0].noise, problems[0].background)

    @property
    def unit(self) -> str:
        """Unit of the image: "1/mm", or "1/pixel" where the pixel size is unknown."""
        return self.recording.unit if self.given_pixel_size is None else "1/mm"

    @property
    def pixel_size(self) -> float | None:
        """Height and width of the image's pixels in mm, or None where it is unknown."""
        return self.grid.pixel_height if self.unit == "1/mm" else None

    @property
    def slice_distance(self) -> float | None:
        """From slice to slice of a volume in mm; None of others, which do not know it."""
        return self.grid.pixel_size[0] if self.is_volume else None  # type: ignore[index]

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

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Of one slice, (height, width), or of the volume."""
        return self.grid.shape

    @property
    def measurement_shape(self) -> tuple[int, ...]:
        """Of one slice, (views, bins), or of the volume, (views, rows, bins)."""
        return (len(self.used_views), *self.recording.detector.shape)

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
        measurement, _ = self._read(middle, middle + 1, spread_views(self.recording.angles, None))
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
        with reading_files():
            return describe(self)

    @cached_property
    def used_views(self) -> NDArray[np.intp]:
        """Indices of the views in use."""
        return spread_views(self.recording.angles, self.views)

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

    def _read(self, start: int, stop: int, views: NDArray[np.intp]) -> tuple[Tensor, NoiseModel]:
        count = len(views) / self.recording.geometry.views if self.is_volume else stop - start
        needed = round(4 * count * math.prod(self.recording.geometry.sinogram_shape))
        what = "a volume of" if self.is_volume else f"{stop - start} slices of together"
        require_memory(self.path, needed, what)
        return self.recording.read(start, stop, views)


AnyScan = Scan | MRScan | RebinnedScan
