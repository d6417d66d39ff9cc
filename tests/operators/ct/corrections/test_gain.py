"""Counts for a photon."""

from __future__ import annotations

import pytest
import torch

from operators.ct.corrections import estimate_gain


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class TestGain:
    @pytest.mark.parametrize("gain", [0.02, 0.65, 7.0])
    def test_is_found_in_flickering_flats_with_odd_bins(self, gain: float) -> None:
        bins, frames = 600, 10
        brightness = 1 + 0.05 * torch.randn(frames, 1, generator=generator())
        expected = (2e4 + 1e4 * torch.rand(bins, generator=generator(1))) * brightness
        darks = 100 + 2 * torch.randn(frames, bins, generator=generator(2))
        electronic = 2 * torch.randn(frames, bins, generator=generator(4))
        flats = gain * torch.poisson(expected, generator=generator(3)) + 100 + electronic
        flats[:, 5] = 0  # a dead bin
        flats[3, 7] = 1e6  # a zinger
        assert estimate_gain(flats, darks) == pytest.approx(gain, rel=0.08)
        assert estimate_gain(torch.stack([flats, flats]), torch.stack([darks, darks])) == pytest.approx(
            gain, rel=0.08
        )

    @pytest.mark.parametrize(
        "flats",
        [torch.rand(2, 9) + 1, torch.full((5, 9), 100.0), torch.zeros(5, 9)],
        ids=["two", "same", "no"],
    )
    def test_is_none_where_the_frames_do_not_tell(self, flats: torch.Tensor) -> None:
        assert estimate_gain(flats) is None
