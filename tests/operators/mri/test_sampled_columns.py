"""Transforms of sampled columns alone, against transforms of everything."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from operators.mri import sampled_columns
from operators.mri.fourier import CartesianFourier, centred_fft, centred_ifft
from operators.mri.sampled_columns import SampledColumns
from tests.operators.examples import random


def columns(width: int, every: int) -> Tensor:
    kept = torch.zeros(width, dtype=torch.bool)
    kept[1::every] = True
    kept[width // 2] = True
    return kept


# Image shape, mask, shape of the maps before the image's, transformed axes; rows that fill no whole tile too.
CASES = {
    "even": ((16, 12), columns(12, 4), (3,), 2),
    "odd": ((11, 9), columns(9, 3), (3,), 2),
    "one column": ((9, 8), columns(8, 8)[None], (2,), 2),
    "frames": ((3, 10, 8), torch.stack([columns(8, k) for k in (4, 8, 4)])[:, None], (2,), 2),
    "batch": ((10, 8), torch.stack([columns(8, k) for k in (4, 8)])[:, None], (2, 3), 2),
    "samples in columns": (
        (10, 8),
        columns(8, 4) & (torch.arange(10) % 3 > 0)[:, None],
        (2,),
        2,
    ),
    "volume": ((4, 9, 8), columns(8, 4), (2,), 3),
}


@pytest.mark.parametrize("case", CASES)
def test_columns_give_what_everything_does(case: str) -> None:
    shape, mask, lead, dimensions = CASES[case]
    maps = random((*lead, *shape), torch.complex128, 0)
    operator = CartesianFourier(shape, mask, maps, dimensions=dimensions)
    assert operator._columns is not None
    x = random((2, *lead[:-1], *shape), torch.complex128, 1)
    at_most = len(lead) - 1
    y = centred_fft(maps * x.unsqueeze(1 + at_most), dimensions) * operator.sampled
    found = operator(x)
    assert torch.allclose(found, y, rtol=0, atol=1e-13)
    assert bool((found[~operator.sampled.expand(found.shape)] == 0).all())
    z = random(y.shape, torch.complex128, 2)
    back = (maps.conj() * centred_ifft(z * operator.sampled, dimensions)).sum(1 + at_most)
    assert torch.allclose(operator.adjoint(z), back, rtol=0, atol=1e-13)
    assert torch.allclose(operator.gram(x), operator.adjoint(y), rtol=0, atol=1e-13)
    weights = random(y.shape, torch.float64, 3).abs()
    solution = operator.solve(z, weights=weights, damping=0.5, rtol=1e-12, max_iterations=500).x
    normal = operator.adjoint(weights * operator(solution)) + 0.5 * solution
    assert torch.allclose(normal, operator.adjoint(weights * z), rtol=0, atol=1e-9)


def test_threads_share_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    shape, mask, lead, _ = CASES["odd"]
    operator = CartesianFourier(shape, mask, random((*lead, *shape), torch.complex64))
    x = random((2, *shape), torch.complex64, 1)
    alone, threads = [operator(x), operator.gram(x)], torch.get_num_threads()
    monkeypatch.setattr(sampled_columns, "_ROWS_A_THREAD", 2)
    try:
        torch.set_num_threads(3)
        together = [operator(x), operator.gram(x)]
    finally:
        torch.set_num_threads(threads)
    for one, other in zip(alone, together, strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("mask", "dimensions"),
    [
        (None, 2),
        (torch.tensor(True), 2),
        (torch.arange(8) % 4 < 3, 2),
        (torch.arange(8) == 3, 1),
        ((torch.arange(10) == 3)[:, None], 2),
    ],
)
def test_other_masks_are_transformed_as_a_whole(mask: Tensor | None, dimensions: int) -> None:
    assert SampledColumns.of(mask, (10, 8), dimensions) is None
