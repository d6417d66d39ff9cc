"""Line integrals from transmission."""

from __future__ import annotations

import math

import pytest
import torch

from operators.ct.corrections import line_integrals


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


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
