"""Small files of k-space in the layouts of real ones, with the truth known."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

Edit = Callable[[h5py.File], object]
Array = np.ndarray


def head_image(height: int, width: int, slices: int = 1) -> Array:
    """Ellipses with a smooth phase, complex64 (slices, height, width), empty towards the edges."""
    y = (np.arange(height) - height // 2)[:, None] / (height / 2)
    x = (np.arange(width) - width // 2)[None] / (width / 2)
    images = []
    for k in range(slices):
        body = 1.0 * ((x / 0.62) ** 2 + (y / 0.78) ** 2 < 1)
        body -= 0.5 * ((x - 0.15 * (k - 1)) ** 2 / 0.08 + (y + 0.2) ** 2 / 0.03 < 1)
        body += 0.4 * ((x + 0.2) ** 2 + (y - 0.3) ** 2 < 0.02)
        images.append(body * np.exp(1j * (0.8 * x - 0.5 * y * x + 0.3 * k)))
    return np.stack(images).astype(np.complex64)


def smooth_maps(coils: int, height: int, width: int) -> Array:
    """Sensitivities (coils, height, width) of unit root sum of squares, about the object."""
    y = (np.arange(height) - height // 2)[:, None] / (height / 2)
    x = (np.arange(width) - width // 2)[None] / (width / 2)
    maps = []
    for k in range(coils):
        angle = 2 * math.pi * k / coils
        dx, dy = x - 1.2 * math.cos(angle), y - 1.2 * math.sin(angle)
        maps.append(np.exp(-0.6 * (dx**2 + dy**2)) * np.exp(1j * (angle + 0.5 * dx * math.sin(angle))))
    stack = np.stack(maps)
    return (stack / np.sqrt((np.abs(stack) ** 2).sum(0))).astype(np.complex64)


def to_kspace(images: Array, axes: Sequence[int] = (-2, -1)) -> Array:
    """Centred unitary FFT, written with numpy here."""
    shifted = np.fft.ifftshift(images, axes)
    return np.fft.fftshift(np.fft.fftn(shifted, axes=axes, norm="ortho"), axes).astype(np.complex64)


def to_image(kspace: Array, axes: Sequence[int] = (-2, -1)) -> Array:
    """The inverse of `to_kspace`."""
    shifted = np.fft.ifftshift(kspace, axes)
    return np.fft.fftshift(np.fft.ifftn(shifted, axes=axes, norm="ortho"), axes).astype(np.complex64)


def complex_noise(shape: Sequence[int], seed: int = 0) -> Array:
    """CN(0, 1)."""
    random = np.random.default_rng(seed)
    return (random.standard_normal(shape) + 1j * random.standard_normal(shape)) / math.sqrt(2)


def header(
    encoded: Sequence[int],
    recon: Sequence[int],
    *,
    views: tuple[Sequence[float], Sequence[float]] | None = None,
    limits: str = "",
    trajectory: str = "cartesian",
    more: str = "",
    parallel: str = "",
) -> str:
    """An ISMRMRD header; sizes and fields of view are (x, y, z)."""

    def space(name: str, sizes: Sequence[int], view: Sequence[float] | None) -> str:
        matrix = "".join(f"<{axis}>{n}</{axis}>" for axis, n in zip("xyz", sizes, strict=True))
        text = f"<matrixSize>{matrix}</matrixSize>"
        if view is not None:
            lengths = "".join(f"<{axis}>{n}</{axis}>" for axis, n in zip("xyz", view, strict=True))
            text += f"<fieldOfView_mm>{lengths}</fieldOfView_mm>"
        return f"<{name}>{text}</{name}>"

    seen = views or (None, None)
    return (
        '<?xml version="1.0" encoding="utf-8"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">'
        f"{more}<encoding>{space('encodedSpace', encoded, seen[0])}{space('reconSpace', recon, seen[1])}"
        f"<encodingLimits>{limits}</encodingLimits><trajectory>{trajectory}</trajectory>"
        f"{parallel}</encoding></ismrmrdHeader>"
    )


def limit(step: int, maximum: int, centre: int) -> str:
    """The limits of kspace_encoding_step_1 or 2."""
    inside = f"<minimum>0</minimum><maximum>{maximum}</maximum><center>{centre}</center>"
    return f"<kspace_encoding_step_{step}>{inside}</kspace_encoding_step_{step}>"


@dataclass
class FastMRI:
    """A fastMRI file of a readout that is oversampled twice and columns of which some were padded."""

    slices: int = 2
    coils: int = 4
    height: int = 64
    width: int = 46
    crop: tuple[int, int] = (32, 32)
    padded: tuple[int, int] = (2, 3)
    std: float = 0.01
    scale: float = 1e-5
    mask: Array | None = None
    edit: Edit | None = None

    def images(self) -> Array:
        """What is in the file but for the noise: an object in the middle of the field of view."""
        images = np.zeros((self.slices, self.height, self.width), np.complex64)
        rows, columns = self.crop
        top, left = self.height // 2 - rows // 2, self.width // 2 - columns // 2
        images[:, top : top + rows, left : left + columns] = head_image(rows, columns, self.slices)
        return self.scale * images

    def write(self, path: Path) -> Array:
        """Write it; the root sum of squares of the cropped coil images, (slices, *crop)."""
        maps = smooth_maps(self.coils, self.height, self.width)
        kspace = to_kspace(self.images()[:, None] * maps)
        kspace += self.scale * self.std * complex_noise(kspace.shape)
        left, right = self.padded[0], self.width - self.padded[1]
        kspace[..., :left] = kspace[..., right:] = 0
        coil_images = to_image(kspace)
        top, first = self.height // 2 - self.crop[0] // 2, self.width // 2 - self.crop[1] // 2
        cropped = coil_images[..., top : top + self.crop[0], first : first + self.crop[1]]
        target = np.sqrt((np.abs(cropped) ** 2).sum(1)).astype(np.float32)
        # padding on the left is encoded // 2 - centre
        limits = limit(1, right - left - 1, self.width // 2 - left)
        views = ((2.0 * self.crop[0], float(self.width), 5.0), (*map(float, self.crop), 5.0))
        text = header((self.height, self.width, 1), (*self.crop, 1), views=views, limits=limits)
        with h5py.File(path, "w") as file:
            if self.mask is None:
                file["kspace"], file["reconstruction_rss"] = kspace, target
            else:
                file["kspace"], file["mask"] = kspace * self.mask, self.mask
                file.attrs.update(acceleration=4, num_low_frequency=12)
            file["ismrmrd_header"] = text.encode()
            file.attrs.update(acquisition="AXT2", patient_id="0123", max=1.0, norm=1.0)
            if self.edit is not None:
                self.edit(file)
        return target


_HEAD = np.dtype(
    [
        ("version", "<u2"),
        ("flags", "<u8"),
        ("measurement_uid", "<u4"),
        ("scan_counter", "<u4"),
        ("acquisition_time_stamp", "<u4"),
        ("physiology_time_stamp", "<u4", (3,)),
        ("number_of_samples", "<u2"),
        ("available_channels", "<u2"),
        ("active_channels", "<u2"),
        ("channel_mask", "<u8", (16,)),
        ("discard_pre", "<u2"),
        ("discard_post", "<u2"),
        ("center_sample", "<u2"),
        ("encoding_space_ref", "<u2"),
        ("trajectory_dimensions", "<u2"),
        ("sample_time_us", "<f4"),
        ("position", "<f4", (3,)),
        ("read_dir", "<f4", (3,)),
        (
            "idx",
            [
                (name, "<u2")
                for name in (
                    "kspace_encode_step_1",
                    "kspace_encode_step_2",
                    "average",
                    "slice",
                    "contrast",
                    "phase",
                    "repetition",
                    "set",
                    "segment",
                )
            ],
        ),
    ]
)
_NUMBERS = h5py.vlen_dtype(np.dtype("<f4"))
_ACQUISITION = np.dtype([("head", _HEAD), ("traj", _NUMBERS), ("data", _NUMBERS)])


@dataclass
class Acquisition:
    """One readout (channels, samples), what of its head is not zero, and where its samples lie."""

    samples: Array
    flags: Sequence[int] = ()
    head: dict[str, Any] = field(default_factory=dict)
    idx: dict[str, int] = field(default_factory=dict)
    places: Array = field(default_factory=lambda: np.zeros((0, 2), np.float32))


def write_ismrmrd(
    path: Path, acquisitions: Sequence[Acquisition], xml: str, edit: Edit | None = None
) -> None:
    """Write acquisitions as the format has them, and a group of images, which is to be left alone."""
    records = np.zeros(len(acquisitions), _ACQUISITION)
    for record, one in zip(records, acquisitions, strict=True):
        channels, count = one.samples.shape
        head = record["head"]
        head["version"], head["flags"] = 1, sum(1 << (number - 1) for number in one.flags)
        head["number_of_samples"], head["active_channels"] = count, channels
        head["sample_time_us"] = 5.0
        for name, value in one.head.items():
            head[name] = value
        for name, value in one.idx.items():
            head["idx"][name] = value
        record["traj"] = np.ascontiguousarray(one.places, np.float32).ravel()
        record["data"] = np.ascontiguousarray(one.samples, np.complex64).view(np.float32).ravel()
    with h5py.File(path, "w") as file:
        file.create_dataset("dataset/data", data=records)
        file.create_dataset("dataset/xml", data=[xml.encode()], dtype=h5py.string_dtype())
        file["images/data"] = np.zeros((1, 4, 4), np.float32)
        if edit is not None:
            edit(file)


def lines_of(kspace: Array, *, every: int = 1, first: int = 0, **idx: int) -> list[Acquisition]:
    """The lines of one slice (channels, height, width), with the centre of the readout set."""
    width = kspace.shape[-1]
    return [
        Acquisition(
            kspace[:, row], head={"center_sample": width // 2}, idx={"kspace_encode_step_1": row, **idx}
        )
        for row in range(first, kspace.shape[1], every)
    ]
