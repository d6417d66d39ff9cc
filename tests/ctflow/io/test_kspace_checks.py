"""Whether samples look like k-space, at any size and sampling."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ctflow.io.errors import ScanError
from ctflow.io.kspace_checks import check_axes, check_centre, check_mask, looks_like_kspace
from tests.ctflow.io.measured_kspace import complex_noise, head_image, smooth_maps, to_kspace

PATH = Path("scan.h5")


def kspace(height: int, width: int) -> Tensor:
    return torch.from_numpy(to_kspace(head_image(height, width)[:, None] * smooth_maps(3, height, width)))


@pytest.mark.parametrize("shape", [(24, 24), (33, 47), (128, 64)])
def test_what_is_centred_passes_and_what_is_not_is_named(shape: tuple[int, int]) -> None:
    samples = kspace(*shape)
    check_centre(PATH, "kspace", samples, 0)
    assert looks_like_kspace(samples[0])
    for every in (2, 3, 4):
        lines = torch.zeros(shape[1], dtype=torch.bool)
        lines[shape[1] // 2 % every :: every] = True
        check_centre(PATH, "kspace", samples * lines, 0)
    unshifted = torch.fft.ifftshift(samples, (-2, -1))
    with pytest.raises(ScanError, match=r"found slice 7 with its energy .* unshifted FFT; apply fftshift"):
        check_centre(PATH, "kspace", unshifted, 7)
    moved = samples.roll(shape[0] // 3, -2)
    with pytest.raises(ScanError, match="are the axes in another order, or shifted"):
        check_centre(PATH, "kspace", moved, 0)


def test_volumes_are_checked_along_all_axes() -> None:
    volume = torch.from_numpy(to_kspace(head_image(24, 24, 16)[None], (-3, -2, -1)))[None]
    check_centre(PATH, "kspace", volume, 0)
    with pytest.raises(ScanError, match="about index 8, 12, 12, found"):
        check_centre(PATH, "kspace", volume.roll(8, 2), 0)


def test_noise_and_images_are_not_refused() -> None:
    noise = torch.from_numpy(complex_noise((1, 3, 32, 32)).astype(np.complex64))
    for samples in (noise, 0 * noise, torch.from_numpy(head_image(32, 32))[:, None]):
        check_centre(PATH, "kspace", samples, 0)
        assert not looks_like_kspace(samples[0])


def test_masks_that_say_otherwise() -> None:
    samples, mask = kspace(20, 24), (torch.arange(24) % 2 == 0).reshape(1, 1, 24)
    check_mask(PATH, "mask", samples * mask, mask)
    check_mask(PATH, "mask", 0 * samples, mask)
    with pytest.raises(
        ScanError, match="240 samples other than zero where the mask says that there are none"
    ):
        check_mask(PATH, "mask", samples, mask)
    with pytest.raises(ScanError, match="found zeros in 75 % of the samples that the mask names"):
        check_mask(
            PATH, "mask", samples * (torch.arange(24) % 4 == 0), torch.ones(1, 1, 24, dtype=torch.bool)
        )


def test_coils_in_the_place_of_pixels() -> None:
    check_axes(PATH, "kspace", 15, (640, 372))
    with pytest.raises(ScanError, match="found 640 coils of 15 x 372 samples"):
        check_axes(PATH, "kspace", 640, (15, 372))
