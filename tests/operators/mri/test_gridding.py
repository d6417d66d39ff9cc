"""Gridding: its window, its grids, and that threads and samples at the edge change nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from operators.mri.gridding import ERROR, Gridding, _grid_size
from operators.mri.kaiser_bessel import WIDTH, shape_parameter, window, window_transform
from tests.operators.examples import random
from tests.operators.mri.exact_sums import exact_matrix, random_trajectory


@pytest.mark.parametrize("oversampling", [1.3, 2.0])
def test_the_transform_is_that_of_the_window(oversampling: float) -> None:
    beta = shape_parameter(oversampling)
    distances = np.linspace(-WIDTH / 2, WIDTH / 2, 20001)
    places = np.array([0.0, 0.1, 0.25, 0.5])
    waves = np.cos(2 * np.pi * np.outer(places, distances))
    integral = np.trapezoid(waves * window(distances, beta), distances)
    assert np.allclose(integral, window_transform(places, beta), rtol=0, atol=1e-5)


def test_grids_are_large_enough_and_smooth() -> None:
    for n in (1, 5, 64, 65, 200, 256, 311):
        size = _grid_size(n)
        assert size >= 1.3 * n
        assert size % 2 == 0
        assert max(p for p in range(2, size + 1) if size % p == 0 and all(p % q for q in range(2, p))) <= 7
    assert _grid_size(256) == 336


def test_error_of_noise_on_a_grid_that_is_little_larger() -> None:
    shape = (100, 90)
    path = random_trajectory(shape, 400)
    # Nyquist's frequencies wrap around the grid.
    path[:4] = torch.tensor([[-50.0, -45.0], [50.0, 45.0], [-50.0, 45.0], [49.9, -44.9]])
    x = random((3, *shape), torch.complex64)
    expected = torch.einsum("mab,nab->nm", exact_matrix(shape, path), x.to(torch.complex128))
    gridding = Gridding(shape, path)
    assert float((gridding.forward(x) - expected).norm() / expected.norm()) < ERROR
    back = torch.einsum("mab,nm->nab", exact_matrix(shape, path).conj(), expected)
    found = gridding.adjoint(expected.to(torch.complex64))
    assert float((found - back).norm() / back.norm()) < ERROR


@pytest.mark.parametrize("threads", [2, 5])
def test_values_do_not_depend_on_threads(threads: int) -> None:
    shape = (30, 70)
    gridding = Gridding(shape, random_trajectory(shape, 500))
    x, y = random((3, *shape), torch.complex64), random((3, 500), torch.complex64, 1)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        forward, adjoint = gridding.forward(x), gridding.adjoint(y)
        torch.set_num_threads(threads)
        assert torch.allclose(gridding.forward(x), forward, rtol=0, atol=1e-6)
        assert torch.allclose(gridding.adjoint(y), adjoint, rtol=0, atol=1e-6 * math.sqrt(500))
    finally:
        torch.set_num_threads(before)
