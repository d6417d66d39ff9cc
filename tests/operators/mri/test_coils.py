"""Noise is whitened as measured, and virtual coils see what the coils saw."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from operators.mri import CartesianFourier, centred_fft, centred_ifft
from operators.mri.coils import (
    coil_compression,
    compress_coils,
    mix_coils,
    noise_covariance,
    prewhiten,
    whitening_matrix,
)
from operators.noise import ComplexGaussianNoise
from tests.operators.examples import random
from tests.operators.mri.receive_coils import coil_kspace, coil_maps, ellipses


def coupled(coils: int, samples: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Noise of coupled coils (coils, samples), and its true covariance."""
    coupling = random((coils, coils), torch.complex128, 7) + 2 * torch.eye(coils)
    return coupling @ random((coils, samples), torch.complex128, seed), coupling @ coupling.mH


def test_covariance_is_divided_by_the_samples_and_leaves_them_alone() -> None:
    noise, truth = coupled(4, 40_000)
    noise += 0.5  # what a mean subtracted in place would change
    kept = noise.clone()
    found = noise_covariance(noise)
    assert torch.equal(noise, kept)
    expected = truth + 0.25
    # Entries scatter with sqrt(Psi_ii Psi_jj / samples).
    assert float((found - expected).abs().max()) < 5 * float(expected.abs().max()) / 200
    assert torch.equal(noise_covariance(noise.reshape(4, 200, 200)), found)
    assert noise_covariance(noise.to(torch.complex64)).dtype == torch.complex64


def test_convention_is_that_of_the_noise_model() -> None:
    noise = ComplexGaussianNoise(0.3).sample(
        torch.zeros(2, 50_000, dtype=torch.complex128), torch.Generator().manual_seed(0)
    )
    diagonal = noise_covariance(noise).diagonal().real
    assert torch.allclose(diagonal, torch.full_like(diagonal, 0.3**2), rtol=5 / math.sqrt(50_000))


def test_variance_follows_the_bandwidth() -> None:
    """A noise scan of 5 us samples, for an image scan of 10 us, through a filter that passes 0.8."""
    noise, _ = coupled(3, 100)
    scaled = noise_covariance(noise, dwell_ratio=5 / 10, bandwidth=0.8)
    assert torch.allclose(scaled, noise_covariance(noise) * (0.5 / 0.8), rtol=1e-12)


def test_whitened_noise_is_independent_with_unit_variance() -> None:
    noise, truth = coupled(5, 2000)
    matrix = whitening_matrix(truth)
    assert torch.allclose(matrix @ truth @ matrix.mH, torch.eye(5, dtype=truth.dtype), atol=1e-12)
    white = prewhiten(noise.reshape(5, 40, 50), noise)
    covariance = noise_covariance(white.flatten(1))
    assert torch.allclose(covariance, torch.eye(5, dtype=covariance.dtype), atol=1e-12)
    single = prewhiten(noise.reshape(5, 40, 50).to(torch.complex64), noise)
    assert single.dtype == torch.complex64
    assert torch.allclose(single.to(white.dtype), white, atol=1e-5)


def test_whitening_k_space_and_maps_changes_no_image() -> None:
    maps, image = coil_maps(4, (16, 16)), ellipses((16, 16))
    noise, _ = coupled(4, 500)
    expected = centred_fft(prewhiten(maps, noise) * image)
    assert torch.allclose(prewhiten(centred_fft(maps * image), noise), expected, atol=1e-12)


def test_mixing_over_batch_and_dimensions() -> None:
    matrix, data = random((2, 4), torch.complex128), random((3, 4, 2, 5, 6), torch.complex128, 1)
    expected = torch.einsum("vc,bczyx->bvzyx", matrix, data)
    assert torch.allclose(mix_coils(data, matrix, dimensions=3), expected, atol=1e-13)
    each = random((3, 2, 4), torch.complex128, 2)
    expected = torch.einsum("bvc,bczyx->bvzyx", each, data)
    assert torch.allclose(mix_coils(data, each, dimensions=3), expected, atol=1e-13)


