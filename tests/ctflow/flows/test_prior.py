"""FlowPrior around networks of every kind of prediction, and its padding."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ctflow.flows.analytic import GaussianFlow
from ctflow.flows.path import AffinePath
from ctflow.flows.prior import PREDICTIONS, FlowPrior, Method
from ctflow.representation import Representation
from operators.meter import metered
from tests.ctflow.flows.test_path import each_path
from tests.operators.examples import random


@each_path
@pytest.mark.parametrize("predicts", PREDICTIONS)
def test_every_prediction_becomes_the_same_velocity(path: AffinePath, predicts: str) -> None:
    exact = GaussianFlow(
        random((1, 4, 4), torch.float64, 0), random((1, 4, 4), torch.float64, 1).square() + 0.1, path
    )

    def network(x: Tensor, t: Tensor) -> Tensor:
        if predicts == "v":
            alpha, beta, _, _ = path.at(t, x)
            return alpha * exact.source(x, t) - beta * exact.destination(x, t)
        return getattr(exact, "source" if predicts == "noise" else predicts)(x, t)

    prior = FlowPrior(network, path, Representation(0.02, 0.02), predicts=predicts)
    x, t = random((3, 1, 4, 4), torch.float64, 2), torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    for name in ("velocity", "destination", "source", "score"):
        expected = getattr(exact, name)(x, t)
        assert torch.allclose(
            getattr(prior, name)(x, t), expected, rtol=1e-6, atol=1e-8 * float(expected.abs().max())
        )


@each_path
@pytest.mark.parametrize("predicts", PREDICTIONS)
def test_every_prediction_carries_noise_from_end_to_end(path: AffinePath, predicts: str) -> None:
    """Velocities are finite where a prediction says nothing of them, or the path's own rate is infinite."""
    exact = GaussianFlow(torch.full((1, 2, 2), 0.4).double(), torch.full((1, 2, 2), 0.3).double(), path)

    def network(x: Tensor, t: Tensor) -> Tensor:
        alpha, beta, _, _ = path.at(t, x)
        destination = exact.destination(x, t)
        # At the very end a network has no noise to see.
        source = (x - alpha * destination) / beta.clamp_min(1e-9)
        return {
            "velocity": exact.velocity(x, t),
            "destination": destination,
            "noise": source,
            "score": -source / beta.clamp_min(1e-9),
            "v": alpha * source - beta * destination,
        }[predicts]

    prior = FlowPrior(network, path, Representation(), predicts=predicts)
    alpha, beta, _, _ = path.at(torch.tensor([0.0, 1.0], dtype=torch.float64), torch.zeros(2))
    spread = (0.3 * alpha.square() + beta.square()).sqrt()
    whitened = random((3, 1, 2, 2), torch.float64, 2)
    first, last = (0.4 * alpha[k] + spread[k] * whitened for k in (0, 1))
    for flow in (prior, exact):
        assert bool(torch.isfinite(flow.destination(first, 0.0)).all())
        assert torch.allclose(flow.integrate(first, steps=20, method="rk4"), last, atol=0.03)
        back = flow.integrate(last, 1.0, 0.0, steps=20, method="rk4")
        assert torch.allclose(back / spread[0], first / spread[0], atol=0.03)


