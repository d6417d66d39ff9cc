"""Cropping and padding about the centre, for odd and even sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ctflow.io.kspace_grid import centre_crop, centre_pad, crop_readout
from tests.ctflow.io.measured_kspace import complex_noise, to_image, to_kspace


@pytest.mark.parametrize(("large", "small"), [(9, 4), (9, 5), (8, 4), (8, 5), (6, 6)])
def test_the_centre_stays_and_padding_undoes_nothing_of_it(large: int, small: int) -> None:
    values = torch.arange(1.0, large + 1).expand(3, large)
    cropped = centre_crop(values, (small,))
    assert cropped[0, small // 2] == values[0, large // 2]
    padded = centre_pad(cropped, (large,))
    assert padded.shape == values.shape
    assert torch.equal(padded[padded != 0], values[padded != 0])


@pytest.mark.parametrize("width", [16, 15])
def test_oversampling_is_cropped_in_the_image(width: int) -> None:
    kspace = complex_noise((2, 6, 2 * width)).astype(np.complex64)
    start = width - width // 2
    expected = to_kspace(to_image(kspace)[..., start : start + width])
    found = crop_readout(torch.from_numpy(kspace), -1, width)
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=1e-4, atol=1e-5)
    along_rows = crop_readout(torch.from_numpy(kspace).transpose(-1, -2), -2, width)
    torch.testing.assert_close(along_rows.transpose(-1, -2), found)


def test_white_noise_keeps_its_level() -> None:
    noise = torch.from_numpy(complex_noise((1, 64, 256)).astype(np.complex64))
    assert float(crop_readout(noise, -1, 128).abs().square().mean()) == pytest.approx(1, abs=0.03)