@pytest.mark.parametrize("method", ["svd", "geometric"])
def test_rank_that_suffices_loses_nothing(method: str) -> None:
    """Eight coils that mix three: three virtual ones give the same image, normal equations and noise."""
    shape = (20, 15)
    maps = mix_coils(coil_maps(3, shape), random((8, 3), torch.complex128))
    kspace = torch.stack(
        [coil_kspace(ellipses(shape), maps), 1e-6 * coil_kspace(ellipses(shape).flip(0), maps)]
    )
    mask = torch.zeros(15, dtype=torch.bool)
    mask[::2] = mask[5:11] = True
    kspace = kspace * mask
    found = coil_compression(kspace, 3, method)
    assert torch.allclose(found.energy, torch.ones(2, dtype=torch.float64), atol=1e-12)
    few = compress_coils(kspace, 3, method)
    assert few.shape == (2, 3, *shape)
    assert torch.allclose(few, found.of_kspace(kspace), rtol=0, atol=1e-14)
    gram = found.matrices @ found.matrices.mH
    assert torch.allclose(gram, torch.eye(3, dtype=gram.dtype).expand_as(gram), atol=1e-10)
    few_maps = found.of_images(maps.expand(2, *maps.shape))
    before = CartesianFourier(shape, mask, maps)
    after = CartesianFourier(shape, mask, few_maps)
    scale = kspace.abs().amax((1, 2, 3), keepdim=True)[:, 0]
    assert torch.allclose(after.adjoint(few) / scale, before.adjoint(kspace) / scale, rtol=0, atol=1e-10)
    rss = [centred_ifft(k).abs().square().sum(1).sqrt() for k in (few, kspace)]
    assert torch.allclose(rss[0] / scale, rss[1] / scale, rtol=0, atol=1e-10)


def test_geometric_keeps_more_than_svd_and_varies_slowly() -> None:
    shape = (48, 40)
    maps, image = coil_maps(8, shape, distance=1.1), ellipses(shape)
    kspace = coil_kspace(image, maps)
    svd, geometric = (coil_compression(kspace, 3, method) for method in ("svd", "geometric"))
    assert 0.9 < float(svd.energy) < float(geometric.energy) < 1
    lost = kspace.abs().square().sum() - svd.of_kspace(kspace).abs().square().sum()
    assert float(lost / kspace.abs().square().sum()) == pytest.approx(1 - float(svd.energy), rel=1e-9)
    steps = torch.linalg.matrix_norm(geometric.matrices.diff(dim=0))
    inside = image.abs().amax(1) > 0.1
    assert float(steps[inside[1:] & inside[:-1]].max()) < 0.4


def test_readout_may_be_any_axis() -> None:
    kspace = random((5, 6, 7, 8), torch.complex128)
    assert coil_compression(kspace, 2, "geometric", dimensions=3, readout=-3).matrices.shape == (6, 2, 5)
    last = coil_compression(kspace, 2, "geometric", dimensions=3, readout=-1)
    turned = coil_compression(kspace.movedim(-1, -2), 2, "geometric", dimensions=3, readout=-2)
    assert torch.allclose(last.of_kspace(kspace).movedim(-1, -2), turned.of_kspace(kspace.movedim(-1, -2)))


def test_what_cannot_be_done_is_refused() -> None:
    noise, _ = coupled(4, 100)
    with pytest.raises(ValueError, match=r"expected a complex torch.Tensor, shape \(coils, samples\)"):
        noise_covariance(noise.real)
    with pytest.raises(ValueError, match="expected at least 4 samples for 4 coils, found 3"):
        noise_covariance(noise[:, :3])
    with pytest.raises(ValueError, match="expected positive factors, found 0"):
        noise_covariance(noise, dwell_ratio=0)
    with pytest.raises(ValueError, match=r"found a coil without noise, .* at number 2"):
        prewhiten(noise.unsqueeze(-1), noise * torch.tensor([1, 1, 0, 1])[:, None])
    with pytest.raises(ValueError, match=r"data: expected 4 coils, found 3 in \(3, 8, 8\)"):
        prewhiten(random((3, 8, 8), torch.complex128), noise)
    kspace = random((3, 8, 8), torch.complex128)
    with pytest.raises(ValueError, match="expected 1 to 3 virtual coils for 3 coils, found 4"):
        compress_coils(kspace, 4)
    with pytest.raises(ValueError, match="expected svd or geometric, found pca"):
        compress_coils(kspace, 2, "pca")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected an axis from -2 to -1, found -3"):
        coil_compression(kspace, 2, "geometric", readout=-3)
    kspace[:, 3, 4] = 0
    with pytest.raises(ValueError, match="expected complete readouts for geometric compression, found gaps"):
        compress_coils(kspace, 2, "geometric")
    noise[0, 0] = math.nan
    with pytest.raises(ValueError, match="expected finite values"):
        noise_covariance(noise)
