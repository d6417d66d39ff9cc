"""Transmission from counts."""

from __future__ import annotations

import pytest
import torch

from operators.ct.corrections import flat_field, open_beam_counts


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

    def test_a_beam_that_fades_during_the_scan(self) -> None:
        views, bins = 9, 6
        transmission = 0.2 + 0.7 * torch.rand(2, views, bins, generator=generator(), dtype=torch.float64)
        beam = 1000 + 50 * torch.arange(bins, dtype=torch.float64)
        time = torch.tensor([-2.0, -1.0, 9.0, 10.0], dtype=torch.float64)
        flats = (100 + beam * (1 - 0.02 * time[:, None])).expand(2, -1, -1)
        counts = 100 + transmission * beam * (1 - 0.02 * torch.arange(views))[:, None]
        darks = torch.full((2, 3, bins), 100.0, dtype=torch.float64)
        found = flat_field(counts, flats, darks, taken=time)
        torch.testing.assert_close(found, transmission)
        assert float((flat_field(counts, flats, darks) - transmission).abs().max()) > 0.05
        some = flat_field(counts[:, ::2], flats, darks, taken=time, views=range(0, views, 2))
        torch.testing.assert_close(some, transmission[:, ::2])

    def test_times_have_to_be_complete(self) -> None:
        counts, flats = torch.ones(4, 5), torch.ones(2, 5)
        with pytest.raises(ValueError, match="expected the times of both flats and views"):
            open_beam_counts(flats, taken=[0, 5])
        with pytest.raises(ValueError, match="views: expected 4 times, found 3"):
            flat_field(counts, flats, taken=[0, 5], views=[1, 2, 3])
