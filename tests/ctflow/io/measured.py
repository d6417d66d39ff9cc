"""Small measured files in the layouts of real ones, with the truth known, and ways to damage them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from scipy.io import savemat
from tifffile import imwrite
from torch import Tensor

from operators import Detector, FanBeam, ImageGrid, ParallelBeam, PoissonTransmission, RayTransform

VIEWS, ROWS, BINS, PITCH, CENTRE = 30, 3, 41, 0.05, 18.5
"""Of the DXchange files: pitch in mm, the rotation axis in bins."""

RADIUS, ATTENUATION = 12.0, 0.05
"""Of the disc at (5, -3) mm that `fan_disc` measures, in mm and 1/mm."""

Edit = Callable[[h5py.File], object]
Images = dict[str, np.ndarray]


def body() -> Tensor:
    """Three slices of ellipses in 1/mm, float32 (3, 41, 41); no two slices are alike."""
    x = torch.linspace(-1, 1, BINS)[None, :]
    y = torch.linspace(1, -1, BINS)[:, None]
    slices = []
    for row in range(ROWS):
        disc = ((x / 0.6) ** 2 + ((y - 0.05) / 0.45) ** 2 < 1) * 0.5
        hole = ((x - 0.2 + 0.1 * row) ** 2 + (y + 0.1) ** 2 < 0.03) * -0.4
        slices.append(disc + hole + ((x + 0.35) ** 2 + (y - 0.2) ** 2 < 0.02) * 0.8)
    return torch.stack(slices).float()


def dxchange_scan() -> RayTransform:
    """The scan that `write_dxchange` simulates."""
    detector = Detector(BINS, PITCH, ((BINS - 1) / 2 - CENTRE) * PITCH)
    angles = np.linspace(0, np.pi, VIEWS)
    return RayTransform(ParallelBeam(angles, detector), ImageGrid((BINS, BINS), PITCH))


def write_dxchange(
    path: Path, edit: Edit | None = None, *, noise: bool = False, slices: int | None = None
) -> Tensor:
    """Write counts, flats, darks, angles in degrees and a pixel size; the clean line integrals.

    Flats differ from bin to bin, the dark field is 100, one photon gives 0.5 counts; `edit` changes the
    file before it is closed. Of other numbers of `slices` than the body has, its own are repeated.
    """
    line_integrals = dxchange_scan()(body())  # (rows, views, bins)
    if slices is not None:
        line_integrals = line_integrals.repeat(-(-slices // ROWS), 1, 1)[:slices]
    rows = len(line_integrals)
    random = np.random.default_rng(0)
    beam = 4e4 * (1 + 0.1 * np.sin(np.arange(BINS)))  # photons
    expected = beam * np.exp(-line_integrals.numpy().astype(np.float64)).transpose(1, 0, 2)
    frames = np.broadcast_to(beam, (10, rows, BINS))
    if noise:
        expected, frames = random.poisson(expected), random.poisson(frames)
    with h5py.File(path, "w") as file:
        file["/exchange/data"] = (0.5 * expected + 100).astype(np.float32)
        file["/exchange/data_white"] = (0.5 * frames + 100).astype(np.float32)
        file["/exchange/data_dark"] = np.full((4, rows, BINS), 100, np.float32)
        file["/exchange/theta"] = np.linspace(0, 180, VIEWS)
        file["/exchange/theta"].attrs["units"] = "degrees"
        file["/exchange/title"] = "a test body"
        size = file.create_dataset("/measurement/instrument/detector/actual_pixel_size_x", data=1000 * PITCH)
        size.attrs["units"] = "microns"
        if edit is not None:
            edit(file)
    return line_integrals


def write_nxtomo(path: Path, edit: Edit | None = None, *, entry: str = "entry0000") -> Tensor:
    """Write the scan of `write_dxchange` as NXtomo; the clean line integrals.

    Frames are four darks, five flats, the projections with an invalid one among them, and five flats of a
    beam that has fallen to 80 %; the beam falls in between, linearly in the number of the frame.
    """
    line_integrals = dxchange_scan()(body())
    clean = np.exp(-line_integrals.numpy().astype(np.float64)).transpose(1, 0, 2)
    clean = np.insert(clean, 12, 7.0, axis=0)  # the invalid frame
    open_beam = np.ones((5, ROWS, BINS))
    frames = np.concatenate((0 * open_beam[:4], open_beam, clean, open_beam))
    keys = np.array([2] * 4 + [1] * 5 + [0] * 12 + [3] + [0] * (VIEWS - 12) + [1] * 5)
    first, last = 6.0, 9.0 + VIEWS + 1 + 2.0  # the middle frames of the two series of flats
    strength = np.interp(np.arange(len(keys)), [first, last], [1.0, 0.8])
    strength[keys == 1] = np.where(np.flatnonzero(keys == 1) < 20, 1.0, 0.8)
    beam = 4e4 * (1 + 0.1 * np.sin(np.arange(BINS)))
    angles = np.concatenate((np.zeros(9), np.insert(np.linspace(0, 180, VIEWS), 12, 99.0), np.full(5, 180.0)))
    with h5py.File(path, "w") as file:
        group = file.create_group(entry)
        group.attrs["NX_class"] = "NXentry"
        group["definition"] = "NXtomo"
        group["title"] = "a test body"
        group["instrument/detector/data"] = (100 + strength[:, None, None] * beam * frames).astype(np.float32)
        group["instrument/detector/image_key"] = keys
        group["instrument/detector/x_pixel_size"] = 1000 * PITCH
        group["instrument/detector/x_pixel_size"].attrs["units"] = "um"
        group["sample/rotation_angle"] = angles
        group["sample/rotation_angle"].attrs["units"] = "degree"
        if edit is not None:
            edit(file)
    return line_integrals


def replaced(name: str, make: Callable[[np.ndarray], object], **attributes: str) -> Edit:
    """An edit that puts `make(old values)` in the place of a dataset, with attributes."""

    def edit(file: h5py.File) -> None:
        values = make(file[name][()])
        del file[name]
        file[name] = values
        file[name].attrs.update(attributes)

    return edit


def without(*names: str) -> Edit:
    """An edit that takes objects out of the file."""

    def edit(file: h5py.File) -> None:
        for name in names:
            del file[name]

    return edit


def write_lodopab(path: Path, slices: int = 2) -> Tensor:
    """Write a LoDoPaB-CT observation file of discs; the line integrals, (slices, 1000, 513).

    The sinogram of a disc of radius r at (x, y) is 2 mu sqrt(r^2 - (s - x cos - y sin)^2), with the published
    geometry written out here: angles from ODL's uniform partition of half a turn, its detector axis at
    (cos, sin), and images stored with x along the first axis.
    """
    cell = math.pi / 1000
    angle = (np.arange(1000) + 0.5) * cell
    s = (np.arange(513) - 256) * 260 * math.sqrt(2) / 513
    sinograms = []
    for index in range(slices):
        first, second, radius, attenuation = 40.0 + 5 * index, -25.0, 30.0, 0.02
        distance = s[None, :] - (first * np.cos(angle) + second * np.sin(angle))[:, None]
        sinograms.append(2 * attenuation * np.sqrt(np.clip(radius**2 - distance**2, 0, None)))
    stack = np.stack(sinograms).astype(np.float32)
    with h5py.File(path, "w") as file:
        file["data"] = stack / np.float32(81.35858)
    return torch.from_numpy(stack)


def write_matlab(path: Path, content: Mapping[str, Any], version: str = "5") -> None:
    """Write variables (arrays, numbers, texts, dicts for structs) as MATLAB of version "5" or "7.3" does."""
    if version == "5":
        savemat(path, dict(content))
        return
    with h5py.File(path, "w", userblock_size=512) as file:
        _write_group(file, content)
    header = (
        b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Mon Jan 01 00:00:00 2024 HDF5 schema 1.00 ."
    )
    with path.open("r+b") as raw:
        raw.write(header.ljust(124) + b"\x00\x02IM")


def _write_group(group: h5py.Group, content: Mapping[str, Any]) -> None:
    for name, value in content.items():
        if isinstance(value, dict):
            _write_group(group.create_group(name), value)
            group[name].attrs["MATLAB_class"] = np.bytes_("struct")
        elif isinstance(value, str):
            group[name] = np.array([[ord(letter)] for letter in value], np.uint16)
            group[name].attrs["MATLAB_class"] = np.bytes_("char")
        else:
            group[name] = np.atleast_2d(np.asarray(value)).T
            group[name].attrs["MATLAB_class"] = np.bytes_("double")


def fan_scan(views: int, bins: int, pitch: float, **settings: Any) -> RayTransform:
    """A full turn around an image of `bins` pixels a side that the fan covers."""
    settings = {"source_to_axis": 410.66, "source_to_detector": 553.74, **settings}
    settings.setdefault("detector", Detector(bins, pitch))
    geometry = FanBeam.circular(views, **settings)
    side = pitch * settings["source_to_axis"] / settings["source_to_detector"]
    return RayTransform(geometry, ImageGrid((bins, bins), side))


def write_heltomo(
    path: Path,
    changes: Mapping[str, Any] | None = None,
    version: str = "5",
    photons: float | None = None,
) -> Tensor:
    """Write a scan of 60 views and 41 bins as the challenge of 2022 does; its line integrals.

    `changes` of parameters; None takes one out. Without noise unless `photons` a bin are given.
    """
    line_integrals = fan_scan(60, BINS, PITCH)(0.2 * body()[1])
    if photons is not None:
        generator = torch.Generator().manual_seed(0)
        line_integrals = PoissonTransmission(photons).sample(line_integrals, generator)
    magnification = 553.74 / 410.66
    parameters: dict[str, Any] = {
        "projectName": "a test body",
        "angles": np.arange(60)[None] * 6.0,
        "distanceSourceOrigin": 410.66,
        "distanceSourceDetector": 553.74,
        "distanceUnit": "mm",
        "geometricMagnification": magnification,
        "pixelSizePost": PITCH,
        "pixelSizeUnit": "mm",
        "effectivePixelSizePost": PITCH / magnification,
        "numDetectorsPost": BINS,
    }
    parameters |= changes or {}
    kept = {name: value for name, value in parameters.items() if value is not None}
    struct = {"type": "2D", "sinogram": line_integrals.numpy().astype(np.float64), "parameters": kept}
    write_matlab(path, {"CtDataFull": struct}, version)
    return line_integrals


def fan_disc(
    angles: np.ndarray, bins: int, width: float, offset: float, to_axis: float, to_detector: float
) -> Any:
    """Line integrals (views, bins) of a disc at (5, -3) mm, with the published geometry written out here."""
    source = to_axis * np.stack((np.sin(angles), -np.cos(angles)), -1)[:, None]
    along = np.stack((np.cos(angles), np.sin(angles)), -1)[:, None]
    place = (np.arange(bins) - (bins - 1) / 2)[:, None] * width / bins + offset
    toward = place * along - source * (to_detector - to_axis) / to_axis - source
    toward /= np.linalg.norm(toward, axis=-1, keepdims=True)
    from_source = np.array([5.0, -3.0]) - source
    distance = from_source[..., 0] * toward[..., 1] - from_source[..., 1] * toward[..., 0]
    return 2 * ATTENUATION * np.sqrt(np.clip(RADIUS**2 - distance**2, 0, None))


@cache
def _disc_of_2detect() -> np.ndarray:
    angles = np.linspace(0, 2 * np.pi, 3601)
    return np.asarray(fan_disc(angles, 956, 956 * 0.1496, 0.0, 431.019989, 529.000488))


def write_2detect(folder: Path, shift: int = 0, edit: Callable[[Images], object] | None = None) -> np.ndarray:
    """Write one mode of a slice as 2DeteCT does; line integrals (3600, 956) of the disc, float64.

    The detector stands `shift` summed bins aside; `edit` changes the images before they are written.
    """
    clean = _disc_of_2detect()
    seen = np.roll(clean, shift, axis=1)
    beam = 2e4 * (1 + 0.1 * np.sin(np.arange(956)))
    images: Images = {"sinogram": beam * np.exp(-seen), "flat1": 0.9 * beam[None], "flat2": 1.1 * beam[None]}
    # Every bin is two of the detector, of which one sees a little more.
    images = {name: np.repeat(values, 2, -1) * np.tile([0.52, 0.48], 956) for name, values in images.items()}
    images["dark"] = np.zeros((1, 1912))
    images = {name: np.round(values + 100).astype(np.uint16) for name, values in images.items()}
    if edit is not None:
        edit(images)
    folder.mkdir(parents=True)
    for name, values in images.items():
        imwrite(folder / f"{name}.tif", values)
    return clean[:3600]
