"""Hardened beams, made straight again."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from operators.ct.corrections import linearise, polychromatic, water_linearisation
from operators.ct.filtered_backprojection import filtered_backprojection
from operators.ct.geometry import Detector, ImageGrid, ParallelBeam
from operators.ct.ray_transform import RayTransform
from tests.operators.ct.ellipses import Ellipse

ENERGY = torch.linspace(30, 120, 46, dtype=torch.float64)
SPECTRUM = (ENERGY - 25) * (125 - ENERGY)
# Close to water: photoelectric absorption as energy^-3 over a slowly falling Compton part.
WATER = 0.017 + 0.010 * (40 / ENERGY) ** 3


def test_a_polychromatic_beam_hardens() -> None:
    thickness = torch.tensor([1e-6, 10.0, 100.0, 200.0], dtype=torch.float64)
    seen = polychromatic(thickness, SPECTRUM, WATER)
    slope = seen / thickness
    mean = (SPECTRUM * WATER).sum() / SPECTRUM.sum()
    assert slope[0] == pytest.approx(float(mean), rel=1e-4)
    assert bool((slope[1:] < slope[:-1]).all())
    one = polychromatic(thickness, SPECTRUM[:1], WATER[:1])
    torch.testing.assert_close(one, WATER[0] * thickness)


def test_water_of_any_thickness_becomes_linear() -> None:
    thickness = torch.linspace(0, 300, 91, dtype=torch.float64)
    seen = polychromatic(thickness, SPECTRUM, WATER)
    for reference in (None, 0.02):
        factors = water_linearisation(SPECTRUM, WATER, thickest=300.0, reference=reference, degree=5)
        straight = linearise(seen, factors)
        slope = float((SPECTRUM * WATER).sum() / SPECTRUM.sum()) if reference is None else reference
        torch.testing.assert_close(straight, slope * thickness, atol=2e-3 * slope * 300, rtol=0)
        assert float((seen - slope * thickness).abs().max()) > 10 * 2e-3 * slope * 300
    assert linearise(seen.float(), factors).dtype == torch.float32


def test_cupping_disappears_from_the_image() -> None:
    geometry = ParallelBeam(np.linspace(0, np.pi, 120, endpoint=False), Detector(160, 1.0))
    operator = RayTransform(geometry, ImageGrid((80, 80), 2.0))
    length = Ellipse(0, 0, 60, 60).sinogram(geometry)
    soft = WATER + 0.03 * (40 / ENERGY) ** 3
    seen = polychromatic(length, SPECTRUM, soft)
    factors = water_linearisation(SPECTRUM, soft, thickest=130.0, reference=0.02)

    def cup(sinogram: torch.Tensor) -> tuple[float, float]:
        image = filtered_backprojection(operator, sinogram.float())
        return float(image[36:44, 36:44].mean()), float(image[38:42, 60:66].mean())

    middle, rim = cup(seen)
    assert middle < 0.97 * rim
    middle, rim = cup(linearise(seen, factors))
    assert middle == pytest.approx(0.02, rel=0.01)
    assert rim == pytest.approx(middle, rel=0.005)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: water_linearisation(SPECTRUM, WATER[:-1], thickest=1.0), r"the same shape \(energies,\)"),
        (lambda: water_linearisation(SPECTRUM, WATER, thickest=0.0), "expected a positive spectrum"),
        (lambda: water_linearisation(SPECTRUM, -WATER, thickest=1.0), "expected a positive spectrum"),
        (lambda: linearise(torch.ones(3), torch.ones(0)), r"coefficients: expected finite numbers"),
        (lambda: linearise(torch.ones(3), torch.tensor([torch.nan])), "coefficients: expected finite"),
    ],
)
def test_bad_arguments(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
