"""Phantoms or images to measurements, as a scanner would give them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ctflow.metal import metal_attenuation, metal_line_integrals
from ctflow.presets import standard_settings
from ctflow.problem import InverseProblem
from operators.ct.geometry import ConeBeam, Detector, ImageGrid, ParallelBeam
from operators.ct.ray_transform import RayTransform
from operators.noise import Generators, NoiseModel, PoissonTransmission

_REFINEMENT = 2


@dataclass(frozen=True)
class SimulatedScan:
    """A measurement and the image or volume behind it, shape (*batch, *grid.shape) in 1/mm."""

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
    metal
        Whether the bodies have titanium in them, which hardens the beam and leaves few photons of it. What
        the beam loses of its soft part in tissue counts as corrected, as scanners do for water.
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
    metal: bool = False

    def operator(self, projector: str = "auto") -> RayTransform:
        """The scan's ray transform."""
        detector = Detector(self.bins, self.pitch)
        geometry = ParallelBeam.uniform(self.views, detector, span=self.span, start=self.start)
        return RayTransform(geometry, ImageGrid((self.size, self.size), self.pixel_size), projector)

    def noise(self) -> PoissonTransmission:
        """The scan's noise."""
        return PoissonTransmission(self.photons, electronic_std=self.electronic_std)

    def phantom(self, seed: int) -> Tensor:
        """A body, twice as fine as the image; what `simulate_scan` takes."""
        from ctflow.phantoms import random_anatomy

        return random_anatomy(seed, (_REFINEMENT * self.size,) * 2)

    def inserts(self, seed: int) -> Tensor | None:
        """The part of the phantom's pixels that is metal, if any is."""
        from ctflow.metal import random_inserts

        return random_inserts(seed, (_REFINEMENT * self.size,) * 2) if self.metal else None


@dataclass(frozen=True)
class ConeSettings:
    """A cone-beam scan of a cube of voxels, over a turn.

    Attributes
    ----------
    size, pixel_size
        Voxels along each side of the volume, and their side in mm.
    views
        Equally spaced angles.
    rows, bins, pitch
        Of the detector, and the distance between their middles in mm.
    photons, electronic_std
        As in `ScanSettings`.
    source_to_axis, source_to_detector
        In mm.
    """

    size: int
    pixel_size: float
    views: int
    rows: int
    bins: int
    pitch: float
    photons: float
    electronic_std: float = 0.0
    source_to_axis: float = 600.0
    source_to_detector: float = 900.0

    def operator(self, projector: str = "auto") -> RayTransform:
        """The scan's ray transform."""
        geometry = ConeBeam.circular(
            self.views,
            source_to_axis=self.source_to_axis,
            source_to_detector=self.source_to_detector,
            detector=Detector((self.rows, self.bins), self.pitch),
        )
        return RayTransform(geometry, ImageGrid((self.size,) * 3, self.pixel_size), projector)

    def noise(self) -> PoissonTransmission:
        """The scan's noise."""
        return PoissonTransmission(self.photons, electronic_std=self.electronic_std)

    def phantom(self, seed: int) -> Tensor:
        """A body, twice as fine as the volume; what `simulate_scan` takes."""
        from ctflow.bodies import random_body

        return random_body(seed, (_REFINEMENT * self.size,) * 3)

    def inserts(self, seed: int) -> None:
        """No metal."""


PRESETS: dict[str, ScanSettings | ConeSettings] = {
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
    # A third of the half turn is missing.
    "limited-angle": ScanSettings(
        size=256, pixel_size=1.0, views=120, bins=363, pitch=1.0, photons=1e5, span=2 * math.pi / 3
    ),
    # The detector sees 80 mm of bodies 90 to 240 mm wide.
    "interior": ScanSettings(size=256, pixel_size=1.0, views=360, bins=80, pitch=1.0, photons=1e5),
    "metal": ScanSettings(size=256, pixel_size=1.0, views=360, bins=363, pitch=1.0, photons=1e4, metal=True),
    # The whole of the body is seen in every view.
    "cone": ConeSettings(size=128, pixel_size=1.8, views=60, rows=160, bins=160, pitch=2.4, photons=2e4),
}


def scan_settings(preset: str, **changes: Any) -> ScanSettings | ConeSettings:
    """A preset with some of its settings changed; ValueError for an unknown preset or setting.

    A changed size alone keeps the field of view and the width of the detector, with as many more or fewer
    pixels and bins.
    """
    standard = standard_settings(PRESETS, preset, changes)
    if set(changes) & {"size", "pixel_size", "bins", "rows", "pitch"} == {"size"}:
        finer = changes["size"] / standard.size
        counts: dict[str, Any] = {
            name: round(getattr(standard, name) * finer)
            for name in ("bins", "rows")
            if hasattr(standard, name)
        }
        pitch = standard.pitch * standard.bins / counts["bins"]
        changes = {**changes, **counts, "pixel_size": standard.pixel_size / finer, "pitch": pitch}
    return replace(standard, **changes)


