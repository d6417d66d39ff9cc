"""Bad bins: found and filled."""

from __future__ import annotations

import math

import pytest
import torch

from operators.ct.corrections import fill_invalid, find_bad_bins, find_bad_stripes, repair_bins
from operators.ct.geometry import Detector, ParallelBeam
from tests.operators.ct.ellipses import phantom_sinogram


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class TestFillInvalid:
    def test_interpolates_between_valid_neighbours(self) -> None:
        nan = math.nan
        sinogram = torch.tensor(
            [[nan, 1.0, nan, nan, 4.0, math.inf], [nan] * 6, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]]
        )
        filled, invalid = fill_invalid(sinogram)
        expected = torch.tensor([[1.0, 1.0, 2.0, 3.0, 4.0, 4.0], [0.0] * 6, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]])
        torch.testing.assert_close(filled, expected)
        assert torch.equal(invalid, ~torch.isfinite(sinogram))

    def test_leaves_valid_data_alone(self) -> None:
        sinogram = torch.rand(2, 3, 4, generator=generator())
        filled, invalid = fill_invalid(sinogram)
        assert torch.equal(filled, sinogram)
        assert not invalid.any()


class TestBadBins:
    def frames(self, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        bins = 300
        profile = 2e4 * (1 - 0.3 * torch.linspace(-1, 1, bins) ** 2)
        gains = 1 + 0.02 * torch.randn(bins, generator=generator(seed))
        flicker = 1 + 0.03 * torch.randn(12, 1, generator=generator(seed + 1))
        flats = torch.poisson(profile * gains * flicker, generator=generator(seed + 2)) + 100
        return flats, 100 + 2 * torch.randn(6, bins, generator=generator(seed + 3))

    def test_hot_dead_and_restless_bins_are_found_and_no_others(self) -> None:
        flats, darks = self.frames()
        flats[:, 20] = 100  # sees nothing
        flats[:, 77] = 100 + 0.4 * (flats[:, 77] - 100)
        darks[:, 150] += 9000
        flats[:, 150] += 9000
        flats[:, 222] += 3000 * torch.randn(12, generator=generator(9))
        flats[:, 299] = 65535
        found = find_bad_bins(flats, darks)
        assert torch.nonzero(found)[:, 0].tolist() == [20, 77, 150, 222, 299]
        batch = find_bad_bins(
            torch.stack((flats, self.frames(7)[0])), torch.stack((darks, self.frames(7)[1]))
        )
        assert torch.equal(batch[0], found)
        assert not batch[1].any()

    def test_few_and_equal_frames(self) -> None:
        flats = torch.full((2, 40), 1000.0)
        assert not find_bad_bins(flats).any()
        flats[:, 3] = 0
        assert torch.nonzero(find_bad_bins(flats))[:, 0].tolist() == [3]

    def test_bad_arguments(self) -> None:
        with pytest.raises(ValueError, match=r"expected flats of shape .* found shape \(0, 5\)"):
            find_bad_bins(torch.ones(0, 5))
        with pytest.raises(ValueError, match="positive deviations"):
            find_bad_bins(torch.ones(2, 5), deviations=0)


class TestBadStripes:
    def test_dead_and_restless_bins_show_in_the_sinogram(self) -> None:
        clean = phantom_sinogram(ParallelBeam.uniform(120, Detector(160, 0.4))).float()
        sinogram = clean + 0.01 * torch.randn(clean.shape, generator=generator())
        assert not find_bad_stripes(sinogram).any()
        sinogram[:, 60] = 0.2
        sinogram[:, 101] += 0.3 * torch.randn(120, generator=generator(1))
        found = find_bad_stripes(sinogram)
        assert torch.nonzero(found)[:, 0].tolist() == [60, 101]
        repaired = repair_bins(sinogram, found)
        error = (repaired - clean)[:, found].abs()
        assert float(error.median()) < 0.015
        assert torch.equal(repaired[:, ~found], sinogram[:, ~found])

    def test_bad_arguments(self) -> None:
        with pytest.raises(ValueError, match=r"at least 9 views .* found shape \(8, 30\)"):
            find_bad_stripes(torch.ones(8, 30))
        with pytest.raises(ValueError, match=r"a ratio above 1, found .* 1\.0"):
            find_bad_stripes(torch.ones(9, 30), ratio=1.0)
        with pytest.raises(
            ValueError, match=r"bad: expected bool of shape \(30,\), found torch.bool of \(29,\)"
        ):
            repair_bins(torch.ones(9, 30), torch.zeros(29, dtype=torch.bool))
