"""Trajectories: their unit, angles and accelerations."""

from __future__ import annotations

import math

import pytest
import torch

from operators.mri.nonuniform import NonuniformFourier
from operators.mri.sampling_pattern import Trajectory
from operators.mri.trajectories import golden_angle, radial, spiral


def test_radial_lines_cross_the_centre_at_equal_angles() -> None:
    path = radial(4, 8, (16, 32)).frequencies
    assert path.shape == (4, 8, 2)
    assert torch.equal(path[:, 4], torch.zeros(4, 2, dtype=torch.float64))
    assert torch.allclose(path[0], torch.stack([torch.zeros(8), torch.arange(-16, 16, 4)], -1).double())
    assert torch.allclose(path[2, :, 0], torch.arange(-8, 8, 2).double())
    around = radial(4, 8, 16, half_turn=False).frequencies
    assert torch.allclose(around[1, 0], torch.tensor([-8.0, 0.0]).double(), atol=1e-12)


def test_golden_angles() -> None:
    path = golden_angle(5, 10, 20).frequencies
    angles = torch.atan2(path[:, -1, 0], path[:, -1, 1])
    steps = torch.remainder(angles.diff(), math.pi)
    assert torch.allclose(torch.rad2deg(steps), torch.full((4,), 111.246118).double(), atol=1e-5)
    assert torch.allclose(golden_angle(2, 10, 20, start=3).frequencies, path[3:])
    tiny = golden_angle(3, 10, 20, tiny=7).frequencies
    turn = torch.rad2deg(torch.atan2(tiny[1, -1, 0], tiny[1, -1, 1]))
    assert float(turn) == pytest.approx(23.6281, abs=1e-4)


def test_arms_of_spirals_are_as_far_apart_as_asked() -> None:
    path = spiral(6, 3000, 48, acceleration=2.0).frequencies
    assert torch.equal(path[:, 0], torch.zeros(6, 2, dtype=torch.float64))
    radii = torch.linalg.vector_norm(path, dim=-1)
    assert torch.allclose(radii[:, -1], torch.full((6,), 24.0).double())
    # Along the positive x axis, all arms together cross every 2 cycles per field of view.
    angles = torch.atan2(path[..., 0], path[..., 1])
    crossings = radii[:, 1:][(angles[:, :-1] < 0) & (angles[:, 1:] >= 0) & (angles[:, 1:] < 1)].sort().values
    assert torch.allclose(crossings.diff(), torch.full((len(crossings) - 1,), 2.0).double(), atol=0.1)
    dense = spiral(6, 3000, 48, density=2.0).frequencies
    assert float(torch.linalg.vector_norm(dense, dim=-1).median()) < float(radii.median())


def test_operators_take_them() -> None:
    for path in (radial(5, 40, 20), golden_angle(5, 40, (20, 18)), spiral(5, 40, (17, 20))):
        operator = NonuniformFourier(path.image_shape, path.frequencies)
        assert operator.range_shape == (5, 40)


def test_accelerations_count_cells_of_k_space() -> None:
    full = radial(51, 64, 32)
    assert full.acceleration == pytest.approx(1, abs=0.05)
    few = golden_angle(13, 64, 32)
    assert few.acceleration > 2
    assert few.acceleration_outside > few.acceleration
    # Spokes leave gaps of a cell beyond the radius at which they are one cycle apart.
    assert few.calibration_radius == pytest.approx(13 / math.pi, rel=0.5)
    lines = [torch.arange(-4, 4).double()] * 2
    grid = Trajectory(torch.stack(torch.meshgrid(*lines, indexing="ij"), -1), (8, 8))
    assert (grid.acceleration, grid.acceleration_outside) == (1.0, 1.0)
    half = Trajectory(grid.frequencies[::2], (8, 8))
    assert half.acceleration == pytest.approx(2, rel=0.1)
    assert half.calibration_radius == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: radial(0, 8, 16), "spokes: expected more than 0, found 0"),
        (lambda: spiral(4, 8, 16, acceleration=-1), "acceleration: expected more than 0, found -1"),
        (
            lambda: golden_angle(4, 8, (4, 4, 4)),
            r"image_shape: expected \(height, width\), found \(4, 4, 4\)",
        ),
        (lambda: golden_angle(4, 8, 4, tiny=0), "tiny: expected 1 or more, found 0"),
    ],
)
def test_what_cannot_be_is_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]
