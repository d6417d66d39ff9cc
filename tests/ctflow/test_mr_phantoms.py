"""Imagined magnetic resonance images: reproducible, of any size, of stated contrasts."""

from __future__ import annotations

import pytest
import torch

from ctflow.mr_phantoms import CONTRASTS, MR_KINDS, random_mr_anatomy


@pytest.mark.parametrize("kind", MR_KINDS)
def test_a_seed_is_a_body_and_a_phase_at_any_size(kind: str) -> None:
    coarse, fine = (random_mr_anatomy(3, (size, size), kind=kind) for size in (64, 256))
    assert fine.dtype == torch.complex64
    assert torch.equal(fine, random_mr_anatomy(3, (256, 256), kind=kind))
    assert not torch.equal(fine, random_mr_anatomy(4, (256, 256), kind=kind))
    averaged = torch.nn.functional.avg_pool2d(torch.view_as_real(fine).movedim(-1, 0), 4)
    difference = (torch.complex(*averaged) - coarse).abs().mean()
    # Convolutions are as thin as a coarse pixel.
    assert float(difference) < 0.25 * float(coarse.abs().mean())


@pytest.mark.parametrize("kind", MR_KINDS)
def test_magnitudes_are_signals_on_no_background(kind: str) -> None:
    for seed in range(3):
        magnitude = random_mr_anatomy(seed, (97, 96), kind=kind).abs()
        assert magnitude.shape == (97, 96)
        assert 0.5 < float(magnitude.max()) < 4
        border = torch.cat((magnitude[0], magnitude[-1], magnitude[:, 0], magnitude[:, -1]))
        assert float(border.max()) == 0.0


def test_fluid_is_bright_in_t2_and_dark_in_flair() -> None:
    t2, flair = (random_mr_anatomy(1, (128, 128), kind="brain", contrast=c).abs() for c in ("T2", "FLAIR"))
    ventricle = t2 > 0.9 * t2.quantile(0.99)
    assert float(flair[ventricle].median()) < 0.5 * float(t2[ventricle].median())


def test_white_matter_is_brighter_than_grey_in_t1_only() -> None:
    assert CONTRASTS["T1"].white > CONTRASTS["T1"].grey > CONTRASTS["T1"].fluid
    assert CONTRASTS["T2"].white < CONTRASTS["T2"].grey < CONTRASTS["T2"].fluid


def test_unknown_kinds_and_contrasts() -> None:
    with pytest.raises(ValueError, match="kind: expected one of brain, head, chest, abdomen, found 'foot'"):
        random_mr_anatomy(0, kind="foot")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="contrast: expected one of T1, T2, FLAIR, PD, found 'T3'"):
        random_mr_anatomy(0, contrast="T3")
