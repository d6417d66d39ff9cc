"""The engines: against closed forms and each other, the exactness of transposes, threads and forks."""

from __future__ import annotations

import copy
import math
import multiprocessing
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from operators import Detector, ImageGrid, ParallelBeam, RayTransform
from operators.ct.projectors import joseph_cpu
from operators.ct.projectors.astra_engine import slice_geometry
from operators.ct.projectors.joseph_cpu import JosephProjector
from tests.operators.ct.ellipses import phantom_image, phantom_sinogram

ENGINES = ("joseph", "astra", "odl")


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest) -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def random(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.rand(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def distance(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def by_definition(geometry: ParallelBeam, grid: ImageGrid) -> np.ndarray:
    """Joseph's method as the textbook has it: one ray, one row, one pixel at a time; (views, bins, h, w)."""
    x, y = grid.coordinates()
    height, width = grid.shape
    weights = np.zeros((*geometry.sinogram_shape, height, width))
    for view, theta in enumerate(geometry.angles):
        cosine, sine = math.cos(theta), math.sin(theta)
        steep = abs(sine) * grid.pixel_height < abs(cosine) * grid.pixel_width
        for k, t in enumerate(geometry.detector.positions()):
            for step in range(height if steep else width):
                if steep:
                    place = ((t - y[step] * sine) / cosine - x[0]) / grid.pixel_width
                    length = grid.pixel_height / abs(cosine)
                else:
                    place = (y[0] - (t - x[step] * cosine) / sine) / grid.pixel_height
                    length = grid.pixel_width / abs(sine)
                low = math.floor(place)
                for index, weight in ((low, 1 - (place - low)), (low + 1, place - low)):
                    if 0 <= index < (width if steep else height):
                        pixel = (step, index) if steep else (index, step)
                        weights[(view, k, *pixel)] += weight * length
    return weights


@pytest.mark.parametrize(
    ("shape", "pixel_size", "center", "offset"),
    [
        ((6, 6), 1.0, (0.0, 0.0), 0.0),
        ((5, 8), (1.3, 0.6), (1.0, -2.0), 0.4),
        ((9, 3), (0.2, 1.7), (0.0, 0.0), -0.9),
        ((1, 1), 1.0, (0.0, 0.0), 0.0),
    ],
)
def test_joseph_has_the_textbook_weights(
    shape: tuple[int, int], pixel_size: Any, center: tuple[float, float], offset: float
) -> None:
    geometry = ParallelBeam([0.0, 0.3, 1.0, math.pi / 2, 2.0, 2.9, -0.5, 4.0], Detector(11, 0.9, offset))
    grid = ImageGrid(shape, pixel_size, center)
    weights = torch.from_numpy(by_definition(geometry, grid))
    image, sinogram = random(3, *shape, dtype=torch.float64), random(3, 8, 11, dtype=torch.float64)
    engine = JosephProjector(geometry, grid)
    forward = torch.einsum("vkhw,nhw->nvk", weights, image)
    adjoint = torch.einsum("vkhw,nvk->nhw", weights, sinogram)
    torch.testing.assert_close(engine.forward(image), forward, rtol=0, atol=1e-10)
    torch.testing.assert_close(engine.adjoint(sinogram), adjoint, rtol=0, atol=1e-10)


@pytest.mark.parametrize("engine", ["astra", "odl"])
@pytest.mark.parametrize(
    ("shape", "center", "angles"),
    [
        ((32, 32), (0.0, 0.0), np.arange(40) * math.pi / 40),
        ((31, 38), (2.0, -3.0), np.sort(np.random.default_rng(0).uniform(-1, 6, 30))),
        ((17, 16), (0.0, 0.0), [0.7]),
    ],
)
def test_engines_agree_with_joseph(
    engine: str, shape: tuple[int, int], center: tuple[float, float], angles: Any
) -> None:
    geometry, grid = ParallelBeam(angles, Detector(61, 0.6)), ImageGrid(shape, 0.7, center)
    ours, theirs = RayTransform(geometry, grid, "joseph"), RayTransform(geometry, grid, engine)
    image, sinogram = random(2, *shape), random(2, *geometry.sinogram_shape)
    assert distance(theirs(image), ours(image)) < 1e-5
    assert distance(theirs.adjoint(sinogram), ours.adjoint(sinogram)) < 1e-5


def test_astra_and_joseph_agree_on_a_shifted_detector() -> None:
    geometry, grid = ParallelBeam.uniform(20, Detector(40, 1.0, offset=3.3)), ImageGrid((24, 24))
    image = random(24, 24)
    assert distance(RayTransform(geometry, grid, "astra")(image), RayTransform(geometry, grid)(image)) < 1e-5


@pytest.mark.parametrize("angle", [math.pi / 4, 3 * math.pi / 4, -math.pi / 4])
def test_ties_between_rows_and_columns_go_as_in_astra(angle: float) -> None:
    geometry, grid = ParallelBeam([angle], Detector(31, 0.8)), ImageGrid((16, 16))
    image = random(16, 16)
    assert distance(RayTransform(geometry, grid, "astra")(image), RayTransform(geometry, grid)(image)) < 1e-5


@pytest.mark.parametrize("engine", ENGINES)
def test_errors_against_ellipses_fall_with_the_pixel_size(engine: str) -> None:
    geometry = ParallelBeam.uniform(24, Detector(80, 0.6), start=0.03)
    expected = phantom_sinogram(geometry)
    errors = []
    for size in (24, 48, 96, 192):
        grid = ImageGrid((size, size), 48 / size)
        found = RayTransform(geometry, grid, engine)(phantom_image(grid).float())
        errors.append(distance(found.double(), expected))
    assert all(later < 0.65 * sooner for sooner, later in pairwise(errors))
    assert errors[-1] < 5e-3


@pytest.mark.parametrize("pixel_size", [(0.5, 0.25), (0.2, 0.6)])
def test_ellipses_in_pixels_that_are_not_square(pixel_size: tuple[float, float]) -> None:
    geometry = ParallelBeam.uniform(24, Detector(80, 0.6), start=0.03)
    grid = ImageGrid((round(48 / pixel_size[0]), round(48 / pixel_size[1])), pixel_size)
    found = RayTransform(geometry, grid)(phantom_image(grid))
    assert distance(found, phantom_sinogram(geometry)) < 1e-2


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-13)])
@pytest.mark.parametrize("shape", [(32, 45), (1, 50), (37, 1), (1, 1)])
@pytest.mark.parametrize("batch", [1, 3, 8, 17])
def test_joseph_adjoint_is_the_transpose(
    dtype: torch.dtype, tolerance: float, shape: tuple[int, int], batch: int
) -> None:
    geometry = ParallelBeam.uniform(21, Detector(33, 1.7, 0.4), span=7.0)
    engine = JosephProjector(geometry, ImageGrid(shape, (1.1, 0.9)))
    x = random(batch, *shape, dtype=dtype) - 0.5
    y = random(batch, 21, 33, dtype=dtype) - 0.5
    forward, back = engine.forward(x).double(), engine.adjoint(y).double()
    assert abs((forward * y).sum() - (x * back).sum()) <= tolerance * forward.norm() * y.norm()


