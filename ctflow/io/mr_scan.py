"""A file of k-space as a lazy sequence of inverse problems."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor

from ctflow.io.cfl import cfl_header
from ctflow.io.coil_maps import METHODS, estimated_maps, read_maps
from ctflow.io.errors import ScanError
from ctflow.io.kspace_checks import check_axes, check_centre, check_mask
from ctflow.io.kspace_grid import centre_crop, centre_pad
from ctflow.io.kspace_noise import estimate_kspace_std
from ctflow.io.kspace_problems import batched, compressed, first_of
from ctflow.io.kspace_recording import KspaceRecording, KspaceSamples
from ctflow.io.mr_description import describe
from ctflow.io.nonuniform_samples import on_the_grid, one_trajectory
from ctflow.io.reading import reading_files
from ctflow.io.slice_range import require_memory, slice_range
from ctflow.io.undersampling import parse_undersampling, undersampled, undersampling_mask
from ctflow.problem import InverseProblem
from operators.mri.fourier import CartesianFourier, centred_fft, centred_ifft
from operators.mri.nonuniform import NonuniformFourier
from operators.noise import ComplexGaussianNoise

_OF_CT = ("views", "centre", "angles_unit", "remove_stripes", "photons", "mode")


@dataclass(frozen=True)
class KspaceReading:
    """How k-space is to be read; see `ctflow.io.scan.open_scan`."""

    coil_maps: str | Path | None = None
    coils: int | None = None
    undersample: str | None = None
    noise_std: float | None = None
    pixel_size: float | None = None
    size: int | None = None


def open_kspace(path: Path, recording: KspaceRecording, reading: KspaceReading, **of_ct: Any) -> MRScan:
    """Return the scan of a recording, once its arguments are found to make sense.

    Parameters
    ----------
    of_ct
        Arguments that CT has and k-space has not.

    Raises
    ------
    ScanError
        If an argument does not go with the file.
    """
    for name, value in of_ct.items():
        if value is not None and value is not False:
            raise ScanError(path, name, found=value, expected="none for k-space")
    check_axes(path, "kspace", recording.coils, recording.matrix)
    maps, own = reading.coil_maps, recording.has_coil_maps
    if maps is not None and maps not in METHODS and not _is_there(Path(maps).absolute()):
        expected = f"{', '.join(METHODS)}, or a file of maps"
        raise ScanError(path, "coil_maps", found=repr(str(maps)), expected=expected)
    if reading.coils is not None:
        if not 1 <= reading.coils <= recording.coils:
            expected = f"a number from 1 to {recording.coils}"
            raise ScanError(path, "coils", found=reading.coils, expected=expected)
        if (own and maps is None) or (maps is not None and maps not in METHODS):
            expected = "none with maps from a file, which are those of the coils as they are"
            raise ScanError(
                path, "coils", found=reading.coils, expected=expected, hint="pass coil_maps=espirit"
            )
    if reading.size is not None and not 1 <= reading.size <= min(recording.field_of_view):
        expected = f"a number from 1 to {min(recording.field_of_view)}"
        raise ScanError(path, "size", found=reading.size, expected=expected)
    if reading.undersample is not None:
        if recording.volume or recording.trajectory is not None:
            found, expected = reading.undersample, "none for volumes and trajectories"
            raise ScanError(path, "undersample", found=found, expected=expected)
        try:
            parse_undersampling(reading.undersample)
        except ValueError as error:
            found = repr(reading.undersample)
            raise ScanError(path, "undersample", found=found, expected=error) from error
    if reading.noise_std is not None and not (math.isfinite(reading.noise_std) and reading.noise_std > 0):
        raise ScanError(path, "noise_std", found=reading.noise_std, expected="a positive number")
    return MRScan(path, recording, reading)


@dataclass(frozen=True, eq=False)
class MRScan:
    """The slices of one file of k-space, each an inverse problem that is read when it is asked for.

    ``len(scan)``; ``scan[i]`` with measurement (coils, height, width), or (height, width) of a single coil
    without maps; ``scan[a:b]`` with slices before that, and maps of each slice in the operator. Slices that
    were encoded together are one problem, ``scan.volume()``. Problems are those of the full field of view:
    ``scan.finished(image)`` is what goes into a file. The protocol is that of `ctflow.io.scan.Scan`. Made by
    `open_scan`.
    """

    path: Path
    recording: KspaceRecording
    reading: KspaceReading

    modality = "MR"
    unit = "arbitrary"

    def __len__(self) -> int:
        return self.recording.matrix[0] if self.is_volume else self.recording.slices

    @overload
    def __getitem__(self, index: int) -> InverseProblem: ...
    @overload
    def __getitem__(self, index: slice) -> InverseProblem: ...
    def __getitem__(self, index: int | slice) -> InverseProblem:
        """One problem for an index, one batched problem for a slice."""
        if self.is_volume:
            found = f"k-space of {' x '.join(map(str, self.recording.matrix))} samples"
            expected = "slices that are encoded one by one"
            hint = "scan.volume() is the problem in space"
            raise ScanError(self.path, "slices", found=found, expected=expected, hint=hint)
        start, stop = slice_range(self.path, index, len(self))
        problem = self._problem(start, stop)
        return problem if isinstance(index, slice) else first_of(problem)

    def volume(self) -> InverseProblem:
        """Return the problem of all slices that were encoded together, measurement (coils, depth, y, x).

        Raises
        ------
        ScanError
            If every slice is a problem of its own.
        """
        if not self.is_volume:
            found, hint = "slices that are encoded one by one", "take slices, such as scan[0:4]"
            raise ScanError(self.path, "volume", found=found, expected="3-D k-space", hint=hint)
        return first_of(self._problem(0, 1))

    @property
    def is_volume(self) -> bool:
        """Whether the slices are one problem, `volume`."""
        return self.recording.volume

    @property
    def most_together(self) -> int:
        """How many slices one problem may have."""
        return len(self)

    def __iter__(self) -> Iterator[InverseProblem]:
        return (self[index] for index in range(len(self)))

    def truth(self, index: int | slice) -> Tensor | None:
        """Return the image that was measured, in the shape of `finished`, where the file knows it."""
        if self.recording.read_truth is None:
            return None
        images = self.recording.read_truth(*slice_range(self.path, index, len(self)))
        shape = self.image_shape
        images = centre_crop(images, shape) if shape != tuple(images.shape[-2:]) else images
        return images if isinstance(index, slice) else images[0]

    def finished(self, image: Tensor) -> Tensor:
        """Return what an image of the full field of view shows of the region to be shown.

        Parameters
        ----------
        image
            Shape (..., height, width) of the problem.

        Returns
        -------
        Tensor
            Shape (..., *image_shape); interpolated by Fourier transform where the format says so.
        """
        seen = self.recording.field_of_view
        shape = self.recording.image_shape
        image = centre_crop(image, seen)
        if shape != seen:
            spectrum = centred_fft(image if image.is_complex() else image + 0j)
            smaller = (min(seen[0], shape[0]), min(seen[1], shape[1]))
            spectrum = centre_pad(centre_crop(spectrum, smaller), shape)
            # Values of the image stay, not its energy.
            finer = centred_ifft(spectrum) * math.sqrt(math.prod(shape) / math.prod(seen))
            image = finer if image.is_complex() else finer.real
        return centre_crop(image, self.image_shape).contiguous()

    def together(self, problems: Sequence[InverseProblem]) -> InverseProblem:
        """Return problems of single slices as one batched problem."""
        return batched(problems)

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width of a finished image."""
        size = self.reading.size
        return self.recording.image_shape if size is None else (size, size)

    @property
    def measurement_shape(self) -> tuple[int, ...]:
        """Of the k-space of one slice, or of the volume: (coils, *matrix)."""
        return (self.coils, *self.recording.matrix)

    @property
    def pixel_size(self) -> float | None:
        """Height and width of a finished image's pixels in mm; None where unknown, or not the same."""
        if self.reading.pixel_size is not None:
            return self.reading.pixel_size
        sides = self.recording.pixel_sides
        if sides is None or not math.isclose(sides[0], sides[1], rel_tol=1e-3):
            return None
        return sides[1]

    @property
    def slice_distance(self) -> float | None:
        """Of a volume, in mm, where known."""
        return self.recording.slice_distance

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that is read."""
        files = self.recording.files or (self.path,)
        maps = self.reading.coil_maps
        if maps is None or maps in METHODS:
            return files
        header = cfl_header(Path(maps).absolute())
        return (
            *files,
            *((Path(maps).absolute(),) if header is None else (header, header.with_suffix(".cfl"))),
        )

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

    @property
    def method(self) -> str:
        """Where coil maps come from: "file", or how they are estimated."""
        maps = self.reading.coil_maps
        if maps is None:
            if self.recording.has_coil_maps:
                return "file"
            return "espirit" if self.recording.coils > 1 else "none"
        return str(maps) if maps in METHODS else "file"

    @cached_property
    def coils(self) -> int:
        """Of the problems: all of the file, or so many virtual ones."""
        return self.recording.coils if self.reading.coils is None else self.reading.coils

    @cached_property
    def _kept(self) -> Tensor | None:
        """Which samples are not left out; None for all."""
        recording, pattern = self.recording, self.reading.undersample
        if pattern is None:
            return None
        height, width = recording.matrix
        try:
            return undersampling_mask(pattern, (height, width), recording.phase_axis)
        except ValueError as error:
            expected = f"a pattern for {height} x {width} samples"
            raise ScanError(self.path, "undersample", found=error, expected=expected) from error

    def samples(self, start: int, stop: int) -> KspaceSamples:
        """Return the samples of some slices, checked, undersampled and compressed as was asked for."""
        recording, path = self.recording, self.path
        count = stop - start
        needed = count * recording.coils * math.prod(recording.matrix) * 8
        require_memory(path, needed, "a volume of" if self.is_volume else f"{count} slices of together")
        samples = recording.read(start, stop)
        if samples.mask is not None:
            # A shift of the samples would also disagree with the mask, and is the better reason.
            check_centre(path, "kspace", samples.kspace, start)
            check_mask(path, "mask", samples.kspace, samples.mask)
        if self._kept is not None:
            samples = undersampled(samples, self._kept)
        if self.reading.coils is not None:
            samples = compressed(samples, self.reading.coils)
        return samples

    def std(self, samples: KspaceSamples, first: int = 0) -> Tensor:
        """Return the noise of samples: as given, as the file has it, or estimated; (slices, coils, 1, ...).

        Raises
        ------
        ScanError
            If it is unknown and cannot be estimated.
        """
        event = samples.kspace.ndim - 2
        if self.reading.noise_std is not None or samples.std is not None:
            known = samples.std if self.reading.noise_std is None else self.reading.noise_std
            std = torch.as_tensor(known, dtype=torch.float32)
            std = std.reshape((1,) * (samples.kspace.ndim - std.ndim) + tuple(std.shape))
        else:
            mask, radius = samples.mask, None
            if samples.trajectory is not None:
                mask = torch.ones((1,) * (event + 1), dtype=torch.bool)
                radius = samples.trajectory.square().sum(-1)
            assert mask is not None
            try:
                std = estimate_kspace_std(samples.kspace, mask, samples.counts, radius)
            except ValueError as error:
                expected = "a noise scan, or samples at high frequencies that tell the noise"
                found = f"{error} in slice {first}"
                raise ScanError(
                    self.path, "noise", found=found, expected=expected, hint="pass noise_std="
                ) from error
            std = std.reshape(std.shape + (1,) * event)
        if samples.counts is not None:
            std = std * samples.counts.clamp_min(1).unsqueeze(1).rsqrt()
        return std

    def _problem(self, start: int, stop: int) -> InverseProblem:
        samples = self.samples(start, stop)
        std, kspace = self.std(samples, start), samples.kspace
        maps = self._maps(samples, start, stop)
        if maps is None:
            kspace, std = kspace[:, 0], std[:, 0]
        if samples.trajectory is not None:
            trajectory = one_trajectory(self.path, samples.trajectory, start)
            nonuniform = NonuniformFourier(self.recording.matrix, trajectory, maps)
            return InverseProblem(nonuniform, kspace, ComplexGaussianNoise(std))
        mask = samples.mask
        whole = mask is None or bool(mask.all())
        sampled = None if whole or mask is None else mask[0] if len(mask) == 1 else mask
        operator = CartesianFourier(self.recording.matrix, sampled, maps)
        return InverseProblem(operator, kspace, ComplexGaussianNoise(std, operator.sampled))

    def _maps(self, samples: KspaceSamples, start: int, stop: int) -> Tensor | None:
        """Return maps (slices, coils, *matrix), or None for a single coil without."""
        method, chosen = self.method, self.reading.coil_maps
        if method == "none" and samples.kspace.shape[1] == 1:
            return None
        if method != "file":
            if samples.trajectory is not None:
                samples = on_the_grid(self.path, samples, self.recording.matrix, start)
            assert samples.mask is not None
            kspace = samples.kspace if samples.calibration is None else samples.calibration
            mask = samples.mask if samples.calibration_mask is None else samples.calibration_mask
            return estimated_maps(self.path, kspace, mask, method, start)
        maps = samples.coil_maps
        if chosen is not None:
            source = Path(chosen).absolute()
            maps = read_maps(source, start, stop, samples.kspace.shape[1], self.recording.matrix)
            if samples.whitening is not None:
                maps = torch.einsum("dc,sc...->sd...", samples.whitening.to(maps), maps)
        return maps


def _is_there(maps: Path) -> bool:
    return maps.is_file() or cfl_header(maps) is not None
