from __future__ import annotations

import math

import pytest
import torch

from operators.ct.corrections import (
    estimate_gain,
    fill_invalid,
    flat_field,
    line_integrals,
    open_beam_counts,
    remove_stripes,
)
from operators.ct.geometry import Detector, ParallelBeam
from tests.operators.ct.ellipses import phantom_sinogram


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class TestFlatField:
    def test_known_counts_give_known_transmission(self) -> None:
        flats = torch.tensor([[1000.0, 2000.0], [1200.0, 2200.0]])
        darks = torch.tensor([[90.0, 110.0], [110.0, 90.0], [100.0, 100.0]])
        counts = torch.tensor([[600.0, 1100.0], [100.0, 2100.0], [1100.0, 50.0]])
        expected = torch.tensor([[0.5, 0.5], [0.0, 1.0], [1.0, -0.025]])
        torch.testing.assert_close(flat_field(counts, flats, darks), expected)
        torch.testing.assert_close(open_beam_counts(flats, darks), torch.tensor([[1000.0, 2000.0]]))

    def test_batch_equals_loop_and_darks_are_zero_unless_given(self) -> None:
        counts, flats = (torch.rand(3, n, 5, generator=generator()) + 1 for n in (4, 2))
        loop = torch.stack([flat_field(c, f) for c, f in zip(counts, flats, strict=True)])
        torch.testing.assert_close(flat_field(counts, flats), loop)
        torch.testing.assert_close(flat_field(counts, flats), flat_field(counts, flats, torch.zeros(3, 1, 5)))

    def test_bins_without_beam_are_nan(self) -> None:
        transmission = flat_field(
            torch.full((4, 3), 7.0), torch.tensor([[10.0, 2.0, 1.0]]), torch.full((1, 3), 2.0)
        )
        assert transmission.isnan().all(0).tolist() == [False, True, True]

    @pytest.mark.parametrize(
        ("flats", "darks", "message"),
        [
            ((2, 6), None, r"flats: expected shape \('frames', 5\), found \(2, 6\)"),
            ((3, 2, 5), None, r"flats: expected shape \('frames', 5\), found \(3, 2, 5\)"),
            ((0, 5), None, r"flats: expected shape .* at least one frame, found \(0, 5\)"),
            ((2, 5), (0, 5), r"darks: expected shape .* at least one frame, found \(0, 5\)"),
            ((2, 5), (2, 4), r"darks: expected shape \('frames', 5\) as the flats, found \(2, 4\)"),
        ],
    )
    def test_mismatched_frames_are_refused(
        self, flats: tuple[int, ...], darks: tuple[int, ...] | None, message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            flat_field(torch.ones(4, 5), torch.ones(flats), None if darks is None else torch.ones(darks))


class TestLineIntegrals:
    def test_inverts_beer_and_lambert(self) -> None:
        clean = torch.rand(2, 6, 7, generator=generator(), dtype=torch.float64) * 3
        found, lifted = line_integrals(torch.exp(-clean), 1e4)
        assert lifted == 0
        torch.testing.assert_close(found, clean)

    def test_zero_and_negative_counts_are_lifted_and_counted(self) -> None:
        transmission = torch.tensor([[0.5, 0.0, -0.1, 1e-6, 2.0]])
        found, lifted = line_integrals(transmission, 4096.0, smallest_count=0.1)
        floor = math.log(4096 / 0.1)
        assert lifted == 3
        torch.testing.assert_close(found, torch.tensor([[math.log(2), floor, floor, floor, -math.log(2)]]))

    def test_photons_may_differ_from_bin_to_bin(self) -> None:
        photons = torch.tensor([[100.0, 1000.0]])
        found, lifted = line_integrals(torch.zeros(3, 2), photons)
        assert lifted == 6
        torch.testing.assert_close(found[0], torch.log(photons[0] / 0.1))

    def test_nan_stays_nan(self) -> None:
        found, lifted = line_integrals(torch.tensor([[math.nan, 1.0]]), 100.0)
        assert lifted == 0
        assert found.isnan().tolist() == [[True, False]]

    def test_the_floor_must_be_positive(self) -> None:
        with pytest.raises(ValueError, match="smallest_count: expected a positive number, found 0"):
            line_integrals(torch.ones(1, 2), 100.0, smallest_count=0)


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


class TestStripes:
    geometry = ParallelBeam.uniform(181, Detector(160, 0.4))

    def test_are_removed(self) -> None:
        clean = phantom_sinogram(self.geometry)
        stripes = torch.zeros(160, dtype=clean.dtype)
        stripes[[60, 77, 78, 90]] = torch.tensor([0.05, -0.04, -0.04, 0.08], dtype=clean.dtype)
        found = remove_stripes(clean + stripes)
        before, after = stripes.square().mean().sqrt(), (found - clean).mean(0).square().mean().sqrt()
        assert after < 0.3 * before

    def test_a_clean_sinogram_hardly_changes(self) -> None:
        clean = phantom_sinogram(self.geometry)
        change = (remove_stripes(clean) - clean).norm() / clean.norm()
        assert change < 0.005

    def test_batch_equals_loop_and_keeps_dtype(self) -> None:
        sinograms = torch.rand(2, 3, 12, 31, generator=generator())
        loop = torch.stack([torch.stack([remove_stripes(s, 5) for s in pair]) for pair in sinograms])
        found = remove_stripes(sinograms, 5)
        assert found.dtype == torch.float32
        assert torch.equal(found, loop)

    def test_non_contiguous_input(self) -> None:
        sinogram = torch.rand(31, 12, generator=generator()).T
        assert torch.equal(remove_stripes(sinogram, 5), remove_stripes(sinogram.contiguous(), 5))

    @pytest.mark.parametrize("width", [1, 4, 33])
    def test_an_impossible_width_is_refused(self, width: int) -> None:
        with pytest.raises(
            ValueError, match=f"width: expected an odd number from 3 to 31 bins, found {width}"
        ):
            remove_stripes(torch.zeros(12, 31), width)
