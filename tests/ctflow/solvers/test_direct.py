"""FBP as a solver."""

from __future__ import annotations

import pytest
import torch

from ctflow.problem import InverseProblem
from ctflow.solvers import FBP, Step
from operators.ct.filtered_backprojection import filtered_backprojection
from operators.ct.geometry import ConeBeam, Detector, ImageGrid, ParallelBeam
from operators.ct.ray_transform import RayTransform
from operators.linear import Identity
from operators.noise import GaussianNoise


def scan() -> tuple[RayTransform, torch.Tensor]:
    operator = RayTransform(ParallelBeam.uniform(24, Detector(23, 1.0)), ImageGrid((16, 16)))
    image = torch.zeros(2, 16, 16)
    image[0, 5:11, 4:12] = 0.02
    image[1, 3:8, 6:9] = 0.03
    return operator, image


@pytest.mark.parametrize("settings", [{}, {"filter": "hann", "cutoff": 0.7}])
def test_is_filtered_backprojection_without_the_background(settings: dict) -> None:
    operator, image = scan()
    clean = operator(image)
    seen: list[Step] = []
    problem = InverseProblem(operator, clean + 0.3, GaussianNoise(0.1), background=torch.tensor(0.3))
    result = FBP(**settings)(problem, callback=seen.append)
    assert torch.allclose(result.image, filtered_backprojection(operator, clean, **settings), atol=1e-6)
    assert result.image.shape == image.shape
    assert (seen[0].step, seen[0].total, len(seen)) == (1, 1, 1)
    assert result.solver == {"name": "fbp", "filter": "ram-lak", "cutoff": 1.0, **settings}


def test_volumes() -> None:
    geometry = ConeBeam.circular(
        90, source_to_axis=90.0, source_to_detector=150.0, detector=Detector((24, 40), 1.2)
    )
    operator = RayTransform(geometry, ImageGrid((8, 16, 16)))
    volume = torch.zeros(8, 16, 16)
    volume[:, 3:13, 3:13] = 0.02
    result = FBP()(InverseProblem(operator, operator(volume), GaussianNoise(0.1)))
    assert float(result.image[3:5, 6:10, 6:10].mean()) == pytest.approx(0.02, rel=0.01)


def test_other_operators_are_refused() -> None:
    problem = InverseProblem(Identity((4, 4)), torch.zeros(4, 4), GaussianNoise(1.0))
    with pytest.raises(ValueError, match=r"RayTransform, found Identity"):
        FBP()(problem)


def test_a_cutoff_is_a_fraction() -> None:
    with pytest.raises(ValueError, match=r"fbp: cutoff: expected above 0 and at most 1, found 1\.5"):
        FBP(cutoff=1.5)
