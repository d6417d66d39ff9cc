"""What every k-space format is reduced to before it becomes inverse problems."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class KspaceSamples:
    """The samples of some slices, or of one volume as if it were a single slice.

    `matrix` below is (height, width), or (depth, height, width) of a volume; frequency 0 is at n // 2 and
    transforms are unitary.

    Attributes
    ----------
    kspace
        Shape (slices, coils, *matrix), complex64, zero where nothing was sampled. With a trajectory,
        (slices, coils, readouts, samples).
    mask
        Where it was sampled: bool, broadcasts against (slices, *matrix), with as many axes; None with a
        trajectory.
    std
        Standard deviation of a complex sample's noise, broadcasting against `kspace`; None where unknown.
    counts
        How often each sample was measured and averaged, shape as for `mask`; None for once.
    coil_maps
        The file's own, shape (slices, coils, *matrix), or None.
    calibration
        More densely sampled k-space, from which coil maps are estimated instead of `kspace`.
    calibration_mask
        Where that was sampled, shape as for `mask`.
    whitening
        What coils were multiplied by, (coils, coils): maps of the coils as they are have to be, too.
    trajectory
        Where samples lie, (readouts, samples, dimensions) in cycles per field of view, or with slices before.
    """

    kspace: Tensor
    mask: Tensor | None
    std: float | Tensor | None = None
    counts: Tensor | None = None
    coil_maps: Tensor | None = None
    calibration: Tensor | None = None
    calibration_mask: Tensor | None = None
    whitening: Tensor | None = None
    trajectory: Tensor | None = None


# (first slice, one past the last) -> samples. Of a volume (0, 1).
ReadKspace = Callable[[int, int], KspaceSamples]


@dataclass(frozen=True)
class KspaceRecording:
    """One file of k-space.

    Attributes
    ----------
    format
        Name of the file format.
    slices
        Number of slices; of a volume, its depth.
    coils
        Receive coils.
    matrix
        Of k-space and of the full field of view: (height, width), or (depth, height, width) of a volume.
        Readout oversampling is removed already where it could be.
    read
        Reads slices; picklable, and opens the file anew for each call.
    image_shape
        Height and width of the finished image.
    field_of_view
        Pixels of `matrix` along height and width that the finished image shows. Where that is not
        `image_shape`, it is interpolated by Fourier transform.
    pixel_sides
        Height and width of the finished image's pixels in mm, or None where unknown.
    slice_distance
        Of a volume, in mm, or None.
    axes
        Of k-space in the file, as errors name them.
    noise
        The noise in words, or None where it has to be estimated from the data.
    read_truth
        Reads images (slices, *image_shape), real or complex, that the file knows to be true.
    metadata
        What else the file says about itself, JSON-able.
    files
        The files that are read, where that is not the one that was opened.
    has_coil_maps
        Whether the file brings maps.
    phase_axis
        Of `matrix`, -1 or -2: which is encoded line by line, where that is known.
    trajectory
        None for Cartesian sampling, else its name.
    assumed, missing, problems
        One line each: what was taken for granted, what the file lacks, and what looks wrong.
    """

    format: str
    slices: int
    coils: int
    matrix: tuple[int, ...]
    read: ReadKspace
    image_shape: tuple[int, int]
    field_of_view: tuple[int, int]
    pixel_sides: tuple[float, float] | None = None
    slice_distance: float | None = None
    noise: str | None = None
    read_truth: Callable[[int, int], Tensor] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    has_coil_maps: bool = False
    phase_axis: int = -1
    trajectory: str | None = None
    assumed: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def volume(self) -> bool:
        """Whether the slices are encoded together, and are one problem."""
        return len(self.matrix) == 3