class Local(torch.nn.Module):
    """Centre and a copy of its input: sees no neighbours, but insists on sizes that are multiples of 8."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        assert x.shape[-2] % 8 == 0
        assert x.shape[-1] % 8 == 0
        assert t.shape == x.shape[:1]
        return 3 * x + t[:, None, None, None]


@pytest.mark.parametrize("size", [(8, 16), (7, 9), (1, 1), (13, 24)])
def test_padding_is_undone(size: tuple[int, int]) -> None:
    prior = FlowPrior(Local(), AffinePath.linear(), Representation(), multiple=8)
    x = random((2, 1, *size), torch.float32, 0)
    assert torch.equal(prior.velocity(x, 0.25), 3 * x + 0.25)


@pytest.mark.parametrize("batch", [(), (1,), (2, 3)])
def test_any_leading_axes(batch: tuple[int, ...]) -> None:
    prior = FlowPrior(Local(), AffinePath.linear(), Representation(), multiple=8)
    x = random((*batch, 1, 7, 9), torch.float32, 0)
    assert torch.equal(prior.velocity(x, 0.25), 3 * x + 0.25)
    assert prior.destination(x, 0.25).shape == x.shape


def test_padding_repeats_the_border() -> None:
    blur = torch.nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=True)
    prior = FlowPrior(lambda x, t: blur(x), AffinePath.linear(), Representation(), multiple=4)
    assert torch.allclose(prior.velocity(torch.full((1, 1, 6, 6), 2.0), 0.5), torch.tensor(2.0))


def test_velocity_is_differentiable_metered_and_keeps_its_dtype() -> None:
    class Half(torch.nn.Module):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return (x * x).bfloat16()

    prior = FlowPrior(Half(), AffinePath.linear(), Representation(), multiple=4)
    x = torch.full((2, 1, 5, 5), 2.0, requires_grad=True)
    with metered() as meter:
        velocity = prior.velocity(x, 0.5)
        prior.destination(x, torch.tensor([0.1, 0.2]))
    assert velocity.dtype == torch.float32
    assert meter.counts == {"network": 2}
    (gradient,) = torch.autograd.grad(velocity.sum(), x)
    assert torch.allclose(gradient, torch.full_like(x, 4.0))


def test_sampling_is_reproducible_and_independent_of_the_batch() -> None:
    prior = GaussianFlow(torch.zeros(3), torch.ones(3))
    first = prior.sample((2, 3), torch.Generator().manual_seed(5), steps=3)
    assert torch.equal(first, prior.sample((2, 3), torch.Generator().manual_seed(5), steps=3))
    several = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    alone = prior.sample((1, 3), [torch.Generator().manual_seed(2)], steps=3)
    assert torch.allclose(prior.sample((2, 3), several, steps=3)[1], alone[0])


@pytest.mark.parametrize("method", ["euler", "midpoint", "heun", "rk4"])
def test_every_sample_may_start_at_its_own_time(method: Method) -> None:
    prior = GaussianFlow(random((4,), torch.float64, 0), torch.full((4,), 0.3, dtype=torch.float64))
    x, start = random((3, 4), torch.float64, 1), torch.tensor([0.0, 0.3, 0.8], dtype=torch.float64)
    together = prior.integrate(x, start, steps=5, method=method)
    for i in range(3):
        alone = prior.integrate(x[i : i + 1], float(start[i]), steps=5, method=method)
        assert torch.allclose(together[i], alone[0], rtol=1e-12)


def test_a_time_for_each_of_several_leading_axes() -> None:
    prior = FlowPrior(Local(), AffinePath.linear(), Representation(), multiple=8)
    x, t = random((2, 3, 1, 8, 8), torch.float32, 0), torch.tensor([0.25, 0.5])
    assert torch.equal(prior.velocity(x, t), 3 * x + t[:, None, None, None, None])


def test_checkpointed_integration_has_the_same_derivatives_for_one_more_evaluation() -> None:
    prior = GaussianFlow(random((4,), torch.float64, 0), torch.full((4,), 0.3, dtype=torch.float64))
    found, counts = [], []
    for checkpoint in (False, True):
        x = random((2, 4), torch.float64, 1).requires_grad_()
        start = torch.tensor([0.1, 0.4], dtype=torch.float64, requires_grad=True)
        with metered() as meter:
            end = prior.integrate(x, start, steps=3, method="heun", checkpoint=checkpoint)
            found.append(torch.autograd.grad(end.square().sum(), (x, start)))
        counts.append(meter.counts["network"])
    assert counts == [6, 12]
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    x = random((2, 4), torch.float64, 1)
    step = torch.tensor([1e-6, 0.0], dtype=torch.float64)
    ends = [prior.integrate(x, start.detach() + s * step, steps=3, method="heun") for s in (1, -1)]
    slope = (ends[0].square().sum() - ends[1].square().sum()) / 2e-6
    assert torch.allclose(found[0][1][0], slope, rtol=1e-6)


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"predicts: expected one of velocity, .*found 'speed'"):
        FlowPrior(Local(), AffinePath.linear(), Representation(), predicts="speed")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected a network or a velocity of its own"):
        FlowPrior(None, AffinePath.linear(), Representation()).velocity(torch.zeros(1, 1, 8, 8), 0.5)
    prior = GaussianFlow(torch.zeros(2), torch.ones(2))
    with pytest.raises(ValueError, match="steps: expected at least 1, found 0"):
        prior.integrate(torch.zeros(1, 2), steps=0)
    with pytest.raises(ValueError, match="method: expected one of euler, midpoint, heun, rk4, found 'leap'"):
        prior.integrate(torch.zeros(1, 2), method="leap")  # type: ignore[arg-type]


def test_many_large_images_go_through_the_network_in_parts() -> None:
    sizes: list[int] = []

    def network(x: Tensor, t: Tensor) -> Tensor:
        sizes.append(len(x))
        return x * t[:, None, None, None]

    prior = FlowPrior(network, AffinePath.linear(), Representation())
    volumes = random((2, 5, 1, 4, 6), torch.float32, 0)
    times = torch.tensor([0.2, 0.6])
    with torch.no_grad():
        whole = prior.velocity(volumes, times)
        prior.pixels_at_once = 4 * 24
        with metered() as meter:
            parts = prior.velocity(volumes, times)
    assert torch.equal(parts, whole)
    assert torch.equal(whole, volumes * times[:, None, None, None, None])
    assert sizes == [10, 4, 4, 2]
    assert meter.counts["network"] == 1
    prior.velocity(volumes.requires_grad_(), times)
    assert sizes[-1] == 10