@pytest.mark.parametrize("batch", [1, 2, 5, 8, 16, 19])
def test_joseph_batch_is_the_loop_to_the_last_bit(batch: int) -> None:
    engine = JosephProjector(ParallelBeam.uniform(9, Detector(20, 1.0)), ImageGrid((15, 13)))
    images, sinograms = random(batch, 15, 13), random(batch, 9, 20)
    torch.testing.assert_close(
        engine.forward(images), torch.cat([engine.forward(x[None]) for x in images]), rtol=0, atol=0
    )
    torch.testing.assert_close(
        engine.adjoint(sinograms), torch.cat([engine.adjoint(y[None]) for y in sinograms]), rtol=0, atol=0
    )


def test_joseph_does_not_depend_on_threads_or_blocks(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = JosephProjector(ParallelBeam.uniform(50, Detector(90, 1.0)), ImageGrid((70, 64)))
    image, sinogram = random(2, 70, 64, dtype=torch.float64), random(2, 50, 90, dtype=torch.float64)
    torch.set_num_threads(1)
    forward, adjoint = engine.forward(image), engine.adjoint(sinogram)
    torch.set_num_threads(threads)
    torch.testing.assert_close(engine.forward(image), forward, rtol=0, atol=0)
    torch.testing.assert_close(engine.adjoint(sinogram), adjoint, rtol=0, atol=0)
    monkeypatch.setattr(joseph_cpu, "_block", lambda row_bytes: 7)
    torch.testing.assert_close(engine.forward(image), forward, rtol=1e-13, atol=0)


@pytest.mark.parametrize("engine", ENGINES)
def test_empty_batches_are_empty(engine: str) -> None:
    operator = RayTransform(ParallelBeam.uniform(3, Detector(5, 1.0)), ImageGrid((4, 6)), engine)
    assert operator(torch.zeros(0, 4, 6)).shape == (0, 3, 5)
    assert operator.adjoint(torch.zeros(2, 0, 3, 5)).shape == (2, 0, 4, 6)


@pytest.mark.parametrize("engine", ENGINES)
def test_one_operator_serves_several_threads_at_once(engine: str, threads: int) -> None:
    operator = RayTransform(ParallelBeam.uniform(30, Detector(45, 1.0)), ImageGrid((32, 32)), engine)
    images = [random(3, 32, 32, seed=seed) for seed in range(12)]
    expected = [(y := operator(x), operator.adjoint(y)) for x in images]

    def both(x: Tensor) -> tuple[Tensor, Tensor]:
        return (y := operator(x)), operator.adjoint(y)

    with ThreadPoolExecutor(4) as pool:
        for found, wanted in zip(pool.map(both, images * 3), expected * 3, strict=True):
            torch.testing.assert_close(found, wanted, rtol=0, atol=0)


def _project_in_child(operator: RayTransform, image: Tensor, answers: Any) -> None:
    answers.put(operator.adjoint(operator(image)).numpy())


def test_joseph_works_after_a_fork(threads: int) -> None:
    operator = RayTransform(ParallelBeam.uniform(30, Detector(45, 1.0)), ImageGrid((32, 32)), "joseph")
    image = random(3, 32, 32)
    expected = operator.adjoint(operator(image))  # threads exist before the fork
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    children = [context.Process(target=_project_in_child, args=(operator, image, answers)) for _ in range(2)]
    for child in children:
        child.start()
    found = [answers.get(timeout=60) for _ in children]
    for child in children:
        child.join(timeout=60)
        assert child.exitcode == 0
    for array in found:
        torch.testing.assert_close(torch.from_numpy(array), expected, rtol=0, atol=0)


@pytest.mark.parametrize("engine", ENGINES)
def test_copies_and_pickles_work(engine: str) -> None:
    operator = RayTransform(ParallelBeam.uniform(3, Detector(5, 1.0)), ImageGrid((4, 4)), engine)
    image = random(4, 4)
    expected = operator(image)
    torch.testing.assert_close(copy.deepcopy(operator)(image), expected, rtol=0, atol=0)
    torch.testing.assert_close(pickle.loads(pickle.dumps(operator))(image), expected, rtol=0, atol=0)


def test_astra_projectors_are_deleted_with_their_operator() -> None:
    astra = import_module("astra")
    operator = RayTransform(ParallelBeam.uniform(3, Detector(5, 1.0)), ImageGrid((4, 4)), "astra")
    operator(random(4, 4))
    number = operator._engines["astra"]._handle().id  # type: ignore[attr-defined]
    assert astra.projector.projection_geometry(number)["DetectorCount"] == 5
    del operator
    with pytest.raises(astra.log.AstraError, match="not found"):
        astra.projector.projection_geometry(number)


def test_astra_slices_are_seen_where_our_images_are() -> None:
    """The CUDA path cannot run here; its geometry can be checked by hand, with y growing with the row."""
    geometry = ParallelBeam([0.0, 0.4, 2.0, -1.0], Detector(9, 0.7, offset=0.3))
    grid = ImageGrid((4, 6), 0.5, center=(1.0, -2.0))
    projection, volume = slice_geometry(geometry, grid, slices=3)
    vectors, window = projection["Vectors"], volume["option"]
    assert (volume["GridSliceCount"], volume["GridRowCount"], volume["GridColCount"]) == (3, 4, 6)
    assert (projection["DetectorRowCount"], projection["DetectorColCount"]) == (3, 9)
    x, y = grid.coordinates()
    astra_x = window["WindowMinX"] + (np.arange(6) + 0.5) * 0.5
    astra_y = window["WindowMinY"] + (np.arange(4) + 0.5) * 0.5
    for (ray, middle, step), theta in zip(vectors[:, :9].reshape(-1, 3, 3), geometry.angles, strict=True):
        assert abs(ray @ step) < 1e-12
        for row, column in np.ndindex(4, 6):
            place = np.array([astra_x[column], astra_y[row], 0.0]) - middle
            seen = (place @ step) / (step @ step)  # bins from the middle of the detector
            t = x[column] * math.cos(theta) + y[row] * math.sin(theta)
            assert seen * 0.7 + 0.3 == pytest.approx(t, abs=1e-12)
    np.testing.assert_allclose(vectors[:, 9:], [[0, 0, 0.5]] * 4)
    assert window["WindowMaxZ"] - window["WindowMinZ"] == pytest.approx(3 * 0.5)


def test_rectangles_are_refused_where_they_would_be_wrong() -> None:
    geometry, grid = ParallelBeam.uniform(3, Detector(5, 1.0)), ImageGrid((4, 4), (1.0, 2.0))
    for engine, message in (
        ("astra", 'projector "astra": expected square'),
        ("odl", "to_odl: expected square"),
    ):
        with pytest.raises(ValueError, match=f"{message} pixels, found 1 x 2 mm"):
            RayTransform(geometry, grid, engine)


@pytest.mark.parametrize("engine", ["astra", "odl"])
def test_single_precision_engines_refuse_double(engine: str) -> None:
    operator = RayTransform(ParallelBeam.uniform(3, Detector(5, 1.0)), ImageGrid((4, 4)), engine)
    with pytest.raises(ValueError, match=r"expected dtype torch\.float32, found torch\.float64"):
        operator(torch.zeros(4, 4, dtype=torch.float64))


@pytest.mark.parametrize(("engine", "package"), [("astra", "astra"), ("odl", "odl")])
def test_a_missing_package_is_named_with_its_command(
    engine: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError, match=r"not installed: pip install") as caught:
        RayTransform(ParallelBeam.uniform(3, Detector(5, 1.0)), ImageGrid((4, 4)), engine)
    assert "\n" not in str(caught.value)
    assert f'projector "{engine}"' in str(caught.value)


def test_engines_refuse_other_devices() -> None:
    geometry, grid = ParallelBeam.uniform(3, Detector(5, 1.0)), ImageGrid((4, 4))
    with pytest.raises(ValueError, match='projector "joseph": expected a CPU tensor, found one on meta'):
        RayTransform(geometry, grid, "joseph")(torch.zeros(4, 4, device="meta"))
    with pytest.raises(ValueError, match=r'projector "odl": expected torch\.float32 on cpu'):
        RayTransform(geometry, grid, "odl")(torch.zeros(4, 4, device="meta"))
    with pytest.raises(
        ValueError, match='projector "astra": expected a CPU or CUDA tensor, found one on meta'
    ):
        RayTransform(geometry, grid, "astra")(torch.zeros(4, 4, device="meta"))
