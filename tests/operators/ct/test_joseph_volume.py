"""Our projector in space: against definitions, closed forms, two dimensions and itself."""

from __future__ import annotations

import math
import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from operators import (
    ConeBeam,
    Detector,
    HelicalConeBeam,
    ImageGrid,
    ParallelBeam,
    ParallelBeam3D,
    RayTransform,
)
from operators.ct.projectors.joseph_volume import JosephVolumeProjector
from tests.operators.ct.ellipsoids import Ellipsoid, phantom_sinogram, phantom_volume, ray_lines

FLAT = Detector((14, 20), (3.1, 2.9), (0.4, -0.7))
CURVED = Detector((14, 20), (3.1, 2.9), (0.4, 0.7), curved=True)
DISTANCES = {"source_to_axis": 60.0, "source_to_detector": 85.0}
GEOMETRIES = {
    "parallel": ParallelBeam3D.uniform(7, FLAT, start=0.1),
    "laminography": ParallelBeam3D.uniform(7, FLAT, tilt=0.6),
    "cone": ConeBeam.circular(7, detector=FLAT, start=0.3, **DISTANCES),
    "curved": ConeBeam.circular(7, detector=CURVED, **DISTANCES),
    "turned": ConeBeam.circular(7, detector=FLAT, rotation=0.3, tilt=0.2, **DISTANCES),
    "curved and turned": ConeBeam.circular(7, detector=CURVED, rotation=0.3, tilt=0.2, **DISTANCES),
    "helical": HelicalConeBeam.uniform(8, 2.5, detector=CURVED, pitch=6.0, z_start=-8.0, **DISTANCES),
    "steep": ConeBeam.from_vectors([[3, -2, 50, 0, 0, -20, 2, 0, 0, 0, 2, 0]], (14, 20)),
}
each_geometry = pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES.keys())


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


def by_definition(geometry: Any, grid: ImageGrid, volume: np.ndarray) -> np.ndarray:
    """Joseph's method as the textbook has it: one ray, one plane at a time, for one volume."""
    axes = [np.asarray(axis) for axis in grid.coordinates()]
    by_axis = volume.transpose(2, 1, 0)  # x, y, z
    firsts, steps = np.array([a[0] for a in axes]), np.array(grid.pixel_size)[::-1] * (1, -1, 1)
    points, directions = ray_lines(geometry)
    sums = np.zeros(geometry.sinogram_shape)
    for ray in np.ndindex(geometry.sinogram_shape):
        start, to = (points[ray] - firsts) / steps, directions[ray] / steps
        march = int(np.argmax(np.abs(to) * (1, 1 - 1e-7, 1 - 2e-7)))
        others = [axis for axis in range(3) if axis != march]
        for plane in range(by_axis.shape[march]):
            place = start + to * ((plane - start[march]) / to[march])
            low = np.floor(place).astype(int)
            for corner in np.ndindex(2, 2):
                voxel, weight = [0, 0, 0], 1 / abs(to[march])
                voxel[march] = plane
                for axis, upper in zip(others, corner, strict=True):
                    voxel[axis] = low[axis] + upper
                    part = place[axis] - low[axis]
                    weight *= part if upper else 1 - part
                if all(0 <= v < n for v, n in zip(voxel, by_axis.shape, strict=True)):
                    sums[ray] += weight * by_axis[tuple(voxel)]
    return sums


@each_geometry
def test_weights_are_those_of_the_textbook(geometry: Any) -> None:
    few = geometry.with_detector(
        Detector((5, 6), (4.0, 5.0), (0.4, 0.7), curved=geometry.detector.curved)
    ).subset(slice(0, 4))
    grid = ImageGrid((5, 6, 7), (3.0, 2.5, 2.0), (0.5, -1.0, 0.3))
    volume = random(5, 6, 7, dtype=torch.float64)
    expected = by_definition(few, grid, volume.numpy())
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(RayTransform(few, grid)(volume).numpy(), expected, atol=1e-9)


@each_geometry
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-13)])
def test_adjoint_is_the_transpose(geometry: Any, dtype: torch.dtype, tolerance: float, threads: int) -> None:
    operator = RayTransform(geometry, ImageGrid((17, 24, 21), (2.0, 1.3, 1.6)))
    x = random(2, 17, 24, 21, dtype=dtype) - 0.5
    y = random(2, *geometry.sinogram_shape, dtype=dtype, seed=1) - 0.5
    forward, back = operator(x).double(), operator.adjoint(y).double()
    assert abs((forward * y).sum() - (x * back).sum()) <= tolerance * forward.norm() * y.norm()


