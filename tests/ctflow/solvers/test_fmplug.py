"""FMPlug against the trust-region problem that it is for Gaussian priors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ctflow.flows.analytic import GaussianFlow
from ctflow.problem import InverseProblem
from ctflow.solvers import FMPlug
from operators.linear import Matrix
from operators.noise import GaussianNoise, standard_normal
from tests.ctflow.solvers.exact import (
    DATA,
    EYE,
    MATRIX,
    MEAN,
    SIZE,
    STD,
    UNEVEN,
    image_prior,
    image_problem,
    problem,
)
from tests.operators.examples import random

# No early stop.
LONG: dict[str, Any] = {"iterations": 250, "time_rate": 0.0, "patience": 10**6, "checkpoint": False}
FAR = 30.0


def far_problem(batch: int) -> InverseProblem:
    """Data that no noise of the likeliest length fits."""
    return InverseProblem(Matrix(MATRIX), FAR * DATA.expand(batch, 3), GaussianNoise(STD))


def nearest_on_sphere(forward: Tensor, data: Tensor, radius: float) -> Tensor:
    """argmin |forward z - data| over |z| = radius, by the secular equation."""
    values, axes = torch.linalg.eigh(forward.mT @ forward)
    target = axes.mT @ forward.mT @ data
    low, high = -values[0] + 1e-12, torch.tensor(1e6, dtype=torch.float64)
    for _ in range(200):
        middle = (low + high) / 2
        too_long = torch.linalg.vector_norm(target / (values + middle)) > radius
        low, high = (middle, high) if too_long else (low, middle)
    return axes @ (target / (values + high))


def carried(prior: GaussianFlow, start: float, guide: Tensor) -> tuple[Tensor, Tensor]:
    """z -> G(t guide + (1 - t) z, t) with its integration errors, as a matrix and a shift."""
    noises = torch.cat([torch.zeros(1, SIZE, dtype=torch.float64), EYE])
    ends = prior.integrate(start * guide + (1 - start) * noises, start, 1.0, 3, "heun")
    return (ends[1:] - ends[:1]).mT, ends[0]


@pytest.mark.parametrize("covariance", [EYE, UNEVEN], ids=["unit", "uneven"])
@pytest.mark.parametrize("start", [0.0, 0.5])
def test_the_sphere_is_a_trust_region(covariance: Tensor, start: float) -> None:
    posed, prior = far_problem(2), GaussianFlow(MEAN, covariance)
    guide = {"guide": "none"} if start == 0 else {"start": start}
    solver = FMPlug(**{**LONG, "shell": 0.0, "tangent": True, **guide})
    result = solver(posed, prior, generator=torch.Generator().manual_seed(1))
    matrix, shift = carried(prior, start, posed.initial()[0])
    noise = nearest_on_sphere(MATRIX @ matrix, FAR * DATA - MATRIX @ shift, SIZE**0.5)
    assert torch.allclose(result.image, (shift + matrix @ noise).expand(2, SIZE), atol=1e-4)


def test_the_published_gradient_has_another_fixed_point() -> None:
    posed, prior = far_problem(2), GaussianFlow(MEAN, UNEVEN)
    published, exact = (
        FMPlug(**{**LONG, "shell": 0.0, "tangent": tangent, "guide": "none"})(
            posed, prior, generator=torch.Generator().manual_seed(1)
        )
        for tangent in (False, True)
    )
    assert bool((published.history[-1] > exact.history[-1] * 1.001).all())


def test_the_shell_lets_the_data_decide_within_it() -> None:
    """Where some noise in the shell fits the data it is found; outside, the border is kept."""
    prior = GaussianFlow(MEAN, EYE)
    solver = FMPlug(**{**LONG, "guide": "none"})
    result = solver(problem(2), prior, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(result.image @ MATRIX.mT, DATA.expand(2, 3), atol=1e-3)
    border = FMPlug(**{**LONG, "guide": "none", "tangent": True})
    result = border(far_problem(1), prior, generator=torch.Generator().manual_seed(1))
    matrix, shift = carried(prior, 0.0, MEAN)
    noise = nearest_on_sphere(MATRIX @ matrix, FAR * DATA - MATRIX @ shift, 1.025 * SIZE**0.5)
    # Adam's steps leave the border a little, and come back.
    assert torch.allclose(result.image[0], shift + matrix @ noise, atol=0.05)


@pytest.mark.parametrize(("data", "length"), [(0.0, 0.9), (FAR, 1.1)], ids=["within", "beyond"])
def test_the_shell_has_both_its_borders(data: float, length: float) -> None:
    prior = GaussianFlow(MEAN, EYE)
    matrix, shift = carried(prior, 0.0, MEAN)
    posed = InverseProblem(Matrix(EYE), (shift + data).expand(2, SIZE), GaussianNoise(STD))
    solver = FMPlug(iterations=40, guide="none", shell=0.1, time_rate=0.0, checkpoint=False)
    result = solver(posed, prior, generator=torch.Generator().manual_seed(1))
    noise = torch.linalg.solve(matrix, (result.image - shift).mT).mT
    found = torch.linalg.vector_norm(noise, dim=-1) / SIZE**0.5
    assert torch.allclose(found, torch.full((2,), length, dtype=torch.float64), atol=1e-3)


def test_the_start_is_learned() -> None:
    """A guide that is the answer draws the start to the end of the path, for each sample by itself."""
    matrix = random_rotation()
    truth = torch.tensor([8.0, -7.0, 9.0, 6.0], dtype=torch.float64)
    posed = InverseProblem(Matrix(matrix), (matrix @ truth).expand(2, SIZE), GaussianNoise(0.1))
    result = FMPlug(iterations=60)(
        posed, GaussianFlow(torch.zeros_like(truth), EYE), generator=torch.Generator().manual_seed(0)
    )
    assert result.details["start"].shape == (2,)
    assert bool((result.details["start"] > 0.8).all())
    fixed = FMPlug(iterations=60, time_rate=0.0)(
        posed, GaussianFlow(torch.zeros_like(truth), EYE), generator=torch.Generator().manual_seed(0)
    )
    assert torch.allclose(fixed.details["start"], torch.full((2,), 0.5, dtype=torch.float64))
    assert bool((fixed.history[-1] > result.history[-1]).all())


def test_the_start_in_the_details_is_that_of_the_image() -> None:
    """Whatever a search goes on with once the image is found, for its neighbours or for its patience."""
    posed, prior = image_problem(), image_prior()
    examples = posed.measurement
    settings: dict[str, Any] = {"guide": "examples", "examples": examples, "example_rate": 0.0, "window": 2}
    solver = FMPlug(iterations=30, minimum=10, patience=10**6, improvement=1e6, **settings)
    result = solver(posed, prior, generator=torch.Generator().manual_seed(0))
    # Nothing improves on the first that counts, the tenth.
    short = FMPlug(iterations=10, minimum=10, **settings)
    expected = short(posed, prior, generator=torch.Generator().manual_seed(0))
    assert torch.equal(result.image, expected.image)
    assert torch.equal(result.details["start"], expected.details["start"])
    assert len(result.history) == 30


def random_rotation() -> Tensor:
    return torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(1)).double())[0]


def test_weights_of_examples_are_learned() -> None:
    """Of two examples the one that fits is preferred: with a start near the end the guide is the image."""
    posed = image_problem()
    right = posed.measurement[0]
    examples = torch.stack([right, torch.zeros_like(right)])
    settings: dict[str, Any] = {
        "guide": "examples", "examples": examples, "start": 0.98, "time_rate": 0.0, "iterations": 80
    }  # fmt: skip
    learned = FMPlug(**settings)(posed, image_prior(), generator=torch.Generator().manual_seed(0))
    equal = FMPlug(**settings, example_rate=0.0)(
        posed, image_prior(), generator=torch.Generator().manual_seed(0)
    )
    assert float((learned.image[0] - right).square().mean()) < 0.3 * float(
        (equal.image[0] - right).square().mean()
    )
    assert learned.solver["examples"] == "tensor of shape (2, 4, 4)"


@pytest.mark.parametrize("guide", ["examples", "initial"])
def test_calibration_gives_the_state_the_moments_of_the_path(guide: Any) -> None:
    """Those of the examples, or else of the prior's own samples, at the start time: 0.7 here."""
    posed, prior = image_problem((2,)), image_prior()
    examples = random((3, 4, 4), torch.float64, 8) if guide == "examples" else None
    generator = torch.Generator().manual_seed(0)
    solver = FMPlug(
        iterations=1, start=0.7, guide=guide, examples=examples, calibrate=True, shell=0.0
    )  # fmt: skip
    result = solver(posed, prior, generator=generator)
    encode, shape = prior.representation.encode, (2, 1, 4, 4)
    generator = torch.Generator().manual_seed(0)
    if examples is None:
        images = prior.integrate(standard_normal(shape, generator), steps=20, method="heun")
        mean, variance = (
            moment((1, 2, 3), keepdim=True) for moment in (images.mean, images.var)
        )  # fmt: skip
        mixed = encode(posed.initial())
    else:
        mean, variance = encode(examples.float()).mean(), encode(examples.float()).var()
        mixed = encode(examples.float()).mean(0)
    noise = standard_normal(shape, generator)
    noise = 4 * noise / noise.square().sum((1, 2, 3), keepdim=True).sqrt()
    state = 0.7 * mixed + 0.3 * noise
    deviation = state - state.mean((1, 2, 3), keepdim=True)
    wanted = (0.49 * variance + 0.09).sqrt()
    state = 0.7 * mean + wanted * deviation / state.std((1, 2, 3), keepdim=True)
    expected = prior.integrate(state, 0.7, 1.0, 3, "heun")
    assert torch.allclose(result.image, prior.representation.decode(expected), rtol=1e-3, atol=1e-5)


