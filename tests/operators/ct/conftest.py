"""Fixtures of the ray transform's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor

import pytest
import torch
from torch import Tensor

from operators import ImageGrid
from operators.ct.geometry import Geometry
from tests.operators.ct import interpreted

Project = Callable[[Geometry, ImageGrid, Tensor, Tensor], tuple[Tensor, Tensor]]


@pytest.fixture(scope="session")
def interpreter() -> Iterator[Executor]:
    with interpreted.interpreter() as pool:
        yield pool


@pytest.fixture(params=["interpreted", pytest.param("cuda", marks=pytest.mark.gpu)])
def project(request: pytest.FixtureRequest) -> Project:
    """Forward of images and adjoint of sinograms by projector "triton", interpreted or on a GPU."""

    def run(geometry: Geometry, grid: ImageGrid, images: Tensor, sinograms: Tensor) -> tuple[Tensor, Tensor]:
        arguments = geometry, grid, images.numpy(), sinograms.numpy()
        if request.param == "cuda":
            forward, adjoint = interpreted.project(*arguments, device="cuda")
        else:
            pool: Executor = request.getfixturevalue("interpreter")
            forward, adjoint = pool.submit(interpreted.project, *arguments).result()
        return torch.from_numpy(forward), torch.from_numpy(adjoint)

    return run
