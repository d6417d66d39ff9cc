"""Column masks against lists of columns that fastMRI's own package gave, and against that package."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from operators.mri.column_masks import equispaced_mask, magic_mask, random_mask
from operators.mri.sampling_pattern import SamplingMask

# Sampled columns of 40 with acceleration 4, centre fraction 0.1 and seed (7, 1), and of 41 with 4, 0.08 and
# 12: the masks of fastmri 0.3.0, called as mask_func((1, 10, width, 2), seed=seed).
KINDS = {
    "RandomMaskFunc": (
        random_mask,
        {},
        [6, 11, 16, 18, 19, 20, 21, 28, 31, 37, 39],
        [0, 4, 7, 9, 14, 19, 20, 21, 22, 23],
    ),
    "EquiSpacedMaskFunc": (
        equispaced_mask,
        {},
        [0, 4, 8, 12, 16, 18, 19, 20, 21, 24, 28, 32, 36],
        [3, 7, 11, 15, 19, 20, 21, 23, 27, 31, 35, 39],
    ),
    "EquispacedMaskFractionFunc": (
        equispaced_mask,
        {"keep_fraction": True},
        [4, 10, 16, 18, 19, 20, 21, 22, 28, 34],
        [3, 8, 13, 19, 20, 21, 24, 29, 34, 40],
    ),
    "MagicMaskFunc": (
        magic_mask,
        {},
        [1, 5, 9, 13, 17, 18, 19, 20, 21, 25, 29, 33, 37],
        [1, 5, 9, 13, 17, 19, 20, 21, 25, 29, 33, 37],
    ),
    "MagicMaskFractionFunc": (
        magic_mask,
        {"keep_fraction": True},
        [6, 13, 18, 19, 20, 21, 25, 32, 39],
        [5, 11, 17, 19, 20, 21, 25, 31, 37],
    ),
}


def columns(mask: SamplingMask) -> list[int]:
    return mask.mask.nonzero().flatten().tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_columns_are_those_of_fastmri(kind: str) -> None:
    make, settings, even, odd = KINDS[kind]
    assert columns(make(40, 4, 0.1, (7, 1), **settings)) == even
    assert columns(make(41, 4, 0.08, 12, **settings)) == odd


@pytest.mark.parametrize("kind", KINDS)
def test_columns_are_those_of_the_package_where_it_is_installed(kind: str) -> None:
    subsample = pytest.importorskip("fastmri.data.subsample", exc_type=ImportError)
    make, settings, _, _ = KINDS[kind]
    for width in (320, 368, 372, 41):
        for acceleration, fraction in ((4, 0.08), (8, 0.04)):
            for seed in (0, 123, (102, 105, 108, 101)):
                expected, low = getattr(subsample, kind)([fraction], [acceleration])(
                    (1, 9, width, 2), seed=seed
                )
                found = make(width, acceleration, fraction, seed, **settings)
                assert torch.equal(found.mask, expected.reshape(-1).bool())
                assert int(found.calibration.sum()) == low


def test_accelerations_are_those_of_what_is_sampled() -> None:
    mask = equispaced_mask(320, 4, 0.08, 0, offset=1)
    assert columns(mask)[:3] == [1, 5, 9]
    centre = round(0.08 * 320)
    assert int(mask.calibration.sum()) == centre
    assert mask.acceleration == 320 / int(mask.mask.sum()) < 4
    assert mask.acceleration_outside == pytest.approx(4, rel=0.03)
    kept = equispaced_mask(320, 4, 0.08, 0, offset=1, keep_fraction=True)
    assert kept.acceleration == pytest.approx(4, rel=0.02)
    assert kept.acceleration_outside > 5
    assert equispaced_mask(8, 1, 0, 0).acceleration == 1
    everything = torch.ones(4, dtype=torch.bool)
    assert SamplingMask(everything, everything).acceleration_outside == float("inf")


def test_mirror_images_of_magic_columns_fall_between_the_others() -> None:
    mask = magic_mask(64, 4, 0.0, 5).mask
    mirrored = torch.roll(mask.flip(0), 1)
    assert not bool((mask & mirrored).any())
    assert 15 <= int(mask.sum()) <= 16


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: random_mask(40, 8, 0.2, 0), "centre_fraction: expected at most 0.125 for acceleration 8"),
        (lambda: equispaced_mask(40, 4.5, 0.1, 0), "expected a whole number for a true stride, found 4.5"),
        (
            lambda: equispaced_mask(40, 4, 0.3, 0, keep_fraction=True),
            "centre_fraction: expected less than 0.25",
        ),
        (lambda: magic_mask(40, 8, 0.2, 0, keep_fraction=True), "centre_fraction: expected less than 0.125"),
        (lambda: random_mask(40, 0.5, 0.1, 0), "acceleration: expected at least 1, found 0.5"),
        (
            lambda: random_mask(40, 4, 1.5, 0),
            "centre_fraction: expected 0 or more and less than 1, found 1.5",
        ),
    ],
)
def test_what_cannot_be_is_refused(make: Callable[[], SamplingMask], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
