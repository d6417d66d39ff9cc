"""Phantoms or images to measurements, as a scanner would give them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ctflow.problem import InverseProblem
from operators.ct.geometry import Detector, ImageGrid, ParallelBeam
from operators.ct.ray_transform import RayTransform
from operators.noise import Generators, NoiseModel, PoissonTransmission

_REFINEMENT = 2


@dataclass(frozen=True)
class SimulatedScan:
    """A measurement and the image behind it, shape (*batch, height, width) in 1/mm."""

    problem: InverseProblem
    truth: Tensor


@dataclass(frozen=True)
class ScanSettings:
    """A parallel-beam scan of a square image.

    Attributes
    ----------
    size, pixel_size
        Pixels along each side of the image, and their side in mm.
    views, span, start
        Equally spaced angles from `start` over `span`, in radians.
    bins, pitch
        Detector bins and their distance in mm.
    photons, electronic_std
        Expected count of a bin without an object, and the electronic noise in counts.
    """

    size: int
    pixel_size: float
    views: int
    bins: int
    pitch: float
    photons: float
    electronic_std: float = 0.0
    span: float = math.pi
    start: float = 0.0

    def operator(self, projector: str = "auto") -> RayTransform:
        """The scan's ray transform."""
        detector = Detector(self.bins, self.pitch)
        geometry = ParallelBeam.uniform(self.views, detector, span=self.span, start=self.start)
        return RayTransform(geometry, ImageGrid((self.size, self.size), self.pixel_size), projector)

    def noise(self) -> PoissonTransmission:
        """The scan's noise."""
        return PoissonTransmission(self.photons, electronic_std=self.electronic_std)


PRESETS: dict[str, ScanSettings] = {
    # Leuschner et al., Scientific Data 8 (2021): 26 cm, the detector as wide as the diagonal, angles in
    # the middle of their cells, 4096 photons.
    "lodopab-like": ScanSettings(
        size=362,
        pixel_size=260 / 362,
        views=1000,
        bins=513,
        pitch=260 * math.sqrt(2) / 513,
        photons=4096.0,
        start=math.pi / 2000,
    ),
    "sparse-view": ScanSettings(size=256, pixel_size=1.0, views=60, bins=363, pitch=1.0, photons=1e4),
}


def scan_settings(preset: str, **changes: Any) -> ScanSettings:
    """A preset with some of its settings changed; ValueError for an unknown preset or setting."""
    if preset not in PRESETS:
        raise ValueError(f"no preset {preset!r}; known: {', '.join(PRESETS)}")
    known = ScanSettings.__dataclass_fields__
    for name in changes:
        if name not in known:
            raise ValueError(f"{preset}: no setting {name!r}; known: {', '.join(known)}")
    return replace(PRESETS[preset], **changes)


def simulate_scan(
    images: Tensor, operator: RayTransform, noise: NoiseModel, generator: Generators
) -> SimulatedScan:
    """Scan images that are finer than the reconstruction will be, with noise.

    The object is projected on a grid twice as fine as the operator's, with two rays to a bin whose
    intensities are averaged, so that no reconstruction can invert the very model that made its data.

    Parameters
    ----------
    images
        Linear attenuation in 1/mm, shape (*batch, 2 height, 2 width), of which the truth is the mean
        over 2 x 2 pixels; or (*batch, height, width), which are interpolated to the finer grid first,
        as for LoDoPaB.
    operator
        What the reconstruction will use; its grid is (height, width).
    noise
        Added to the clean line integrals.
    generator
        One for the batch, or a sequence with one for each image.
    """
    height, width = operator.grid.shape
    fine_shape = (_REFINEMENT * height, _REFINEMENT * width)
    if tuple(images.shape[-2:]) == fine_shape:
        fine = images
        truth = images.unflatten(-1, (width, _REFINEMENT)).unflatten(-3, (height, _REFINEMENT)).mean((-3, -1))
    elif tuple(images.shape[-2:]) == (height, width):
        truth = images
        flat = images.reshape(-1, 1, height, width)
        finer = torch.nn.functional.interpolate(flat, scale_factor=_REFINEMENT, mode="bilinear")
        fine = finer.reshape(*images.shape[:-2], *fine_shape)
    else:
        raise ValueError(
            f"images: expected shape (..., {height}, {width}) or (..., {fine_shape[0]}, {fine_shape[1]}), "
            f"found {tuple(images.shape)}"
        )
    with torch.no_grad():
        rays = _finer(operator)(fine)
        intensity = torch.exp(-rays).unflatten(-1, (-1, _REFINEMENT)).mean(-1)
        measurement = noise.sample(-torch.log(intensity), generator)
    return SimulatedScan(InverseProblem(operator, measurement, noise), truth)


def simulate_preset(preset: str, seeds: Sequence[int], **changes: Any) -> SimulatedScan:
    """Scans of random anatomy, one for each seed, with a preset's settings; `changes` overrides some.

    Phantom and noise of a scan follow from its seed, and do not depend on the others.
    """
    from ctflow.phantoms import random_anatomy

    settings = scan_settings(preset, **changes)
    images = torch.stack([random_anatomy(seed, (_REFINEMENT * settings.size,) * 2) for seed in seeds])
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return simulate_scan(images, settings.operator(), settings.noise(), generators)


def _finer(operator: RayTransform) -> RayTransform:
    """The same scan with finer pixels and bins; the middles stay where they are."""
    grid, geometry = operator.grid, operator.geometry
    detector = geometry.detector
    pixel_size = (grid.pixel_height / _REFINEMENT, grid.pixel_width / _REFINEMENT)
    fine_grid = ImageGrid((_REFINEMENT * grid.shape[0], _REFINEMENT * grid.shape[1]), pixel_size, grid.center)
    fine_detector = Detector(_REFINEMENT * detector.bins, detector.pitch / _REFINEMENT, detector.offset)
    return RayTransform(geometry.with_detector(fine_detector), fine_grid, operator.projector)
