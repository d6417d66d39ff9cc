"""Adaptive combination finds maps up to a phase, and the image that they see."""

from __future__ import annotations

import math

import pytest
import torch

from operators.mri import adaptive, centred_ifft
from operators.mri.adaptive import adaptive_combine, adaptive_maps, calibration_images
from tests.operators.examples import random
from tests.operators.mri.receive_coils import coil_kspace, coil_maps, ellipses


def test_maps_and_image_of_noisy_coils() -> None:
    shape = (64, 49)
    truth, image = coil_maps(6, shape), ellipses(shape)
    noisy = truth * image + 0.01 * random((6, *shape), torch.complex128)
    found, maps = adaptive_combine(noisy, block=5)
    inside = image.abs() > 0.1
    agreement = (maps.conj() * truth).sum(0).abs()[inside]
    assert float(agreement.mean()) > 0.999
    assert float(agreement.min()) > 0.97
    assert torch.allclose(maps.abs().square().sum(0), torch.ones(shape, dtype=torch.float64), atol=1e-12)
    # Against root sum of squares, whose noise adds up over the coils.
    error = (found.abs() - image.abs())[inside].square().mean().sqrt()
    rss = noisy.abs().square().sum(0).sqrt()
    assert float(error) < 0.015
    background = ~torch.nn.functional.max_pool2d(inside[None].double(), 15, 1, 7)[0].bool()
    assert float(found.abs()[background].mean()) < 0.9 * float(rss[background].mean())


def test_covariance_is_that_of_the_block() -> None:
    """Against the definition, at a corner, an edge and inside."""
    image = random((3, 9, 8), torch.complex128)
    maps = adaptive_maps(image, block=3)
    for y, x in ((0, 0), (4, 7), (5, 4)):
        samples = image[:, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2].flatten(1)
        values, vectors = torch.linalg.eigh(samples @ samples.mH)
        if values[-2] / values[-1] < 0.4:
            overlap = (vectors[:, -1].conj() * maps[:, y, x]).sum().abs()
            assert float(overlap) == pytest.approx(1, abs=1e-3)


def test_batches_scale_rows_and_volumes(monkeypatch: pytest.MonkeyPatch) -> None:
    images = random((2, 1, 3, 10, 7), torch.complex128)
    both = adaptive_maps(images * torch.tensor([1, 1e-9]).reshape(2, 1, 1, 1, 1))
    assert torch.allclose(both[1, 0], adaptive_maps(images[1, 0]), rtol=0, atol=1e-9)
    monkeypatch.setitem(adaptive._BYTES_AT_ONCE, "cpu", 1)
    assert torch.allclose(adaptive_maps(images), both, rtol=0, atol=1e-9)
    # A volume of equal slices has the maps of each.
    volume = coil_maps(3, (9, 8)).unsqueeze(1).expand(3, 5, 9, 8) * ellipses((9, 8)).add(1e-3)
    flat = adaptive_maps(volume[:, 2], block=3)
    assert torch.allclose(adaptive_maps(volume, block=3, dimensions=3)[:, 1], flat, rtol=0, atol=1e-9)


def test_calibration_images_are_smooth_and_enough_for_maps() -> None:
    shape = (64, 64)
    truth, image = coil_maps(6, shape), ellipses(shape)
    kspace = coil_kspace(image, truth, std=1e-3)
    mask = torch.zeros(64, dtype=torch.float64)
    mask[::4] = mask[20:44] = 1
    low = calibration_images(kspace * mask)
    assert low.shape == kspace.shape
    # What is smooth within the window stays: the mean over the image.
    assert torch.allclose(low.mean((-2, -1)), centred_ifft(kspace).mean((-2, -1)), rtol=0.02)
    agreement = (adaptive_maps(low, block=3).conj() * truth).sum(0).abs()[image.abs() > 0.1]
    assert float(agreement.mean()) > 0.999


def test_what_has_no_maps_is_refused() -> None:
    images = random((3, 8, 8), torch.complex64)
    with pytest.raises(ValueError, match="coil_images: expected a complex"):
        adaptive_maps(images.abs())
    with pytest.raises(ValueError, match="block: expected an odd number of pixels, found 4"):
        adaptive_maps(images, block=4)
    with pytest.raises(ValueError, match="dimensions: expected 2 or 3, found 1"):
        adaptive_maps(images, dimensions=1)
    images[0, 0, 0] = math.nan
    with pytest.raises(ValueError, match="coil_images: expected finite values"):
        adaptive_maps(images)
