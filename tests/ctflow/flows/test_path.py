"""The schedules and the algebra of the conversions."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctflow.flows.path import AffinePath, shifted_times
from tests.operators.examples import random

PATHS = [
    AffinePath.linear(),
    AffinePath.cosine(),
    AffinePath.variance_preserving(),
    AffinePath.variance_preserving(0.2, 7.0),
    AffinePath.variance_exploding(),
    AffinePath.variance_exploding(0.05, 10.0),
]
each_path = pytest.mark.parametrize(
    "path", PATHS, ids=lambda path: "-".join(map(str, path.to_dict().values()))
)
times = st.floats(0.02, 0.98)


@each_path
def test_ends(path: AffinePath) -> None:
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    alpha, beta = path.alpha(ends), path.beta(ends)
    if path.name == "variance_exploding":
        low, high = path.settings["sigma_min"], path.settings["sigma_max"]
        assert torch.allclose(torch.stack([alpha, beta]), torch.tensor([[1.0, 1.0], [high, low]]).double())
    else:
        # The variance-preserving path starts near noise, not at it.
        assert torch.allclose(alpha, ends, atol=1e-2 if path.settings.get("beta_max") == 20.0 else 0.2)
        assert torch.allclose(beta, 1 - ends, atol=0.02)


@each_path
@settings(max_examples=20, deadline=None)
@given(t=times)
def test_derivatives_are_those_of_the_schedules(path: AffinePath, t: float) -> None:
    time = torch.tensor(t, dtype=torch.float64, requires_grad=True)
    for schedule, derivative in ((path.alpha, path.alpha_dot), (path.beta, path.beta_dot)):
        value = schedule(time)
        slope = torch.autograd.grad(value, time)[0] if value.requires_grad else torch.zeros(())
        assert float(derivative(time).detach()) == pytest.approx(float(slope), rel=1e-9, abs=1e-12)


@each_path
@settings(max_examples=20, deadline=None)
@given(t=times)
def test_time_of_snr_is_the_inverse_of_snr(path: AffinePath, t: float) -> None:
    snr = path.snr(torch.tensor(t, dtype=torch.float64))
    assert float(path.time_of_snr(snr)) == pytest.approx(t, abs=1e-9)
    assert path.snr(t + 0.01) > path.snr(t)


@each_path
@settings(max_examples=20, deadline=None)
@given(t=times, seed=st.integers(0, 1000))
def test_every_conversion(path: AffinePath, t: float, seed: int) -> None:
    noise, data = random((2, 3, 4), torch.float64, seed), random((2, 3, 4), torch.float64, seed + 1)
    x, velocity = path.interpolate(noise, data, t), path.target_velocity(noise, data, t)

    def close(found: torch.Tensor, expected: torch.Tensor) -> bool:
        return torch.allclose(found, expected, rtol=1e-8, atol=1e-8 * float(expected.abs().max()))

    alpha, beta, alpha_dot, beta_dot = path.at(t, x)
    assert close(x, alpha * data + beta * noise)
    assert close(velocity, alpha_dot * data + beta_dot * noise)
    assert close(path.destination(x, velocity, t), data)
    assert close(path.source(x, velocity, t), noise)
    score = path.score(x, velocity, t)
    assert close(score, -noise / beta)
    assert close(score, (alpha * data - x) / beta**2)
    assert close(path.velocity_from_destination(x, data, t), velocity)
    assert close(path.velocity_from_source(x, noise, t), velocity)
    assert close(path.velocity_from_score(x, score, t), velocity)


@each_path
def test_times_of_a_batch(path: AffinePath) -> None:
    noise, data = random((3, 1, 4, 4), torch.float64, 0), random((3, 1, 4, 4), torch.float64, 1)
    t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    together = path.interpolate(noise, data, t)
    for i in range(3):
        assert torch.allclose(together[i], path.interpolate(noise[i], data[i], float(t[i])))


def test_linear_path_in_plain_words() -> None:
    path, x, velocity = AffinePath.linear(), random((5,), torch.float64, 0), random((5,), torch.float64, 1)
    assert torch.allclose(path.destination(x, velocity, 0.3), x + 0.7 * velocity)
    assert torch.allclose(path.source(x, velocity, 0.3), x - 0.3 * velocity)
    assert torch.equal(path.destination(x, velocity, 1.0), x)
    assert torch.equal(path.source(x, velocity, 0.0), x)


def test_float32_stays_float32() -> None:
    x = torch.ones(2, 3)
    for path in PATHS:
        assert path.destination(x, x, torch.tensor([0.3, 0.4], dtype=torch.float64)).dtype == torch.float32


@each_path
def test_named_makes_it_again(path: AffinePath) -> None:
    again = AffinePath.named(**path.to_dict())
    assert again.to_dict() == path.to_dict()
    assert float(again.beta(torch.tensor(0.3))) == float(path.beta(torch.tensor(0.3)))


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"path: expected one of linear, cosine, .*found 'linaer'"):
        AffinePath.named("linaer")
    with pytest.raises(ValueError, match=r"time: expected a number or shape \(3,\), found \(2,\)"):
        AffinePath.linear().at(torch.tensor([0.1, 0.2]), torch.zeros(3, 4))


def test_variance_preserving_keeps_the_variance() -> None:
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    path = AffinePath.variance_preserving()
    assert torch.allclose(path.alpha(t) ** 2 + path.beta(t) ** 2, torch.ones(11).double())
    assert float(path.alpha(t[0])) == pytest.approx(math.exp(-(19.9 / 2 + 0.1) / 2))


@each_path
def test_unit_posterior_variance_is_that_of_a_unit_prior(path: AffinePath) -> None:
    like = torch.zeros((), dtype=torch.float64)
    for t in (0.0, 0.3, 0.8):
        snr = path.snr(torch.tensor(t, dtype=torch.float64))
        assert torch.allclose(path.unit_posterior_variance(t, like), 1 / (1 + snr.square()))


def test_times_of_several_leading_axes() -> None:
    path, x = AffinePath.cosine(), random((2, 3, 4), torch.float64)
    times = torch.linspace(0.1, 0.9, 6, dtype=torch.float64).reshape(2, 3)
    whole = path.interpolate(x, 2 * x, times)
    for i in range(2):
        for j in range(3):
            assert torch.equal(whole[i, j], path.interpolate(x[i, j], 2 * x[i, j], times[i, j]))


@given(steps=st.integers(1, 50), shift=st.floats(0.05, 20))
def test_times_are_shifted_in_their_noise_levels(steps: int, shift: float) -> None:
    levels = [1 - k / steps for k in range(steps + 1)]
    expected = [1 - shift * level / (1 + (shift - 1) * level) for level in levels]
    assert shifted_times(steps, shift) == pytest.approx(expected, abs=1e-12)
    assert shifted_times(steps)[1:-1] == [k / steps for k in range(1, steps)]
