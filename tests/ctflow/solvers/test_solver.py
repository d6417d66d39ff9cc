"""The registry, the checks of settings, and the records of every solver."""

from __future__ import annotations

import inspect
from dataclasses import FrozenInstanceError, is_dataclass

import pytest
import torch

from ctflow.flows.analytic import GaussianFlow
from ctflow.problem import InverseProblem
from ctflow.solvers import CGLS, FBP, SIRT, SOLVERS, TV, Flower, Solver, Step, make_solver
from operators.ct.geometry import Detector, ImageGrid, ParallelBeam
from operators.ct.ray_transform import RayTransform
from operators.noise import GaussianNoise, PoissonTransmission

each_solver = pytest.mark.parametrize("name", SOLVERS)
QUICK: dict[str, dict] = {
    "cgls": {"iterations": 3},
    "sirt": {"iterations": 3},
    "tv": {"iterations": 30},
    "flower": {"steps": 3},
}


def problem(batch: tuple[int, ...] = (2,), dtype: torch.dtype = torch.float32) -> InverseProblem:
    operator = RayTransform(ParallelBeam.uniform(12, Detector(13, 1.0)), ImageGrid((8, 9)))
    image = torch.zeros(8, 9, dtype=dtype)
    image[2:6, 3:7] = 0.05
    noise = PoissonTransmission(1e4)
    clean = operator(image).expand(*batch, 12, 13)
    return InverseProblem(operator, noise.sample(clean, torch.Generator().manual_seed(0)), noise)


def prior(dtype: torch.dtype = torch.float32) -> GaussianFlow:
    return GaussianFlow(torch.zeros(8, 9, dtype=dtype), torch.full((8, 9), 0.01, dtype=dtype))


def test_the_registry() -> None:
    assert {"fbp": FBP, "cgls": CGLS, "sirt": SIRT, "tv": TV, "flower": Flower} == SOLVERS


@each_solver
def test_a_solver_is_a_frozen_dataclass_with_the_protocol(name: str) -> None:
    solver = make_solver(name)
    assert is_dataclass(solver)
    assert isinstance(solver, Solver)
    with pytest.raises(FrozenInstanceError):
        solver.extra = 1  # type: ignore[attr-defined]
    parameters = inspect.signature(solver.__call__).parameters
    assert list(parameters) == ["problem", "prior", "generator", "callback"]
    assert make_solver(name) == solver


@each_solver
@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_solver_keeps_batch_and_dtype_and_records_itself(
    name: str, batch: tuple[int, ...], dtype: torch.dtype
) -> None:
    seen: list[Step] = []
    posed = problem(batch, dtype)
    before = posed.measurement.clone()
    solver = make_solver(name, QUICK.get(name))
    result = solver(posed, prior(dtype), generator=torch.Generator().manual_seed(7), callback=seen.append)
    assert (result.image.shape, result.image.dtype) == ((*batch, 8, 9), dtype)
    assert not result.image.requires_grad
    assert torch.equal(posed.measurement, before)
    assert result.solver["name"] == name
    assert result.seed == 7
    assert result.seconds["total"] >= result.seconds["operator"] > 0
    assert result.evaluations["operator"] > 0
    assert [step.step for step in seen] == list(range(1, len(seen) + 1))
    assert all(step.estimate.shape == result.image.shape for step in seen)
    assert all(fit.shape == batch for fit in result.history)


def test_settings_from_text() -> None:
    assert make_solver("flower", {"steps": "7", "sample": "yes", "tolerance": "1e-4"}) == Flower(
        7, True, tolerance=1e-4
    )
    assert make_solver("cgls", {"discrepancy": None, "iterations": 4.0}) == CGLS(4)
    assert make_solver("flower", {"max-iterations": 9}).max_iterations == 9  # type: ignore[attr-defined]
    assert make_solver("fbp", {"filter": "hann", "cutoff": 1}) == FBP("hann", 1.0)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("flowr", {}, "no solver 'flowr'; did you mean 'flower'"),
        ("xyz", {}, "no solver 'xyz'; known: cgls, fbp, flower, sirt, tv"),
        ("tv", {"wieght": 1}, "tv: no setting 'wieght'; did you mean 'weight'"),
        ("tv", {"weight": "much"}, "tv: weight: expected float, found 'much'"),
        ("flower", {"steps": 2.5}, r"flower: steps: expected int, found 2\.5"),
        ("flower", {"steps": True}, "flower: steps: expected int, found True"),
        ("flower", {"sample": "perhaps"}, "flower: sample: expected bool, found 'perhaps'"),
        ("fbp", {"filter": "box"}, "fbp: filter: expected one of ram-lak, .*found 'box'"),
        ("cgls", {"discrepancy": "low"}, "cgls: discrepancy: expected float or none, found 'low'"),
        ("flower", {"steps": 0}, "flower: steps: expected at least 1, found 0"),
        ("tv", {"weight": "nan"}, "tv: weight: expected"),
    ],
)
def test_wrong_settings_are_named(name: str, settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_solver(name, settings)


def test_seeds_of_several_generators_are_recorded() -> None:
    generators = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
    assert Flower(steps=1)(problem(), prior(), generator=generators).seed == [3, 4]
    assert CGLS(1)(InverseProblem(problem().operator, problem().measurement, GaussianNoise(0.1))).seed is None
