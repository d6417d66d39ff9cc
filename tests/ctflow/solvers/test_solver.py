"""The registry, the checks of settings, and the records of every solver."""

from __future__ import annotations

import inspect
from dataclasses import FrozenInstanceError, is_dataclass

import pytest
import torch

from ctflow.flows.analytic import GaussianFlow
from ctflow.problem import InverseProblem
from ctflow.solvers import (
    CGLS,
    CGSENSE,
    DDS,
    DPS,
    FBP,
    FMCT,
    GRAPPA,
    ICTM,
    OTODE,
    RSS,
    SIRT,
    SOLVERS,
    TV,
    DeepImagePrior,
    DFlow,
    DiffPIR,
    FlowDPS,
    Flower,
    FMPlug,
    MSFlow,
    PnPFlow,
    Solver,
    Step,
    Wavelet,
    ZeroFilled,
    make_solver,
)
from operators.ct.geometry import ConeBeam, Detector, ImageGrid, ParallelBeam
from operators.ct.ray_transform import RayTransform
from operators.noise import GaussianNoise, PoissonTransmission
from tests.ctflow.solvers.exact import image_prior

each_solver = pytest.mark.parametrize("name", SOLVERS)
# These two need coil images.
each_of_rays = pytest.mark.parametrize("name", [name for name in SOLVERS if name not in ("rss", "grappa")])
QUICK: dict[str, dict] = {
    "cgls": {"iterations": 3},
    "sirt": {"iterations": 3},
    "tv": {"iterations": 30},
    "wavelet": {"iterations": 5, "levels": 1},
    "cg-sense": {"iterations": 3},
    "flower": {"steps": 3},
    "ot-ode": {"steps": 4},
    "flow-dps": {"steps": 4},
    "d-flow": {"iterations": 4, "inversion_steps": 4},
    "dps": {"steps": 4},
    "diffpir": {"steps": 4},
    "dds": {"steps": 4},
    "ictm": {"steps": 4},
    "fmct": {"steps": 4, "reuse": True},
    "fm-plug": {"iterations": 3},
    "ms-flow": {"segments": 4, "sweeps": 3},
    "deep-image-prior": {"iterations": 3, "channels": 4, "levels": 2, "input_channels": 2},
    "pnp-flow": {"steps": 3, "draws": 2},
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
    classical = {
        "fbp": FBP,
        "cgls": CGLS,
        "sirt": SIRT,
        "tv": TV,
        "wavelet": Wavelet,
        "zero-filled": ZeroFilled,
        "rss": RSS,
        "cg-sense": CGSENSE,
        "grappa": GRAPPA,
    }
    flows = {
        "flower": Flower,
        "ot-ode": OTODE,
        "flow-dps": FlowDPS,
        "d-flow": DFlow,
        "dps": DPS,
        "diffpir": DiffPIR,
        "dds": DDS,
        "ictm": ICTM,
        "fmct": FMCT,
        "fm-plug": FMPlug,
        "ms-flow": MSFlow,
        "deep-image-prior": DeepImagePrior,
        "pnp-flow": PnPFlow,
    }
    assert classical | flows == SOLVERS


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


@each_of_rays
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


def shadows() -> InverseProblem:
    """Three scans of different objects, with a dose each."""
    operator = RayTransform(ParallelBeam.uniform(12, Detector(13, 1.0)), ImageGrid((8, 9)))
    images = 0.05 * torch.rand((3, 8, 9), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    noise = PoissonTransmission(1e4)
    return InverseProblem(operator, noise.sample(operator(images), torch.Generator().manual_seed(0)), noise)


def generators(indices: list[int]) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(100 + i) for i in indices]


@each_of_rays
def test_a_sample_does_not_depend_on_its_batch(name: str) -> None:
    together, exact = shadows(), prior(torch.float64)
    solver = make_solver(name, QUICK.get(name))
    whole = solver(together, exact, generator=generators([0, 1, 2]))
    for i in range(3):
        part = InverseProblem(together.operator, together.measurement[i : i + 1], together.noise)
        alone = solver(part, exact, generator=generators([i]))
        assert torch.allclose(alone.image[0], whole.image[i], rtol=1e-6, atol=1e-9)
        for fit, fit_of_all in zip(alone.history, whole.history, strict=False):
            assert torch.allclose(fit[0], fit_of_all[i], rtol=1e-6)


@each_of_rays
def test_same_seed_same_result(name: str) -> None:
    solver, exact = make_solver(name, QUICK.get(name)), prior(torch.float64)
    first, second = (solver(shadows(), exact, generator=generators([0, 1, 2])).image for _ in range(2))
    assert torch.equal(first, second)


@each_of_rays
def test_a_callback_can_stop_every_solver(name: str) -> None:
    solver = make_solver(name, QUICK.get(name))
    seen: list[Step] = []

    def stop(step: Step) -> bool:
        seen.append(step)
        return True

    result = solver(shadows(), prior(torch.float64), generator=generators([0, 1, 2]), callback=stop)
    assert len(seen) == 1
    assert torch.isfinite(result.image).all()


SAMPLERS = [name for name in SOLVERS if "samples" in inspect.signature(SOLVERS[name]).parameters]


@pytest.mark.parametrize("name", SAMPLERS)
def test_runs_are_apart_and_a_stop_ends_them_all(name: str) -> None:
    solver = make_solver(name, QUICK[name] | {"samples": 3})
    result = solver(shadows(), prior(torch.float64), generator=generators([0, 1, 2]))
    assert result.samples is not None
    assert result.std is not None
    assert result.samples.shape == (3, 3, 8, 9)
    assert torch.equal(result.image, result.samples.mean(0))
    assert torch.equal(result.std, result.samples.std(0))
    assert float((result.samples[0] - result.samples[1]).abs().max()) > 1e-6
    assert float((result.samples[1] - result.samples[2]).abs().max()) > 1e-6
    seen: list[Step] = []
    stopped = solver(
        shadows(),
        prior(torch.float64),
        generator=generators([0, 1, 2]),
        callback=lambda step: bool(seen.append(step)) or len(seen) == 2,
    )
    assert len(seen) == 2
    assert stopped.samples is None
    assert torch.isfinite(stopped.image).all()


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        *((name, {}) for name in ("d-flow", "dps", "ictm", "fm-plug", "deep-image-prior", "pnp-flow")),
        *((name, {}) for name in ("ot-ode", "tv", "cgls", "cg-sense")),
        ("ot-ode", {"covariance": "network"}),
    ],
    ids=str,
)
def test_the_history_is_the_data_fit_of_the_estimates(name: str, settings: dict) -> None:
    seen: list[Step] = []
    posed, solver = shadows(), make_solver(name, QUICK[name] | settings)
    result = solver(posed, prior(torch.float64), generator=generators([0, 1, 2]), callback=seen.append)
    fits = [posed.data_fit(step.estimate) for step in seen]
    # PnP-Flow records that of the estimate that a step starts from, zero at first.
    expected = [posed.data_fit(torch.zeros(3, 8, 9).double()), *fits] if name == "pnp-flow" else fits
    for found, fit in zip(result.history, expected, strict=False):
        assert torch.allclose(found, fit, rtol=1e-3)


