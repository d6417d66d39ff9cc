"""Noise amplification in closed form, against dense matrices and against replicas."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from operators.linear import LinearOperator
from operators.mri import CartesianFourier
from operators.mri.g_factor import g_factor, pseudo_replica_g_factor, pseudo_replica_std
from operators.noise import ComplexGaussianNoise
from tests.operators.examples import random
from tests.operators.mri.receive_coils import coil_maps


def every(shape: tuple[int, ...], folds: tuple[int, ...]) -> Tensor:
    """Every n-th line of each axis."""
    mask = torch.zeros(shape, dtype=torch.bool)
    mask[tuple(slice(1 % fold, None, fold) for fold in folds)] = True
    return mask


def dense(operator: LinearOperator) -> Tensor:
    size = math.prod(operator.domain_shape)
    unit = torch.eye(size, dtype=torch.complex128).reshape(size, *operator.domain_shape)
    return operator(unit).flatten(1).mT


@pytest.mark.parametrize(
    ("shape", "folds"), [((4, 12), (1, 3)), ((6, 8), (3, 2)), ((5, 9), (1, 3)), ((2, 4, 6), (1, 2, 2))]
)
@pytest.mark.parametrize("coupled", [False, True])
def test_is_the_ratio_of_dense_covariances(
    shape: tuple[int, ...], folds: tuple[int, ...], coupled: bool
) -> None:
    maps = random((7, *shape), torch.complex128)
    root = torch.eye(7, dtype=torch.complex128)
    if coupled:
        root = root + 0.3 * random((7, 7), torch.complex128, 1)
    psi = root @ root.mH
    weights = torch.kron(torch.linalg.inv(psi).contiguous(), torch.eye(math.prod(shape), dtype=psi.dtype))

    def variance(mask: Tensor | None) -> Tensor:
        matrix = dense(CartesianFourier(shape, mask, maps))
        return torch.linalg.inv(matrix.mH @ weights @ matrix).diagonal().real.reshape(shape)

    expected = (variance(every(shape, folds)) / variance(None) / math.prod(folds)).sqrt()
    found = g_factor(maps, folds, covariance=psi if coupled else None, dimensions=len(shape))
    assert torch.allclose(found, expected, rtol=1e-9)


def test_batch_one_number_and_pixels_that_nothing_sees() -> None:
    maps = random((2, 3, 5, 4, 6), torch.complex128)
    maps[1, 2, :, 1, 3] = 0
    found = g_factor(maps, 2)
    assert found.shape == (2, 3, 4, 6)
    assert torch.allclose(found[1, 2], g_factor(maps[1, 2], (1, 2)))
    assert float(found[1, 2, 1, 3]) == 0
    # Nothing folds onto its partner any more.
    assert float(found[1, 2, 1, 0]) == pytest.approx(1, abs=1e-12)
    assert bool((found[0] >= 1).all())
    assert torch.equal(g_factor(maps[0], 1), torch.ones(3, 4, 6, dtype=torch.float64))


def test_replicas_agree_with_the_closed_form() -> None:
    shape, folds, replicas = (16, 18), (1, 3), 200
    maps = coil_maps(6, shape)
    mask = every(shape, folds)
    operator, full = CartesianFourier(shape, mask, maps), CartesianFourier(shape, None, maps)

    def unfold(operator: CartesianFourier) -> Callable[[Tensor], Tensor]:
        inverse = torch.linalg.inv(dense(operator.gram))
        return lambda y: (inverse @ operator.adjoint(y).flatten()).reshape(shape)

    image = random(shape, torch.complex128, 3)
    measured = pseudo_replica_g_factor(
        unfold(operator),
        unfold(full),
        full(image),
        mask,
        std=0.1,
        replicas=replicas,
        generator=torch.Generator().manual_seed(0),
    )
    relative = measured / g_factor(maps, folds) - 1
    # A standard deviation of complex numbers is off by 1 / (2 sqrt(replicas)), the ratio of two by more.
    spread = 1 / math.sqrt(2 * replicas)
    assert float(relative.std()) == pytest.approx(spread, rel=0.2)
    # Pixels that fold onto each other share their noise: a third of all are independent.
    assert abs(float(relative.mean())) < 4 * spread / math.sqrt(relative.numel() / 3)
    assert float(relative.abs().max()) < 5 * spread


def test_replicas_of_the_transform_have_the_noise_of_k_space() -> None:
    operator = CartesianFourier((12, 10))
    found = pseudo_replica_std(
        operator.adjoint,
        1e4 * random((12, 10), torch.complex64),
        ComplexGaussianNoise(0.5),
        replicas=300,
        generator=torch.Generator().manual_seed(1),
    )
    assert found.dtype == torch.float32
    assert float((found / 0.5 - 1).abs().max()) < 4.5 / (2 * math.sqrt(300))


def test_what_has_no_g_factor_is_refused() -> None:
    maps = random((3, 6, 8), torch.complex128)
    with pytest.raises(ValueError, match=r"expected divisors of \(6, 8\), found \(1, 3\)"):
        g_factor(maps, 3)
    with pytest.raises(ValueError, match="expected at most 3 for as many coils, found 4"):
        g_factor(maps, (2, 2))
    with pytest.raises(ValueError, match="expected maps that tell folded pixels apart"):
        g_factor(torch.ones_like(maps), 2)
    with pytest.raises(ValueError, match="replicas: expected at least 2, found 1"):
        pseudo_replica_std(
            torch.abs, maps, ComplexGaussianNoise(1.0), replicas=1, generator=torch.Generator()
        )
