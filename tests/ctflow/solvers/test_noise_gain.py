"""The gain of noise against averages over many draws."""

from __future__ import annotations

import pytest
import torch

from ctflow.problem import InverseProblem
from ctflow.solvers.noise_gain import noise_gain
from operators.ct.geometry import Detector, ImageGrid, ParallelBeam
from operators.ct.ray_transform import RayTransform
from operators.linear import Identity
from operators.noise import ComplexGaussianNoise, GaussianNoise
from tests.ctflow.solvers.parallel_imaging import parallel_problem


def test_of_denoising_it_is_one_over_the_noise() -> None:
    std = 0.3
    real = InverseProblem(Identity((8, 8)), torch.zeros(2, 8, 8), GaussianNoise(std))
    assert noise_gain("any", real).tolist() == pytest.approx([1 / std] * 2)
    # In each real component.
    identity = Identity((8, 8), dtype=torch.complex64)
    phases = InverseProblem(identity, torch.zeros(8, 8).cfloat(), ComplexGaussianNoise(std * 2**0.5))
    assert float(noise_gain("any", phases)) == pytest.approx(1 / std)


def test_it_is_the_root_mean_square_of_backprojected_noise() -> None:
    operator = RayTransform(ParallelBeam.uniform(20, Detector(91, 1.0)), ImageGrid((64, 64)))
    weights = torch.rand(20, 91, generator=torch.Generator().manual_seed(1))
    noise = torch.randn(40, 20, 91, generator=torch.Generator().manual_seed(2))
    exact = float(operator.adjoint(weights.sqrt() * noise).square().mean().sqrt())
    problem = InverseProblem(operator, torch.zeros(20, 91), GaussianNoise(weights.rsqrt()))
    assert float(noise_gain("any", problem)) == pytest.approx(exact, rel=0.05)


def test_coils_of_unit_power_keep_the_sampled_share() -> None:
    problem, _ = parallel_problem((32, 32), std=0.02)
    share = float(problem.operator.mask.double().mean())
    assert float(noise_gain("any", problem)) == pytest.approx((2 * share) ** 0.5 / 0.02, rel=0.05)


def test_no_precision_at_all_is_refused() -> None:
    noise = ComplexGaussianNoise(1.0, torch.zeros(4, 4, dtype=torch.bool))
    problem = InverseProblem(Identity((4, 4), dtype=torch.complex64), torch.zeros(4, 4).cfloat(), noise)
    with pytest.raises(ValueError, match="any: expected measurements of some precision"):
        noise_gain("any", problem)
