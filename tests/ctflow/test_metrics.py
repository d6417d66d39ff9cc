from __future__ import annotations

import math

import pytest
import torch

from ctflow.metrics import nmse, psnr, ssim


@pytest.fixture
def images() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    reference = torch.rand(2, 3, 24, 31, generator=generator)
    return reference + 0.1 * torch.randn(reference.shape, generator=generator), reference


def test_psnr_of_a_known_error() -> None:
    reference = torch.zeros(8, 8)
    reference[0, 0] = 2.0
    assert float(psnr(reference + 0.02, reference)) == pytest.approx(40.0, abs=1e-4)
    assert float(psnr(reference + 0.02, reference, data_range=0.2)) == pytest.approx(20.0, abs=1e-4)
    assert float(psnr(reference, reference)) == math.inf


def test_nmse_of_a_known_error() -> None:
    reference = torch.full((4, 4), 3.0)
    assert float(nmse(1.1 * reference, reference)) == pytest.approx(0.01, rel=1e-5)
    assert float(nmse(1.1 * reference.to(torch.complex64), reference.to(torch.complex64))) == pytest.approx(
        0.01, rel=1e-5
    )


@pytest.mark.parametrize("metric", [psnr, ssim, nmse])
def test_batch_is_a_loop(metric, images) -> None:
    image, reference = images
    values = metric(image, reference)
    assert values.shape == (2, 3)
    for i in range(2):
        for j in range(3):
            assert float(values[i, j]) == pytest.approx(
                float(metric(image[i, j], reference[i, j])), rel=1e-12
            )


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_no_change_of_unit_changes_a_metric(metric, images) -> None:
    image, reference = images
    torch.testing.assert_close(
        metric(image, reference), metric(0.02 * image, 0.02 * reference), rtol=1e-5, atol=0
    )


def test_ssim_is_one_for_the_same_and_falls_with_noise(images) -> None:
    image, reference = images
    torch.testing.assert_close(ssim(reference, reference), torch.ones(2, 3, dtype=torch.float64))
    assert bool((ssim(image, reference) < 1).all())
    assert bool((ssim(reference + 3 * (image - reference), reference) < ssim(image, reference)).all())


def test_one_range_for_each_image(images) -> None:
    image, reference = images
    ranges = torch.tensor([[1.0, 2.0, 4.0], [1.0, 2.0, 4.0]])
    difference = psnr(image, reference, data_range=ranges) - psnr(image, reference, data_range=1.0)
    torch.testing.assert_close(difference, 20 * torch.log10(ranges.double()))


def test_errors_name_what_was_found() -> None:
    with pytest.raises(ValueError, match=r"found \(4, 4\) and \(4, 5\)"):
        psnr(torch.zeros(4, 4), torch.zeros(4, 5))
    with pytest.raises(ValueError, match="data_range: expected above 0"):
        psnr(torch.zeros(4, 4), torch.zeros(4, 4))
    with pytest.raises(ValueError, match="at least 11 x 11"):
        ssim(torch.zeros(4, 4), torch.ones(4, 4))
