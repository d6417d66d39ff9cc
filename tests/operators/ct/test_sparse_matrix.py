"""The scan as a matrix: Joseph's weights, an exact transpose, its size, copies and what is refused."""

from __future__ import annotations

import copy
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

from operators import ConeBeam, Detector, FanBeam, ImageGrid, ParallelBeam, RayTransform
from operators.ct.projectors import sparse_matrix
from operators.ct.projectors.sparse_matrix import SparseProjector

FAR: dict[str, Any] = {"source_to_axis": 40.0, "source_to_detector": 60.0}
CASES = {
    "parallel": (ParallelBeam.uniform(11, Detector(33, 1.1, 0.4), start=0.1), ImageGrid((20, 17))),
    # Rays at the edges between pixels, and along the border of the image.
    "right angles": (ParallelBeam.uniform(4, Detector(30, 0.5)), ImageGrid((8, 12), 1.0)),
    "rectangles": (ParallelBeam.uniform(7, Detector(40, 0.9)), ImageGrid((13, 9), (0.7, 2.1), (1.0, -2.0))),
    "fan": (FanBeam.circular(9, detector=Detector(25, 2.0, 0.7), **FAR), ImageGrid((18, 21))),
    "arc": (FanBeam.circular(9, detector=Detector(25, 2.0, curved=True), **FAR), ImageGrid((18, 21))),
    "beside": (ParallelBeam.uniform(5, Detector(4, 1.0, offset=500.0)), ImageGrid((6, 6))),
    "one pixel": (ParallelBeam.uniform(5, Detector(3, 0.4)), ImageGrid((1, 1))),
}


def random(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(*shape, dtype=dtype, generator=torch.Generator().manual_seed(0)) - 0.5


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
@pytest.mark.parametrize("name", CASES)
def test_values_are_josephs_to_rounding(name: str, dtype: torch.dtype, tolerance: float) -> None:
    geometry, grid = CASES[name]
    sparse, joseph = (RayTransform(geometry, grid, engine) for engine in ("sparse", "joseph"))
    for apply, expected, shape in (
        (sparse, joseph, grid.shape),
        (sparse.adjoint, joseph.adjoint, geometry.sinogram_shape),
    ):
        z = random(3, *shape, dtype=dtype)
        wanted = expected(z)
        torch.testing.assert_close(
            apply(z), wanted, rtol=0, atol=tolerance * max(1.0, float(wanted.abs().max()))
        )


@pytest.mark.parametrize("name", ["parallel", "fan"])
def test_the_second_matrix_is_the_transpose_of_the_first(name: str) -> None:
    engine = SparseProjector(*CASES[name])
    matrix, transpose = (one.to_dense() for one in engine._matrices(torch.float32, torch.device("cpu")))
    torch.testing.assert_close(transpose, matrix.T, rtol=0, atol=0)
    assert int((matrix != 0).sum()) <= engine.weights


def test_matrices_are_made_once_for_each_dtype_and_not_copied() -> None:
    operator = RayTransform(*CASES["fan"], "sparse")
    engine: Any = operator._engines["sparse"]
    assert not engine._kept
    image = random(18, 21)
    expected = operator(image)
    first = engine._kept[torch.float32, torch.device("cpu")]
    operator.adjoint(operator(image))
    assert engine._kept[torch.float32, torch.device("cpu")] is first
    operator(image.double())
    assert len(engine._kept) == 2
    for again in (copy.deepcopy(operator), pickle.loads(pickle.dumps(operator))):
        assert not again._engines["sparse"]._kept
        torch.testing.assert_close(again(image), expected, rtol=0, atol=0)


def test_threads_may_share_one() -> None:
    operator = RayTransform(*CASES["parallel"], "sparse")
    image = random(2, 20, 17)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(operator, [image] * 12))
    for one in found:
        torch.testing.assert_close(one, found[0], rtol=0, atol=0)


def test_empty_batches_are_empty_and_nothing_is_warned_of() -> None:
    operator = RayTransform(*CASES["parallel"], "sparse")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert operator(torch.zeros(0, 20, 17)).shape == (0, 11, 33)
        assert operator(torch.zeros(2, 20, 17)).shape == (2, 11, 33)
        assert operator.adjoint(torch.zeros(2, 0, 11, 33)).shape == (2, 0, 20, 17)


def test_a_scan_too_large_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    geometry, grid = ParallelBeam.uniform(1000, Detector(513, 1.0)), ImageGrid((362, 362))
    with pytest.raises(
        ValueError, match=r"expected at most 50,000,000 weights, found 23\d,\d{3},\d{3} for"
    ) as e:
        RayTransform(geometry, grid, "sparse")
    assert "\n" not in str(e.value)
    assert 'projector "joseph" keeps none' in str(e.value)
    monkeypatch.setattr(sparse_matrix, "MOST_WEIGHTS", 10)
    with pytest.raises(ValueError, match="expected at most 10 weights, found"):
        RayTransform(*CASES["fan"], "sparse")


def test_other_devices_and_volumes_are_refused() -> None:
    with pytest.raises(
        ValueError, match='projector "sparse": expected a CPU or CUDA tensor, found one on meta'
    ):
        RayTransform(*CASES["fan"], "sparse")(torch.zeros(18, 21, device="meta"))
    cone = ConeBeam.circular(3, detector=Detector((4, 5), 1.0), **FAR)
    with pytest.raises(ValueError, match='projector "sparse" cannot compute a ConeBeam; these can: joseph'):
        RayTransform(cone, ImageGrid((3, 3, 3)), "sparse")


@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-13)])
@pytest.mark.parametrize("name", ["parallel", "fan"])
def test_values_on_a_gpu_are_those_of_the_cpu(name: str, dtype: torch.dtype, tolerance: float) -> None:
    geometry, grid = CASES[name]
    operator = RayTransform(geometry, grid, "sparse")
    image, sinogram = (
        random(3, *grid.shape, dtype=dtype),
        random(3, *geometry.sinogram_shape, dtype=dtype),
    )
    for apply, z in ((operator, image), (operator.adjoint, sinogram)):
        torch.testing.assert_close(
            apply(z.cuda()).cpu(), apply(z), rtol=0, atol=tolerance * float(apply(z).abs().max())
        )