def test_the_start_moves_by_its_rate_and_ever_less() -> None:
    """Adam's first step is its rate, whatever the gradient; t_0 = sigmoid(6 (q - 1/2))."""
    posed = InverseProblem(Matrix(EYE), torch.full((1, SIZE), 9.0).double(), GaussianNoise(0.1))
    prior = GaussianFlow(torch.zeros(SIZE).double(), EYE)

    def start(decay: float) -> float:
        solver = FMPlug(iterations=20, time_rate=0.1, time_decay=decay)
        return float(solver(posed, prior, generator=torch.Generator().manual_seed(0)).details["start"])

    assert start(1e-9) == pytest.approx(float(torch.sigmoid(torch.tensor(0.6))), abs=2e-3)
    assert start(0.5) == pytest.approx(float(torch.sigmoid(torch.tensor(1.2))), abs=0.05)
    assert start(1.0) > 0.9


def test_checkpointing_changes_the_cost_alone_and_the_quietest_iterate_is_kept() -> None:
    seen: list[Tensor] = []
    settings: dict[str, Any] = {
        "iterations": 40,
        "window": 4,
        "patience": 5,
        "minimum": 6,
        "improvement": 1e-4,
    }
    results = [
        FMPlug(checkpoint=checkpoint, **settings)(
            image_problem(),
            image_prior(),
            generator=torch.Generator().manual_seed(0),
            callback=lambda step: seen.append(step.estimate),
        )
        for checkpoint in (False, True)
    ]
    assert torch.equal(results[0].image, results[1].image)
    assert len(results[0].history) < 40
    for i in range(2):
        assert any(torch.equal(results[0].image[i], estimate[i]) for estimate in seen)


