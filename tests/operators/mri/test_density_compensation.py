"""Density compensation against areas that are known, and by what gridding makes of an image."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from operators.mri.density_compensation import pipe_menon, voronoi
from operators.mri.nonuniform import NonuniformFourier
from operators.mri.trajectories import golden_angle, radial, spiral


def grid(*shape: int) -> Tensor:
    lines = [torch.arange(-(n // 2), n - n // 2, dtype=torch.float64) for n in shape]
    return torch.stack(torch.meshgrid(*lines, indexing="ij"), -1)


@pytest.mark.parametrize("compensate", [voronoi, pipe_menon])
@pytest.mark.parametrize("shape", [(8, 8), (7, 10)])
def test_cells_of_the_grid_are_one(compensate: Callable[..., Tensor], shape: tuple[int, int]) -> None:
    weights = compensate(grid(*shape), shape)
    assert weights.shape == shape
    assert torch.allclose(weights.double(), torch.ones(shape).double(), atol=1e-3)


def test_areas_of_radial_cells() -> None:
    spokes, readout, n = 20, 32, 32
    weights = voronoi(radial(spokes, readout, n).frequencies, (n, n))
    # Half a turn of lines that begin at -n / 2: one sample a cycle, 2 spokes rays, pi k / spokes apart.
    radius = torch.arange(2, 12).double()
    middle = weights[:, readout // 2 + 2 : readout // 2 + 12]
    assert torch.allclose(middle, (math.pi / spokes * radius).expand(spokes, -1), rtol=0.02)
    # The sample at frequency 0 is shared by all lines, and its cell is a disc of radius 1/2.
    assert torch.allclose(
        weights[:, readout // 2], torch.full((spokes,), math.pi / 4 / spokes).double(), rtol=0.05
    )
    assert float(weights.sum()) == pytest.approx(math.pi * 16.5**2, rel=0.05)


@pytest.mark.parametrize("compensate", [voronoi, pipe_menon])
@pytest.mark.parametrize("path", [radial(60, 80, 32), golden_angle(60, 80, 32), spiral(8, 700, 32)])
def test_gridding_gives_the_image_in_its_units(compensate: Callable[..., Tensor], path) -> None:
    operator = NonuniformFourier((32, 32), path.frequencies)
    y, x = torch.meshgrid(*[torch.arange(-16, 16)] * 2, indexing="ij")
    image = torch.exp(-(x**2 + (y - 3) ** 2) / 30.0).to(torch.complex64)
    weights = compensate(path.frequencies, (32, 32))
    found = operator.adjoint(weights.to(torch.complex64) * operator(image))
    assert float((found - image).norm() / image.norm()) < 0.05
    assert float(weights.min()) >= 0


def test_samples_at_one_place_share_its_area() -> None:
    path = torch.cat([grid(6, 6).reshape(-1, 2), grid(6, 6).reshape(-1, 2)[:5]])
    weights = voronoi(path, (6, 6))
    assert torch.allclose(weights[:5], torch.full((5,), 0.5).double(), atol=1e-6)
    assert torch.allclose(weights[36:], weights[:5])
    assert float(weights.sum()) == pytest.approx(36, rel=1e-6)


def test_pipe_menon_in_three_dimensions() -> None:
    weights = pipe_menon(grid(4, 5, 6), (4, 5, 6), dtype=torch.float64)
    assert torch.allclose(weights, torch.ones(4, 5, 6).double(), atol=1e-6)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="expected samples that span a plane"):
        voronoi(torch.stack([torch.zeros(5), torch.arange(5.0)], -1), (10, 10))
    with pytest.raises(ValueError, match=r"expected 2 axes, found shape \(4, 4, 4, 3\)"):
        voronoi(grid(4, 4, 4), (4, 4, 4))
    with pytest.raises(ValueError, match="expected 3 axes, found 2"):
        pipe_menon(grid(4, 4), (3, 4, 4))
