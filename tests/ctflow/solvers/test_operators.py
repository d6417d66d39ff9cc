"""Every solver on a blur, a small ray transform and masked k-space, against its dense matrix.

The other files prove each solver against algebra with one dense matrix. Here the operator is another, and
the solver must do with it exactly what it does with the matrix that the operator stands for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from ctflow.flows.analytic import GaussianFlow
from ctflow.flows.prior import FlowPrior
from ctflow.pipeline.job import needs_prior
from ctflow.problem import InverseProblem
from ctflow.representation import Representation
from ctflow.solvers import SOLVERS, Flower, make_solver
from operators import Detector, ImageGrid, ParallelBeam, RayTransform
from operators.linear import LinearOperator, Matrix
from operators.mri import CartesianFourier
from operators.noise import ComplexGaussianNoise, GaussianNoise
from tests.ctflow.solvers.exact import assert_law
from tests.operators.examples import random

TIGHT = {"max_iterations": 80, "tolerance": 1e-11}
# Settings under which rounding is all that may differ.
SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("flower", {"steps": 5, **TIGHT}),
    ("flower", {"steps": 4, "sample": True, **TIGHT}),
    ("pnp-flow", {"steps": 6, "draws": 2}),
    ("pnp-flow", {"steps": 5, "draws": 1, "data_step": "proximal", **TIGHT}),
    ("ot-ode", {"steps": 6, **TIGHT}),
    ("ot-ode", {"steps": 6, "covariance": "network", **TIGHT}),
    ("flow-dps", {"steps": 5, "step_size": 0.1}),
    ("flow-dps", {"steps": 5, "data_step": "proximal", "blend": False, **TIGHT}),
    ("d-flow", {"iterations": 5, "inversion_steps": 4, "regularisation": None}),
    ("dps", {"steps": 6}),
    ("diffpir", {"steps": 6, **TIGHT}),
    ("dds", {"steps": 6, "weight": None, "iterations": 80, "tolerance": 1e-11}),
    ("ictm", {"steps": 4, "weight": 1.0}),
    ("fmct", {"steps": 6, "iterations": 80, "tolerance": 1e-11}),
    ("fm-plug", {"iterations": 4}),
    ("ms-flow", {"segments": 4, "sweeps": 4, "max_iterations": 80, "cg_tolerance": 1e-11}),
    ("ms-flow", {"segments": 3, "sweeps": 3, "jacobian": "exact"}),
]
BATCH = 2


class Blur(LinearOperator):
    """A Gaussian blur of images that are zero outside."""

    def __init__(self, shape: tuple[int, int]) -> None:
        super().__init__(shape, shape, domain_dtype=torch.float64)
        taps = torch.exp(-torch.arange(-2, 3, dtype=torch.float64).square() / 2)
        self.kernel = (taps / taps.sum()).outer(taps / taps.sum())[None, None]

    def _forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, 1, *self.domain_shape)
        return torch.nn.functional.conv2d(flat, self.kernel, padding=2).reshape(x.shape)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._forward(y)


class Twin(Matrix):
    """The dense matrix of a problem, with the first image of its operator."""

    def __init__(self, matrix: Tensor, original: InverseProblem, representation: Representation) -> None:
        super().__init__(matrix)
        self.first = representation.encode(original.initial()).flatten(1)

    def approximate_inverse(self, y: Tensor) -> Tensor:
        return self.first[-len(y) :]


@dataclass(frozen=True)
class Case:
    """A problem, the map from its images to the prior's tensors, and both as a matrix and vectors."""

    problem: InverseProblem
    representation: Representation
    matrix: Tensor
    data: Tensor
    std: float

    @property
    def event(self) -> tuple[int, ...]:
        return self.problem.on(self.representation).operator.domain_shape

    def prior(self, mean: Tensor, covariance: Tensor) -> FlowPrior:
        flow = GaussianFlow(mean.reshape(self.event), covariance)
        return FlowPrior(flow.velocity, flow.path, self.representation)

    def vectors(self, images: Tensor) -> Tensor:
        return self.representation.encode(images).flatten(-len(self.event))

    def twin(self) -> InverseProblem:
        std = torch.full((len(self.matrix),), self.std, dtype=torch.float64)
        operator = Twin(self.matrix, self.problem, self.representation)
        noise = GaussianNoise(self.std) if self.problem.precision().numel() == 1 else GaussianNoise(std)
        return InverseProblem(operator, self.data, noise)


