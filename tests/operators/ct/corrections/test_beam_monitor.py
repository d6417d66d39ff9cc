"""Flicker divided out."""

from __future__ import annotations

import pytest
import torch

from operators.ct.corrections import beam_from_air, normalise_beam


def test_flicker_of_the_beam_is_divided_out() -> None:
    generator = torch.Generator().manual_seed(0)
    steady = 500 + 400 * torch.rand(3, 20, 7, generator=generator)
    beam = 1 + 0.3 * torch.rand(3, 20, generator=generator)
    counts = 50 + steady * beam[..., None]
    torch.testing.assert_close(normalise_beam(counts, 7 * beam, 7.0, dark=50.0), 50 + steady)
    torch.testing.assert_close(normalise_beam(counts[0], beam[0], 1.0, dark=50.0), 50 + steady[0])
    # Without a reference the mean of the monitor is one: the mean beam stays.
    same = normalise_beam(torch.ones(3, 20, 7) * beam[..., None], beam)
    torch.testing.assert_close(same, beam.mean(-1)[:, None, None].expand(3, 20, 7))


def test_air_beside_the_object_is_a_monitor() -> None:
    generator = torch.Generator().manual_seed(0)
    true = torch.exp(-torch.rand(30, 40, generator=generator))
    air = torch.zeros(40, dtype=torch.bool)
    air[:6] = air[-6:] = True
    true[:, air] = 1
    beam = 1 + 0.1 * torch.randn(30, generator=generator)
    seen = true * beam[:, None]
    seen[4, 0] = 50.0  # a zinger in the air
    monitor = beam_from_air(seen, air)
    torch.testing.assert_close(monitor, beam)
    torch.testing.assert_close(normalise_beam(seen, monitor, 1.0)[5:], true[5:])


def test_bad_readings() -> None:
    counts = torch.ones(4, 5)
    for monitor, message in (
        (torch.ones(5), r"monitor: expected shape \(4,\), found \(5,\)"),
        (torch.tensor([1.0, 0.0, 1.0, 1.0]), "monitor: expected positive readings, found 0"),
        (torch.tensor([1.0, torch.nan, 1.0, 1.0]), "monitor: expected positive readings, found nan"),
    ):
        with pytest.raises(ValueError, match=message):
            normalise_beam(counts, monitor)
    with pytest.raises(ValueError, match="reference: expected positive readings, found -1"):
        normalise_beam(counts, torch.ones(4), -1.0)
    with pytest.raises(ValueError, match=r"air: expected one bool for each of 5 bins, some of them true"):
        beam_from_air(counts, torch.zeros(5, dtype=torch.bool))
