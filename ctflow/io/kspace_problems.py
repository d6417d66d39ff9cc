"""Problems of k-space in batches and one by one, and of fewer coils."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ctflow.io.kspace_recording import KspaceSamples
from ctflow.problem import InverseProblem
from operators.mri.coils import compress_coils
from operators.mri.fourier import CartesianFourier
from operators.noise import ComplexGaussianNoise


def first_of(problem: InverseProblem) -> InverseProblem:
    """Return the only slice of a batch of one, without the batch axis."""
    operator, noise = problem.operator, problem.noise
    assert isinstance(operator, CartesianFourier)
    assert isinstance(noise, ComplexGaussianNoise)
    maps, mask = operator.coil_maps, operator.mask
    event = len(operator.domain_shape)
    maps = maps[0] if maps is not None and maps.ndim == event + 2 else maps
    mask = mask[0] if mask is not None and mask.ndim == event + 1 else mask
    single = CartesianFourier(operator.domain_shape, mask, maps)
    std = noise.std[0] if isinstance(noise.std, Tensor) else noise.std
    return InverseProblem(single, problem.measurement[0], ComplexGaussianNoise(std, single.sampled))


def batched(problems: Sequence[InverseProblem]) -> InverseProblem:
    """Return problems of single slices with the same matrix and coils as one."""
    operators = [problem.operator for problem in problems]
    noises = [problem.noise for problem in problems]
    masks, maps, stds = [], [], []
    for operator, noise in zip(operators, noises, strict=True):
        assert isinstance(operator, CartesianFourier)
        assert isinstance(noise, ComplexGaussianNoise)
        shape = operator.domain_shape
        mask = torch.ones((), dtype=torch.bool) if operator.mask is None else operator.mask
        masks.append(mask.expand(shape))
        stds.append(torch.as_tensor(noise.std))
        if operator.coil_maps is not None:
            maps.append(operator.coil_maps)
    together = CartesianFourier(shape, torch.stack(masks), torch.stack(maps) if maps else None)
    measurements = torch.stack([problem.measurement for problem in problems])
    return InverseProblem(together, measurements, ComplexGaussianNoise(torch.stack(stds), together.sampled))


def compressed(samples: KspaceSamples, coils: int) -> KspaceSamples:
    """Return samples of virtual coils, by a unitary matrix for each slice: white noise stays as it is."""
    kspace, calibration = [], []
    for k, one in enumerate(samples.kspace):
        if samples.calibration is None:
            kspace.append(compress_coils(one, coils))
        else:  # side by side, so that one matrix serves both
            both = compress_coils(torch.cat((one, samples.calibration[k]), -1), coils)
            kspace.append(both[..., : one.shape[-1]])
            calibration.append(both[..., one.shape[-1] :])
    white = samples.std is None or torch.as_tensor(samples.std).numel() == 1
    return replace(
        samples,
        kspace=torch.stack(kspace),
        std=samples.std if white else None,
        calibration=torch.stack(calibration) if calibration else None,
        coil_maps=None,
        whitening=None,
    )