def case(name: str, batch: int = BATCH) -> Case:
    generator = torch.Generator().manual_seed(3)
    representation, std = Representation.identity(), 0.3
    if name == "fourier":
        mask = torch.tensor([True, False, True, True])
        operator: LinearOperator = CartesianFourier((4, 4), mask)
        representation = Representation(0.7, complex=True, calibration="fixed")
        noise: Any = ComplexGaussianNoise(std * 2**0.5, operator.sampled)
        truth = torch.randn(4, 4, generator=generator, dtype=torch.complex128)
    else:
        if name == "blur":
            operator = Blur((4, 5))
        else:
            geometry = ParallelBeam.uniform(4, Detector(7, 1.0))
            operator = RayTransform(geometry, ImageGrid((5, 5)))
        noise = GaussianNoise(std)
        truth = torch.randn(operator.domain_shape, generator=generator, dtype=torch.float64)
    y = noise.sample(operator(truth.expand(batch, *truth.shape)), generator)
    y = y[:1].expand(y.shape)
    problem = InverseProblem(operator, y, noise)
    linear = problem.on(representation).operator
    units = torch.eye(math.prod(linear.domain_shape), dtype=torch.float64)
    columns = _rows(linear(units.reshape(-1, *linear.domain_shape)), operator)
    return Case(problem, representation, columns.mT, _rows(y, operator), std)


def _rows(y: Tensor, operator: LinearOperator) -> Tensor:
    """Measurements as vectors of real numbers, without what was not measured."""
    if not y.is_complex():
        return y.flatten(1)
    sampled = operator.sampled.expand(operator.range_shape)  # type: ignore[union-attr]
    return torch.view_as_real(y[:, sampled]).flatten(1)


def law(size: int) -> tuple[Tensor, Tensor]:
    """A mean and an uneven covariance of that size."""
    axes, _ = torch.linalg.qr(random((size, size), torch.float64, 4))
    return random((size,), torch.float64, 5), axes @ torch.diag(
        torch.logspace(0.5, -1.5, size).double()
    ) @ axes.mT


@pytest.mark.parametrize("name", ["blur", "radon", "fourier"])
@pytest.mark.parametrize(("solver", "settings"), SETTINGS, ids=lambda value: str(value))
def test_an_operator_is_its_matrix(name: str, solver: str, settings: dict[str, Any]) -> None:
    if settings.get("sample") and name == "fourier":
        return  # Draws complex noise for complex data; its law is checked below.
    posed = case(name)
    mean, covariance = law(posed.matrix.shape[1])

    def run(problem: InverseProblem, prior: FlowPrior) -> Tensor:
        generators = [torch.Generator().manual_seed(i) for i in range(BATCH)]
        return make_solver(solver, settings)(problem, prior, generator=generators).image

    found = posed.vectors(run(posed.problem, posed.prior(mean, covariance)))
    expected = run(posed.twin(), GaussianFlow(mean, covariance))
    # The norm of a ray transform comes in single precision; L-BFGS and Adam pass rounding on.
    loose = solver in ("d-flow", "fm-plug", "ictm") or settings.get("jacobian") == "exact"
    assert torch.allclose(found, expected, atol=1e-4 if loose else 1e-5)


def test_every_solver_with_a_prior_is_here() -> None:
    assert {name for name, _ in SETTINGS} == {name for name in SOLVERS if needs_prior(name)}


@pytest.mark.parametrize("name", ["blur", "radon", "fourier"])
def test_flower_draws_from_the_exact_posterior(name: str) -> None:
    count = 3000
    posed = case(name, count)
    size, matrix = posed.matrix.shape[1], posed.matrix
    mean = random((size,), torch.float64, 5)
    unit = torch.eye(size, dtype=torch.float64)
    solver = Flower(steps=3, sample=True, max_iterations=80, tolerance=1e-10)
    result = solver(posed.problem, posed.prior(mean, unit), generator=torch.Generator().manual_seed(1))
    gain = matrix.mT @ torch.linalg.inv(matrix @ matrix.mT + posed.std**2 * torch.eye(len(matrix)))
    expected = mean + gain @ (posed.data[0] - matrix @ mean), unit - gain @ matrix
    assert_law(posed.vectors(result.image), *expected)


@pytest.mark.parametrize(
    ("name", "method"),
    [("blur", "conjugate gradients"), ("radon", "conjugate gradients"), ("fourier", "closed form")],
)
def test_the_choice_of_the_proximal_is_in_the_result(name: str, method: str) -> None:
    posed = case(name)
    mean, covariance = law(posed.matrix.shape[1])
    result = Flower(steps=3)(
        posed.problem, posed.prior(mean, covariance), generator=torch.Generator().manual_seed(0)
    )
    assert result.details["proximal"] == method
    assert result.details["proximal_iterations"].shape == (3, BATCH)
    assert bool((result.details["proximal_iterations"] == 0).all()) == (method == "closed form")
    few = InverseProblem(Matrix(posed.matrix[:4]), posed.data[:, :4], GaussianNoise(0.3))
    result = Flower(steps=3)(few, GaussianFlow(mean, covariance), generator=torch.Generator().manual_seed(0))
    assert result.details["proximal"] == "Woodbury"