@pytest.mark.parametrize(
    ("name", "settings", "most", "tolerance"),
    [
        ("flower", {}, "max_iterations", "tolerance"),
        ("flower", {"sample": True}, "max_iterations", "tolerance"),
        ("pnp-flow", {"data_step": "proximal"}, "max_iterations", "tolerance"),
        ("flow-dps", {"data_step": "proximal"}, "max_iterations", "tolerance"),
        ("ot-ode", {}, "max_iterations", "tolerance"),
        ("ot-ode", {"covariance": "network"}, "max_iterations", "tolerance"),
        ("diffpir", {}, "max_iterations", "tolerance"),
        ("dds", {}, "iterations", "tolerance"),
        ("fmct", {}, "iterations", "tolerance"),
        ("ms-flow", {}, "max_iterations", "cg_tolerance"),
    ],
    ids=str,
)
def test_the_inner_solve_keeps_to_its_settings(name: str, settings: dict, most: str, tolerance: str) -> None:
    def iterations(**inner: float) -> list[int]:
        solver = make_solver(name, QUICK[name] | settings | inner)
        result = solver(shadows(), prior(torch.float64), generator=generators([0, 1, 2]))
        return result.details["proximal_iterations"].amax(-1).tolist()

    assert max(iterations(**{most: 3, tolerance: 1e-12})) == 3
    assert max(iterations(**{most: 40, tolerance: 1e-12})) > 3
    assert max(iterations(**{most: 40, tolerance: 0.99})) <= 1


@each_of_rays
def test_what_is_known_of_a_measurement_is_taken_from_it(name: str) -> None:
    posed = shadows()
    known = torch.linspace(-0.2, 0.5, 13, dtype=torch.float64)
    plain = InverseProblem(posed.operator, posed.measurement, GaussianNoise(0.02))
    shifted = InverseProblem(posed.operator, posed.measurement + known, GaussianNoise(0.02), known)
    # MS-Flow's first sweeps enlarge what its inner solves leave undone.
    exact = {"max_iterations": 200, "cg_tolerance": 1e-10} if name == "ms-flow" else {}
    solver = make_solver(name, QUICK.get(name, {}) | exact)
    images = [
        solver(p, prior(torch.float64), generator=generators([0, 1, 2])).image for p in (plain, shifted)
    ]
    # Rounding may stop the inner solves of others an iteration earlier or later.
    assert float((images[1] - images[0]).norm()) < 0.02 * float(images[0].norm())


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
        ("xyz", {}, "no solver 'xyz'; known: .*cgls, .*flower, .*sirt, tv"),
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


@pytest.mark.parametrize("name", sorted(set(SOLVERS) - {"deep-image-prior", "rss", "grappa"}))
def test_volumes_with_a_prior_of_slices(name: str) -> None:
    detector = Detector((6, 8), 1.5)
    geometry = ConeBeam.circular(6, source_to_axis=30.0, source_to_detector=42.0, detector=detector)
    operator = RayTransform(geometry, ImageGrid((3, 4, 4), (1.5, 1.0, 1.2)))
    y = operator(torch.full((3, 4, 4), 0.02))
    few = {"steps", "iterations"} & set(inspect.signature(SOLVERS[name]).parameters)
    solver = make_solver(name, dict.fromkeys(few, 2))
    problem = InverseProblem(operator, y, GaussianNoise(0.01))
    result = solver(problem, image_prior(), generator=torch.Generator().manual_seed(0))
    assert result.image.shape == (3, 4, 4)
    assert bool(torch.isfinite(result.image).all())
    assert all(fit.shape == () for fit in result.history)
