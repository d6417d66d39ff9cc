"""Eigenvectors by inverse iteration against LAPACK's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from operators.mri.eigenvectors import principal_eigenvectors
from tests.operators.examples import random


def spectrum(values: tuple[float, ...], dtype: torch.dtype, pixels: int = 40) -> tuple[Tensor, Tensor]:
    """Hermitian matrices (n, n, pixels) of these eigenvalues, and their vectors (pixels, n, n)."""
    vectors = torch.linalg.qr(random((pixels, len(values), len(values)), torch.complex128))[0]
    matrices = vectors @ torch.diag(torch.tensor(values, dtype=torch.complex128)) @ vectors.mH
    return matrices.permute(1, 2, 0).to(dtype).contiguous(), vectors.to(dtype)


@pytest.mark.parametrize("bound", [None, 1.0])
@pytest.mark.parametrize(("dtype", "atol"), [(torch.complex64, 2e-4), (torch.complex128, 1e-5)])
def test_largest_eigenvector(dtype: torch.dtype, atol: float, bound: float | None) -> None:
    matrices, truth = spectrum((0.99, 0.5, 0.2, 0.1, 0.0), dtype)
    values, vectors = principal_eigenvectors(matrices, bound=bound, iterations=8)
    assert values.shape == (1, 40)
    assert vectors.shape == (5, 1, 40)
    assert torch.allclose(values, torch.full_like(values, 0.99), rtol=0, atol=1e-5)
    overlap = (truth[:, :, 0].mT.conj() * vectors[:, 0]).sum(0).abs()
    assert torch.allclose(overlap, torch.ones_like(overlap), rtol=0, atol=atol**2 + 1e-6)


def test_error_falls_as_promised() -> None:
    """By (shift - first) / (shift - next) a step."""
    errors = []
    for iterations in (2, 3):
        matrices, truth = spectrum((0.95, 0.8, 0.3), torch.complex128, 500)
        _, vectors = principal_eigenvectors(matrices, bound=1.0, iterations=iterations)
        errors.append((truth[:, :, 1].mT.conj() * vectors[:, 0]).sum(0).abs())
    ratio = (errors[1] / errors[0]).median()
    assert abs(float(ratio) - (1.02 - 0.95) / (1.02 - 0.8)) < 0.02


def test_two_eigenvectors_of_one_eigenvalue_span_its_space() -> None:
    matrices, truth = spectrum((1.0, 1.0, 0.4, 0.2), torch.complex128)
    values, vectors = principal_eigenvectors(matrices, 2, bound=1.0)
    assert torch.allclose(values, torch.ones_like(values), rtol=0, atol=1e-6)
    gram = torch.einsum("cip,cjp->pij", vectors.conj(), vectors)
    assert torch.allclose(gram, torch.eye(2, dtype=gram.dtype).expand_as(gram), rtol=0, atol=1e-12)
    inside = torch.einsum("pci,cjp->pij", truth[..., :2].conj(), vectors).abs().square().sum((1, 2))
    assert torch.allclose(inside, torch.full_like(inside, 2.0), rtol=0, atol=1e-5)


def test_zero_matrices_and_any_shape_of_pixels() -> None:
    matrices, _ = spectrum((3.0, 1.0, 0.5), torch.complex64, 12)
    matrices[..., 5] = 0
    flat, vectors = principal_eigenvectors(matrices.clone(), 2)
    assert bool(vectors.isfinite().all())
    assert flat[:, 5].abs().max() < 1e-6
    values, shaped = principal_eigenvectors(matrices.reshape(3, 3, 3, 4), 2)
    assert torch.equal(values.flatten(1), flat)
    assert torch.equal(shaped.flatten(2), vectors)
