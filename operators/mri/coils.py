"""Receive coils as channels: the noise that they share, its whitening, and fewer coils in place of many."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from operators.mri.calibration import check_kspace
from operators.mri.fourier import centred_fft, centred_ifft


def noise_covariance(noise: Tensor, *, dwell_ratio: float = 1.0, bandwidth: float = 1.0) -> Tensor:
    """Return the covariance Psi = E[n n^H] of the coils' noise, from a scan without signal.

    Parameters
    ----------
    noise : Tensor
        Complex, shape (coils, *samples), of zero mean; left as it is.
    dwell_ratio
        Time a sample takes in the noise scan over that in the scan that Psi is wanted for: the variance is
        proportional to the bandwidth, and that is the inverse of the dwell time. (ISMRMRD: `sample_time_us`
        of the noise acquisition over that of the imaging acquisitions.)
    bandwidth
        What the receiver's filter lets pass of the noise scan's bandwidth (`relativeReceiverNoiseBandwidth`
        in ISMRMRD headers; 0.79 on many scanners): the variance found is divided by it.

    Returns
    -------
    Tensor
        Hermitian, shape (coils, coils), the dtype of `noise`: the sum of n n^H divided by the number of
        samples. On the diagonal is E|n|^2 of the complex number, std^2 of `ComplexGaussianNoise`: twice the
        variance of each real component.

    Raises
    ------
    ValueError
        For noise that is not complex, has fewer samples than coils or values that are not finite, and for
        factors that are not positive.
    """
    if not isinstance(noise, Tensor) or not noise.is_complex() or noise.ndim < 2:
        found = f"{noise.dtype}, {tuple(noise.shape)}" if isinstance(noise, Tensor) else type(noise).__name__
        raise ValueError(f"noise: expected a complex torch.Tensor, shape (coils, samples), found {found}")
    if dwell_ratio <= 0 or bandwidth <= 0:
        raise ValueError(
            f"dwell_ratio, bandwidth: expected positive factors, found {dwell_ratio}, {bandwidth}"
        )
    # Sums of many squares, of numbers that may be tiny.
    samples = noise.flatten(1).to(torch.complex128)
    coils, count = samples.shape
    if count < coils:
        raise ValueError(f"noise: expected at least {coils} samples for {coils} coils, found {count}")
    if not bool(samples.isfinite().all()):
        raise ValueError("noise: expected finite values, found others")
    return ((samples @ samples.mH) * (dwell_ratio / bandwidth / count)).to(noise.dtype)


def whitening_matrix(covariance: Tensor) -> Tensor:
    """Return W = L^-1 for the Cholesky factor of Psi = L L^H: W Psi W^H = 1.

    Shape (*batch, coils, coils), of the covariance's dtype; ValueError for a covariance that is not positive
    definite, as that of a coil without noise, or of two coils that are one.
    """
    factor, trouble = torch.linalg.cholesky_ex(covariance)
    if bool(trouble.any()):
        raise ValueError(
            "covariance: expected a positive definite one, found a coil without noise, or coils that are "
            f"sums of others, at number {int(trouble.max()) - 1}"
        )
    unit = torch.eye(covariance.shape[-1], dtype=factor.dtype, device=factor.device)
    return torch.linalg.solve_triangular(factor, unit.expand_as(factor), upper=False)


def prewhiten(
    data: Tensor, noise: Tensor, *, dwell_ratio: float = 1.0, bandwidth: float = 1.0, dimensions: int = 2
) -> Tensor:
    """Return data in which the noise of all coils is independent, with standard deviation 1.

    That is `ComplexGaussianNoise(1.0)`: E|n|^2 = 1 in k-space, and in coil images by a unitary transform.
    Maps of the coils, known beforehand, are whitened by the same call; maps estimated from whitened k-space
    are already.

    Parameters
    ----------
    data : Tensor
        Complex, shape (*batch, coils, *shape) with `dimensions` axes in shape.
    noise, dwell_ratio, bandwidth
        As for `noise_covariance`.
    dimensions
        How many axes follow the coils.

    Raises
    ------
    ValueError
        As `noise_covariance`, `whitening_matrix` and `mix_coils`.
    """
    covariance = noise_covariance(noise.to(torch.complex128), dwell_ratio=dwell_ratio, bandwidth=bandwidth)
    return mix_coils(data, whitening_matrix(covariance), dimensions=dimensions)


def mix_coils(data: Tensor, matrix: Tensor, *, dimensions: int = 2) -> Tensor:
    """Return a matrix times the coils, shape (*batch, new, *shape), of data's dtype.

    `data` is complex, shape (*batch, coils, *shape) with `dimensions` axes in shape; the matrix has shape
    (*batch or none, new, coils). ValueError if they do not fit.
    """
    check_kspace(data, dimensions)
    coils = data.shape[-dimensions - 1]
    if matrix.shape[-1] != coils:
        raise ValueError(f"data: expected {matrix.shape[-1]} coils, found {coils} in {tuple(data.shape)}")
    shape = data.shape[-dimensions:]
    return (matrix.to(data) @ data.flatten(-dimensions)).unflatten(-1, shape)


@dataclass(frozen=True)
class CoilCompression:
    """Virtual coils as combinations of the scanner's.

    Parameters
    ----------
    matrices
        With orthonormal rows, so that white noise stays white: shape (*batch, virtual, coils), or (*batch,
        readout, virtual, coils) with one for each position along the readout.
    energy
        Part of the signal's energy that the virtual coils keep, 0 to 1, shape (*batch,).
    dimensions
        How many axes follow the coils.
    readout
        The axis, counted from the end, along which matrices differ; None for one matrix.
    """

    matrices: Tensor
    energy: Tensor
    dimensions: int = 2
    readout: int | None = None

    def of_kspace(self, kspace: Tensor) -> Tensor:
        """K-space (*batch, coils, *shape) of the virtual coils."""
        if self.readout is None:
            return mix_coils(kspace, self.matrices, dimensions=self.dimensions)
        return _along(centred_fft, self.of_images(_along(centred_ifft, kspace, self.readout)), self.readout)

    def of_images(self, images: Tensor) -> Tensor:
        """Coil images, or coil maps, (*batch, coils, *shape) of the virtual coils."""
        if self.readout is None:
            return mix_coils(images, self.matrices, dimensions=self.dimensions)
        before = -self.dimensions - 1  # the position as one more axis of the batch, before the coils
        mixed = mix_coils(images.movedim(self.readout, before), self.matrices, dimensions=self.dimensions - 1)
        return mixed.movedim(before, self.readout)


def compress_coils(
    kspace: Tensor, coils: int, method: Literal["svd", "geometric"] = "svd", *, dimensions: int = 2
) -> Tensor:
    """Return k-space of fewer, virtual coils: `coil_compression` applied to what it was found from."""
    return coil_compression(kspace, coils, method, dimensions=dimensions).of_kspace(kspace)


def coil_compression(
    kspace: Tensor,
    coils: int,
    method: Literal["svd", "geometric"] = "svd",
    *,
    dimensions: int = 2,
    readout: int = -2,
) -> CoilCompression:
    """Find the virtual coils that keep most of the energy of k-space.

    Parameters
    ----------
    kspace : Tensor
        Complex, shape (*batch, coils, *shape) with `dimensions` axes in shape, zeros where nothing was
        measured; prewhitened, if noise is to stay white. Each batch element gets virtual coils of its own.
    coils
        How many virtual coils.
    method
        "svd": the principal components of all samples (Buehrer et al., Magn. Reson. Med. 57, 1131 (2007);
        Huang et al., Magn. Reson. Imaging 26, 133 (2008)). "geometric": those of every position along the
        readout, turned such that neighbouring positions agree (Zhang et al., Magn. Reson. Med. 69, 571
        (2013)): fewer coils keep as much. It needs readouts that are complete.
    dimensions
        How many trailing axes are those of k-space.
    readout
        The axis of the readout, counted from the end, for "geometric".

    Raises
    ------
    ValueError
        For k-space that is not complex, more virtual coils than coils, an unknown method, an axis that is
        none of k-space's, or readouts with gaps.
    """
    check_kspace(kspace, dimensions)
    found = kspace.shape[-dimensions - 1]
    if not 1 <= coils <= found:
        raise ValueError(f"coils: expected 1 to {found} virtual coils for {found} coils, found {coils}")
    if method == "svd":
        vectors, energy = _principal(kspace.flatten(-dimensions), coils)
        return CoilCompression(vectors.mH, energy[..., 0] / _positive(energy[..., 1]), dimensions)
    if method != "geometric":
        raise ValueError(f"method: expected svd or geometric, found {method}")
    if not -dimensions <= readout <= -1 or dimensions < 2:
        raise ValueError(f"readout: expected an axis from {-dimensions} to -1, found {readout}")
    measured = (kspace != 0).any(-dimensions - 1).movedim(readout, -1)
    if bool((measured.any(-1) & ~measured.all(-1)).any()):
        raise ValueError("kspace: expected complete readouts for geometric compression, found gaps")
    hybrid = _along(centred_ifft, kspace, readout).movedim(readout, -dimensions - 1)
    vectors, energy = _principal(hybrid.flatten(-dimensions + 1), coils)
    matrices = _aligned(vectors.mH, energy[..., 0])
    kept, total = energy.sum(-2).unbind(-1)
    return CoilCompression(matrices, kept / _positive(total), dimensions, readout)


def _principal(samples: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Orthonormal columns (*batch, coils, count), and the energy in them and in all, (*batch, 2)."""
    size = samples.abs().amax()
    powers, vectors = torch.linalg.eigh((samples / _positive(size)) @ (samples / _positive(size)).mH)
    powers = powers.clamp_min(0)
    energy = torch.stack((powers[..., -count:].sum(-1), powers.sum(-1)), -1)
    return vectors[..., -count:].flip(-1), energy


def _aligned(matrices: Tensor, energy: Tensor) -> Tensor:
    """Matrices (*batch, readout, virtual, coils) turned by unitary ones towards their neighbours.

    From the position of most energy outwards: where there is no signal, no direction is known.
    """
    aligned = matrices.flatten(0, -4).clone() if matrices.ndim > 3 else matrices[None].clone()
    positions = aligned.shape[1]
    for one, start in zip(aligned, energy.reshape(-1, positions).argmax(-1).tolist(), strict=True):
        for path in (range(start + 1, positions), range(start - 1, -1, -1)):
            before = start
            for position in path:
                # The unitary P that brings P M closest to the neighbour N: V U^H for M N^H = U S V^H.
                left, _, right = torch.linalg.svd(one[position] @ one[before].mH)
                one[position] = (left @ right).mH @ one[position]
                before = position
    return aligned.reshape(matrices.shape)


def _along(transform: Callable[[Tensor, int], Tensor], data: Tensor, axis: int) -> Tensor:
    """A centred transform of one axis."""
    return transform(data.movedim(axis, -1), 1).movedim(-1, axis)


def _positive(value: Tensor) -> Tensor:
    return torch.where(value > 0, value, 1)
