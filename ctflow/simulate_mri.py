"""Magnetic resonance images to k-space, as a scanner would give it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from ctflow.presets import standard_settings
from ctflow.problem import InverseProblem
from ctflow.receive_coils import birdcage_maps
from operators.mri.column_masks import equispaced_mask, random_mask
from operators.mri.fourier import CartesianFourier, centred_fft, centred_ifft
from operators.mri.poisson_disc import poisson_disc
from operators.noise import ComplexGaussianNoise, Generators

_REFINEMENT = 2


@dataclass(frozen=True)
class SimulatedKspace:
    """Undersampled k-space, zero-filled, and the image behind it.

    Attributes
    ----------
    problem
        Its measurement has shape (*batch, coils, height, width), without coil maps (*batch, height, width).
    truth
        Complex, shape (*batch, height, width): what one receiver of sensitivity 1 would see with all of the
        k-space and no noise.
    noise_std
        E|n|^2 = noise_std^2 of each sample.
    pixel_size
        In mm, or None.
    """

    problem: InverseProblem
    truth: Tensor
    noise_std: float
    pixel_size: float | None = None

    @property
    def kspace(self) -> Tensor:
        """The measurement, 0 where nothing was sampled."""
        return self.problem.measurement

    @property
    def mask(self) -> Tensor | None:
        """Where k-space was sampled; None for everywhere."""
        return self._operator.mask

    @property
    def coil_maps(self) -> Tensor | None:
        """Sensitivities, shape (coils, height, width); None for a receiver of sensitivity 1."""
        return self._operator.coil_maps

    @property
    def _operator(self) -> CartesianFourier:
        operator = self.problem.operator
        assert isinstance(operator, CartesianFourier)
        return operator


@dataclass(frozen=True)
class KspaceSettings:
    """A two-dimensional Cartesian scan of a square slice.

    Attributes
    ----------
    size, pixel_size
        Pixels along each side, and their side in mm.
    coils
        Loops around the body, see `birdcage_maps`; 1 is a receiver of sensitivity 1.
    sampling
        "full"; "equispaced" or "random" columns; "poisson", points of both directions.
    acceleration
        One sample in so many, the calibration region included.
    calibration
        Fully sampled columns in the middle, or the side of the square.
    noise_std
        E|n|^2 = noise_std^2 of each sample; the brightest tissue has magnitude 1.
    """

    size: int = 256
    pixel_size: float = 0.9
    coils: int = 8
    sampling: Literal["full", "equispaced", "random", "poisson"] = "equispaced"
    acceleration: float = 4.0
    calibration: int = 24
    noise_std: float = 0.02

    def phantom(self, seed: int) -> Tensor:
        """A head, twice as fine as k-space resolves; what `simulate_kspace` takes."""
        from ctflow.mr_phantoms import random_mr_anatomy

        return random_mr_anatomy(seed, (_REFINEMENT * self.size,) * 2, kind="brain")

    def coil_maps(self) -> Tensor | None:
        """Sensitivities, shape (coils, size, size)."""
        return birdcage_maps(self.coils, (self.size, self.size)) if self.coils > 1 else None

    def mask(self) -> Tensor | None:
        """Where k-space is sampled, shape (size,) or (size, size), in all scans alike; None for everywhere.

        ValueError where the calibration region alone is more than the acceleration leaves.
        """
        fraction = self.calibration / self.size
        if self.sampling == "equispaced":
            return equispaced_mask(self.size, self.acceleration, fraction, 0, keep_fraction=True).mask
        if self.sampling == "random":
            return random_mask(self.size, self.acceleration, fraction, 0).mask
        if self.sampling == "poisson":
            generator = torch.Generator().manual_seed(0)
            shape = (self.size, self.size)
            return poisson_disc(shape, self.acceleration, self.calibration, generator=generator).mask
        return None


MR_PRESETS: dict[str, KspaceSettings] = {
    "mri-equispaced-4x": KspaceSettings(),
    "mri-random-4x": KspaceSettings(sampling="random"),
    "mri-random-8x": KspaceSettings(sampling="random", acceleration=8.0, calibration=12),
    "mri-poisson-8x": KspaceSettings(sampling="poisson", acceleration=8.0),
    "mri-single-coil-4x": KspaceSettings(sampling="random", coils=1),
}


def mr_settings(preset: str, **changes: Any) -> KspaceSettings:
    """A preset with some of its settings changed; ValueError for an unknown preset or setting.

    A changed size alone keeps the field of view, and the calibration region's part of k-space.
    """
    standard = standard_settings(MR_PRESETS, preset, changes)
    if set(changes) & {"size", "pixel_size", "calibration"} == {"size"}:
        finer = changes["size"] / standard.size
        calibration = round(standard.calibration * finer)
        changes = {**changes, "pixel_size": standard.pixel_size / finer, "calibration": calibration}
    return replace(standard, **changes)


def simulate_kspace(
    images: Tensor,
    coil_maps: Tensor | None,
    mask: Tensor | None,
    noise_std: float,
    generator: Generators,
    *,
    shape: tuple[int, int] | None = None,
    pixel_size: float | None = None,
) -> SimulatedKspace:
    """Scan images that are finer than k-space can tell, with noise.

    Each coil's image is made on a grid twice as fine and only the middle of its k-space is kept, so that the
    coil images are not the products of maps and image that a reconstruction takes them for.

    Parameters
    ----------
    images
        Complex, shape (*batch, 2 height, 2 width), or (*batch, height, width), which are interpolated by
        zero-filling their k-space first.
    coil_maps
        What the reconstruction will use, shape (*batch or none, coils, height, width); None for one receiver
        of sensitivity 1.
    mask
        As for `CartesianFourier`.
    noise_std
        E|n|^2 = noise_std^2 of each sample.
    generator
        One for the batch, or a sequence with one for each image.
    shape
        Height and width of k-space, needed without coil maps only; that of `images` unless given.
    pixel_size
        For the record, in mm.

    Raises
    ------
    ValueError
        For real images, or of another size.
    """
    if not images.is_complex():
        raise ValueError(f"images: expected complex ones, found {images.dtype}")
    if coil_maps is not None:
        shape = (coil_maps.shape[-2], coil_maps.shape[-1])
    height, width = shape or (images.shape[-2], images.shape[-1])
    with torch.no_grad():
        fine = _finer(images, (height, width))
        truth = centred_ifft(_resolved(fine, (height, width)))
        if coil_maps is None:
            kspace = _resolved(fine, (height, width))
        else:
            kspace = _resolved(_between(coil_maps) * fine.unsqueeze(-3), (height, width))
        operator = CartesianFourier((height, width), mask, coil_maps)
        noise = ComplexGaussianNoise(noise_std, operator.sampled)
        kspace = kspace if operator.sampled is None else torch.where(operator.sampled, kspace, 0)
        measurement = noise.sample(kspace, generator)
    return SimulatedKspace(InverseProblem(operator, measurement, noise), truth, noise_std, pixel_size)


def simulate_mr_preset(preset: str, seeds: Sequence[int], **changes: Any) -> SimulatedKspace:
    """Scans of random heads, one for each seed, with a preset's settings; `changes` overrides some.

    Phantom and noise of a scan follow from its seed, and do not depend on the others.
    """
    settings = mr_settings(preset, **changes)
    images = torch.stack([settings.phantom(seed) for seed in seeds])
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return simulate_kspace(
        images,
        settings.coil_maps(),
        settings.mask(),
        settings.noise_std,
        generators,
        shape=(settings.size, settings.size),
        pixel_size=settings.pixel_size,
    )


def _finer(images: Tensor, shape: tuple[int, int]) -> Tensor:
    """Images on the finer grid, from either."""
    found, fine = tuple(images.shape[-2:]), tuple(_REFINEMENT * n for n in shape)
    if found == fine:
        return images
    if found != shape:
        coarse, finer = (", ".join(map(str, sides)) for sides in (shape, fine))
        raise ValueError(
            f"images: expected shape (..., {coarse}) or (..., {finer}), found {tuple(images.shape)}"
        )
    kspace = images.new_zeros((*images.shape[:-2], *fine))
    kspace[_middle(shape)] = _REFINEMENT * centred_fft(images)
    return centred_ifft(kspace)


def _resolved(fine: Tensor, shape: tuple[int, int]) -> Tensor:
    """The k-space of images on the finer grid, as far as `shape` reaches, in its unitary scaling."""
    return centred_fft(fine)[_middle(shape)] / _REFINEMENT


def _middle(shape: tuple[int, int]) -> tuple[Any, ...]:
    """Where k-space of a shape lies in that of the finer grid."""
    return (..., *(slice(_REFINEMENT * n // 2 - n // 2, _REFINEMENT * n // 2 - n // 2 + n) for n in shape))


def _between(maps: Tensor) -> Tensor:
    """Maps on the finer grid: as they are, and halfway between, with the middle at n // 2 of both grids."""
    for axis in (maps.ndim - 2, maps.ndim - 1):
        n = maps.shape[axis]
        first, last = maps.narrow(axis, 0, 1), maps.narrow(axis, n - 1, 1)
        if n % 2:
            halfway = (maps + torch.cat((first, maps.narrow(axis, 0, n - 1)), axis)) / 2
            pair = (halfway, maps)
        else:
            halfway = (maps + torch.cat((maps.narrow(axis, 1, n - 1), last), axis)) / 2
            pair = (maps, halfway)
        maps = torch.stack(pair, axis + 1).flatten(axis, axis + 1)
    return maps