@each_geometry
def test_values_do_not_depend_on_the_threads(geometry: Any) -> None:
    operator = RayTransform(geometry, ImageGrid((17, 24, 21), 1.7))
    x, y = random(17, 24, 21), random(*geometry.sinogram_shape)
    before, answers = torch.get_num_threads(), []
    try:
        for number in (1, 2, 5):
            torch.set_num_threads(number)
            answers.append((operator(x), operator.adjoint(y)))
    finally:
        torch.set_num_threads(before)
    for answer in answers[1:]:
        torch.testing.assert_close(answer, answers[0], rtol=0, atol=0)


@pytest.mark.parametrize("name", ["parallel", "cone", "curved", "helical"])
def test_both_kinds_of_kernels_have_the_same_weights(name: str) -> None:
    geometry, grid = GEOMETRIES[name], ImageGrid((17, 24, 21), (2.0, 1.3, 1.6))
    quick, general = JosephVolumeProjector(geometry, grid), JosephVolumeProjector(geometry, grid)
    assert quick._others.size == 0
    general._others, general._upright = quick._upright, quick._others
    x = random(1, 17, 24, 21, dtype=torch.float64)
    y = random(1, *geometry.sinogram_shape, dtype=torch.float64)
    torch.testing.assert_close(general.forward(x), quick.forward(x), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(general.adjoint(y), quick.adjoint(y), rtol=1e-9, atol=1e-9)


@each_geometry
def test_errors_against_ellipsoids_fall_with_the_voxel_size(geometry: Any) -> None:
    expected = phantom_sinogram(geometry)
    errors = []
    for size in (12, 24, 48):
        grid = ImageGrid((size, size, size), (34 / size, 40 / size, 40 / size))
        errors.append(distance(RayTransform(geometry, grid)(phantom_volume(grid)), expected))
    assert all(later < 0.6 * sooner for sooner, later in pairwise(errors))
    assert errors[-1] < 0.03


def test_a_row_over_one_slice_is_a_parallel_beam() -> None:
    angles = [0.0, 0.3, math.pi / 4, math.pi / 2, 2.0, 2.9, -0.5, 4.0]
    plane = RayTransform(
        ParallelBeam(angles, Detector(21, 0.8, 0.3)), ImageGrid((9, 8), (0.9, 1.1), (0.3, -0.2))
    )
    space = RayTransform(
        ParallelBeam3D(angles, Detector((1, 21), (2.0, 0.8), (0.0, 0.3))),
        ImageGrid((1, 9, 8), (2.0, 0.9, 1.1), (0.3, -0.2, 0.0)),
    )
    image = random(9, 8, dtype=torch.float64)
    torch.testing.assert_close(space(image[None])[:, 0], plane(image), rtol=0, atol=1e-10)


@pytest.mark.parametrize("curved", [False, True])
def test_a_distant_source_makes_parallel_rays(curved: bool) -> None:
    angles, detector = (
        [0.0, 0.3, 1.0, 2.0, 3.0, 4.5],
        Detector((5, 15), (1.0, 0.8), (0.2, 0.3), curved=curved),
    )
    grid = ImageGrid((6, 9, 8), (1.0, 0.9, 1.1), (0.3, -0.2, 0.1))
    cone = ConeBeam.circular(
        angles=angles, source_to_axis=1e6, source_to_detector=1e6 + 10, detector=detector
    )
    parallel = ParallelBeam3D(angles, Detector((5, 15), (1.0, 0.8), (0.2, 0.3)))
    volume = random(6, 9, 8, dtype=torch.float64)
    assert distance(RayTransform(cone, grid)(volume), RayTransform(parallel, grid)(volume)) < 1e-4


def test_a_ball_appears_where_the_convention_says() -> None:
    """At angle 0 bins grow with x and rows with z, larger by the magnification."""
    ball, grid = Ellipsoid((3.0, 0.0, -4.0), (1.5, 1.5, 1.5)), ImageGrid((24, 24, 24), 1.0)
    detector = Detector((60, 60), 0.5)
    cone = ConeBeam.circular(1, source_to_axis=100.0, source_to_detector=150.0, detector=detector)
    view = RayTransform(cone, grid)(ball.image(grid))[0]
    across = float((view.sum(1) * torch.from_numpy(detector.row_positions())).sum() / view.sum())
    along = float((view.sum(0) * torch.from_numpy(detector.positions())).sum() / view.sum())
    assert (along, across) == pytest.approx((1.5 * 3, 1.5 * -4), abs=0.02)


def test_rays_from_a_quarter_turn_see_the_other_side() -> None:
    """At pi / 2 the source is at x = R: what is near it, at large x, is magnified more."""
    grid = ImageGrid((9, 21, 21), 1.0)
    cone = ConeBeam.circular(
        angles=[math.pi / 2], source_to_axis=40.0, source_to_detector=60.0, detector=Detector((40, 90), 0.7)
    )
    shadows = []
    for x in (-6.0, 6.0):
        view = RayTransform(cone, grid)(Ellipsoid((x, 4.0, 0.0), (2.0, 2.0, 2.0)).image(grid))[0]
        bins = torch.from_numpy(cone.detector.positions())
        shadows.append(float((view.sum(0) * bins).sum() / view.sum()))
    assert shadows == pytest.approx([4.0 * 60 / 46, 4.0 * 60 / 34], abs=0.1)


def test_lengths_are_in_mm() -> None:
    """A ray along 8 voxels of 0.5 mm with attenuation 0.02/mm has the line integral 0.08."""
    geometry = ParallelBeam3D([0.0, math.pi / 2], Detector((3, 4), 0.5))
    torch.testing.assert_close(
        RayTransform(geometry, ImageGrid((3, 8, 8), 0.5))(torch.full((3, 8, 8), 0.02)),
        torch.full((2, 3, 4), 0.08),
    )


def test_one_operator_serves_several_threads_at_once(threads: int) -> None:
    operator = RayTransform(GEOMETRIES["turned"], ImageGrid((9, 12, 11), 2.0))
    volumes = [random(9, 12, 11, seed=seed) for seed in range(6)]

    def both(x: Tensor) -> tuple[Tensor, Tensor]:
        return (y := operator(x)), operator.adjoint(y)

    expected = [both(x) for x in volumes]
    with ThreadPoolExecutor(4) as pool:
        for found, wanted in zip(pool.map(both, volumes), expected, strict=True):
            torch.testing.assert_close(found, wanted, rtol=0, atol=0)


def _project_in_child(operator: RayTransform, volume: Tensor, answers: Any) -> None:
    answers.put(operator.adjoint(operator(volume)).numpy())


def test_it_works_after_a_fork() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        operator = RayTransform(GEOMETRIES["cone"], ImageGrid((9, 12, 11), 2.0), "joseph")
        volume = random(9, 12, 11)
        expected = operator.adjoint(operator(volume))  # threads exist before the fork
        context = multiprocessing.get_context("fork")
        answers = context.Queue()
        child = context.Process(target=_project_in_child, args=(operator, volume, answers))
        child.start()
        found = answers.get(timeout=60)
        child.join(timeout=60)
    finally:
        torch.set_num_threads(before)
    assert child.exitcode == 0
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=0, atol=0)


def test_other_devices_and_planes_are_refused() -> None:
    operator = RayTransform(GEOMETRIES["cone"], ImageGrid((4, 4, 4)), "joseph")
    with pytest.raises(ValueError, match='projector "joseph": expected a CPU tensor, found one on meta'):
        operator(torch.zeros(4, 4, 4, device="meta"))
    with pytest.raises(ValueError, match="expected 3 dimensions for a ConeBeam, found 4 x 4 pixels"):
        RayTransform(GEOMETRIES["cone"], ImageGrid((4, 4)))
    with pytest.raises(ValueError, match='projector "odl" cannot compute a ConeBeam; these can: joseph'):
        RayTransform(GEOMETRIES["cone"], ImageGrid((4, 4, 4)), "odl")


def test_a_source_inside_the_volume_is_refused() -> None:
    grid = ImageGrid((40, 200, 200), 1.0)
    message = r"ConeBeam: expected sources outside the image, found the source of view 0 at \(0, -60, 0\) mm"
    with pytest.raises(ValueError, match=message):
        RayTransform(ConeBeam.circular(7, detector=FLAT, **DISTANCES), grid)