def simulate_scan(
    images: Tensor,
    operator: RayTransform,
    noise: NoiseModel,
    generator: Generators,
    metal: Tensor | None = None,
) -> SimulatedScan:
    """Scan images or volumes that are finer than the reconstruction will be, with noise.

    The object is projected on a grid twice as fine as the operator's, with two rays to a bin, or four to one
    of an area detector, whose intensities are averaged, so that no reconstruction can invert the very model
    that made its data.

    Parameters
    ----------
    images
        Linear attenuation in 1/mm, shape (*batch, 2 height, 2 width), of which the truth is the mean
        over 2 x 2 pixels; or (*batch, height, width), which are interpolated to the finer grid first,
        as for LoDoPaB. Of a volume, the same along three axes.
    operator
        What the reconstruction will use; its grid is (height, width), or (depth, height, width).
    noise
        Added to the clean line integrals.
    generator
        One for the batch, or a sequence with one for each image.
    metal
        Part of each pixel of `images` that is titanium instead, 0 to 1, of their shape; see `ctflow.metal`.
    """
    shape, bin_axes = operator.grid.shape, len(operator.geometry.detector.shape)
    with torch.no_grad():
        finer = _finer(operator)
        if metal is None:
            fine, truth = _fine_and_coarse(images, shape)
            rays = finer(fine)
        else:
            tissue = images * (1 - metal)
            rays = finer(_fine_and_coarse(tissue, shape)[0])
            rays = rays + metal_line_integrals(finer(_fine_and_coarse(metal, shape)[0]))
            _, truth = _fine_and_coarse(tissue + metal_attenuation() * metal, shape)
        intensity = _block_means(torch.exp(-rays), bin_axes)
        measurement = noise.sample(-torch.log(intensity), generator)
    return SimulatedScan(InverseProblem(operator, measurement, noise), truth)


def simulate_preset(preset: str, seeds: Sequence[int], **changes: Any) -> SimulatedScan:
    """Scans of random anatomy, one for each seed, with a preset's settings; `changes` overrides some.

    Phantom and noise of a scan follow from its seed, and do not depend on the others.
    """
    settings = scan_settings(preset, **changes)
    images = torch.stack([settings.phantom(seed) for seed in seeds])
    inserts = [insert for seed in seeds if (insert := settings.inserts(seed)) is not None]
    metal = torch.stack(inserts) if inserts else None
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return simulate_scan(images, settings.operator(), settings.noise(), generators, metal)


def _fine_and_coarse(images: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Images on the finer grid and on the operator's, from either."""
    axes = len(shape)
    fine_shape = tuple(_REFINEMENT * side for side in shape)
    found = tuple(images.shape[-axes:])
    if found == fine_shape:
        return images, _block_means(images, axes)
    if found != shape:
        coarse, fine = (", ".join(map(str, sides)) for sides in (shape, fine_shape))
        raise ValueError(
            f"images: expected shape (..., {coarse}) or (..., {fine}), found {tuple(images.shape)}"
        )
    mode = {2: "bilinear", 3: "trilinear"}[axes]
    finer = torch.nn.functional.interpolate(
        images.reshape(-1, 1, *shape), scale_factor=_REFINEMENT, mode=mode
    )
    return finer.reshape(*images.shape[:-axes], *fine_shape), images


def _block_means(values: Tensor, axes: int) -> Tensor:
    """Means of pairs along the last axes."""
    for axis in range(-axes, 0):
        values = values.unflatten(axis, (-1, _REFINEMENT)).mean(axis)
    return values


def _finer(operator: RayTransform) -> RayTransform:
    """The same scan with finer pixels and bins; the middles stay where they are."""
    grid, detector = operator.grid, operator.geometry.detector
    sizes: tuple[float, ...] = grid.pixel_size  # type: ignore[assignment]
    shape = tuple(_REFINEMENT * side for side in grid.shape)
    fine_grid = ImageGrid(shape, tuple(size / _REFINEMENT for size in sizes), grid.center)
    counts = tuple(_REFINEMENT * number for number in detector.shape)
    pitch, offset = detector.pitch / _REFINEMENT, detector.offset
    if detector.rows is None:
        fine_detector = Detector(counts[0], pitch, offset, curved=detector.curved)
    else:
        fine_detector = Detector(
            counts,  # type: ignore[arg-type]
            (detector.row_pitch / _REFINEMENT, pitch),
            (detector.row_offset, offset),
            curved=detector.curved,
        )
    return RayTransform(operator.geometry.with_detector(fine_detector), fine_grid, operator.projector)
