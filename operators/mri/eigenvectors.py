"""The principal eigenvectors of many small Hermitian matrices, one a pixel."""

from __future__ import annotations

import torch
from torch import Tensor

# How far, relatively, the shift of inverse iteration lies above the bound of the spectrum: eigenvalues at the
# bound stand out by fifty, and single precision bears that.
_MARGIN = 0.02


def principal_eigenvectors(
    matrices: Tensor, count: int = 1, *, bound: float | None = None, iterations: int = 5
) -> tuple[Tensor, Tensor]:
    """Return the largest eigenvalues and their eigenvectors of positive semidefinite matrices.

    Parameters
    ----------
    matrices : Tensor
        Complex Hermitian, shape (n, n, *pixels): the pixels come last, so that every step runs along them.
        Overwritten.
    count
        How many eigenvectors.
    bound
        No eigenvalue is above it, if that is known.
    iterations
        Of inverse iteration.

    Returns
    -------
    values, vectors : Tensor
        Real, shape (count, *pixels), and complex, shape (n, count, *pixels), orthonormal. Where two
        eigenvalues lie close together below the bound, their vectors may be mixed.

    Notes
    -----
    Inverse iteration of a block (Golub and Van Loan, Matrix Computations, 8.2) with a shift above the
    spectrum, at the smaller of the bound and the Frobenius norm, so that what is inverted stays definite and
    needs no pivots. The error falls by (shift - first) / (shift - next) in each step; power iteration, with
    next / first, is slowest where the coils matter most.
    """
    n = len(matrices)
    size = _norms(matrices.flatten(0, 1))
    shift = (1 + _MARGIN) * (size if bound is None else size.clamp_(max=bound))
    # Where there is nothing, every vector is an eigenvector.
    shift = torch.where(size > 0, shift, 1)
    # Columns of the matrix plus its shift: never zero, never parallel, and largest along the first vector.
    diagonal = matrices.diagonal()  # (*pixels, n)
    largest = diagonal.real.movedim(-1, 0).topk(count, 0).indices
    diagonal += shift.unsqueeze(-1)
    vectors = matrices.gather(1, largest.unsqueeze(0).expand(n, *largest.shape))
    factor = matrices.neg_()
    diagonal += 2 * shift.unsqueeze(-1)
    _factorise(factor)
    _orthonormalise(vectors)
    for _ in range(iterations - 1):
        _solve(factor, vectors)
        _orthonormalise(vectors)
    before = vectors.clone()
    _solve(factor, vectors)
    inverse = (before.conj() * vectors).sum(0).real
    _orthonormalise(vectors)
    return shift - inverse.reciprocal(), vectors


def _factorise(matrices: Tensor) -> None:
    """L and U of positive definite matrices in their place, with the reciprocals of U's diagonal."""
    for k in range(len(matrices)):
        matrices[k, k].reciprocal_()
        below = matrices[k + 1 :, k].mul_(matrices[k, k])
        matrices[k + 1 :, k + 1 :].addcmul_(below.unsqueeze(1), matrices[k, k + 1 :].unsqueeze(0), value=-1)


def _solve(factor: Tensor, vectors: Tensor) -> None:
    """The solution for vectors, shape (n, count, *pixels), in their place."""
    for k in range(len(factor)):
        vectors[k + 1 :].addcmul_(factor[k + 1 :, k].unsqueeze(1), vectors[k], value=-1)
    for k in reversed(range(len(factor))):
        vectors[k].mul_(factor[k, k])
        vectors[:k].addcmul_(factor[:k, k].unsqueeze(1), vectors[k], value=-1)


def _orthonormalise(vectors: Tensor) -> None:
    """Gram and Schmidt's, in place."""
    for j in range(vectors.shape[1]):
        vector = vectors[:, j]
        for i in range(j):
            overlap = (vectors[:, i].conj() * vector).sum(0)
            vector.addcmul_(vectors[:, i], overlap.unsqueeze(0), value=-1)
        vector /= _norms(vector)


def _norms(vectors: Tensor) -> Tensor:
    """Lengths of vectors, shape (n, *pixels). Summed along the pixels, as `vector_norm` does not."""
    squares = torch.view_as_real(vectors).square().sum(0)
    return (squares[..., 0] + squares[..., 1]).sqrt_()
