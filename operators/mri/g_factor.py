"""How undersampling amplifies noise: g-factors in closed form, and by replicas of any reconstruction."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from operators.mri.calibration import check_kspace, per_axis
from operators.mri.coils import mix_coils, whitening_matrix
from operators.noise import ComplexGaussianNoise


def g_factor(
    coil_maps: Tensor,
    acceleration: int | Sequence[int],
    *,
    covariance: Tensor | None = None,
    dimensions: int = 2,
) -> Tensor:
    """Return the noise amplification of SENSE for k-space in which every n-th line was measured.

    Parameters
    ----------
    coil_maps : Tensor
        Complex, shape (*batch, coils, *shape) with `dimensions` axes in shape.
    acceleration
        n of each axis, each a divisor of the axis' size; one number is that of the last axis, where phase
        encoding is, with the others measured throughout.
    covariance
        Of the coils' noise, (coils, coils); white noise, the same in all coils, unless given.
    dimensions
        How many trailing axes are those of the image.

    Returns
    -------
    Tensor
        Real, shape (*batch, *shape): the standard deviation of the noise in a pixel over that without
        undersampling and over sqrt(acceleration), at least 1; 0 where no coil sees anything.

    Raises
    ------
    ValueError
        For maps that are not complex, an acceleration that does not divide the axis or exceeds the number
        of coils, and maps that cannot tell the pixels that fold onto each other apart.

    References
    ----------
    Pruessmann et al., Magn. Reson. Med. 42, 952 (1999), eq. 23.
    """
    check_kspace(coil_maps, dimensions, "coil_maps")
    shape = tuple(coil_maps.shape[-dimensions:])
    given = (1,) * (dimensions - 1) + (acceleration,) if isinstance(acceleration, int) else acceleration
    folds = per_axis("acceleration", given, dimensions)
    total = math.prod(folds)
    if any(n % fold for n, fold in zip(shape, folds, strict=True)):
        raise ValueError(f"acceleration: expected divisors of {shape}, found {folds}")
    if total > coil_maps.shape[-dimensions - 1]:
        raise ValueError(
            f"acceleration: expected at most {coil_maps.shape[-dimensions - 1]} for as many coils, "
            f"found {total}"
        )
    maps = coil_maps
    if covariance is not None:
        maps = mix_coils(maps, whitening_matrix(covariance), dimensions=dimensions)
    # Pixels n / fold apart fold onto each other: (*batch, coils, fold, n / fold, ...).
    batch = maps.shape[:-dimensions]
    split = [size for n, fold in zip(shape, folds, strict=True) for size in (fold, n // fold)]
    maps = maps.reshape(*batch, *split)
    before, lead = len(batch) - 1, len(batch)
    folded = [lead + 2 * axis for axis in range(dimensions)]
    kept = [lead + 2 * axis + 1 for axis in range(dimensions)]
    sensed = maps.permute(*range(before), *kept, before, *folded).flatten(-dimensions)
    gram = sensed.mH @ sensed  # (*batch, *kept, total, total)
    power = gram.diagonal(dim1=-2, dim2=-1).real
    seen = power > 0
    # A pixel that no coil sees is none of the unknowns.
    gram = gram + torch.diag_embed((~seen).to(gram.dtype))
    inverse, trouble = torch.linalg.inv_ex(gram)
    product = inverse.diagonal(dim1=-2, dim2=-1).real * power
    if bool(trouble.any()) or not bool((product[seen] > 0.5).all()):
        raise ValueError("coil_maps: expected maps that tell folded pixels apart, found some that cannot")
    found = torch.where(seen, product.clamp_min(1).sqrt(), 0)
    # (*batch, *kept, *folded) back to (*batch, fold, kept, ...)
    found = found.unflatten(-1, folds)
    order = [axis for i in range(dimensions) for axis in (before + dimensions + i, before + i)]
    return found.permute(*range(before), *order).reshape(*batch[:-1], *shape)


def pseudo_replica_std(
    reconstruct: Callable[[Tensor], Tensor],
    kspace: Tensor,
    noise: ComplexGaussianNoise,
    *,
    replicas: int = 100,
    generator: torch.Generator,
) -> Tensor:
    """Return the standard deviation of a reconstruction's noise, measured on noisy replicas of its k-space.

    Parameters
    ----------
    reconstruct
        Makes an image from k-space of the shape given; called `replicas` times.
    kspace
        The measurement, or zeros for a reconstruction that is linear.
    noise
        That of the measurement; it is added once more to each replica.
    replicas
        At least 2. The relative error of the result has a standard deviation of 1 / (2 sqrt(replicas)) for
        complex images.
    generator
        Where the noise comes from.

    Returns
    -------
    Tensor
        Real, the shape of an image: of complex images sqrt(E|x - E x|^2), as `ComplexGaussianNoise` counts.

    References
    ----------
    Robson et al., Magn. Reson. Med. 60, 895 (2008).
    """
    if replicas < 2:
        raise ValueError(f"replicas: expected at least 2, found {replicas}")
    mean = reconstruct(noise.sample(kspace, generator))
    squares = torch.zeros_like(mean.abs())
    for count in range(2, replicas + 1):
        # Welford's update, which loses nothing where the signal is far above the noise.
        image = reconstruct(noise.sample(kspace, generator))
        step = image - mean
        mean = mean + step / count
        squares += (step.conj() * (image - mean)).real
    return (squares / (replicas - 1)).sqrt()


def pseudo_replica_g_factor(
    accelerated: Callable[[Tensor], Tensor],
    full: Callable[[Tensor], Tensor],
    kspace: Tensor,
    sampled: Tensor,
    *,
    std: float = 1.0,
    replicas: int = 100,
    generator: torch.Generator,
) -> Tensor:
    """Return the noise amplification of any reconstruction, measured on noisy replicas of its k-space.

    Parameters
    ----------
    accelerated, full
        Reconstructions of k-space of that shape: of what was sampled, zeros elsewhere, and of all of it.
    kspace
        Shape (coils, *shape), all of it known; zeros for reconstructions that are linear.
    sampled
        Bool, where k-space is measured in the accelerated scan, broadcasts against it.
    std
        Standard deviation of the complex noise (`ComplexGaussianNoise`).
    replicas, generator
        As for `pseudo_replica_std`. The relative error of the result has a standard deviation of at most
        1 / sqrt(2 replicas).

    Returns
    -------
    Tensor
        Real, the shape of an image: std of accelerated images over that of full ones and over sqrt(R), where
        R is the number of samples over those measured.
    """
    if sampled.dtype != torch.bool:
        raise ValueError(f"sampled: expected dtype torch.bool, found {sampled.dtype}")
    measured = torch.where(sampled, kspace, 0)
    few = pseudo_replica_std(
        accelerated, measured, ComplexGaussianNoise(std, sampled), replicas=replicas, generator=generator
    )
    all_ = pseudo_replica_std(full, kspace, ComplexGaussianNoise(std), replicas=replicas, generator=generator)
    ratio = 1 / sampled.expand(kspace.shape).double().mean().item()
    return few / torch.where(all_ > 0, all_, 1) / math.sqrt(ratio)