def test_errors() -> None:
    for settings, message in (
        ({"steps": 0}, "fm-plug: steps: expected at least 1, found 0"),
        ({"iterations": 0}, "fm-plug: iterations: expected at least 1"),
        ({"learning_rate": 0.0}, "fm-plug: learning_rate: expected a positive number"),
        ({"time_rate": -1.0}, "fm-plug: time_rate: expected at least 0"),
        ({"time_decay": 1.5}, "fm-plug: time_decay: expected above 0 and at most 1"),
        ({"start": 1.0}, "fm-plug: start: expected between 0 and 1"),
        ({"shell": 1.0}, "fm-plug: shell: expected at least 0 and below 1"),
        ({"guide": "truth"}, "fm-plug: guide: expected one of initial, examples, none, found 'truth'"),
        (
            {"guide": "examples"},
            "fm-plug: examples: expected images exactly for guide 'examples', found none",
        ),
        (
            {"examples": torch.ones(1, 2)},
            "expected images exactly for guide 'examples', found guide 'initial'",
        ),
        ({"example_rate": -1.0}, "fm-plug: example_rate: expected at least 0"),
        ({"window": 1}, "fm-plug: window: expected at least 2"),
        ({"patience": 0}, "fm-plug: patience: expected at least 1"),
        ({"minimum": -1}, "fm-plug: minimum: expected at least 0"),
        ({"improvement": -1.0}, "fm-plug: improvement: expected at least 0"),
    ):
        with pytest.raises(ValueError, match=message):
            FMPlug(**settings)  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match=r"fm-plug: examples: expected shape \(count, 4, 4\), found \(1, 3, 4\)"
    ):
        FMPlug(guide="examples", examples=torch.ones(1, 3, 4))(
            image_problem(), image_prior(), generator=torch.Generator()
        )
