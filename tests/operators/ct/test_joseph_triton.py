"""The Triton engine in the plane: against the CPU engine, its exact transpose, and what it refuses."""

from __future__ import annotations

import copy
import math
import pickle
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from operators import Detector, FanBeam, ImageGrid, ParallelBeam, RayTransform
from operators.ct.geometry import Geometry
from tests.operators.ct.conftest import Project
from tests.operators.ct.interpreted import Recorder, compiled

needs_triton = pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"),
    reason="Triton is published for Linux on x86-64, where these tests always run",
)
SCAN = ParallelBeam.uniform(3, Detector(5, 1.0)), ImageGrid((4, 4))
GRID = ImageGrid((9, 10))
CASES = {
    "odd": (ParallelBeam.uniform(7, Detector(13, 1.0)), ImageGrid((9, 7))),
    "even": (ParallelBeam.uniform(6, Detector(12, 1.0), start=0.1), ImageGrid((8, 10))),
    "shifted": (ParallelBeam.uniform(5, Detector(12, 0.9, offset=1.7)), ImageGrid((8, 7), 0.8, (1.0, -2.0))),
    "rectangles": (ParallelBeam.uniform(7, Detector(14, 1.0), span=7.0), ImageGrid((6, 9), (1.3, 0.6))),
    "fine bins": (ParallelBeam.uniform(4, Detector(40, 0.3)), ImageGrid((7, 8))),
    "coarse bins": (ParallelBeam.uniform(5, Detector(4, 3.3)), ImageGrid((9, 8))),
    "one view": (ParallelBeam([0.3], Detector(9, 1.0)), ImageGrid((5, 6))),
    "axes and ties": (ParallelBeam(np.arange(-4, 5) * math.pi / 4, Detector(11, 1.0)), ImageGrid((8, 8))),
    "one pixel": (ParallelBeam.uniform(3, Detector(3, 0.7)), ImageGrid((1, 1))),
    "fan": (FanBeam.circular(5, source_to_axis=30, source_to_detector=50, detector=Detector(13, 1.7)), GRID),
    "fan shifted": (
        FanBeam.circular(
            4,
            source_to_axis=20,
            source_to_detector=40,
            detector=Detector(20, 1.4, offset=2.3),
            start=0.7,
            tilt=0.1,
        ),
        ImageGrid((8, 7), (0.8, 1.1), (1.0, -2.0)),
    ),
    "fan near": (
        FanBeam.circular(6, source_to_axis=8.5, source_to_detector=12, detector=Detector(50, 0.6)),
        GRID,
    ),
    "fan curved": (
        FanBeam.circular(
            5, source_to_axis=12, source_to_detector=25, detector=Detector(26, 1.0, offset=0.3, curved=True)
        ),
        GRID,
    ),
    "fan one pixel": (
        FanBeam.circular(1, source_to_axis=3, source_to_detector=5, detector=Detector(3, 0.7, curved=True)),
        ImageGrid((1, 1)),
    ),
    "one row": (ParallelBeam.uniform(4, Detector(9, 0.7)), ImageGrid((1, 6))),
}
# As small as shows every branch: all columns and all rows of their matrices are computed.
SMALL = {
    "rectangles": CASES["rectangles"],
    "axes and ties": CASES["axes and ties"],
    "one row": CASES["one row"],
    "fan near": (
        FanBeam.circular(3, source_to_axis=4.5, source_to_detector=7, detector=Detector(9, 1.1)),
        ImageGrid((4, 5)),
    ),
    "fan curved": (
        FanBeam.circular(
            3, source_to_axis=6, source_to_detector=12, detector=Detector(8, 1.4, offset=0.3, curved=True)
        ),
        ImageGrid((4, 5)),
    ),
}
each_case = pytest.mark.parametrize(("geometry", "grid"), CASES.values(), ids=CASES)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def distance(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def compare(project: Project, geometry: Geometry, grid: ImageGrid, batch: int) -> None:
    """Against the CPU engine in double precision, and each direction against the other."""
    image, sinogram = random(batch, *grid.shape), random(batch, *geometry.sinogram_shape, seed=1)
    forward, adjoint = project(geometry, grid, image, sinogram)
    reference = RayTransform(geometry, grid, projector="joseph")
    assert distance(forward, reference(image.double())) < 1e-6
    assert distance(adjoint, reference.adjoint(sinogram.double())) < 1e-6
    forward, adjoint = project(geometry, grid, image - 0.5, sinogram - 0.5)
    gap = (forward.double() * (sinogram - 0.5)).sum() - ((image - 0.5) * adjoint.double()).sum()
    assert abs(gap) <= 1e-6 * forward.norm() * (sinogram - 0.5).norm()


@needs_triton
@each_case
def test_pair_is_that_of_the_cpu(project: Project, geometry: Geometry, grid: ImageGrid) -> None:
    compare(project, geometry, grid, 1)


@needs_triton
@pytest.mark.parametrize("batch", [3, 17])
def test_batches_are_those_of_the_cpu(project: Project, batch: int) -> None:
    compare(project, *CASES["shifted"], batch)
    compare(project, *CASES["fan"], batch)


@needs_triton
def test_blocks_of_pixels_and_rays_meet(project: Project) -> None:
    compare(project, ParallelBeam.uniform(4, Detector(70, 0.5)), ImageGrid((9, 70), 0.4), 1)


@needs_triton
@pytest.mark.parametrize("case", SMALL)
def test_adjoint_is_the_transpose_to_the_last_bit(project: Project, case: str) -> None:
    geometry, grid = SMALL[case]
    pixels, rays = math.prod(grid.shape), math.prod(geometry.sinogram_shape)
    images, sinograms = torch.eye(pixels), torch.eye(rays)
    forward, adjoint = project(
        geometry, grid, images.view(-1, *grid.shape), sinograms.view(-1, *geometry.sinogram_shape)
    )
    assert torch.equal(forward.flatten(1), adjoint.flatten(1).T)


@needs_triton
def test_empty_batches_are_empty(project: Project) -> None:
    geometry, grid = SCAN
    forward, adjoint = project(geometry, grid, torch.zeros(0, 4, 4), torch.zeros(2, 0, 3, 5))
    assert forward.shape == (0, 3, 5)
    assert adjoint.shape == (2, 0, 4, 4)


@needs_triton
@pytest.mark.parametrize("shape", [(33, 45), (1, 1)])
@pytest.mark.parametrize("batch", [1, 16])
def test_kernels_compile_for_a_gpu(
    shape: tuple[int, int], batch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interpreter runs more than the compiler takes; Triton's wheel compiles without a GPU."""
    from operators.ct.projectors import triton_kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    operator = RayTransform(ParallelBeam.uniform(7, Detector(40, 1.0)), ImageGrid(shape), "triton")
    engine: Any = operator._engines["triton"]
    engine._kernels = recorder = Recorder(triton_kernels)
    operator(torch.zeros(batch, *shape))
    operator.adjoint(torch.zeros(batch, 7, 40))
    assert [name for name, *_ in recorder.launches] == ["forward_rays", "adjoint_pixels"]
    for name, arguments, constants in recorder.launches:
        made = compiled(getattr(triton_kernels, name), arguments, constants, capability=90)
        assert len(made.asm["cubin"]) > 1000


@needs_triton
def test_copies_and_pickles_are_the_same_operator() -> None:
    operator = RayTransform(*SCAN, projector="triton")
    for twin in (copy.deepcopy(operator), pickle.loads(pickle.dumps(operator))):
        assert twin.projector == "triton"
        assert (twin.geometry, twin.grid) == SCAN


@needs_triton
def test_only_single_precision_on_a_gpu_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    from operators.ct.projectors import triton_kernels

    monkeypatch.setattr(triton_kernels, "INTERPRETED", False)
    operator = RayTransform(*SCAN, projector="triton")
    with pytest.raises(ValueError, match='projector "triton": expected a CUDA tensor, found one on cpu'):
        operator(torch.zeros(4, 4))
    with pytest.raises(ValueError, match='projector "triton": expected a CUDA tensor, found one on cpu'):
        operator.adjoint(torch.zeros(3, 5))
    with pytest.raises(ValueError, match=r"expected dtype torch\.float32, found torch\.float64"):
        operator(torch.zeros(4, 4, dtype=torch.float64))


def test_a_missing_triton_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(ModuleNotFoundError, match="not installed: pip install triton") as caught:
        RayTransform(*SCAN, projector="triton")
    assert "\n" not in str(caught.value)
    assert 'projector "triton"' in str(caught.value)
