"""Nonuniform Fourier sampling against exact sums and the FFT."""

from __future__ import annotations

import copy
import math
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from operators.mri.finufft_sums import _library
from operators.mri.fourier import CartesianFourier
from operators.mri.nonuniform import NonuniformFourier
from tests.operators.examples import random
from tests.operators.mri.exact_sums import exact_matrix, random_trajectory

SHAPES = [(11,), (12,), (6, 7), (9, 4), (24, 21), (4, 5, 6)]
ERROR = {torch.complex64: 1e-4, torch.complex128: 2e-12}


def relative(found: Tensor, expected: Tensor) -> float:
    difference = torch.linalg.vector_norm(found.to(expected.dtype) - expected)
    return float(difference / torch.linalg.vector_norm(expected))


@pytest.mark.parametrize("dtype", list(ERROR))
@pytest.mark.parametrize("shape", SHAPES)
def test_values_are_the_exact_sums(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    path = random_trajectory(shape, 5, 8)
    matrix = exact_matrix(shape, path.flatten(0, 1))
    maps, x = random((3, *shape), torch.complex128), random((2, *shape), torch.complex128, 1)
    operator = NonuniformFourier(shape, path, maps)
    expected = torch.einsum("m...,bc...->bcm", matrix, maps * x.unsqueeze(1))
    assert relative(operator(x.to(dtype)).flatten(2), expected) < ERROR[dtype]
    back = torch.einsum("m...,bcm,c...->b...", matrix.conj(), expected, maps.conj())
    assert relative(operator.adjoint(expected.reshape(2, 3, 5, 8).to(dtype)), back) < ERROR[dtype]


@pytest.mark.parametrize("images", [1, 2, 3, 8, 9])
def test_a_large_image_keeps_the_error(images: int) -> None:
    shape = (128, 96)
    path = random_trajectory(shape, 300)
    x = random((images, *shape), torch.complex64)
    operator = NonuniformFourier(shape, path)
    expected = torch.einsum("mab,nab->nm", exact_matrix(shape, path), x.to(torch.complex128))
    assert relative(operator(x), expected) < 7e-5
    for engine, error in (("gridding", 7e-5), ("finufft", 1e-4)):
        assert relative(NonuniformFourier(shape, path, engine=engine)(x), expected) < error
    tight = NonuniformFourier(shape, path, tolerance=1e-6)
    assert relative(tight(x), expected) < 2e-5


@pytest.mark.parametrize("engine", ["gridding", "finufft"])
def test_pairs_are_transposes_to_rounding(engine: str) -> None:
    shape = (40, 50)
    operator = NonuniformFourier(shape, random_trajectory(shape, 700), engine=engine)
    x, y = random(shape, torch.complex64, 1), random((700,), torch.complex64, 2)
    left = (operator(x).to(torch.complex128).conj() * y).sum()
    right = (x.to(torch.complex128).conj() * operator.adjoint(y)).sum()
    scale = torch.linalg.vector_norm(operator(x)) * torch.linalg.vector_norm(y)
    assert abs(left - right) < 3e-7 * scale


@pytest.mark.parametrize("shape", [(8, 8), (7, 9), (6, 5, 7)])
def test_equals_the_fft_on_its_grid(shape: tuple[int, ...]) -> None:
    lines = [torch.arange(-(n // 2), n - n // 2, dtype=torch.float64) for n in shape]
    path = torch.stack(torch.meshgrid(*lines, indexing="ij"), -1)
    maps, x = random((2, *shape), torch.complex128), random(shape, torch.complex128, 1)
    nonuniform, cartesian = NonuniformFourier(shape, path, maps), CartesianFourier(shape, None, maps)
    assert nonuniform.range_shape == cartesian.range_shape
    assert torch.allclose(nonuniform(x), cartesian(x), rtol=0, atol=1e-11)
    y = random(cartesian.range_shape, torch.complex128, 2)
    assert torch.allclose(nonuniform.adjoint(y), cartesian.adjoint(y), rtol=0, atol=1e-11)
    assert nonuniform(x.to(torch.complex64)).dtype == torch.complex64


@pytest.mark.parametrize("given", [(4, 3), (1, 3), (4, 1), (1, 1)])
def test_frames_have_paths_of_their_own_or_share_one(given: tuple[int, int]) -> None:
    shape = (8, 6)
    path = random_trajectory(shape, *given, 20)
    maps, x = random((5, 2, 1, 1, *shape), torch.complex128), random((5, 4, 3, *shape), torch.complex128, 1)
    operator = NonuniformFourier((4, 3, *shape), path, maps)
    assert (operator.batch_shape, operator.range_shape) == ((5,), (2, 4, 3, 20))
    y = operator(x)
    for t, z in ((0, 0), (1, 2), (3, 1)):
        own = exact_matrix(shape, path[t if given[0] > 1 else 0, z if given[1] > 1 else 0])
        alone = torch.einsum("mij,bcij->bcm", own, maps[:, :, 0, 0] * x[:, t, z].unsqueeze(1))
        assert torch.allclose(y[:, :, t, z], alone, rtol=0, atol=1e-10)
    w = random(y.shape, y.dtype, 3)
    left, right = (y.conj() * w).sum(), (x.conj() * operator.adjoint(w)).sum()
    assert torch.allclose(left, right, rtol=1e-10)


def test_threads_and_their_number_change_nothing() -> None:
    shape = (64, 48)
    operator = NonuniformFourier(shape, random_trajectory(shape, 900), random((3, *shape), torch.complex64))
    x = random((2, *shape), torch.complex64, 1)
    y, before = operator(x), torch.get_num_threads()
    back = operator.adjoint(y)
    with ThreadPoolExecutor(3) as pool:
        assert all(torch.equal(other, y) for other in pool.map(operator, [x] * 6))
    try:
        torch.set_num_threads(3)
        assert torch.allclose(operator(x), y, rtol=0, atol=1e-6)
        assert torch.allclose(operator.adjoint(y), back, rtol=0, atol=1e-5)
    finally:
        torch.set_num_threads(before)


def test_can_be_copied_and_pickled_with_plans() -> None:
    operator = NonuniformFourier((6, 5), random_trajectory((6, 5), 20), engine="finufft")
    x = random((6, 5), torch.complex128)
    y = operator(x)
    assert torch.equal(copy.deepcopy(operator)(x), y)
    assert torch.equal(pickle.loads(pickle.dumps(operator))(x), y)


def test_casting_keeps_the_frequencies() -> None:
    path = random_trajectory((6, 5), 20)
    operator = NonuniformFourier((6, 5), path).float()
    assert torch.equal(operator.trajectory, path)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (
            torch.tensor([[0.0, 20.5]]),
            r"expected cycles per field of view, -20 to 20 along axis 1, found 20.5",
        ),
        (
            torch.tensor([[0.1, 0.5], [-0.5, 0.2]]),
            r"found nothing beyond 0\.5 .* cycles per pixel, multiply by N",
        ),
        (torch.tensor([[math.pi, 0.5]]), r"these are radians, multiply by N / \(2 pi\)"),
        (torch.tensor([[float("nan"), 0.5]]), "expected finite numbers"),
        (torch.tensor([[1, 2]]), r"expected a real torch\.Tensor, found torch\.int64"),
        (torch.ones(3), r"expected shape \(\.\.\., axes\) with 1 to 2 axes .*found \(3,\)"),
        (torch.ones(3, 4), r"expected shape \(\.\.\., axes\) with 1 to 2 axes .*found \(3, 4\)"),
    ],
)
def test_trajectories_in_another_unit_are_refused(path: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NonuniformFourier((30, 40), path)


def test_what_cannot_be_is_refused() -> None:
    path = random_trajectory((8, 6), 3, 20)
    assert NonuniformFourier((80, 60), path / 20, any_extent=True).range_shape == (3, 20)
    with pytest.raises(ValueError, match=r"expected shape \(frames, samples, axes\) with frames \(4,\)"):
        NonuniformFourier((4, 8, 6), path)
    with pytest.raises(ValueError, match="engine: expected one of auto, gridding, finufft, found 'kb'"):
        NonuniformFourier((8, 6), path, engine="kb")
    with pytest.raises(ValueError, match='"gridding" expects trajectories of 2 axes, found 1'):
        NonuniformFourier((8,), path[..., :1], engine="gridding")
    with pytest.raises(ValueError, match="tolerance: expected a number between 0 and 1, found 2"):
        NonuniformFourier((8, 6), path, tolerance=2)
    with pytest.raises(
        ValueError, match=r"coil_maps: expected shape \(\.\.\., coils, 8, 6\), found \(8, 6\)"
    ):
        NonuniformFourier((8, 6), path, random((8, 6), torch.complex64))
    with pytest.raises(ImportError, match=r"need nothing_such, which is not installed: pip install"):
        _library("nothing_such")
