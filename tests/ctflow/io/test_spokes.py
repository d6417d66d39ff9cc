"""Radial acquisitions: what trajectories become, in any unit, and which are refused."""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ctflow.io.errors import ScanError
from ctflow.io.mr_scan import MRScan
from ctflow.io.scan import open_scan
from operators.mri.nonuniform import NonuniformFourier
from tests.ctflow.io.measured_kspace import (
    Acquisition,
    complex_noise,
    head_image,
    header,
    smooth_maps,
    write_ismrmrd,
)

COILS, SIZE, SPOKES = 3, 32, 40
XML = header((SIZE, SIZE, 1), (SIZE, SIZE, 1), trajectory="radial")
IMAGE, MAPS = head_image(SIZE, SIZE)[0], smooth_maps(COILS, SIZE, SIZE)


def radial(turned: float = 0.0) -> torch.Tensor:
    """Spokes through the centre, (spokes, samples, (y, x)) in cycles per field of view."""
    angles = math.pi * torch.arange(SPOKES) / SPOKES + turned
    along = torch.arange(-SIZE / 2, SIZE / 2, 0.5)
    return along[None, :, None] * torch.stack((angles.sin(), angles.cos()), -1)[:, None]


def acquisitions(factor: float, turned: float = 0.0, **idx: int) -> list[Acquisition]:
    trajectory = radial(turned)
    operator = NonuniformFourier((SIZE, SIZE), trajectory, torch.from_numpy(MAPS))
    samples = operator(torch.from_numpy(IMAGE)).numpy()
    samples = samples + 1e-3 * complex_noise(samples.shape)
    head = {"trajectory_dimensions": 2}
    return [
        Acquisition(
            samples[:, k],
            head=dict(head),
            idx={"kspace_encode_step_1": k, **idx},
            places=factor * trajectory[k].numpy()[:, ::-1],
        )
        for k in range(SPOKES)
    ]


def opened(path: Path, lines: list[Acquisition], xml: str = XML, **arguments: Any) -> MRScan:
    write_ismrmrd(path / "scan.h5", lines, xml)
    scan = open_scan(path / "scan.h5", **arguments)
    assert isinstance(scan, MRScan)
    return scan


@pytest.mark.parametrize(
    ("factor", "unit"),
    [
        (1.0, "cycles per field of view"),
        (1 / SIZE, "cycles per pixel"),
        (2 * math.pi / SIZE, "radians per pixel"),
    ],
)
def test_trajectories_in_any_unit(tmp_path: Path, factor: float, unit: str) -> None:
    lines = acquisitions(factor)
    lines[3].samples, lines[3].places = lines[3].samples[:, ::-1], lines[3].places[::-1]
    lines[3].flags = (22,)
    lines.reverse()
    scan = opened(tmp_path, lines, noise_std=1e-3)
    problem = scan[0]
    assert isinstance(problem.operator, NonuniformFourier)
    torch.testing.assert_close(problem.operator.trajectory.float(), radial(), atol=1e-4, rtol=1e-4)
    image = torch.from_numpy(IMAGE)
    found = problem.operator.solve(problem.measurement, max_iterations=15).x
    # Maps are estimated: up to a smooth phase.
    assert float((found.abs() - image.abs()).norm() / image.norm()) < 0.15
    described = scan.describe()
    assert described["trajectory"] == "radial"
    assert (described["readouts"], described["samples_a_readout"]) == (SPOKES, 2 * SIZE)
    assert f"unit of trajectories: {unit}" in described["assumed"][0]
    assert described["problems"] == []
    again = pickle.loads(pickle.dumps(scan))
    assert torch.equal(again[0].measurement, problem.measurement)


def test_slices_that_share_a_trajectory_and_others(tmp_path: Path) -> None:
    same = [*acquisitions(1.0), *acquisitions(1.0, slice=1)]
    scan = opened(tmp_path, same, coil_maps="none", noise_std=1e-3)
    assert scan[0:2].measurement.shape == (2, COILS, SPOKES, 2 * SIZE)
    assert scan.together([scan[0], scan[1]]).batch_shape == (2,)
    turned = [*acquisitions(1.0), *acquisitions(1.0, 0.02, slice=1)]
    scan = opened(tmp_path, turned, coil_maps="none", noise_std=1e-3)
    with pytest.raises(
        ScanError, match=r"expected slices that share one, .* of their own; take them one by on"
    ):
        _ = scan[0:2]
    torch.testing.assert_close(scan[1].operator.trajectory.float(), radial(0.02), atol=1e-4, rtol=1e-4)
    assert scan.together([scan[0], scan[1]]).batch_shape == ()


def test_the_noise_is_that_of_the_ends_of_spokes(tmp_path: Path) -> None:
    lines = acquisitions(1.0)
    for k, line in enumerate(lines):
        line.samples = line.samples + complex_noise(line.samples.shape, k)
    scan = opened(tmp_path, lines, coil_maps="none")
    np.testing.assert_allclose(scan[0].noise.std.flatten(), 1, rtol=0.15)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"places": np.zeros((3, 2), np.float32)}, "acquisition 5 traj: expected 64 places of 2 dimensions"),
        ({"places": np.full((64, 2), np.nan, np.float32)}, "acquisition 5 traj: expected finite numbers"),
        ({"places": np.full((64, 2), 99, np.float32)}, "traj: expected at most 16 cycles per field of view"),
        ({"samples": np.ones((COILS, 60))}, "number_of_samples: expected one number, found 60 to 64"),
        (
            {"head": {"trajectory_dimensions": 3}},
            "expected 64 places of 2 dimensions, found 128 numbers of 3",
        ),
    ],
)
def test_bad_trajectories(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    lines = acquisitions(1.0)
    for name, value in change.items():
        setattr(lines[5], name, value)
    with pytest.raises(ScanError, match=message):
        _ = opened(tmp_path, lines)[0]
