"""Every solver on complex images, coils and undersampled k-space: none knows what made the measurement."""

from __future__ import annotations

import inspect
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ctflow.flows.analytic import GaussianFlow
from ctflow.flows.path import AffinePath
from ctflow.flows.prior import FlowPrior
from ctflow.problem import InverseProblem
from ctflow.representation import Representation
from ctflow.solvers import SOLVERS, make_solver
from operators.mri import CartesianFourier
from operators.noise import ComplexGaussianNoise
from tests.ctflow.flows.test_network import TINY, tiny
from tests.ctflow.solvers.parallel_imaging import coil_maps, lines, parallel_problem
from tests.operators.examples import random

SHAPE = (32, 32)
OF_RAYS = ("fbp", "sirt")
OF_MAGNITUDES = ("rss", "grappa")
each_solver = pytest.mark.parametrize("name", [name for name in SOLVERS if name not in OF_RAYS])
QUICK: dict[str, dict] = {
    "d-flow": {"iterations": 3, "inversion_steps": 3},
    "fm-plug": {"iterations": 2},
    "ms-flow": {"segments": 3, "sweeps": 2},
    "deep-image-prior": {"iterations": 2, "channels": 4, "levels": 2, "input_channels": 2},
    "pnp-flow": {"steps": 2, "draws": 2},
    "wavelet": {"iterations": 10},
}


def quick(name: str):
    few = {"steps", "iterations"} & set(inspect.signature(SOLVERS[name]).parameters)
    return make_solver(name, QUICK.get(name, dict.fromkeys(few, 3)))


def gaussian() -> FlowPrior:
    """Real and imaginary parts of variance 1/4, the scale from the data."""
    flow = GaussianFlow(torch.zeros(2, *SHAPE), torch.full((2, *SHAPE), 0.25))
    representation = Representation(1.0, 0.0, complex=True, calibration="data", unit="")
    return FlowPrior(flow.velocity, flow.path, representation, name="gaussian")


@each_solver
@pytest.mark.parametrize("batch", [(), (2,)])
def test_a_solver_runs_unchanged(name: str, batch: tuple[int, ...]) -> None:
    problem, _ = parallel_problem(SHAPE, batch=batch, dtype=torch.complex64)
    result = quick(name)(problem, gaussian(), generator=torch.Generator().manual_seed(0))
    assert result.image.shape == (*batch, *SHAPE)
    assert result.image.dtype == (torch.float32 if name in OF_MAGNITUDES else torch.complex64)
    assert bool(torch.isfinite(result.image).all())
    assert all(fit.shape == batch and bool(torch.isfinite(fit).all()) for fit in result.history)


@each_solver
def test_maps_and_masks_of_each_sample(name: str) -> None:
    mask = torch.stack([lines(32, 2, 8), lines(32, 2, 8).roll(1)])[:, None]
    mask[:, :, 12:20] = True
    maps = torch.stack([coil_maps(4, SHAPE, torch.complex64), coil_maps(4, SHAPE, torch.complex64).conj()])
    operator = CartesianFourier(SHAPE, mask, maps)
    _, image = parallel_problem(SHAPE, dtype=torch.complex64)
    noise = ComplexGaussianNoise(0.02, operator.sampled)
    y = noise.sample(operator(image.expand(2, *SHAPE)), torch.Generator().manual_seed(1))
    problem = InverseProblem(operator, y, noise)
    result = quick(name)(problem, gaussian(), generator=torch.Generator().manual_seed(0))
    assert result.image.shape == (2, *SHAPE)
    assert bool(torch.isfinite(result.image).all())


@pytest.mark.parametrize("name", [name for name in SOLVERS if getattr(SOLVERS[name], "needs_prior", True)])
def test_maps_of_a_sample_do_not_change_its_neighbours(name: str) -> None:
    """Of three slices one is seen by strong coils, and one by none, as outside of the body."""
    maps = random((3, 2, 8, 8), torch.complex128, 0) * torch.tensor([1.0, 4.0, 0.0])[:, None, None, None]
    mask = torch.arange(8) % 3 != 1
    y = CartesianFourier((8, 8), mask, maps)(random((3, 8, 8), torch.complex128, 1))
    flow = GaussianFlow(torch.zeros(2, 8, 8).double(), torch.full((2, 8, 8), 0.25).double())
    prior = FlowPrior(flow.velocity, flow.path, Representation(1.0, complex=True, calibration="fixed"))

    def run(these: slice) -> Tensor:
        problem = InverseProblem(
            CartesianFourier((8, 8), mask, maps[these]), y[these], ComplexGaussianNoise(0.1)
        )
        generators = [torch.Generator().manual_seed(i) for i in range(3)][these]
        return quick(name)(problem, prior, generator=generators).image

    together = run(slice(3))
    assert bool(torch.isfinite(together).all())
    for i in range(3):
        alone = run(slice(i, i + 1))[0]
        assert torch.allclose(alone, together[i], rtol=1e-4, atol=1e-4 * float(alone.abs().max()))


@pytest.mark.parametrize("name", [name for name in SOLVERS if getattr(SOLVERS[name], "needs_prior", True)])
def test_an_untrained_network_of_two_channels(name: str) -> None:
    problem, _ = parallel_problem(SHAPE, dtype=torch.complex64)
    representation = Representation(1.0, 0.0, complex=True, calibration="data", unit="")
    prior = FlowPrior(
        tiny(settings=replace(TINY, channels=2)), AffinePath.linear(), representation, multiple=TINY.multiple
    )
    result = quick(name)(problem, prior, generator=torch.Generator().manual_seed(0))
    assert result.image.shape == SHAPE
    assert result.image.dtype == torch.complex64
    assert bool(torch.isfinite(result.image).all())
    assert result.representation is not None
    assert result.representation["complex"]


@pytest.mark.parametrize("name", OF_RAYS)
def test_what_is_for_rays_says_so(name: str) -> None:
    problem, _ = parallel_problem(SHAPE)
    with pytest.raises(ValueError, match=f"{name}: expected .*found CartesianFourier"):
        make_solver(name)(problem)


@pytest.mark.parametrize("name", ["flower", "ms-flow", "pnp-flow", "dds", "diffpir"])
def test_a_phase_of_the_scanner_turns_the_image(name: str) -> None:
    problem, truth = parallel_problem(SHAPE, dtype=torch.complex64, std=0.01, step=1)
    turned = InverseProblem(problem.operator, 1j * problem.measurement, problem.noise)
    solver = make_solver(name)
    images = [
        solver(p, gaussian(), generator=torch.Generator().manual_seed(0)).image for p in (problem, turned)
    ]
    assert float((images[1] - 1j * images[0]).norm() / truth.norm()) < 0.2
    assert float((images[0] - truth).norm() / truth.norm()) < 0.2
