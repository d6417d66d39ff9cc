"""Solvers on a latent prior: which run, on what, and what the others say."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from ctflow.flows.analytic import GaussianFlow
from ctflow.flows.latent import load_latent_prior
from ctflow.flows.prior import FlowPrior
from ctflow.latent_representation import LatentRepresentation
from ctflow.pipeline.job import needs_prior
from ctflow.problem import InverseProblem
from ctflow.representation import Representation
from ctflow.solvers import SOLVERS, FlowDPS, FMPlug, MSFlow, make_solver
from operators.linear import Identity
from operators.mri import CartesianFourier
from operators.noise import ComplexGaussianNoise, GaussianNoise
from tests.ctflow import latents
from tests.operators.examples import random

PIXELS = Representation(0.5, 0.25, calibration="fixed")
RUNS: dict[str, dict[str, Any]] = {
    "flow-dps": {"steps": 3, "step_size": 0.1},
    "fm-plug": {"iterations": 4, "steps": 2},
    "ms-flow": {"segments": 3, "sweeps": 3, "max_iterations": 5},
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> FlowPrior:
    folder = latents.saved(tmp_path_factory.mktemp("models") / "tiny-sd3", latents.stable_diffusion())
    return load_latent_prior(folder)


def seeds(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(i) for i in range(count)]


def ct(count: int = 2) -> InverseProblem:
    return InverseProblem(
        Identity((10, 12)), 0.02 + 0.01 * random((count, 10, 12), torch.float32, 0), GaussianNoise(0.003)
    )


@pytest.mark.parametrize("name", RUNS)
def test_images_go_through_a_real_pipeline(tiny: FlowPrior, name: str) -> None:
    solver = make_solver(name, RUNS[name])
    result = solver(ct(), tiny, generator=seeds(2))
    assert result.image.shape == (2, 10, 12)
    assert bool(torch.isfinite(result.image).all())
    if name == "flow-dps":
        idle = make_solver(name, {**RUNS[name], "step_size": 1e-9})(ct(), tiny, generator=seeds(2))
        assert bool((ct().data_fit(result.image) < ct().data_fit(idle.image)).all())
    else:
        assert bool((result.history[-1] < result.history[0]).all())
    assert result.prior == "tiny-sd3"
    assert result.representation is not None
    assert result.representation["image_shape"] == [10, 12]
    assert result.evaluations["autoencoder"] > 0
    # A sample does not depend on its neighbours.
    alone = InverseProblem(ct().operator, ct().measurement[1:], ct().noise)
    single = solver(alone, tiny, generator=seeds(2)[1:])
    assert torch.allclose(single.image[0], result.image[1], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", RUNS)
def test_complex_images_too(tiny: FlowPrior, name: str) -> None:
    operator = CartesianFourier((8, 8), torch.arange(8) % 2 == 0)
    y = operator(random((1, 8, 8), torch.complex64, 0))
    result = make_solver(name, RUNS[name])(
        InverseProblem(operator, y, ComplexGaussianNoise(0.1)), tiny, generator=seeds(1)
    )
    assert result.image.dtype == torch.complex64
    assert bool(torch.isfinite(torch.view_as_real(result.image)).all())


@pytest.mark.parametrize("name", sorted({name for name in SOLVERS if needs_prior(name)} - set(RUNS)))
def test_the_others_say_what_they_need(tiny: FlowPrior, name: str) -> None:
    if not needs_prior(name):
        return  # These take no prior.
    with pytest.raises(ValueError, match=f"{name}: expected a prior with an affine representation, of pix"):
        make_solver(name)(ct(), tiny, generator=seeds(2))


class Mixing(torch.nn.Module):
    """A linear autoencoder: one pixel's latent is its value times two, as all three colours."""

    config = SimpleNamespace(latent_channels=1, scaling_factor=0.5, shift_factor=None)

    def __init__(self) -> None:
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(4.0, dtype=torch.float64), requires_grad=False)

    def encode(self, picture: Tensor) -> Any:
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: self.gain * picture[:, :1]))

    def decode(self, latent: Tensor) -> Any:
        return SimpleNamespace(sample=(latent / self.gain).expand(-1, 3, -1, -1))


@pytest.mark.parametrize(
    "solver",
    [
        FlowDPS(6, step_size=0.1),
        FlowDPS(6, data_step="proximal", blend=False, max_iterations=60, tolerance=1e-10),
        FMPlug(iterations=5),
        MSFlow(3, sweeps=4, regulariser="quadratic", max_iterations=60, cg_tolerance=1e-10),
        MSFlow(3, sweeps=4, jacobian="exact"),
    ],
    ids=["gradient", "proximal", "fm-plug", "ms-flow", "exact"],
)
def test_a_linear_decoder_is_an_affine_representation(solver: Any) -> None:
    """The latent is twice the pixels: the same prior of pixels, scaled, gives the same image."""
    flow = GaussianFlow(torch.zeros(1, 4, 5).double(), torch.full((1, 4, 5), 0.5).double())
    latent = LatentRepresentation(Mixing(), 1, 1, PIXELS)
    pixels = Representation(0.25, 0.25, calibration="fixed")
    posed = InverseProblem(
        0.5 * Identity((4, 5), dtype=torch.float64), random((2, 4, 5), torch.float64, 1), GaussianNoise(0.2)
    )
    direct = solver
    if isinstance(solver, FlowDPS) and solver.data_step == "gradient":
        # |A^T (y - A D)| and its unit are those of the decoder's output, half of the latent's.
        direct = replace(solver, step_size=solver.step_size / 2)
    results = [
        run(posed, FlowPrior(flow.velocity, flow.path, representation), generator=seeds(2))
        for run, representation in ((solver, latent), (direct, pixels))
    ]
    assert torch.allclose(results[0].image, results[1].image, atol=1e-5)
