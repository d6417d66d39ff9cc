"""The Triton engine in space: against the textbook, its exact transpose, and what it refuses."""

from __future__ import annotations

import copy
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from operators import ConeBeam, Detector, HelicalConeBeam, ImageGrid, ParallelBeam3D, RayTransform
from tests.operators.ct.conftest import Project
from tests.operators.ct.interpreted import Recorder, compiled
from tests.operators.ct.test_joseph_triton import distance, needs_triton, random

BOX = ImageGrid((3, 4, 5))
SHIFTED = ImageGrid((4, 3, 4), (0.7, 1.1, 0.9), (0.3, 0.2, 0.5))
CIRCLE: dict[str, Any] = {"source_to_axis": 40, "source_to_detector": 70}
CASES: dict[str, tuple[Any, ImageGrid]] = {
    "parallel": (ParallelBeam3D.uniform(2, Detector((4, 6), 1.0), start=0.1), BOX),
    "ties": (ParallelBeam3D([math.pi / 4, 3 * math.pi / 4], Detector((3, 7), 1.0)), BOX),
    "laminography": (ParallelBeam3D.uniform(2, Detector((6, 5), 1.0, (0.3, 0.4)), tilt=1.2), SHIFTED),
    "cone": (ConeBeam.circular(2, **CIRCLE, detector=Detector((5, 7), 1.7, (0.5, -0.7)), start=0.2), SHIFTED),
    "cone tilted": (
        ConeBeam.circular(1, **CIRCLE, detector=Detector((5, 7), 1.4), start=0.9, rotation=0.1, tilt=0.2),
        BOX,
    ),
    "cone curved": (
        ConeBeam.circular(2, **CIRCLE, detector=Detector((5, 8), 1.5, (0.5, 0.8), curved=True), start=0.3),
        SHIFTED,
    ),
    "source near": (
        ConeBeam.circular(
            1, source_to_axis=4, source_to_detector=8, detector=Detector((3, 6), 1.9), start=0.2
        ),
        BOX,
    ),
    "helix": (
        HelicalConeBeam([0.1, 2.0, 7.0], **CIRCLE, detector=Detector((3, 7), 1.6), pitch=3.0, z_start=-2.0),
        BOX,
    ),
    "one voxel": (
        ConeBeam.circular(1, **CIRCLE, detector=Detector((1, 1), 1.0), start=0.2),
        ImageGrid((1, 1, 1)),
    ),
}


def rays(geometry: Any) -> tuple[np.ndarray, np.ndarray]:
    """A point and the direction of every ray, (rays, 3) each, from ASTRA's numbers."""
    vectors = geometry.vectors()[:, None, None, :]
    ray, middle, along, across = (vectors[..., start : start + 3] for start in (0, 3, 6, 9))
    _, rows, bins = geometry.sinogram_shape
    k = (np.arange(bins) - (bins - 1) / 2)[:, None]
    j = (np.arange(rows) - (rows - 1) / 2)[:, None, None]
    place = middle + k * along + j * across
    if geometry.detector.curved:
        radius, width = vectors[..., 12:], np.linalg.norm(along, axis=-1, keepdims=True)
        up = across / np.linalg.norm(across, axis=-1, keepdims=True)
        reach = middle - ray
        ahead = reach - (reach * up).sum(-1, keepdims=True) * up
        turn = k * width / radius
        place = middle + (np.cos(turn) - 1) * ahead + np.sin(turn) * radius * along / width + j * across
    direction = np.broadcast_to(ray, place.shape) if isinstance(geometry, ParallelBeam3D) else place - ray
    return place.reshape(-1, 3), direction.reshape(-1, 3)


def by_definition(geometry: Any, grid: ImageGrid) -> Tensor:
    """Joseph's method as the textbook has it: one ray, one plane, one voxel at a time; (rays, voxels)."""
    places, directions = rays(geometry)
    first = np.array([axis[0] for axis in grid.coordinates()])
    scale = np.array([grid.pixel_width, -grid.pixel_height, grid.pixel_size[0]])
    sizes = grid.shape[::-1]
    weights = np.zeros((len(places), *grid.shape))
    for ray, (place, direction) in enumerate(zip((places - first) / scale, directions / scale, strict=True)):
        fast = np.abs(direction) * (1, 1 - 1e-7, (1 - 1e-7) ** 2)
        march = int(fast.argmax())
        length = np.linalg.norm(direction * scale) / abs(direction[march])
        one, two = (axis for axis in range(3) if axis != march)
        for plane in range(sizes[march]):
            here = place + (plane - place[march]) / direction[march] * direction
            for column in (math.floor(here[one]), math.floor(here[one]) + 1):
                for row in (math.floor(here[two]), math.floor(here[two]) + 1):
                    if 0 <= column < sizes[one] and 0 <= row < sizes[two]:
                        voxel = [0, 0, 0]
                        voxel[march], voxel[one], voxel[two] = plane, column, row
                        weight = (1 - abs(here[one] - column)) * (1 - abs(here[two] - row))
                        weights[(ray, *voxel[::-1])] += length * weight
    return torch.from_numpy(weights.reshape(len(places), -1))


