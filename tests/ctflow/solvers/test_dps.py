"""DPS against dense algebra with the same noise, and the prior's law without guidance."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ctflow.flows.analytic import GaussianFlow
from ctflow.flows.ddpm import DDPM
from ctflow.flows.path import AffinePath
from ctflow.solvers import DPS
from operators.noise import standard_normal
from tests.ctflow.solvers.exact import (
    DATA,
    EYE,
    MATRIX,
    MEAN,
    NOISE,
    PARTICLES,
    SIZE,
    STD,
    UNEVEN,
    Affine,
    Law,
    assert_law,
    image_prior,
    image_problem,
    problem,
)


def clean_map(covariance: Tensor, signal: float) -> Affine:
    gain = signal**0.5 * covariance @ torch.linalg.inv(signal * covariance + (1 - signal) * EYE)
    return Affine(gain, MEAN - signal**0.5 * gain @ MEAN)


def prior_law(covariance: Tensor, steps: int) -> Law:
    model = DDPM(GaussianFlow(MEAN, covariance))
    levels, state = model.levels(steps), NOISE
    for level, following in zip(levels, [*levels[1:], None], strict=True):
        here, there = model.signal[level], 1.0 if following is None else model.signal[following]
        ratio = here / there
        step = ratio**0.5 * (1 - there) / (1 - here) * Affine(EYE, torch.zeros_like(MEAN))
        step = step + there**0.5 * (1 - ratio) / (1 - here) * clean_map(covariance, here)
        state = state.after(step, (1 - there) * (1 - ratio) / (1 - here))
    return state


@pytest.mark.parametrize("steps", [1, 20])
def test_without_guidance_it_samples_as_ancestral_sampling_does(steps: int) -> None:
    result = DPS(steps, 0.0)(
        problem(PARTICLES), GaussianFlow(MEAN, UNEVEN), generator=torch.Generator().manual_seed(2)
    )
    expected = prior_law(UNEVEN, steps)
    assert_law(result.image, expected.mean, expected.covariance)


def test_all_levels_sample_the_prior() -> None:
    found = prior_law(UNEVEN, 1000)
    assert torch.allclose(found.mean, MEAN, atol=0.01)
    assert torch.allclose(found.covariance.diagonal(), UNEVEN.diagonal(), rtol=0.04)


@pytest.mark.parametrize("path", [AffinePath.linear(), AffinePath.variance_preserving()])
def test_guided_steps_against_dense_algebra(path: AffinePath) -> None:
    steps, size, batch = 6, 0.3, 3
    posed, prior = problem(batch), GaussianFlow(MEAN, UNEVEN, path)
    result = DPS(steps, size)(posed, prior, generator=torch.Generator().manual_seed(4))
    generator, model = torch.Generator().manual_seed(4), DDPM(prior)
    scale = posed.curvature()[0].sqrt() * STD

    def noise() -> Tensor:
        return standard_normal((batch, SIZE), generator, dtype=torch.float64)

    x, levels = noise(), model.levels(steps)
    for level, following in zip(levels, [*levels[1:], None], strict=True):
        denoise = clean_map(UNEVEN, model.signal[level])
        clean = x @ denoise.matrix.mT + denoise.shift
        residual = clean @ MATRIX.mT - DATA
        length = torch.linalg.vector_norm(residual, dim=-1, keepdim=True)
        gradient = residual @ MATRIX @ denoise.matrix / length / scale
        if following is None:
            x = clean - size * gradient
        else:
            mean, std = model.ancestral(x, clean, level, following)
            x = mean + std * noise() - size * gradient
    # The variance-preserving path starts a little above the noisiest level.
    assert torch.allclose(result.image, x, rtol=1e-6 if path.name == "linear" else 1e-3)


def test_samples_and_counts() -> None:
    result = DPS(steps=4, samples=3)(
        image_problem(), image_prior(), generator=torch.Generator().manual_seed(0)
    )
    assert result.samples is not None
    assert result.samples.shape == (3, 2, 4, 4)
    assert result.evaluations["network"] == len(result.history) == 12


def test_errors() -> None:
    for settings, message in (
        ({"steps": 1001}, "dps: steps: expected between 1 and 1000, found 1001"),
        ({"step_size": -1.0}, "dps: step_size: expected at least 0"),
        ({"samples": 0}, "dps: samples: expected at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            DPS(**settings)  # type: ignore[arg-type]
