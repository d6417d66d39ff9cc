"""Counts to line integrals: what every format of counts shares."""

from __future__ import annotations

import math

import pytest
import torch

from ctflow.io.counts import check_transmission, gain_of_flats, measurement, odd_readings, photons_a_bin
from ctflow.io.errors import ScanError

NAN = float("nan")


def test_photons_follow_gain_or_what_is_given() -> None:
    open_beam, dark = torch.tensor([[[100.0, 0.0, -3.0]]]), pytest.approx(1e-20)
    assert photons_a_bin(open_beam, 0.5, None)[0, 0].tolist() == [200.0, dark, dark]
    assert photons_a_bin(open_beam, 0.5, 7.0)[0, 0].tolist() == [7.0, dark, dark]


def test_dead_bins_are_filled_and_empty_ones_lifted() -> None:
    transmission = torch.tensor([[[math.exp(-1), NAN, math.exp(-3), 0.0]]])
    photons = torch.tensor([[[100.0, 1e-20, 100.0, 100.0]]])
    measured, noise = measurement(transmission, photons)
    torch.testing.assert_close(measured[0, 0], torch.tensor([1.0, 2.0, 3.0, math.log(1000)]))
    assert torch.equal(noise.photons, photons)
    assert noise.smallest_count == 0.1
    assert odd_readings(transmission, photons, 5) == (
        "slice 5: 1 of 4 readings are at or below the dark field; taken for 0.1 photons",
        "slice 5: 1 bins see no beam; filled in and given no weight",
    )
    assert odd_readings(transmission[..., :1], photons[..., :1], 5) == ()


def test_counts_are_no_transmissions() -> None:
    check_transmission("scan.h5", "/data", torch.tensor([1.2]), 3)
    with pytest.raises(ScanError, match=r"/data: expected transmissions .*, found 900 in the slices from 3"):
        check_transmission("scan.h5", "/data", torch.tensor([900.0]), 3)


def test_gain_of_many_flats_and_of_few() -> None:
    random = torch.Generator().manual_seed(0)
    flats = 0.25 * torch.poisson(torch.full((4, 20, 100), 1000.0), generator=random)
    assumed: list[str] = []
    gain, words = gain_of_flats(flats, None, assumed)
    assert gain == pytest.approx(0.25, rel=0.1)
    assert words.startswith("Poisson, about ")
    assert "estimated from the spread of 20 flat frames" in assumed[0]
    assert gain_of_flats(flats[:, :2], None, assumed)[0] == 1.0
    assert assumed[1] == "counts: one for each photon"
