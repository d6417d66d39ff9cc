"""Smooth random fields: variance, smoothness, and the same field in parts and at any fineness."""

from __future__ import annotations

import pytest
import torch

from ctflow.smooth_fields import places, smooth_field, with_smooth_phase


def field(rows: torch.Tensor, columns: torch.Tensor, seed: int = 0, order: int = 4) -> torch.Tensor:
    return smooth_field(rows, columns, order, torch.Generator().manual_seed(seed))


def test_zero_mean_and_unit_variance() -> None:
    at = places(32)
    fields = torch.stack([field(at, at, seed) for seed in range(300)])
    assert float(fields.mean((-2, -1)).abs().max()) < 1e-5
    assert float(fields.square().mean()) == pytest.approx(1, rel=0.1)


def test_a_part_is_part_of_the_whole_and_a_finer_one_the_same() -> None:
    whole = field(places(20), places(24))
    part = field(places(7, of=20, first=3), places(9, of=24, first=10))
    assert torch.allclose(part, whole[3:10, 10:19], atol=1e-5)
    finer = field(places(40), places(48)).reshape(20, 2, 24, 2).mean((1, 3))
    assert torch.allclose(finer, whole, atol=0.05)


def test_order_bounds_the_frequencies() -> None:
    waves = torch.fft.rfft(
        torch.cat((field(places(64), places(64)), field(places(64), places(64)).flip(0))), dim=0
    )
    # Mirrored at its end, a cosine of k half waves is k whole waves of twice the length.
    assert float(waves[5:].abs().max()) < 1e-3 * float(waves.abs().max())


def test_phase_and_shading_leave_the_anatomy() -> None:
    magnitude = torch.rand(16, 16, generator=torch.Generator().manual_seed(0))

    def image(**amounts: float) -> torch.Tensor:
        at = places(16)
        return with_smooth_phase(magnitude, at, at, torch.Generator().manual_seed(3), **amounts)

    assert torch.allclose(image(shading=0.0).abs(), magnitude, atol=1e-6)
    constant = image(radians=0.0, shading=0.0)
    assert float((constant / magnitude).angle().std()) < 1e-5
    shaded = (image(shading=0.5).abs() / magnitude).log()
    assert 0 < float(shaded.std()) < 2.0
