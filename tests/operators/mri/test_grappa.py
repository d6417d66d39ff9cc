"""Missing lines are filled with what was there."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from operators.mri import centred_ifft
from operators.mri.grappa import grappa
from tests.operators.examples import random
from tests.operators.mri.receive_coils import coil_kspace, coil_maps, ellipses


def lines(width: int, acceleration: int, centre: int, first: int = 0) -> Tensor:
    mask = torch.zeros(width, dtype=torch.float64)
    mask[first::acceleration] = 1
    mask[width // 2 - centre // 2 : width // 2 - centre // 2 + centre] = 1
    return mask


def error(found: Tensor, truth: Tensor) -> float:
    """Of root-sum-of-squares images, relative to the largest value, in dB."""
    images = [centred_ifft(k).abs().square().sum(0).sqrt() for k in (found, truth)]
    return float(10 * torch.log10((images[0] - images[1]).square().mean() / images[1].max() ** 2))


@pytest.mark.parametrize(
    ("shape", "acceleration", "first"), [((64, 64), 2, 0), ((45, 63), 2, 1), ((64, 66), 3, 2)]
)
def test_equispaced_lines(shape: tuple[int, int], acceleration: int, first: int) -> None:
    kspace = coil_kspace(ellipses(shape), coil_maps(8, shape), std=1e-4)
    mask = lines(shape[1], acceleration, 20, first)
    found = grappa(kspace * mask)
    assert torch.equal(found * mask, kspace * mask)
    assert bool((found[:, :, mask == 0] != 0).any(0).all())
    assert error(found, kspace) < error(kspace * mask, kspace) - 15
    assert error(found, kspace) < -40


def test_a_rule_that_holds_everywhere_is_learned_exactly() -> None:
    """K-space of coils that are shifts of one: the lines of the others are those of the first."""
    one = random((12, 43), torch.complex128)
    kspace = torch.stack([one[:, 2:42], one[:, 1:41], one[:, 3:43]])
    mask = lines(40, 2, 14)
    found = grappa(kspace * mask, kernel=(1, 2), regularisation=1e-10)
    # Columns with measured neighbours on both sides.
    assert torch.allclose(found[0, :, 1:-1], kspace[0, :, 1:-1], rtol=0, atol=1e-7)


def test_lines_at_random_and_noise_is_not_blown_up() -> None:
    shape = (48, 64)
    kspace = coil_kspace(ellipses(shape), coil_maps(8, shape), std=0.01)
    mask = lines(64, 64, 20)
    mask[torch.rand(64, generator=torch.Generator().manual_seed(2)) < 0.6] = 1
    found = grappa(kspace * mask)
    assert error(found, kspace) < error(kspace * mask, kspace) - 4


def test_batches_scale_and_dtype() -> None:
    shape = (32, 40)
    kspace = coil_kspace(ellipses(shape), coil_maps(4, shape), std=1e-4)
    masks = torch.stack([lines(40, 2, 16), lines(40, 3, 16)])
    undersampled = kspace * masks[:, None, None]
    found = grappa(undersampled)
    for each, one in zip(found, undersampled, strict=True):
        assert torch.allclose(each, grappa(one), rtol=0, atol=1e-12)
    single = grappa((1e-6 * undersampled).to(torch.complex64))
    assert single.dtype == torch.complex64
    assert torch.allclose(1e6 * single, found.to(torch.complex64), rtol=0, atol=1e-4)
    assert not grappa(torch.zeros_like(undersampled)).any()


def test_padding_stays_zero() -> None:
    """Beyond the last measured line, only what a gap between lines is wide is filled."""
    shape = (32, 48)
    kspace = coil_kspace(ellipses(shape), coil_maps(6, shape))
    mask = lines(48, 3, 16)
    mask[:8] = mask[42:] = 0
    measured = mask.nonzero().flatten()
    found = grappa(kspace * mask)
    filled = (found != 0).any(0).any(0).nonzero().flatten()
    assert filled.tolist() == list(range(int(measured[0]) - 2, int(measured[-1]) + 3))


def test_what_cannot_be_filled_is_refused() -> None:
    kspace = coil_kspace(ellipses((24, 32)), coil_maps(4, (24, 32)))
    with pytest.raises(ValueError, match="expected whole lines along the height"):
        grappa(kspace * (random((24, 32), torch.float64) > 0).logical_or(lines(32, 2, 8).bool()))
    with pytest.raises(ValueError, match=r"expected a centre wide enough to learn line 1 .* found 1 lines"):
        grappa(kspace * lines(32, 4, 1))
    with pytest.raises(ValueError, match=r"kernel: expected an odd number up to 24 .* found \(4, 2\)"):
        grappa(kspace, kernel=(4, 2))
    with pytest.raises(ValueError, match=r"found 24, 0"):
        grappa(kspace, regularisation=0)
    assert torch.equal(grappa(kspace), kspace)
    kspace[0, 3, 3] = math.nan
    with pytest.raises(ValueError, match="expected finite values"):
        grappa(kspace)
