"""Measures of volumes, against sums written out and against fastMRI's own where that is installed."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view

from ctflow.metrics import nmse, psnr
from ctflow.volume_metrics import complex_nmse, volume_nmse, volume_psnr, volume_quality, volume_ssim


@pytest.fixture
def volumes() -> tuple[torch.Tensor, torch.Tensor]:
    """Images and their truth, slices as different in brightness as those of a head."""
    generator = torch.Generator().manual_seed(0)
    brightness = torch.tensor([0.05, 1.0, 0.4]).reshape(3, 1, 1)
    truth = brightness * torch.rand(3, 26, 19, generator=generator)
    return (truth + 0.04 * torch.randn(truth.shape, generator=generator)).abs(), truth


def written_out_ssim(image: np.ndarray, truth: np.ndarray, extent: float) -> float:
    """Of one slice, window by window."""
    x, y = (sliding_window_view(a.astype(np.float64), (7, 7)).reshape(-1, 49) for a in (image, truth))
    means = x.mean(1), y.mean(1)
    variances = x.var(1, ddof=1), y.var(1, ddof=1)
    covariance = ((x - means[0][:, None]) * (y - means[1][:, None])).sum(1) / 48
    c1, c2 = (0.01 * extent) ** 2, (0.03 * extent) ** 2
    upper = (2 * means[0] * means[1] + c1) * (2 * covariance + c2)
    lower = (means[0] ** 2 + means[1] ** 2 + c1) * (variances[0] + variances[1] + c2)
    return float((upper / lower).mean())


def test_values_are_those_of_sums_over_the_volume(volumes) -> None:
    image, truth = (x.double().numpy() for x in volumes)
    error, peak = ((image - truth) ** 2), truth.max()
    assert volume_nmse(*volumes) == pytest.approx(error.sum() / (truth**2).sum(), rel=1e-12)
    assert volume_psnr(*volumes) == pytest.approx(10 * np.log10(peak**2 / error.mean()), rel=1e-12)
    similarity = [written_out_ssim(a, b, peak) for a, b in zip(image, truth, strict=True)]
    assert volume_ssim(*volumes) == pytest.approx(np.mean(similarity), rel=1e-9)


def test_values_are_those_of_fastmri_where_it_is_installed(volumes) -> None:
    evaluate = pytest.importorskip("fastmri.evaluate", exc_type=ImportError)
    image, truth = (x.numpy() for x in volumes)
    assert volume_nmse(*volumes) == pytest.approx(float(evaluate.nmse(truth, image)), rel=1e-5)
    assert volume_psnr(*volumes) == pytest.approx(float(evaluate.psnr(truth, image)), rel=1e-6)
    assert volume_ssim(*volumes) == pytest.approx(float(np.squeeze(evaluate.ssim(truth, image))), rel=1e-5)


def test_a_volume_is_not_the_mean_of_its_slices(volumes) -> None:
    assert volume_nmse(*volumes) < 0.2 * float(nmse(*volumes).mean())
    assert volume_psnr(*volumes) > float(psnr(*volumes).mean()) + 3


def test_nothing_is_normalised_by_the_prediction(volumes) -> None:
    image, truth = volumes
    assert volume_nmse(torch.zeros_like(truth), truth) == 1
    assert volume_nmse(3 * truth, truth) == pytest.approx(4, rel=1e-6)
    assert volume_psnr(100 * image, truth) < -30
    assert complex_nmse(3 * truth, truth) == pytest.approx(4, rel=1e-6)
    assert volume_psnr(truth, truth) == math.inf
    assert volume_ssim(truth, truth) == pytest.approx(1)


def test_complex_images_count_by_magnitude_and_by_themselves(volumes) -> None:
    image, truth = volumes
    phase = torch.exp(1j * torch.linspace(0, 9, truth.numel())).reshape(truth.shape)
    turned = torch.exp(1j * torch.tensor([1.0, -2.0, 0.3])).reshape(3, 1, 1)
    found = volume_quality(image * phase * turned, truth * phase)
    assert found.nmse == pytest.approx(volume_nmse(image, truth), rel=1e-5)
    assert found.ssim == pytest.approx(volume_ssim(image, truth), rel=1e-5)
    # The phase of a slice as a whole is open, that of its pixels is not.
    assert found.complex_nmse == pytest.approx(found.nmse, rel=1e-5)
    assert complex_nmse(image * phase * turned, truth * phase, keep_phase=True) > 0.1
    assert complex_nmse(image * phase, truth + 0j) > 0.1
    assert complex_nmse(0 * image, truth) == 1
    assert volume_quality(image, truth * phase).complex_nmse is None


def test_a_phase_that_is_fitted_is_the_best_one(volumes) -> None:
    image, truth = (x[1:2] * torch.exp(1j * x[1:2]) for x in volumes)
    turns = torch.exp(2j * math.pi * torch.arange(720) / 720)
    kept = [complex_nmse(turn * image, truth, keep_phase=True) for turn in turns]
    assert complex_nmse(image, truth) == pytest.approx(min(kept), rel=1e-3)
    assert complex_nmse(image, truth) <= min(kept)


def test_errors_name_what_was_found() -> None:
    with pytest.raises(ValueError, match=r"\(slices, height, width\), found \(4, 4\) and \(4, 4\)"):
        volume_nmse(torch.ones(4, 4), torch.ones(4, 4))
    with pytest.raises(ValueError, match="expected a volume that is not zero"):
        volume_psnr(torch.ones(1, 4, 4), torch.zeros(1, 4, 4))
    with pytest.raises(ValueError, match=r"at least 7 x 7 pixels, found \(4, 9\)"):
        volume_ssim(torch.ones(1, 4, 9), torch.ones(1, 4, 9))
    assert volume_quality(torch.ones(1, 4, 9), torch.ones(1, 4, 9)).ssim is None
