"""The fully sampled centre is found, wherever it lies and whatever surrounds it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from operators.mri.calibration import calibration_data, calibration_region, patches
from tests.operators.examples import random


def sampled(shape: tuple[int, ...], *boxes: tuple[slice, ...]) -> Tensor:
    """K-space of three coils, sampled in boxes."""
    mask = torch.zeros(shape)
    for box in boxes:
        mask[box] = 1
    return random((3, *shape), torch.complex64) * mask


@pytest.mark.parametrize("width", [20, 21])
@pytest.mark.parametrize("lines", [(7, 13), (8, 13), (10, 11), (3, 12)])
def test_block_of_columns(width: int, lines: tuple[int, int]) -> None:
    block = slice(*lines)
    every_other = (slice(None), slice(0, None, 4))
    if lines[0] % 4 == 1 or lines[1] % 4 == 0:
        every_other = (slice(None), slice(2, None, 4))
    kspace = sampled((9, width), (slice(None), block), every_other)
    grown = calibration_region(kspace)
    mask = (kspace != 0).any(0)[0]
    start, stop = lines
    while start > 0 and mask[start - 1]:
        start -= 1
    while stop < width and mask[stop]:
        stop += 1
    assert grown == (slice(0, 9), slice(start, stop))


def test_largest_size_is_kept_to_and_the_box_stays_centred() -> None:
    kspace = sampled((40, 31), (slice(None), slice(None)))
    assert calibration_region(kspace, 24) == (slice(8, 32), slice(3, 27))
    assert calibration_region(kspace, (5, 6)) == (slice(18, 23), slice(12, 18))
    assert calibration_region(kspace, 100) == (slice(0, 40), slice(0, 31))


def test_volumes_and_corners() -> None:
    kspace = sampled((8, 10, 12), (slice(2, 7), slice(3, 7), slice(4, 8)))
    assert calibration_region(kspace, dimensions=3) == (slice(2, 7), slice(3, 7), slice(4, 8))
    # Without its corners a box is smaller on that side alone.
    kspace = sampled((8, 8), (slice(2, 7), slice(2, 7)))
    kspace[:, 6, 6] = 0
    found = calibration_region(kspace)
    assert found in ((slice(2, 6), slice(2, 7)), (slice(2, 7), slice(2, 6)))


def test_a_batch_has_the_region_in_common() -> None:
    wide, narrow = (
        sampled((8, 16), (slice(None), slice(4, 12))),
        sampled((8, 16), (slice(None), slice(6, 11))),
    )
    assert calibration_region(torch.stack((wide, narrow))) == (slice(0, 8), slice(6, 11))
    assert calibration_region(torch.stack((wide, torch.zeros_like(wide)))) == (slice(0, 8), slice(4, 12))


def test_one_silent_coil_is_not_a_gap() -> None:
    kspace = sampled((8, 8), (slice(None), slice(None)))
    kspace[1] = 0
    assert calibration_region(kspace) == (slice(0, 8), slice(0, 8))


def test_patches_are_rows_of_all_coils() -> None:
    data = random((2, 3, 5, 6), torch.complex128)
    rows = patches(data, (2, 3))
    assert rows.shape == (2, 4 * 4, 3 * 2 * 3)
    for index, (y, x) in enumerate((y, x) for y in range(4) for x in range(4)):
        assert torch.equal(rows[:, index], data[:, :, y : y + 2, x : x + 3].flatten(1))
    volume = random((2, 4, 5, 6), torch.complex128)
    assert torch.equal(patches(volume, (4, 2, 6))[1], volume[:, :, 1:3].flatten())


def test_what_has_no_centre_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"expected a measured centre, at \(4, 5\) of \(8, 10\), found zeros"
    ):
        calibration_region(sampled((8, 10), (slice(None), slice(0, 3))))
    with pytest.raises(ValueError, match=r"coils and 2 axes after them, found shape \(8, 8\)"):
        calibration_region(torch.zeros(8, 8, dtype=torch.complex64))
    with pytest.raises(ValueError, match=r"at_most: expected one size or 2, at least 1, found \(1, 2, 3\)"):
        calibration_region(sampled((8, 8), (slice(None),)), (1, 2, 3))
    with pytest.raises(ValueError, match=r"at least the kernel's \(5, 5\), found \(8, 4\)"):
        calibration_data(sampled((8, 8), (slice(None), slice(2, 6))), 24, (5, 5))
