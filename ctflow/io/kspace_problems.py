"""Problems of k-space in batches and one by one, and of fewer coils."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ctflow.io.kspace_recording import KspaceSamples
from ctflow.problem import InverseProblem
from operators.mri.coils import coil_compression
from operators.mri.fourier import CartesianFourier
from operators.mri.nonuniform import NonuniformFourier
from operators.noise import ComplexGaussianNoise


def first_of(problem: InverseProblem) -> InverseProblem:
    """Return the only slice of a batch of one, without the batch axis."""
    operator, noise = problem.operator, problem.noise
    assert isinstance(operator, CartesianFourier | NonuniformFourier)
    assert isinstance(noise, ComplexGaussianNoise)
    maps, event = operator.coil_maps, len(operator.domain_shape)
    maps = maps[0] if maps is not None and maps.ndim == event + 2 else maps
    std = noise.std[0] if isinstance(noise.std, Tensor) else noise.std
    if isinstance(operator, NonuniformFourier):
        nonuniform = NonuniformFourier(operator.domain_shape, operator.trajectory, maps)
        return InverseProblem(nonuniform, problem.measurement[0], ComplexGaussianNoise(std))
    mask = operator.mask
    mask = mask[0] if mask is not None and mask.ndim == event + 1 else mask
    single = CartesianFourier(operator.domain_shape, mask, maps)
    return InverseProblem(single, problem.measurement[0], ComplexGaussianNoise(std, single.sampled))


def batched(problems: Sequence[InverseProblem]) -> InverseProblem:
    """Return problems of single slices with the same matrix and coils as one.

    Of slices with trajectories of their own, which cannot be one problem, the middle one.
    """
    shape = problems[0].operator.domain_shape
    masks, maps, stds, trajectories = [], [], [], []
    for problem in problems:
        operator, noise = problem.operator, problem.noise
        assert isinstance(operator, CartesianFourier | NonuniformFourier)
        assert isinstance(noise, ComplexGaussianNoise)
        stds.append(torch.as_tensor(noise.std))
        if operator.coil_maps is not None:
            maps.append(operator.coil_maps)
        if isinstance(operator, NonuniformFourier):
            trajectories.append(operator.trajectory)
        else:
            mask = torch.ones((), dtype=torch.bool) if operator.mask is None else operator.mask
            masks.append(mask.expand(shape))
    coil_maps = torch.stack(maps) if maps else None
    if trajectories:
        first = trajectories[0]
        if any(other.shape != first.shape or not torch.equal(other, first) for other in trajectories):
            return problems[len(problems) // 2]
        together: CartesianFourier | NonuniformFourier = NonuniformFourier(shape, first, coil_maps)
        sampled = None
    else:
        together = CartesianFourier(shape, torch.stack(masks), coil_maps)
        sampled = together.sampled
    measurements = torch.stack([problem.measurement for problem in problems])
    return InverseProblem(together, measurements, ComplexGaussianNoise(torch.stack(stds), sampled))


def compressed(samples: KspaceSamples, coils: int) -> KspaceSamples:
    """Return samples of virtual coils, each slice with its own; unitary: white noise stays as it is."""
    dense = samples.kspace if samples.calibration is None else samples.calibration
    dimensions = dense.ndim - 2
    compression = coil_compression(dense, coils, dimensions=dimensions)
    std = samples.std
    if isinstance(std, Tensor) and std.numel() > 1:  # of each coil; that of their sums is known
        variances = std.square().expand(1, samples.kspace.shape[1], *(1,) * dimensions).flatten(1)
        mixed = (compression.matrices.abs().square() @ variances.squeeze(0)).sqrt()
        std = mixed.reshape(*mixed.shape, *(1,) * dimensions)
    return replace(
        samples,
        kspace=compression.of_kspace(samples.kspace),
        std=std,
        calibration=None if samples.calibration is None else compression.of_kspace(samples.calibration),
        coil_maps=None,
        whitening=None,
    )