@needs_triton
@pytest.mark.parametrize("case", CASES)
def test_pair_has_the_textbook_weights_and_is_a_transpose(project: Project, case: str) -> None:
    geometry, grid = CASES[case]
    weights = by_definition(geometry, grid)
    volume, sinogram = random(1, *grid.shape) - 0.2, random(1, *geometry.sinogram_shape, seed=1) - 0.2
    forward, adjoint = project(geometry, grid, volume, sinogram)
    assert distance(forward.flatten(), weights @ volume.flatten().double()) < 2e-6
    assert distance(adjoint.flatten(), sinogram.flatten().double() @ weights) < 2e-6
    gap = (forward.double() * sinogram).sum() - (volume * adjoint.double()).sum()
    assert abs(gap) <= 1e-6 * forward.norm() * sinogram.norm()


@needs_triton
@pytest.mark.parametrize("curved", [False, True])
def test_adjoint_is_the_transpose_to_the_last_bit(project: Project, curved: bool) -> None:
    detector = Detector((2, 4), 1.5, curved=curved)
    geometry, grid = ConeBeam.circular(1, **CIRCLE, detector=detector, start=0.5), ImageGrid((2, 2, 2), 1.3)
    forward, adjoint = project(geometry, grid, torch.eye(8).view(8, 2, 2, 2), torch.eye(8).view(8, 1, 2, 4))
    assert torch.count_nonzero(forward) > 8
    assert torch.equal(forward.flatten(1), adjoint.flatten(1).T)


@needs_triton
def test_blocks_of_voxels_and_rays_meet(project: Project) -> None:
    geometry = ConeBeam.circular(1, **CIRCLE, detector=Detector((5, 33), 2.0), start=0.3)
    grid = ImageGrid((5, 5, 9), 1.2)
    weights = by_definition(geometry, grid)
    volume, sinogram = random(1, *grid.shape), random(1, *geometry.sinogram_shape, seed=1)
    forward, adjoint = project(geometry, grid, volume, sinogram)
    assert distance(forward.flatten(), weights @ volume.flatten().double()) < 2e-6
    assert distance(adjoint.flatten(), sinogram.flatten().double() @ weights) < 2e-6


@needs_triton
@pytest.mark.parametrize("curved", [False, True])
def test_kernels_compile_for_a_gpu(curved: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from operators.ct.projectors import triton_volume_kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    geometry = ConeBeam.circular(3, **CIRCLE, detector=Detector((6, 7), 1.0, curved=curved))
    operator = RayTransform(geometry, BOX, "triton")
    engine: Any = operator._engines["triton"]
    engine._kernels = recorder = Recorder(triton_volume_kernels)
    operator(torch.zeros(BOX.shape))
    operator.adjoint(torch.zeros(geometry.sinogram_shape))
    assert [name for name, *_ in recorder.launches] == ["forward_rays"] * 3 + ["adjoint_voxels"]
    for name, arguments, constants in recorder.launches[-2:]:
        made = compiled(getattr(triton_volume_kernels, name), arguments, constants, capability=90)
        assert len(made.asm["cubin"]) > 1000
        assert "fma.rn" in made.asm["ptx"]


@needs_triton
def test_views_go_in_parts_when_there_are_too_many_bins(monkeypatch: pytest.MonkeyPatch) -> None:
    from operators.ct.projectors import joseph_triton_volume, triton_volume_kernels

    geometry = ConeBeam.circular(5, **CIRCLE, detector=Detector((2, 3), 1.0))
    operator = RayTransform(geometry, BOX, "triton")
    engine: Any = operator._engines["triton"]
    engine._kernels = recorder = Recorder(triton_volume_kernels)
    monkeypatch.setattr(joseph_triton_volume, "_MOST", 13)
    operator.adjoint(torch.zeros(geometry.sinogram_shape))
    assert [arguments[0].shape[0] for _, arguments, _ in recorder.launches] == [2, 2, 1]
    with pytest.raises(ValueError, match=r'projector "triton": expected fewer than 2\*\*31 voxels, found'):
        RayTransform(geometry, BOX, "triton")


@needs_triton
def test_only_single_precision_on_a_gpu_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    from operators.ct.projectors import triton_volume_kernels

    monkeypatch.setattr(triton_volume_kernels, "INTERPRETED", False)
    operator = copy.deepcopy(RayTransform(*CASES["cone"], projector="triton"))
    with pytest.raises(ValueError, match='projector "triton": expected a CUDA tensor, found one on cpu'):
        operator(torch.zeros(operator.domain_shape))
    with pytest.raises(ValueError, match=r"expected dtype torch\.float32, found torch\.float64"):
        operator.adjoint(torch.zeros(operator.range_shape, dtype=torch.float64))


def test_a_missing_triton_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(ModuleNotFoundError, match=r'projector "triton" .* not installed: pip install triton'):
        RayTransform(*CASES["cone"], projector="triton")
