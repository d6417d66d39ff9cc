"""K-space in BART's pairs NAME.hdr and NAME.cfl (https://mrirecon.github.io/bart).

Axis 0 is the readout and the last of an image here, 1 and 2 are phase-encoded, 3 are the coils; all further
axes but those of maps are slices, one after the other. What is zero in all coils was not sampled. Transforms
are those of `bart fft -u`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ctflow.io.cfl import cfl_header, cfl_shape, map_cfl
from ctflow.io.complex_fields import check_finite_complex, check_kspace_size
from ctflow.io.errors import ScanError
from ctflow.io.kspace_recording import KspaceRecording, KspaceSamples

_MAPS = -5  # the axis of maps, from the end


@dataclass(frozen=True)
class _Read:
    header: Path
    matrix: tuple[int, ...]

    def __call__(self, start: int, stop: int) -> KspaceSamples:
        stored = map_cfl(self.header)
        by_slice = stored.reshape(-1, stored.shape[-4], *self.matrix)
        values = np.array(by_slice[start:stop], dtype=np.complex64)
        axes = ("slice", "coil", *("z", "y", "x")[-len(self.matrix) :])
        check_finite_complex(self.header.with_suffix(".cfl"), "samples", values, axes, start)
        kspace = torch.from_numpy(values)
        mask = (kspace != 0).any(1)
        return KspaceSamples(kspace, mask | ~mask.flatten(1).any(1).reshape(-1, *(1,) * len(self.matrix)))


def recognises(path: Path) -> bool:
    """Whether a path is one of a pair, or their name without a suffix."""
    return cfl_header(path) is not None


def recording(path: Path) -> KspaceRecording:
    """Return the shapes and the reader of a pair.

    Raises
    ------
    ScanError
        If the pair is incomplete, or holds something else than Cartesian k-space.
    """
    header = cfl_header(path)
    if header is None:
        raise ScanError(path, "file", found="no header", expected="a pair of BART's files")
    shape = cfl_shape(header)
    depth, height, width = shape[-3:]
    coils, used = shape[-4], max(4, *(16 - axis for axis, size in enumerate(shape) if size > 1), 0)
    found = " x ".join(map(str, shape[::-1][:used]))
    if shape[_MAPS] > 1:
        raise ScanError(header, "dimensions", found=found, expected="k-space, which has no sets of maps")
    if width <= 3 < height:
        expected = (
            "Cartesian k-space, whose first axis is the readout; this looks like a trajectory's samples"
        )
        raise ScanError(header, "dimensions", found=found, expected=expected)
    if height == 1:
        expected = "k-space with two axes of samples or more"
        raise ScanError(header, "dimensions", found=found, expected=expected)
    matrix = (depth, height, width) if depth > 1 else (height, width)
    check_kspace_size(header, "dimensions", coils, matrix)
    slices = math.prod(shape[:-4])
    if depth > 1 and slices > 1:
        found = f"{slices} volumes"
        raise ScanError(header, "dimensions", found=found, expected="one volume, or slices")
    return KspaceRecording(
        format="BART",
        slices=slices,
        coils=coils,
        matrix=matrix,
        read=_Read(header, matrix),
        image_shape=(height, width),
        field_of_view=(height, width),
        phase_axis=-2,
        files=(header, header.with_suffix(".cfl")),
        assumed=("mask: what is zero in all coils was not sampled",),
        missing=("noise scan",),
    )
